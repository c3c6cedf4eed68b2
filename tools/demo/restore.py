"""Makes the state of a training again from a checkpoint, so that it can go on where only that is left.

    python restore.py ../../models/demo --out DIR      plain.pt, and sight.pt where there is a tower
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from export import TOKENIZER_FILES
from see import Both


def main():
    p = argparse.ArgumentParser()
    p.add_argument("checkpoint", type=Path)
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(args.checkpoint / name, args.out / name)
    tensors = {n.removeprefix("language_model."): t.float() for n, t in load_file(args.checkpoint / "model.safetensors").items()}
    both = Both()
    text = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
    both.text.load_state_dict(text)
    torch.save(both.text.state_dict(), args.out / "plain.pt")
    if len(tensors) > len(text):
        own = both.tower.state_dict()
        names = dict(zip(own, (n for n, _ in both.tower.hub())))
        both.tower.load_state_dict({n: tensors[hub].view_as(own[n]) for n, hub in names.items()})
        torch.save(both.state_dict(), args.out / "sight.pt")


if __name__ == "__main__":
    main()
