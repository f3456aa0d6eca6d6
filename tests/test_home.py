"""Where a person's folders are, by the variables that say so."""

import os
import pwd
from pathlib import Path
from unittest.mock import patch

import pytest

from lmoe_studio.errors import StorageError
from lmoe_studio.home import cache_folder, home_folder

FOLDERS = [
    (home_folder, "LMOE_HOME", "XDG_DATA_HOME", ".local/share"),
    (cache_folder, "LMOE_CACHE", "XDG_CACHE_HOME", ".cache"),
]


@pytest.fixture(autouse=True)
def _restored():
    with patch.dict(os.environ, {"HOME": "/person"}):
        for name in ("LMOE_HOME", "LMOE_CACHE", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
            os.environ.pop(name, None)
        yield


@pytest.mark.parametrize(("folder", "own", "xdg", "usual"), FOLDERS)
def test_our_own_variable_then_xdg_then_the_usual_place(folder, own, xdg, usual):
    for value in (
        None,
        "",
        "relative/place",
        "~/x",
    ):  # the last three are none, by the rules of XDG
        os.environ.update({} if value is None else {xdg: value})
        assert folder() == Path("/person") / usual / "lmoe-studio"
    os.environ[xdg] = "/shared"
    assert folder() == Path("/shared/lmoe-studio")
    for value, expected in [("~/x", "/person/x"), ("here", Path.cwd() / "here"), ("/a b", "/a b")]:
        os.environ[own] = value
        assert folder() == Path(expected)
    os.environ[own] = " "
    assert folder() == Path("/shared/lmoe-studio")


@pytest.mark.parametrize(("folder", "own", "xdg", "usual"), FOLDERS)
def test_a_user_without_a_home_is_told_which_variable_to_set(folder, own, xdg, usual, monkeypatch):
    def unknown(_):
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    del os.environ["HOME"]
    with pytest.raises(StorageError, match=f"no home folder; set {own}"):
        folder()
    os.environ[own] = "~/x"
    with pytest.raises(StorageError, match=f"no home folder; set {own}"):
        folder()
    os.environ[own] = "/place"
    assert folder() == Path("/place")
