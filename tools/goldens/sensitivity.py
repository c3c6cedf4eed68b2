"""Proof that a golden notices each feature: the logits with one feature altered, against the golden.

Figures are the root mean square difference over the standard deviation of the golden's
logits. An alteration that changes less than LIMIT makes the script fail: a golden that
does not notice a feature is worthless. Two alterations are small by nature; they must
still stand far above the rounding noise. That noise is the first figure: how far the
golden is from the same forward in f64, which bounds the tolerance a test can ask for.
"""
import contextlib

import torch
from torch import nn

import golden

LIMIT = 0.01
SMALL_BY_NATURE = ("exact GELU for tanh GELU", "embedding factor not rounded to bf16")
SMALL_LIMIT = 50  # times the noise


def text_config(model):
    return model.config.get_text_config()


def text_model(model):
    return getattr(model.model, "language_model", model.model)


def layers(model):
    return text_model(model).layers


def set_window(model, size):
    text_config(model).sliding_window = size


def drop(model, *names):
    """Replace modules named so, in every layer, by the identity."""
    for layer in layers(model):
        for n in names:
            owner = layer.self_attn if n in ("q_norm", "k_norm") else layer
            setattr(owner, n, nn.Identity())


def unit_norms(model, *names):
    """The same, keeping the normalization: weights (1 + w) become 1."""
    for layer in layers(model):
        for n in names:
            owner = layer.self_attn if n in ("q_norm", "k_norm") else layer
            getattr(owner, n).weight.data.zero_()


def scale_queries(model, factor):
    for layer in layers(model):
        layer.self_attn.scaling *= factor


def swap_kv(model):
    """Query heads dealt to kv heads in turn instead of in runs."""
    s = text_config(model)
    group, kv, hd = s.num_attention_heads // s.num_key_value_heads, s.num_key_value_heads, s.head_dim
    order = torch.arange(s.num_attention_heads).reshape(group, kv).T.reshape(-1)
    rows = (order[:, None] * hd + torch.arange(hd)).reshape(-1)
    for layer in layers(model):
        a = layer.self_attn
        a.q_proj.weight.data = a.q_proj.weight.data[rows]
        a.o_proj.weight.data = a.o_proj.weight.data[:, rows]


def interleave_rope(model):
    """RoPE over neighbouring pairs instead of halves: permute q and k rows (and their norms)."""
    hd = text_config(model).head_dim
    perm = torch.arange(hd).reshape(2, hd // 2).T.reshape(-1)
    for layer in layers(model):
        a = layer.self_attn
        for p in (a.q_proj, a.k_proj):
            w = p.weight.data
            p.weight.data = w.reshape(-1, hd, w.shape[1])[:, perm].reshape(w.shape)
        for n in ("q_norm", "k_norm"):
            if hasattr(a, n):
                getattr(a, n).weight.data = getattr(a, n).weight.data[perm]


def rope(model, kind, change):
    """Change the inverse frequencies of one layer type."""
    r = text_model(model).rotary_emb
    name = f"{kind}_inv_freq" if hasattr(r, f"{kind}_inv_freq") else "inv_freq"
    getattr(r, name).data = change(getattr(r, name))


def inv_freq(base, head_dim):
    return 1.0 / (base ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim))


def set_layer_types(model, types):
    for layer, t in zip(layers(model), types):
        layer.self_attn.layer_type = t
        layer.self_attn.is_sliding = t == "sliding_attention"
    text_config(model).layer_types = list(types)


def activation(model, act):
    for layer in layers(model):
        layer.mlp.act_fn = act


