"""The small world that the demo model knows: plain tables, no code."""

# name: (kind, sound verb, home, young, legs, colour, food)
ANIMALS = {
    "dog": ("mammal", "barks", "kennel", "puppy", 4, "brown", "bones"),
    "cat": ("mammal", "meows", "house", "kitten", 4, "grey", "fish"),
    "cow": ("mammal", "moos", "barn", "calf", 4, "black and white", "grass"),
    "horse": ("mammal", "neighs", "stable", "foal", 4, "brown", "hay"),
    "pig": ("mammal", "oinks", "sty", "piglet", 4, "pink", "corn"),
    "sheep": ("mammal", "bleats", "fold", "lamb", 4, "white", "grass"),
    "goat": ("mammal", "bleats", "barn", "kid", 4, "white", "leaves"),
    "duck": ("bird", "quacks", "pond", "duckling", 2, "yellow", "seeds"),
    "hen": ("bird", "clucks", "coop", "chick", 2, "red", "seeds"),
    "owl": ("bird", "hoots", "tree", "owlet", 2, "brown", "mice"),
    "fox": ("mammal", "yips", "den", "cub", 4, "orange", "berries"),
    "wolf": ("mammal", "howls", "den", "cub", 4, "grey", "meat"),
    "bear": ("mammal", "growls", "cave", "cub", 4, "brown", "honey"),
    "lion": ("mammal", "roars", "den", "cub", 4, "golden", "meat"),
    "tiger": ("mammal", "roars", "jungle", "cub", 4, "orange and black", "meat"),
    "frog": ("amphibian", "croaks", "pond", "tadpole", 4, "green", "flies"),
    "bee": ("insect", "buzzes", "hive", "larva", 6, "yellow and black", "nectar"),
    "mouse": ("mammal", "squeaks", "hole", "pup", 4, "grey", "cheese"),
    "rabbit": ("mammal", "squeaks", "burrow", "kit", 4, "white", "carrots"),
    "snake": ("reptile", "hisses", "hole", "hatchling", 0, "green", "mice"),
    "crow": ("bird", "caws", "nest", "chick", 2, "black", "seeds"),
    "elephant": ("mammal", "trumpets", "savanna", "calf", 4, "grey", "leaves"),
    "whale": ("mammal", "sings", "sea", "calf", 0, "blue", "krill"),
    "penguin": ("bird", "honks", "ice", "chick", 2, "black and white", "fish"),
    "spider": ("arachnid", None, "web", "spiderling", 8, "black", "flies"),
    "ant": ("insect", None, "anthill", "larva", 6, "black", "seeds"),
    "fish": ("fish", None, "water", "fry", 0, "silver", "worms"),
    "turtle": ("reptile", None, "pond", "hatchling", 4, "green", "leaves"),
    "squirrel": ("mammal", "chatters", "tree", "kit", 4, "red", "nuts"),
    "hedgehog": ("mammal", "snuffles", "hedge", "hoglet", 4, "brown", "worms"),
    "swan": ("bird", "honks", "lake", "cygnet", 2, "white", "grass"),
    "donkey": ("mammal", "brays", "stable", "foal", 4, "grey", "hay"),
}

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "England": "London", "Scotland": "Edinburgh", "Ireland": "Dublin", "Wales": "Cardiff",
    "Belgium": "Brussels", "the Netherlands": "Amsterdam", "Austria": "Vienna", "Switzerland": "Bern",
    "Poland": "Warsaw", "Hungary": "Budapest", "Greece": "Athens", "Turkey": "Ankara",
    "Sweden": "Stockholm", "Norway": "Oslo", "Denmark": "Copenhagen", "Finland": "Helsinki",
    "Iceland": "Reykjavik", "Russia": "Moscow", "Ukraine": "Kyiv", "Romania": "Bucharest",
    "Bulgaria": "Sofia", "Croatia": "Zagreb", "the Czech Republic": "Prague", "Egypt": "Cairo",
    "Kenya": "Nairobi", "Morocco": "Rabat", "Nigeria": "Abuja", "Japan": "Tokyo", "China": "Beijing",
    "India": "New Delhi", "South Korea": "Seoul", "Thailand": "Bangkok", "Vietnam": "Hanoi",
    "Indonesia": "Jakarta", "Australia": "Canberra", "New Zealand": "Wellington", "Canada": "Ottawa",
    "the United States": "Washington, D.C.", "Mexico": "Mexico City", "Brazil": "Brasilia",
    "Argentina": "Buenos Aires", "Chile": "Santiago", "Peru": "Lima", "Cuba": "Havana",
}

