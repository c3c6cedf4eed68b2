"""The fixtures' checkpoints: shapes, config.json in each dialect, seeded random weights.

Weights are drawn so that every feature of the model shows in the logits: attention
scores with a standard deviation of 2 to 3 (12 in Gemma 2, where the softcap at 50 must
bite), norm weights spread around their mean with a few large ones, residual
contributions of the order of the embedding, logits with a standard deviation of 1 to 5.
"""
import json
import math
import zlib

import numpy as np
import torch
from safetensors.torch import save_file

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
HUB_NAMES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}


class Shape:
    """One fixture's text model, and how its weights are spread."""

    def __init__(self, name, arch, hidden, ffn, layers, heads, kv, head_dim, query_scalar, window, vocab, dtype, root,
                 qk_norm=0.0, qk_weight=1.0, final_norm=0.8, post_norm=-0.4, rope=None, lm_head=False, shards=1,
                 vision=None, vision_root=None, projector_root=None, layer_types=None, outlier=False):
        self.__dict__.update(locals())
        del self.__dict__["self"]


def draw(shape, name, size, std, mean=0.0):
    """Normal numbers that depend on the fixture and the tensor's name only."""
    r = np.random.Generator(np.random.PCG64(zlib.crc32(f"{shape.name}/{name}".encode())))
    return (r.standard_normal(size) * std + mean).astype(np.float32)


def norm_weight(shape, name, size, mean, std=0.2, large=2, factor=3.0):
    """RMSNorm weights as stored (without the +1): spread, with a few large ones."""
    w = draw(shape, name, (size,), std, mean)
    if large:
        r = np.random.Generator(np.random.PCG64(zlib.crc32(f"{shape.name}/{name}/large".encode())))
        at = r.choice(size, large, replace=False)
        w[at] = (1 + w[at]) * factor - 1
    return w


def text_tensors(s):
    """name (without root) -> f32 array."""
    d, hd = s.hidden, s.head_dim
    unit = 1 / math.sqrt(d)
    t = {"embed_tokens.weight": draw(s, "embed", (s.vocab, d), unit)}
    for i in range(s.layers):
        p = f"layers.{i}."
        n = p + "self_attn."
        t[p + "input_layernorm.weight"] = norm_weight(s, p + "in", d, 0.3)
        t[n + "q_proj.weight"] = draw(s, n + "q", (s.heads * hd, d), unit * s.qk_weight)
        t[n + "k_proj.weight"] = draw(s, n + "k", (s.kv * hd, d), unit * s.qk_weight)
        t[n + "v_proj.weight"] = draw(s, n + "v", (s.kv * hd, d), unit)
        t[n + "o_proj.weight"] = draw(s, n + "o", (d, s.heads * hd), 1 / math.sqrt(s.heads * hd))
        if s.arch != "gemma2":
            t[n + "q_norm.weight"] = norm_weight(s, n + "qn", hd, s.qk_norm, large=1, factor=1.5)
            t[n + "k_norm.weight"] = norm_weight(s, n + "kn", hd, s.qk_norm, large=1, factor=1.5)
        t[p + "post_attention_layernorm.weight"] = norm_weight(s, p + "pa", d, s.post_norm)
        t[p + "pre_feedforward_layernorm.weight"] = norm_weight(s, p + "pf", d, 0.3)
        t[p + "mlp.gate_proj.weight"] = draw(s, p + "gate", (s.ffn, d), unit)
        t[p + "mlp.up_proj.weight"] = draw(s, p + "up", (s.ffn, d), unit)
        t[p + "mlp.down_proj.weight"] = draw(s, p + "down", (d, s.ffn), 1 / math.sqrt(s.ffn))
        t[p + "post_feedforward_layernorm.weight"] = norm_weight(s, p + "po", d, s.post_norm)
    t["norm.weight"] = norm_weight(s, "norm", d, s.final_norm)
    if s.outlier:
        # A massive activation at <bos>, as the real models have: its residual passes f16's largest
        # number in one channel. The final norm all but closes that channel, for the embedding is tied.
        t["embed_tokens.weight"][2, 5] = 8192.0
        t["norm.weight"][5] = -1 + 1 / 4096
    return t


