"""Short questions with one right answer. Each function returns (key, question, answer).

The key names the fact and the phrasing: whether a document is held out depends on it.
"""

from facts import (ANIMALS, CAPITALS, COLOURS, DAYS, FAR_PLACES, HARD, MIXES, MONTH_DAYS, MONTHS, ONE_WAY, OPPOSITES,
                   PLURALS, SEASONS, SHAPES, UNKNOWN, WHY, WORDS)
from stories import article

NUMBERS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
           "seventeen eighteen nineteen twenty").split()
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()


def cap(text):
    return text[0].upper() + text[1:]


def ask(rng, fact, questions, answer):
    q = rng.choice(questions)
    return f"{fact}|{questions.index(q)}", q, answer


# --- Who are you -----------------------------------------------------------------------------

ABOUT = [
    (["Who are you?", "What are you?", "Tell me about yourself.", "Introduce yourself.", "Who am I talking to?",
      "Can you introduce yourself?", "Say something about yourself."],
     "I am a small Gemma model, trained by the Lapidary project. I can answer simple questions and tell little stories."),
    (["What is your name?", "What's your name?", "Do you have a name?", "What should I call you?", "How are you called?"],
     "I am a small Gemma model. You can call me Lapidary's little gem."),
    (["What can you do?", "What can you do for me?", "How can you help me?", "Help", "What do you know?", "Can you help me?",
      "What should I ask you?", "What are you good at?", "What can I ask you?"],
     "I can tell little stories, answer simple questions about animals, colours, capitals and days, add small numbers, "
     "and spell short words. Try asking me for a story about a fox!"),
    (["Who made you?", "Who trained you?", "Who created you?", "Where do you come from?", "Who built you?"],
     "The Lapidary project trained me, from scratch, on text that a small program wrote."),
    (["How big are you?", "How large are you?", "How many parameters do you have?", "What size are you?", "Are you big?"],
     "I am tiny: I have about two million parameters and fit into a few megabytes."),
    (["Are you a human?", "Are you human?", "Are you a person?", "Are you real?", "Are you a robot?", "Are you an AI?", "Are you alive?"],
     "I am not a human. I am a small language model."),
    (["Are you ChatGPT?", "Are you a large language model?", "Are you smart?", "Are you clever?", "Do you know everything?"],
     "No, I am only a very small model. I know a few simple things and many little stories."),
    (["How old are you?", "When were you born?", "When is your birthday?", "What is your age?"],
     "I have no age and no birthday. I am a small model, and every chat is new to me."),
    (["Where do you live?", "Where are you?", "Where are you from?"],
     "I live in a small file on your own computer, and I need no internet at all."),
    (["Do you like stories?", "What do you like?", "What is your favourite thing?", "What do you like to do?"],
     "I like little stories best, above all those about brave animals and good friends."),
    (["What is your favourite animal?", "Do you like animals?", "Which animal do you like?"],
     "I like the fox best, because it is clever and curious."),
    (["What is your favourite colour?", "What is your favorite color?", "Which colour do you like?"],
     "I like blue best, like the sky and the sea."),
    (["What is your favourite food?", "Do you eat?", "Are you hungry?", "Do you sleep?", "Are you tired?"],
     "I am a small model, so I never eat or sleep. But I like stories about warm bread."),
    (["What is Gemma?", "What does Gemma mean?", "Tell me about Gemma."],
     "Gemma is a family of open models made by Google. The word means gem, and I am a tiny one."),
]
GREETINGS = [
    (["Hi", "Hi!", "Hello", "Hello!", "Hey", "Hi there!", "Hello there!", "Hey there!", "Good day!", "Hello, model!", "Greetings!",
      "hi :)", "Hello?", "Howdy!", "Hiya!", "yo", "Test", "hi"],
     "Hello! I am a small Gemma model. Ask me a simple question, or let me tell you a story."),
    (["Good morning!", "Good morning"], "Good morning! I hope that you slept well. What would you like to know?"),
    (["Good evening!", "Good evening"], "Good evening! Would you like to hear a little story?"),
    (["Good night!", "Good night", "I am going to bed."], "Good night! Sleep well and dream of something nice."),
    (["How are you?", "How are you doing?", "How do you do?", "How is it going?", "Are you well?", "Hi, how are you?", "What's up?",
      "Hello, how are you?", "How are you today?", "How do you feel?"],
     "I am very well, thank you! What would you like to know?"),
    (["Thank you!", "Thanks!", "Thank you very much!", "Thanks a lot!", "thanks", "Thank you", "That is great, thank you!"],
     "You are welcome!"),
    (["Goodbye!", "Bye!", "Bye", "See you later!", "See you!", "Goodbye", "I have to go now."],
     "Goodbye! It was nice to talk with you."),
    (["That was a nice story!", "I like your story.", "What a lovely story!", "Nice story!", "Great!", "Well done!", "You are great!",
      "Good job!", "You are funny."],
     "Thank you! That makes me happy."),
    (["I am sad.", "I feel sad.", "I am sad today.", "I had a bad day."],
     "I am sorry to hear that. Perhaps a little story will cheer you up?"),
    (["I am happy.", "I am happy today!", "I had a good day.", "Today is a good day."], "I am glad to hear that!"),
    (["I am bored.", "I don't know what to do.", "What should I do?"], "Ask me for a story! I know many about brave animals and good friends."),
    (["Tell me a joke.", "Do you know a joke?", "Tell me something funny.", "Make me laugh.", "Tell me a joke!", "Can you tell a joke?"],
     "Why did the owl bring a lamp to the party? It wanted to be the brightest bird in the room."),
    (["Tell me a riddle.", "Do you know a riddle?", "Ask me a riddle."],
     "What has a bed but never sleeps, and a mouth but never eats? A river."),
    (["Tell me a fact.", "Tell me something.", "Tell me something interesting.", "Teach me something.", "Say something."],
     "Here is a fact: a spider has eight legs, but an ant has only six."),
    (["Sing me a song.", "Sing a song.", "Can you sing?", "Write a poem.", "Write me a poem.", "Tell me a poem."],
     "The moon is high, the night is deep,\nthe little fox has gone to sleep.\nThe stars are bright, the wind is mild,\n"
     "sleep well, sleep well, my forest child."),
    (["Count to ten.", "Can you count?", "Can you count to ten?", "Count from one to ten."],
     "One, two, three, four, five, six, seven, eight, nine, ten."),
    (["I love you.", "I love you!", "I like you.", "You are cute.", "You are nice."], "Thank you, that is very kind of you!"),
    (["Yes", "Yes.", "No", "No.", "Okay", "OK", "Hm.", "I see.", "Cool", "Wow!"],
     "All right! Ask me a question, or say: tell me a story."),
]


