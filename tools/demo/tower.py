"""A compact SigLIP tower and Gemma 3's projector in PyTorch, tensor for tensor those of Transformers.

`export.py` proves it equal to `Gemma3ForConditionalGeneration`.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from model import RMSNorm


@dataclass(frozen=True)
class VisionConfig:
    image_size: int = 64
    patch_size: int = 8
    hidden_size: int = 96
    intermediate_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    layer_norm_eps: float = 1e-6
    tokens: int = 16  # of one picture, in the text
    text_hidden: int = 160

    @property
    def grid(self):
        return self.image_size // self.patch_size


def waves(grid, size):
    """Sines and cosines of the row and of the column, [grid * grid, size]: towers that start from noise stay blind for long."""
    quarter = size // 4
    angle = torch.arange(grid)[:, None] / grid * math.pi * torch.exp(torch.linspace(0, math.log(grid), quarter))
    one = torch.cat((angle.sin(), angle.cos()), 1)  # [grid, size / 2]
    row, column = one[:, None].expand(grid, grid, -1), one[None].expand(grid, grid, -1)
    return torch.cat((row, column), -1).reshape(grid * grid, size)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = c.num_attention_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(c.hidden_size, c.hidden_size) for _ in range(4))

    def forward(self, x):
        b, t, d = x.shape
        split = lambda y: y.view(b, t, self.heads, -1).transpose(1, 2)
        q, k, v = (split(p(x)) for p in (self.q_proj, self.k_proj, self.v_proj))
        score = q @ k.transpose(2, 3) * (d // self.heads) ** -0.5
        return self.out_proj((score.softmax(-1) @ v).transpose(1, 2).reshape(b, t, d))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc1 = nn.Linear(c.hidden_size, c.intermediate_size)
        self.fc2 = nn.Linear(c.intermediate_size, c.hidden_size)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        norm = lambda: nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
        self.layer_norm1, self.layer_norm2 = norm(), norm()
        self.self_attn, self.mlp = Attention(c), MLP(c)

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Tower(nn.Module):
    """Pixels of -1..=1, cut into patches, to one row of the text model's width for each image token."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        self.patch = nn.Linear(3 * c.patch_size**2, c.hidden_size)  # a convolution, written as a product
        self.position = nn.Parameter(0.5 * waves(c.grid, c.hidden_size))
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.post_layernorm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
        self.soft_norm = RMSNorm(c.hidden_size, c.layer_norm_eps)
        self.projection = nn.Parameter(torch.randn(c.hidden_size, c.text_hidden) / c.hidden_size**0.5)
        for name, p in self.named_parameters():
            if p.dim() == 2 and name != "position" and name != "projection":
                nn.init.normal_(p, std=0.6 / math.sqrt(p.shape[1]))
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        for layer in self.layers:  # these write into the residual stream: start small
            for p in (layer.self_attn.out_proj.weight, layer.mlp.fc2.weight):
                nn.init.normal_(p, std=0.2 / math.sqrt(p.shape[1]))

    def patches(self, patches):
        """[images, patches, 3 * side * side] to [images, patches, hidden]."""
        x = self.patch(patches) + self.position
        for layer in self.layers:
            x = layer(x)
        return self.post_layernorm(x)

    def pooled(self, x):
        c, (n, _, d) = self.c, x.shape
        side = math.isqrt(c.tokens)
        k = c.grid // side
        x = x.view(n, side, k, side, k, d).mean((2, 4)).view(n, c.tokens, d)
        return self.soft_norm(x) @ self.projection

    def forward(self, patches):
        return self.pooled(self.patches(patches))

    def hub(self):
        """(name in the Hub's files, tensor)"""
        c = self.c
        root, mm = "vision_tower.vision_model.", "multi_modal_projector."
        for name, p in self.state_dict().items():
            if name == "patch.weight":
                yield root + "embeddings.patch_embedding.weight", p.view(c.hidden_size, 3, c.patch_size, c.patch_size)
            elif name == "patch.bias":
                yield root + "embeddings.patch_embedding.bias", p
            elif name == "position":
                yield root + "embeddings.position_embedding.weight", p
            elif name.startswith("layers."):
                yield root + "encoder." + name, p
            elif name.startswith("post_layernorm."):
                yield root + name, p
            elif name == "soft_norm.weight":
                yield mm + "mm_soft_emb_norm.weight", p
            else:
                yield mm + "mm_input_projection_weight", p


def cut(pixels, c=VisionConfig()):
    """u8 [images, side, side, 3] to f32 patches of -1..=1, in the order of a convolution's weights."""
    n, g, s = len(pixels), c.grid, c.patch_size
    x = torch.as_tensor(pixels).float() / 127.5 - 1
    return x.view(n, g, s, g, s, 3).permute(0, 1, 3, 5, 2, 4).reshape(n, g * g, 3 * s * s)
