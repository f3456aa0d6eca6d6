"""Adapters that a visitor gives: what is asked for, hostile archives, and imports in the background."""

import io
import shutil
import struct
import zipfile
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from job_processes import until
from patience import PATIENCE
from tiny_models import make_bank, make_tiny_studio

from lmoe_studio.errors import ConfigError, DataError, JobError
from lmoe_studio.experts.files import load_bank, save_bank
from lmoe_studio.ui.importing.asked import PARTS, PICKLE, AskedImport, GivenAdapter, read_asked
from lmoe_studio.ui.importing.desk import ImportDesk
from lmoe_studio.ui.importing.told import import_panel
from lmoe_studio.ui.importing.unpack import Room, lay_out
from lmoe_studio.ui.training.form import Known
from lmoe_studio.ui.training.texts import Places

KNOWN = Known(bases=("tiny",), banks=("demo", "mine"))


@pytest.fixture
def places(tmp_path):
    uploads, operator = tmp_path / "uploads", tmp_path / "operator"
    (uploads / "x").mkdir(parents=True)
    (operator / "loras" / "sql").mkdir(parents=True)
    (operator / "loras" / "sql" / PARTS[0]).write_text("{}")
    (operator / "out").symlink_to(tmp_path)
    (tmp_path / PARTS[0]).write_text("{}")
    return Places(uploads, operator)


def uploaded(places, name, content=b"x"):
    file = places.uploads / "x" / name
    file.write_bytes(content)
    return {"name": name, "path": str(file)}


def asked(places, *rows, **more):
    said = {"bank": "new", "base": "tiny", "router": "arrow", "rows": list(rows)} | more
    return read_asked(said, places, KNOWN)


# What is asked for


def test_uploads_folders_of_the_operator_and_options_are_read(places):
    row = {"name": "fr", "files": [uploaded(places, one) for one in PARTS]}
    read = asked(places, row, {"name": "sql", "place": "loras/sql"}, top_k=2)
    assert (read.bank, read.base, read.router, read.top_k) == ("new", "tiny", "arrow", 2)
    assert set(read.adapters[0].files) == set(PARTS)
    assert read.adapters[1].folder == places.operator / "loras" / "sql"
    assert places.adapters() == ["loras/sql"]


@pytest.mark.parametrize(
    "place", ["..", "/", "/etc", "out", "loras/../..", "loras/sql/adapter_config.json", "nowhere"]
)
def test_no_folder_but_the_operators_is_taken(places, place):
    with pytest.raises(DataError, match=r"'a': .* is no folder in the operator's folder"):
        asked(places, {"name": "a", "place": place})
    with pytest.raises(DataError, match="is no folder"):
        asked(Places(places.uploads), {"name": "a", "place": place})


@pytest.mark.parametrize("path", ["/etc/passwd", "", None, 3, "../adapter_config.json", "\0"])
def test_no_file_but_an_upload_is_taken(places, path):
    with pytest.raises(DataError, match="upload it again"):
        asked(places, {"name": "a", "files": [{"name": PARTS[0], "path": path}]})


@pytest.mark.parametrize(
    ("more", "error", "says"),
    [
        ({"rows": []}, DataError, "no adapter yet"),
        ({"rows": "x"}, DataError, "no adapter yet"),
        ({"rows": [{"name": "a"}]}, DataError, "has no files"),
        ({"rows": [{"name": "../a", "place": "loras/sql"}]}, ConfigError, "is no name"),
        (
            {"rows": [{"name": "a", "place": "loras/sql"}] * 2},
            DataError,
            "Two experts are named 'a'",
        ),
        ({"rows": [{"name": "a", "place": "loras/sql"}] * 33}, DataError, "at most 32"),
        ({"bank": "a/b"}, ConfigError, "is no name"),
        ({"bank": "demo"}, ConfigError, "There is a bank 'demo' already"),
        ({"base": "/etc"}, ConfigError, "neither smollm2"),
        ({"top_k": True}, ConfigError, "whole number"),
        ({"top_k": 1.5}, ConfigError, "whole number"),
        ({"top_k": "x"}, ConfigError, "whole number"),
    ],
)
def test_what_cannot_be_asked_for_is_one_sentence(places, more, error, says):
    with pytest.raises(error, match=says):
        asked(places, {"name": "a", "place": "loras/sql"}, **more)


def test_nonsense_instead_of_a_form_is_no_adapter(places):
    for said in (None, 3, [], "x"):
        with pytest.raises(DataError, match="no adapter yet"):
            read_asked(said, places, KNOWN)


# Archives


