#!/usr/bin/env python3
"""One picture through the vision tower of lapidary and of llama.cpp, the same files, alternating.

    pip install llama-cpp-python numpy
    python3 benches/against_llama_cpp_image.py MODEL.gguf MMPROJ.gguf [MMPROJ.gguf ...] [--threads 2] [-r 3]

MODEL is the text model, which llama.cpp's library wants to see before it opens a tower. Each
repetition runs one program, then the other, so that a noisy machine is noisy for both. With
`--features FILE.png OUT.npy` llama.cpp's features of a picture are saved instead; take one of the
tower's own size, so that nobody resizes it, and compare with `cargo run --example features`.
"""
import argparse
import ctypes
import json
import multiprocessing
import os
import statistics
import subprocess
import time


def encode(model, mmproj, threads, rgb, size, out):
    """(seconds, features) of llama.cpp for an image of `size` × `size` bytes, in a process of its own."""
    import llama_cpp
    import numpy as np
    from llama_cpp import mtmd_cpp as mtmd

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # it says much
    llama_cpp.llama_backend_init()
    text = llama_cpp.llama_model_load_from_file(model.encode(), llama_cpp.llama_model_default_params())
    assert text, f"llama.cpp does not open {model}"
    params = mtmd.mtmd_context_params_default()
    params.use_gpu, params.n_threads, params.warmup, params.print_timings = False, threads, False, False
    ctx = mtmd.mtmd_init_from_file(mmproj.encode(), text, params)
    assert ctx, f"llama.cpp does not open {mmproj}"
    data = (ctypes.c_uint8 * len(rgb)).from_buffer_copy(rgb)
    bitmap = mtmd.mtmd_bitmap_init(size, size, data)
    chunks = mtmd.mtmd_input_chunks_init()
    prompt = mtmd.mtmd_default_marker()
    said = mtmd.mtmd_input_text(text=prompt, text_len=len(prompt), add_special=True, parse_special=True)
    bitmaps = (ctypes.c_void_p * 1)(bitmap)
    assert mtmd.mtmd_tokenize(ctx, chunks, ctypes.byref(said), bitmaps, 1) == 0
    for i in range(mtmd.mtmd_input_chunks_size(chunks)):
        chunk = mtmd.mtmd_input_chunks_get(chunks, i)
        if mtmd.mtmd_input_chunk_get_type(chunk) != mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE:
            continue
        start = time.perf_counter()
        assert mtmd.mtmd_encode_chunk(ctx, chunk) == 0
        seconds = time.perf_counter() - start
        n, width = mtmd.mtmd_input_chunk_get_n_tokens(chunk), llama_cpp.llama_model_n_embd(text)
        rows = np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(ctx), shape=(n, width)).copy()
        out.put((seconds, rows))
        return
    raise AssertionError("no image among the chunks")


def llama(*args):
    q = multiprocessing.Queue()
    p = multiprocessing.Process(target=encode, args=(*args, q))
    p.start()
    while p.is_alive() and q.empty():
        time.sleep(0.05)
    result = q.get(timeout=5)
    p.join()
    return result


def lapidary(binary, mmproj, threads):
    args = [binary, "bench", "--image", mmproj, "--threads", str(threads), "-r", "1", "-o", "json"]
    found = json.loads(subprocess.run(args, check=True, capture_output=True, text=True).stdout)
    return found["tests"][0]["seconds"]["median"]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("mmproj", nargs="+")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("-r", type=int, default=3)
    ap.add_argument("--size", type=int, default=896, help="side of the tower's images")
    ap.add_argument("--binary", default="target/release/lapidary")
    ap.add_argument("--features", nargs=2, metavar=("PICTURE", "OUT.npy"))
    a = ap.parse_args()
    if a.features:
        import numpy as np
        from PIL import Image

        picture = Image.open(a.features[0]).convert("RGB")
        assert picture.size == (a.size, a.size), f"{picture.size}: --size says {a.size}"
        seconds, rows = llama(a.model, a.mmproj[0], a.threads, picture.tobytes(), a.size)
        np.save(a.features[1], rows)
        print(f"{rows.shape[0]} rows of {rows.shape[1]}, {seconds:.2f} s")
        return
    grey = bytes(range(256)) * (a.size * a.size * 3 // 256 + 1)
    for mmproj in a.mmproj:
        ours, theirs = [], []
        for i in range(a.r):
            ours.append(lapidary(a.binary, mmproj, a.threads))
            theirs.append(llama(a.model, mmproj, a.threads, grey[:a.size * a.size * 3], a.size)[0])
            print(f"{mmproj} {i + 1}: lapidary {ours[-1]:.2f} s, llama.cpp {theirs[-1]:.2f} s", flush=True)
        ratio = statistics.median(t / o for o, t in zip(ours, theirs))
        print(f"{mmproj}: lapidary {statistics.median(ours):.2f} s, llama.cpp {statistics.median(theirs):.2f} s, "
              f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
