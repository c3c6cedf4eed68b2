"""Small tokenizers laid out like Gemma's.

A vocabulary is a list of pieces `(text, score, type)`; its index is the id. It is
assembled in Gemma's order (control tokens, unused slots, turn tokens, newline runs,
space runs, markup, 256 bytes, learned pieces, image tokens) and written twice:

- `tokenizer.model`: a SentencePiece BPE model with byte fallback, no normalization, no
  dummy prefix;
- `tokenizer.json`: the same pieces with the merges that Transformers' GemmaConverter
  derives from the scores: every split of a piece into two pieces, best score first, then
  the longer left half first.

As in the published files, newline runs, space runs and markup are non-special added
tokens (matched before BPE), `<start_of_turn>` and the like are special ones, and the
image soft token has an id just past the last piece, present in tokenizer.json only.
"""
import collections
import io
import json

import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2 as pb

NORMAL, UNKNOWN, CONTROL, USER, BYTE = 1, 2, 3, 4, 6

TAGS = ("table caption thead tbody tfoot tr th td".split(), "h1 h2 h3 h4 h5 h6 blockquote".split(),
        "strong em b i u s sub sup code".split(), "a html body img span bbox ul li div iframe footer".split())
ALL_TAGS = [form % t for group in TAGS for form in ("<%s>", "</%s>") for t in group]

# What a chat looks like; the same text as Gemma's own template gives for plain strings.
CHAT_TEMPLATE = """{{ bos_token }}
{%- set system = messages[0]['content'] + '\n\n' if messages[0]['role'] == 'system' else '' -%}
{%- set turns = messages[1:] if messages[0]['role'] == 'system' else messages -%}
{%- for message in turns -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('Roles must alternate: user, assistant, user, ...') }}
    {%- endif -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\n' + (system if loop.first else '') }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- else -%}
        {%- for item in message['content'] -%}
            {{ '<start_of_image>' if item['type'] == 'image' else item['text'] | trim }}
        {%- endfor -%}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\n' }}
{%- endif -%}
"""


def learned_pieces(text, count):
    """The first `count` BPE pieces SentencePiece learns from `text`, best first, letters last."""
    letters = sorted(set(text.replace("\n", "").replace(" ", "")) | {"\u2581"})
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.split("\n")), model_writer=model, model_type="bpe",
        vocab_size=count + 256 + 3, character_coverage=1.0, byte_fallback=True, split_digits=True,
        normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
        num_threads=1, minloglevel=2)
    proto = pb.ModelProto()
    proto.ParseFromString(model.getvalue())
    pieces = [p.piece for p in proto.pieces if p.type == NORMAL]
    assert len(pieces) == count and len(letters) < count, (len(pieces), count, len(letters))
    return pieces


