#!/usr/bin/env python3
"""What --lookup brings: the same prompts with and without it, in turns.

    python3 benches/lookup.py target/release/lapidary MODEL.gguf [TURNS]

Two prompts that edit a text, one that has nothing to copy. Prints the median speeds and says whether
the greedy answers are the same, letter by letter.
"""
import argparse
import re
import statistics
import subprocess

STORY = (
    "Once upon a time there was a rabbit named Bella. She lived near a small village. One morning Bella "
    "found a silver key under a tree. But it did not belong to her, so Bella went to look for the owner. "
    "In the market she saw a patient otter named Ivy, who was looking for something. Bella gave the key "
    "to Ivy, and Ivy was very happy. From then on, Bella and Ivy were the best of friends."
)
PROMPTS = {
    "change a name": f"Change the name Bella to Lucy: {STORY}",
    "repeat": f"Write this text again, word for word: {STORY}",
    "a new story": "Tell me a short story about a robot who lives near a small village.",
}


def answer(program, model, prompt, lookup):
    command = [program, "run", model, "-p", prompt, "--temp", "0", "-n", "200"] + ["--lookup"] * lookup
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"generated (\d+) tokens?, ([\d.]+) tokens/s", out.stderr)
    return out.stdout, int(found[1]), float(found[2])


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("program")
    ap.add_argument("model")
    ap.add_argument("turns", nargs="?", type=int, default=9)
    a = ap.parse_args()
    print("| prompt | tokens | plain | --lookup | ratio | same answer |\n|---|---:|---:|---:|---:|---|")
    for name, prompt in PROMPTS.items():
        runs = {False: [], True: []}
        for _ in range(a.turns):
            for lookup in runs:
                runs[lookup].append(answer(a.program, a.model, prompt, lookup))
        speed = {k: statistics.median(r[2] for r in v) for k, v in runs.items()}
        same = len({r[0] for v in runs.values() for r in v}) == 1
        ratio = statistics.median(b[2] / a[2] for a, b in zip(runs[False], runs[True]))
        print(f"| {name} | {runs[False][0][1]} | {speed[False]:.0f} t/s | {speed[True]:.0f} t/s "
              f"| {ratio:.2f} | {'yes' if same else 'NO'} |")


main()
