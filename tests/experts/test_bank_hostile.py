"""Banks from strangers: each is refused at once, in one sentence, and never routed otherwise.

The letters are those of the adapters' suite; a bank whose manifest was written by the same hand
(`stamped`) is looked at as closely as one that was changed on its way.
"""

import hashlib
import json
import os
import shutil
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import make_bank, make_tiny_base, make_tiny_tokenizer

from lmoe_studio.errors import LMoEError
from lmoe_studio.experts.files import load_bank, read_card, save_bank
from lmoe_studio.experts.places import shipped_banks
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.studio import Studio

WEIGHTS = "experts/sql/adapter_model.safetensors"
CONFIG = "experts/sql/adapter_config.json"
ROUTER = "router.safetensors"
DEEP = b'{"a":' + b"[" * 200_000
LONG = b'{"a": ' + b"9" * 5000 + b"}"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = save_bank(make_bank(make_tiny_base()), tmp_path_factory.mktemp("good") / "bank")
    (folder / "training.json").write_text('{"held_out": 1.0}')
    stamp(folder)
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "bank")


def stamp(folder):
    """Write the manifest anew, for what is there."""
    names = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    listed = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in names
        if path.name != "manifest.json" and path.stat().st_size < 1 << 24
    }
    (folder / "manifest.json").write_text(json.dumps(listed))


# Each case is a change to a good bank. ------------------------------------------------------------


def stamped(change):
    def both(folder):
        change(folder)
        stamp(folder)

    return both