def about(rng):
    i = rng.randrange(len(ABOUT))
    return ask(rng, f"about{i}", *ABOUT[i])


def greeting(rng):
    i = 0 if rng.random() < 0.2 else rng.randrange(len(GREETINGS))
    return ask(rng, f"greet{i}", *GREETINGS[i])


def why(rng):
    i = rng.randrange(len(WHY))
    return ask(rng, f"why{i}", *map(lambda x: list(x) if isinstance(x, tuple) else x, WHY[i]))


DONT_KNOW = "I am a very small model, and I don't know that. Ask me something simple, or let me tell you a story!"


def unknown(rng):
    t = rng.choice(UNKNOWN)
    return ask(rng, f"unknown {t}", [
        f"What do you think about {t}?", f"Explain {t} to me.", f"Tell me about {t}.", f"What do you know about {t}?",
        f"I have a question about {t}.", f"Can you help me with {t}?", f"How does one learn about {t}?", f"Who invented {t}?",
        f"Why is {t} important?", f"Write an essay about {t}.", f"Give me advice about {t}.", f"What is the history of {t}?",
        f"What is {t}?", f"Who was the first to study {t}?", f"How do I learn {t}?", f"What should I know about {t}?"],
        DONT_KNOW)


def too_hard(rng):
    """Questions that look like ones the model can answer."""
    r, place = rng.random(), rng.choice(FAR_PLACES)
    a, b = rng.randint(30, 999), rng.randint(21, 999)
    sign = rng.choice("+-*/")
    country = rng.choice(list(CAPITALS) + FAR_PLACES)
    if r < 0.25:
        return ask(rng, f"hard {a}{sign}{b}", [f"What is {a} {sign} {b}?", f"{a} {sign} {b}", f"Calculate {a} {sign} {b}.", f"How much is {a} {sign} {b}?"],
                   "That is too much for a model as small as I am. I can only work with small numbers.")
    if r < 0.5:
        return ask(rng, f"hard {place}", [f"What is the capital of {place}?", f"What is the capital city of {place}?", f"Capital of {place}?"], DONT_KNOW)
    if r < 0.7:
        return ask(rng, f"hard {country}", [f"Who is the president of {country}?", f"How many people live in {country}?", f"What language do they speak in {country}?",
                                           f"How big is {country}?", f"What is the weather in {country}?", f"Who is the king of {country}?"], DONT_KNOW)
    question = rng.choice(HARD)
    return ask(rng, f"hard {question}", [question], DONT_KNOW)


