"""What happens in the stories: plots as slots of interchangeable sentences.

Fields: {n} hero's name, {k} hero's kind, {he} {him} {his} pronouns; the same with a leading m for
the helper ({m}, {mk}, {mhe}, {mhim}, {mhis}); {ak}, {amk}: kind with its article. A capital first
letter ({He}) capitalises. Other fields are chosen once per story from the plot's "pick".
"""

OPENINGS = [
    "Once upon a time, {ak} named {n} lived {place}.",
    "Once upon a time, there was a {trait} {k} named {n} who lived {place}.",
    "There once was {ak} named {n}. {He} lived {place}.",
    "A {trait} {k} named {n} lived {place}.",
    "Long ago, {place}, there lived a {trait} {k} named {n}.",
]
PLACES = ["in a green forest", "by the sea", "on a quiet hill", "near a small village", "beside a slow river",
          "in an old garden", "on a little island", "at the edge of a wood", "in a sunny valley", "under a tall mountain",
          "by a clear pond", "in a wide meadow"]
TRAITS = ["small", "curious", "kind", "cheerful", "shy", "brave", "gentle", "young", "clever", "sleepy", "little", "merry"]
HELPER_TRAITS = ["wise", "old", "friendly", "kind", "quiet", "clever", "patient", "cheerful"]

FRIENDS = [
    "From that day on, {n} and {m} were the best of friends.",
    "After that, {n} and {m} met every day.",
    "And {n} never forgot how kind {m} had been.",
    "And so a new friendship began.",
]

