"""Writes a trained branch in the Hub's layout and proves it equal to Transformers' Gemma 3.

    python export.py plain --out DIR --to ../../models/demo
"""

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from model import Config, Gemma3
from quantize import bf16

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
PROMPTS = [
    "Hi", "Who are you?", "What can you do?", "What is the capital of France?", "What is 3 + 4?", "Why is the sky blue?",
    "Tell me a story about a fox.", "Tell me a story about a teapot and an owl.", "How do you spell garden?",
    "Sort these numbers: 9, 2, 14, 5", "What does a bear eat?", "What is the opposite of loud?", "Who was Napoleon?",
    "Repeat this text: The moon likes quiet owls.", "Is a spider an insect?", "What is 17 - 9?",
    "Replace Tom with Felix in this text: Tom found a key. Then Tom went home.",
]


def config_json(c):
    """The dialect of gemma-3-1b-it."""
    own = asdict(c)
    return {
        "architectures": ["Gemma3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "attn_logit_softcapping": None,
        "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": [1, 106], "final_logit_softcapping": None,
        "head_dim": own.pop("head_dim"), "hidden_activation": "gelu_pytorch_tanh", "hidden_size": own.pop("hidden_size"),
        "initializer_range": 0.02, "model_type": "gemma3_text", "pad_token_id": 0, "rope_scaling": None, **own,
        "torch_dtype": "bfloat16", "use_cache": True,
    }


GENERATION = {"bos_token_id": 2, "cache_implementation": "hybrid", "do_sample": True, "eos_token_id": [1, 106], "pad_token_id": 0,
              "top_k": 64, "top_p": 0.95}


def write(model, out, to):
    to.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{n}": p.detach().bfloat16().contiguous() for n, p in model.named_parameters()}
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    (to / "model.safetensors").chmod(0o644)
    dump = lambda name, value: (to / name).write_text(json.dumps(dict(sorted(value.items())), indent=2) + "\n")
    dump("config.json", config_json(model.c))
    dump("generation_config.json", GENERATION)
    for name in TOKENIZER_FILES:
        shutil.copyfile(out / name, to / name)


def load_reference(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    assert type(reference).__name__ == "Gemma3ForCausalLM"
    return reference.eval(), AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def largest_difference(model, reference, length=200):
    """Between the logits of both implementations, both with the bf16 weights in f32."""
    for p in model.parameters():
        p.copy_(bf16(p))
    # Loaded as f32, Transformers does not round this factor; loaded as bf16 it does.
    model.embed_scale = reference.model.embed_tokens.embed_scale.item()
    ids = torch.randint(107, model.c.vocab_size, (2, length), generator=torch.Generator().manual_seed(0))
    position = torch.arange(length).expand(2, -1)
    mine = model(ids, position, torch.zeros_like(ids))
    return (mine - reference(ids).logits).abs().max().item(), mine.abs().max().item()


@torch.no_grad()
def answer(reference, words, turns, tokens=256):
    chat = [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(turns)]
    prompt = words.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    ids = words(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    out = reference.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, top_k=None, top_p=None)
    return words.decode(out[0, ids.shape[1]:], skip_special_tokens=True).strip()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("branch")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--to", type=Path, required=True)
    args = p.parse_args()
    torch.set_num_threads(1)
    model = Gemma3(Config())
    model.load_state_dict(torch.load(args.out / f"{args.branch}.pt"))
    write(model, args.out, args.to)
    reference, words = load_reference(args.to)
    difference, scale = largest_difference(model, reference)
    print(f"largest difference of logits to Transformers: {difference:.2e} (largest logit {scale:.1f})")
    assert difference < 1e-3 * scale
    for text in PROMPTS:
        print(f"> {text}\n{answer(reference, words, [text])}")
    print("> My name is Nora. | What is 2 + 6? | What is my name?")
    print(answer(reference, words, ["My name is Nora.", "Nice to meet you, Nora!", "What is 2 + 6?", "2 + 6 = 8", "What is my name?"]))


if __name__ == "__main__":
    main()
