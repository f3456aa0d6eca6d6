"""The same texts through two banks of one base model: where do they route differently?

python examples/compare_banks.py demo my-bank --out runs/compared
"""

import argparse
from pathlib import Path

import lmoe_studio as lmoe
from analysis import compare_runs
from lmoe_studio.experts.geometry import match_experts

TEXTS = {
    "sql": "SELECT name FROM boat WHERE length > 7 ORDER BY name;",
    "french": "Le phare de la pointe guide les bateaux qui rentrent au port.",
    "python": "def first(items):\n    return items[0] if items else None",
}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("banks", nargs=2, help="names or folders")
parser.add_argument("--out", type=Path, required=True, help="folder for both runs")
options = parser.parse_args()

frames = []
for side, bank in zip(("one", "other"), options.banks, strict=True):
    studio = lmoe.Studio.load(bank)
    run = studio.trace_corpus(list(TEXTS.values()), labels=list(TEXTS), out=options.out, run=side)
    frames.append(run.frame())

# Experts of the same names are the same; others are matched by how alike their updates are.
experts = match_experts(*(lmoe.load_bank(bank) for bank in options.banks))
print("Experts:", ", ".join(f"{theirs} ~ {ours}" for theirs, ours in experts.items()))

for by in (("label",), ("layer",)):
    answer = compare_runs(*frames, by=by, experts=experts)
    print(f"\nHow far apart by {by[0]} (bits; 0 the same, 1 disjoint):")
    print(answer.round(3).to_string(index=False))
