#!/bin/sh
# Makes models/demo, models/demo-qat, eval.txt and choices.jsonl again, from nothing. See README.md.
set -eu
cd "$(dirname "$0")"
work=${1:-/tmp/lapidary-demo}
models=../../models

python train.py broad --out "$work" --steps 2000
python train.py school --out "$work" --steps 1200
python train.py plain --out "$work" --steps 600
python export.py plain --out "$work" --to "$models/demo"
python distill.py --out "$work" --steps 240
python export.py qat --out "$work" --to "$models/demo-qat"
python evaluate.py files --to "$models"
python evaluate.py measure --out "$work"
python evaluate.py score --out "$work" --to "$models"
python evaluate.py answers --out "$work"
