"""Trains the tower alone: what stands where. The heads that are asked are thrown away afterwards.

    python eyes.py --out DIR --steps 1600

Each patch is asked whether the centre of a thing lies in it, and its shape and colour, and each
image token the same of its four patches. A text model that gets such rows has only to learn to
read them.
"""

import argparse
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import pictures
from tower import Tower, VisionConfig, cut
from train import Muon

SEED = 50
BATCH = 64
WARMUP = 50
COLOURS = list(pictures.COLOURS)


def batch(rng, count, is_held=False):
    """patches, and for each patch and each token the shape and colour of the thing in it (0: none)."""
    c = VisionConfig()
    pixels, labels = [], [np.zeros((count, n * n, 2), np.int64) for n in (c.grid, math.isqrt(c.tokens))]
    ground = np.zeros(count, np.int64)
    for i in range(count):
        scene = pictures.make(rng, is_held)
        pixels.append(np.asarray(pictures.small(scene, rng)))
        ground[i] = list(pictures.GROUNDS).index(scene.ground)
        for t in scene.things:
            for label, n in zip(labels, (c.grid, math.isqrt(c.tokens))):
                label[i, int(t.y * n) * n + int(t.x * n)] = pictures.SHAPES.index(t.shape) + 1, COLOURS.index(t.colour) + 1
    return cut(np.stack(pixels)), *map(torch.from_numpy, labels), torch.from_numpy(ground)


class Heads(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.sizes = len(pictures.SHAPES) + 1, len(COLOURS) + 1
        self.patch = nn.Linear(c.hidden_size, sum(self.sizes))
        self.token = nn.Linear(c.text_hidden, sum(self.sizes))
        self.ground = nn.Linear(c.text_hidden, len(pictures.GROUNDS))

    def forward(self, tower, patches, of_patch, of_token, ground):
        x = tower.patches(patches)
        soft = tower.pooled(x)
        loss, right = 0.0, []
        for y, label in ((self.patch(x), of_patch), (self.token(soft), of_token)):
            for part, want in zip(y.split(self.sizes, -1), label.unbind(-1)):
                weight = torch.where(want > 0, 1.0, 0.15)
                each = F.cross_entropy(part.flatten(0, 1), want.flatten(), reduction="none")
                loss = loss + (each * weight.flatten()).sum() / weight.sum()
                right.append((part.argmax(-1) == want).all(1).float().mean())
        each = F.cross_entropy(self.ground(soft).flatten(0, 1), ground.repeat_interleave(soft.shape[1]))
        return loss + 0.3 * each, torch.stack(right)


def matrices_and_others(tower):
    matrix = lambda n, p: p.dim() == 2 and n.startswith("layers.")
    return [p for n, p in tower.named_parameters() if matrix(n, p)], [p for n, p in tower.named_parameters() if not matrix(n, p)]


def run(out, steps):
    torch.manual_seed(SEED)
    c, rng = VisionConfig(), random.Random(SEED)
    tower, heads = Tower(c), Heads(c)
    matrices, others = matrices_and_others(tower)
    muon = Muon(matrices)
    adam = torch.optim.AdamW(others + list(heads.parameters()), lr=1.0, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    started, smooth = time.time(), None
    for step in range(steps):
        rate = min(1.0, (step + 1) / WARMUP, 0.1 + 1.5 * (1 - step / steps))
        loss, right = heads(tower, *batch(rng, BATCH))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        adam.param_groups[0]["lr"] = 0.003 * rate
        muon.step(0.02 * rate)
        adam.step()
        tower.zero_grad()
        heads.zero_grad()
        now = torch.cat((loss.detach()[None], right))
        smooth = now if smooth is None else 0.95 * smooth + 0.05 * now
        if step in (4, 19) or step % 50 == 49:
            per = (step + 1) * BATCH / (time.time() - started)
            print(f"eyes {step + 1:5d}  loss {smooth[0]:.4f}  right {' '.join(f'{x:.3f}' for x in smooth[1:])}  {per:.0f} pictures/s", flush=True)
        if step % 50 == 49 or step == steps - 1:
            torch.save(tower.state_dict(), out / "eyes.pt.new")
            (out / "eyes.pt.new").rename(out / "eyes.pt")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--steps", type=int, required=True)
    args = p.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    run(args.out, args.steps)


if __name__ == "__main__":
    main()
