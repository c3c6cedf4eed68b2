"""`tests/fixtures/tokenizer/`: a tokenizer of some two thousand pieces, and texts with the ids
that Hugging Face `tokenizers` gives them (no <bos> added).

Each line of cases.jsonl holds `text`, `ids` (control-token spellings are parsed, as
`encode` does) and, only where it differs, `ids_plain`: the ids when the special added
tokens are not parsed, which is how text typed by a user has to be read.
"""
import json
import shutil

import sentencepiece
import tokenizers

import tokenizer_files

EXTRA = ["\t", "\t\t", "\t\t\t\t", "\u2581\t"]

WORDS = """Hello|Hello, world!|hello world| hello|hello | hello |the|The stone| the| The the the|a|I|x|It's|don't|naïve café
1|12|123|1234567890|3.14159|1,000,000.00|-1e-10|0x7f|12:30|2024-02-29|v1.2.3|1 2 3|１２３
a b  c   d    e     f|A.B.C.|...|!?!?|(a)[b]{c}<d>|"quoted"|'single'|“curly” ‘quotes’|a/b\\c|#hash @at $5 50% ^ & * _under_ ~tilde `tick`|a_b_c|snake_case_name|camelCaseName|UPPER CASE TEXT
user@example.org|https://example.org/path?q=1&r=2#top|C:\\Users\\name|/usr/local/bin|--flag=value|a+b=c|x**2|i++;|=> -> <- ==> !=|<|>|<>|< >|<<|</|<a|a>|<1>|&lt;&amp;&gt;
fn main() { println!("{}", 1); }|def f(x):\n    return x + 1\n|if (x) {\n\ty();\n}|for i in range(10): print(i)|SELECT * FROM t WHERE a > 1;|{"name": "stone", "n": [1, 2]}|# Title\n\n- one\n- two\n\n1. first\n2. second\n|| a | b |\\n|---|---|\\n|```rust\nlet x = 1;\n```|$E = mc^2$|\\frac{a}{b}
Größe, Straße, über|Où est la lumière ?|¿Dónde está el niño?|Não sei, coração|Perché la città è così|Żółta łódź płynie|Příliš žluťoučký kůň|İstanbul'da güneşli|Người thợ xoay viên đá|Þórður æfir ð|Ñandú|Œuvre|ﬁ ligature ﬃ|Å Å Å
Где находится станция?|Спасибо, до свидания|Дякую, їжак|Ελληνικά: πού είναι;|שלום לכולם|תודה רבה|السلام عليكم|شكرا جزيلا|سنگ‌تراش می‌چرخاند|बहुत बहुत धन्यवाद|नमस्ते दुनिया|আমি তোমায় ভালোবাসি|நன்றி வணக்கம்|ಕನ್ನಡ|తెలుగు|മലയാളം|සිංහල|ਪੰਜਾਬੀ|ગુજરાતી|ଓଡ଼ିଆ
สวัสดี วันนี้อากาศดี|ສະບາຍດີ|ខ្មែរ|မြန်မာ|བོད་ཡིག|石匠在灯下慢慢地转动石头|今天天气很好，我们去公园吧。|謝謝您|職人はランプの下で|ありがとうございます|カタカナ ｶﾀｶﾅ|가장 가까운 역은|ㄱㄴㄷ|각|გმადლობთ|Շնորհակալություն|ᐃᓄᒃᑎᑐᑦ|ᏣᎳᎩ|አማርኛ|ⴰⵎⴰⵣⵉⵖ|ߒߞߏ|𐌰𐌱𐌲|𓀀𓀁|𝒜𝓁𝓅𝒽𝒶|𠀀𠮷|ꙮ
😀|😀😀|😀 👍|👍🏽|👩‍💻|👨‍👩‍👧‍👦|🏳️‍🌈|🇩🇪🇫🇷|❤️|❤|☺️|1️⃣|🧑🏿‍🚀 rocket 🚀|a😀b|🎉🎉🎉|🤷‍♀️|⌚️|🫠
é|é|é è ê|ä|ñ́|Z͑ͫ̓ͪ̂ͫ̽|ạ̈|क्षि|한글|‏עברית‏|a‍b|a‌b|a⁠b|﻿bom|a­b|�|￿|𐀀|à́̂
"""
CONTROL = ["<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>",
           "<end_of_image>", "<image_soft_token>"]
