"""Flows per second of sampling: both backends, and PyTorch with the same weights.

``python benchmarks/bench_sample.py`` measures the base model: batches of 64 flows
of 16, 64 and 256 packets, and single flows. In turns, in one process:

cpu, vulkan:N    the engine (``vulkan:N`` is the first Vulkan device that is a CPU)
eager            PyTorch, the training network in inference mode
compiled         the same under ``torch.compile`` with frozen weights

All have the same weights, threads, batch, noise levels, solver (DPM-Solver++(2M)) and
re-noise rounds, those of the base model: 12 evaluations of the network. No cell is
held, and the flows of a batch are of one length, so PyTorch pads nothing. Its
attention is ``scaled_dot_product_attention`` or plain products, whichever is faster
eagerly. The best time of each counts. Where other work runs on the machine, compare
CPU seconds on one thread (``--threads 1``): a thread that waits for another is not
counted twice.

Beside it: from ``import`` to the first flow written, and the peak memory of a process
that draws ``--memory`` flows of 64 packets, each in a process of its own.
``--scaling`` measures lengths 8 to 1,024, widths 128 to 512 (random weights), batches
of 1 to 256, on one thread and on all.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file
from torch import Tensor, nn

import netdiffusion as nd
from netdiffusion import _core
from netdiffusion.training import network as network_module
from netdiffusion.training.export import read_pretrained, to_engine
from netdiffusion.training.network import NetworkShape, Places, RowFormer

BASE = Path(nd.__file__).parent / "models" / "base"
HEADLINE = ((64, 16), (64, 64), (64, 256), (1, 16), (1, 64), (1, 256))
Cells = npt.NDArray[np.int8]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is drawn at once."""

    flows: int
    packets: int
    width: int = 256
    steps: int = 10
    rounds: int = 2

    @property
    def sigmas(self) -> npt.NDArray[np.float32]:
        """Noise levels, falling."""
        return np.geomspace(80.0, 0.2, self.steps).astype(np.float32)


Draw = Callable[[Case], Cells]
RENOISE_SIGMA = 1.0


def timed(draw: Draw, case: Case) -> tuple[float, float]:
    """Return wall and CPU seconds of drawing a case."""
    wall, cpu = time.perf_counter(), time.process_time()
    draw(case)
    return time.perf_counter() - wall, time.process_time() - cpu


class Engine:
    """The engine on one device."""

    def __init__(self, path: Path, shape: NetworkShape, device: str, threads: int):
        self.classes = shape.classes
        self.model = _core.Model(path, **asdict(shape), device=device, threads=threads)

    def __call__(self, case: Case) -> Cells:
        """Draw flows of the first classes."""
        n = case.flows
        return self.model.sample(
            np.arange(n, dtype=np.int32) % self.classes,
            np.full(n, case.packets, np.int32),
            np.arange(n, dtype=np.uint64),
            1,
            case.sigmas,
            0.0,
            case.rounds,
            RENOISE_SIGMA,
        )


class Network(RowFormer):
    """The training network; its first layer in two, which needs no copies."""

    def split(self) -> Network:
        """Return itself, ready to draw; without the mask of held cells."""
        first, half = self._modules.pop("in"), 3 * self.shape.columns
        self.of_x = nn.Linear(half, self.shape.width)
        self.of_estimate = nn.Linear(half, self.shape.width, bias=False)
        self.of_x.weight.data = first.weight.data[:, :half].contiguous()
        self.of_estimate.weight.data = first.weight.data[
            :, half : 2 * half
        ].contiguous()
        self.of_x.bias.data = first.bias.data
        return self.requires_grad_(False).eval()

    def embed(
        self,
        x: Tensor,
        estimate: Tensor | None,
        places: Places,
        sigma: Tensor,
        held: Tensor | None = None,
    ) -> Tensor:
        """Return the tokens before the first block."""
        scale = torch.rsqrt(1 + sigma * sigma)[:, None, None, None]
        h = self.of_x((x * scale).flatten(2)) + self.of_estimate(estimate.flatten(2))
        return h + self.pos(network_module.position_features(places))