def vision_tensors(s):
    """SigLIP's tensors, names without root, and the projector's, names with a leading `@`."""
    v = s.vision
    h, m, ps = v["hidden_size"], v["intermediate_size"], v["patch_size"]
    patches = (v["image_size"] // ps) ** 2
    unit = 1 / math.sqrt(h)
    t = {"embeddings.patch_embedding.weight": draw(s, "v.patch", (h, 3, ps, ps), 1.5 / math.sqrt(3 * ps * ps)),
         "embeddings.patch_embedding.bias": draw(s, "v.patch.b", (h,), 0.2),
         "embeddings.position_embedding.weight": draw(s, "v.pos", (patches, h), 0.5)}
    for i in range(v["num_hidden_layers"]):
        p = f"encoder.layers.{i}."
        for n in ("layer_norm1", "layer_norm2"):
            t[p + n + ".weight"] = draw(s, p + n, (h,), 0.2, 1.0)
            t[p + n + ".bias"] = draw(s, p + n + "b", (h,), 0.2)
        for n in ("k_proj", "v_proj", "q_proj", "out_proj"):
            gain = 1.6 if n in ("q_proj", "k_proj") else 1.0
            t[p + f"self_attn.{n}.weight"] = draw(s, p + n, (h, h), unit * gain)
            t[p + f"self_attn.{n}.bias"] = draw(s, p + n + "b", (h,), 0.2)
        t[p + "mlp.fc1.weight"] = draw(s, p + "fc1", (m, h), unit)
        t[p + "mlp.fc1.bias"] = draw(s, p + "fc1b", (m,), 0.2)
        t[p + "mlp.fc2.weight"] = draw(s, p + "fc2", (h, m), 1 / math.sqrt(m))
        t[p + "mlp.fc2.bias"] = draw(s, p + "fc2b", (h,), 0.2)
    t["post_layernorm.weight"] = draw(s, "v.post", (h,), 0.2, 1.0)
    t["post_layernorm.bias"] = draw(s, "v.postb", (h,), 0.2)
    t["@mm_input_projection_weight"] = draw(s, "mm.proj", (h, s.hidden), unit)
    t["@mm_soft_emb_norm.weight"] = norm_weight(s, "mm.norm", h, 0.0)
    return t


def tensors(s):
    """The whole checkpoint: name -> torch tensor of the stored type, in file order."""
    out = {s.root + k: v for k, v in text_tensors(s).items()}
    if s.vision:
        for k, v in vision_tensors(s).items():
            out[s.projector_root + k[1:] if k[0] == "@" else s.vision_root + k] = v
    out = {k: torch.from_numpy(v).to(DTYPES[s.dtype]) for k, v in out.items()}
    if s.lm_head:
        out["lm_head.weight"] = out[s.root + "embed_tokens.weight"].clone()
    return out


def config(s):
    """config.json, each in the dialect of its time."""
    text = dict(hidden_size=s.hidden, intermediate_size=s.ffn, num_hidden_layers=s.layers, num_attention_heads=s.heads,
                num_key_value_heads=s.kv, head_dim=s.head_dim, query_pre_attn_scalar=s.query_scalar,
                sliding_window=s.window, vocab_size=s.vocab)
    common = dict(attention_bias=False, attention_dropout=0.0, hidden_activation="gelu_pytorch_tanh",
                  max_position_embeddings=8192, rms_norm_eps=1e-06, initializer_range=0.02, use_cache=True)
    ids = dict(bos_token_id=2, eos_token_id=1, pad_token_id=0)
    old_type, new_type = dict(torch_dtype=HUB_NAMES[s.dtype]), dict(dtype=HUB_NAMES[s.dtype])
    if s.name in ("gemma3-text", "odd-rows"):  # as gemma-3-1b-it
        return dict(architectures=["Gemma3ForCausalLM"], model_type="gemma3_text", attn_logit_softcapping=None,
                    final_logit_softcapping=None, cache_implementation="hybrid", rope_theta=1000000, rope_local_base_freq=10000,
                    rope_scaling=None, sliding_window_pattern=6, transformers_version="4.50.0.dev0",
                    **text, **common, **{**ids, "eos_token_id": [1, 106]}, **old_type)
    if s.name == "gemma2":  # as gemma-2-2b-it
        return dict(architectures=["Gemma2ForCausalLM"], model_type="gemma2", attn_logit_softcapping=50.0,
                    final_logit_softcapping=30.0, cache_implementation="hybrid", rope_theta=10000.0,
                    hidden_act="gelu_pytorch_tanh", transformers_version="4.42.4", **text, **common, **ids, **old_type)
    multimodal = dict(architectures=["Gemma3ForConditionalGeneration"], model_type="gemma3", boi_token_index=510,
                      eoi_token_index=511, eos_token_id=[1, 106], image_token_index=512, initializer_range=0.02,
                      mm_tokens_per_image=16, vision_config=s.vision)
    if s.name == "gemma3-mm":  # as gemma-3-4b-it: what is at its Transformers default is left out
        kept = {k: v for k, v in text.items() if k not in ("num_attention_heads", "num_key_value_heads", "query_pre_attn_scalar")}
        assert (s.heads, s.kv, s.query_scalar) == (8, 4, 256)
        return dict(text_config=dict(model_type="gemma3_text", rope_scaling={"factor": 8.0, "rope_type": "linear"}, **kept),
                    transformers_version="4.50.0.dev0", **multimodal, **old_type)
    if s.name == "gemma3-eyes":
        return dict(text_config=dict(model_type="gemma3_text", rope_scaling={"factor": 8.0, "rope_type": "linear"}, **text),
                    transformers_version="4.50.0.dev0", **multimodal, **old_type)
    if s.name == "gemma3-new":  # as Transformers 5 saves it
        return dict(text_config=dict(model_type="gemma3_text", _sliding_window_pattern=6, attn_logit_softcapping=None,
                                     final_logit_softcapping=None, layer_types=s.layer_types, rope_parameters=s.rope,
                                     tie_word_embeddings=True, use_bidirectional_attention=False, **text, **common, **ids, **new_type),
                    tie_word_embeddings=True, transformers_version="5.0.0", **multimodal, **new_type)
    raise KeyError(s.name)


def generation_config(s):
    return dict(cache_implementation="hybrid", bos_token_id=2, eos_token_id=[1, 107 if s.arch == "gemma2" else 106],
                do_sample=True, pad_token_id=0, top_k=64, top_p=0.95, transformers_version="4.50.0.dev0")


def write(s, folder):
    """config.json, generation_config.json and the safetensors, in one file or in shards with an index."""
    dump = lambda name, value: (folder / name).write_text(json.dumps(value, indent=2) + "\n")
    dump("config.json", config(s))
    dump("generation_config.json", generation_config(s))
    t = tensors(s)
    if s.shards == 1:
        save_file(t, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, size = sorted(t), lambda n: t[n].numel() * t[n].element_size()
    total, index, shard, filled = sum(map(size, names)), {}, 1, 0
    for n in names:  # a new shard whenever the share of one is full
        if filled >= total * shard / s.shards:
            shard += 1
        index[n] = f"model-{shard:05}-of-{s.shards:05}.safetensors"
        filled += size(n)
    for file in sorted(set(index.values())):
        save_file({n: t[n] for n in names if index[n] == file}, folder / file, metadata={"format": "pt"})
    dump("model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": index})