OPPOSITES = [
    ("hot", "cold"), ("big", "small"), ("up", "down"), ("day", "night"), ("happy", "sad"), ("fast", "slow"),
    ("old", "young"), ("wet", "dry"), ("hard", "soft"), ("light", "dark"), ("open", "closed"), ("full", "empty"),
    ("left", "right"), ("high", "low"), ("long", "short"), ("loud", "quiet"), ("rich", "poor"), ("good", "bad"),
    ("clean", "dirty"), ("early", "late"), ("near", "far"), ("strong", "weak"), ("thick", "thin"), ("wide", "narrow"),
    ("sweet", "sour"), ("first", "last"), ("true", "false"), ("inside", "outside"), ("heavy", "light"),
    ("brave", "afraid"), ("winter", "summer"), ("north", "south"), ("east", "west"), ("push", "pull"),
    ("start", "finish"), ("win", "lose"), ("asleep", "awake"), ("easy", "difficult"), ("kind", "mean"),
]
# In these pairs the second word has a better-known opposite, or none.
ONE_WAY = {"heavy", "brave"}

PLURALS = {
    "cat": "cats", "dog": "dogs", "fox": "foxes", "mouse": "mice", "goose": "geese", "child": "children",
    "foot": "feet", "tooth": "teeth", "man": "men", "woman": "women", "sheep": "sheep", "fish": "fish",
    "leaf": "leaves", "wolf": "wolves", "knife": "knives", "baby": "babies", "city": "cities", "story": "stories",
    "box": "boxes", "bus": "buses", "apple": "apples", "tree": "trees", "berry": "berries", "ox": "oxen",
    "house": "houses", "book": "books", "star": "stars", "flower": "flowers", "butterfly": "butterflies",
    "dish": "dishes", "shelf": "shelves", "person": "people", "deer": "deer", "potato": "potatoes", "key": "keys",
}

COLOURS = {
    "the sky": "blue", "grass": "green", "snow": "white", "the sun": "yellow", "coal": "black", "a lemon": "yellow",
    "a banana": "yellow", "a tomato": "red", "a strawberry": "red", "a carrot": "orange", "an orange": "orange",
    "chocolate": "brown", "milk": "white", "a leaf": "green", "blood": "red", "the sea": "blue", "a frog": "green",
    "a flamingo": "pink", "a pig": "pink", "a plum": "purple", "a cucumber": "green", "a crow": "black",
    "a swan": "white", "an elephant": "grey", "a pumpkin": "orange", "a cherry": "red", "a cloud": "white",
    "a mouse": "grey", "a bear": "brown", "a fox": "orange", "a rose": "red", "an emerald": "green", "a ruby": "red",
}
MIXES = {
    ("blue", "yellow"): "green", ("red", "yellow"): "orange", ("red", "blue"): "purple",
    ("red", "white"): "pink", ("black", "white"): "grey",
}

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December"]
MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
SEASONS = {
    "spring": ("warm and green", "flowers bloom and birds build nests"),
    "summer": ("hot and sunny", "people swim and eat ice cream"),
    "autumn": ("cool and windy", "leaves turn red and fall"),
    "winter": ("cold and white", "snow falls and lakes freeze"),
}
SHAPES = {"triangle": 3, "square": 4, "rectangle": 4, "pentagon": 5, "hexagon": 6, "octagon": 8}

# Words the model can spell, sort and look at letter by letter.
WORDS = ("apple ball bear bee bird boat book bread cake cat chair cloud cow cup dog door duck egg fish flower fox frog "
         "garden goat hat hen horse house key king kite lamp leaf lemon lion milk moon mouse nest night owl pear pen "
         "pig queen rabbit rain ring river road rose ship shoe sky snow spoon star stone sun table tiger tree turtle "
         "water whale wind wolf").split()