class Torch:
    """The network as a sampler, the solver's update in the same graph."""

    def __init__(self, network: Network, *, compiled: bool) -> None:
        self.network, self.compiled = network, compiled
        self.steps: dict[tuple[int, int], Callable[..., tuple[Tensor, ...]]] = {}

    def step(self, case: Case) -> Callable[..., tuple[Tensor, ...]]:
        """Return the step's function, compiled for the shape of a case."""
        key = (case.flows, case.packets)

        def step(x: Tensor, e: Tensor, *given: Any) -> tuple[Tensor, ...]:
            places, classes, sigma, a, b, c = given
            logits = self.network(x, e, places, classes, sigma)
            now = 2 * logits.softmax(2) - 1
            return a * x + b * now + c * e, now, logits

        if key not in self.steps:
            self.steps[key] = (
                torch.compile(step, dynamic=False) if self.compiled else step
            )
        return self.steps[key]

    def __call__(self, case: Case) -> Cells:
        """Denoise a batch; planes of colours, as the network wants them."""
        network_module.FLASH_FROM = (
            0 if flash_is_faster(self.network, case) else 1 << 30
        )
        shape = (case.flows, case.packets, 3, self.network.shape.columns)
        with torch.inference_mode():
            step = self.step(case)
            places = Places.of(np.full(case.flows, case.packets, np.int64))
            classes = torch.arange(case.flows) % self.network.shape.classes
            x = torch.randn(shape) * float(case.sigmas[0])
            e, logits = torch.zeros(shape), torch.zeros(0)
            for sigma, *scalars in coefficients(case):
                level = torch.full((case.flows,), sigma)
                abc = (torch.tensor(v) for v in scalars)
                if sigma == RENOISE_SIGMA:
                    x = renoise(logits)
                x, e, logits = step(x, e, places, classes, level, *abc)
            return (1 - logits.argmax(2).to(torch.int8)).flatten(0, 1).numpy()


FASTER: dict[tuple[int, int, int], bool] = {}


def flash_is_faster(network: Network, case: Case) -> bool:
    """Tell whether scaled_dot_product_attention beats products for this shape."""
    key = (case.flows, case.packets, case.width)
    if key not in FASTER:
        seconds = {}
        for flash in (False, True):
            FASTER[key] = flash
            drawer, few = (
                Torch(network, compiled=False),
                replace(case, steps=1, rounds=0),
            )
            seconds[flash] = min(timed(drawer, few)[0] for _ in range(3))
        FASTER[key] = seconds[True] < seconds[False]
    return FASTER[key]


def renoise(logits: Tensor) -> Tensor:
    """Draw the cells, planes of colours on axis 2, and add noise to their pixels."""
    steps = logits.softmax(2).cumsum(2)[:, :, :2]
    drawn = (torch.rand_like(logits[:, :, :1]) >= steps).sum(2, keepdim=True)
    x = torch.randn_like(logits) * RENOISE_SIGMA - 1
    return x.scatter_add_(2, drawn, torch.full_like(logits[:, :, :1], 2.0))


def coefficients(case: Case) -> Iterator[tuple[float, float, float, float]]:
    """Yield sigma, a, b, c of each step of DPM-Solver++(2M): x = a x + b e + c e'."""
    s = [float(v) for v in case.sigmas]
    for i, sigma in enumerate(s[:-1]):
        h = math.log(sigma / s[i + 1])
        half = h / math.log(s[i - 1] / sigma) / 2 if i else 0.0
        weight = -math.expm1(-h)
        yield sigma, s[i + 1] / sigma, weight * (1 + half), -weight * half
    yield s[-1], 1.0, 0.0, 0.0
    yield from [(RENOISE_SIGMA, 1.0, 0.0, 0.0)] * case.rounds


def lavapipe() -> str | None:
    """Return the name of the Vulkan device that is a CPU."""
    for device in nd.devices():
        if device["name"] != "cpu" and device["type"] == "cpu":
            return str(device["name"])
    return None