PLOTS = {
    "a lost thing": dict(
        theme="helping",
        pick={"thing": ["red hat", "golden key", "blue scarf", "silver bell", "little lamp", "favourite book", "green umbrella"],
              "where": ["behind an old stone", "under a pile of leaves", "inside a hollow tree", "beneath a wooden bench"]},
        slots=[
            ["One morning, {n} could not find {his} {thing}.", "One windy day, {n} lost {his} {thing}.",
             "One evening, {n} saw that {his} {thing} was gone."],
            ["{He} looked under the bed and behind the door, but it was not there.",
             "{He} searched high and low, but {he} could not find it.", "{He} looked everywhere and began to feel sad."],
            ["Then {a_helper} named {m} came by. \"Why do you look so sad?\" asked {m}.",
             "On the path {he} met {a_helper} named {m}. \"What is the matter?\" asked {m}."],
            ["\"I have lost my {thing},\" said {n}.", "\"My {thing} is gone,\" said {n} with a sigh."],
            ["\"Let us look together,\" said {m}. \"Four eyes see more than two.\"",
             "\"Do not worry,\" said {m}. \"I will help you look.\""],
            ["They walked back along the path, step by step, and there it was, {where}.",
             "They looked and looked, and at last {m} found the {thing} {where}."],
            ["{n} laughed with joy and thanked {m}.", "{n} was so happy that {he} danced in a circle.",
             "\"Thank you!\" cried {n}, and {he} gave {m} a big hug."],
        ],
        summary="{n} the {k} lost {his} {thing}, and {m} the {mk} helped {him} find it."),
    "afraid of the dark": dict(
        theme="courage",
        pick={"light": ["a thousand stars", "the Milky Way", "the round moon"]},
        slots=[
            ["{n} liked the day, but {he} was afraid of the dark.", "There was only one thing that {n} feared, and that was the dark.",
             "Every night {n} hid under {his} blanket, for {he} was afraid of the dark."],
            ["One night, {a_helper} named {m} knocked at the door.", "One evening, {his} neighbour {m}, {a_helper}, heard {him} crying."],
            ["\"Come outside with me,\" said {m}. \"I want to show you something.\"",
             "\"Take my hand,\" said {m}. \"The dark has a secret.\""],
            ["{n} was trembling, but {he} went along, one step after another.", "Slowly, {n} opened the door and stepped outside."],
            ["\"Now look up,\" said {m}. High above them shone {light}.", "\"Now open your eyes,\" whispered {m}. Far above the trees shone {light}."],
            ["\"How beautiful!\" said {n}. \"I never knew.\"", "{n} had never seen anything so lovely."],
            ["\"Without the dark, you could not see them,\" said {m}.", "\"You see,\" said {m}, \"the night has its own lights.\""],
            ["From then on, {n} was not afraid anymore.", "That night {n} slept well, and {he} was never afraid of the dark again."],
        ],
        summary="{n} the {k} was afraid of the dark until {m} the {mk} showed {him} {light}."),
    "sharing": dict(
        theme="sharing",
        pick={"food": ["a big apple pie", "a loaf of warm bread", "a basket of berries", "a pot of golden honey", "a huge pumpkin"]},
        slots=[
            ["One day, {n} found {food} on the path.", "One morning, {n} came home with {food}."],
            ["\"I will keep it all for myself,\" {he} thought.", "\"This is all mine,\" said {n}, and {he} sat down to eat."],
            ["Just then, {a_helper} named {m} came along.", "But then {he} saw {a_helper} named {m} sitting under a tree."],
            ["\"I have not eaten all day,\" said {m} in a small voice.", "{m} looked tired and hungry."],
            ["{n} looked at the food, and then {he} looked at {m}.", "{n} thought about it for a long time."],
            ["\"Come and sit with me,\" {he} said. \"There is enough for two.\"", "\"Please, take half of it,\" said {n} at last."],
            ["They ate together and told each other funny stories.", "They shared every bite and talked until the sun went down."],
            ["\"How strange,\" said {n}. \"It tastes better when I share it.\"", "And {n} learned that a shared meal tastes best of all."],
        ],
        summary="{n} the {k} found {food} and shared it with {m} the {mk}."),
    "learning": dict(
        theme="practice",
        pick={"skill": ["swim", "dance", "sing", "fly a kite", "play the flute", "paint", "juggle", "skate"]},
        slots=[
            ["{n} wanted to learn how to {skill}.", "More than anything, {n} wished to {skill}."],
            ["{He} tried once, and it went wrong. {He} tried again, and it went wrong again.",
             "On Monday {he} tried and failed. On Tuesday {he} tried and failed again."],
            ["\"I will never learn to {skill},\" {he} said and sat down on a stone.", "\"It is too hard for me,\" said {n}, close to tears."],
            ["{A_helper} named {m} had been watching from a tree stump.", "Then {a_helper} named {m} came and sat down beside {him}."],
            ["\"I failed a hundred times before I could do it,\" said {m} with a smile.",
             "\"Nobody can do it on the first day,\" said {m}. \"Go slowly, and try a little every day.\""],
            ["So {n} practised every morning, and {m} cheered for {him}.", "So {n} tried a little every day, and each day it went a little better."],
            ["When spring came, {n} could {skill} better than anyone.", "And one fine day, {n} could {skill} all by {him}self."],
            ["\"You see?\" said {m}. \"You only had to keep trying.\"", "{n} was very proud, and {m} was proud too."],
        ],
        summary="{n} the {k} learned to {skill} by practising every day, with help from {m} the {mk}."),
    "a storm": dict(
        theme="friendship",
        pick={"drink": ["hot soup", "warm milk", "sweet tea", "hot chocolate"]},
        slots=[
            ["One night, a great storm came, and the wind blew the roof off {his} house.", "One autumn evening, a storm came and rain poured into {his} home."],
            ["Cold and wet, {n} walked through the rain.", "{n} took {his} blanket and went out into the rain."],
            ["{He} knocked at the first door {he} saw. {A_helper} named {m} opened it.",
             "Far away {he} saw a small light. It was the house of {m}, {a_helper}."],
            ["\"May I stay here tonight?\" asked {n}.", "\"Please, may I come in?\" asked {n}."],
            ["\"Of course,\" said {m}. \"My house is small, but there is room for a friend.\"", "\"Come in, come in!\" said {m}. \"Sit down by the fire.\""],
            ["They drank {drink} and listened to the wind.", "{m} made {drink}, and soon {n} was warm again."],
            ["In the morning the sun came out, and {m} helped {n} build a new home.", "When the storm was over, they mended the house together."],
        ],
        summary="{n} the {k} lost {his} home in a storm, and {m} the {mk} gave {him} a warm place to stay.", friends=True),
    "a gift": dict(
        theme="kindness",
        pick={"gift": ["a crown of daisies", "a little song", "a wooden boat", "a necklace of shells", "a picture of the sea"]},
        slots=[
            ["It was the birthday of {m}, {a_helper}, and {n} had no gift.", "{His} friend {m}, {a_helper}, had a birthday, but {n} had no money for a gift."],
            ["\"What can I give?\" {he} wondered.", "{He} walked up and down and thought very hard."],
            ["Then {n} had an idea.", "All at once {he} knew what to do."],
            ["{He} worked all night and made {gift}.", "With great care, {he} made {gift}."],
            ["In the morning {he} ran to {m} and said, \"This is for you.\"", "At the party, {n} gave it to {m} with a shy smile."],
            ["\"You made this for me?\" asked {m}. {mHis} eyes were shining.", "{m} looked at it for a long time and did not say a word."],
            ["\"It is the best gift of all,\" said {m}, \"because it comes from your heart.\"", "Then {mhe} smiled and said, \"This is the most beautiful gift I have ever had.\""],
        ],
        summary="{n} the {k} had no gift for {m} the {mk}, so {he} made {gift}.", friends=True),
    "a race": dict(
        theme="kindness",
        pick={"prize": ["a golden cup", "a big cake", "a shiny medal", "a basket of apples"]},
        slots=[
            ["One summer, there was a great race, and the prize was {prize}.", "Everyone in the land came to run in the great race and win {prize}."],
            ["{n} ran as fast as {he} could, and soon {he} was first.", "{n} had trained for weeks, and {he} ran like the wind."],
            ["Then {he} saw {a_helper} named {m} who had fallen and hurt {mhis} foot.", "Halfway there, {he} heard a cry. {A_helper} named {m} had fallen into a ditch."],
            ["{n} could win the race, or {he} could stop and help.", "The others ran past and did not look."],
            ["{He} stopped at once and helped {m} to stand up.", "{n} turned around, took {m} by the hand and pulled {mhim} up."],
            ["Together they walked slowly to the end of the race. They came last.", "Side by side, they were the last to arrive."],
            ["But everyone cheered, and {n} was given {prize} for {his} kind heart.", "But the crowd cheered louder for them than for the winner."],
        ],
        summary="{n} the {k} gave up winning a race to help {m} the {mk}.", friends=True),
    "a seed": dict(
        theme="patience",
        pick={"plant": ["a tall sunflower", "an apple tree", "a red rose", "a giant pumpkin"]},
        slots=[
            ["One spring day, {n} planted a tiny seed.", "One morning, {n} found a seed and put it into the ground."],
            ["{He} gave it water and sat down to wait, but nothing happened.", "The next day {he} looked, but there was nothing to see."],
            ["\"It does not work,\" said {n} to {m}, {a_helper} who lived next door.", "\"My seed is asleep,\" {he} told {his} neighbour {m}, {a_helper}."],
            ["\"Good things need time,\" said {m}. \"Water it every day and wait.\"", "\"Be patient,\" said {m}. \"It is working under the ground, where you cannot see it.\""],
            ["So {n} waited. It rained, and the sun shone, and it rained again.", "Day after day, {n} brought water and sang a little song to the seed."],
            ["One morning, a small green leaf looked out of the ground.", "After many days, something green came up."],
            ["It grew and grew, until it was {plant}.", "By the end of summer, it had become {plant}."],
            ["{n} and {m} sat beside it and were happy.", "\"It was worth the wait,\" said {n}, and {m} nodded."],
        ],
        summary="{n} the {k} planted a seed and waited patiently until it became {plant}."),
    "a noise": dict(
        theme="courage",
        pick={"noise": ["a strange humming", "a loud rumbling", "a soft tapping", "a deep growling"],
              "cause": ["snoring", "singing in {mhis} sleep", "practising the drum"]},
        slots=[
            ["One night, {n} heard {noise} outside.", "In the middle of the night, {n} was woken by {noise}."],
            ["\"Is it a monster?\" {he} whispered.", "\"It must be a monster,\" {he} thought, and {his} heart beat fast."],
            ["{He} took {his} lamp and went out to look.", "{n} wanted to hide, but {he} was brave and went to see."],
            ["Step by step, {he} came closer. The noise grew louder and louder.", "The noise came from behind a big bush."],
            ["And what did {he} find? It was only {a_helper} named {m}, {cause}.", "There, in the moonlight, was {a_helper} named {m}, {cause}."],
            ["\"Oh, excuse me!\" said {m}. \"Did I wake you?\"", "{m} opened one eye. \"Am I too loud?\" {mhe} asked."],
            ["{n} laughed so much that {he} had to sit down.", "They looked at each other and began to laugh."],
            ["\"I thought you were a monster,\" {he} said, \"but you are only {amk}.\"", "After that, {n} was never afraid of noises in the night."],
        ],
        summary="{n} the {k} heard {noise} in the night, but it was only {m} the {mk}."),
    "a fallen star": dict(
        theme="kindness",
        pick={"how": ["a kite with a long string", "a balloon as red as a cherry", "the tallest ladder in the land"]},
        slots=[
            ["One night, a little star fell from the sky and landed at {his} feet.", "One evening, {n} found a little star lying in the grass."],
            ["\"I want to go home,\" said the star in a tiny voice.", "The star was cold, and its light was very weak."],
            ["\"I will help you,\" said {n}, but the sky was so high.", "{n} held it gently, but {he} did not know how to reach the sky."],
            ["{He} went to see {m}, {a_helper} who knew many things.", "So {he} asked {a_helper} named {m} for help."],
            ["\"We need {how},\" said {m}.", "{m} thought for a while. \"I have {how},\" {mhe} said."],
            ["They climbed the highest hill and sent the star up into the night.", "Together they went up the hill, and up, up, up went the star."],
            ["Now, every night, one star shines a little brighter for {n} and {m}.", "\"Thank you!\" called the star, and it has winked at {n} ever since."],
        ],
        summary="{n} the {k} found a fallen star, and {m} the {mk} helped {him} send it home."),
    "a journey": dict(
        theme="friendship",
        pick={"boat": ["a boat made of wood", "a boat made of bark", "an old barrel"]},
        slots=[
            ["{n} had always wanted to know what was on the other side of the lake.", "Every day {n} looked across the lake and wondered who lived there."],
            ["So {he} built {boat} and set off at sunrise.", "One bright morning, {he} climbed into {boat} and sailed away."],
            ["The waves were high, but {n} held on tight.", "The wind was strong and the water was cold, but {he} did not turn back."],
            ["On the other side {he} met {a_helper} named {m}.", "At noon {he} reached the shore. There stood {a_helper} named {m}."],
            ["\"I have always wondered who lived over there,\" said {m}. \"Now I know!\"", "\"Welcome!\" said {m}. \"I have looked across this lake every day and wondered about you.\""],
            ["They ate lunch in the sun and told each other about their homes.", "{m} showed {him} a secret garden and a waterfall."],
            ["When {n} sailed home, {he} was not alone, for {m} came along.", "In the evening, {n} sailed home with a new friend and a happy heart."],
        ],
        summary="{n} the {k} sailed across the lake and became friends with {m} the {mk}."),
    "an honest find": dict(
        theme="honesty",
        pick={"thing": ["a purse full of coins", "a shining ruby", "a golden ring", "a silver watch"]},
        slots=[
            ["One day, {n} found {thing} on the road.", "On {his} way home, {n} saw {thing} lying in the dust."],
            ["Nobody was there. \"I could keep it,\" {he} thought.", "It was beautiful, and nobody had seen {him} pick it up."],
            ["But somebody must be missing it, so {he} went from house to house and asked.", "But it did not belong to {him}, so {n} went to look for the owner."],
            ["At the last house, {a_helper} named {m} sat by the window and looked sad.", "In the market {he} saw {a_helper} named {m}, who was looking for something."],
            ["\"Did you lose this?\" asked {n}.", "\"Is this yours?\" asked {n} and held it out."],
            ["\"Yes!\" cried {m}. \"It was a gift from my grandmother.\"", "{m} jumped for joy. \"I thought I would never see it again!\""],
            ["{n} got no gold that day, but {he} got something better: a friend.", "\"You have an honest heart,\" said {m}, and {n} felt as rich as a king."],
        ],
        summary="{n} the {k} found {thing} and gave it back to {m} the {mk}."),
}
