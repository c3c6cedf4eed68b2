"""Pictures to talk about: a few coloured shapes on a plain ground, drawn with Pillow.

    python pictures.py show --to DIR     draws some, to look at
    python pictures.py files --to ../../models/pictures   the held-out pictures that come along
"""

import argparse
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from PIL import Image, ImageDraw

SIZE = 64  # what the tower sees, in pixels a side
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring")
COLOURS = {"red": (220, 40, 40), "orange": (250, 150, 30), "yellow": (245, 225, 50), "green": (45, 165, 65), "blue": (40, 85, 225),
           "purple": (130, 50, 175), "pink": (250, 150, 195)}
GROUNDS = {"white": (250, 250, 250), "black": (15, 15, 15), "grey": (145, 145, 145)}
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "middle", "right")
MOST = 4  # things in a picture
HELD_SHARE = 8  # one in so many combinations is never trained


@dataclass
class Thing:
    shape: str
    colour: str
    x: float  # centre and radius, in shares of the picture's side
    y: float
    r: float


@dataclass
class Scene:
    """`groups`: (count, colour, shape), the shapes all different, in the order of SHAPES."""

    ground: str
    groups: list
    things: list = field(default_factory=list)
    place: str = ""  # of the only thing
    relation: str = ""  # how the first of two things lies to the second


def place_name(row, column):
    """at the top left, on the left, at the top, in the middle"""
    if row == column == 1:
        return "in the middle"
    if row == 1:
        return f"on the {COLUMNS[column]}"
    return f"at the {ROWS[row]}" if column == 1 else f"at the {ROWS[row]} {COLUMNS[column]}"


PLACES = [place_name(r, c) for r in range(3) for c in range(3)]


def held(key):
    return crc32(key.encode()) % HELD_SHARE == 0


def keys(scene):
    """The combinations of which some are held out."""
    for n, colour, shape in scene.groups:
        yield f"{n} {colour} {shape}"
    if scene.place:
        yield f"{scene.groups[0][1]} {scene.groups[0][2]} {scene.place}"


def scatter(rng, count, radius, margin=0.02, gap=0.05):
    """Centres of so many things that do not touch; None when there was no room."""
    centres = []
    for _ in range(200):
        x, y = (rng.uniform(radius + margin, 1 - radius - margin) for _ in "xy")
        if all(math.hypot(x - a, y - b) > 2 * radius + gap for a, b in centres):
            centres.append((x, y))
            if len(centres) == count:
                return centres
    return None


def compose(rng):
    ground = rng.choice(list(GROUNDS))
    kind = rng.random()
    total = 1 if kind < 0.3 else 2 if kind < 0.55 else rng.randint(2, MOST)
    single = kind < 0.3 or total > 1 and kind >= 0.55 and rng.random() < 0.4
    if single:
        counts = [total]
    else:
        first = rng.randint(1, total - 1)
        counts = [first, total - first]
    shapes = sorted(rng.sample(SHAPES, len(counts)), key=SHAPES.index)
    scene = Scene(ground, [(n, rng.choice(list(COLOURS)), s) for n, s in zip(counts, shapes)])
    radius = rng.uniform(0.12, 0.19) if total < 3 else rng.uniform(0.11, 0.15)
    if total == 1:
        row, column = rng.randrange(3), rng.randrange(3)
        scene.place = place_name(row, column)
        spot = lambda i: (rng.uniform(radius + 0.01, 0.25), rng.uniform(0.42, 0.58), rng.uniform(0.75, 0.99 - radius))[i]
        centres = [(spot(column), spot(row))]
    elif counts == [1, 1]:
        scene.relation = rng.choice(["left of", "right of", "above", "below"])
        low, high = rng.uniform(radius + 0.02, 0.28), rng.uniform(0.72, 0.98 - radius)
        across = rng.uniform(radius + 0.02, 0.98 - radius)
        other = min(max(across + rng.uniform(-0.15, 0.15), radius + 0.02), 0.98 - radius)
        a, b = (low, across), (high, other)
        if scene.relation in ("above", "below"):
            a, b = a[::-1], b[::-1]
        centres = [a, b] if scene.relation in ("left of", "above") else [b, a]
    else:
        centres = None
        while centres is None:
            centres = scatter(rng, total, radius)
            radius = radius if centres else 0.95 * radius
    kinds = [(shape, colour) for n, colour, shape in scene.groups for _ in range(n)]
    scene.things = [Thing(s, c, x, y, radius * rng.uniform(0.92, 1.0)) for (s, c), (x, y) in zip(kinds, centres)]
    return scene


