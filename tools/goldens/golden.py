"""Logits from Transformers, under the conventions README.md lists."""
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.utils import logging as transformers_logging

import ggml_blocks

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


def load(folder, arch="text", **overrides):
    """The checkpoint in f32, eager attention; the embedding's factor rounded to bf16, as Gemma does."""
    cls = AutoModelForImageTextToText if arch == "mm" else AutoModelForCausalLM
    model, info = cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                      output_loading_info=True, **overrides)
    problems = {k: v for k, v in info.items() if v}
    assert not problems, problems
    model.eval()
    embed = model.get_input_embeddings()
    embed.embed_scale.fill_(torch.tensor(embed.embedding_dim ** 0.5).to(torch.bfloat16).float())
    for name, b in model.named_buffers():
        assert b.dtype in (torch.float32, torch.int64), (name, b.dtype)
    return model


def text_matrices(model):
    """The 2-D parameters of the text model: what a converter may quantize."""
    return {n: p for n, p in model.named_parameters()
            if p.ndim == 2 and "vision_tower" not in n and "multi_modal_projector" not in n and not n.startswith("lm_head")}


def quantize(model, matrices, embedding):
    """Replace every matrix by its dequantized blocks; rows that are no multiple of 32 become f16."""
    for name, p in text_matrices(model).items():
        kind = embedding if "embed_tokens" in name else matrices
        if p.shape[1] % ggml_blocks.BLOCK:
            kind = "f16"
        p.data.copy_(torch.from_numpy(ggml_blocks.roundtrip(kind, p.detach().numpy())))
    tied = model.get_output_embeddings().weight
    assert tied.data_ptr() == model.get_input_embeddings().weight.data_ptr()


@torch.no_grad()
def logits(model, tokens, **inputs):
    """f32 [T, vocab]."""
    out = model(input_ids=torch.as_tensor(tokens)[None].long(), use_cache=False, **inputs)
    assert out.logits.dtype == torch.float32
    return out.logits[0].contiguous()


# name in the file -> (matrices, embedding); None: as stored
VARIANTS = {"logits": None, "logits_q8_0": ("q8_0", "q8_0"), "logits_q4_0": ("q4_0", "q8_0"), "logits_q4_0_all": ("q4_0", "q4_0")}


def text_golden(folder, arch, tokens, variants=VARIANTS):
    out = {"tokens": torch.tensor(tokens, dtype=torch.int32)}
    for name in variants:
        model = load(folder, arch)
        if VARIANTS[name]:
            quantize(model, *VARIANTS[name])
        out[name] = logits(model, tokens)
    return out


def save(tensors, path, **metadata):
    assert len(metadata) <= 1  # safetensors writes several in a random order
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata=metadata)