USER_PIECES = ["[multimodal]", "<unused0>", "<unused99>", "<table>", "<h1>", "</blockquote>", "<b>bold</b>", "<code>x</code>",
               "<strong><em>x</em></strong>", "<ul>\n<li>one</li>\n</ul>", "<table><tr><td>1</td></tr></table>", "<img><a>",
               "<B>", "<b >", "<b/>", "</ b>", "<unused1000>", "<unused>", " <b> ", "<<b>>", "<b<b>", "<blockquote", "<html><body>"]


def texts():
    yield ""
    for line in WORDS.strip("\n").split("\n"):
        for t in line.split("|"):
            yield t.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\")
    for n in (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 30, 31, 32, 33, 62, 63, 64, 65, 100):
        yield "\n" * n
        yield " " * n
        yield "a" + " " * n + "b"
    for n in (1, 2, 3, 4, 5, 6, 9, 40):
        yield "\t" * n
        yield "a" + "\n" * n + "b"
        yield "x" + "\t" * n + "y"
    for n in (2, 3, 5, 8, 17, 64, 257):
        yield "a" * n
        yield "e" * n + " " + "o" * n
        yield "ß" * n
        yield "ab" * n
        yield "the" * n
    yield from ["\r\n", "a\r\nb\r\n", "\r", "\n \n", " \n ", "\n\n \n\n", "\t \t", " \t\n", "\n\t\n", "  \n  \n", "a \n", "\u00a0", "a\u00a0b",
                "\u3000全角", "\u2581", "\u2581\u2581", " \u2581 ", "a\u2581b", "\u2028\u2029", "\v\f", "\0", "a\0b", "\x01\x02\x1f\x7f",
                "\x80\x9f\xa0\xff", "\u200b", "\u202eabc", "    def f():\n        return 1\n\n\n    x = 2\n"]
    yield from ["<0x41>", "<0x0A>", "<0xFF>", "a<0x41>b", "<0x", "\\n", "\\u0041", "&#65;"]
    yield from CONTROL
    for c in CONTROL:
        yield f"say {c} now"
    yield from ["<start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\n", "<bos><bos>", "<bos>text<eos>", " <bos> ", "<start_of_turn",
                "start_of_turn>", "<start_of_turn><end_of_turn>", "< start_of_turn >", "<START_OF_TURN>", "<start_of_turn>\n\n\n<end_of_turn>",
                "<<start_of_turn>>", "\n<end_of_turn>\n\n", "<end_of_turn>" * 5, "<start_of_turn>system\nignore<end_of_turn>",
                "<start_of_image><image_soft_token><image_soft_token><end_of_image>", "\n\n<start_of_image>\n\n", "<pad><pad>x", "</s><s>", "[BOS]", "<|im_end|>"]
    yield from USER_PIECES


def make(folder, here):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    corpus = "".join((here / f).read_text("utf-8") for f in ("corpus.txt", "corpus_scripts.txt"))
    vocab = tokenizer_files.layout(corpus, 2048, newlines=31, spaces=31, tags=tokenizer_files.ALL_TAGS, extra_pieces=EXTRA, unused_tail=8)
    tokenizer_files.write(folder, vocab, soft_token=True)
    (folder / "tokenizer_config.json").unlink()
    full = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    spec = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    spec["added_tokens"] = [t for t in spec["added_tokens"] if not t["special"]]
    spec["post_processor"] = None
    plain = tokenizers.Tokenizer.from_str(json.dumps(spec))
    # The same pieces read by SentencePiece, which merges by score, not by rank: a check that both agree.
    scored = [(p, score, tokenizer_files.CONTROL if kind == tokenizer_files.USER and tokenizer_files.is_special(p, kind) else kind)
              for p, score, kind in vocab]
    spm = sentencepiece.SentencePieceProcessor(model_proto=tokenizer_files.sentencepiece_model(scored))
    lines, used = [], set()
    for text in dict.fromkeys(texts()):
        case = {"text": text, "ids": full.encode(text, add_special_tokens=False).ids}
        ids = plain.encode(text, add_special_tokens=False).ids
        assert ids == spm.encode(text), text
        if ids != case["ids"]:
            case["ids_plain"] = ids
        used.update(case["ids"])
        lines.append(json.dumps(case, ensure_ascii=True, separators=(",", ":")))
    (folder / "cases.jsonl").write_text("\n".join(lines) + "\n")
    print(f"tokenizer: {len(vocab)} pieces, {len(lines)} cases, {sum('ids_plain' in l for l in lines)} with ids_plain, "
          f"{len(used)} pieces used")
