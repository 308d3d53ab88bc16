"""The network against torch: every block, on ragged batches of awkward sizes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from devices import opened

from netdiffusion import _core

torch = pytest.importorskip("torch")

from reference import Reference, random_weights, save_weights  # noqa: E402

SIZES = {
    "odd": dict(columns=37, width=64, blocks=2, heads=2, mlp=160, classes=5),
    "reveal": dict(
        columns=37, width=64, blocks=2, heads=2, mlp=160, classes=5, reveal=True
    ),
    "one head of 96": dict(columns=11, width=96, blocks=1, heads=1, mlp=288, classes=1),
    "heads of 8": dict(columns=64, width=64, blocks=1, heads=8, mlp=33, classes=3),
}
INSTRUCTIONS = ("avx512", "avx2", "baseline")
LENGTHS = (1, 7, 63, 65, 127)


def model_of(path: Path, size: dict[str, int], device: str) -> _core.Model:
    """Open the network on a device."""
    return opened(device, lambda: _core.Model(path, device=device, **size))


@pytest.fixture(scope="module", params=SIZES)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, int], Reference]:
    """Random weights on disk, and the torch network with them."""
    size = SIZES[request.param]
    weights = random_weights(size)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    return save_weights(weights, path), size, Reference(weights, size)


def inputs(size: dict[str, int], lengths: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Noisy pixels and estimates of flows of these lengths."""
    rng = np.random.default_rng(1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    shape = (int(offsets[-1]), size["columns"], 3)
    x = rng.normal(0, 1.5, shape).astype(np.float32)
    p = rng.dirichlet((0.5, 0.5, 0.5), shape[:2])
    return {
        "x": x,
        "estimate": (2 * p - 1).astype(np.float32),
        "offsets": offsets,
        "classes": rng.integers(0, size["classes"] + 1, len(lengths), np.int32),
        "sigmas": np.full(len(lengths), 0.7, np.float32),
    }


def expected(
    reference: Reference, given: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Evaluate flow by flow in torch."""
    told: dict[str, list[np.ndarray]] = {"input": [], "blocks": [], "logits": []}
    offsets = given["offsets"]
    for f, (start, end) in enumerate(pairwise(offsets)):
        x, e = (torch.from_numpy(given[k][start:end]) for k in ("x", "estimate"))
        sigma, label = float(given["sigmas"][f]), int(given["classes"][f])
        held = torch.from_numpy(given["held"][start:end]) if "held" in given else None
        for name, value in reference.flow(x, e, sigma, label, held).items():
            told[name].append(value.numpy())
    axes = {"input": 0, "blocks": 1, "logits": 0}
    joined = {name: np.concatenate(v, axes[name]) for name, v in told.items()}
    joined["logits"] -= joined["logits"][..., 2:]  # only differences count
    return joined


def assert_close(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Within 1e-3 of values of order one to ten: fp32 sums in another order."""
    for name, value in wanted.items():
        assert got[name].shape == value.shape
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_every_block_is_torchs(case: tuple, instructions: str) -> None:
    """Input, each block and logits of a ragged batch."""
    path, size, reference = case
    model = model_of(path, size, f"cpu:{instructions}")
    given = inputs(size, LENGTHS)
    assert_close(model.forward(**given), expected(reference, given))


@pytest.mark.parametrize("device", ["cpu", "vulkan:0"])
def test_held_cells_enter_clean(case: tuple, device: str) -> None:
    """Known cells, some in each row, all of a row, none; with and without mask."""
    path, size, reference = case
    model = model_of(path, size, device)
    given = inputs(size, LENGTHS)
    rng = np.random.default_rng(2)
    held = rng.integers(-1, 2, given["x"].shape[:2], np.int8)
    held[rng.random(held.shape) < 0.6] = 2
    held[5], held[6] = 1, 2
    given["held"] = held
    assert_close(model.forward(**given), expected(reference, given))
    given["held"] = np.full_like(held, 2)
    free = model.forward(**given)
    del given["held"]
    assert_close(free, model.forward(**given))


@pytest.mark.parametrize("device", ["cpu", "vulkan:0"])
def test_first_step_has_no_estimate(case: tuple, device: str) -> None:
    """Zeros are no estimate, though no three colours add up to 0; held and not."""
    path, size, reference = case
    model = model_of(path, size, device)
    given = inputs(size, LENGTHS)
    given["estimate"][:] = 0
    assert_close(model.forward(**given), expected(reference, given))
    given["held"] = np.full(given["x"].shape[:2], 2, np.int8)
    given["held"][:, ::3] = 1
    assert_close(model.forward(**given), expected(reference, given))


def test_held_cells_are_checked(case: tuple) -> None:
    """Another shape or a value that no cell has is a ValueError."""
    path, size, _ = case
    model = _core.Model(path, device="cpu", **size)
    for held in (np.full((5, size["columns"]), 3), np.zeros((4, size["columns"]))):
        with pytest.raises(ValueError, match="held"):
            model.forward(**inputs(size, (2, 3)), held=held.astype(np.int8))


@pytest.mark.parametrize("sigma", [40.0, 1.0, 0.05])
def test_noise_levels(case: tuple, sigma: float) -> None:
    """The level scales the input and conditions the blocks."""
    path, size, reference = case
    given = inputs(size, (5, 2))
    given["sigmas"][:] = sigma
    model = _core.Model(path, device="cpu", **size)
    assert_close(model.forward(**given), expected(reference, given))


def test_flows_of_several_levels(case: tuple) -> None:
    """Flows of different levels in one call."""
    path, size, reference = case
    given = inputs(size, (3, 4, 5))
    given["sigmas"][:] = [2.0, 2.0, 0.3]
    model = _core.Model(path, device="cpu", **size)
    assert_close(model.forward(**given), expected(reference, given))


def test_longest_flow(case: tuple) -> None:
    """1,024 packets: several blocks of queries, all keys."""
    path, size, reference = case
    given = inputs(size, (1024, 3))
    model = _core.Model(path, device="cpu", **size)
    assert_close(model.forward(**given), expected(reference, given))


@pytest.mark.parametrize("lengths", [LENGTHS, (127,), (31, 2)])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(
    case: tuple, threads: int, lengths: tuple[int, ...]
) -> None:
    """Bit for bit the same: flows, rows or parts of ops a thread."""
    path, size, _ = case
    given = inputs(size, lengths)
    one = _core.Model(path, device="cpu", threads=1, **size).forward(**given)
    many = _core.Model(path, device="cpu", threads=threads, **size).forward(**given)
    for name, value in one.items():
        np.testing.assert_array_equal(value, many[name])


def test_neighbours_change_nothing(case: tuple) -> None:
    """Bit for bit the same alone as in a batch."""
    path, size, _ = case
    model = _core.Model(path, device="cpu", **size)
    given = inputs(size, LENGTHS)
    together = model.forward(**given)["logits"]
    for f, (a, b) in enumerate(pairwise(given["offsets"])):
        alone = model.forward(
            np.ascontiguousarray(given["x"][a:b]),
            np.ascontiguousarray(given["estimate"][a:b]),
            np.array([0, b - a]),
            given["classes"][f : f + 1],
            given["sigmas"][f : f + 1],
        )
        np.testing.assert_array_equal(together[a:b], alone["logits"])


def test_wrong_shapes_are_refused(case: tuple) -> None:
    """Arrays that do not belong together are a ValueError."""
    path, size, _ = case
    model = _core.Model(path, device="cpu", **size)
    good = inputs(size, (2, 3))
    for name, bad in {
        "offsets": np.array([0, 2, 4], np.int64),
        "sigmas": np.ones(1, np.float32),
        "classes": np.array([0, size["classes"] + 1], np.int32),
        "estimate": np.zeros((5, size["columns"] + 1, 3), np.float32),
    }.items():
        with pytest.raises(ValueError):
            model.forward(**{**good, name: bad})


@pytest.mark.parametrize("device", ["gpu", "cpu:", "vulkan:x", "vulkan:-1", ""])
def test_unknown_device(case: tuple, device: str) -> None:
    """A device that does not exist is an error with its name."""
    path, size, _ = case
    with pytest.raises((ValueError, _core.DeviceError)):
        _core.Model(path, device=device, **size)


@pytest.mark.parametrize(
    "change", [dict(width=48), dict(heads=5), dict(blocks=0), dict(columns=-1)]
)
def test_dimensions_are_checked(case: tuple, change: dict[str, int]) -> None:
    """Dimensions that cannot be are refused before anything is loaded."""
    path, size, _ = case
    with pytest.raises(ValueError):
        _core.Model(path, **{**size, **change})