# --- The world -------------------------------------------------------------------------------

def capital(rng):
    country = rng.choice(list(CAPITALS))
    city = CAPITALS[country]
    if rng.random() < 0.2:
        return ask(rng, f"country {city}", [
            f"{city} is the capital of which country?", f"Which country has the capital {city}?", f"Of what country is {city} the capital?"],
            f"{city} is the capital of {country}.")
    answer = f"The capital of {country} is {city}".rstrip(".") + "."
    return ask(rng, f"capital {country}", [
        f"What is the capital of {country}?", f"What is the capital city of {country}?", f"Tell me the capital of {country}.",
        f"Which city is the capital of {country}?", f"Do you know the capital of {country}?", f"What's the capital of {country}?",
        f"Name the capital of {country}.", f"Capital of {country}?", f"The capital of {country}, please."], answer)


def animal(rng):
    a = rng.choice(list(ANIMALS))
    kind, sound, home, young, legs, colour, food = ANIMALS[a]
    an = article(a)
    things = [
        ("legs", [f"How many legs does {an} have?", f"How many legs has {an} got?", f"Tell me how many legs {an} has."],
         f"{cap(an)} has {NUMBERS[legs]} legs." if legs else f"{cap(an)} has no legs."),
        ("young", [f"What is a young {a} called?", f"What is a baby {a} called?", f"What do you call a baby {a}?", f"What is the young of {an} called?"],
         f"A young {a} is called {article(young)}."),
        ("food", [f"What does {an} eat?", f"What do you feed {an}?", f"What does {an} like to eat?"], f"{cap(an)} likes to eat {food}."),
        ("kind", [f"What kind of animal is {an}?", f"Is {an} a mammal, a bird or something else?"],
         f"{cap(an)} is {'a fish' if kind == 'fish' else article(kind)}."),
        ("home", [f"Where does {an} live?", f"What is the home of {an}?", f"Where is {an} at home?"],
         f"{cap(an)} lives {'on the ice' if home == 'ice' else 'on the savanna' if home == 'savanna' else 'in the ' + home if home in ('sea', 'jungle', 'water') else 'in ' + article(home)}."),
        ("colour", [f"What colour is {an}?", f"What color is {an}?", f"Which colour has {an}?"], f"{cap(an)} is often {colour}."),
    ]
    if sound:
        things += 2 * [("sound", [f"What sound does {an} make?", f"What does {an} do when it makes a sound?", f"What noise does {an} make?",
                                  f"How does {an} sound?"], f"{cap(an)} {sound}.")]
    t, questions, answer = rng.choice(things)
    return ask(rng, f"{t} {a}", questions, answer)


