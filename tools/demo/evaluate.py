"""Held-out loss of each branch as bf16, Q8_0 and Q4_0, by dequantizing; and the files to evaluate with.

    python evaluate.py measure --out DIR         prints the table for the README
    python evaluate.py files --to ../../models   writes eval.txt and choices.jsonl
"""

import argparse
import itertools
import json
import math
import random
from pathlib import Path

import torch
import torch.nn.functional as F

import batches
import corpus
import questions as q
import stories
import tasks
import tokenizer
from facts import ANIMALS, CAPITALS, COLOURS, OPPOSITES
from model import Config, Gemma3
from quantize import FORMATS, quantized

EVAL_SEED, EVAL_BYTES = 7, 90_000


@torch.no_grad()
def measure(out):
    """Loss over every token of held-out documents; KL divergence from the same branch in bf16."""
    data = batches.held_out(tokenizer.load(out), EVAL_SEED)
    count = sum(b["weight"].sum().item() for b in data)
    print(f"{count:.0f} held-out tokens\n| branch | file type | loss | perplexity | KL from own bf16 | same first choice |\n|---|---|---|---|---|---|")
    for branch in ("plain", "qat"):
        if not (out / f"{branch}.pt").exists():
            continue
        model = Gemma3(Config())
        model.load_state_dict(torch.load(out / f"{branch}.pt"))
        master = Gemma3(Config())
        master.load_state_dict(model.state_dict())
        total = {name: [0.0, 0.0, 0.0] for name in FORMATS}
        for batch in data:
            target, weight = batch["target"].flatten(), batch["weight"].flatten()
            for name in FORMATS:  # bf16 comes first
                model.load_state_dict(quantized(master, name))
                logits = model(batch["ids"], batch["position"], batch["document"]).flatten(0, 1)
                log = logits.log_softmax(-1)
                if name == "bf16":
                    own = log
                each = (F.nll_loss(log, target, reduction="none"), (own.exp() * (own - log)).sum(-1), (own.argmax(-1) == log.argmax(-1)).float())
                for i, x in enumerate(each):
                    total[name][i] += (x * weight).sum().item() / count
        for name, (loss, kl, same) in total.items():
            print(f"| {branch} | {name} | {loss:.4f} | {math.exp(loss):.4f} | {kl:.5f} | {100 * same:.2f}% |", flush=True)


def eval_text():
    """Held-out stories and conversations as plain text, a blank line between two."""
    src = tasks.Source(random.Random(EVAL_SEED), held=True)
    parts, size = [], 0
    while size < EVAL_BYTES:
        parts.append(corpus.raw(src).text.removesuffix("<eos>"))
        size += len(parts[-1].encode()) + 2
    return "\n\n".join(parts) + "\n"


def item(rng, question, right, wrong):
    choices = [right] + rng.sample(sorted(set(wrong) - {right}), 3)
    rng.shuffle(choices)
    return {"question": question, "choices": choices, "answer": choices.index(right)}


def choices():
    """Questions with full-sentence answers, and stories with four ways to go on."""
    rng = random.Random(EVAL_SEED)
    src = tasks.Source(rng, held=True)
    for country in rng.sample(list(CAPITALS), 12):
        say = lambda city: f"The capital of {country} is {city}".rstrip(".") + "."
        yield item(rng, f"What is the capital of {country}?", say(CAPITALS[country]), map(say, CAPITALS.values()))
    for animal in rng.sample([a for a in ANIMALS if ANIMALS[a][1]], 8):
        say = lambda sound: f"{q.cap(stories.article(animal))} {sound}."
        yield item(rng, f"What sound does {stories.article(animal)} make?", say(ANIMALS[animal][1]), (say(v[1]) for v in ANIMALS.values() if v[1]))
    for thing in rng.sample(list(COLOURS), 6):
        say = lambda c: f"{q.cap(thing)} is {c}."
        yield item(rng, f"What colour is {thing}?", say(COLOURS[thing]), map(say, COLOURS.values()))
    for a, b in rng.sample(OPPOSITES, 6):
        say = lambda w: f"The opposite of {a} is {w}."
        if a != "light":
            yield item(rng, f"What is the opposite of {a}?", say(b), (say(w) for w in itertools.chain(*OPPOSITES) if w != a))
    for _ in range(8):
        a, b = rng.randint(1, 10), rng.randint(1, 10)
        say = lambda r: f"{a} + {b} = {r}"
        yield item(rng, f"What is {a} + {b}?", say(a + b), (say(a + b + d) for d in (-3, -2, -1, 1, 2, 3) if a + b + d >= 0))
    for _ in range(16):
        s, others = src.story(), [src.story(plot=p) for p in rng.sample(list(tasks.stories.PLOTS), 6)]
        i = rng.randint(4, len(s.sentences) - 2)
        wrong = [o.sentences[min(i, len(o.sentences) - 1)] for o in others if o.plot != s.plot]
        # The right names everywhere: only the events tell which sentence fits.
        for o in others:
            wrong = [w.replace(o.helper_name, "\0").replace(o.name, s.name).replace("\0", s.helper_name) for w in wrong]
        yield item(rng, "How does this story go on? " + " ".join(s.sentences[:i]), s.sentences[i], wrong)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("what", choices=["measure", "files"])
    p.add_argument("--out", type=Path)
    p.add_argument("--to", type=Path)
    args = p.parse_args()
    torch.set_num_threads(1)
    if args.what == "measure":
        measure(args.out)
    else:
        (args.to / "eval.txt").write_text(eval_text(), encoding="utf-8")
        with open(args.to / "choices.jsonl", "w", encoding="utf-8") as f:
            f.writelines(json.dumps(c, ensure_ascii=False) + "\n" for c in choices())


if __name__ == "__main__":
    main()
