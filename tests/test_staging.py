"""What a killed writer leaves goes with the next writer; what a living one makes stays."""

import threading

import pytest
from job_processes import kill, run_python

from lmoe_studio.errors import StorageError
from lmoe_studio.locks import FileLock
from lmoe_studio.staging import staging_in
from lmoe_studio.whole import whole_file, whole_folder

WRITER = """
import sys, time
from pathlib import Path
from lmoe_studio import whole
place = Path(sys.argv[2])
options = {"overwrite": True} if sys.argv[1] == "whole_folder" else {}
with getattr(whole, sys.argv[1])(place, **options) as staged:
    (staged / "half" if staged.is_dir() else staged).write_text("half")
    if sys.argv[3] == "before it is in place":
        Path.rename = lambda path, target: path.replace(target) if path == place else wait()
    def wait():
        print("writing", flush=True)
        time.sleep(600)
    if sys.argv[3] == "half":
        wait()
"""


def writer(kind, place, stage="half"):
    """A process that is writing and goes no further."""
    process = run_python(WRITER, kind, place, stage)
    assert process.stdout.readline() == "writing\n", process.stderr.read()
    return process


def end(process):
    kill(process.pid)
    process.communicate()


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def write(kind, place):
    if kind == "whole_file":
        with whole_file(place) as staged:
            staged.write_text("whole")
    else:
        with whole_folder(place) as staged:
            (staged / "whole").touch()


@pytest.mark.parametrize("kind", ["whole_file", "whole_folder"])
def test_what_the_dead_have_left_goes_with_the_next_writer(tmp_path, kind):
    (tmp_path / ".writing-of-mine").write_text("a file of this name is nobody's folder")
    living, dead = (writer(kind, tmp_path / name) for name in ("living", "dead"))
    before = names_in(tmp_path)
    end(dead)
    write(kind, tmp_path / "next")
    left = names_in(tmp_path)
    assert len(before - left) == 1
    assert left - before == {"next"}
    end(living)
    write(kind, tmp_path / "last")
    assert names_in(tmp_path) == {".writing-of-mine", "next", "last"}


def test_what_was_to_be_replaced_comes_back(tmp_path):
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank" / "old").touch()
    dead = writer("whole_folder", tmp_path / "bank", "before it is in place")
    assert not (tmp_path / "bank").exists()
    end(dead)
    with pytest.raises(StorageError, match="there already"):
        write("whole_folder", tmp_path / "bank")
    assert names_in(tmp_path) == {"bank"}
    assert names_in(tmp_path / "bank") == {"old"}


def test_many_writers_at_one_place_sweep_none_of_each_other(tmp_path):
    lost = []

    def work(name):
        for number in range(60):
            with staging_in(tmp_path) as staging:
                (staging / "a").touch()
                if not staging.exists():
                    lost.append((name, number))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (lost, names_in(tmp_path)) == ([], set())


def test_where_no_folder_can_be_locked_all_works_and_nothing_is_swept(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(37, "No locks available")

    (tmp_path / ".writing-other").mkdir()
    monkeypatch.setattr(FileLock, "of_folder", refuse)
    write("whole_file", tmp_path / "a")
    write("whole_folder", tmp_path / "b")
    assert names_in(tmp_path) == {".writing-other", "a", "b"}
