"""Every op of the engine against NumPy and torch, on every device, odd sizes.

The specification is the text of ``backend.h``. There is no second, plain C version
of an op: products are held to sums in double precision, the rest to torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from devices import opened

from netdiffusion import _core

torch = pytest.importorskip("torch")
import reference  # noqa: E402

DEVICES = ("cpu:avx512", "cpu:avx2", "cpu:baseline", "vulkan:0")
ROWS = (1, 7, 63, 65, 127, 1024)
STEP = """noise_row input_scale estimated guidance a b c noise_scale temperature
draw_stream noise_stream seed_low seed_high"""
FIELDS = {name: i for i, name in enumerate(STEP.split())}
WHOLE = ("noise_row", "draw_stream", "noise_stream", "seed_low", "seed_high")


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Return a device that this machine has."""
    name = str(request.param)
    x = np.zeros((1, 32), np.float32)
    opened(name, lambda: run(name, "condition", given=x, noise=x, rows=1, out=x))
    return name


def run(device: str, op: str, **arguments: Any) -> dict[str, np.ndarray]:
    """Run an op; arguments that are fields of the step go there."""
    step = np.zeros(16, np.uint32)
    for name in [n for n in FIELDS if n in arguments]:
        value = arguments.pop(name)
        whole = np.uint32(value) if name in WHOLE else np.float32(value).view(np.uint32)
        step[FIELDS[name]] = whole
    return _core.run_op(device, op, arguments, step)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Float32 normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def zeros(*shape: int) -> np.ndarray:
    """Float32 zeros."""
    return np.zeros(shape, np.float32)


def tokens_of(lengths: tuple[int, ...]) -> np.ndarray:
    """Rows of flow, packet, first token, packets."""
    first = np.cumsum((0, *lengths))
    rows = [(f, i, first[f], n) for f, n in enumerate(lengths) for i in range(n)]
    return np.array(rows, np.uint32)


