"""Many texts with labels: which expert handles which label, and where in the network.

python examples/corpus_study.py --data texts.jsonl --label-column skill --out runs/study
"""

import argparse
from pathlib import Path

import lmoe_studio as lmoe
from analysis import label_owners, specialisation
from lmoe_studio.ui.report import write_report
from lmoe_studio.ui.study import run_facts, study_of

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--bank", default="demo")
parser.add_argument("--data", type=Path, required=True, help=".jsonl, .csv, .parquet or .txt")
parser.add_argument("--text-column", default="text")
parser.add_argument("--label-column", default="label")
parser.add_argument("--out", type=Path, required=True, help="folder for the run and the report")
options = parser.parse_args()

studio = lmoe.Studio.load(options.bank)
run = studio.trace_corpus(
    options.data,
    out=options.out / "runs",
    text_column=options.text_column,
    label_column=options.label_column,
    on_progress=lambda at: print(f"\r{at.texts}/{at.of_texts} texts", end="", flush=True),
)
frame = run.frame()  # or pandas.read_parquet(options.out / "runs")

print(f"\n{run.texts} texts, {run.tokens} tokens, {len(frame):,} rows")
print(label_owners(frame).round(3).to_string(index=False))
print(
    specialisation(frame)[["layer", "information", "baseline_95"]].round(2).to_string(index=False)
)

study = study_of(frame, facts=run_facts(run.folder, run.run))
print(f"Report: {write_report(study, options.out / 'report.html')}")
