"""What an installation gets: both packages, the interface's assets and the demo bank; nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_wheel_holds_what_the_studio_needs(tmp_path):
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(root)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lmoe_studio", "analysis"}
    for needed in (
        "lmoe_studio/ui/assets/workbench.js",
        "lmoe_studio/ui/assets/workbench.css",
        "lmoe_studio/banks/demo/bank.json",
        "lmoe_studio/banks/demo/router.safetensors",
        "lmoe_studio/banks/demo/experts/sql/adapter_model.safetensors",
    ):
        assert needed in names
