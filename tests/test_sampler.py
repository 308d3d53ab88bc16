"""The sampler against the same loop in NumPy and torch; batches; being stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from devices import opened

from netdiffusion import _core

torch = pytest.importorskip("torch")
import reference  # noqa: E402

SIZE = dict(columns=9, width=64, blocks=2, heads=2, mlp=96, classes=3)
SIGMAS = np.geomspace(40, 0.05, 7).astype(np.float32)
SEED = (11 << 32) + 5


@pytest.fixture(scope="module")
def weights() -> reference.Weights:
    """Random weights."""
    return reference.random_weights(SIZE, seed=3)


@pytest.fixture(scope="module")
def path(weights: reference.Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the weights."""
    return reference.save_weights(weights, tmp_path_factory.mktemp("m") / "model")


@pytest.fixture(scope="module")
def model(path: Path) -> _core.Model:
    """Open the engine on the CPU."""
    return _core.Model(path, device="cpu", **SIZE)


@pytest.fixture(scope="module", params=["cpu", "vulkan:0"])
def any_model(request: pytest.FixtureRequest, path: Path) -> _core.Model:
    """Open the engine on each device of this machine."""
    name = str(request.param)
    return opened(name, lambda: _core.Model(path, device=name, **SIZE))


def flows(n: int) -> dict[str, Any]:
    """Classes, lengths and ids of n flows; the last class is none."""
    rng = np.random.default_rng(0)
    return {
        "classes": rng.integers(0, SIZE["classes"] + 1, n, np.int32),
        "lengths": rng.integers(1, 40, n, np.int32),
        "flow_ids": rng.integers(0, 2**63, n, np.uint64),
        "seed": SEED,
        "sigmas": SIGMAS,
    }