def drawers(
    width: int, threads: int, wanted: list[str], scratch: Path
) -> dict[str, Draw]:
    """Return what draws: the base model, or random weights of another width."""
    sizes = json.loads((BASE / "config.json").read_text("utf-8"))["network"]
    path = BASE / "model.safetensors"
    network = Network(NetworkShape(**{**sizes, "width": width, "mlp": 3 * width}))
    if width == sizes["width"]:
        weights = read_pretrained(BASE).tensors
        network.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    else:
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
        path = scratch / f"width{width}.safetensors"
        state = {k: v.detach().numpy() for k, v in network.state_dict().items()}
        halves = {k: v.astype(np.float16) for k, v in to_engine(state).items()}
        save_file({k: np.ascontiguousarray(v) for k, v in halves.items()}, path)
    shape = network.shape
    network.split()
    found: dict[str, Draw] = {}
    for name in wanted:
        if name in ("eager", "compiled"):
            found[name] = Torch(network, compiled=name == "compiled")
        else:
            found[name] = Engine(path, shape, name, threads)
    return found


Record = dict[str, Any]


def measure(found: dict[str, Draw], case: Case, budget: float) -> list[Record]:
    """Draw a case in turns until the budget of seconds is spent."""
    few = replace(case, steps=2, rounds=0)
    for draw in found.values():
        draw(few)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    end, turns = time.perf_counter() + budget, 0
    while turns < 3 or (time.perf_counter() < end and turns < 200):
        for name, draw in found.items():
            slow = turns > 0 and times[name][0][0] > budget / 4
            if not slow or turns < 2:
                times[name].append(timed(draw, case))
        turns += 1
    records = []
    for name, pairs in times.items():
        wall = [w for w, _ in pairs]
        records.append(
            {
                "device": name,
                **asdict(case),
                "seconds": min(wall),
                "median_seconds": float(np.median(wall)),
                "cpu_seconds": min(c for _, c in pairs),
                "flows_per_second": case.flows / min(wall),
                "packets_per_second": case.flows * case.packets / min(wall),
                "turns": len(pairs),
            }
        )
    return records


def ratio(records: list[Record], device: str, key: str = "seconds") -> float | None:
    """Return how many times as fast as the faster PyTorch a device is."""
    by_name = {r["device"]: r[key] for r in records}
    rivals = [by_name[n] for n in ("eager", "compiled") if n in by_name]
    if not rivals or device not in by_name:
        return None
    return float(min(rivals) / by_name[device])


def show(records: list[Record], threads: int) -> None:
    """Print a case, one line a device."""
    for r in records:
        against = ratio(records, r["device"])
        cpu = ratio(records, r["device"], "cpu_seconds")
        told = "" if against is None else f"{against:7.2f} x{cpu:7.2f} x CPU"
        print(
            f"{r['flows']:4} x{r['packets']:5}  width {r['width']}  threads {threads}  "
            f"{r['device']:9}{r['seconds'] * 1e3:10.1f} ms{r['flows_per_second']:9.1f} "
            f"flows/s{r['packets_per_second']:10.0f} packets/s{told}",
            flush=True,
        )


# In processes of their own: start-up and memory.

START = """
import time; start = time.perf_counter()
import sys, json
import netdiffusion as nd
model = nd.FlowDiffusion.from_pretrained()
flows = model.sample({next(iter(model.classes_)): 1}, device=sys.argv[1], lengths=16)
nd.write_capture(flows, sys.argv[2])
print(json.dumps(time.perf_counter() - start))
"""
MEMORY = """
import sys, json
import netdiffusion as nd
model = nd.FlowDiffusion.from_pretrained()
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return [int(line.split()[1]) / 1024 for line in lines if "VmHWM" in line][0]
before = peak()
model.sample({next(iter(model.classes_)): int(sys.argv[2])}, device=sys.argv[1],
             lengths=64, steps=1, repair=False)
print(json.dumps([before, peak()]))
"""


