#!/usr/bin/env python3
"""Make the fixtures: `python make.py [NAME ...]`. See README.md."""
import argparse
import json
import pathlib
import shutil

import tokenizers
import torch

import checkpoints
import ggml_blocks
import golden
import pictures
import sensitivity
import tokenizer_cases
import tokenizer_files
import vision
from checkpoints import Shape

HERE = pathlib.Path(__file__).resolve().parent
FIXTURES = HERE.parent.parent / "tests" / "fixtures"
SMALL_TAGS = ["<table>", "<td>", "</td>", "<b>", "</b>", "<code>"]

VISION = dict(hidden_size=48, image_size=56, intermediate_size=76, model_type="siglip_vision_model",
              num_attention_heads=3, num_hidden_layers=2, patch_size=7, vision_use_head=False)
TINY_VISION = dict(hidden_size=32, image_size=28, intermediate_size=48, model_type="siglip_vision_model",
                   num_attention_heads=2, num_hidden_layers=1, patch_size=7, vision_use_head=False)

# Rows of whole blocks but for ffn's, as in the 4B; as there, 4 × 4 patches become a token.
BLOCK_VISION = dict(hidden_size=96, image_size=112, intermediate_size=144, model_type="siglip_vision_model",
                    num_attention_heads=4, num_hidden_layers=3, patch_size=7, vision_use_head=False)

SHAPES = {s.name: s for s in [
    Shape("gemma3-text", "gemma3", hidden=64, ffn=160, layers=7, heads=4, kv=2, head_dim=32, query_scalar=24, window=16,
          vocab=512, dtype="bf16", root="model.", qk_norm=0.45),
    Shape("gemma2", "gemma2", hidden=96, ffn=96, layers=4, heads=4, kv=2, head_dim=32, query_scalar=48, window=16,
          vocab=512, dtype="bf16", root="model.", qk_weight=2.5, final_norm=3.5),
    Shape("gemma3-mm", "gemma3", hidden=96, ffn=64, layers=6, heads=8, kv=4, head_dim=16, query_scalar=256, window=20,
          vocab=528, dtype="bf16", root="language_model.model.", qk_norm=2.1, shards=2, vision=VISION,
          vision_root="vision_tower.vision_model.", projector_root="multi_modal_projector."),
    Shape("gemma3-new", "gemma3", hidden=96, ffn=64, layers=6, heads=2, kv=1, head_dim=32, query_scalar=40, window=18,
          vocab=528, dtype="f16", root="model.language_model.", qk_norm=0.65, vision=TINY_VISION,
          vision_root="model.vision_tower.", projector_root="model.multi_modal_projector.", lm_head=True, outlier=True,
          layer_types=["sliding_attention"] * 5 + ["full_attention"],
          rope={"full_attention": {"factor": 4.0, "rope_theta": 500000.0, "rope_type": "linear"},
                "sliding_attention": {"rope_theta": 20000.0, "rope_type": "default"}}),
    Shape("gemma3-eyes", "gemma3", hidden=64, ffn=64, layers=6, heads=4, kv=2, head_dim=16, query_scalar=64, window=24,
          vocab=528, dtype="bf16", root="language_model.model.", qk_norm=1.2, vision=BLOCK_VISION,
          vision_root="vision_tower.vision_model.", projector_root="multi_modal_projector."),
    Shape("odd-rows", "gemma3", hidden=48, ffn=96, layers=2, heads=4, kv=1, head_dim=24, query_scalar=20, window=16,
          vocab=512, dtype="f32", root="model.", qk_norm=0.5),
]}

# Long enough to pass the window of 16 more than three times.
PROMPT = ("The cutter turns the rough stone under the lamp.\n\nHow do I find the place where the light goes in?  "
          "<b>It is better</b> to measure")
LENGTHS = {"gemma3-text": 56, "gemma2": 56, "gemma3-mm": 48, "gemma3-new": 48, "gemma3-eyes": 48, "odd-rows": 40}


ALL = [*SHAPES, "tokenizer", "pictures"]


def make_text(s):
    """A checkpoint folder with its text goldens."""
    folder = FIXTURES / s.name
    by_hand = {p.name: p.read_bytes() for p in folder.glob("llama-cpp-*")}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in by_hand.items():
        (folder / name).write_bytes(data)
    gemma2 = s.arch == "gemma2"
    vocab = tokenizer_files.layout((HERE / "corpus.txt").read_text("utf-8"), 512, newlines=6, spaces=7, tags=SMALL_TAGS,
                                   turn_at=106 if gemma2 else 105, images=not gemma2)
    tokenizer_files.write(folder, vocab, soft_token=not gemma2, model_file=gemma2)
    checkpoints.write(s, folder)
    tok = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = tok.encode(PROMPT).ids[:LENGTHS[s.name]]
    assert len(tokens) == LENGTHS[s.name] and tokens[0] == 2, len(tokens)
    prompt = tok.decode(tokens, skip_special_tokens=True)
    assert tok.encode(prompt).ids == tokens, "the prompt must tokenize back"
    arch = "mm" if s.vision else "text"
    variants = {"odd-rows": ["logits", "logits_q8_0"], "gemma3-eyes": ["logits"]}.get(s.name, golden.VARIANTS)
    out = golden.text_golden(folder, arch, tokens, variants)
    golden.save(out, folder / "golden.safetensors", prompt=prompt)
    sensitivity.measure(s, folder, arch, tokens, out)
    if s.name == "gemma3-mm":
        vision.make(s, folder)
    if s.name == "gemma3-eyes":
        vision.make_quantized(s, folder)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("names", nargs="*", help=f"fixtures to make (default: all of {', '.join(ALL)})")
    names = p.parse_args().names or ALL
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    ggml_blocks.cross_check()
    for name in names:
        if name == "tokenizer":
            tokenizer_cases.make(FIXTURES / name, HERE)
        elif name == "pictures":
            shutil.rmtree(FIXTURES / name, ignore_errors=True)
            (FIXTURES / name).mkdir(parents=True)
            pictures.make(FIXTURES / name)
        else:
            make_text(SHAPES[name])
        print(f"{name}: {sum(f.stat().st_size for f in (FIXTURES / name).iterdir())} bytes")


if __name__ == "__main__":
    main()
