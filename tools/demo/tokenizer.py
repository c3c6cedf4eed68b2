"""Trains a small tokenizer and writes it in Gemma's own form.

Ids: 0 <pad>, 1 <eos>, 2 <bos>, 3 <unk>, 4 <mask>, 5 [multimodal], 6..104 <unused0..98>,
105 <start_of_turn>, 106 <end_of_turn>, runs of newlines, runs of spaces, 256 bytes, learned
pieces by rank, characters. Ids 102, 103 and 104 are kept free for <start_of_image>,
<image_soft_token> and <end_of_image>.
"""

import collections
import json
import re

from tokenizers import Tokenizer

import corpus

VOCAB_SIZE = 2048
PAD, EOS, BOS = 0, 1, 2
IMAGE_TOKENS = ("<start_of_image>", "<image_soft_token>", "<end_of_image>")
START, SOFT, STOP = 102, 103, 104
RUN = 8  # longest run of newlines or spaces that is one piece
SPACE = "▁"
CHARACTERS = SPACE + "".join(map(chr, range(33, 127))) + "×÷éèêëàâäöüßçñ’‘“”–—…°€£"
# A piece never spans two words, and a digit always stands alone.
WORD = re.compile(r"▁?[^\W\d_]+|▁?[^\w\s▁]|.", re.S)

# The template of the Gemma 3 text models.
CHAT_TEMPLATE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\n' }}
{%- endif -%}
"""


def learn_pieces(texts, count):
    """The `count` pieces that byte-pair encoding makes first, in order."""
    words = collections.Counter()
    for text in texts:
        words.update(WORD.findall(re.sub(r"<\w+>", "\n", text).replace(" ", SPACE)))
    words = {w: n for w, n in words.items() if len(w) > 1 and all(c in CHARACTERS for c in w)}
    split = {w: list(w) for w in words}
    pieces = []
    while len(pieces) < count:
        pairs = collections.Counter()
        for w, n in words.items():
            for pair in zip(split[w], split[w][1:]):
                pairs[pair] += n
        (left, right), _ = max(pairs.items(), key=lambda x: (x[1], x[0]))
        if left + right not in pieces:
            pieces.append(left + right)
        for w, s in split.items():
            i = 0
            while i < len(s) - 1:
                if s[i] == left and s[i + 1] == right:
                    s[i:i + 2] = [left + right]
                i += 1
    return pieces


def vocabulary(texts):
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "[multimodal]"] + [f"<unused{i}>" for i in range(99)]
    special += ["<start_of_turn>", "<end_of_turn>"]
    runs = ["\n" * n for n in range(1, RUN + 1)] + [SPACE * n for n in range(2, RUN + 1)]
    rest = [f"<0x{i:02X}>" for i in range(256)]
    pieces = learn_pieces(texts, VOCAB_SIZE - len(special + runs + rest) - len(CHARACTERS))
    return special, runs, pieces, {t: i for i, t in enumerate(special + runs + rest + pieces + list(CHARACTERS))}


def merges_of(piece, vocab):
    """Every way to make the piece of two others, as SentencePiece allows."""
    cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
    return sorted((c for c in cuts if c[0] in vocab and c[1] in vocab), key=lambda c: (vocab[c[0]], vocab[c[1]]))


def tokenizer_json(special, runs, pieces, vocab):
    control = {"<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"}
    added = [{"id": vocab[t], "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": t in control} for t in special + runs]
    # As in Gemma's file, the longest runs come first; the rest by rank.
    ranked = sorted((r for r in runs if len(r) > 1), key=len, reverse=True) + pieces
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    sequence = lambda name, n: {"Sequence": {"id": name, "type_id": n}}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": {
            "type": "TemplateProcessing", "single": [bos, sequence("A", 0)],
            "pair": [bos, sequence("A", 0), {"SpecialToken": {"id": "<bos>", "type_id": 1}}, sequence("B", 1)],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [BOS], "tokens": ["<bos>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False, "vocab": vocab,
            "merges": [list(m) for p in ranked for m in merges_of(p, vocab)]},
    }


def write(folder, seed, documents=12000):
    """Learns from generated documents and writes the three tokenizer files."""
    texts = [d.text for d, _ in zip(corpus.documents(seed), range(documents))]
    compact = dict(ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(*vocabulary(texts)), **compact), encoding="utf-8")
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    config = {"add_bos_token": True, "add_eos_token": False, **names, "chat_template": CHAT_TEMPLATE,
              "clean_up_tokenization_spaces": False, "model_max_length": 1024, "spaces_between_special_tokens": False,
              "tokenizer_class": "GemmaTokenizer", "use_default_system_prompt": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(names, indent=1) + "\n")


def add_images(folder):
    """Gives the three free ids their names, in the files of a tokenizer that was trained on text."""
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    for i, name in enumerate(IMAGE_TOKENS, START):
        token = next(t for t in data["added_tokens"] if t["id"] == i)
        if token["content"] != name:
            data["model"]["vocab"] = {name if v == i else k: v for k, v in data["model"]["vocab"].items()}
            token.update(content=name, special=True)
    path.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    start, soft, stop = IMAGE_TOKENS
    named = {"boi_token": start, "eoi_token": stop, "image_token": soft}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        config = json.loads(path.read_text()) | named
        path.write_text(json.dumps(dict(sorted(config.items())), indent=1) + "\n")


def load(folder):
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
