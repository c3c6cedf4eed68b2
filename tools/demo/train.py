"""Trains one stage; each starts from the weights of an earlier one.

    python train.py broad  --out DIR --steps 2000
    python train.py school --out DIR --steps 1200
    python train.py plain  --out DIR --steps 600

`broad` learns to read and to tell stories, `school` sees more questions at a lower learning
rate, `plain` lets the rate fall to zero. What comes after that: distill.py.
"""

import argparse
import time
from pathlib import Path

import torch

import batches
import tokenizer
from model import Config, Gemma3

SEED = 20
# stage: (starts from, mixture, learning rate, seed of the data)
STAGES = {
    "broad": (None, "broad", 1.0, SEED),
    "school": ("broad", "school", 0.4, SEED + 1),
    "plain": ("school", "school", 0.4, SEED + 2),
}
MATRIX_RATE, OTHER_RATE, WEIGHT_DECAY = 0.02, 0.004, 0.02
WARMUP = 100
# Without instructions for it, bf16 takes three times as long as f32.
SHORT = torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


class Muon:
    """Momentum, then the nearest orthogonal matrix as the step. Matrices of one shape go together."""

    def __init__(self, parameters, momentum=0.95):
        groups = {}
        for p in parameters:
            groups.setdefault(p.shape, []).append(p)
        self.groups = [(ps, torch.zeros(len(ps), *shape)) for shape, ps in groups.items()]
        self.momentum = momentum

    @torch.no_grad()
    def step(self, rate):
        for ps, buffer in self.groups:
            grad = torch.stack([p.grad for p in ps])
            buffer.lerp_(grad, 1 - self.momentum)
            update = orthogonal(grad.lerp(buffer, self.momentum))
            update *= rate * max(1.0, update.shape[1] / update.shape[2]) ** 0.5
            for p, u in zip(ps, update):
                p.mul_(1 - rate * WEIGHT_DECAY).sub_(u)


def orthogonal(g, steps=5):
    """Newton-Schulz iteration on a batch of matrices."""
    tall = g.shape[1] > g.shape[2]
    x = (g.mT if tall else g).to(SHORT)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).float()


def run(out, stage, steps):
    start, mixture, top_rate, seed = STAGES[stage]
    torch.manual_seed(SEED)
    words = tokenizer.load(out)
    model = Gemma3(Config())
    if start:
        model.load_state_dict(torch.load(out / f"{start}.pt"))
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() == 1 or "embed" in n]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    loss_of = torch.compile(model.loss, dynamic=False)
    stream = batches.training(words, seed, mixture)
    started, smooth = time.time(), None
    for step in range(steps):
        fall = 1 - step / steps if stage == "plain" else 1.0
        rate = top_rate * min(1.0, (step + 1) / WARMUP) * fall
        batch = next(stream)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(**batch, dtype=torch.bfloat16)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        adam.param_groups[0]["lr"] = OTHER_RATE * rate
        muon.step(MATRIX_RATE * rate)
        adam.step()
        model.zero_grad()
        smooth = loss.item() if smooth is None else 0.95 * smooth + 0.05 * loss.item()
        if step % 100 == 99:
            per = (step + 1) * batches.TOKENS / (time.time() - started)
            print(f"{stage} {step + 1:5d}  loss {smooth:.4f}  {per:.0f} tokens/s", flush=True)
        if step % 200 == 199 or step == steps - 1:
            torch.save(model.state_dict(), out / f"{stage}.pt")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("stage", choices=STAGES)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--steps", type=int, required=True)
    args = p.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.stage == "broad":
        tokenizer.write(args.out, SEED)
    run(args.out, args.stage, args.steps)


if __name__ == "__main__":
    main()
