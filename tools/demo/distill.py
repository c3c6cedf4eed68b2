"""Quantization-aware training: the Q4_0 form of the text model learns the probabilities of its own bf16 form.

    python distill.py --out DIR --steps 240

Starts from the teacher's weights. The forward and the backward pass use the weights as Q4_0
(embedding: Q8_0) holds them, the step goes to the weights behind them (straight-through). The
loss is the KL divergence from the teacher, the same checkpoint in bf16, over every token. Every
third batch is of conversations about pictures. The tower stays as it is: its files hold it in 16
or 8 bits.
"""

import argparse
import time
from pathlib import Path

import torch

import batches
import see
import tokenizer
from looks import Looks
from quantize import bf16, quantized

SEED = 40
WARMUP = 20
PICTURES_EVERY = 3


def divergence(student, teacher_log, ids, position, document, soft=None, place=None):
    """Mean over tokens of KL(teacher, student)."""
    log = student(ids, position, document, soft=soft, place=place).log_softmax(-1)
    each = (teacher_log.exp() * (teacher_log - log)).sum(-1)
    weight = (document >= 0).float() if place is None else ((document >= 0) & (place == 0)).float()
    return (each * weight).sum() / weight.sum()


@torch.no_grad()
def set_weights(parameters, values):
    for name, value in values.items():
        parameters[name].copy_(value)


def run(out, teacher_name, name, steps, top_rate):
    torch.manual_seed(SEED)
    words = tokenizer.load(out)
    both, whole = see.load(out, teacher_name), see.load(out, teacher_name)
    teacher, student, tower = both.text, whole.text, both.tower
    for p in both.parameters():
        p.requires_grad_(False).copy_(bf16(p))
    names = dict(student.named_parameters())
    adam = torch.optim.Adam(names.values(), lr=top_rate, betas=(0.9, 0.99), fused=True)
    stream, looks = batches.distillation(words, SEED), Looks(words, SEED)
    started, smooth = time.time(), None
    for step in range(steps):
        adam.param_groups[0]["lr"] = top_rate * min(1.0, (step + 1) / WARMUP) * (1 - step / steps)
        if step % PICTURES_EVERY == PICTURES_EVERY - 1:
            patches, batch = next(looks)
            with torch.no_grad():
                seen = dict(soft=tower(patches), place=batch["place"])
        else:
            batch, seen = next(stream), {}
        at = batch["ids"], batch["position"], batch["document"]
        with torch.no_grad():
            target = teacher(*at, **seen).log_softmax(-1)
        master = {n: p.detach().clone() for n, p in names.items()}
        set_weights(names, quantized(student, "q4_0"))
        loss = divergence(student, target, *at, **seen)
        loss.backward()
        set_weights(names, master)
        adam.step()
        adam.zero_grad()
        smooth = loss.item() if smooth is None else 0.96 * smooth + 0.04 * loss.item()
        if step in (0, 9) or step % 20 == 19:
            per = (time.time() - started) / (step + 1)
            print(f"{name} {step + 1:5d}  divergence {smooth:.5f}  {per:.2f} s/step", flush=True)
        if step % 20 == 19 or step == steps - 1:
            torch.save(whole.state_dict(), out / f"{name}.pt")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--teacher", default="sight")
    p.add_argument("--name", default="qat")
    p.add_argument("--steps", type=int, required=True)
    p.add_argument("--rate", type=float, default=2e-4)
    args = p.parse_args()
    torch.set_num_threads(1)
    run(args.out, args.teacher, args.name, args.steps, args.rate)


if __name__ == "__main__":
    main()
