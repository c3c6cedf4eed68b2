"""Questions about a picture, and their answers: conversations of which a scene is the subject.

    python sights.py 10      prints ten
"""

import random
import sys

import pictures
from questions import NUMBERS
from stories import article

MANY = {"circle": "circles", "square": "squares", "triangle": "triangles", "star": "stars", "heart": "hearts", "ring": "rings"}


def named(n, colour, shape):
    """a red circle, an orange star, two blue squares"""
    return article(f"{colour} {shape}") if n == 1 else f"{NUMBERS[n]} {colour} {MANY[shape]}"


def listing(scene):
    return " and ".join(named(*g) for g in scene.groups)


def caption(rng, scene):
    where = f" {scene.place}" if scene.place else ""
    return rng.choice(["What is in the picture?"] * 4 + [
        "What do you see?", "What can you see?", "What is this?", "Describe the picture.", "What is in this picture?", "What do you see in the picture?",
        "Tell me what you see.", "Tell me about the picture.", "What does the picture show?"]), f"I see {listing(scene)}{where}."


def colour(rng, scene):
    n, c, s = rng.choice(scene.groups)
    if n == 1:
        return rng.choice([f"What colour is the {s}?"] * 3 + [f"What color is the {s}?", f"Which colour has the {s}?"]), f"The {s} is {c}."
    return rng.choice([f"What colour are the {MANY[s]}?"] * 3 + [f"What color are the {MANY[s]}?", f"Which colour have the {MANY[s]}?"]), f"The {MANY[s]} are {c}."


def count(rng, scene):
    if rng.random() < 0.35:
        total = sum(n for n, _, _ in scene.groups)
        return rng.choice(["How many shapes are there?", "How many shapes are in the picture?", "How many shapes do you see?", "How many things are there?"]), \
            "There is one shape." if total == 1 else f"There are {NUMBERS[total]} shapes."
    n, _, s = rng.choice(scene.groups)
    if rng.random() < 0.2:
        n, s = 0, absent(rng, scene)
    question = rng.choice([f"How many {MANY[s]} are there?"] * 3 + [f"How many {MANY[s]} are in the picture?", f"How many {MANY[s]} do you see?", f"Count the {MANY[s]}."])
    return question, f"There are no {MANY[s]}." if n == 0 else f"There is one {s}." if n == 1 else f"There are {NUMBERS[n]} {MANY[s]}."


def absent(rng, scene):
    return rng.choice([s for s in pictures.SHAPES if s not in {g[2] for g in scene.groups}])


def where(rng, scene):
    """Only where one or two things make the answer plain; else None."""
    if scene.place:
        s = scene.groups[0][2]
        return rng.choice([f"Where is the {s}?"] * 2 + [f"Where is it?", f"Where in the picture is the {s}?"]), f"The {s} is {scene.place}."
    if scene.relation:
        (_, _, a), (_, _, b) = scene.groups
        back = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
        if rng.random() < 0.5:
            return f"Where is the {a}?", f"The {a} is {scene.relation} the {b}."
        return f"Where is the {b}?", f"The {b} is {back[scene.relation]} the {a}."
    return None


def is_there(rng, scene):
    n, c, s = rng.choice(scene.groups)
    if rng.random() < 0.5:
        s = absent(rng, scene)
        return rng.choice([f"Is there {article(s)}?", f"Do you see {article(s)}?", f"Is there {article(s)} in the picture?"]), f"No, there is no {s}."
    return rng.choice([f"Is there {article(s)}?", f"Do you see {article(s)}?", f"Is there {article(s)} in the picture?"]), \
        f"Yes, there is {named(n, c, s)}." if n == 1 else f"Yes, there are {named(n, c, s)}."


def is_colour(rng, scene):
    n, c, s = rng.choice(scene.groups)
    guess = c if rng.random() < 0.5 else rng.choice(list(pictures.COLOURS))
    thing, be = (f"the {s}", "is") if n == 1 else (f"the {MANY[s]}", "are")
    return f"{be.title()} {thing} {guess}?", f"{'Yes' if guess == c else 'No'}, {thing} {be} {c}."


def which(rng, scene):
    n, c, s = rng.choice(scene.groups)
    if sum(g[1] == c for g in scene.groups) > 1:
        return None
    return rng.choice([f"What is {c}?", f"What shape is {c}?", f"Which shape is {c}?"]), f"The {s} is {c}." if n == 1 else f"The {MANY[s]} are {c}."


def ground(rng, scene):
    return rng.choice(["What colour is the background?", "What color is the background?"]), f"The background is {scene.ground}."


KINDS = [(caption, 32), (colour, 16), (count, 18), (where, 14), (is_there, 8), (is_colour, 6), (which, 8), (ground, 10)]
FOLLOW = [(f, w if f is not caption else 6) for f, w in KINDS]


def question(rng, scene, kinds=KINDS):
    """(kind, question, answer)"""
    while True:
        make = rng.choices([f for f, _ in kinds], [w for _, w in kinds])[0]
        found = make(rng, scene)
        if found:
            return make.__name__, *found


def conversation(rng, scene, turns):
    """Several questions about one picture; each in the order in which somebody might ask."""
    asked, out = set(), []
    while len(out) < turns:
        kind, q, a = question(rng, scene, FOLLOW if out else KINDS)
        if q not in asked:
            asked.add(q)
            out.append((kind, q, a))
    return out


if __name__ == "__main__":
    r = random.Random(0)
    for _ in range(int(sys.argv[1])):
        s = pictures.make(r, False)
        print(s.ground, s.groups, s.place, s.relation)
        for t in conversation(r, s, 4):
            print("   ", *t, sep=" | ")
