"""Writes a trained branch in the Hub's layout, tower and all, and proves it equal to Transformers' Gemma 3.

    python export.py sight --out DIR --to ../../models/demo
"""

import argparse
import json
import random
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import looks
import pictures
import tokenizer
from quantize import bf16
from see import load
from tower import cut

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
PROMPTS = [
    "Hi", "Who are you?", "What can you do?", "What is the capital of France?", "What is 3 + 4?", "Why is the sky blue?",
    "Tell me a story about a fox.", "Tell me a story about a teapot and an owl.", "How do you spell garden?",
    "Sort these numbers: 9, 2, 14, 5", "What does a bear eat?", "What is the opposite of loud?", "Who was Napoleon?",
    "Repeat this text: The moon likes quiet owls.", "Is a spider an insect?", "What is 17 - 9?",
    "Replace Tom with Felix in this text: Tom found a key. Then Tom went home.",
]


def config_json(c, v):
    """The dialect of gemma-3-4b-it, with nothing of the text model left to defaults."""
    text = {
        "attention_bias": False, "attention_dropout": 0.0, "attn_logit_softcapping": None, "final_logit_softcapping": None,
        "hidden_activation": "gelu_pytorch_tanh", "initializer_range": 0.02, "model_type": "gemma3_text", "rope_scaling": None,
        "torch_dtype": "bfloat16", "use_cache": True, **asdict(c),
    }
    vision = {
        "attention_dropout": 0.0, "hidden_act": "gelu_pytorch_tanh", "hidden_size": v.hidden_size, "image_size": v.image_size,
        "intermediate_size": v.intermediate_size, "layer_norm_eps": v.layer_norm_eps, "model_type": "siglip_vision_model",
        "num_attention_heads": v.num_attention_heads, "num_channels": 3, "num_hidden_layers": v.num_hidden_layers,
        "patch_size": v.patch_size, "torch_dtype": "bfloat16", "vision_use_head": False,
    }
    return {
        "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": tokenizer.START, "bos_token_id": 2,
        "eoi_token_index": tokenizer.STOP, "eos_token_id": [1, 106], "image_token_index": tokenizer.SOFT, "initializer_range": 0.02,
        "mm_tokens_per_image": v.tokens, "model_type": "gemma3", "pad_token_id": 0, "text_config": dict(sorted(text.items())),
        "torch_dtype": "bfloat16", "vision_config": vision,
    }


def processor_config(v):
    """preprocessor_config.json, as the Hub has it for Gemma 3."""
    return {
        "do_convert_rgb": None, "do_normalize": True, "do_pan_and_scan": None, "do_rescale": True, "do_resize": True,
        "image_mean": [0.5] * 3, "image_processor_type": "Gemma3ImageProcessor", "image_seq_length": v.tokens, "image_std": [0.5] * 3,
        "pan_and_scan_max_num_crops": None, "pan_and_scan_min_crop_size": None, "pan_and_scan_min_ratio_to_activate": None,
        "processor_class": "Gemma3Processor", "resample": 2, "rescale_factor": 0.00392156862745098,
        "size": {"height": v.image_size, "width": v.image_size},
    }


GENERATION = {"bos_token_id": 2, "cache_implementation": "hybrid", "do_sample": True, "eos_token_id": [1, 106], "pad_token_id": 0,
              "top_k": 64, "top_p": 0.95}


def write(both, out, to):
    to.mkdir(parents=True, exist_ok=True)
    tensors = {f"language_model.model.{n}": p for n, p in both.text.named_parameters()} | dict(both.tower.hub())
    save_file({n: p.detach().bfloat16().contiguous() for n, p in tensors.items()}, to / "model.safetensors", metadata={"format": "pt"})
    (to / "model.safetensors").chmod(0o644)
    dump = lambda name, value: (to / name).write_text(json.dumps(dict(sorted(value.items())), indent=2) + "\n")
    c, v = both.text.c, both.tower.c
    dump("config.json", config_json(c, v))
    dump("generation_config.json", GENERATION)
    dump("preprocessor_config.json", processor_config(v))
    dump("processor_config.json", {"image_seq_length": v.tokens, "processor_class": "Gemma3Processor"})
    for name in TOKENIZER_FILES:
        shutil.copyfile(out / name, to / name)


def load_reference(folder):
    """The model and a processor, as Transformers finds them in the folder."""
    from transformers import AutoModelForImageTextToText, AutoTokenizer
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
    from transformers.models.gemma3.processing_gemma3 import Gemma3Processor

    reference = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    assert type(reference).__name__ == "Gemma3ForConditionalGeneration"
    images = Gemma3ImageProcessorPil.from_pretrained(folder, do_convert_rgb=True)
    words = AutoTokenizer.from_pretrained(folder)
    return reference.eval(), Gemma3Processor(images, words, image_seq_length=looks.TOKENS)


@torch.no_grad()
def largest_differences(both, reference, processor, length=200):
    """Between the logits of both implementations, both with the bf16 weights in f32: of text, and of text after a picture."""
    for p in both.parameters():
        p.copy_(bf16(p))
    # Loaded as f32, Transformers does not round this factor; loaded as bf16 it does.
    both.text.embed_scale = reference.model.language_model.embed_tokens.embed_scale.item()
    ids = torch.randint(107, both.text.c.vocab_size, (2, length), generator=torch.Generator().manual_seed(0))
    position = torch.arange(length).expand(2, -1)
    mine = both.text(ids, position, torch.zeros_like(ids))
    yield "text", mine, reference(ids).logits
    rng = random.Random(1)
    for i in range(3):
        image = pictures.small(pictures.make(rng, True), rng)
        given = processor(text=f"<start_of_turn>user\n<start_of_image>What is in the picture?{looks.END}{looks.MODEL}", images=[[image]], return_tensors="pt")
        ids = given["input_ids"]
        soft = (ids == tokenizer.SOFT)
        place = torch.where(soft, soft.cumsum(1), 0)
        mine = both.text(ids, torch.arange(ids.shape[1])[None], torch.zeros_like(ids), soft=both.tower(cut(np.asarray(image)[None])), place=place)
        assert ids[0].tolist() == looks.Looks(processor.tokenizer.backend_tokenizer, 0).encode([(looks.IMAGE + "What is in the picture?", "")])[0][:ids.shape[1]]
        yield f"picture {i + 1}", mine, reference(**given).logits


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
    both = load(args.out, args.branch)
    write(both, args.out, args.to)
    reference, processor = load_reference(args.to)
    words = processor.tokenizer
    for what, mine, theirs in largest_differences(both, reference, processor):
        difference, scale = (mine - theirs).abs().max().item(), mine.abs().max().item()
        print(f"{what}: largest difference of logits to Transformers: {difference:.2e} (largest logit {scale:.1f})")
        assert difference < 1e-3 * scale
    for text in PROMPTS:
        print(f"> {text}\n{answer(reference, words, [text])}")
    print("> My name is Nora. | What is 2 + 6? | What is my name?")
    print(answer(reference, words, ["My name is Nora.", "Nice to meet you, Nora!", "What is 2 + 6?", "2 + 6 = 8", "What is my name?"]))


if __name__ == "__main__":
    main()
