"""Batches of conversations about pictures. A row holds one conversation, with one picture or two in it."""

import random

import numpy as np
import torch

import pictures
import sights
import tasks
from corpus import END, MODEL, USER
from tokenizer import BOS, SOFT
from tower import VisionConfig, cut

TOKENS = VisionConfig().tokens
IMAGE = "\n\n<start_of_image>" + "<image_soft_token>" * TOKENS + "<end_of_image>\n\n"  # as Gemma3Processor writes it
ROW = 128
NOTHING = "I see no picture here. Show me one and ask me again!"


def about(rng, scene, turns):
    """[(question, answer)], the first with the picture in front."""
    (first, *rest) = [(q, a) for _, q, a in sights.conversation(rng, scene, turns)]
    return [(IMAGE + first[0], first[1])] + rest


def document(rng, src, is_held, kind):
    """(turns, scenes)"""
    scene = pictures.make(rng, is_held)
    if kind == "two":
        other = pictures.make(rng, is_held)
        return about(rng, scene, rng.randint(1, 2)) + about(rng, other, rng.randint(1, 2)), [scene, other]
    if kind == "mixed":
        body = about(rng, scene, rng.randint(1, 2))
        r = rng.random()
        if r < 0.3:
            return [src.question()] + body, [scene]
        return body + [src.question()] + ([(sights.question(rng, scene, sights.FOLLOW)[1:])] if r < 0.65 else []), [scene]
    if kind == "none":
        turns = [sights.question(rng, scene)[1:]] if rng.random() < 0.5 else [sights.caption(rng, scene)]
        return ([src.question()] if rng.random() < 0.3 else []) + [(turns[0][0], NOTHING)], []
    return about(rng, scene, rng.randint(2, 4)), [scene]


class Looks:
    """An endless stream of batches of conversations."""

    KINDS = {"one": 12, "two": 1, "mixed": 2, "none": 1}  # weights

    def __init__(self, words, seed, is_held=False, rows=16):
        self.words, self.rows, self.is_held = words, rows, is_held
        self.rng = random.Random(f"looks {seed} {is_held}")
        self.src = tasks.Source(random.Random(f"looks text {seed}"), is_held)

    def encode(self, turns):
        pieces = []
        for q, a in turns:
            pieces += [(USER + q + END + MODEL, 0.0), (a + END, 1.0)]
        ids, weight = [BOS], [0.0]
        for (_, w), e in zip(pieces, self.words.encode_batch([t for t, _ in pieces], add_special_tokens=False)):
            ids += e.ids
            weight += [w] * len(e.ids)
        return ids, weight

    def fitting(self, kind):
        """A conversation that fits into a row."""
        while True:
            turns, scenes = document(self.rng, self.src, self.is_held, kind)
            ids, weight = self.encode(turns)
            if len(ids) <= ROW + 1:
                return ids, weight, scenes

    def __next__(self):
        return self.batch([self.fitting(kind) for kind in self.rng.choices(list(self.KINDS), list(self.KINDS.values()), k=self.rows)])

    def batch(self, conversations):
        """Patches of the pictures, and arrays of [conversations, ROW]."""
        out = dict(ids=[], target=[], weight=[], place=[], document=[], position=[])
        pixels = []
        for ids, weight, scenes in conversations:
            place, at = [], TOKENS * len(pixels)
            for i in ids:
                at += i == SOFT
                place.append(at if i == SOFT else 0)
            pixels += [np.asarray(pictures.small(s, self.rng)) for s in scenes]
            n, fill = len(ids) - 1, ROW + 1 - len(ids)
            out["ids"].append(ids[:-1] + [0] * fill)
            out["target"].append(ids[1:] + [0] * fill)
            out["weight"].append(weight[1:] + [0.0] * fill)
            out["place"].append(place[:-1] + [0] * fill)
            out["document"].append([0] * n + [-1] * fill)
            out["position"].append([*range(n)] + [0] * fill)
        batch = {k: torch.tensor(v) for k, v in out.items()}
        blank = np.zeros((0, pictures.SIZE, pictures.SIZE, 3), np.uint8)
        return cut(np.stack(pixels) if pixels else blank), batch
