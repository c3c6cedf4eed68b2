"""Images, pixels, features and logits for the multimodal fixture (`golden_vision.safetensors`).

Pixels come from Transformers' Pillow image processor, tokens from its Gemma3Processor,
features from tower and projector, logits from the whole model with image tokens that see
each other both ways, as `token_type_ids` makes Transformers do.
"""
import json

import numpy as np
import tokenizers
import torch
from PIL import Image
from torch import nn
from transformers import AutoTokenizer
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor

import ggml_blocks
import golden
import sensitivity

SOFT = 512  # id of <image_soft_token>
TAIL = 16  # rows of logits kept of the longer prompts
PAN_AND_SCAN = dict(do_pan_and_scan=True, pan_and_scan_min_crop_size=32, pan_and_scan_max_num_crops=4,
                    pan_and_scan_min_ratio_to_activate=1.2)
TURN = "<start_of_turn>user\n%s<end_of_turn>\n<start_of_turn>model\n"
PROMPTS = {  # name -> (text, images, options)
    "one": (TURN % "<start_of_image>What is it?", ["image_1"], {}),
    "two": (TURN % "The first <start_of_image> and<start_of_image>\nthe other", ["image_1", "image_2"], {}),
    "crops": (TURN % "<start_of_image>What is it?", ["image_3"], PAN_AND_SCAN),
}


