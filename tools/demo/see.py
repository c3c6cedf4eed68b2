"""Trains tower and text model together: answers to questions about pictures, and text, so that nothing is forgotten.

    python see.py sight --out DIR --minutes 40 --workers 2
    python see.py probe --out DIR --minutes 5 --frozen      the text model stays as it is

The learning rate falls to zero with the time that is left. Workers draw different batches and take
the mean of their gradients: a step is `workers` batches.
"""

import argparse
import random
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F

import batches
import tokenizer
from eyes import matrices_and_others
from looks import Looks
from model import Config, Gemma3
from tower import Tower, VisionConfig
from train import Muon

SEED = 60
WARMUP = 15
TEXT_EVERY = 2  # every so many steps, a batch of text


class Both(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.text, self.tower = Gemma3(Config()), Tower(VisionConfig())

    def loss(self, patches, batch):
        """Mean cross-entropy of the answers' tokens; nothing is computed for the others' logits."""
        x = self.text.hidden(batch["ids"], batch["position"], batch["document"], soft=self.tower(patches), place=batch["place"])
        asked = batch["weight"] > 0
        return F.cross_entropy(F.linear(x[asked], self.text.embed_tokens.weight), batch["target"][asked])

    @torch.no_grad()
    def right(self, patches, batch):
        """For each conversation, which answers are right to the last token; greedy decoding would give the same ones."""
        choice = self.text(batch["ids"], batch["position"], batch["document"], soft=self.tower(patches), place=batch["place"]).argmax(-1)
        asked = batch["weight"] == 1
        wrong = (choice != batch["target"]) & asked
        starts = asked.int().diff(dim=1, prepend=torch.zeros_like(asked[:, :1]).int()) == 1
        number = starts.cumsum(1)  # of the answer
        return [[not (wrong[row] & (number[row] == a)).any().item() for a in range(1, int(number[row].max()) + 1)] for row in range(len(asked))]


def load(out, name):
    """A trained pair of text model and tower."""
    both = Both()
    both.load_state_dict(torch.load(out / f"{name}.pt"))
    return both


def load_text(out, name):
    """A text model, of a branch with a tower or without."""
    text = Gemma3(Config())
    state = torch.load(out / f"{name}.pt")
    text.load_state_dict({k.removeprefix("text."): v for k, v in state.items() if not k.startswith("tower.")})
    return text


def average(parameters, workers):
    """The mean of the workers' gradients, in one message."""
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    for g, part in zip(grads, (flat / workers).split([g.numel() for g in grads])):
        g.copy_(part.view_as(g))


def share(parameters, mine):
    """Every worker gets the matrices as the worker has them that changed them: `mine` marks this one's."""
    flat = torch.cat([(p.data if m else torch.zeros_like(p)).flatten() for p, m in zip(parameters, mine)])
    dist.all_reduce(flat)
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters])):
        p.data.copy_(part.view_as(p))


def progress(started, minutes, rank, workers):
    """The share of the time that has passed, the same for all workers."""
    passed = torch.tensor([(time.time() - started) / (60 * minutes)])
    if workers > 1:
        dist.broadcast(passed, 0)
    return min(1.0, passed.item())


