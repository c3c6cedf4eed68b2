"""What a matrix looks like after a trip through a GGUF block format, to the last bit."""

import torch

BLOCK = 32


def q4_0(w):
    """f16 scale d = m / -8, m the signed value of the first largest |x|; 4-bit values around 8."""
    x = w.bfloat16().float().view(-1, BLOCK)
    m = x.gather(1, x.abs().argmax(1, keepdim=True))
    d = m / -8
    # The quotient uses the scale before it is rounded to f16.
    inverse = torch.where(d == 0, torch.zeros_like(d), 1 / d)
    q = (x * inverse + 8.5).trunc().clamp(max=15)
    return ((q - 8) * d.half().float()).view_as(w)


def q8_0(w):
    """f16 scale d = max|x| / 127; 8-bit values rounded half away from zero."""
    x = w.bfloat16().float().view(-1, BLOCK)
    d = x.abs().amax(1, keepdim=True) / 127
    y = x * torch.where(d == 0, torch.zeros_like(d), 1 / d)
    q = y.sign() * (y.abs() + 0.5).floor()
    return (q * d.half().float()).view_as(w)


def bf16(w):
    return w.bfloat16().float()


# The same for every file type that is measured: (matrices, embedding). Norms stay as they are.
FORMATS = {"bf16": (bf16, bf16), "q8_0": (q8_0, q8_0), "q4_0": (q4_0, q8_0)}


def quantized(model, name):
    """The state of the model as a file of that type holds it."""
    matrix, embedding = FORMATS[name]
    with torch.no_grad():
        return {
            key: bf16(p) if p.dim() < 2 else embedding(p) if key.startswith("embed") else matrix(p)
            for key, p in model.named_parameters()
        }
