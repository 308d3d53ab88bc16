"""Every op of the engine at the base model's shapes, beside the machine's peak.

``python benchmarks/bench_ops.py`` runs each op on ``cpu`` and on every Vulkan device
and prints GF/s for products and attention (two flops a multiply-add) and GB/s for the
rest (each tensor read or written once). The peak is measured: a loop of fused
multiply-adds in registers, and one that reads 256 MB from memory (tensors that fit a
cache may beat it), compiled by ``cc`` for this machine and run on as many threads.
Best of several runs; a run on a Vulkan device includes its submit. Where other work
goes on, trust ``--threads 1 --cases 1x16``: long runs are interrupted.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import netdiffusion as nd
from netdiffusion import _core

NETWORK = nd.FlowDiffusion.from_pretrained().config_["network"]
CELLS, WIDTH, MLP, HEADS = (NETWORK[n] for n in ("columns", "width", "mlp", "heads"))
PLANE = -(-CELLS // 32) * 32  # nd_stride of backend.h
NONE, GELU, GATED = 0, 2, 4
STEP = """noise_row input_scale estimated guidance a b c noise_scale temperature
draw_stream noise_stream seed_low seed_high"""
SCALARS = {"input_scale": 0.5, "a": 0.9, "b": 0.1, "guidance": 1.0, "noise_scale": 1.0}

PEAK = r"""
#if defined(__AVX512F__)
enum { BYTES = 64, CHAINS = 24 };
#elif defined(__AVX2__)
enum { BYTES = 32, CHAINS = 12 };
#else
enum { BYTES = 16, CHAINS = 12 };
#endif
typedef float vector __attribute__((vector_size(BYTES)));
double multiply_adds(long n)
{
    vector s[CHAINS], a = {0}, b = {0};
    float sum = 0;
    for (int i = 0; i < BYTES / 4; i++)
        a[i] = 0.999f, b[i] = 1e-3f;
    for (int i = 0; i < CHAINS; i++)
        s[i] = a * (float)i;
    for (long k = 0; k < n; k++)
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; i++)
            s[i] = s[i] * a + b;
    for (int i = 0; i < CHAINS; i++)
        sum += s[i][0];
    return sum > -1 ? 2.0 * n * CHAINS * (BYTES / 4) : 0;
}
double reads(const vector *from, long n)
{
    vector s[4] = {{0}};
    for (long i = 0; i + 4 <= n / BYTES; i += 4)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            s[j] += from[i + j];
    return (s[0] + s[1] + s[2] + s[3])[0] > -1 ? n : 0;
}
"""

Array = npt.NDArray[Any]


def best_rate(call: Callable[[], float], threads: int, repeats: int = 15) -> float:
    """Return the most work a second that all threads together did."""
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats):
            start = time.perf_counter()
            work = sum(pool.map(lambda _: call(), range(threads)))
            best = max(best, work / (time.perf_counter() - start))
    return best


def measure_peak(threads: int, scratch: Path) -> dict[str, float]:
    """Return the machine's GF/s and GB/s on this many threads."""
    source, library = scratch / "peak.c", scratch / "peak.so"
    source.write_text(PEAK)
    flags = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
    command = [os.environ.get("CC", "cc"), *flags, str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    peak = ctypes.CDLL(str(library))
    peak.multiply_adds.restype = peak.reads.restype = ctypes.c_double
    memory = np.ones(1 << 26, np.float32)
    pointer = ctypes.c_void_p(memory.ctypes.data // 64 * 64)
    size = ctypes.c_long(memory.nbytes - 64)
    return {
        "GF/s": best_rate(
            lambda: float(peak.multiply_adds(ctypes.c_long(2_000_000))), threads
        )
        / 1e9,
        "GB/s": best_rate(lambda: float(peak.reads(pointer, size)), threads, 5) / 1e9,
    }


@dataclass
class Work:
    """One op with its arguments, and what it costs."""

    name: str
    op: str
    arguments: dict[str, Any]
    flops: float = 0.0
    scalars: dict[str, float] = field(default_factory=lambda: dict(SCALARS))

    @property
    def bytes(self) -> float:
        """Size of all tensors."""
        arrays = [v for v in self.arguments.values() if isinstance(v, np.ndarray)]
        return float(sum(a.nbytes for a in arrays))


def normal(*shape: int) -> Array:
    """Return float32 normal numbers."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def tokens_of(flows: int, packets: int) -> Array:
    """Return rows of flow, packet, first token, packets."""
    flow, index = np.divmod(np.arange(flows * packets), packets)
    rows = [flow, index, flow * packets, np.full_like(flow, packets)]
    return np.stack(rows, 1).astype(np.uint32)


def ragged_of(flows: int, packets: int) -> tuple[Array, Array]:
    """Return lengths and ids of a batch."""
    return np.full(flows, packets, np.int32), np.arange(flows, dtype=np.uint64)


def linears(flows: int, packets: int) -> Iterator[Work]:
    """Yield the products of the base model."""
    rows, tokens = flows * packets, tokens_of(flows, packets)
    gated = {
        "residual": normal(rows, WIDTH),
        "modulation": normal(flows, 6 * WIDTH),
        "constant": normal(1, 6 * WIDTH),
        "tokens": tokens,
        "gate": 2 * WIDTH,
    }
    for name, out, inside, epilogue in (
        ("in", WIDTH, 5 * PLANE + 1, NONE),
        ("qkv", 3 * WIDTH, WIDTH, NONE),
        ("out", WIDTH, WIDTH, GATED),
        ("up", MLP, WIDTH, GELU),
        ("down", WIDTH, MLP, GATED),
        ("final.out", 2 * PLANE, WIDTH, NONE),
    ):
        arguments = {
            "in": normal(rows, inside),
            "weight": (normal(out, inside) / 16, normal(1, out)[0]),
            "epilogue": epilogue,
            "rows": rows,
            "out": normal(rows, out),
            **(gated if epilogue == GATED else {}),
        }
        yield Work(f"linear {name}", "linear", arguments, 2.0 * rows * out * inside)


def of_tokens(flows: int, packets: int) -> Iterator[Work]:
    """Yield the ops on rows of width D that are no products."""
    rows = flows * packets
    modulation = {"modulation": normal(flows, 2 * WIDTH), "shift": 0, "scale": WIDTH}
    given = {
        "norm": {
            "in": normal(rows, WIDTH),
            "tokens": tokens_of(flows, packets),
            "rows": rows,
            "out": normal(rows, WIDTH),
            **modulation,
        },
        "attention": {
            "qkv": normal(rows, 3 * WIDTH),
            "rotary": normal(packets, WIDTH // HEADS),
            "ragged": ragged_of(flows, packets),
            "heads": HEADS,
            "out": normal(rows, WIDTH),
        },
        "condition": {
            "given": normal(flows, WIDTH),
            "noise": normal(1, WIDTH),
            "rows": flows,
            "out": normal(flows, WIDTH),
        },
    }
    for op, arguments in given.items():
        flops = 4.0 * rows * packets * WIDTH if op == "attention" else 0.0
        yield Work(op, op, arguments, flops)


def of_cells(flows: int, packets: int) -> Iterator[Work]:
    """Yield the ops on pixels, estimates and logits."""
    rows, ragged = flows * packets, ragged_of(flows, packets)
    x, logits = normal(rows, 3 * PLANE), normal(rows, 2 * PLANE)
    pixels, tall = {"x": x, "estimate": normal(rows, 2 * PLANE)}, {"rows": rows}
    held = np.full((rows, CELLS), 2, np.int8)
    held[:, ::4] = 1
    given = {
        "input": {**pixels, "out": normal(rows, 5 * PLANE + 1), **tall},
        "hold": {"held": held, "out": normal(rows, 7 * PLANE), **tall},
        "estimate": {"logits": logits, **pixels, **tall},
        "noise": {**pixels, "ragged": ragged},
        "renoise": {"logits": logits, "x": x, "ragged": ragged},
        "draw": {"logits": logits, "ragged": ragged, "cells": held},
    }
    for op, arguments in given.items():
        yield Work(op, op, arguments)


def works(flows: int, packets: int) -> Iterator[Work]:
    """Yield every op."""
    for kind in (linears, of_tokens, of_cells):
        yield from kind(flows, packets)


def seconds_of(work: Work, device: str, threads: int, repeats: int) -> float:
    """Return the best time of an op on a device."""
    step = np.zeros(16, np.uint32)
    for i, name in enumerate(STEP.split()):
        if name in work.scalars:
            step[i] = np.float32(work.scalars[name]).view(np.uint32)
    told = _core.run_op(device, work.op, work.arguments, step, repeats, threads)
    return float(told["seconds"].min())


def run(args: argparse.Namespace, peak: dict[str, float]) -> list[dict[str, Any]]:
    """Measure and print every op on every device."""
    records = []
    for flows, packets in args.cases:
        for work in works(flows, packets):
            for device in args.devices:
                seconds = seconds_of(work, device, args.threads, args.repeats)
                unit = "GF/s" if work.flops else "GB/s"
                rate = (work.flops or work.bytes) / seconds / 1e9
                share = rate / peak[unit]
                records.append(
                    {
                        "op": work.name,
                        "device": device,
                        "flows": flows,
                        "packets": packets,
                        "seconds": seconds,
                        unit: rate,
                        "share_of_peak": share,
                    }
                )
                print(
                    f"{flows:4} x{packets:4} {work.name:18}{device:9}"
                    f"{seconds * 1e6:12.1f} us{rate:9.1f} {unit}{share:7.0%} of peak",
                    flush=True,
                )
    return records


def size(text: str) -> tuple[int, int]:
    """Return the flows and packets of, say, 64x16."""
    flows, packets = text.split("x")
    return int(flows), int(packets)


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--devices", nargs="+", help="default: all")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument(
        "--cases",
        nargs="+",
        type=size,
        default=[(16, 64), (1, 16)],
        metavar="FLOWSxPACKETS",
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    os.environ["LP_NUM_THREADS"] = str(args.threads)
    args.devices = args.devices or [str(d["name"]) for d in nd.devices()]
    with tempfile.TemporaryDirectory() as scratch:
        peak = measure_peak(args.threads, Path(scratch))
    print(f"peak of {args.threads} threads: {peak['GF/s']:.0f} GF/s, ", end="")
    print(f"{peak['GB/s']:.1f} GB/s read")
    told = {"threads": args.threads, "peak": peak, "ops": run(args, peak)}
    if args.json:
        args.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
