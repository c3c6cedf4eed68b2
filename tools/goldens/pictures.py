"""Picture files of every kind, and what Pillow and Transformers read in them (`tests/fixtures/pictures`).

`golden.safetensors`: `decoded_FILE` u8 [h, w, 3], upright and without transparency; `resized_W_H_SIZE` u8 of a
picture that `pattern` computes, every STEP-th row and column; `crops` i32 [cases, 10] of pan and scan.
"""
import itertools
import struct
import zlib

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers.image_transforms import convert_to_rgb
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

import golden
import vision

# Width, height, size. Odd, one pixel wide, one pixel in all, reduced 100 times, enlarged 100 times.
RESIZES = [(75, 53, 56), (1, 1, 7), (1, 200, 28), (300, 1, 28), (3, 2, 63), (56, 56, 56), (57, 55, 56), (997, 331, 28),
           (4001, 3, 28), (2, 2999, 28), (1543, 1021, 14), (2000, 1500, 896), (9, 11, 896), (640, 480, 896), (1, 10000, 896)]
STEP = 45  # rows and columns skipped of what is larger than 64


def pattern(width, height):
    """Not smooth, and the same in every language: u8 [height, width, 3]."""
    x, y, c = np.meshgrid(np.arange(width), np.arange(height), np.arange(3))
    return ((x * 31 + y * 17 + c * 101) ^ (x * y)).astype(np.uint8)


def png(path, values):
    """16 bits a channel, which Pillow does not write: u16 [height, width, channels]."""
    h, w, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    header = struct.pack(">IIBBBBB", w, h, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def draw(folder):
    rgb = Image.fromarray(vision.picture(31, 23, 5))
    alpha = Image.fromarray(np.linspace(0, 255, 31).astype(np.uint8)[None, :].repeat(23, 0))
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    wide = np.asarray(rgba).astype(np.uint16) * 251 + np.arange(31, dtype=np.uint16)[None, :, None]
    save = lambda name, image, **options: image.save(folder / name, **options)
    png(folder / "rgb16.png", wide[..., :3])
    png(folder / "rgba16.png", wide)
    png(folder / "grey_alpha16.png", wide[..., [0, 3]])
    png(folder / "grey16.png", wide[..., :1] >> 6)
    save("grey_alpha.png", rgba.convert("LA"))
    save("one_bit.png", rgb.convert("1"))
    save("palette.png", rgb.quantize(13))
    save("palette_alpha.png", rgb.quantize(5), transparency=bytes([0, 60, 120, 180, 255]))
    save("grey_key.png", rgb.convert("L").quantize(7).convert("L"), transparency=rgb.convert("L").quantize(7).convert("L").getpixel((3, 3)))
    save("rgb_key.png", rgb, transparency=rgb.getpixel((3, 3)))
    save("turned_3.png", rgb, exif=turned(3))
    save("full.jpg", rgb, quality=95, subsampling=0)
    save("half.jpg", Image.fromarray(vision.picture(45, 37, 6)), quality=80, subsampling=2)
    save("across.jpg", Image.fromarray(vision.picture(45, 37, 7)), quality=80, subsampling=1)
    save("progressive.jpg", Image.fromarray(vision.picture(45, 37, 8)), quality=80, progressive=True)
    save("grey.jpg", rgb.convert("L"), quality=90)
    save("cmyk.jpg", rgb.convert("CMYK"), quality=95)
    for n in (2, 5, 6, 7, 8):
        save(f"turned_{n}.jpg", rgb, quality=90, subsampling=0, exif=turned(n))
    frames = [Image.fromarray(vision.picture(31, 23, s)).quantize(9) for s in (9, 10, 11)]
    save("frames.gif", frames[0], save_all=True, append_images=frames[1:], duration=50)
    save("key.gif", rgb.quantize(6), transparency=2)
    small = bytearray((folder / "key.gif").read_bytes())
    small[6:10] = struct.pack("<HH", 37, 29)  # a screen larger than the frame
    (folder / "small_frame.gif").write_bytes(small)
    save("lossless.webp", rgba, lossless=True, exact=True)
    save("lossy.webp", Image.fromarray(vision.picture(45, 37, 12)), quality=80)
    save("lossy_alpha.webp", rgba, quality=80)
    save("frames.webp", rgb, save_all=True, append_images=[f.convert("RGB") for f in frames], lossless=True)
    save("turned_8.webp", rgb, lossless=True, exif=turned(8))
    save("rgb.bmp", rgb)
    save("palette.bmp", rgb.quantize(17))
    save("one_bit.bmp", rgb.convert("1"))
    save("rgba.bmp", rgba)


def decoded(path):
    """As Transformers does with a picture it is given: upright, over white."""
    return convert_to_rgb(ImageOps.exif_transpose(Image.open(path)), return_numpy=True)


def crops():
    """What Transformers' pan and scan cuts: width, height, the options, then how many and the first's and last's size."""
    rows = []
    sizes = [1, 2, 7, 31, 32, 97, 149, 256, 300, 511, 512, 1201]
    for width, height in itertools.product(sizes, sizes):
        for max_crops, min_size, ratio in [(4, 256, 1.2), (4, 32, 1.2), (9, 1, 1.0), (1, 16, 1.5), (2, 100, 3.0)]:
            zero = np.broadcast_to(np.uint8(0), (3, height, width))
            parts = Gemma3ImageProcessorPil.pan_and_scan(None, zero, min_size, max_crops, ratio)
            parts = [p for p in parts if p.size]  # Transformers fails when one is empty
            ends = [*parts[0].shape[:0:-1], *parts[-1].shape[:0:-1]] if parts else [0] * 4
            rows.append([width, height, max_crops, min_size, round(ratio * 10), len(parts), *ends])
    return torch.tensor(rows, dtype=torch.int16)


def make(folder):
    draw(folder)
    out = {f"decoded_{p.name}": torch.from_numpy(decoded(p).copy()) for p in sorted(folder.iterdir())}
    for width, height, size in RESIZES:
        small = np.asarray(Image.fromarray(pattern(width, height)).resize((size, size), Image.BILINEAR))
        step = STEP if size > 64 else 1
        out[f"resized_{width}_{height}_{size}"] = torch.from_numpy(small[::step, ::step].copy())
    out["crops"] = crops()
    golden.save(out, folder / "golden.safetensors", step=str(STEP))