class Sampler:
    """One flow, step by step, as the contract's formulas stand."""

    def __init__(
        self,
        network: reference.Reference,
        label: int,
        flow: int,
        options: dict[str, Any],
        held: np.ndarray | None,
    ) -> None:
        self.network, self.label, self.flow = network, label, flow
        self.guidance = options.get("guidance", 1.0)
        self.low = options.get("guidance_low", 0.0)
        self.high = options.get("guidance_high", np.inf)
        self.kind = options.get("sampler", "dpm++2m")
        self.held = None if held is None else torch.from_numpy(held)
        self.estimate = torch.zeros(0)

    def logits(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """Evaluate at a level, with guidance, and keep the estimate."""

        def evaluate(label: int) -> torch.Tensor:
            told = self.network.flow(x, self.estimate, sigma, label, self.held)
            return told["logits"]

        given = evaluate(self.label)
        if self.guidance != 1 and self.low <= sigma <= self.high:
            free = evaluate(SIZE["classes"])
            given = free + self.guidance * (given - free)
        self.estimate = 2 * given.softmax(-1) - 1
        return given

    def solve(self, noise: torch.Tensor, sigmas: np.ndarray) -> torch.Tensor:
        """Go through the levels; returns the logits of the last one."""
        s = [float(v) for v in sigmas]
        x, before = s[0] * noise, None
        self.estimate = torch.zeros_like(x)
        for i in range(len(s)):
            logits = self.logits(x, s[i])
            if i + 1 < len(s):
                x = getattr(self, {"dpm++2m": "dpmpp"}.get(self.kind, self.kind))(
                    x, before, s[: i + 2]
                )
            before = self.estimate
        return logits

    def dpmpp(
        self, x: torch.Tensor, before: torch.Tensor | None, s: list[float]
    ) -> torch.Tensor:
        """DPM-Solver++(2M)."""
        t, d = [-np.log(v) for v in s], self.estimate
        h = t[-1] - t[-2]
        if before is not None:
            r = (t[-2] - t[-3]) / h
            d = (1 + 1 / (2 * r)) * d - 1 / (2 * r) * before
        return s[-1] / s[-2] * x - float(np.expm1(-h)) * d

    def euler(self, x: torch.Tensor, _: Any, s: list[float]) -> torch.Tensor:
        """Go along the slope (x - e) / s."""
        return x + (s[-1] - s[-2]) * (x - self.estimate) / s[-2]

    def ancestral(self, x: torch.Tensor, _: Any, s: list[float]) -> torch.Tensor:
        """Mean and spread of x at s' given x at s and the estimate."""
        i = len(s) - 2
        noise = reference.pixel_normal(
            SEED, self.flow, 0x40000000 + i, len(x), SIZE["columns"]
        )
        share = (s[-1] / s[-2]) ** 2
        mean = share * x + (1 - share) * self.estimate
        spread = s[-1] * (1 - share) ** 0.5
        return mean + spread * torch.from_numpy(noise)


def expected(weights: reference.Weights, given: dict[str, Any], **options: Any) -> Any:
    """Cells of all flows, and how far each was from being drawn otherwise."""
    network = reference.Reference(weights, SIZE)
    columns, cells, at = SIZE["columns"], [], 0
    for label, packets, flow in zip(
        given["classes"], given["lengths"], given["flow_ids"], strict=True
    ):
        size = int(packets), columns
        held = options["held"][at : at + packets] if "held" in options else None
        at += packets
        sampler = Sampler(network, int(label), int(flow), options, held)
        start = reference.pixel_normal(SEED, int(flow), 0, *size)
        logits = sampler.solve(torch.from_numpy(start), given["sigmas"])
        for r in range(options.get("renoise_rounds", 0)):
            sigma = options["renoise_sigma"]
            u = reference.cell_uniform(SEED, int(flow), 2 * r + 1, *size)
            drawn = reference.draw(logits.softmax(-1).numpy(), u)
            noise = reference.pixel_normal(SEED, int(flow), 2 * r + 2, *size)
            x = 2 * np.eye(3, dtype=np.float32)[drawn] - 1 + np.float32(sigma) * noise
            logits = sampler.logits(torch.from_numpy(x), sigma)
        temperature = options.get("temperature", 1.0)
        if temperature == 0:
            colours = logits.numpy().argmax(-1)
        else:
            u = reference.cell_uniform(SEED, int(flow), 0x80000000, *size)
            p = (logits / temperature).softmax(-1).numpy()
            colours = reference.draw(p, u)
        drawn = 1 - colours
        cells.append(drawn if held is None else np.where(held == 2, drawn, held))
    return np.concatenate(cells)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.0},
        {"temperature": 0.4},
        {"guidance": 2.0},
        {"renoise_rounds": 2, "renoise_sigma": 0.6},
        {
            "renoise_rounds": 1,
            "renoise_sigma": 0.6,
            "guidance": 0.5,
            "temperature": 0.0,
        },
        {"sampler": "euler"},
        {"sampler": "ancestral", "temperature": 0.0},
        {"sampler": "euler", "guidance": 2.0, "guidance_low": 0.3},
        {"guidance": 3.0, "guidance_low": 0.5, "guidance_high": 3.2},
        {"guidance": 3.0, "guidance_low": 50.0},
    ],
)
def test_is_the_loop_in_torch(
    any_model: _core.Model, weights: reference.Weights, options: dict[str, Any]
) -> None:
    """Same cells; fp32 sums in another order may turn a draw beside a step."""
    given = flows(12)
    got = any_model.sample(**given, **options)
    wanted = expected(weights, given, **options)
    assert got.dtype == np.int8 and got.shape == wanted.shape
    assert (got != wanted).mean() < 2e-3


def test_one_step(model: _core.Model, weights: reference.Weights) -> None:
    """A single level: no update at all."""
    given = flows(4) | {"sigmas": np.array([3.0], np.float32)}
    wanted = expected(weights, given, temperature=0.0)
    assert (model.sample(**given, temperature=0.0) != wanted).mean() < 2e-3


@pytest.mark.parametrize("sampler", ["dpm++2m", "ancestral"])
def test_held_cells_are_the_loop_in_torch(
    any_model: _core.Model, weights: reference.Weights, sampler: str
) -> None:
    """Known cells enter clean in every step of the solver."""
    given = flows(12)
    options = {"held": some_held(given), "sampler": sampler, "guidance": 1.5}
    got = any_model.sample(**given, **options)
    assert (got != expected(weights, given, **options)).mean() < 2e-3


