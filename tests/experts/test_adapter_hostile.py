"""Folders from strangers: each is refused at once, in one sentence, and no code of theirs runs.

The letters are those of the threat model: A1 pickles, A2 code named by a field, A3 paths, A4 what
is no ordinary file, A6 damaged files, A7 numbers, A8 another base model, A9 regular expressions,
A10 changes to the base model, A11 configurations made to break the parser.
"""

import json
import os
import pickle
import random
import socket
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from lmoe_studio.errors import AdapterError
from lmoe_studio.experts.adapter import read_adapter

pytestmark = pytest.mark.usefixtures("nothing_is_run")

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Q, K = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"
SHAPES = {Q: (8, 8), K: (4, 8), "model.layers.0.mlp.up_proj": (12, 8)}
GOOD_FIELDS = {
    "peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 2, "lora_alpha": 4,
    "target_modules": ["q_proj", "k_proj"], "bias": "none", "use_dora": False,
}  # fmt: skip
REDOS = "(([a-z_.0-9]+)+)+!"
WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "BOOL": 1}


def key(path, side):
    return f"base_model.model.{path}.lora_{side}.weight"


GOOD_TENSORS = {
    key(Q, "A"): [2, 8], key(Q, "B"): [8, 2], key(K, "A"): [2, 8], key(K, "B"): [4, 2],
}  # fmt: skip


