"""What a study has found so far, as plain values: the JSON that the document is written from."""

import os
import platform
from typing import Any

from benchmarks.quality.rows import (
    ALL_ROWS,
    LORAS,
    MIXTURES,
    PER_SKILL,
    SIGMOIDS,
    TEST,
    VALIDATION,
    Row,
)
from benchmarks.quality.study import MEASURES, Study

Values = dict[str, Any]
SEEDS = range(16)


def collect(study: Study) -> Values:
    """Everything that is there, by row and seed, and which settings were chosen."""
    config = MIXTURES[0].config(study.scale, study.data, 0, study.folder)
    rows = {row.name: found for row in ALL_ROWS if (found := _row(study, row))}
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "steps": config.steps,
        "batch_size": config.batch_size,
        "sequence_length": config.sequence_length,
        "rank": config.rank,
        "experts": len(config.skills),
        "modules": list(config.target_modules),
        "test_sequences": TEST,
        "validation_sequences": VALIDATION,
        "chosen": {
            "lora": _chosen(study, LORAS, "router"),
            "mixture": _chosen(study, [*MIXTURES, *SIGMOIDS], "router"),
            "softmax": _chosen(study, MIXTURES, "router"),
            "sigmoid": _chosen(study, SIGMOIDS, "router"),
            "per skill": _chosen(study, PER_SKILL, "own"),
        },
        "rows": rows,
    }


def _row(study: Study, row: Row) -> Values | None:
    seeds = {}
    for seed in SEEDS:
        found = {
            what: study.measured(row, seed, what)
            for what in MEASURES
            if study.place(row, seed, what).is_file()
        }
        if found:
            training = study.bank(row, seed).training or {}
            seeds[str(seed)] = found | {"training_seconds": training.get("seconds")}
    if not seeds:
        return None
    bank = study.bank(row, int(next(iter(seeds))))
    parameters = {
        "experts": sum(expert.adapter.num_parameters for expert in bank.experts),
        "router": sum(tensor.numel() for tensor in bank.router_state.values()),
    }
    return {"title": row.title, "kind": row.kind, "parameters": parameters, "seeds": seeds}


def _chosen(study: Study, rows: list[Row], what: str) -> str | None:
    best = study.best(rows, what)
    return best.name if best else None