def test_devices_draw_the_same_cells(path: Path) -> None:
    """At least 99.99 % of the cells of the CPU's and of Vulkan's draws."""
    name = "vulkan:0"
    other = opened(name, lambda: _core.Model(path, device=name, **SIZE))
    given = flows(300)
    for options in ({}, {"sampler": "ancestral"}, {"guidance": 2.0}):
        one = _core.Model(path, device="cpu", **SIZE).sample(**given, **options)
        two = other.sample(**given, **options)
        assert one.size > 50_000 and (one != two).mean() <= 1e-4


STARVED = """
import resource, sys, warnings
import numpy as np
from netdiffusion import _core

path, size = sys.argv[1], eval(sys.argv[2])
model = _core.Model(path, device="cpu", **size)
given = dict(classes=np.zeros(96, np.int32), lengths=np.full(96, 256, np.int32),
             flow_ids=np.arange(96, dtype=np.uint64), seed=1,
             sigmas=np.array([2.0, 0.5], np.float32))
wanted = model.sample(**given, batch_tokens=256)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (40 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    for _ in range(2):
        got = model.sample(**given, batch_tokens=10**6)
        assert np.array_equal(got, wanted)
print(len(told), told[0].category.__name__, told[0].message)
"""


def test_batches_are_halved_when_memory_runs_out(path: Path) -> None:
    """The same cells, and one warning for both calls."""
    done = subprocess.run(
        [sys.executable, "-c", STARVED, str(path), repr(SIZE)],
        capture_output=True,
        text=True,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 RuntimeWarning cpu"), done.stdout
    assert "not enough memory for the batch" in done.stdout


@pytest.mark.parametrize("n", [1, 7, 64])
def test_batches_change_nothing(any_model: _core.Model, n: int) -> None:
    """The same flows alone, in batches, and in any order."""
    given = flows(64)
    offsets = np.concatenate([[0], np.cumsum(given["lengths"])])
    together = any_model.sample(**given)
    for first in range(0, 64, n):
        part = {
            k: v[first : first + n] if k in ("classes", "lengths", "flow_ids") else v
            for k, v in given.items()
        }
        last = min(first + n, 64)
        np.testing.assert_array_equal(
            any_model.sample(**part), together[offsets[first] : offsets[last]]
        )
        if n == 1 and first == 8:
            break


@pytest.mark.parametrize("tokens", [1, 50, 333, 10**6])
def test_token_budget_changes_nothing(model: _core.Model, tokens: int) -> None:
    """Memory is bounded by the budget, cells are the same."""
    given = flows(30)
    np.testing.assert_array_equal(
        model.sample(**given, batch_tokens=tokens), model.sample(**given)
    )


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(path: Path, model: _core.Model, threads: int) -> None:
    """Bit for bit the same cells."""
    other = _core.Model(path, device="cpu", threads=threads, **SIZE)
    np.testing.assert_array_equal(other.sample(**flows(9)), model.sample(**flows(9)))


def test_seeds_and_ids_matter(model: _core.Model) -> None:
    """Another seed, or another id, is another flow."""
    given = flows(8)
    one = model.sample(**given)
    for change in ({"seed": 6}, {"flow_ids": given["flow_ids"] + np.uint64(2**40)}):
        assert (model.sample(**{**given, **change}) != one).mean() > 0.05


def some_held(given: dict[str, Any]) -> np.ndarray:
    """Return known cells of all packets; a third is known."""
    rng = np.random.default_rng(8)
    held = rng.integers(-1, 2, (given["lengths"].sum(), SIZE["columns"]), np.int8)
    held[rng.random(held.shape) < 0.65] = 2
    return held


@pytest.mark.parametrize("options", [{}, {"guidance": 2.0, "renoise_rounds": 1}])
def test_held_cells_stay(any_model: _core.Model, options: dict[str, Any]) -> None:
    """Known cells come out exactly, the others see them; batches change nothing."""
    given = flows(20)
    held = some_held(given)
    got = any_model.sample(**given, **options, held=held)
    np.testing.assert_array_equal(got[held != 2], held[held != 2])
    free = any_model.sample(**given, **options)
    assert (got != free)[held == 2].mean() > 0.02
    again = any_model.sample(**given, **options, held=held, batch_tokens=70)
    np.testing.assert_array_equal(got, again)
    nothing = np.full_like(held, 2)
    np.testing.assert_array_equal(
        any_model.sample(**given, **options, held=nothing), free
    )


def test_no_flows(model: _core.Model) -> None:
    """Nothing asked, nothing drawn."""
    assert model.sample(**flows(0)).shape == (0, SIZE["columns"])


def test_progress_tells_every_step(model: _core.Model) -> None:
    """Flows done never fall; each batch goes through all its steps."""
    told: list[tuple[int, int, int]] = []
    model.sample(
        **flows(10),
        batch_tokens=50,
        renoise_rounds=1,
        progress=lambda *a: told.append(a),
    )
    assert {t[2] for t in told} == {8}
    assert [t[1] for t in told] == list(range(8)) * (len(told) // 8)
    assert told == sorted(told) and told[0][0] == 0 and len(told) > 8


def test_progress_may_stop_it(model: _core.Model) -> None:
    """An exception of the callable comes out; the model goes on working."""

    def stop(flows_done: int, steps_done: int, steps: int) -> None:
        if steps_done == 3:
            raise RuntimeError("enough")

    given = flows(3)
    before = model.sample(**given)
    with pytest.raises(RuntimeError, match="enough"):
        model.sample(**given, progress=stop)
    np.testing.assert_array_equal(model.sample(**given), before)


def test_control_c(model: _core.Model) -> None:
    """SIGINT is seen between two steps."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt(flows_done: int, steps_done: int, steps: int) -> None:
        if steps_done == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        model.sample(**flows(3), progress=interrupt)


def test_two_threads_share_a_model(model: _core.Model) -> None:
    """Calls from several Python threads wait for each other."""
    wanted, got = model.sample(**flows(20)), []
    workers = [
        threading.Thread(target=lambda: got.append(model.sample(**flows(20))))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(got) == 4
    for cells in got:
        np.testing.assert_array_equal(cells, wanted)


_inherited: list[_core.Model] = []


def _sample_inherited() -> np.ndarray:
    return _inherited[0].sample(**flows(20))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_model_survives_a_fork(model: _core.Model) -> None:
    """A child's pool has none of its parent's threads and starts its own."""
    _inherited[:] = [model]
    wanted = model.sample(**flows(20))
    with multiprocessing.get_context("fork").Pool(1) as pool:
        got = pool.apply_async(_sample_inherited).get(60)
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(model.sample(**flows(20)), wanted)


@pytest.mark.parametrize(
    "change",
    [
        {"sigmas": np.array([], np.float32)},
        {"sigmas": np.array([1, 2], np.float32)},
        {"sigmas": np.array([1, 0], np.float32)},
        {"sigmas": np.array([np.nan], np.float32)},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"renoise_rounds": -1},
        {"renoise_rounds": 1, "renoise_sigma": 0.0},
        {"guidance": float("inf")},
        {"classes": np.full(3, SIZE["classes"] + 1, np.int32)},
        {"classes": np.full(3, -1, np.int32)},
        {"lengths": np.zeros(3, np.int32)},
        {"lengths": np.full(3, 2**16 + 1, np.int32)},
        {"flow_ids": np.zeros(2, np.uint64)},
        {"held": np.zeros((2, SIZE["columns"]), np.int8)},
        {"sampler": "heun"},
        {"guidance": 2.0, "guidance_low": float("nan")},
    ],
)
def test_bad_requests(model: _core.Model, change: dict[str, Any]) -> None:
    """A request out of range is a ValueError."""
    with pytest.raises(ValueError):
        model.sample(**{**flows(3), **change})


def test_wrong_dtypes(model: _core.Model) -> None:
    """Arrays are never cast."""
    with pytest.raises(TypeError, match="lengths"):
        model.sample(**{**flows(2), "lengths": np.ones(2, np.int64)})