def pack(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entries(tensors, dtype="F32"):
    """A safetensors header for tensors by shape, and how many bytes of data it needs."""
    found, end = {}, 0
    for name, shape in tensors.items():
        begin, end = end, end + WIDTHS[dtype] * int(np.prod(shape, dtype=object))
        found[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    return found, end


def packed(tensors, dtype="F32"):
    header, size = entries(tensors, dtype)
    return pack(header, b"\0" * size)


def write_good(folder):
    folder.mkdir(exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(GOOD_FIELDS))
    (folder / WEIGHTS).write_bytes(packed(GOOD_TENSORS))
    return folder


# Each case is a change to a good folder. ----------------------------------------------------------


def field(name, value):
    def change(folder):
        (folder / CONFIG).write_text(json.dumps(GOOD_FIELDS | {name: value}))

    return change


def without(name):
    def change(folder):
        fields = {key: value for key, value in GOOD_FIELDS.items() if key != name}
        (folder / CONFIG).write_text(json.dumps(fields))

    return change


def config_bytes(raw):
    return lambda folder: (folder / CONFIG).write_bytes(raw)


def weights(raw):
    return lambda folder: (folder / WEIGHTS).write_bytes(raw)


def more(name, shape):
    return weights(packed(GOOD_TENSORS | {name: shape}))


def fewer(*names):
    return weights(packed({n: shape for n, shape in GOOD_TENSORS.items() if n not in names}))


def stored_as(dtype):
    return weights(packed(GOOD_TENSORS, dtype))


def header(change):
    """Changes the header but not the data."""
    found, size = entries(GOOD_TENSORS)
    change(found)
    return weights(pack(found, b"\0" * size))


def entry(**changes):
    return header(lambda found: found[key(K, "B")].update(changes))


def value(number, *, place=0, dtype="<f4"):
    """Puts one number into the data."""
    found, size = entries(GOOD_TENSORS)
    data = np.zeros(size // 4, dtype)
    data[place] = number
    return weights(pack(found, data.tobytes()))


def instead(name, make):
    """Puts something else in the place of a file."""

    def change(folder):
        (folder / name).rename(folder.parent / ("real_" + name))
        make(folder / name, folder.parent / ("real_" + name))

    return change


def bind_socket(path, _):
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(path.parent)  # the whole path is too long for a socket
        one.bind(path.name)
        os.chdir(here)


def sparse(name, size, start=b""):
    def change(folder):
        with (folder / name).open("wb") as file:
            file.write(start)
            file.truncate(size)

    return change


class Evil:
    """Leaves a file behind when it is unpickled."""

    canary = ""

    def __reduce__(self):
        return open, (self.canary, "w")


def pickled(kind, name):
    """A pickle under some name and no safetensors, or in their place."""

    def change(folder):
        Evil.canary = str(folder.parent / "canary")
        (folder / WEIGHTS).unlink()
        path = folder / name
        if kind == "zip":
            torch.save(Evil(), path)
        elif kind == "legacy":
            torch.save(Evil(), path, _use_new_zipfile_serialization=False)
        elif kind == "numpy":
            with path.open("wb") as file:
                np.save(file, np.array([Evil()], dtype=object), allow_pickle=True)
        else:
            path.write_bytes(pickle.dumps(Evil(), protocol=kind))

    return change


def drop_config(folder):
    (folder / CONFIG).unlink()


def shard_index(folder):
    (folder / WEIGHTS).rename(folder.parent / "outside.safetensors")
    index = {"weight_map": dict.fromkeys(GOOD_TENSORS, "../outside.safetensors")}
    (folder / (WEIGHTS + ".index.json")).write_text(json.dumps(index))


def swapped(old, new):
    renamed = {name.replace(old, new): shape for name, shape in GOOD_TENSORS.items()}
    return weights(packed(renamed))


GOOD_HEADER = json.dumps(entries(GOOD_TENSORS)[0])
GOOD_DATA = b"\0" * entries(GOOD_TENSORS)[1]
GOOD_JSON = json.dumps(GOOD_FIELDS)
MANY = {f"{n}": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]} for n in range(10_001)}
WIDER = {name: [16 if n == 8 else n for n in shape] for name, shape in GOOD_TENSORS.items()}

# name of the case: (the change, a piece of the message)
CASES = {
    **{
        f"A1 {kind} as {name}": (pickled(kind, name), f"'{name}', a pickle")
        for kind, name in [
            ("zip", "adapter_model.bin"), ("legacy", "model.pt"), (4, "weights.pkl"),
            (2, "last.ckpt"), ("zip", "adapter.PTH"),
        ]
    },
    "A1 renamed zip": (pickled("zip", WEIGHTS), "is a zip archive, as torch.save writes it"),
    "A1 renamed legacy torch file": (pickled("legacy", WEIGHTS), "is a Python pickle"),
    "A1 renamed pickle": (pickled(4, WEIGHTS), "is a Python pickle"),
    "A1 renamed old pickle": (pickled(0, WEIGHTS), "is no such file"),
    "A1 renamed numpy": (pickled("numpy", WEIGHTS), "is a NumPy file"),
    "A1 gguf": (weights(b"GGUF" + bytes(99)), "is a GGUF file"),
    "A1 safetensors with a pickle behind": (
        weights(packed(GOOD_TENSORS) + pickle.dumps("x")), "bytes of data where its header",
    ),
    "A2 auto_map": (field("auto_map", {"AutoModel": "evil.Model"}), "it names code to import"),
    "A2 trust_remote_code": (field("trust_remote_code", True), "it names code to import"),
    "A2 auto_mapping": (field("auto_mapping", "antigravity"), "'auto_mapping'"),
    "A2 auto_mapping library": (
        field("auto_mapping", {"base_model_class": "x", "parent_library": "antigravity"}),
        "a class of transformers",
    ),
    "A2 auto_mapping more": (
        field(
            "auto_mapping",
            {"base_model_class": "x", "parent_library": "transformers", "custom": "evil"},
        ),
        "'auto_mapping'",
    ),
    "A2 megatron_core": (field("megatron_core", "os"), "'megatron_core'"),
    "A2 megatron_config": (field("megatron_config", {"a": 1}), "'megatron_config'"),
    "A2 attention": (field("use_evil", "evil/kernel"), "'use_evil'"),
    "A2 cache file": (field("corda_config", {"cache_file": "/etc/passwd"}), "'corda_config'"),
    "A2 config of no LoRA": (field("evil_config", {"x": 1}), "'evil_config'"),
    "A3 shard index": (shard_index, f"has no {WEIGHTS}"),
    "A3 key with a path": (more("../../etc/passwd", [1, 1]), "'../../etc/passwd'"),
    "A3 key with NUL": (more(key(Q + "\0", "A"), [2, 8]), r"q_proj\x00"),
    "A3 drive letter": (more(r"C:\x", [1, 1]), r"C:\\x"),
    "A3 model in another place": (swapped("base_model.model", ".."), "'...model.layers"),
    "A4 linked weights": (instead(WEIGHTS, Path.symlink_to), "is a symbolic link"),
    "A4 linked config": (instead(CONFIG, Path.symlink_to), "is a symbolic link"),
    "A4 dangling link": (
        instead(WEIGHTS, lambda path, _: path.symlink_to("/nowhere")), "is a symbolic link",
    ),
    "A4 device": (
        instead(WEIGHTS, lambda path, _: path.symlink_to("/dev/zero")), "is a symbolic link",
    ),
    "A4 pipe as weights": (instead(WEIGHTS, lambda path, _: os.mkfifo(path)), "is a named pipe"),
    "A4 pipe as config": (instead(CONFIG, lambda path, _: os.mkfifo(path)), "is a named pipe"),
    "A4 socket": (instead(WEIGHTS, bind_socket), "is a socket"),
    "A4 folder as weights": (instead(WEIGHTS, lambda path, _: path.mkdir()), "is a folder"),
    "A4 folder as config": (instead(CONFIG, lambda path, _: path.mkdir()), "is a folder"),
    "A4 no config": (drop_config, f"has no {CONFIG}"),
    "A6 empty file": (weights(b""), "is empty"),
    "A6 eight bytes": (weights(bytes(8)), "no such file"),
    "A6 text": (weights(b"version https://git-lfs.github.com/spec/v1\n"), "b'version h'"),
    "A6 cut short": (weights(packed(GOOD_TENSORS)[:-1]), "copy the file again"),
    "A6 trailing bytes": (weights(packed(GOOD_TENSORS) + b"\0"), "bytes of data"),
    "A6 huge header": (sparse(WEIGHTS, 2 << 20, struct.pack("<Q", 2 << 20) + b"{"), "2,097,152"),
    "A6 endless header": (weights(b"\xff" * 8 + b"{}"), "announces a header of 18,446,744"),
    "A6 header beyond the file": (weights(struct.pack("<Q", 999) + b'{"a": '), "not valid"),
    "A6 many tensors": (weights(pack(MANY, b"\0" * 4)), "lists 10,001 tensors"),
    "A6 deep header": (weights(pack(b'{"a":' + b"[" * 200_000, b"")), "nested too deeply"),
    "A6 duplicate tensor": (
        weights(pack((GOOD_HEADER[:-1] + ", " + GOOD_HEADER[1:]).encode(), GOOD_DATA)),
        "occurs twice",
    ),
    "A6 duplicate dtype": (
        weights(pack(GOOD_HEADER.replace('"shape"', '"dtype": "F32", "shape"').encode(), GOOD_DATA)),
        "'dtype' occurs twice",
    ),
    "A6 header is a list": (weights(pack(b"[]", b"")), "no such file"),
    "A6 no tensor": (weights(pack({}, b"")), "no lora_A and no lora_B"),
    "A6 only metadata": (weights(pack({"__metadata__": {"a": "b"}}, b"")), "no lora_A"),
    "A6 int64": (stored_as("I64"), "in 'I64' where one of F32, F16, BF16"),
    "A6 float64": (stored_as("F64"), "in 'F64'"),
    "A6 float8": (stored_as("F8_E4M3"), "in 'F8_E4M3'"),
    "A6 bool": (stored_as("BOOL"), "in 'BOOL'"),
    "A6 unknown dtype": (entry(dtype="F128"), "'F128'"),
    "A6 dtype a list": (entry(dtype=["F32"]), "where dtype, shape and data_offsets"),
    "A6 more in an entry": (entry(code="x"), "where dtype, shape and data_offsets"),
    "A6 entry a number": (header(lambda found: found.update(x=1)), "describes the tensor 'x' as 1"),
    "A6 vector": (entry(shape=[8]), "where a matrix"),
    "A6 rank of a thousand": (entry(shape=[1] * 1000), "where a matrix"),
    "A6 scalar": (entry(shape=[]), "where a matrix"),
    "A6 zero and huge": (entry(shape=[0, 2**60], data_offsets=[160, 160]), "where a matrix"),
    "A6 overflow": (entry(shape=[2**33, 2**31]), "data_offsets"),
    "A6 negative shape": (entry(shape=[-4, -2]), "where a matrix"),
    "A6 fractional shape": (entry(shape=[4.0, 2.0]), "where a matrix"),
    "A6 shape of truths": (entry(shape=[True, True]), "where a matrix"),
    "A6 shape and size": (entry(shape=[4, 3]), "data_offsets"),
    "A6 overlap": (entry(data_offsets=[0, 32]), "begin at byte"),
    "A6 hole": (
        weights(pack(GOOD_HEADER.replace("192, 224", "196, 228").encode(), GOOD_DATA + bytes(4))),
        "begin at byte 196 where 192",
    ),
    "A6 negative offset": (entry(data_offsets=[-32, 0]), "data_offsets"),
    "A6 three offsets": (entry(data_offsets=[192, 200, 224]), "data_offsets"),
    "A7 nan": (value(np.nan), f"has the value nan in the tensor '{key(Q, 'A')}'"),
    "A7 inf": (value(np.inf, place=20), f"has the value inf in the tensor '{key(Q, 'B')}'"),
    "A7 minus inf": (value(-np.inf), "has the value inf"),
    "A7 large": (value(3e38), "has the value 3e+38"),
    **{
        f"A7 alpha {alpha}": (field("lora_alpha", alpha), "'lora_alpha'")
        for alpha in (1e308, -1, 0, "8", True, None, [8], 10_001)
    },
    "A7 alpha nan": (field("lora_alpha", float("nan")), "NaN is not a JSON number"),
    "A7 alpha inf": (field("lora_alpha", float("-inf")), "-Infinity is not a JSON number"),
    "A7 alpha 1e999": (config_bytes(GOOD_JSON.replace("4", "1e999").encode()), "has inf"),
    **{
        f"A7 r {rank}": (field("r", rank), "'r'")
        for rank in (0, -1, "2", 2.0, True, None, 10**9, 1025)
    },
    "A7 rank_pattern": (field("rank_pattern", {"q_proj": 0}), "'rank_pattern.q_proj'"),
    "A7 alpha_pattern": (field("alpha_pattern", {"q_proj": -1}), "'alpha_pattern.q_proj'"),
    "A7 rslora": (field("use_rslora", "true"), "'use_rslora'"),
    "A8 rank and weights": (field("r", 3), "has shape [2, 8] where [3, 8] was expected"),
    "A8 pattern and weights": (field("rank_pattern", {"k_proj": 1}), "where [1, 8] was"),
    "A8 wider base": (weights(packed(WIDER)), "in 3 places"),
    "A8 another base": (swapped("self_attn", "attention"), "no linear layer 'model.layers.0.att"),
    "A8 more layers": (swapped("layers.0", "layers.7"), "no linear layer 'model.layers.7"),
    "A8 other keys": (swapped("base_model.", "other."), "no linear layer 'other.model"),
    "A8 layer twice": (more(f"{Q}.lora_A.default.weight", [2, 8]), "are of one layer"),
    "A8 missing partner": (fewer(key(K, "B")), f"{key(K, 'B')}' is missing"),
    "A8 missing module": (
        fewer(key(K, "A"), key(K, "B")), "missing although target_modules names",
    ),
    "A8 module not named": (field("target_modules", ["q_proj"]), "does not name"),
    "A8 turned around": (
        weights(packed({name: shape[::-1] for name, shape in GOOD_TENSORS.items()})), "in 4 places",
    ),
    "A8 A and B exchanged": (
        weights(packed({**GOOD_TENSORS, key(Q, "A"): [8, 2], key(Q, "B"): [2, 8]})), "in 2 places",
    ),
    "A8 very long key": (more(key("x." * 5000 + "q_proj", "A"), [2, 8]), "in 1 place"),
    "A9 rank_pattern": (field("rank_pattern", {"(a|a)*$": 2}), "can take forever"),
    "A9 alpha_pattern": (field("alpha_pattern", {"(a": 2}), "is no expression"),
    "A9 empty pattern": (field("alpha_pattern", {"": 2}), "the end of a module path"),
    "A9 many": (field("alpha_pattern", {f".*x{n}": 1 for n in range(21)}), "at most 20"),
    "A9 pattern a list": (field("rank_pattern", [REDOS]), "'rank_pattern'"),
    "A9 among the modules": (field("target_modules", [REDOS]), "does not name"),
    "A9 modules an object": (field("target_modules", {"q_proj": 1}), "'target_modules'"),
    "A9 modules of numbers": (field("target_modules", [1]), "'target_modules'"),
    **{
        f"A10 {name}": (field(name, setting), f"'{name}'")
        for name, setting in {
            "alora_invocation_tokens": [1], "arrow_config": {"top_k": 1}, "bias": "all",
            "init_lora_weights": "pissa", "kasa_config": {"beta": 1},
            "layer_replication": [[0, 1]], "loftq_config": {"loftq_bits": 4}, "lora_bias": True,
            "modules_to_save": ["lm_head"], "velora_config": {"rank": 1},
            "trainable_token_indices": [0], "use_dora": True, "use_qalora": True,
            "use_bdlora": {"nblocks": 2},
        }.items()
    },
    "A10 lora_only": (field("bias", "lora_only"), "biases belong to the base model"),
    "A10 xlora": (field("peft_type", "XLORA"), "'XLORA' in the field 'peft_type'"),
    "A10 no type": (without("peft_type"), "'peft_type'"),
    "A10 prompt tuning": (field("peft_type", "PROMPT_TUNING"), "'PROMPT_TUNING'"),
    "A10 type a list": (field("peft_type", ["LORA"]), "'peft_type'"),
    "A10 no rank": (without("r"), "nothing in the field 'r'"),
    "A10 olora": (field("init_lora_weights", "olora"), "'olora'"),
    "A10 embedding": (
        more("base_model.model.model.embed_tokens.lora_embedding_A", [2, 64]),
        "adapts an embedding",
    ),
    "A10 magnitude": (
        more(f"base_model.model.{Q}.lora_magnitude_vector", [1, 8]), "belongs to DoRA",
    ),
    "A10 bias tensor": (more(f"base_model.model.{Q}.lora_B.bias", [1, 8]), "is a bias"),
    "A10 lm_head": (more("base_model.model.lm_head.weight", [64, 8]), "lm_head.weight"),
    "A11 300 MB": (sparse(CONFIG, 300 << 20, b'{"r": "'), "larger than the 256 KB"),
    "A11 just too large": (config_bytes(GOOD_JSON.ljust(262_145).encode()), "256 KB"),
    "A11 deep": (config_bytes(b'{"a":' + b"[" * 200_000), "nested too deeply"),
    "A11 deep but closed": (
        config_bytes(b'{"peft_type": "LORA", "r": ' + b"[" * 300 + b"]" * 300 + b"}"), "[[...]]",
    ),
    "A11 long number": (config_bytes(b'{"r": ' + b"9" * 5000 + b"}"), "thousands of digits"),
    "A11 number of 4,000 digits": (
        config_bytes(b'{"peft_type": "LORA", "r": ' + b"9" * 4000 + b"}"), "'r'",
    ),
    "A11 nan": (config_bytes(b'{"r": NaN}'), "NaN is not a JSON number"),
    "A11 list": (config_bytes(b"[]"), "where an object"),
    "A11 text": (config_bytes(b'"LORA"'), "where an object"),
    "A11 nothing": (config_bytes(b""), "expecting value at line 1, column 1"),
    "A11 UTF-16": (config_bytes(GOOD_JSON.encode("utf-16")), "not UTF-8"),
    "A11 BOM": (config_bytes(GOOD_JSON.encode("utf-8-sig")), "bom"),
    "A11 Latin-1": (config_bytes('{"r": "é"}'.encode("latin-1")), "not UTF-8"),
    "A11 duplicate": (config_bytes(GOOD_JSON.replace("{", '{"r": 2, ').encode()), "'r' occurs twice"),
    "A11 trailing": (config_bytes(GOOD_JSON.encode() + b"{}"), "extra data at line 1"),
    "A11 single quotes": (config_bytes(b"{'r': 2}"), "not valid"),
    "A11 comment": (config_bytes(b"// x\n{}"), "not valid"),
    "A11 base of 200 KB": (field("base_model_name_or_path", "x" * 200_000), "the name of a model"),
    "A11 base a list": (field("base_model_name_or_path", ["x"]), "the name of a model"),
    "A11 half a surrogate": (
        config_bytes(GOOD_JSON.replace("org/base", r"\ud800").encode()), "the name of a model",
    ),
    "A11 terminal": (field("base_model_name_or_path", "\x1b[2J\n\u202e"), r"\x1b[2J\n\u202e"),
}  # fmt: skip


def refusal(folder, shapes=SHAPES):
    with pytest.raises(AdapterError) as caught:
        read_adapter(folder, shapes)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_folder_is_refused_in_one_sentence(name, tmp_path, nothing_is_run):
    change, says = CASES[name]
    folder = write_good(tmp_path / "adapter")
    change(folder)
    nothing_is_run()

    message = refusal(folder)

    assert says in message
    assert CONFIG in message or WEIGHTS in message
    assert message.endswith(".")
    assert ". " not in message
    assert message.isprintable()
    assert len(message) < 700
    assert str(tmp_path) not in message


@pytest.mark.parametrize("name", ["A6 overlap", "A7 nan", "A8 rank and weights", "A10 use_dora"])
def test_the_same_is_refused_where_no_base_model_is_loaded(name, tmp_path):
    folder = write_good(tmp_path / "adapter")
    CASES[name][0](folder)
    assert CASES[name][1] in refusal(folder, None)


@pytest.mark.parametrize("place", ["missing", "file.pt", "a\0b", "x" * 5000])
def test_what_is_no_folder_is_refused(place, tmp_path):
    (tmp_path / "file.pt").write_bytes(pickle.dumps(1))
    assert "cannot be opened as a folder" in refusal(tmp_path / place)


def test_a_folder_without_files_is_refused(tmp_path):
    assert f"has no {CONFIG}" in refusal(tmp_path)


def extras(folder):
    Evil.canary = str(folder.parent / "canary")
    for name in ("__init__.py", "modeling_evil.py", "sitecustomize.py", "evil.py"):
        (folder / name).write_text(f"open({Evil.canary!r}, 'w')")
    for name in ("optimizer.pt", "training_args.bin", "rng_state.pth", "adapter_model.bin"):
        torch.save(Evil(), folder / name)
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    (folder / "chat_template.jinja").write_text(loop)
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}')
    (folder / "loop").symlink_to(folder)


