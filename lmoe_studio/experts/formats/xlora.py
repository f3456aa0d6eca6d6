"""X-LoRA: a folder of several LoRA adapters and a classifier that mixes them (arXiv 2402.07148).

Its experts are ordinary adapters, each in a folder inside. The classifier is no router of ours: it
reads the whole text once without the adapters, and mixes by what that pass says.
"""

from pathlib import Path

from lmoe_studio.errors import AdapterError
from lmoe_studio.experts.adapter_config import CONFIG, MAX_CONFIG_BYTES, read_fields
from lmoe_studio.experts.safetensors_check import open_regular

_OWN_CONFIG = "xlora_config.json"
"""Of the first implementation, which PEFT took over."""


def is_xlora(place: Path) -> bool:
    """Whether a folder is an X-LoRA. Looks at its configuration only."""
    try:
        if (place / _OWN_CONFIG).is_file():
            return True
        with open_regular(place / CONFIG) as file:
            return read_fields(file.read(MAX_CONFIG_BYTES + 1)).get("peft_type") == "XLORA"
    except (AdapterError, OSError, ValueError):  # reading it as an adapter will say what is wrong
        return False