def picture(width, height, seed):
    """A smooth background and a few hard-edged shapes: u8 [height, width, 3]."""
    r = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[0:height, 0:width]
    corners = r.integers(0, 256, (4, 3))
    u, v = (x * 256 // width)[..., None], (y * 256 // height)[..., None]  # integers: the same on every machine
    rgb = ((256 - u) * (256 - v) * corners[0] + u * (256 - v) * corners[1] + (256 - u) * v * corners[2] + u * v * corners[3]) >> 16
    for _ in range(5):
        cx, cy, size = r.integers(0, width), r.integers(0, height), r.integers(4, max(width, height) // 3)
        round_ = (x - cx) ** 2 + (y - cy) ** 2 < size ** 2 // 4
        square = (abs(x - cx) < size // 2) & (abs(y - cy) < size // 3)
        rgb[round_ if r.random() < 0.5 else square] = r.integers(0, 256, 3)
    return rgb.astype(np.uint8)


def draw(folder):
    Image.fromarray(picture(75, 53, 1)).save(folder / "image_1.png")
    Image.fromarray(picture(37, 91, 2)).save(folder / "image_2.png")
    Image.fromarray(picture(149, 47, 3)).save(folder / "image_3.png")
    grey = picture(41, 33, 4)
    Image.fromarray(grey[..., 0]).save(folder / "image_grey.png")
    alpha = np.linspace(0, 255, grey.shape[1]).astype(np.uint8)[None, :, None].repeat(grey.shape[0], 0)
    Image.fromarray(np.concatenate([grey, alpha], 2)).save(folder / "image_alpha.png")


def processor(s, folder):
    """Writes the processor's files as the Hub has them, and loads it from them."""
    size = s.vision["image_size"]
    pre = dict(do_convert_rgb=None, do_normalize=True, do_pan_and_scan=None, do_rescale=True, do_resize=True,
               image_mean=[0.5] * 3, image_processor_type="Gemma3ImageProcessor", image_seq_length=16, image_std=[0.5] * 3,
               pan_and_scan_max_num_crops=None, pan_and_scan_min_crop_size=None, pan_and_scan_min_ratio_to_activate=None,
               processor_class="Gemma3Processor", resample=2, rescale_factor=0.00392156862745098, size=dict(height=size, width=size))
    (folder / "preprocessor_config.json").write_text(json.dumps(pre, indent=2) + "\n")
    (folder / "processor_config.json").write_text(
        json.dumps(dict(image_seq_length=16, processor_class="Gemma3Processor"), indent=2) + "\n")
    return Gemma3Processor(Gemma3ImageProcessorPil.from_pretrained(folder, do_convert_rgb=True),
                           AutoTokenizer.from_pretrained(folder), image_seq_length=16)


def run(model, inputs, bidirectional=True):
    types = inputs["token_type_ids"] if bidirectional else None
    return golden.logits(model, inputs["input_ids"][0], pixel_values=inputs["pixel_values"], token_type_ids=types)


@torch.no_grad()
def features(model, pixels):
    return model.model.get_image_features(pixels).pooler_output


def make(s, folder):
    draw(folder)
    pro = processor(s, folder)
    tok = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    images = {p.stem: Image.open(p) for p in sorted(folder.glob("image_*.png"))}
    model = golden.load(folder, "mm")
    out, inputs = {}, {}
    pixels = {n: pro.image_processor(i, return_tensors="pt")["pixel_values"] for n, i in images.items()}
    for n in ("1", "2", "grey", "alpha"):
        if n in "12":
            out[f"features_{n}"] = features(model, pixels[f"image_{n}"])[0]
            out[f"pixels_{n}"] = pixels[f"image_{n}"][0]
        else:  # every one of these is a whole number of 255ths: bytes will do
            out[f"pixels_{n}_u8"] = ((pixels[f"image_{n}"][0] + 1) * 127.5).round().to(torch.uint8)
    for name, (text, names, options) in PROMPTS.items():
        i = inputs[name] = pro(text=text, images=[[images[n] for n in names]], return_tensors="pt", **options)
        ids = i["input_ids"][0]
        assert ids[0] == 2 and (ids == SOFT).sum() == 16 * len(i["pixel_values"])
        assert torch.equal((ids == SOFT).long(), i["token_type_ids"][0].long())
        assert tok.encode(pro.tokenizer.decode(ids[1:])).ids == ids.tolist(), "the expanded prompt must tokenize back"
        out[f"tokens_{name}"] = ids.to(torch.int32)
        full = run(model, i)
        out[f"logits_{name}"] = full if name == "one" else full[-TAIL:]
    out["features_crops"] = features(model, inputs["crops"]["pixel_values"])
    assert len(out["features_crops"]) == 4, "the image and three crops"
    about = {n: {"text": text, "images": [f"{i}.png" for i in names], **options} for n, (text, names, options) in PROMPTS.items()}
    golden.save(out, folder / "golden_vision.safetensors", prompts=json.dumps(about))
    measure(s, folder, out, inputs, pixels)


@torch.no_grad()
def make_quantized(s, folder):
    """Features and logits of one image, with the tower as stored and with its matrices in Q8_0 (`_q8_0`)."""
    Image.fromarray(picture(75, 53, 1)).save(folder / "image_1.png")
    pro = processor(s, folder)
    text, _, _ = PROMPTS["one"]
    inputs = pro(text=text, images=[[Image.open(folder / "image_1.png")]], return_tensors="pt")
    out = {"tokens_one": inputs["input_ids"][0].to(torch.int32), "pixels_1": inputs["pixel_values"][0]}
    for suffix in ("", "_q8_0"):
        model = golden.load(folder, "mm")
        if suffix:
            for name, p in model.model.vision_tower.named_parameters():
                if p.ndim == 2 and "position" not in name:
                    kind = "f16" if p.shape[1] % ggml_blocks.BLOCK else "q8_0"
                    p.copy_(torch.from_numpy(ggml_blocks.roundtrip(kind, p.numpy())))
        out["features_1" + suffix] = features(model, inputs["pixel_values"])[0]
        out["logits_one" + suffix] = run(model, inputs)
    golden.save(out, folder / "golden_vision.safetensors", prompts=json.dumps({"one": {"text": text, "images": ["image_1.png"]}}))
    rms = lambda n: ((out[n + "_q8_0"] - out[n]).double().pow(2).mean().sqrt() / out[n].double().std()).item()
    print(f"{s.name}: features std {out['features_1'].std():.2f}, logits std {out['logits_one'].std():.2f}; "
          f"of it change with Q8_0: features {rms('features_1'):.1e}, logits {rms('logits_one'):.1e}")


def measure(s, folder, out, inputs, pixels):
    """As sensitivity.py, for what only images touch."""
    tower = lambda m: m.model.vision_tower
    projector = lambda m: m.model.multi_modal_projector

    def heads(m):
        for layer in tower(m).encoder.layers:
            layer.self_attn.scale *= 1.2

    def relu(m):
        for layer in tower(m).encoder.layers:
            layer.mlp.activation_fn = nn.SiLU()

    def exact(m):
        for layer in tower(m).encoder.layers:
            layer.mlp.activation_fn = nn.GELU()

    def unpooled(m):
        projector(m).avg_pool = nn.AvgPool2d(1, 2)

    def eps(m):
        for module in tower(m).modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-5

    towers = {
        "attention scale": heads,
        "SiLU for GELU": relu,
        "exact GELU for tanh GELU": exact,
        "no pooling": unpooled,
        "no position embedding": lambda m: tower(m).embeddings.position_embedding.weight.data.zero_(),
        "no patch bias": lambda m: tower(m).embeddings.patch_embedding.bias.data.zero_(),
        "patch rows and columns swapped": lambda m: setattr(
            tower(m).embeddings.patch_embedding, "weight",
            nn.Parameter(tower(m).embeddings.patch_embedding.weight.data.transpose(2, 3).contiguous())),
        "no last layer norm": lambda m: setattr(tower(m), "post_layernorm", nn.Identity()),
        "projector norm weight 1": lambda m: projector(m).mm_soft_emb_norm.weight.data.zero_(),
    }
    changed = lambda x, ref: ((x.double() - ref.double()).pow(2).mean().sqrt() / ref.double().std()).item()
    report = {}
    px, ref = inputs["one"]["pixel_values"], out["features_1"]
    model = golden.load(folder, "mm").double()
    with sensitivity.double_precision():
        report["features: f64 instead of f32"] = noise = changed(features(model, px.double())[0], ref)
    for name, alter in towers.items():
        model = golden.load(folder, "mm")
        alter(model)
        report["features: " + name] = changed(features(model, px)[0], ref)
    model = golden.load(folder, "mm")
    report["features: channels reversed"] = changed(features(model, px.flip(1))[0], ref)
    image = np.asarray(Image.open(folder / "image_1.png"))
    size = s.vision["image_size"]
    for name, how in (("bicubic for bilinear", Image.BICUBIC), ("nearest for bilinear", Image.NEAREST)):
        p = np.asarray(Image.fromarray(image).resize((size, size), how), np.float32) / 127.5 - 1
        report[f"features: {name}"] = changed(features(model, torch.from_numpy(p).permute(2, 0, 1)[None])[0], ref)
    plain = nn.functional.interpolate(torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float(), (size, size), mode="bilinear")
    report["features: bilinear without antialias"] = changed(features(model, plain.round() / 127.5 - 1)[0], ref)
    for n in PROMPTS:
        rows = slice(None) if n == "one" else slice(-TAIL, None)
        report[f"logits_{n}: images seen causally"] = changed(run(model, inputs[n], False)[rows], out[f"logits_{n}"])
        order = inputs[n]["pixel_values"].flip(0)
        if len(order) > 1:
            report[f"logits_{n}: images in reverse order"] = changed(run(model, inputs[n] | {"pixel_values": order})[rows], out[f"logits_{n}"])
    projector(model).mm_input_projection_weight.data.mul_(s.hidden ** 0.5)
    report["logits_one: features scaled as embeddings"] = changed(run(model, inputs["one"]), out["logits_one"])
    print(f"{s.name} with images: features std {out['features_1'].std():.2f}, logits std {out['logits_one'].std():.2f}, "
          f"tokens {', '.join(str(len(out['tokens_' + n])) for n in PROMPTS)}")
    for name, figure in report.items():
        print(f"  {name:48} {figure:.2e}")
    limit = lambda n: sensitivity.SMALL_LIMIT * noise if "exact GELU" in n else sensitivity.LIMIT
    silent = [n for n, v in report.items() if "f64" not in n and v < limit(n)]
    assert not silent, f"not noticed: {', '.join(silent)}"
