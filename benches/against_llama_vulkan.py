#!/usr/bin/env python3
"""llama.cpp's Vulkan backend beside `lapidary bench --device gpu`, on the same file, in turns.

The prebuilt backend comes in an npm package, which nothing but its libraries is used of:

    npm pack @node-llama-cpp/linux-x64-vulkan && tar xzf node-llama-cpp-*.tgz
    python3 benches/against_llama_vulkan.py MODEL.gguf package/bins/linux-x64-vulkan

Of the parameter structs only the first fields are touched, which have lain in the same place for
years: n_gpu_layers, n_ctx, n_batch, n_ubatch.
"""

import argparse
import ctypes
import json
import pathlib
import statistics
import subprocess
import sys
import time


class Params(ctypes.Structure):
    """Any of llama.cpp's parameter structs: passed by value, in memory, and no larger than this."""

    _fields_ = [("bytes", ctypes.c_uint8 * 512)]

    def set(self, offset, value):
        ctypes.c_int32.from_buffer(self, offset).value = value


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32)] + [
        (name, ctypes.c_void_p) for name in ("token", "embd", "pos", "n_seq_id", "seq_id", "logits")
    ]


class Llama:
    def __init__(self, folder, model, context):
        folder = pathlib.Path(folder)
        load = lambda pattern: ctypes.CDLL(str(next(folder.glob(pattern))), mode=ctypes.RTLD_GLOBAL)
        load("libggml-base.so")
        ggml, self.lib = load("libggml.*so"), load("libllama.*so")
        lib = self.lib
        lib.llama_model_default_params.restype = Params
        lib.llama_context_default_params.restype = Params
        for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_get_memory"):
            getattr(lib, name).restype = ctypes.c_void_p
        lib.llama_batch_get_one.restype = Batch
        ggml.ggml_backend_load_all_from_path(str(folder).encode())
        lib.llama_backend_init()
        params = lib.llama_model_default_params()
        params.set(16, 999)  # n_gpu_layers, after two pointers
        model = lib.llama_model_load_from_file(str(model).encode(), params)
        if not model:
            sys.exit("llama.cpp can't load the model")
        params = lib.llama_context_default_params()
        for i, value in enumerate((context, 2048, 512)):  # n_ctx, n_batch, n_ubatch
            params.set(4 * i, value)
        self.context = lib.llama_init_from_model(ctypes.c_void_p(model), params)
        if not self.context:
            sys.exit("llama.cpp can't make a context")
        self.context = ctypes.c_void_p(self.context)

    def clear(self):
        memory = ctypes.c_void_p(self.lib.llama_get_memory(self.context))
        self.lib.llama_memory_clear(memory, ctypes.c_bool(True))

    def decode(self, tokens):
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        batch = self.lib.llama_batch_get_one(array, ctypes.c_int32(len(tokens)))
        if self.lib.llama_decode(self.context, batch) != 0:
            sys.exit("llama.cpp can't decode")
        self.lib.llama_synchronize(self.context)

    def run(self, prompt, generate):
        """Tokens a second of a prompt and of an answer."""
        tokens = [10 + i * 7919 % 1000 for i in range(prompt + generate)]
        self.clear()
        start = time.perf_counter()
        for first in range(0, prompt, 2048):
            self.decode(tokens[first : min(first + 2048, prompt)])
        middle = time.perf_counter()
        for token in tokens[prompt:]:
            self.decode([token])
        return prompt / (middle - start), generate / (time.perf_counter() - middle)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("libraries", type=pathlib.Path, help="where libllama and its backends lie")
    parser.add_argument("--lapidary", default="target/release/lapidary")
    parser.add_argument("-p", type=int, default=512)
    parser.add_argument("-n", type=int, default=128)
    parser.add_argument("-r", type=int, default=5)
    args = parser.parse_args()

    command = [args.lapidary, "bench", args.model, "--device", "gpu", "-o", "json"]
    command += ["-p", str(args.p), "-n", str(args.n), "-r", str(args.r)]
    ours = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    ours = [test["tokens_per_second"]["median"] for test in ours["tests"]]

    llama = Llama(args.libraries, args.model, args.p + args.n + 64)
    start = time.perf_counter()
    while time.perf_counter() - start < 1.5:  # a GPU without work sleeps
        llama.run(args.p, args.n)
    theirs = zip(*(llama.run(args.p, args.n) for _ in range(args.r)))
    for name, our, their in zip((f"pp{args.p}", f"tg{args.n}"), ours, map(statistics.median, theirs)):
        print(f"{name}: lapidary {our:.1f}, llama.cpp {their:.1f} tokens/s, {our / their:.2f} ×")


if __name__ == "__main__":
    main()
