"""Tasks on a text, and conversations: everything longer than one question and its answer.

A `Source` draws questions and stories from one side of the split, so that no held-out
combination reaches the training documents inside a longer one.
"""

from zlib import crc32

import questions as q
import stories
from facts import ANIMALS, COLOURS, NAMES, USER_NAMES, WORDS

SHORT = [(q.capital, 10), (q.animal, 20), (q.sound_of, 2), (q.opposite, 8), (q.plural, 4), (q.colour, 6), (q.calendar, 15),
         (q.shape, 2), (q.arithmetic, 38), (q.word_problem, 8), (q.compare, 5), (q.letters, 16), (q.yes_no, 10), (q.why, 10),
         (q.unknown, 4), (q.too_hard, 4), (q.about, 8), (q.greeting, 9)]
# The few ways to say these are all trained on.
NEVER_HELD = (q.why, q.about, q.greeting)
HELD_SHARE = 40  # one in so many


def is_held(key):
    return crc32(key.encode()) % HELD_SHARE == 0


class Source:
    def __init__(self, rng, held):
        self.rng, self.held = rng, held

    def question(self, make=None):
        """A (question, answer) pair, the question sometimes typed in haste."""
        while True:
            chosen = make or self.rng.choices([f for f, _ in SHORT], [w for _, w in SHORT])[0]
            for _ in range(10 * HELD_SHARE):  # a small kind may have nothing held out
                key, text, answer = chosen(self.rng)
                if chosen in NEVER_HELD or is_held(key) == self.held:
                    return self.hasty(text), answer

    def hasty(self, text):
        r = self.rng.random()
        if r < 0.06:
            text = text.lower()
        elif r < 0.10:
            text = text[0].lower() + text[1:]
        if self.rng.random() < 0.08 and text[-1] in "?.!":
            text = text[:-1]
        return text

    def story(self, **wanted):
        while True:
            s = stories.make(self.rng, **wanted)
            if is_held(f"{s.plot} {s.hero} {s.helper}") == self.held:
                return s


# --- Stories ---------------------------------------------------------------------------------

def tell(src):
    """A story that was asked for: about somebody, with a name, in a place, on a theme."""
    rng = src.rng
    s = src.story(other_name=0.3)
    hero, helper = stories.article(s.hero), stories.article(s.helper)
    kind = rng.random()
    if kind < 0.42:
        about = f" about {hero}"
    elif kind < 0.60:
        about = f" about {hero} and {helper}"
    elif kind < 0.74:
        about = f" about {hero} named {s.name}" if rng.random() < 0.6 else f" about {s.name} the {s.hero}"
    elif kind < 0.80:
        about = f" about {hero} who lives {s.place}"
    elif kind < 0.86:
        about = f" about {s.theme}"
    elif kind < 0.90:
        about = f" about {s.plot}" if not s.plot.startswith("afraid") else f" about {hero} who is afraid of the dark"
    elif kind < 0.93:
        about = f" that takes place {s.place}"
    else:
        about = ""
    story = rng.choices(["a story", "a little story", "a short story", "a bedtime story", "a tale"], [10, 3, 4, 2, 1])[0]
    ask = rng.choices(["Tell me {}.", "Can you tell me {}?", "Please tell me {}.", "Write {}.", "I would like to hear {}.",
                       "Write me {}.", "Could you tell me {}?", "Make up {}.", "Tell {}.", "{}, please."], [14, 3, 3, 4, 2, 2, 1, 1, 1, 1])[0]
    question = q.cap(ask.format(story + about))
    return [(src.hasty(question), s.text)], s


def continue_story(src):
    s, rng = src.story(), src.rng
    cut = rng.randint(1, len(s.sentences) - 2)
    ask = rng.choice(["Continue this story:", "Continue the story:", "How does this story go on?", "Finish this story:", "Please continue:"])
    return [(f"{ask}{rng.choice([' ', chr(10), chr(10) * 2])}{' '.join(s.sentences[:cut])}", " ".join(s.sentences[cut:]))], s


def summarise(src):
    s, rng = src.story(), src.rng
    ask = rng.choice(["Summarise this story in one sentence:", "Sum up this story in one sentence:", "What is this story about?",
                      "Summarize this story:", "Give a short summary of this text:"])
    return [(f"{ask}{rng.choice([' ', chr(10) * 2])}{s.text}", s.summary)], s


