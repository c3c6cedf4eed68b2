"""Held-out loss of each branch as bf16, Q8_0 and Q4_0, by dequantizing; and the files to evaluate with.

    python evaluate.py measure --out DIR         prints the table for the README
    python evaluate.py files --to ../../models   writes eval.txt and choices.jsonl
    python evaluate.py answers --out DIR         share of right answers, by kind
    python evaluate.py score --out DIR --to ../../models   answers choices.jsonl
    python evaluate.py sight --out DIR           share of right answers about held-out pictures, by kind
"""

import argparse
import collections
import itertools
import json
import math
import random
from pathlib import Path

import torch
import torch.nn.functional as F

import batches
import corpus
import looks
import pictures
import questions as q
import see
import sights
import stories
import tasks
import tokenizer
from facts import ANIMALS, CAPITALS, COLOURS, OPPOSITES
from quantize import FORMATS, quantized

EVAL_SEED, EVAL_BYTES = 7, 90_000
BRANCHES = ("sight", "qat")


@torch.no_grad()
def measure(out):
    """Loss over every token of held-out documents; KL divergence from the same branch in bf16."""
    data = batches.held_out(tokenizer.load(out), EVAL_SEED)
    count = sum(b["weight"].sum().item() for b in data)
    print(f"{count:.0f} held-out tokens\n| branch | file type | loss | perplexity | KL from own bf16 | same first choice |\n|---|---|---|---|---|---|")
    for branch in BRANCHES:
        if not (out / f"{branch}.pt").exists():
            continue
        model, master = see.load_text(out, branch), see.load_text(out, branch)
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


@torch.no_grad()
def answers(out, branch, name, count=160):
    """Share of answers that greedy decoding gets right to the last token, by kind of document.

    Under teacher forcing, "every token is the first choice" is the same as greedy decoding.
    """
    words = tokenizer.load(out)
    model = see.load_text(out, branch)
    model.load_state_dict(quantized(model, name))
    kinds = {f.__name__: lambda src, f=f: [src.question(f)] for f, _ in tasks.SHORT}
    kinds |= {k: corpus.KINDS[k][-1] for k in ("lists", "repeat", "replace", "summarise", "follow", "instructed", "chat")}
    for kind, make in kinds.items():
        src = tasks.Source(random.Random(EVAL_SEED), held=kind not in ("sound_of", "shape", "too_hard"))
        documents = (corpus.as_chat(kind, make(src)) for _ in range(count))
        right = []
        for row in batches.rows(words, (d for d in documents if len(d.text) < 900), batches.ROW):
            b = batches.collate([row])
            wrong = (model(b["ids"], b["position"], b["document"]).argmax(-1) != b["target"]) & (b["weight"] == 1)
            right += [not (wrong & (b["document"] == i)).any().item() for i in range(row["document"].max() + 1)]
        print(f"{kind:11} {100 * sum(right) / len(right):5.1f}%", flush=True)


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


@torch.no_grad()
def score(out, to):
    """Share of choices.jsonl answered right: the choice with the best mean log-probability a token."""
    words = tokenizer.load(out)
    items = [json.loads(line) for line in (to / "choices.jsonl").read_text(encoding="utf-8").splitlines()]
    for branch, name in itertools.product(BRANCHES, FORMATS):
        if not (out / f"{branch}.pt").exists():
            continue
        model = see.load_text(out, branch)
        model.load_state_dict(quantized(model, name))
        right = 0
        for it in items:
            values = []
            for choice in it["choices"]:
                head = words.encode(f"Question: {it['question']}\nAnswer:").ids
                ids = torch.tensor([head + words.encode(" " + choice, add_special_tokens=False).ids])
                log = model(ids, torch.arange(ids.shape[1])[None], torch.zeros_like(ids)).log_softmax(-1)[0, :-1]
                values.append(log.gather(1, ids[0, 1:, None])[len(head) - 1:].mean().item())
            right += values.index(max(values)) == it["answer"]
        print(f"{branch} {name}: {right} of {len(items)} right")


def conversations(stream, count):
    """Conversations of three questions about pictures, each with the kinds of its questions."""
    while count:
        scene = pictures.make(stream.rng, stream.is_held)
        turns = sights.conversation(stream.rng, scene, 3)
        ids, weight = stream.encode([(looks.IMAGE * (i == 0) + q, a) for i, (_, q, a) in enumerate(turns)])
        if len(ids) <= looks.ROW + 1:
            count -= 1
            yield [kind for kind, _, _ in turns], (ids, weight, [scene])


@torch.no_grad()
def sight(out, branch, names=("bf16", "q8_0", "q4_0"), count=400):
    """Share of answers about pictures that are right to the last token: combinations that were trained, and held-out ones."""
    words = tokenizer.load(out)
    for is_held in (False, True):
        stream = looks.Looks(words, EVAL_SEED, is_held)
        asked = list(conversations(stream, count))
        parts = [asked[i:i + 25] for i in range(0, count, 25)]
        data = [([k for k, _ in part], stream.batch(c for _, c in part)) for part in parts]
        for name in names:
            both, master = see.load(out, branch), see.load(out, branch)
            both.text.load_state_dict(quantized(master.text, name))
            for key, p in both.tower.named_parameters():
                p.copy_(p.bfloat16())
            found = collections.defaultdict(list)
            for kinds, batch in data:
                for kind, right in zip(itertools.chain(*kinds), itertools.chain(*both.right(*batch))):
                    found[kind].append(right)
            everything = list(itertools.chain(*found.values()))
            share = lambda x: f"{100 * sum(x) / len(x):.1f}% of {len(x)}"
            print(f"{branch} {name} {'held-out' if is_held else 'trained'} combinations: {share(everything)}; "
                  + ", ".join(f"{k} {share(v)}" for k, v in sorted(found.items())), flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("what", choices=["measure", "score", "answers", "files", "sight"])
    p.add_argument("--out", type=Path)
    p.add_argument("--branch", default="sight")
    p.add_argument("--format", default="bf16", choices=FORMATS)
    p.add_argument("--to", type=Path)
    args = p.parse_args()
    torch.set_num_threads(1)
    if args.what == "measure":
        measure(args.out)
    elif args.what == "score":
        score(args.out, args.to)
    elif args.what == "sight":
        sight(args.out, args.branch)
    elif args.what == "answers":
        answers(args.out, args.branch, args.format)
    else:
        (args.to / "eval.txt").write_text(eval_text(), encoding="utf-8")
        with open(args.to / "choices.jsonl", "w", encoding="utf-8") as f:
            f.writelines(json.dumps(c, ensure_ascii=False) + "\n" for c in choices())


if __name__ == "__main__":
    main()
