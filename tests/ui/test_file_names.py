"""What is said of a file calls it by its name."""

from hashlib import sha256
from pathlib import Path

import pytest
from gradio.utils import get_upload_folder

from lmoe_studio.errors import ConfigError, DataError, LMoEError, StorageError
from lmoe_studio.ui.file_names import in_words
from lmoe_studio.ui.problems import explain, problem_panel

HASH = sha256(b"some bytes").hexdigest()
NAMES = ["texts.csv", "two words.jsonl", "Ça (1).txt", "a/b.toml"]


@pytest.fixture(params=["as it is", "elsewhere", "behind a link"])
def uploads(request, tmp_path, monkeypatch):
    folder = tmp_path / "up (loads)"
    folder.mkdir()
    if request.param == "behind a link":
        (tmp_path / "link").symlink_to(folder)
        folder = tmp_path / "link"
    if request.param != "as it is":
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return Path(get_upload_folder())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [DataError, ConfigError, StorageError, LMoEError])
def test_an_error_names_an_uploaded_file_and_not_where_it_lies(uploads, kind, name):
    file = uploads / HASH / name
    for path in (file, uploads.resolve() / HASH / name):
        error = kind(f"{path}, line 3: no text; see '{path}'.")
        assert explain(error)[1] == f"{name}, line 3: no text; see '{name}'."
        assert str(uploads) not in problem_panel(error)


def test_a_file_with_a_name_of_its_own_keeps_it(uploads):
    file, other = (uploads / HASH / name for name in ("texts.csv", "other.csv"))
    assert in_words(f"{file} and {other}", {file: "the texts"}) == "The texts and other.csv"
    assert in_words("no path", {}) == "no path"