def archive(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as made:
        for name, content in members:
            made.writestr(name, content)
    return GivenAdapter("one", {path.name: path})


def test_one_adapter_of_an_archive_has_the_name_that_was_asked_for(tmp_path):
    given = archive(tmp_path / "a.zip", [(f"deep/er/{part}", part) for part in PARTS])
    found = lay_out(given, tmp_path / "out", Room())
    assert list(found) == ["one"]
    assert {file.name: file.read_text() for file in found["one"].iterdir()} == {p: p for p in PARTS}


def test_several_have_those_of_their_folders_whatever_packed_them(tmp_path):
    folders = ("a/sql", "b/sql", "c\\french", "c/ü b!", "__MACOSX/x")
    members = [(f"{folder}/{part}", "x") for folder in folders for part in PARTS]
    found = lay_out(archive(tmp_path / "a.zip", members), tmp_path / "out", Room())
    assert list(found) == ["sql", "sql-2", "french", "ü-b"]
    assert all((folder / part).is_file() for folder in found.values() for part in PARTS)


def test_nothing_is_written_outside_whatever_the_members_are_called(tmp_path):
    names = [f"../../{PARTS[0]}", f"/{PARTS[0]}", f"..\\..\\x\\{PARTS[0]}", f"a/../../{PARTS[1]}"]
    before = set(tmp_path.rglob("*"))
    given = archive(tmp_path / "a.zip", [(name, "x") for name in names])
    found = lay_out(given, tmp_path / "in" / "out", Room())
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all(
        path.is_relative_to(tmp_path / "in" / "out") for path in written - {tmp_path / "a.zip"}
    )
    assert all(folder.is_relative_to(tmp_path / "in" / "out") for folder in found.values())


def test_a_link_in_an_archive_is_a_file_with_its_text(tmp_path):
    link = zipfile.ZipInfo(f"x/{PARTS[0]}")
    link.external_attr = 0o120777 << 16
    found = lay_out(archive(tmp_path / "a.zip", [(link, "/etc/passwd")]), tmp_path / "out", Room())
    assert not (found["one"] / PARTS[0]).is_symlink()
    assert (found["one"] / PARTS[0]).read_text() == "/etc/passwd"


def test_a_pickle_is_named_and_never_unpacked(tmp_path):
    given = archive(tmp_path / "a.zip", [(f"x/{PICKLE}", b"\x80code"), (f"x/{PARTS[0]}", "{}")])
    found = lay_out(given, tmp_path / "out", Room())
    assert (found["one"] / PICKLE).read_bytes() == b""


def _bomb(path, announced=None):
    """Ten megabytes of zeros; the archive may announce less."""
    given = archive(path, [(f"x/{PARTS[1]}", b"\0" * 10_000_000)], compression=zipfile.ZIP_DEFLATED)
    if announced is not None:
        data = bytearray(path.read_bytes())
        for sign, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
            struct.pack_into("<I", data, data.index(sign) + offset, announced)
        path.write_bytes(data)
    return given


def test_what_comes_out_is_counted_as_it_comes(tmp_path):
    room = Room(25_000_000)
    for number in range(2):
        lay_out(_bomb(tmp_path / f"{number}.zip"), tmp_path / str(number), room)
    with pytest.raises(DataError, match=r"2\.zip unpacks to more than the 23 MB"):
        lay_out(_bomb(tmp_path / "2.zip"), tmp_path / "2", room)
    written = sum(file.stat().st_size for file in (tmp_path / "2").rglob("*") if file.is_file())
    assert written < 6_000_000


def test_an_archive_that_announces_less_gives_no_more_than_that(tmp_path):
    with pytest.raises(DataError, match=r"no sound \.zip"):
        lay_out(_bomb(tmp_path / "a.zip", announced=100), tmp_path / "out", Room())


def _locked(path):
    given = archive(path, [(PARTS[0], "x")])
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    return given


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: archive(path, [("readme.txt", "x")]), "holds no adapter_config.json"),
        (lambda path: archive(path, []), "holds no adapter_config.json"),
        (lambda path: archive(path, [(PARTS[0], "x" * 99)], compression=zipfile.ZIP_LZMA),
         "pack it as plain"),
        (lambda path: archive(path, [(f"{n}/{PARTS[0]}", "x") for n in range(33)]), "at most 32"),
        (lambda path: archive(path, [(str(n), "") for n in range(20_001)]), "more than 20,000 files"),
        (_locked, "locked with a password"),
    ],
)  # fmt: skip
def test_an_archive_of_no_use_says_why(tmp_path, make, says):
    with pytest.raises(DataError, match=f"a.zip .*{says}"):
        lay_out(make(tmp_path / "a.zip"), tmp_path / "out", Room())


