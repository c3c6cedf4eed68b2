"""Q4_0 and Q8_0 exactly as ggml's reference code writes them, in numpy.

A matrix goes to blocks and back: `roundtrip("q4_0", w)` is what a runtime that
dequantizes the file's blocks to f32 would see. `encode` gives the bytes themselves.

All arithmetic is f32 with one rounding per operation (no fused multiply-add):

Q4_0, 18 bytes for 32 weights: f16 d, then 16 bytes; byte j holds weight j in its low
nibble and weight j+16 in its high one. m is the signed value of the first largest |x|,
d = m / -8, id = 1 / d from the f32 d (0 when d is 0), q = min(15, trunc(x * id + 8.5)),
value (q - 8) * d with d read back from f16. An all-zero block stores d = -0.0 and
nibbles of 8.

Q8_0, 34 bytes for 32 weights: f16 d = max|x| / 127, then 32 int8 of x * (1 / d) with
the f32 d, rounded half away from zero.
"""
import numpy as np

BLOCK = 32
F32 = np.float32


def _blocks(w):
    w = np.ascontiguousarray(w, dtype=F32)
    assert w.shape[-1] % BLOCK == 0, f"row of {w.shape[-1]} is not a multiple of {BLOCK}"
    return w.reshape(-1, BLOCK)


def _inverse(d):
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(d == 0, F32(0), F32(1) / d).astype(F32)


def _q4_0(w):
    x = _blocks(w)
    at = np.abs(x).argmax(axis=1)[:, None]  # argmax gives the first of equals
    d = np.take_along_axis(x, at, axis=1) / F32(-8)
    q = np.minimum(15, np.trunc(x * _inverse(d) + F32(8.5))).astype(np.uint8)
    return d.astype(np.float16), q


def _q8_0(w):
    x = _blocks(w)
    d = np.abs(x).max(axis=1, keepdims=True) / F32(127)
    y = x * _inverse(d)
    whole = np.trunc(y)
    q = whole + np.sign(y) * (np.abs(y - whole) >= F32(0.5))
    return d.astype(np.float16), q.astype(np.int8)


def encode(kind, w):
    """The block bytes, uint8 [blocks, 18 or 34]."""
    d, q = {"q4_0": _q4_0, "q8_0": _q8_0}[kind](w)
    if kind == "q4_0":
        payload = q[:, :16] | (q[:, 16:] << np.uint8(4))
    else:
        payload = q.view(np.uint8)
    return np.concatenate([d.view(np.uint8), payload], axis=1)


def roundtrip(kind, w):
    """Quantize, then dequantize: f32, the shape of `w`."""
    if kind == "f16":
        return np.asarray(w, F32).astype(np.float16).astype(F32)
    d, q = {"q4_0": _q4_0, "q8_0": _q8_0}[kind](w)
    d = d.astype(F32)
    value = (q.astype(F32) - F32(8)) * d if kind == "q4_0" else q.astype(F32) * d
    return value.reshape(np.shape(w))


def cross_check():
    """Compare with the Python package `gguf`, bit for bit, on awkward input."""
    from gguf import quants, GGMLQuantizationType as T

    r = np.random.default_rng(7)
    cases = [
        r.standard_normal((64, 256)),
        r.standard_normal((8, 32)) * 1e-7,  # d underflows to an f16 subnormal or 0
        r.standard_normal((8, 32)) * 1e4,
        np.zeros((2, 64)),
        np.where(r.random((16, 64)) < 0.8, 0, r.standard_normal((16, 64))),
        r.integers(-8, 9, (64, 64)) / 8,  # many ties, of magnitude and of rounding
        r.integers(-127, 128, (64, 64)) / 2,
    ]
    for c in cases:
        c = c.astype(F32)
        for kind, t in (("q4_0", T.Q4_0), ("q8_0", T.Q8_0)):
            theirs = quants.quantize(c, t).reshape(encode(kind, c).shape)
            assert np.array_equal(encode(kind, c), theirs), kind
            back = quants.dequantize(quants.quantize(c, t), t)
            assert np.array_equal(roundtrip(kind, c).view(np.uint32), back.astype(F32).view(np.uint32)), kind
    zero = encode("q4_0", np.zeros((1, 32), F32))[0]
    assert bytes(zero) == b"\x00\x80" + b"\x88" * 16
    print("blocks: q4_0 and q8_0 agree with the package gguf, bit for bit")


if __name__ == "__main__":
    cross_check()