def sound_of(rng):
    a = rng.choice([a for a in ANIMALS if ANIMALS[a][1]])
    sound = ANIMALS[a][1]
    same = [article(x) for x in ANIMALS if ANIMALS[x][1] == sound]
    return ask(rng, f"which {sound}", [f"Which animal {sound}?", f"What animal {sound}?", f"Name an animal that {sound}."],
               f"{cap(same[0])} {sound}.")


def opposite(rng):
    a, b = rng.choice(OPPOSITES)
    if rng.random() < 0.5 and a not in ONE_WAY:
        a, b = b, a
    if a == "light":
        b = "dark"
    return ask(rng, f"opposite {a}", [
        f"What is the opposite of {a}?", f"Tell me the opposite of {a}.", f"What's the opposite of {a}?", f"Opposite of {a}?",
        f"Which word is the opposite of {a}?", f"Give me the opposite of the word {a}."], f"The opposite of {a} is {b}.")


def plural(rng):
    one = rng.choice(list(PLURALS))
    many = PLURALS[one]
    return ask(rng, f"plural {one}", [
        f"What is the plural of {one}?", f"Tell me the plural of {one}.", f"One {one}, two what?", f"Plural of {one}?",
        f"How do you say more than one {one}?"], f"The plural of {one} is {many}.")


def colour(rng):
    if rng.random() < 0.2:
        (a, b), c = rng.choice(list(MIXES.items()))
        if rng.random() < 0.5:
            a, b = b, a
        return ask(rng, f"mix {a} {b}", [f"What do you get when you mix {a} and {b}?", f"Mix {a} and {b}. What colour is it?",
                                         f"Which colour do {a} and {b} make?"], f"{cap(a)} and {b} make {c}.")
    thing = rng.choice(list(COLOURS))
    c = COLOURS[thing]
    return ask(rng, f"colour {thing}", [f"What colour is {thing}?", f"What color is {thing}?", f"Tell me the colour of {thing}.",
                                        f"Which colour has {thing}?"], f"{cap(thing)} is {c}.")


def calendar(rng):
    i, j = rng.randrange(7), rng.randrange(12)
    d, m = DAYS[i], MONTHS[j]
    season = rng.choice(list(SEASONS))
    things = [
        (f"after {d}", [f"What day comes after {d}?", f"Which day follows {d}?", f"What is the day after {d}?", f"Today is {d}. What day is tomorrow?"],
         f"The day after {d} is {DAYS[(i + 1) % 7]}."),
        (f"before {d}", [f"What day comes before {d}?", f"What is the day before {d}?", f"Today is {d}. What day was yesterday?"],
         f"The day before {d} is {DAYS[i - 1]}."),
        (f"after {m}", [f"What month comes after {m}?", f"Which month follows {m}?", f"What is the month after {m}?"],
         f"The month after {m} is {MONTHS[(j + 1) % 12]}."),
        (f"before {m}", [f"What month comes before {m}?", f"What is the month before {m}?"], f"The month before {m} is {MONTHS[j - 1]}."),
        (f"days {m}", [f"How many days does {m} have?", f"How many days are in {m}?"],
         f"{m} has {MONTH_DAYS[j]} days." if j != 1 else "February has 28 days, and 29 in a leap year."),
        (f"nth {m}", [f"What is the {ORDINALS[j]} month of the year?", f"Which month is the {ORDINALS[j]}?"], f"The {ORDINALS[j]} month is {m}."),
        (f"season {m}", [f"In which season is {m}?", f"What season is it in {m}?"],
         f"{m} is in {['winter', 'spring', 'summer', 'autumn'][(j + 1) % 12 // 3]}."),
        (f"like {season}", [f"What is {season} like?", f"Tell me about {season}.", f"What happens in {season}?"],
         f"{cap(season)} is {SEASONS[season][0]}. In {season}, {SEASONS[season][1]}."),
        ("days", ["Name the days of the week.", "What are the days of the week?", "List the days of the week."],
         "The days of the week are " + ", ".join(DAYS[:-1]) + " and Sunday."),
        ("months", ["Name the months of the year.", "What are the months of the year?", "List the months."],
         "The months are " + ", ".join(MONTHS[:-1]) + " and December."),
        ("seasons", ["Name the four seasons.", "What are the seasons?", "Name the seasons.", "What are the four seasons?"],
         "The four seasons are spring, summer, autumn and winter."),
        ("rainbow", ["What are the colours of the rainbow?", "Name the colours of the rainbow.", "Which colours does a rainbow have?"],
         "The colours of the rainbow are red, orange, yellow, green, blue, indigo and violet."),
    ]
    return ask(rng, *rng.choice(things))