def ragged(
    lengths: tuple[int, ...], first_id: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and ids of a batch; ids of more than 32 bits."""
    ids = np.arange(len(lengths), dtype=np.uint64) * np.uint64(2**33 + 1)
    return np.array(lengths, np.int32), ids + np.uint64(first_id)


def assert_close(got: np.ndarray, wanted: np.ndarray, scale: float = 1.0) -> None:
    """Fp32 sums in another order: 2e-5 of the size of the values."""
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-5 * scale)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(
    ("out", "inside"), [(33, 7), (64, 65), (129, 222), (3, 1), (65, 1024)]
)
def test_linear(device: str, rows: int, out: int, inside: int) -> None:
    """Plain, SiLU, GELU and residual epilogues."""
    x, matrix, bias = normal(rows, inside), normal(out, inside, seed=1), normal(out)
    residual = normal(rows, out, seed=2)
    y = x.astype(np.float64) @ matrix.T.astype(np.float64) + bias
    t = torch.from_numpy(y)
    wanted = [
        y,
        torch.nn.functional.silu(t).numpy(),
        torch.nn.functional.gelu(t, approximate="tanh").numpy(),
        residual + y,
    ]
    given = dict(weight=(matrix, bias), residual=residual, rows=rows)
    for epilogue, value in enumerate(wanted):
        got = run(
            device,
            "linear",
            epilogue=epilogue,
            out=zeros(rows, out),
            **{"in": x},
            **given,
        )
        assert_close(got["out"], value, scale=inside**0.5 + 1)


@pytest.mark.parametrize("lengths", [(1,), (7, 1, 63), (127, 65)])
def test_gated_linear(device: str, lengths: tuple[int, ...]) -> None:
    """Each flow has its own gate."""
    rows, width = sum(lengths), 64
    x, matrix, bias = normal(rows, 96), normal(width, 96, seed=1), normal(width)
    modulation, constant = normal(len(lengths), 200, seed=3), normal(1, 192, seed=4)
    residual, tokens = normal(rows, width, seed=2), tokens_of(lengths)
    gates = (modulation[:, 64:128] + constant[:, 64:128])[tokens[:, 0]]
    got = run(
        device,
        "linear",
        **{"in": x},
        weight=(matrix, bias),
        epilogue=4,
        residual=residual,
        modulation=modulation,
        constant=constant,
        tokens=tokens,
        gate=64,
        rows=rows,
        out=zeros(rows, width),
    )
    assert_close(got["out"], residual + gates * (x @ matrix.T + bias), scale=30.0)


@pytest.mark.parametrize("with_constant", [True, False])
@pytest.mark.parametrize("lengths", [(1,), (7, 63, 1), (65, 127)])
def test_norm(device: str, lengths: tuple[int, ...], with_constant: bool) -> None:
    """Layer norm with shift and scale of the flow."""
    rows, width, tokens = sum(lengths), 96, tokens_of(lengths)
    x = 3 * normal(rows, width) + 1
    modulation, constant = normal(len(lengths), 192, seed=1), normal(1, 192, seed=2)
    m = (modulation + (constant if with_constant else 0))[tokens[:, 0]]
    given = {"constant": constant} if with_constant else {}
    got = run(
        device,
        "norm",
        **{"in": x},
        modulation=modulation,
        tokens=tokens,
        shift=0,
        scale=width,
        rows=rows,
        out=zeros(rows, width),
        **given,
    )
    t = torch.from_numpy(x)
    y = torch.nn.functional.layer_norm(t, (width,), eps=1e-6).numpy()
    assert_close(got["out"], y * (1 + m[:, width:]) + m[:, :width], scale=5.0)


@pytest.mark.parametrize(("heads", "d"), [(1, 8), (2, 32), (4, 64), (1, 96)])
@pytest.mark.parametrize("lengths", [(1,), (7, 63, 1, 65), (127,), (200, 3), (1024,)])
def test_attention(device: str, lengths: tuple[int, ...], heads: int, d: int) -> None:
    """Rotary attention inside each flow."""
    rows, width, longest = sum(lengths), heads * d, max(lengths)
    if width % 32:
        width, heads = 32, 4
    qkv = normal(rows, 3 * width)
    angle = np.arange(longest)[:, None] * 10000.0 ** (-2 * np.arange(d // 2) / d)
    rotary = np.concatenate([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    got = run(
        device,
        "attention",
        qkv=qkv.copy(),
        rotary=rotary,
        ragged=ragged(lengths),
        heads=heads,
        out=zeros(rows, width),
    )
    wanted, start = [], 0
    for n in lengths:
        t = torch.from_numpy(qkv[start : start + n]).view(n, 3, heads, d)
        q, k, v = reference.rotate(t[:, 0]), reference.rotate(t[:, 1]), t[:, 2]
        p = (torch.einsum("ihd,jhd->hij", q, k) / d**0.5).softmax(-1)
        wanted.append(torch.einsum("hij,jhd->ihd", p, v).reshape(n, width).numpy())
        start += n
    assert_close(got["out"], np.concatenate(wanted), scale=3.0)


def test_condition(device: str) -> None:
    """silu(given + a row of the noise levels)."""
    given, noise = normal(5, 64), normal(3, 64, seed=1)
    got = run(
        device,
        "condition",
        given=given,
        noise=noise,
        rows=5,
        out=zeros(5, 64),
        noise_row=2,
    )
    y = given + noise[2]
    assert_close(got["out"], y / (1 + np.exp(-y)))


def estimates(rows: int, cells: int, seed: int = 0) -> np.ndarray:
    """Estimates (rows, cells, 3) as softmax leaves them."""
    p = torch.from_numpy(normal(rows, cells, 3, seed=seed)).softmax(-1).numpy()
    return 2 * p - 1


@pytest.mark.parametrize("estimated", [0.0, 1.0])
@pytest.mark.parametrize("planes", [5, 6, 7])
@pytest.mark.parametrize(
    ("rows", "cells"), [*((r, 37) for r in ROWS), (5, 1), (5, 64), (5, 256)]
)
def test_input(
    device: str, rows: int, cells: int, planes: int, estimated: float
) -> None:
    """Scaled pixels, two or three colours of the estimate, flag or mask."""
    s = reference.stride(cells)
    x, e = normal(rows, 3 * s), normal(rows, 2 * s, seed=1)
    out = normal(rows, 5 * s + 1 if planes == 5 else planes * s)
    got = run(
        device,
        "input",
        x=x,
        estimate=e,
        rows=rows,
        out=out,
        input_scale=0.25,
        estimated=estimated,
    )["out"]
    third = -np.float32(estimated) - e[:, :s] - e[:, s:]
    rest = {5: np.full((rows, 1), estimated), 6: third}
    rest[7] = np.concatenate([third, zeros(rows, s)], 1)
    wanted = np.concatenate([x * 0.25, e, rest[planes]], 1)
    np.testing.assert_array_equal(got, wanted.astype(np.float32))


@pytest.mark.parametrize("cells", [1, 7, 37, 64])
@pytest.mark.parametrize("masked", [False, True])
def test_hold(device: str, cells: int, masked: bool) -> None:
    """Held cells become pixels in both halves and stand in the mask."""
    rng = np.random.default_rng(cells)
    held = rng.integers(-1, 3, (65, cells), np.int8)
    s = reference.stride(cells)
    out = normal(65, (7 if masked else 6) * s)
    got = run(device, "hold", held=held, rows=64, out=out)["out"]
    wanted = out.copy()
    t, j = np.nonzero(held[:64] != 2)
    for i in range(3):
        pixel = np.where(i == 1 - held[t, j], 1, -1)
        wanted[t, i * s + j] = wanted[t, (3 + i) * s + j] = pixel
    if masked:
        wanted[t, 6 * s + j] = 1
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("cells", [1, 31, 33, 65, 256])
@pytest.mark.parametrize("rows", [1, 63, 100])
def test_estimate(device: str, rows: int, cells: int, guided: bool) -> None:
    """Guidance, softmax and the solver's update."""
    shape = (rows, cells, 3)
    logits, none, x = (3 * normal(*shape, seed=i) for i in range(3))
    logits[..., 2] = none[..., 2] = 0
    old = estimates(rows, cells, seed=3)
    given = {"none": reference.to_planes(none, 2)} if guided else {}
    got = run(
        device,
        "estimate",
        logits=reference.to_planes(logits, 2),
        x=reference.to_planes(x),
        estimate=reference.to_planes(old, 2),
        rows=rows,
        guidance=1.5,
        a=0.9,
        b=0.3,
        c=-0.1,
        **given,
    )
    got = {name: reference.from_planes(v, cells) for name, v in got.items()}
    total = none + 1.5 * (logits - none) if guided else logits
    e = 2 * torch.from_numpy(total).softmax(-1).numpy() - 1
    assert_close(got["logits"], total[..., :2], scale=10.0)
    assert_close(got["estimate"], e[..., :2], scale=4.0)
    assert_close(got["x"], 0.9 * x + 0.3 * e - 0.1 * old, scale=4.0)


SEED = dict(seed_low=7, seed_high=9)


def per_flow(lengths: tuple[int, ...], first_id: int, make: Any) -> np.ndarray:
    """Concatenate make(id, packets) of every flow."""
    _, ids = ragged(lengths, first_id)
    return np.concatenate([make(int(i), n) for i, n in zip(ids, lengths, strict=True)])


def noise_of(
    lengths: tuple[int, ...], first_id: int, stream: int, cells: int
) -> np.ndarray:
    """Return normal numbers of a batch's pixels."""
    seed = 7 + (9 << 32)
    return per_flow(
        lengths,
        first_id,
        lambda i, n: reference.pixel_normal(seed, i, stream, n, cells),
    )


@pytest.mark.parametrize("cells", [1, 5, 64, 256])
def test_noise(device: str, cells: int) -> None:
    """Start noise of each flow, by its own id."""
    lengths, s = (1, 7, 65), reference.stride(cells)
    rows = sum(lengths)
    got = run(
        device,
        "noise",
        x=normal(rows, 3 * s),
        estimate=normal(rows, 2 * s),
        ragged=ragged(lengths, 5),
        noise_scale=40.0,
        noise_stream=3,
        **SEED,
    )
    wanted = 40 * noise_of(lengths, 5, 3, cells)
    x = reference.from_planes(got["x"], cells)
    np.testing.assert_allclose(x, wanted, rtol=2e-4, atol=1e-3)
    assert not got["estimate"].any()


def test_noise_may_be_added(device: str) -> None:
    """Without an estimate the noise goes on top of x."""
    lengths = (5, 1, 65)
    x, e = normal(71, 96), zeros(71, 64)
    how = dict(ragged=ragged(lengths, 5), noise_scale=0.7, noise_stream=9, **SEED)
    got = run(device, "noise", x=x.copy(), **how)["x"]
    alone = run(device, "noise", x=x.copy(), estimate=e, **how)["x"]
    np.testing.assert_allclose(got, x + alone, rtol=0, atol=1e-6)


def colours(logits: np.ndarray, lengths: tuple[int, ...], stream: int) -> np.ndarray:
    """Draw cells as the engine does; logits (T, cells, 3)."""
    seed, cells = 7 + (9 << 32), logits.shape[1]
    u = per_flow(
        lengths, 1, lambda i, n: reference.cell_uniform(seed, i, stream, n, cells)
    )
    p = torch.from_numpy(logits).double().softmax(-1).numpy()
    return reference.draw(p, u)


def logits_of(rows: int, cells: int) -> np.ndarray:
    """Random logits (rows, cells, 3); the third is 0."""
    logits = normal(rows, cells, 3)
    logits[..., 2] = 0
    return logits


@pytest.mark.parametrize("cells", [21, 65, 256])
def test_renoise(device: str, cells: int) -> None:
    """Cells drawn, as pixels, plus noise."""
    lengths = (3, 64)
    logits = logits_of(sum(lengths), cells)
    given = dict(
        logits=reference.to_planes(logits, 2),
        x=normal(sum(lengths), 3 * reference.stride(cells)),
        ragged=ragged(lengths, 1),
        draw_stream=1,
        noise_stream=2,
        **SEED,
    )
    got = reference.from_planes(run(device, "renoise", **given)["x"], cells)
    np.testing.assert_array_equal(got, 2 * np.eye(3)[colours(logits, lengths, 1)] - 1)
    noisy = run(device, "renoise", **given, noise_scale=0.5)["x"]
    added = reference.from_planes(noisy, cells) - got
    wanted = noise_of(lengths, 1, 2, cells) / 2
    np.testing.assert_allclose(added, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cells", [33, 65])
@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_draw(device: str, temperature: float, cells: int) -> None:
    """Arg-max, or a draw at a temperature; red 1, green 0, blue -1."""
    lengths = (1, 63, 40)
    logits = logits_of(sum(lengths), cells)
    logits[0, :4] = [[0, 0, 0], [1, 1, 0], [-1, 0, 0], [-1, -1, 0]]
    got = run(
        device,
        "draw",
        logits=reference.to_planes(logits, 2),
        ragged=ragged(lengths, 1),
        cells=np.zeros((sum(lengths), cells), np.int8),
        temperature=temperature,
        draw_stream=0x80000000,
        **SEED,
    )
    if temperature == 0:
        np.testing.assert_array_equal(got["cells"], 1 - logits.argmax(-1))
        return
    wanted = 1 - colours(logits / np.float32(temperature), lengths, 0x80000000)
    assert (got["cells"] != wanted).mean() < 1e-3  # u beside a step of the CDF


def test_draws_follow_their_probabilities(device: str) -> None:
    """Frequencies of 40,000 draws within 5 standard deviations."""
    p = np.array([0.7, 0.2, 0.1])
    logits = np.tile(np.log(p / p[2]), (400, 100, 1)).astype(np.float32)
    cells = run(
        device,
        "draw",
        logits=reference.to_planes(logits, 2),
        ragged=ragged((400,)),
        cells=np.zeros((400, 100), np.int8),
        temperature=1.0,
    )["cells"]
    for colour, probability in enumerate(p):
        share = (cells == 1 - colour).mean()
        assert abs(share - probability) < 5 * (probability / cells.size) ** 0.5


def test_shapes_are_checked() -> None:
    """An op tells which tensor does not fit."""
    x = normal(4, 8)
    weight = (normal(16, 8), normal(16))
    good = dict(weight=weight, rows=4, out=zeros(4, 16), **{"in": x})
    for change, text in [
        ({"out": zeros(4, 15)}, "out has 15 columns"),
        ({"rows": 5}, "in has 4 rows"),
        ({"in": x.astype(np.int8)}, "in has the wrong type"),
        ({"epilogue": 3}, "residual is missing"),
    ]:
        with pytest.raises(ValueError, match=text):
            run("cpu", "linear", **{**good, **change})
    with pytest.raises(ValueError, match="no such op"):
        run("cpu", "nothing")
    with pytest.raises(ValueError, match="weight is missing"):
        run("cpu", "linear", rows=1)
