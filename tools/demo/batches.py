"""Packs documents into rows of equal length. A token never sees another document."""

import random

import numpy as np
import torch

import corpus
from tokenizer import BOS

ROW, LONG_ROW = 256, 1024
TOKENS = 2048  # in one batch, of either kind
LONG_EVERY = 8  # every so many steps, a batch of long rows


def encode(tokenizer, document):
    """Token ids and the loss weight of each, with <bos> in front."""
    ids, learn = [BOS], [0.0]
    for (_, weight), e in zip(document.pieces, tokenizer.encode_batch([t for t, _ in document.pieces], add_special_tokens=False)):
        ids += e.ids
        learn += [weight] * len(e.ids)
    return ids, learn


def rows(tokenizer, documents, length, even=False, open_rows=48):
    """First fit into a few open rows; yields dicts of arrays. `even`: every token weighs 1."""
    pending = []
    for document in documents:
        ids, learn = encode(tokenizer, document)
        ids, learn = ids[: length + 1], learn[: length + 1]
        n = len(ids) - 1  # the last token is only a target
        place = next((r for r in pending if len(r["ids"]) + n <= length), None)
        if place is None:
            if len(pending) >= open_rows:
                yield finish(pending.pop(0), length)
            place = dict(ids=[], position=[], document=[], target=[], weight=[])
            pending.append(place)
        number = place["document"][-1] + 1 if place["document"] else 0
        place["ids"] += ids[:-1]
        place["target"] += ids[1:]
        place["weight"] += [1.0] * n if even else learn[1:]
        place["position"] += range(n)
        place["document"] += [number] * n
    for row in pending:
        yield finish(row, length)


def finish(row, length):
    fill = dict(ids=0, position=0, document=-1, target=0, weight=0.0)
    return {k: np.array(v + [fill[k]] * (length - len(v)), np.float32 if k == "weight" else np.int64) for k, v in row.items()}


def collate(some_rows):
    return {k: torch.from_numpy(np.stack([r[k] for r in some_rows])) for k in some_rows[0]}


def training(tokenizer, seed, mixture):
    """An endless stream of batches; neighbours in the stream of rows are mixed a little."""
    rng = random.Random(seed)
    short = rows(tokenizer, corpus.documents(seed, mixture), ROW)
    long = rows(tokenizer, corpus.documents(seed, long=True), LONG_ROW, open_rows=4)
    pool = [next(short) for _ in range(128)]
    step = 0
    while True:
        step += 1
        if step % LONG_EVERY == 0:
            yield collate([next(long) for _ in range(TOKENS // LONG_ROW)])
            continue
        picked = []
        for _ in range(TOKENS // ROW):
            i = rng.randrange(len(pool))
            picked.append(pool[i])
            pool[i] = next(short)
        yield collate(picked)


def windows(tokenizer, documents, length):
    """Plain text of many documents, a blank line between two, cut into equal windows as an evaluation cuts it."""
    text, ids = [], []
    for document in documents:
        text.append(document.text.removesuffix("<eos>"))
        if len(text) == 64:
            ids += tokenizer.encode("\n\n".join(text) + "\n\n", add_special_tokens=False).ids
            text = []
        while len(ids) > length:
            window = [BOS] + ids[1:length + 1]
            yield dict(ids=np.array(window[:-1]), position=np.arange(length), document=np.zeros(length, np.int64),
                       target=np.array(window[1:]), weight=np.ones(length, np.float32))
            ids = ids[length:]


def distillation(tokenizer, seed, window=512):
    """An endless stream of batches: by turns packed documents of the training mixture, and windows of plain text."""
    packed = rows(tokenizer, corpus.documents(seed, "school"), ROW)
    plain = windows(tokenizer, corpus.raw_documents(seed + 1), window)
    while True:
        yield collate([next(packed) for _ in range(TOKENS // ROW)])
        yield collate([next(plain) for _ in range(TOKENS // window)])


def held_out(tokenizer, seed, count=1200):
    """Batches of held-out documents, every token weighing the same."""
    stream = corpus.documents(seed, held=True)
    packed = list(rows(tokenizer, (next(stream) for _ in range(count)), ROW, even=True))
    return [collate(packed[i:i + 16]) for i in range(0, len(packed), 16)]