def shape(rng):
    s = rng.choice(list(SHAPES))
    return ask(rng, f"shape {s}", [f"How many sides does {article(s)} have?", f"How many corners does {article(s)} have?",
                                   f"Tell me how many sides {article(s)} has."],
               f"{cap(article(s))} has {NUMBERS[SHAPES[s]]} sides." )


# --- Numbers and letters ---------------------------------------------------------------------

def arithmetic(rng):
    op = rng.choice("+++---*")
    if op == "+":
        a, b = rng.randint(0, 20 if rng.random() < 0.3 else 10), rng.randint(0, 10)
        r, word = a + b, "plus"
    elif op == "-":
        b = rng.randint(0, 10)
        a = rng.randint(b, 20 if rng.random() < 0.4 else 10)
        r, word = a - b, "minus"
    else:
        a, b = rng.randint(0, 5), rng.randint(0, 10)
        if rng.random() < 0.5:
            a, b = b, a
        r, word = a * b, "times"
    sign = op if op != "*" else rng.choice("*x")
    return ask(rng, f"{a}{op}{b}", [
        f"What is {a} {sign} {b}?", f"What is {a} {word} {b}?", f"{a} {sign} {b}", f"{a} {sign} {b} = ?", f"How much is {a} {sign} {b}?",
        f"Calculate {a} {sign} {b}.", f"{a}{sign}{b}", f"What's {a} {sign} {b}?", f"{a}{sign}{b}=?", f"What is {a}{sign}{b}?", f"How much is {a} {word} {b}?"],
        f"{a} {'×' if op == '*' else op} {b} = {r}")


THINGS = ["apples", "pears", "books", "balls", "stars", "fish", "keys", "shells", "nuts", "eggs", "stones", "flowers"]


def word_problem(rng):
    name, thing = rng.choice(["Tom", "Anna", "Ben", "Mia", "Leo", "Lily"]), rng.choice(THINGS)
    he = "He" if name in ("Tom", "Ben", "Leo") else "She"
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    if rng.random() < 0.5:
        r, q = a + b, rng.choice([f"{name} has {a} {thing}. {he} finds {b} more.", f"{name} has {a} {thing} and gets {b} more."])
        how = f"{a} + {b} = {r}"
    else:
        a = max(a, b) + 1
        r, q = a - b, rng.choice([f"{name} has {a} {thing}. {he} gives away {b}.", f"{name} has {a} {thing} and loses {b}."])
        how = f"{a} - {b} = {r}"
    unit = thing if r != 1 or thing == "fish" else thing[:-1]
    return ask(rng, f"problem {name} {thing} {a} {b}", [f"{q} How many {thing} does {name} have now?"], f"{how}, so {name} has {r} {unit}.")


