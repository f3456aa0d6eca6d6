"""What is written is there whole or not at all; two processes at one place are both told the truth."""

import multiprocessing as mp
import os
import stat

import pytest

from lmoe_studio.errors import StorageError
from lmoe_studio.whole import require_free, whole_file, whole_folder

WRITERS, ROUNDS = 3, 30


def _fail_within(place):
    with place as staged:
        (staged / "half" if staged.is_dir() else staged).write_text("half")
        raise ZeroDivisionError


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError):
        _fail_within(whole_file(path))
    assert path.read_text() == "before"
    folder = tmp_path / "folder"
    for overwrite in (False, True):
        with pytest.raises(ZeroDivisionError):
            _fail_within(whole_folder(folder, overwrite=overwrite))
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


def test_a_name_may_be_as_long_as_names_are(tmp_path):
    with whole_file(tmp_path / ("n" * 255)) as staged:
        staged.write_text("whole")
    with whole_folder(tmp_path / ("f" * 255)):
        pass
    assert (tmp_path / ("n" * 255)).read_text() == "whole"
    assert (tmp_path / ("f" * 255)).is_dir()


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path):
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to("real")
    for place in (tmp_path / "link", tmp_path / "real"):
        with whole_file(place) as staged:
            staged.write_text("after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "after"
    os.mkfifo(tmp_path / "pipe")
    with whole_file(tmp_path / "pipe") as staged:
        assert staged == (tmp_path / "pipe").resolve()
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_folder_that_is_there_is_kept_unless_it_may_go(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("there", "dangling"):
        with pytest.raises(StorageError, match="is there already"):
            require_free(tmp_path / name)
    with pytest.raises(StorageError, match="is there already"), whole_folder(tmp_path / "there"):
        pass
    assert (tmp_path / "there" / "mine").exists()
    with whole_folder(tmp_path / "there", overwrite=True) as staged:
        (staged / "yours").touch()
    assert [one.name for one in (tmp_path / "there").iterdir()] == ["yours"]


def test_of_two_that_make_one_folder_the_second_hears_of_it(tmp_path):
    folder = tmp_path / "folder"

    def both():
        with whole_folder(folder), whole_folder(folder) as first:
            (first / "first").touch()

    with pytest.raises(StorageError, match="is there already"):
        both()
    assert [one.name for one in folder.iterdir()] == ["first"]
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


def _write_again_and_again(place, writer, start, heard):
    start.wait()
    for number in range(ROUNDS):
        with whole_file(place / "file") as staged:
            staged.write_bytes(bytes([65 + writer]) * 100_000)
        try:
            with whole_folder(place / f"new-{number}") as staged:
                (staged / "by").write_text(str(writer))
                (staged / "too").write_text(str(writer))
            heard.put((number, writer))
        except StorageError:
            pass


def test_processes_that_write_one_place_mix_nothing_up(tmp_path):
    spawn = mp.get_context("fork")
    start, heard = spawn.Barrier(WRITERS), spawn.SimpleQueue()
    writers = [
        spawn.Process(target=_write_again_and_again, args=(tmp_path, number, start, heard))
        for number in range(WRITERS)
    ]
    for one in writers:
        one.start()
    made = dict(heard.get() for _ in range(ROUNDS))
    for one in writers:
        one.join()
        assert one.exitcode == 0
    assert heard.empty()
    assert len(set((tmp_path / "file").read_bytes())) == 1
    assert len((tmp_path / "file").read_bytes()) == 100_000
    for number in range(ROUNDS):
        folder = tmp_path / f"new-{number}"
        assert {one.name: int(one.read_text()) for one in folder.iterdir()} == {
            "by": made[number], "too": made[number],
        }  # fmt: skip
    assert len(list(tmp_path.iterdir())) == ROUNDS + 1
