"""A folder laid out like a dataset of the hub, and datasets as `save_to_disk` writes them."""

import json

import datasets
import pytest

CONFIGS = """---
configs:
- config_name: pairs
  data_files:
  - {split: train, path: pairs/train.jsonl}
  - {split: test, path: pairs/test.jsonl}
- config_name: chats
  data_files: chats.jsonl
---
"""
CHAT = [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Yes."}]


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(autouse=True)
def _quiet():
    datasets.disable_progress_bars()


@pytest.fixture
def repository(tmp_path):
    """Two configs: pairs with the splits train and test, and conversations with one."""
    folder = tmp_path / "repository"
    for split, count in (("train", 12), ("test", 4)):
        rows = [
            {"id": n, "prompt": f"{split} {n}?", "completion": f"{n}."} for n in range(count)
        ]  # fmt: skip
        lines(folder / "pairs" / f"{split}.jsonl", rows)
    lines(folder / "chats.jsonl", [{"conversations": CHAT}] * 3)
    (folder / "README.md").write_text(CONFIGS)
    return folder


@pytest.fixture
def saved(tmp_path):
    """A folder of `save_to_disk` with the splits train and test, and labels that have names."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "skill": datasets.ClassLabel(names=["sql", "french"])}
    )
    parts = {
        split: datasets.Dataset.from_dict(
            {"text": [f"{split} {n}" for n in range(6)], "skill": [0, 1, 1, 0, -1, None]}, features
        )
        for split in ("train", "test")
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"
