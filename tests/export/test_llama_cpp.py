"""Exported GGUF adapters write in llama.cpp what the Studio writes.

Skipped unless `LMOE_TEST_LLAMA_CPP` names a folder in which `npm install node-llama-cpp` was run.
"""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize

from lmoe_studio import base_models
from lmoe_studio.experts import gguf_lora
from lmoe_studio.experts.files import load_bank
from lmoe_studio.exporting import export_blend
from lmoe_studio.routing.plan import Override
from lmoe_studio.studio import Studio

FOLDER = os.environ.get("LMOE_TEST_LLAMA_CPP")
PROMPTS = ["SELECT name FROM users", "The recipe needs", "La ville de Paris"]
BLEND = {"sql": 0.6, "french": 0.4}
TOKENS = 16

pytestmark = [
    pytest.mark.real,
    pytest.mark.release,
    pytest.mark.skipif(not (FOLDER and shutil.which("node")), reason="no node-llama-cpp"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The embedded base model as GGUF in full precision."""
    path = tmp_path_factory.mktemp("llama") / "base.gguf"
    with tempfile.TemporaryDirectory() as work:
        reader = gguf.GGUFReader(base_models._find_gguf(Path(work), base_models.silent))
        writer = gguf.GGUFWriter(path, "llama")
        for name, field in reader.fields.items():
            if name.startswith("GGUF.") or name == "general.architecture":
                continue
            value = 0 if name == "general.file_type" else field.contents()
            if field.types[0] is gguf.GGUFValueType.ARRAY:
                writer.add_array(name, value)
            else:
                writer.add_key_value(name, value, field.types[0])
        for tensor in reader.tensors:
            plain = dequantize(tensor.data, tensor.tensor_type)
            writer.add_tensor(tensor.name, np.ascontiguousarray(plain, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path


@pytest.fixture(scope="module")
def written():
    """What the Studio writes under the base model alone, the expert and the blend."""
    studio = Studio.load("demo", device="cpu")
    plans = {
        "base": Override.bypass(),
        "expert": Override.solo("sql"),
        "blend": Override.blend(BLEND),
    }
    return {
        name: [studio.generate(p, plan=plan, max_new_tokens=TOKENS).text for p in PROMPTS]
        for name, plan in plans.items()
    }


def llama_texts(base, loras):
    """By adapter, the empty name for none."""
    script = Path(FOLDER) / "llama_texts.mjs"  # modules are looked for beside the script
    shutil.copy(Path(__file__).with_name("llama_texts.mjs"), script)
    asked = json.dumps({"prompts": PROMPTS, "loras": [str(one) for one in loras], "tokens": TOKENS})
    done = subprocess.run(
        ["node", script, base, asked], capture_output=True, text=True, timeout=600, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def agree(ours, theirs):
    return [one.strip() == other.strip() for one, other in zip(ours, theirs, strict=True)]


def test_llama_cpp_writes_what_the_studio_writes(base, written, tmp_path, monkeypatch):
    bank = load_bank("demo")
    for name, blend in (("expert", "sql"), ("blend", BLEND)):
        export_blend(bank, blend, tmp_path / name, form="gguf")
    monkeypatch.setattr(gguf_lora, "_rotated", lambda b, *_: b)
    export_blend(bank, "sql", tmp_path / "unrotated", form="gguf")
    loras = [tmp_path / name for name in ("expert", "blend", "unrotated")]
    found = llama_texts(base, loras)
    assert all(agree(written["base"], found[""]))
    for name in ("expert", "blend"):
        assert all(agree(written[name], found[str(tmp_path / name)])), name
    assert not all(agree(written["expert"], found[str(tmp_path / "unrotated")]))
