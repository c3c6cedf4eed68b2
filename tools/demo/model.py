"""A compact Gemma 3 text model in PyTorch, tensor for tensor the one Transformers implements.

It exists because a model this small spends its time outside the matrix products: packed rows,
one fused query/key/value mask and `torch.compile` make it several times faster to train on a
CPU. `export.py` proves it equal to `Gemma3ForCausalLM`.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Config:
    vocab_size: int = 2048
    hidden_size: int = 160
    intermediate_size: int = 512
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 32
    query_pre_attn_scalar: int = 32
    sliding_window: int = 128
    sliding_window_pattern: int = 6
    max_position_embeddings: int = 1024
    rope_theta: float = 1_000_000.0
    rope_local_base_freq: float = 10_000.0
    rms_norm_eps: float = 1e-6

    def is_global(self, layer):
        return (layer + 1) % self.sliding_window_pattern == 0


class RMSNorm(nn.Module):
    """x / rms(x) * (1 + weight), as Gemma stores it."""

    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x):
        x = x.float()
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return x * (1.0 + self.weight)


def rope_tables(theta, head_dim, length):
    """cos and sin, each [length, head_dim], in the half-split layout."""
    inv = theta ** (-torch.arange(0, head_dim, 2).float() / head_dim)
    angle = torch.outer(torch.arange(length).float(), inv)
    angle = torch.cat((angle, angle), -1)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        h, kv, hd, d = c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.hidden_size
        self.q_proj = nn.Linear(d, h * hd, bias=False)
        self.k_proj = nn.Linear(d, kv * hd, bias=False)
        self.v_proj = nn.Linear(d, kv * hd, bias=False)
        self.o_proj = nn.Linear(h * hd, d, bias=False)
        self.q_norm = RMSNorm(hd, c.rms_norm_eps)
        self.k_norm = RMSNorm(hd, c.rms_norm_eps)

    def forward(self, x, rope, mask):
        c, (b, t, _) = self.c, x.shape
        split = lambda y: y.view(b, t, -1, c.head_dim).transpose(1, 2)  # [b, heads, t, head_dim]
        q = rotate(self.q_norm(split(self.q_proj(x))), *rope).to(x.dtype)
        k = rotate(self.k_norm(split(self.k_proj(x))), *rope).to(x.dtype)
        v = split(self.v_proj(x))
        group = c.num_attention_heads // c.num_key_value_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        # Written out: compiled, this beats the fused CPU kernel's backward pass by far.
        score = (q * c.query_pre_attn_scalar**-0.5) @ k.transpose(2, 3)
        y = (score.float() + mask).softmax(-1).to(v.dtype) @ v
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        norm = lambda: RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.input_layernorm, self.post_attention_layernorm = norm(), norm()
        self.pre_feedforward_layernorm, self.post_feedforward_layernorm = norm(), norm()
        self.self_attn = Attention(c)
        self.mlp = MLP(c)

    def forward(self, x, rope, mask, dtype):
        h = self.self_attn(self.input_layernorm(x).to(dtype), rope, mask)
        x = x + self.post_attention_layernorm(h)
        h = self.mlp(self.pre_feedforward_layernorm(x).to(dtype))
        return x + self.post_feedforward_layernorm(h)


class Gemma3(nn.Module):
    """Parameter names are those of the Hub's files, without the leading `model.`."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        # The factor is rounded to bf16 in the published models too.
        self.embed_scale = float(torch.tensor(math.sqrt(c.hidden_size)).bfloat16())
        for name, theta in (("local", c.rope_local_base_freq), ("global", c.rope_theta)):
            cos, sin = rope_tables(theta, c.head_dim, c.max_position_embeddings)
            self.register_buffer(f"cos_{name}", cos, persistent=False)
            self.register_buffer(f"sin_{name}", sin, persistent=False)
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.5 / math.sqrt(p.shape[1]))
        # These write into the residual stream: start small.
        for layer in self.layers:
            for norm in (layer.post_attention_layernorm, layer.post_feedforward_layernorm):
                nn.init.constant_(norm.weight, -0.6)

    def hidden(self, ids, position, document, dtype=torch.float32, soft=None, place=None):
        """ids, position, document: [batch, time]. A token sees earlier ones of its own document.

        soft: [images, tokens, hidden_size], what a tower makes of pictures; place: [batch, time], 0 for text and
        1 + the row of `soft`, all images in one list, for an image's token. Those of one image see each other.
        """
        distance = position[:, :, None] - position[:, None, :]
        same = (document[:, :, None] == document[:, None, :]) & (distance >= 0)
        if soft is not None:
            image = torch.where(place > 0, (place - 1) // soft.shape[1], -1)
            together = (image[:, :, None] == image[:, None, :]) & (image[:, :, None] >= 0)
            same, distance = same | together, torch.where(together, 0, distance)
        as_bias = lambda m: torch.where(m, 0.0, -1e9)[:, None]
        mask = {True: as_bias(same), False: as_bias(same & (distance < self.c.sliding_window))}
        rope = {
            True: (self.cos_global[position][:, None], self.sin_global[position][:, None]),
            False: (self.cos_local[position][:, None], self.sin_local[position][:, None]),
        }
        x = self.embed_tokens(ids).float() * self.embed_scale
        if soft is not None:
            rows = soft.flatten(0, 1)[(place - 1).clamp(min=0)]
            x = torch.where((place > 0)[:, :, None], rows, x)
        for i, layer in enumerate(self.layers):
            g = self.c.is_global(i)
            x = layer(x, rope[g], mask[g], dtype)
        return self.norm(x)

    def forward(self, ids, position, document, dtype=torch.float32, soft=None, place=None):
        x = self.hidden(ids, position, document, dtype, soft, place).to(dtype)
        return F.linear(x, self.embed_tokens.weight.to(dtype)).float()

    def loss(self, ids, position, document, target, weight, dtype=torch.float32, soft=None, place=None):
        """Weighted mean cross-entropy; target and weight: [batch, time]."""
        logits = self(ids, position, document, dtype, soft, place)
        each = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
        return (each * weight.flatten()).sum() / weight.sum()