def layout(text, size, newlines, spaces, tags, turn_at=105, images=True, extra_pieces=(), unused_tail=0):
    """Gemma's vocabulary order at `size` pieces. Gemma 3 has its turn tokens at 105, Gemma 2 at 106."""
    v = [("<pad>", 0.0, CONTROL), ("<eos>", 0.0, CONTROL), ("<bos>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN)]
    user = ["<mask>", "[multimodal]" if images else "<2mass>"]
    user += ["<unused%d>" % i for i in range(turn_at - len(v) - len(user))]
    user += ["<start_of_turn>", "<end_of_turn>"]
    user += ["\n" * n for n in range(1, newlines + 1)]
    user += ["\u2581" * n for n in range(2, spaces + 1)]
    user += list(tags)
    v += [(p, 0.0, USER) for p in user]
    v += [("<0x%02X>" % b, 0.0, BYTE) for b in range(256)]
    tail = ["<start_of_image>", "<end_of_image>"] if images else []
    tail += ["<unused%d>" % (turn_at - 6 + i) for i in range(unused_tail)]
    taken = set(user)
    room = size - len(v) - len(tail) - len(extra_pieces)
    learned = [p for p in learned_pieces(text, room + 8) if p not in taken]
    letters = [p for p in learned if len(p) == 1]
    learned = [p for p in learned if len(p) > 1][:room - len(letters)] + letters
    learned += [p for p in extra_pieces if p not in learned]
    v += [(p, -float(i), NORMAL) for i, p in enumerate(learned)]
    v += [(p, 0.0, USER) for p in tail]
    assert len(v) == len({p for p, _, _ in v}) and len(v) <= size, len(v)
    return v


def sentencepiece_model(vocab):
    """`tokenizer.model`: bytes."""
    m = pb.ModelProto()
    for piece, score, kind in vocab:
        m.pieces.add(piece=piece, score=score, type=kind)
    t = m.trainer_spec
    t.model_type, t.vocab_size, t.byte_fallback = pb.TrainerSpec.BPE, len(vocab), True
    t.pad_id, t.eos_id, t.bos_id, t.unk_id = 0, 1, 2, 3
    t.pad_piece, t.eos_piece, t.bos_piece, t.unk_piece = "<pad>", "<eos>", "<bos>", "<unk>"
    t.split_digits = True
    n = m.normalizer_spec
    n.name, n.add_dummy_prefix, n.remove_extra_whitespaces, n.escape_whitespaces = "identity", False, False, True
    data = m.SerializeToString(deterministic=True)
    sentencepiece.SentencePieceProcessor(model_proto=data)  # it loads
    return data


def merges(vocab):
    """As Transformers derives them (`generate_merges`)."""
    ids = {p: i for i, (p, _, _) in enumerate(vocab)}
    found = []
    for piece, score, _ in vocab:
        splits = [(piece[:k], piece[k:]) for k in range(1, len(piece))]
        splits = sorted((s for s in splits if s[0] in ids and s[1] in ids), key=lambda s: (ids[s[0]], ids[s[1]]))
        found += [(left, right, score) for left, right in splits]
    found.sort(key=lambda m: (m[2], len(m[0]), len(m[1])), reverse=True)
    return [[left, right] for left, right, _ in found]


def is_special(piece, kind):
    return kind in (CONTROL, UNKNOWN) or piece in (
        "<mask>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>")


def added_tokens(vocab, soft_token):
    listed = [(i, p, k) for i, (p, _, k) in enumerate(vocab) if k in (CONTROL, UNKNOWN, USER)]
    if soft_token:
        listed.append((len(vocab), "<image_soft_token>", USER))
    return [{"id": i, "content": p, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": is_special(p, k)} for i, p, k in listed]


def tokenizer_json(vocab, soft_token):
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": added_tokens(vocab, soft_token),
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": {
            "type": "TemplateProcessing", "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<bos>", "type_id": 1}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": {p: i for i, (p, _, _) in enumerate(vocab)}, "merges": merges(vocab)},
    }


def tokenizer_config(vocab, soft_token):
    added = collections.OrderedDict()
    for t in added_tokens(vocab, soft_token):
        if t["special"]:  # the published files list every added token; these are the ones that matter
            added[str(t["id"])] = {k: t[k] for k in ("content", "lstrip", "normalized", "rstrip", "single_word", "special")}
    c = {"add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": added, "bos_token": "<bos>",
         "chat_template": CHAT_TEMPLATE, "clean_up_tokenization_spaces": False, "eos_token": "<eos>",
         "model_max_length": 1000000000000000019884624838656, "pad_token": "<pad>",
         "spaces_between_special_tokens": False, "tokenizer_class": "GemmaTokenizer", "unk_token": "<unk>",
         "use_default_system_prompt": False}
    if soft_token:
        c |= {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    return c


def write(folder, vocab, soft_token=False, model_file=False):
    compact = dict(ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(vocab, soft_token), **compact) + "\n", "utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(tokenizer_config(vocab, soft_token), ensure_ascii=False, indent=1) + "\n", "utf-8")
    if model_file:
        (folder / "tokenizer.model").write_bytes(sentencepiece_model(vocab))
        spm = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        tok = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        for text in ("Hello  world,\n\n\nhow <b>are</b> you? <start_of_turn> \u00e9\u00e8 \U0001f600 aaaaaaaa \t12", " the the  the"):
            assert spm.encode(text) == tok.encode(text, add_special_tokens=False).ids, text