def alterations(s, config):
    """name -> function altering a freshly loaded model."""
    gemma3 = s.arch == "gemma3"
    types = list(config.layer_types)
    both = len(set(types)) == 2
    other = ["full_attention" if t == "sliding_attention" else "sliding_attention" for t in types]
    a = {
        "no window": lambda m: set_window(m, 4096),
        "window one more": lambda m: set_window(m, s.window + 1),
        "window one less": lambda m: set_window(m, s.window - 1),
        "query scale 1/sqrt(head_dim)": lambda m: scale_queries(m, (s.query_scalar / s.head_dim) ** 0.5),
        "RoPE pairs neighbours": interleave_rope,
        "no post-attention norm": lambda m: drop(m, "post_attention_layernorm"),
        "no post-MLP norm": lambda m: drop(m, "post_feedforward_layernorm"),
        "post-attention norm weight 1": lambda m: unit_norms(m, "post_attention_layernorm"),
        "post-MLP norm weight 1": lambda m: unit_norms(m, "post_feedforward_layernorm"),
        "input norm weight 1": lambda m: unit_norms(m, "input_layernorm"),
        "pre-MLP norm weight 1": lambda m: unit_norms(m, "pre_feedforward_layernorm"),
        "final norm weight 1": lambda m: text_model(m).norm.weight.data.zero_(),
        "embedding not scaled": lambda m: m.get_input_embeddings().embed_scale.fill_(1.0),
        "SiLU for GELU": lambda m: activation(m, nn.SiLU()),
        "exact GELU for tanh GELU": lambda m: activation(m, nn.GELU()),
    }
    if both:
        a["all layers global"] = lambda m: set_layer_types(m, ["full_attention"] * len(types))
        a["all layers sliding"] = lambda m: set_layer_types(m, ["sliding_attention"] * len(types))
    if s.kv > 1 and s.heads > s.kv:
        a["kv heads dealt in turn"] = swap_kv
    if (s.hidden ** 0.5) % 1:
        a["embedding factor not rounded to bf16"] = lambda m: m.get_input_embeddings().embed_scale.fill_(s.hidden ** 0.5)
    if gemma3:
        p = config.rope_parameters
        base = {k: p[k]["rope_theta"] for k in ("full_attention", "sliding_attention")}
        factor = p["full_attention"].get("factor", 1.0)
        a |= {
            "no q norm": lambda m: drop(m, "q_norm"),
            "no k norm": lambda m: drop(m, "k_norm"),
            "q norm weight 1": lambda m: unit_norms(m, "q_norm"),
            "k norm weight 1": lambda m: unit_norms(m, "k_norm"),
            "global RoPE base in sliding layers": lambda m: rope(
                m, "sliding_attention", lambda _: inv_freq(base["full_attention"], s.head_dim)),
        }
        if both:
            a["local RoPE base in global layers"] = lambda m: rope(
                m, "full_attention", lambda _: inv_freq(base["sliding_attention"], s.head_dim) / factor)
        if factor != 1:
            a["RoPE scaling left out"] = lambda m: rope(m, "full_attention", lambda f: f * factor)
            a["RoPE scaling in sliding layers too"] = lambda m: rope(m, "sliding_attention", lambda f: f / factor)
    else:
        def no_softcap(m):
            for layer in layers(m):
                layer.self_attn.attn_logit_softcapping = None
        a |= {
            "no attention softcap": no_softcap,
            "no final softcap": lambda m: setattr(text_config(m), "final_logit_softcapping", None),
            "sliding and global layers swapped": lambda m: set_layer_types(m, other),
            "RoPE base 1e6": lambda m: rope(m, "", lambda _: inv_freq(1e6, s.head_dim)),
        }
    return a


@contextlib.contextmanager
def double_precision():
    """Make Transformers' casts to f32 keep f64. (RoPE's angles stay f32, as everywhere.)"""
    float_, softmax = torch.Tensor.float, nn.functional.softmax
    keep = lambda t: t if t.dtype == torch.float64 else float_(t)
    torch.Tensor.float = keep
    nn.functional.softmax = lambda x, dim=-1, dtype=None, **k: softmax(x, dim=dim, **k)
    try:
        yield
    finally:
        torch.Tensor.float, nn.functional.softmax = float_, softmax


@torch.no_grad()
def f64_logits(model, tokens):
    model = model.double()
    with double_precision():
        return model(input_ids=torch.tensor(tokens)[None], use_cache=False).logits[0]


def int8_activations(model):
    """Round every quantizable matrix's input to int8 blocks of 32 with an f32 scale, as integer kernels do."""
    def hook(_, args):
        x = args[0]
        if x.shape[-1] % 32:
            return None
        b = x.reshape(-1, 32)
        d = b.abs().amax(1, keepdim=True) / 127
        return ((b / d.clamp_min(1e-30)).round() * d).reshape(x.shape),
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "vision_tower" not in name:
            module.register_forward_pre_hook(hook)


def measure(s, folder, arch, tokens, out):
    """Print and return {name: figure}; fail where a feature does not show."""
    ref = out["logits"].double()
    std = ref.std().item()
    rel = lambda x: ((x.double() - ref).pow(2).mean().sqrt() / std).item()
    top = ref.topk(2, dim=1).values
    print(f"{s.name}: logits std {std:.2f}, top-1 lead median {(top[:, 0] - top[:, 1]).median() / std:.2f} std")
    for k in ("logits_q8_0", "logits_q4_0", "logits_q4_0_all"):
        if k in out:
            agree = (out[k].argmax(1) == ref.argmax(1)).float().mean().item()
            print(f"  {k:40} {rel(out[k]):.2e}  top-1 agrees {agree:.0%}")
    for k in ("logits_q8_0", "logits_q4_0"):  # what a test of an integer path has to allow
        if k in out:
            model = golden.load(folder, arch)
            golden.quantize(model, *golden.VARIANTS[k])
            int8_activations(model)
            figure = (golden.logits(model, tokens) - out[k]).pow(2).mean().sqrt() / out[k].std()
            print(f"  {k + ', int8 activations, against it':40} {figure:.2e}")
    noise = rel(f64_logits(golden.load(folder, arch), tokens))
    print(f"  {'f64 instead of f32':40} {noise:.2e}")
    report = {"f64": noise}
    for name, alter in alterations(s, golden.load(folder, arch).config.get_text_config()).items():
        model = golden.load(folder, arch)
        alter(model)
        report[name] = rel(golden.logits(model, tokens))
        print(f"  {name:40} {report[name]:.2e}")
    limit = lambda n: SMALL_LIMIT * noise if n in SMALL_BY_NATURE else LIMIT
    silent = [n for n, v in report.items() if n != "f64" and v < limit(n)]
    assert not silent, f"{s.name} does not notice: {', '.join(silent)}"
    return report
