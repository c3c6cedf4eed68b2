#!/bin/sh
# Makes models/demo, models/demo-qat, pictures, eval.txt and choices.jsonl again, from nothing. See README.md.
set -eu
cd "$(dirname "$0")"
work=${1:-/tmp/lapidary-demo}
models=../../models

python train.py broad --out "$work" --steps 2000
python train.py school --out "$work" --steps 1200
python train.py plain --out "$work" --steps 600
python eyes.py --out "$work" --steps 1600
python see.py sight --out "$work" --minutes 40 --workers 2 --rows 15
python export.py sight --out "$work" --to "$models/demo"
python distill.py --out "$work" --steps 220
python export.py qat --out "$work" --to "$models/demo-qat"
python evaluate.py files --to "$models"
python pictures.py files --to "$models/pictures"
python evaluate.py measure --out "$work"
python evaluate.py score --out "$work" --to "$models"
python evaluate.py answers --out "$work"
python evaluate.py sight --out "$work"
python evaluate.py sight --out "$work" --branch qat
