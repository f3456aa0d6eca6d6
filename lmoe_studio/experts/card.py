"""The beginning of a bank's README.md, which the Hugging Face hub reads, and a plain whole one."""

from pathlib import Path

import yaml

from lmoe_studio.config import EMBEDDED_BASE, EMBEDDED_ON_HUB
from lmoe_studio.experts.bank import ExpertBank


def front_matter(bank: ExpertBank) -> str:
    """What the hub files a bank under: its base model, library and tags."""
    data: dict[str, object] = {
        "library_name": "lmoe-studio",
        "pipeline_tag": "text-generation",
        "tags": ["lmoe", "mixture-of-experts", "lora", "peft"],
    }
    base = EMBEDDED_ON_HUB if bank.base.id == EMBEDDED_BASE else bank.base.id
    if base.count("/") == 1 and not Path(base).exists():  # a folder here says nothing to others
        data |= {"base_model": base, "base_model_relation": "adapter"}
    return f"---\n{yaml.safe_dump(data, sort_keys=True, allow_unicode=True)}---\n"


def plain_card(bank: ExpertBank) -> str:
    """README.md of a bank that nobody has said anything about."""
    rows = [f"| {e.name} | {_cell(e.description)} | {e.adapter.ranks[-1]} |" for e in bank.experts]
    return "\n".join(
        [
            front_matter(bank),
            f"# {bank.name}",
            "",
            f"An L-MoE expert bank for `{bank.base.id}`: {len(bank.experts)} LoRA experts and a "
            f"{bank.router} router, composition `{bank.composition}`. Every folder under `experts/` "
            "is an ordinary PEFT adapter.",
            "",
            "```python",
            "import lmoe_studio as lmoe",
            "",
            'model = lmoe.LMoEForCausalLM.from_pretrained("path/to/this")',
            "```",
            "",
            "| expert | what it is for | rank |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
