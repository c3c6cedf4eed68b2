#!/usr/bin/env python3
"""Makes quant/tests/goldens/blocks.txt: blocks of every format and what they decode to, and rows of
floats and what they encode to, according to the `gguf` Python package (pip install gguf numpy).

    python3 tools/goldens/blocks.py [blocks a format] > quant/tests/goldens/blocks.txt

Each line: `decode` or `encode`, the type, the input's bytes and the output's bytes in hex; floats
are f32, little-endian.
"""
import sys

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize, quantize

READ = {  # type: (weights, bytes, offsets of the f16 scales)
    T.Q4_0: (32, 18, [0]),
    T.Q4_1: (32, 20, [0, 2]),
    T.Q5_0: (32, 22, [0]),
    T.Q5_1: (32, 24, [0, 2]),
    T.Q8_0: (32, 34, [0]),
    T.Q4_K: (256, 144, [0, 2]),
    T.Q5_K: (256, 176, [0, 2]),
    T.Q6_K: (256, 210, [208]),
}
READ_TOO = {  # after all others, whose numbers stay what they were
    T.Q2_K: (256, 84, [80, 82]),
    T.Q3_K: (256, 110, [108]),
    T.IQ4_NL: (32, 18, [0]),
    T.IQ4_XS: (256, 136, [0]),
}


def hexed(a):
    return np.ascontiguousarray(a).tobytes().hex()


def decode_lines(rng, n, types):
    for qtype, (_, size, scales) in types.items():
        for _ in range(n):
            block = rng.integers(0, 256, size, dtype=np.uint8)
            for at in scales:  # any finite f16, subnormal ones and zeros included
                bits = rng.integers(0, 1 << 16, dtype=np.uint16)
                while bits & 0x7C00 == 0x7C00:
                    bits = rng.integers(0, 1 << 16, dtype=np.uint16)
                block[at : at + 2] = np.array([bits]).view(np.uint8)
            yield "decode", qtype, block, dequantize(block.reshape(1, size), qtype)


def adversarial(rng):
    """Rows of 32 that rounding, ties and extreme scales could get wrong."""
    x = rng.standard_normal(32).astype(np.float32)
    yield np.zeros(32)
    yield np.full(32, 1.0)
    yield np.full(32, -1.0)
    for first in (1, -1):  # the first of two largest magnitudes gives Q4_0 its sign
        tied = np.clip(x, -0.9, 0.9)
        tied[[7, 20]] = np.array([1.0, -1.0]) * first
        yield tied
    for largest in (127.0, -127.0, 8.0, -8.0):  # exact halves with an exact scale
        yield np.concatenate([[largest], np.linspace(-7.5, 7.5, 31)])
    yield np.nextafter(np.linspace(-7.5, 7.5, 32).astype(np.float32), np.float32(np.inf))
    yield np.nextafter(np.linspace(-7.5, 7.5, 32).astype(np.float32), np.float32(-np.inf))
    yield x * np.float32(1e-7)  # f16 scale subnormal
    yield x * np.float32(1e-12)  # f16 scale zero
    yield x * np.float32(1e-35)  # products subnormal
    yield x * np.float32(2e5)  # f16 scale near its largest
    yield np.where(np.arange(32) == 31, np.float32(3e4), x * np.float32(1e-6))  # one outlier
    yield 2.0 ** -rng.integers(0, 24, 32)  # powers of two
    yield rng.integers(-4096, 4096, 32) / 256.0  # bf16-like grid
    yield (rng.standard_normal(32).astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


def encode_lines(rng, n):
    rows = list(adversarial(rng)) + [
        rng.standard_normal(32) * 10.0 ** rng.uniform(-4, 2) for _ in range(n)
    ]
    for qtype in (T.Q4_0, T.Q8_0):
        for row in rows:
            row = np.asarray(row, dtype=np.float32)
            yield "encode", qtype, row, quantize(row.reshape(1, 32), qtype)


def main():
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    rng = np.random.default_rng(20240229)
    for lines in (decode_lines(rng, n, READ), encode_lines(rng, n), decode_lines(rng, n, READ_TOO)):
        for kind, qtype, given, expected in lines:
            print(kind, qtype.name.lower(), hexed(given), hexed(expected))


if __name__ == "__main__":
    main()
