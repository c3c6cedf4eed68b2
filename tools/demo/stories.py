"""Builds one coherent little story from a plot, two characters and a place."""

from dataclasses import dataclass
from string import Formatter

from facts import ANIMALS, NAMES
from plots import FRIENDS, HELPER_TRAITS, OPENINGS, PLACES, PLOTS, TRAITS

# Heroes and helpers. Kinds that only a few stories use teach the model to copy what it is asked for.
KINDS = [k for k in ANIMALS if k not in ("whale", "fish")] + (
    "badger deer otter beaver robin sparrow snail beetle butterfly lamb puppy kitten kangaroo monkey zebra giraffe koala "
    "dragon robot wizard witch king queen prince princess boy girl farmer baker sailor knight giant elf fairy "
    "gardener painter teacher tailor miller snowman mole bat parrot goose pony camel lizard seal gnome pirate "
    "ghost astronaut cook shepherd fisherman child").split()
GENDER = {"king": "he", "prince": "he", "boy": "he", "wizard": "he", "queen": "she", "princess": "she", "girl": "she",
          "witch": "she", "cow": "she", "hen": "she", "snowman": "he", "fisherman": "he"}
FORMS = {"he": ("he", "him", "his"), "she": ("she", "her", "her")}
COMMON = ["fox", "owl", "mouse", "bear", "rabbit", "cat", "dog", "dragon", "robot", "frog", "girl", "boy", "hedgehog", "king"]
YOUNG = {"boy", "girl", "child", "puppy", "kitten", "lamb", "prince", "princess"}
# Names a user may ask for that the narrator would not choose.
OTHER_NAMES = {"he": ["Alex", "Peter", "David", "Mark", "Bob", "Charlie", "Henry", "George", "Simon", "Gus"],
               "she": ["Maria", "Sarah", "Julia", "Alice", "Grace", "Sophie", "Bella", "Violet", "Nina", "Molly"]}


def article(word):
    return ("an " if word[0] in "aeiouAEIOU" else "a ") + word


@dataclass
class Story:
    plot: str
    theme: str
    hero: str
    helper: str
    name: str
    helper_name: str
    place: str
    sentences: list
    summary: str
    fields: dict

    @property
    def text(self):
        return " ".join(self.sentences)


class Fields(Formatter):
    """`{He}` is `{he}` with a capital; a picked value may itself hold fields."""

    def get_value(self, key, args, kwargs):
        if key in kwargs:
            return self.vformat(kwargs[key], args, kwargs)
        lower = key.lower()  # {mHis} and {A_helper} come here
        value = self.vformat(kwargs[lower], args, kwargs)
        return value[0].upper() + value[1:]


FORMAT = Fields()


def some_kind(rng):
    return rng.choice(COMMON) if rng.random() < 0.35 else rng.choice(KINDS)


def some_name(rng, kind, other=0.0):
    gender = GENDER.get(kind) or rng.choice(("he", "she"))
    return gender, rng.choice((OTHER_NAMES if rng.random() < other else NAMES)[gender])


def make(rng, hero=None, helper=None, plot=None, place=None, other_name=0.05):
    hero = hero or some_kind(rng)
    while helper is None or helper == hero:
        helper = some_kind(rng)
    plot = plot or rng.choice(list(PLOTS))
    place = place or rng.choice(PLACES)
    p = PLOTS[plot]
    gender, name = some_name(rng, hero, other_name)
    while True:
        mgender, mname = some_name(rng, helper)
        if mname != name:
            break
    he, him, his = FORMS[gender]
    mhe, mhim, mhis = FORMS[mgender]
    traits = [t for t in HELPER_TRAITS if helper not in YOUNG or t not in ("old", "wise")]
    helper_phrase = article(f"{rng.choice(traits)} {helper}" if rng.random() < 0.6 else helper)
    f = dict(n=name, k=hero, ak=article(hero), he=he, him=him, his=his, m=mname, mk=helper, amk=article(helper),
             mhe=mhe, mhim=mhim, mhis=mhis, a_helper=helper_phrase, place=place, trait=rng.choice(TRAITS))
    f.update({key: rng.choice(values) for key, values in p["pick"].items()})
    lines = [rng.choice(OPENINGS)] + [rng.choice(slot) for slot in p["slots"]]
    if p.get("friends"):
        lines.append(rng.choice(FRIENDS))
    fill = lambda line: FORMAT.format(line, **f)
    return Story(plot, p["theme"], hero, helper, name, mname, place, [fill(x) for x in lines], fill(p["summary"]), f)