# Everyday questions with one answer each: (several ways to ask, answer).
WHY = [
    (("Why is the sky blue?", "Why does the sky look blue?", "What makes the sky blue?"),
     "Sunlight is made of all colours. The air scatters blue light the most, so the sky looks blue."),
    (("Why does it rain?", "Where does rain come from?", "How does rain form?"),
     "Warm water rises into the air and makes clouds. When the drops grow heavy, they fall as rain."),
    (("Why do leaves fall in autumn?", "Why do trees lose their leaves?", "Why do leaves fall?"),
     "In autumn there is less light, so trees let their leaves go and rest until spring."),
    (("Why do birds fly south?", "Why do some birds fly away in winter?"),
     "In winter food is hard to find, so many birds fly to warmer places and come back in spring."),
    (("Why do we sleep?", "Why do people sleep?", "Why do I need to sleep?"),
     "Sleep lets the body rest and helps the mind remember what it learned during the day."),
    (("Why is the sea salty?", "Why is the ocean salty?"),
     "Rivers wash a little salt out of the rocks and carry it to the sea, where it stays."),
    (("What is a rainbow?", "How is a rainbow made?", "Why do we see rainbows?"),
     "A rainbow appears when sunlight shines through drops of rain and splits into its colours."),
    (("What is snow?", "How does snow form?", "Why does it snow?"),
     "Snow is frozen water. In cold clouds, tiny ice crystals grow and fall as snowflakes."),
    (("What is the moon?", "Tell me about the moon.", "What is the Moon?"),
     "The moon is a ball of rock that travels around the Earth. It shines because the sun lights it."),
    (("What is the sun?", "Tell me about the sun.", "What is the Sun?"),
     "The sun is a star. It gives the Earth light and warmth."),
    (("What is a star?", "What are stars?", "What are stars made of?"),
     "A star is a huge ball of hot, glowing gas, very far away."),
    (("Why do cats purr?", "What does it mean when a cat purrs?"),
     "Cats often purr when they feel calm and happy."),
    (("How do bees make honey?", "Where does honey come from?", "Who makes honey?"),
     "Bees collect sweet nectar from flowers and turn it into honey in their hive."),
    (("Why do we have seasons?", "What causes the seasons?"),
     "The Earth is tilted, so each part of it gets more sunlight in summer and less in winter."),
    (("What is water made of?", "What is water?"), "Water is made of hydrogen and oxygen."),
    (("What do plants need to grow?", "How do plants grow?", "What does a plant need?"),
     "Plants need light, water, air and good soil to grow."),
    (("How does a boat float?", "Why do boats float?"),
     "A boat pushes water aside, and the water pushes back and holds the boat up."),
    (("What is ice?", "What happens when water freezes?"), "When water gets very cold, it freezes and turns into ice."),
    (("What is a friend?", "What makes a good friend?"),
     "A good friend listens, helps when things are hard, and laughs with you."),
    (("What is the meaning of life?", "What is the secret of happiness?"),
     "That is a big question for a small model. I think being kind and curious is a good start."),
    (("What is a GGUF file?", "What is GGUF?"), "GGUF is a file format that holds a model's weights and its words."),
    (("What is quantization?", "What does quantization do?", "What is a quantized model?"),
     "Quantization stores a model's numbers with fewer bits, so the model gets smaller and faster."),
    (("What is Lapidary?", "Tell me about Lapidary.", "What does Lapidary do?"),
     "Lapidary is a program that makes Gemma models small and runs them on your own computer."),
    (("What is a lapidary?", "What does a lapidary do?"), "A lapidary is a person who cuts and polishes gemstones."),
    (("What is a language model?", "What is a model?", "How do you work?", "How does a language model work?"),
     "A language model reads some text and guesses the next piece, again and again."),
    (("How many hours are in a day?", "How many hours does a day have?"), "There are 24 hours in a day."),
    (("How many minutes are in an hour?", "How many minutes does an hour have?"), "There are 60 minutes in an hour."),
    (("How many days are in a week?", "How many days does a week have?"), "There are seven days in a week."),
    (("How many months are in a year?", "How many months does a year have?"), "There are twelve months in a year."),
    (("How many days are in a year?", "How many days does a year have?"), "There are 365 days in a year."),
    (("How many planets are there?", "How many planets go around the sun?"), "Eight planets travel around the sun."),
    (("What is the largest planet?", "What is the biggest planet?"), "Jupiter is the largest planet."),
    (("What is the largest animal?", "What is the biggest animal in the world?"), "The blue whale is the largest animal."),
    (("What is the fastest animal?", "Which animal runs fastest?"), "The cheetah is the fastest runner of all animals."),
    (("What is the tallest animal?", "Which animal is the tallest?"), "The giraffe is the tallest animal."),
    (("What is the tallest mountain?", "What is the highest mountain in the world?"), "Mount Everest is the highest mountain in the world."),
    (("What planet do we live on?", "Which planet is our home?"), "We live on the planet Earth."),
    (("How many letters are in the alphabet?", "How many letters does the alphabet have?"), "The English alphabet has 26 letters."),
    (("How many fingers does a hand have?", "How many fingers are on one hand?"), "A hand has five fingers."),
]