def test_damage_anywhere_is_a_sentence(tmp_path):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as one:
        for part in PARTS:
            one.writestr(f"x/{part}", bytes(range(256)) * 4)
    whole = made.getvalue()
    place = tmp_path / "a.zip"
    for at in range(0, len(whole), 7):
        for damaged in (whole[:at], whole[:at] + b"\xff" + whole[at + 1 :]):
            place.write_bytes(damaged)
            out = tmp_path / "out" / f"{at}-{len(damaged)}"
            with suppress(DataError):  # and nothing else
                lay_out(GivenAdapter("one", {"a.zip": place}), out, Room())


# In the background


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    studio = make_tiny_studio()
    bank = save_bank(make_bank(studio.base.model), tmp_path_factory.mktemp("bank") / "b")
    return studio, bank / "experts"


def job(experts, *names, **more):
    adapters = tuple(GivenAdapter(name, folder=experts[1] / name) for name in names)
    return AskedImport(**{"bank": "mine", "base": "tiny", "router": "arrow", "top_k": None,
                          "adapters": adapters} | more)  # fmt: skip


def seen(desk, user) -> Any:
    return desk.of(user)


def ended(desk, user) -> Any:
    until(lambda: seen(desk, user).is_over)
    return seen(desk, user)


def test_an_import_makes_a_bank_and_says_what_was_left_out(experts, tmp_path):
    desk = ImportDesk(lambda: tmp_path)
    desk.start("ann", job(experts, "sql", "gone"), experts[0].base)
    state = ended(desk, "ann")
    assert (state.taken, list(state.refused)) == (("sql",), ["gone"])
    assert load_bank(tmp_path / "mine").expert_names == ("sql",)
    assert desk.of("bob") is None
    told = import_panel(state)
    assert "1 adapter became its experts" in told.replace("one", "1")
    assert "cannot be opened" in told


def test_what_was_taken_where_there_was_a_choice_is_told(experts, tmp_path):
    for step in (9, 10):
        shutil.copytree(experts[1] / "sql", tmp_path / "run" / f"checkpoint-{step}")
    run = (GivenAdapter("sql", folder=tmp_path / "run"),)
    desk = ImportDesk(lambda: tmp_path)
    desk.start("ann", job(experts, adapters=run), experts[0].base)
    state = ended(desk, "ann")
    assert state.taken == ("sql",)
    assert "&#x27;checkpoint-10&#x27; was taken, the last of 2" in import_panel(state)


@pytest.mark.parametrize(
    ("more", "title", "says"),
    [
        ({"router": "nonsense"}, "was not made", "nonsense"),
        ({"top_k": 0}, "was not made", "top_k"),
        ({"base": "no/such"}, "It did not work", "no/such"),
        ({"bank": "taken"}, "was not made", "there already"),
    ],
)
def test_what_keeps_a_bank_from_being_made_is_told(
    experts, tmp_path, monkeypatch, more, title, says
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "taken").mkdir()
    desk = ImportDesk(lambda: tmp_path)
    desk.start("ann", job(experts, "sql", **more), experts[0].base)
    state = ended(desk, "ann")
    assert title in state.problem[0]
    assert says in state.problem[1]


def test_stopped_it_writes_nothing_and_the_next_may_begin(experts, tmp_path):
    go_on = Event()

    def banks():
        assert go_on.wait(PATIENCE)
        return tmp_path

    desk = ImportDesk(banks)
    desk.start("ann", job(experts, "sql"), experts[0].base)
    with pytest.raises(JobError, match="Another import is under way"):
        desk.start("bob", job(experts, "math"), experts[0].base)
    desk.stop("bob")
    assert not seen(desk, "ann").is_stopping
    desk.stop("ann")
    assert seen(desk, "ann").is_stopping
    go_on.set()
    assert ended(desk, "ann").was_stopped
    assert not list(tmp_path.iterdir())
    desk.start("bob", job(experts, "math"), experts[0].base)
    assert ended(desk, "bob").taken == ("math",)
    assert seen(desk, "ann").was_stopped


def test_two_archives_with_experts_of_one_name_say_so(experts, tmp_path):
    files = [
        (f"{n}/{part}", (experts[1] / "sql" / part).read_bytes())
        for n in ("sql", "math") for part in PARTS
    ]  # fmt: skip
    given = [archive(tmp_path / f"{n}.zip", files) for n in "ab"]
    adapters = (given[0], GivenAdapter("two", given[1].files))
    desk = ImportDesk(lambda: tmp_path / "banks")
    desk.start("", job(experts, adapters=adapters), experts[0].base)
    state = ended(desk, "")
    assert state.taken == ("sql", "math")
    assert set(state.refused) == {"sql", "math"}
    assert all("another" in why.lower() for why in state.refused.values())
    assert Path(tmp_path / "banks" / "mine" / "bank.json").is_file()