def make(rng, is_held):
    """A scene of one side of the split."""
    while True:
        scene = compose(rng)
        if any(map(held, keys(scene))) == is_held:
            return scene


def outline(shape, tilt):
    """Corners of a shape around 0, 0 with radius 1; y points down."""
    turn = lambda points: [(x * math.cos(tilt) - y * math.sin(tilt), x * math.sin(tilt) + y * math.cos(tilt)) for x, y in points]
    ring = lambda n, start, r: [(r * math.sin(2 * math.pi * i / n + start), -r * math.cos(2 * math.pi * i / n + start)) for i in range(n)]
    if shape == "square":
        return turn([(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)])
    if shape == "triangle":
        return turn([(0, -0.95), (1.0, 0.8), (-1.0, 0.8)])
    if shape == "star":
        outer, inner = ring(5, 0, 1.08), ring(5, math.pi / 5, 0.46)
        return turn([(x, y + 0.05) for pair in zip(outer, inner) for x, y in pair])
    t = [2 * math.pi * i / 40 for i in range(40)]
    return turn([(math.sin(a) ** 3, -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)) / 15) for a in t])


def draw(scene, rng, side):
    """The picture, `side` pixels square, colours and angles a little different each time."""
    shade = lambda c, by: tuple(min(255, max(0, v + rng.randint(-by, by))) for v in c)
    light = rng.randint(-15, 15) if scene.ground == "grey" else 0
    ground = tuple(v + light for v in shade(GROUNDS[scene.ground], 4))
    image = Image.new("RGB", (side, side), ground)
    pen = ImageDraw.Draw(image)
    for t in scene.things:
        colour = shade(COLOURS[t.colour], 12)
        at = lambda r: [(t.x - r) * side, (t.y - r) * side, (t.x + r) * side, (t.y + r) * side]
        if t.shape in ("circle", "ring"):
            pen.ellipse(at(t.r), fill=colour)
            if t.shape == "ring":
                pen.ellipse(at(0.55 * t.r), fill=ground)
        else:
            pen.polygon([((t.x + t.r * x) * side, (t.y + t.r * y) * side) for x, y in outline(t.shape, rng.uniform(-0.12, 0.12))], fill=colour)
    return image


def small(scene, rng):
    """As the tower will see it after preprocessing: drawn larger, resized as Gemma3ImageProcessor does."""
    return draw(scene, rng, rng.choice((128, 160, 192))).resize((SIZE, SIZE), Image.Resampling.BILINEAR)


def smooth(scene, rng, side=192):
    return draw(scene, rng, 4 * side).resize((side, side), Image.Resampling.BOX)


# The pictures that come along: (groups, place or relation), all of them of the held-out side.
FILES = {
    "heart": ([(1, "red", "heart")], "at the bottom right"),
    "squares": ([(3, "green", "square")], ""),
    "star-and-circle": ([(1, "yellow", "circle"), (1, "purple", "star")], "left of"),
    "stars": ([(4, "red", "star")], ""),
    "circles-and-triangle": ([(2, "orange", "circle"), (1, "blue", "triangle")], ""),
    "ring": ([(1, "yellow", "ring")], "in the middle"),
}


def files(to):
    to.mkdir(parents=True, exist_ok=True)
    for name, (groups, where) in FILES.items():
        rng = random.Random(name)
        while True:
            scene = make(rng, True)
            if scene.groups == groups and where == scene.place + scene.relation:
                break
        smooth(scene, rng).save(to / f"{name}.png", optimize=True)
        print(name, scene.ground)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("what", choices=["show", "files"])
    p.add_argument("--to", type=Path, required=True)
    args = p.parse_args()
    if args.what == "files":
        return files(args.to)
    rng = random.Random(0)
    sheet = Image.new("RGB", (800, 600))
    for i in range(48):
        scene = make(rng, i % 2 == 1)
        sheet.paste(small(scene, rng).resize((96, 96), Image.Resampling.NEAREST), (i % 8 * 100, i // 8 * 100))
        print(i, scene.ground, scene.groups, scene.place, scene.relation)
    sheet.save(args.to / "sheet.png")


if __name__ == "__main__":
    main()