def about_story(src, s):
    """A question on a story that is already in the conversation."""
    return src.rng.choice([
        ("Who is the story about?", f"It is about {s.name}, {stories.article(s.hero)}, and {s.helper_name}, {stories.article(s.helper)}."),
        ("Where does it take place?", f"The story takes place {s.place}."),
        (f"Who is {s.helper_name}?", f"{s.helper_name} is {stories.article(s.helper)}."),
        (f"What kind of animal is {s.name}?" if s.hero in ANIMALS else f"Who is {s.name}?", f"{s.name} is {stories.article(s.hero)}."),
        ("What was the name of the hero?", f"The hero is called {s.name}."),
        ("Can you sum it up in one sentence?", s.summary),
        ("What can I learn from it?", f"It is a story about {s.theme}."),
    ])


def discuss(src):
    rng = src.rng
    if rng.random() < 0.5:
        turns, s = tell(src)
        first, second = about_story(src, s), about_story(src, s)
        turns = turns + ([first] if first == second else [first, second])
        if rng.random() < 0.2:
            turns.append(src.question(q.greeting))
        return turns, s
    s = src.story()
    question, answer = about_story(src, s)
    question = question.replace("does it take", "does the story take").replace("sum it up", "sum up this story").replace("from it", "from this story")
    text = f"Read this story:\n\n{s.text}\n\n{question}" if rng.random() < 0.5 else f"{question}\n\n{s.text}"
    return [(text, answer)], s


# --- Copying with care -----------------------------------------------------------------------

def some_text(src):
    """A stretch of a story, a list of words, or questions and answers."""
    rng = src.rng
    r = rng.random()
    if r < 0.5:
        s = src.story(other_name=0.4)
        i = rng.randrange(len(s.sentences))
        return " ".join(s.sentences[i:i + rng.randint(1, 5)])
    if r < 0.85:
        names = NAMES["he"] + NAMES["she"] + USER_NAMES
        return " ".join(rng.choice(rng.choice([WORDS, names, list(ANIMALS)])) for _ in range(rng.randint(2, 12)))
    return " ".join(" ".join(src.question()) for _ in range(2))


def repeat(src):
    text, rng = some_text(src), src.rng
    ask = rng.choice(["Repeat this text:", "Repeat:", "Say this again:", "Copy this text:", "Repeat after me:", "Please repeat this text:",
                      "Write this text again, word for word:"])
    return [(f"{ask}{rng.choice([' ', chr(10), chr(10) * 2])}{text}", text)]


def replace_name(src):
    """Same gender, so that the pronouns stay right."""
    s, rng = src.story(other_name=0.3), src.rng
    gender = "he" if s.fields["he"] == "he" else "she"
    new = rng.choice([n for n in NAMES[gender] + stories.OTHER_NAMES[gender] if n not in (s.name, s.helper_name)])
    with_name = [i for i, x in enumerate(s.sentences) if s.name in x]
    i = rng.choice(with_name)
    text = " ".join(s.sentences[max(0, i - rng.randint(0, 2)):i + rng.randint(1, 6)])
    ask = rng.choice([f"Replace {s.name} with {new} in this text:", f"Change the name {s.name} to {new}:",
                      f"Write this text again, but call {s.name} {new}:", f"In this text, replace {s.name} with {new}:"])
    return [(f"{ask}{rng.choice([' ', chr(10), chr(10) * 2])}{text}", text.replace(s.name, new))]


def lists(src):
    rng = src.rng
    words = rng.sample(WORDS, rng.randint(3, 5))
    numbers = rng.sample(range(0, 21), rng.randint(3, 5))
    join = lambda x: ", ".join(map(str, x))
    n = len(words)
    return [rng.choice([
        (f"{rng.choice(['Sort these numbers:', 'Put these numbers in order:', 'Sort:', 'Order these numbers:'])} {join(numbers)}", join(sorted(numbers))),
        (f"{rng.choice(['Sort these words:', 'Put these words in alphabetical order:'])} {join(words)}", join(sorted(words))),
        (f"{rng.choice(['How many words are in this list:', 'Count these words:'])} {join(words)}", f"There are {q.NUMBERS[n]} words in the list."),
        (f"What is the first word in this list: {join(words)}?", f"The first word is {words[0]}."),
        (f"What is the last word in this list: {join(words)}?", f"The last word is {words[-1]}."),
        (f"{rng.choice(['Say these words backwards:', 'Reverse this list:'])} {join(words)}", join(words[::-1])),
        (f"What is the biggest of these numbers: {join(numbers)}?", f"The biggest number is {max(numbers)}."),
        (f"What is the smallest of these numbers: {join(numbers)}?", f"The smallest number is {min(numbers)}."),
    ])]


# --- Conversations ---------------------------------------------------------------------------