def told_by(script: str, *arguments: str) -> Any:
    """Return what a script prints in a process of its own, from JSON."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def start_up(device: str, scratch: Path, repeats: int = 5) -> float:
    """Return seconds from ``import`` to the first flow written, shaders cached."""
    seconds = []
    for i in range(repeats + 1):
        capture = scratch / f"{device.replace(':', '')}{i}.pcap"
        seconds.append(told_by(START, device, str(capture)))
    return float(min(seconds[1:]))


def scaling_cases() -> list[Case]:
    """Return lengths, widths and batches, four steps each."""
    lengths = [Case(flows=8, packets=n, steps=4) for n in (8, 16, 32, 64, 128, 256)]
    lengths += [Case(flows=2, packets=n, steps=4) for n in (512, 1024)]
    widths = [
        Case(flows=16, packets=64, steps=4, width=w) for w in (128, 256, 384, 512)
    ]
    batches = [
        Case(flows=n, packets=16, steps=4) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256)
    ]
    return list(dict.fromkeys([*lengths, *widths, *batches]))


def run_cases(args: argparse.Namespace, scratch: Path) -> list[Record]:
    """Measure and print all cases."""
    cases = [Case(flows=f, packets=p) for f, p in args.cases]
    if args.scaling:
        cases = scaling_cases()
    records = []
    for width in sorted({c.width for c in cases}):
        found = drawers(width, args.threads, args.devices, scratch)
        for case in (c for c in cases if c.width == width):
            told = measure(found, case, args.budget)
            show(told, args.threads)
            records += told
    return records


def plot(records: list[Record], path: Path) -> None:
    """Draw packets per second over the cases."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(r["device"] for r in records))
    labels = list(
        dict.fromkeys(f"{r['flows']} x {r['packets']}\n{r['width']}" for r in records)
    )
    figure, axes = plt.subplots(figsize=(max(6, len(labels)), 4), layout="constrained")
    for i, name in enumerate(names):
        mine = [r for r in records if r["device"] == name]
        place = np.arange(len(mine)) + (i - len(names) / 2) * 0.8 / len(names)
        axes.bar(
            place, [r["packets_per_second"] for r in mine], 0.8 / len(names), label=name
        )
    axes.set_xticks(np.arange(len(labels)), labels, fontsize=8)
    axes.set(ylabel="packets per second", xlabel="flows x packets, width")
    axes.legend()
    figure.savefig(path, dpi=150)


def size(text: str) -> tuple[int, int]:
    """Return the flows and packets of, say, 64x16."""
    flows, packets = text.split("x")
    return int(flows), int(packets)


def options() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--devices", nargs="+", help="default: all four")
    parser.add_argument("--budget", type=float, default=6.0, help="seconds a case")
    parser.add_argument(
        "--cases", nargs="+", type=size, default=HEADLINE, metavar="FLOWSxPACKETS"
    )
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--memory", type=int, default=1000, help="flows; 0: leave out")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--plot", type=Path, help="write a picture here")
    args = parser.parse_args()
    if args.devices is None:
        args.devices = ["cpu", lavapipe(), "eager", "compiled"]
        args.devices = [d for d in args.devices if d is not None]
    return args


def main() -> None:
    """Print the table, write JSON and picture."""
    args = options()
    os.environ["LP_NUM_THREADS"] = str(args.threads)
    torch.set_num_threads(args.threads)
    torch._inductor.config.freezing = True
    told: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": args.threads,
        "torch": torch.__version__,
        "devices": nd.devices(),
    }
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for device in (d for d in args.devices if d not in ("eager", "compiled")):
            if args.memory:
                seconds = start_up(device, scratch)
                before, peak = told_by(MEMORY, device, str(args.memory))
                told[f"{device} start_seconds"] = seconds
                told[f"{device} peak_megabytes"] = [before, peak]
                print(
                    f"{device}: {seconds:.2f} s from import to the first flow written; "
                    f"{before:.0f} MB loaded, {peak:.0f} MB at most for "
                    f"{args.memory:,} flows"
                )
        told["cases"] = run_cases(args, scratch)
    if args.json:
        args.json.write_text(json.dumps(told, indent=2) + "\n")
    if args.plot:
        plot(told["cases"], args.plot)


if __name__ == "__main__":
    main()
