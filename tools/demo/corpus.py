"""The mixture: what share each kind of document has, and how documents become text.

    python corpus.py 20      prints twenty documents
"""

import random
import sys
from dataclasses import dataclass

import tasks
from tasks import Source

USER, MODEL = "<start_of_turn>user\n", "<start_of_turn>model\n"
END = "<end_of_turn>\n"


@dataclass
class Document:
    """Pieces of text in order; `learn` is the weight of the loss on their tokens."""

    kind: str
    pieces: list  # (text, learn)

    @property
    def text(self):
        return "".join(t for t, _ in self.pieces)


def as_chat(kind, turns, user_weight=0.2):
    pieces = []
    for question, answer in turns:
        pieces += [(USER + question + END + MODEL, user_weight), (answer + END, 1.0)]
    return Document(kind, pieces)


def plain(turns, names):
    """A conversation without control tokens, for plain-text perplexity and multiple choice."""
    return "\n".join(f"{names[0]}: {a}\n{names[1]}: {b}" for a, b in turns)


def raw(src):
    rng = src.rng
    r = rng.random()
    if r < 0.45:
        s = src.story()
        text = f"The {s.hero.title()} and the {s.helper.title()}\n\n{s.text}" if rng.random() < 0.4 else s.text
    elif r < 0.65:
        text = plain([src.question() for _ in range(rng.randint(1, 4))], ("Question", "Answer"))
    elif r < 0.72:
        text = plain(tasks.continue_story(src)[0], ("Question", "Answer"))
    else:
        text = plain(tasks.chat(src), ("User", "Model"))
    return Document("raw", [(text + "<eos>", 1.0)])


# kind: (weight while learning to read and tell, weight while learning facts, maker).
# Weights count documents, not tokens.
KINDS = {
    "short": (44, 110, lambda src: [src.question()]),
    "story": (16, 12, lambda src: tasks.tell(src)[0]),
    "continue": (3, 2, lambda src: tasks.continue_story(src)[0]),
    "summarise": (2.5, 2, lambda src: tasks.summarise(src)[0]),
    "discuss": (3.5, 3, lambda src: tasks.discuss(src)[0]),
    "repeat": (9, 12, tasks.repeat),
    "replace": (4.5, 5, tasks.replace_name),
    "lists": (5, 10, tasks.lists),
    "chat": (7, 7, tasks.chat),
    "follow": (3, 4, tasks.follow_up),
    "instructed": (4, 4, tasks.instructed),
    "raw": (6, 6, None),
}
MIXTURES = ("broad", "school")


def document(src, mixture):
    kind = src.rng.choices(list(KINDS), [k[MIXTURES.index(mixture)] for k in KINDS.values()])[0]
    return raw(src) if kind == "raw" else as_chat(kind, KINDS[kind][-1](src))


def long_document(src):
    """A long conversation, so that far positions are trained too."""
    turns = []
    while sum(len(a) + len(b) for a, b in turns) < src.rng.randint(1200, 3400):
        turns += tasks.chat(src, src.rng.randint(1, 5))
    return as_chat("long", tasks.memory(src.rng, turns) if src.rng.random() < 0.5 else turns)


def documents(seed, mixture="broad", held=False, long=False):
    """An endless stream of documents from one side of the split."""
    src = Source(random.Random(f"{seed} {held} {long}"), held)
    while True:
        yield long_document(src) if long else document(src, mixture)


def raw_documents(seed, held=False):
    """An endless stream of plain text."""
    src = Source(random.Random(f"raw {seed} {held}"), held)
    while True:
        yield raw(src)


if __name__ == "__main__":
    for d, _ in zip(documents(0), range(int(sys.argv[1]))):
        print(f"--- {d.kind}\n{d.text}")
