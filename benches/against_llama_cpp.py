#!/usr/bin/env python3
"""Prefill and decode of lapidary and llama.cpp on the same file, alternating.

    pip install llama-cpp-python
    python3 benches/against_llama_cpp.py MODEL.gguf [--threads 2] [-p 512] [-n 64] [-r 5]

or, beside a llama-bench that was built, of llama.cpp or of ik_llama.cpp (which repacks weights with -rtr 1):

    python3 benches/against_llama_cpp.py MODEL.gguf --llama-bench build/bin/llama-bench --also="-rtr 1"

Each repetition runs one program, then the other, so that a noisy machine is noisy for both.
Prints each one's median and the median of the ratios.
"""
import argparse
import json
import multiprocessing
import os
import shlex
import statistics
import subprocess
import time


def llama(model, threads, prompt, generate, depth, out):
    """One measurement of llama.cpp, in a process of its own (its weights are repacked into memory)."""
    import llama_cpp

    llm = llama_cpp.Llama(
        model, n_ctx=depth + prompt + generate + 8, n_batch=512, n_ubatch=512, n_threads=threads,
        n_threads_batch=threads, verbose=False, swa_full=False)
    tokens = [4 + (i * 7919) % (llm.n_vocab() - 4) for i in range(depth + max(prompt, 16))]
    llm.eval(tokens[:16])  # warm
    pp = tg = 0.0
    if prompt:
        llm.reset()
        start = time.perf_counter()
        llm.eval(tokens[:prompt])
        pp = prompt / (time.perf_counter() - start)
    if generate:
        llm.reset()
        llm.eval(tokens[:max(depth, 1)])
        start = time.perf_counter()
        for t in tokens[:generate]:
            llm.eval([t])
        tg = generate / (time.perf_counter() - start)
    out.put((pp, tg))


def library(model, threads, prompt, generate, depth):
    q = multiprocessing.Queue()
    p = multiprocessing.Process(target=llama, args=(model, threads, prompt, generate, depth, q))
    p.start()
    p.join()
    if p.exitcode != 0:
        raise SystemExit(f"llama.cpp ended with {p.exitcode}")
    return q.get()


def llama_bench(program, also, model, threads, prompt, generate):
    """One call of a llama-bench; it makes a pass to warm up by itself."""
    args = [program, "-m", model, "-t", threads, "-p", prompt, "-n", generate, "-r", 1, "-o", "json", *also]
    text = subprocess.run([str(a) for a in args], check=True, capture_output=True, text=True).stdout
    tests = json.loads(text[text.index("["):])
    return tuple(sum(t["avg_ts"] for t in tests if (t["n_gen"] > 0) == decode) for decode in (False, True))


def lapidary(binary, model, threads, prompt, generate, depth):
    args = [binary, "bench", model, "--threads", threads, "-p", prompt, "-n", generate, "-r", 1, "-o", "json"]
    if depth:
        args += ["-d", depth]
    text = subprocess.run([str(a) for a in args], check=True, capture_output=True, text=True).stdout
    pp = tg = 0.0
    for test in json.loads(text)["tests"]:
        rate = test["tokens_per_second"]["median"]
        if test["test"].startswith("pp"):
            pp = rate
        else:
            tg = rate
    return pp, tg


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("-p", type=int, default=512)
    ap.add_argument("-n", type=int, default=64)
    ap.add_argument("-d", type=int, default=0)
    ap.add_argument("-r", type=int, default=5)
    ap.add_argument("--binary", default="target/release/lapidary")
    ap.add_argument("--llama-bench", help="this program in place of the Python package")
    ap.add_argument("--also", default="", type=shlex.split, help="further arguments for it")
    a = ap.parse_args()
    if a.llama_bench and a.d:
        ap.error("not every llama-bench takes -d: leave it out beside --llama-bench")
    name_of = os.path.basename(a.llama_bench or "llama.cpp")
    ours, theirs = [], []
    for i in range(a.r):
        ours.append(lapidary(a.binary, a.model, a.threads, a.p, a.n, a.d))
        if a.llama_bench:
            theirs.append(llama_bench(a.llama_bench, a.also, a.model, a.threads, a.p, a.n))
        else:
            theirs.append(library(a.model, a.threads, a.p, a.n, a.d))
        print(f"{i + 1}: lapidary {ours[-1][0]:.1f} / {ours[-1][1]:.1f}, {name_of} {theirs[-1][0]:.1f} / {theirs[-1][1]:.1f}")
    for k, name in ((0, f"pp{a.p}"), (1, f"tg{a.n}" + (f"@d{a.d}" if a.d else ""))):
        pairs = [(o[k], t[k]) for o, t in zip(ours, theirs) if t[k]]
        if pairs:
            o, t = (statistics.median(x) for x in zip(*pairs))
            ratio = statistics.median(x / y for x, y in pairs)
            print(f"{name}: lapidary {o:.1f} tokens/s, {name_of} {t:.1f}, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