def memory(rng, turns):
    """Wraps turns between something the user says about himself and a question about it."""
    name, colour = rng.choice(USER_NAMES + NAMES["he"] + NAMES["she"]), rng.choice(sorted(set(COLOURS.values())))
    pet, pet_name = rng.choice(list(ANIMALS)), rng.choice(NAMES["he"] + NAMES["she"])
    greet = rng.choice(["", "", "Hi! ", "Hello! ", "Hello, "])
    say, reply, ask, answer = rng.choice(2 * [
        (f"{greet}{rng.choice(['My name is', 'I am', 'my name is', 'I am called'])} {name}.", f"Nice to meet you, {name}! What would you like to know?",
         ["What is my name?", "Do you remember my name?", "What's my name?", "Who am I?", "Do you know my name?"], f"Your name is {name}."),
    ] + [
        (f"My favourite colour is {colour}.", f"{q.cap(colour)} is a lovely colour!",
         ["What is my favourite colour?", "Which colour do I like best?"], f"Your favourite colour is {colour}."),
        (f"I have a {pet} called {pet_name}." if pet[0] not in "aeiou" else f"I have an {pet} called {pet_name}.", f"{pet_name} is a lovely name for {stories.article(pet)}!",
         [f"What is the name of my {pet}?", "What is my pet called?"], f"Your {pet} is called {pet_name}."),
    ])
    return [(say, reply)] + turns + [(rng.choice(ask), answer)]


def chat(src, turns=None):
    rng = src.rng
    n = turns or rng.choice([0, 1, 1, 2, 2, 3, 4])
    body = []
    for _ in range(n):
        r = rng.random()
        body += tell(src)[0] if r < 0.06 else lists(src) if r < 0.12 else repeat(src) if r < 0.15 else [src.question()]
    r = rng.random()
    if r < 0.6 or not body:
        return memory(rng, body)
    if r < 0.66:
        return body + [("What is my name?", "You have not told me your name yet.")]
    return body + [src.question()]


def follow_up(src):
    """A question, then the same kind of question put in short."""
    rng = src.rng
    countries = rng.sample([c for c in q.CAPITALS if not c.startswith("the United")], 3)
    a, b = rng.sample(list(ANIMALS), 2)
    say = lambda c: f"The capital of {c} is {q.CAPITALS[c]}."
    legs = lambda x: f"{q.cap(stories.article(x))} has {q.NUMBERS[ANIMALS[x][4]] if ANIMALS[x][4] else 'no'} legs."
    x, y = rng.randint(1, 10), rng.randint(1, 10)
    z = rng.randint(1, 5)
    return rng.choice([
        [(f"What is the capital of {countries[0]}?", say(countries[0]))] + [(f"And of {c}?", say(c)) for c in countries[1:rng.randint(2, 3)]],
        [(f"How many legs does {stories.article(a)} have?", legs(a)), (f"And {stories.article(b)}?", legs(b))],
        [(f"What is {x} + {y}?", f"{x} + {y} = {x + y}"), (f"And {z} more?", f"{x + y} + {z} = {x + y + z}")],
    ])


def instructed(src):
    """A system-style instruction, put in front of the first turn with a blank line."""
    rng = src.rng
    turns = [src.question() for _ in range(rng.randint(1, 3))]
    r = rng.random()
    if r < 0.3:
        system = rng.choice(["You are a helpful assistant.", "You are a friendly assistant.", "Be kind and helpful.", "You are a kind teacher.",
                             "Answer the questions of the user.", "Give short and simple answers.", "Be polite."])
    elif r < 0.5:
        word = rng.choice(["Ahoy!", "Dear friend!", "Well!", "Oh!", "My friend!", "Arr!"])
        system = f"{rng.choice(['Begin every answer with', 'Start each answer with', 'Always begin with'])}: {word}"
        turns = [(a, f"{word} {b}") for a, b in turns]
    elif r < 0.6:
        system = rng.choice(["End every answer with a smile.", "Always smile at the end."])
        turns = [(a, f"{b} :)") for a, b in turns]
    elif r < 0.8:
        name = rng.choice(NAMES["he"] + NAMES["she"])
        system = rng.choice([f"Your name is {name}.", f"You are {name}, a friendly helper."])
        turns = [(rng.choice(["What is your name?", "What's your name?", "Who are you?"]), f"My name is {name}.")] + turns[1:]
    else:
        system = rng.choice(["Answer with one word.", "Answer in one word.", "Use only one word.", "One word answers, please."])
        turns = []
        for _ in range(rng.randint(1, 3)):
            question, answer = src.question(rng.choice([q.capital, q.opposite, q.colour, q.plural]))
            word = answer.rstrip(".").split(" is ")[-1].split(" make ")[-1]
            if "which country" in question.lower() or "of what country" in question.lower():
                word = answer.rstrip(".").split("capital of ")[-1]
            turns.append((question, q.cap(word) + "."))
    (first, answer), *rest = turns
    return [(f"{system}\n\n{first}", answer)] + rest