def run(rank, workers, out, name, minutes, frozen, tower_from, text_from, rate_tower, rate_text, every, rows):
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    if workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{(out / f'{name}.meet').absolute()}", rank=rank, world_size=workers)
    words = tokenizer.load(out)
    both = Both()
    if (out / f"{name}.pt").exists():  # it was cut off
        both.load_state_dict(torch.load(out / f"{name}.pt"))
    else:
        both.text.load_state_dict(torch.load(out / f"{text_from}.pt"))
        both.tower.load_state_dict(torch.load(out / f"{tower_from}.pt"))
    for p in both.text.parameters():
        p.requires_grad_(not frozen)
    see_matrices, see_others = matrices_and_others(both.tower)
    say_matrices = [p for n, p in both.text.named_parameters() if p.dim() == 2 and "embed" not in n]
    say_others = [p for n, p in both.text.named_parameters() if p.dim() == 1 or "embed" in n]
    # Each worker steps some of the matrices, the heaviest first to the one that has least to do.
    matrices = see_matrices + ([] if frozen else say_matrices)
    owner, work = {}, [0] * workers
    for p in sorted(matrices, key=torch.numel, reverse=True):
        least = work.index(min(work))
        owner[p], work[least] = least, work[least] + p.numel() * min(p.shape)
    mine = [owner[p] == rank for p in matrices]
    muons = [(Muon([p for p in some if owner[p] == rank]), 0.02 * rate)
             for some, rate in ((see_matrices, rate_tower), ([] if frozen else say_matrices, rate_text))]
    adam = torch.optim.AdamW([dict(params=see_others, top=0.003 * rate_tower)] + ([] if frozen else [dict(params=say_others, top=0.004 * rate_text)]),
                             betas=(0.9, 0.98), weight_decay=0.0, fused=True, lr=1.0)
    seed = f"{SEED} {rank} {time.time_ns() if (out / f'{name}.pt').exists() else 0}"
    stream, text = Looks(words, seed, rows=rows), None if frozen else batches.training(words, seed, "school")
    test = [next(Looks(words, i, is_held=True, rows=32)) for i in range(2)]
    started, smooth, smooth_text = time.time(), None, 0.0
    step, passed = -1, 0.0
    while passed < 1.0:
        step, passed = step + 1, progress(started, minutes, rank, workers)
        fall = min(1.0, (step + 1) / WARMUP, 1.25 * (1 - passed))
        loss = both.loss(*next(stream))
        loss.backward()
        if text and step % TEXT_EVERY == 0:
            other = both.text.loss(**next(text))
            other.backward()
            smooth_text = other.item() if not smooth_text else 0.95 * smooth_text + 0.05 * other.item()
        if workers > 1:
            average([p for p in both.parameters() if p.requires_grad], workers)
        torch.nn.utils.clip_grad_norm_(see_others, 1.0)
        torch.nn.utils.clip_grad_norm_([p for p in say_others if p.requires_grad], 1.0)
        for group in adam.param_groups:
            group["lr"] = group["top"] * fall
        for muon, top in muons:
            muon.step(top * fall)
        if workers > 1:
            share(matrices, mine)
        adam.step()
        both.zero_grad()
        smooth = loss.item() if smooth is None else 0.95 * smooth + 0.05 * loss.item()
        if rank > 0:
            continue
        if step in (4, 19) or step % every == every - 1:
            answers = [a for b in test for row in both.right(*b) for a in row]
            good, total = sum(answers), len(answers)
            print(f"{name} {step + 1:5d}  loss {smooth:.4f}  text {smooth_text:.4f}  held-out answers {100 * good / total:.1f}% of {total}  "
                  f"{(time.time() - started) / (step + 1):.2f} s/step", flush=True)
        if step % every == every - 1 or passed == 1.0:
            torch.save(both.state_dict(), out / f"{name}.pt.new")
            (out / f"{name}.pt.new").rename(out / f"{name}.pt")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("name")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--minutes", type=float, required=True)
    p.add_argument("--frozen", action="store_true")
    p.add_argument("--tower", default="eyes")
    p.add_argument("--text", default="plain")
    p.add_argument("--rate-tower", type=float, default=0.5)
    p.add_argument("--rate-text", type=float, default=0.2)
    p.add_argument("--every", type=int, default=50)
    p.add_argument("--rows", type=int, default=16, help="conversations in a worker's batch")
    p.add_argument("--workers", type=int, default=1)
    args = p.parse_args()
    tokenizer.add_images(args.out)
    (args.out / f"{args.name}.meet").unlink(missing_ok=True)
    given = (args.workers, args.out, args.name, args.minutes, args.frozen, args.tower, args.text, args.rate_tower, args.rate_text, args.every, args.rows)
    if args.workers == 1:
        run(0, *given)
    else:
        torch.multiprocessing.spawn(run, given, args.workers)


if __name__ == "__main__":
    main()