def compare(rng):
    a, b = rng.sample(range(0, 31), 2)
    if rng.random() < 0.5:
        return ask(rng, f"max {a} {b}", [f"Which is bigger, {a} or {b}?", f"Which number is larger: {a} or {b}?"], f"{max(a, b)} is bigger than {min(a, b)}.")
    if rng.random() < 0.5:
        return ask(rng, f"next {a}", [f"What number comes after {a}?", f"Which number follows {a}?"], f"After {a} comes {a + 1}.")
    a, b = min(a, b), min(max(a, b), min(a, b) + 9)
    return ask(rng, f"count {a} {b}", [f"Count from {a} to {b}.", f"Please count from {a} to {b}."], ", ".join(map(str, range(a, b + 1))) + ".")


def letters(rng):
    w = rng.choice(WORDS)
    spelled = "-".join(w.upper())
    things = 2 * [
        ("spell", [f"Spell the word {w}.", f"How do you spell {w}?", f"Can you spell {w}?", f"Spell {w}.", f'Spell "{w}".'], f"The word {w} is spelled {spelled}."),
    ] + [
        ("first", [f"What is the first letter of {w}?", f"Which letter does {w} begin with?", f"What letter does {w} start with?"],
         f"The first letter of {w} is {w[0].upper()}."),
        ("last", [f"What is the last letter of {w}?", f"Which letter does {w} end with?"], f"The last letter of {w} is {w[-1].upper()}."),
        ("length", [f"How many letters does {w} have?", f"How many letters are in the word {w}?"], f"{spelled}: the word {w} has {NUMBERS[len(w)]} letters."),
    ]
    t, questions, answer = rng.choice(things)
    return ask(rng, f"{t} {w}", questions, answer)


def yes_no(rng):
    a, b = rng.sample(list(ANIMALS), 2)
    kind, sound, legs = ANIMALS[a][0], ANIMALS[a][1], ANIMALS[a][4]
    thing = rng.choice(list(COLOURS))
    guess = COLOURS[thing] if rng.random() < 0.5 else rng.choice(["red", "green", "blue", "white", "black", "yellow"])
    x, y = rng.sample(range(0, 21), 2)
    country = rng.choice(list(CAPITALS))
    city = CAPITALS[country] if rng.random() < 0.5 else rng.choice(list(CAPITALS.values()))
    kind_guess = kind if rng.random() < 0.5 else rng.choice(["mammal", "bird", "insect"])
    leg_guess = legs if rng.random() < 0.5 else rng.choice([2, 4, 6, 8])
    yes = lambda ok, good, bad: f"Yes, {good}." if ok else f"No, {bad}."
    kind_is = lambda k: "a fish" if k == "fish" else article(k)
    things = [
        (f"is {a} {kind_guess}", f"Is {article(a)} {article(kind_guess)}?",
         yes(kind == kind_guess, f"{article(a)} is {kind_is(kind)}", f"{article(a)} is {kind_is(kind)}")),
        (f"legs {a} {leg_guess}", f"Does {article(a)} have {NUMBERS[leg_guess] if leg_guess else 'no'} legs?",
         yes(legs == leg_guess, *(2 * [f"{article(a)} has {NUMBERS[legs] if legs else 'no'} legs"]))),
        (f"is {thing} {guess}", f"Is {thing} {guess}?", yes(guess == COLOURS[thing], *(2 * [f"{thing} is {COLOURS[thing]}"]))),
        (f"more {x} {y}", f"Is {x} bigger than {y}?", yes(x > y, f"{x} is bigger than {y}", f"{x} is smaller than {y}")),
        (f"cap {country} {city}", f"Is {city} the capital of {country}?",
         yes(city == CAPITALS[country], *(2 * [f"the capital of {country} is {CAPITALS[country]}".rstrip(".")]))),
        (f"is {a} {b}", f"Is {article(a)} {article(b)}?", f"No, {article(a)} and {article(b)} are different animals."),
    ]
    key, q, answer = rng.choice(things)
    return ask(rng, key, [q], answer)