def raw(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def bank_json(**fields):
    def change(folder):
        values = json.loads((folder / "bank.json").read_text())
        (folder / "bank.json").write_text(json.dumps(values | fields))

    return stamped(change)


def router(**settings):
    return bank_json(router=settings)


def expert(name):
    def change(folder):
        values = json.loads((folder / "bank.json").read_text())
        values["experts"][0]["name"] = name.format(folder=folder)
        (folder / "bank.json").write_text(json.dumps(values))

    return stamped(change)


def manifest(content):
    return raw("manifest.json", json.dumps(content).encode())


def tensors(change, name=ROUTER):
    def rewrite(folder):
        found = load_file(folder / name)
        changed = change(found)
        save_file(found if changed is None else changed, folder / name)

    return stamped(rewrite)


def renamed(found):
    return {name.replace("layers.", "blocks."): tensor for name, tensor in found.items()}


def first(value):
    def change(found):
        found["layers.0.weight"][0, 0] = value

    return tensors(change)


def gone(name):
    return lambda folder: (folder / name).unlink()


def fifo(name):
    def change(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def link(name, target):
    def change(folder):
        path, kept = folder / name, folder.parent / "kept"
        path.rename(kept)
        path.symlink_to(target.format(kept=kept))

    return change


def unlisted(name):
    def change(folder):
        listed = json.loads((folder / "manifest.json").read_text())
        del listed[name]
        (folder / "manifest.json").write_text(json.dumps(listed))

    return change


def sparse(name):
    def change(folder):
        with (folder / name).open("r+b") as file:
            file.truncate(20 << 30)

    return change


def both(*changes):
    def change(folder):
        for one in changes:
            one(folder)

    return change


def all_values(value):
    def change(found):
        return {name: torch.full_like(tensor, value) for name, tensor in found.items()}

    return tensors(change, WEIGHTS)


def many_tensors():
    entries = {f"x{n}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]}
               for n in range(10_001)}  # fmt: skip
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4 * 10_001)


FILES = ("bank.json", "manifest.json", "training.json", ROUTER, CONFIG, WEIGHTS)
JSON = ("bank.json", "manifest.json", "training.json")

CASES = {
    "A3 expert elsewhere": (expert("../../other/experts/sql"), "an expert's name"),
    "A3 expert absolute": (expert("{folder}/experts/sql"), "an expert's name"),
    "A3 expert dots": (expert(".."), "an expert's name"),
    "A3 expert without a name": (expert(""), "an expert's name"),
    "A3 expert in a folder": (expert("a/b"), "an expert's name"),
    "A3 expert half a character": (expert("\ud800"), "half a character"),
    "A3 manifest elsewhere": (manifest({"../secret": "0"}), "outside the folder"),
    "A3 manifest absolute": (manifest({"/etc/passwd": "0"}), "outside the folder"),
    "A3 manifest long name": (manifest({"x" * 100_000: "0"}), "outside the folder"),
    "A3 manifest control characters": (manifest({"\x1b[2J": "0"}), r"\x1b[2J"),
    "A3 experts a link": (link("experts", "{kept}"), "experts is missing, or a link"),
    "A3 expert a link": (link("experts/sql", "{kept}"), "experts/sql is missing, or a link"),
    "A4 bank.json a pipe": (fifo("bank.json"), "no bank"),
    **{f"A4 {name} a pipe": (fifo(name), name) for name in FILES[1:]},
    **{f"A4 {name} a link": (link(name, "{kept}"), "a symbolic link") for name in FILES},
    **{f"A4 {name} endless": (link(name, "/dev/zero"), "") for name in FILES},
    **{f"A4 {name} of 20 GB": (sparse(name), "") for name in FILES},
    "A4 router a pipe, not listed": (both(fifo(ROUTER), unlisted(ROUTER)), "a named pipe"),
    "A4 training a pipe, not listed": (
        both(fifo("training.json"), unlisted("training.json")), "a named pipe"),
    **{f"A6 {name} changed": (lambda folder, n=name: (folder / n).write_bytes(
        (folder / n).read_bytes() + b" "), "") for name in FILES if name != "manifest.json"},
    **{f"A6 {name} gone": (gone(name), name.rsplit("/")[-1]) for name in FILES},
    **{f"A6 {name} empty": (stamped(raw(name, b"")), name.rsplit("/")[-1]) for name in FILES
       if name != "manifest.json"},
    "A6 no manifest entries": (manifest({}), "bank.json is not listed"),
    **{f"A6 {name} not listed": (unlisted(name), f"{name} is not listed") for name in FILES
       if name != "manifest.json"},
    "A6 router a pickle": (stamped(raw(ROUTER, b"\x80\x04abc")), "a Python pickle"),
    "A6 many tensors": (stamped(raw(ROUTER, many_tensors())), "lists 10,001 tensors"),
    "A6 router float8": (
        tensors(lambda found: {n: t.to(torch.float8_e4m3fn) for n, t in found.items()}), "F8_E4M3"),
    "A6 router float64": (
        tensors(lambda found: {n: t.double() for n, t in found.items()}), "'F64'"),
    "A7 router nan": (first(np.nan), "the value nan"),
    "A7 router inf": (first(np.inf), "the value inf"),
    "A7 router large": (first(3e38), "the value 3e+38"),
    "A7 expert of 65,504": (all_values(65504.0), "where at most 1e+06"),
    "A7 expert of 10,000": (all_values(10_000.0), "where at most 1e+06"),
    **{f"A7 temperature {t}": (router(temperature=t), "temperature")
       for t in (0, -1, 1e-300, 1e-40, 1e300)},
    "A7 temperature nan": (
        stamped(raw("bank.json", b'{"router": {"temperature": NaN}}')), "temperature"),
    **{f"A7 blend {w}": (router(kind="blend", blend={"sql": w}), "weights.sql")
       for w in (50_000, -1e9, float("nan"), float("inf"))},
    "A7 top k": (router(top_k=0), "top_k"),
    "A8 blend of a stranger": (router(kind="blend", blend={"x": 1}), "no expert 'x'"),
    "A8 no such kind": (router(kind="evil"), "no router of kind 'evil'"),
    "A8 arrow by layer": (router(kind="arrow"), "its scope is 'module'"),
    "A8 no router": (stamped(gone(ROUTER)), "'layers.0.weight' is missing"),
    "A8 router of no tensors": (tensors(lambda found: {}), "'layers.0.weight' is missing"),
    "A8 a router tensor missing": (
        tensors(lambda found: {n: t for n, t in found.items() if n != "layers.1.bias"}),
        "'layers.1.bias' is missing"),
    "A8 a router tensor more": (
        tensors(lambda found: found | {"layers.9.bias": torch.zeros(3)}), "'layers.9.bias'"),
    "A8 router renamed": (tensors(renamed), "is missing"),
    "A8 router of two experts": (
        tensors(lambda found: {n: t[:2].clone() for n, t in found.items()}), "has shape 2"),
    "A8 router turned": (
        tensors(lambda found: {n: t.flip(0)[None] for n, t in found.items() if t.ndim == 1}
                | {n: t.mT.contiguous() for n, t in found.items() if t.ndim == 2}), "has shape"),
    "A8 router for another scope": (router(scope="shared"), "'shared.weight' is missing"),
    "A8 router for modules": (router(scope="module"), "is missing"),
    "A8 a router too many": (router(kind="uniform"), "a uniform router of these experts does not"),
    "A8 no experts": (bank_json(experts=[]), "no experts"),
    "A8 two of a name": (
        bank_json(experts=[{"name": "sql"}, {"name": "sql"}]), "two experts named sql"),
    "A8 base a list": (bank_json(base=["x"]), "base"),
    "A8 base without a name": (bank_json(base={"id": "", "fingerprint": "x"}), "base.id"),
    "A8 base of control characters": (
        bank_json(base={"id": "\x1b[2J", "fingerprint": "x"}), "base.id"),
    "A8 another schema": (bank_json(schema_version=2), "schema_version"),
    "A8 unknown field": (bank_json(**{"\x1b[2J": 1}), "unknown option"),
    "A8 many wrong experts": (bank_json(experts=[{}] * 10_000), "and 9,995 more"),
    **{f"A11 {name} deep": (stamped(raw(name, DEEP)) if name != "manifest.json"
                            else raw(name, DEEP), "nested too deeply") for name in JSON},
    **{f"A11 {name} long number": (stamped(raw(name, LONG)) if name != "manifest.json"
                                   else raw(name, LONG), "") for name in JSON},
    **{f"A11 {name} twice": (stamped(raw(name, b'{"a": 1, "a": 2}')) if name != "manifest.json"
                             else raw(name, b'{"a": 1, "a": 2}'), "occurs twice") for name in JSON},
    **{f"A11 {name} a list": (stamped(raw(name, b"[]")) if name != "manifest.json"
                              else raw(name, b"[]"), "no JSON object") for name in JSON},
    **{f"A11 {name} Latin-1": (stamped(raw(name, b'{"\xe9": 1}')) if name != "manifest.json"
                               else raw(name, b'{"\xe9": 1}'), "not UTF-8") for name in JSON},
    "A11 half a character in training.json": (
        stamped(raw("training.json", b'{"held_out": "\\ud800"}')), "half a character"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_bank_is_refused_in_one_sentence(name, folder, nothing_is_run):
    change, says = CASES[name]
    change(folder)
    nothing_is_run()

    with pytest.raises(LMoEError) as caught:
        load_bank(folder)

    message = str(caught.value)
    assert says in message
    assert message.endswith(".")
    assert message.isprintable()
    assert len(message) < 1500
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def wide(found):
    return {n: torch.zeros(3, 7) if n.endswith("weight") else t for n, t in found.items()}


def test_a_router_for_another_width_is_refused_where_the_base_is_known(folder):
    tensors(wide)(folder)
    bank, base = load_bank(folder), make_tiny_base()
    before = {name: type(module) for name, module in base.named_modules()}
    with pytest.raises(LMoEError, match=r"'layers.0.weight' has shape 3 × 7 where 3 × 32 was"):
        MixtureModel(base, bank)
    assert {name: type(module) for name, module in base.named_modules()} == before


def test_a_bank_whose_routers_are_yet_to_be_trained_loads_and_does_not_route(tmp_path):
    bank = make_bank(make_tiny_base()).with_router(RouterSettings())
    again = load_bank(save_bank(bank, tmp_path / "bank"))
    assert again.router_state == {}
    with pytest.raises(LMoEError, match="is missing; copy the bank again, or train its router"):
        MixtureModel(make_tiny_base(), again)


@pytest.mark.parametrize("scope", ["layer", "shared", "module"])
def test_a_router_without_tensors_is_new_only_where_that_is_said(scope):
    settings = RouterSettings(scope=scope)
    bank = make_bank(make_tiny_base(), router=settings)
    bare = bank.with_router(settings)
    with pytest.raises(LMoEError, match="is missing; copy the bank again, or train its router"):
        MixtureModel(make_tiny_base(), bare)
    model = MixtureModel(make_tiny_base(), bare, new_routers=True)
    assert all(not parameter.any() for parameter in model.routers.parameters())
    half = dict(list(bank.router_state.items())[1:])
    with pytest.raises(LMoEError, match="is missing"):
        MixtureModel(make_tiny_base(), bank.with_router(settings, half), new_routers=True)


@pytest.mark.parametrize(
    "case",
    ["A3 expert elsewhere", "A4 training.json endless", "A8 no router", "A11 bank.json deep"],
)
def test_every_way_in_refuses_it(case, folder, lmoe):
    CASES[case][0](folder)
    code, out, err = lmoe("inspect", folder)
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    with pytest.raises(LMoEError):
        Studio.load(folder)


def test_what_does_no_harm_is_passed_over(folder):
    (folder / "README.md").write_text("# mine\n")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    (folder / "notes").mkdir()
    assert load_bank(folder).expert_names == ("sql", "prose", "math")


def test_a_card_is_an_ordinary_file(folder):
    assert read_card(folder) is None
    (folder / "README.md").symlink_to("/etc/passwd")
    with pytest.raises(LMoEError, match="symbolic link"):
        read_card(folder)
    (folder / "README.md").unlink()
    (folder / "README.md").write_bytes(b"caf\xe9")
    assert read_card(folder) == "caf�"


@pytest.mark.parametrize("name", shipped_banks())
def test_the_banks_that_come_with_it_load(name):
    assert load_bank(name).experts


@pytest.mark.parametrize("place", ["x" * 5000, "a\0b", "../" * 2000])
def test_what_is_no_place_is_no_bank(place):
    with pytest.raises(LMoEError, match="There is no bank"):
        load_bank(place)


def test_values_that_overflow_are_said_and_no_empty_text_is_written(tmp_path):
    """Finite values of a size that passes alone can overflow together, deep in the model."""
    base = make_tiny_base()
    with torch.no_grad():
        base.model.layers[1].mlp.up_proj.weight.fill_(3e38)
    studio = Studio(base, make_tiny_tokenizer(), make_bank(base))
    for options in ({}, {"temperature": 1.0}):
        with pytest.raises(LMoEError, match="no finite scores"):
            studio.generate("hello", max_new_tokens=3, **options)
    with pytest.raises(LMoEError, match="no finite scores"):
        studio.trace("hello")
    texts = ["hello", "a longer text", "x"]
    with pytest.raises(LMoEError, match="no finite scores"):
        studio.evaluate(texts)
    for options in ({}, {"contributions": True}):
        with pytest.raises(LMoEError, match="no finite scores"):
            studio.trace_corpus(texts, out=tmp_path, **options)
    assert not list(tmp_path.rglob("*.parquet"))