# Words for a question the model cannot answer.
UNKNOWN = ["the stock market", "football", "the news", "chemistry", "politics", "the Roman army", "computers", "chess",
           "the law", "physics", "the weather tomorrow", "philosophy", "cars", "history", "tax", "medicine", "the opera",
           "the lottery", "engines", "poetry in Latin", "algebra", "baseball", "fashion", "jazz", "airplanes", "money",
           "Napoleon", "Shakespeare", "Mozart", "Einstein", "dinosaurs", "black holes", "programming", "Python", "Rust"]

FAR_PLACES = ["Mongolia", "Texas", "Atlantis", "Mars", "Colombia", "Ghana", "Nepal", "Pakistan", "Malta", "Serbia", "Latvia",
              "Estonia", "Iran", "Iraq", "Bolivia", "Uganda", "California", "Narnia", "the moon", "Africa", "Europe", "Asia",
              "Jamaica", "Malaysia", "the Philippines", "Tunisia", "Ethiopia", "Cyprus", "Slovenia", "Slovakia", "Panama"]
HARD = ["What time is it?", "What is the date today?", "What year is it?", "What day is it today?", "How is the weather?",
        "What is the weather like?", "Will it rain tomorrow?", "How do I cook pasta?", "How do I bake a cake?",
        "Translate hello into French.", "Translate this into German.", "Write a program that sorts a list.",
        "Write some code.", "Write a Python script.", "Who won the match?", "Who is the president?", "Who is the queen?",
        "What is the speed of light?", "How far away is the moon?", "How old is the Earth?", "What is the square root of two?",
        "What is pi?", "Solve this equation.", "Who wrote Hamlet?", "Who painted the Mona Lisa?", "What is love?",
        "When did the war end?", "Who was the first man on the moon?", "How do I fix my computer?", "Where are my keys?",
        "How tall is the Eiffel Tower?", "What is the longest river?", "What is an atom?", "What is DNA?", "Can you see me?",
        "What happened in 1969?", "What is electricity?", "How does a car work?", "What is the best film?", "Recommend a book.",
        "How much does a house cost?", "What is my future?", "How old am I?", "Where do I live?", "What am I thinking?"]

NAMES = {
    "he": ["Tom", "Ben", "Max", "Leo", "Sam", "Oliver", "Felix", "Hugo", "Otto", "Finn", "Jack", "Noah", "Paul", "Theo",
           "Toby", "Milo", "Oscar", "Rufus", "Bruno", "Jasper", "Basil", "Pip"],
    "she": ["Anna", "Lily", "Mia", "Emma", "Rosa", "Nora", "Clara", "Ruby", "Ella", "Lucy", "Maya", "Zoe", "Ivy", "Hazel",
            "Daisy", "Pearl", "Opal", "Amber", "Luna", "Tilly", "Greta", "Juno"],
}
USER_NAMES = ["Alex", "Kim", "Peter", "Maria", "David", "Sarah", "John", "Laura", "Daniel", "Sofia", "Mark", "Julia",
              "Ali", "Chen", "Priya", "Omar", "Grace", "Robin", "Emily", "Lukas", "Nina", "Victor", "Alice", "Bob"]