HARMLESS = {
    "as it is": lambda folder: None,
    "other files": extras,
    "unhurried regular expressions": field("target_modules", REDOS),
    "unhurried patterns": field("alpha_pattern", {REDOS: 2}),
    "regular expressions for layers": field("layers_pattern", [REDOS]),
    "regular expressions for exceptions": field("exclude_modules", REDOS),
    "a field that nobody knows": field("trained_by", "a person"),
    "a private field": field("_attn_implementation_internal", "evil/kernel"),
    "folders of others": field("adapters", {"a": "../../secret"}),
    "weights of the base the other way round": field("fan_in_fan_out", True),
    "tied weights": field("ensure_weight_tying", True),
    "parameters that are linear layers": field("target_parameters", ["q_proj.weight"]),
    "regular expressions that match": field("alpha_pattern", {".*q_pro[j]": 4, "k.*": 8}),
    "no prefix": swapped("base_model.model.", ""),
    "prefix of torch.compile": swapped("base_model.model.", "_orig_mod."),
    "adapter name in the keys": swapped(".weight", ".default.weight"),
    "task of no language model": field("task_type", "x"),
    "padded header": weights(pack(GOOD_HEADER.encode() + b"   ", GOOD_DATA)),
    "metadata": header(lambda found: found.update(__metadata__={"format": "pt"})),
    "as large as may be": config_bytes(GOOD_JSON.ljust(262_144).encode()),
    "long lists": field("target_modules", ["q_proj", *map(str, range(20_000)), "k_proj"]),
    "long patterns": field("alpha_pattern", {f"x{n}": 1 for n in range(15_000)}),
    # The length of this header begins as a pickle does.
    "header of 0x0280 bytes": weights(pack(GOOD_HEADER.encode().ljust(0x280), GOOD_DATA)),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_is_passed_over(name, tmp_path, nothing_is_run):
    folder = write_good(tmp_path / "adapter")
    HARMLESS[name](folder)
    nothing_is_run()
    adapter = read_adapter(folder, SHAPES)
    assert (set(adapter.factors), adapter.factors[Q].scale) == ({Q, K}, 2.0)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    folder, whole = write_good(tmp_path / "adapter"), packed(GOOD_TENSORS)
    for length in range(len(whole)):
        (folder / WEIGHTS).write_bytes(whole[:length])
        assert WEIGHTS in refusal(folder)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_changed_file_is_refused_or_still_a_plain_lora(name, tmp_path):
    folder, dice = write_good(tmp_path / "adapter"), random.Random(0)
    whole = (folder / name).read_bytes()
    messages, num_read = [], 0
    for _ in range(600):
        raw = bytearray(whole)
        for _ in range(dice.randint(1, 3)):
            raw[dice.randrange(len(raw))] = dice.choice([dice.randrange(256), *b'0129-[]{}",:.eE '])
        (folder / name).write_bytes(raw)
        try:
            adapter = read_adapter(folder, SHAPES)
        except AdapterError as error:
            messages.append(str(error))
        else:
            num_read += 1
            assert set(adapter.factors) == {Q, K}
            assert all(torch.isfinite(f.a).all() for f in adapter.factors.values())
    assert num_read
    assert len(messages) > 200
    assert all(message.isprintable() for message in messages)


def test_a_wrong_shape_is_found_before_the_data_are_read(tmp_path):
    folder = write_good(tmp_path / "adapter")
    found, size = entries({key(Q, "A"): [2, 10**7], key(Q, "B"): [8, 2]})
    raw = pack(found, b"")
    sparse(WEIGHTS, len(raw) + size, raw)(folder)
    tracemalloc.start()
    message = refusal(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "[2, 10000000] where [2, 8]" in message
    assert peak < 1 << 20
