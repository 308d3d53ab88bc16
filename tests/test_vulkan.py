"""The Vulkan backend on lavapipe: every kernel family against torch and plain C."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdiffusion import _core

torch = pytest.importorskip("torch")

import test_ops as ops  # noqa: E402
from reference import Reference, random_weights, save_weights  # noqa: E402
from test_rowformer import assert_close, expected, inputs  # noqa: E402
from vulkan_run import SIZES, sample  # noqa: E402

ROOT = Path(__file__).parent.parent
SHADERS = sorted((ROOT / "shaders").glob("*.comp"))
LAYER = "VkLayer_khronos_validation.json"

LENGTHS = (1, 7, 63, 65, 127)
FAMILIES = ("texel", "subgroup", "tile")


def vulkan_devices() -> list[dict[str, str]]:
    """Return the Vulkan devices of this machine."""
    return [d for d in _core.devices() if d["name"].startswith("vulkan")]


needs_device = pytest.mark.skipif(
    not vulkan_devices(), reason="no Vulkan device: apt-get install mesa-vulkan-drivers"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Choices of kernels are kept with the test, not with the user."""
    monkeypatch.setenv("NETDIFFUSION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Models opened in the test use this kernel family."""
    monkeypatch.setenv("NETDIFFUSION_VULKAN_FAMILY", request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a place for models."""
    return tmp_path_factory.mktemp("vulkan")


def weights_of(name: str, folder: Path) -> tuple[Path, Reference]:
    """Save the random weights of a size, and return torch's network with them."""
    path = folder / f"{name}.safetensors"
    weights = random_weights(SIZES[name])
    if not path.exists():
        save_weights(weights, path)
    return path, Reference(weights, SIZES[name])


@pytest.mark.parametrize("shader", SHADERS, ids=lambda p: p.stem)
def test_shader_is_valid(shader: Path, tmp_path: Path) -> None:
    """spirv-val takes what the build's command makes of each shader."""
    if shutil.which("spirv-val") is None:
        pytest.skip("apt-get install spirv-tools")
    binary = tmp_path / "shader.spv"
    target = ["--target-env", "vulkan1.1"]
    compile_it = ["glslangValidator", "-V", *target, "-Ishaders", "-o", str(binary)]
    for command in (
        [*compile_it, str(shader)],
        ["spirv-val", *target, str(binary)],
    ):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def cases_of(op: str, n: int) -> list[dict[str, Any]]:
    """Arguments of an op for size n: as rows, and as what else it has."""
    flow = ops.tokens_of((n,))
    modulation = ops.normal(1, 192, seed=1)
    if op == "linear":
        return [
            dict(
                weight=(ops.normal(out, inside, seed=2), ops.normal(out)),
                epilogue=2,
                rows=rows,
                out=ops.zeros(rows, out),
                **{"in": ops.normal(rows, inside)},
            )
            for rows, inside, out in [(n, 65, 7), (7, n, 63), (1, 7, n)]
        ]
    if op == "gated":
        return [
            dict(
                weight=(ops.normal(64, 65, seed=2), ops.normal(64)),
                epilogue=4,
                residual=ops.normal(n, 64, seed=3),
                modulation=modulation,
                constant=ops.normal(1, 128, seed=4),
                tokens=flow,
                gate=64,
                rows=n,
                out=ops.zeros(n, 64),
                **{"in": ops.normal(n, 65)},
            )
        ]
    if op == "norm":
        given = dict(modulation=modulation, tokens=flow, shift=0, scale=96, rows=n)
        return [dict(**given, out=ops.zeros(n, 96), **{"in": ops.normal(n, 96)})]
    if op == "attention":
        rotary = ops.normal(n, 32, seed=5)
        given = dict(qkv=ops.normal(n, 192), rotary=rotary, heads=2)
        return [dict(**given, ragged=ops.ragged((n,)), out=ops.zeros(n, 64))]
    return [
        pixel_case(op, rows, cells, ops.ragged((rows,), 5))
        for rows, cells in ((n, 7), (7, n))
    ]


def pixel_case(op: str, rows: int, cells: int, ragged: Any) -> dict[str, Any]:
    """Arguments of the ops on rows of cells."""
    s = (cells + 31) // 32 * 32
    x, e = ops.normal(rows, 3 * s), ops.normal(rows, 2 * s, seed=1)
    logits = ops.normal(rows, 2 * s, seed=3)
    seed = dict(seed_low=3, noise_stream=1, draw_stream=2, noise_scale=2.0)
    held = np.random.default_rng(0).integers(-1, 3, (rows, cells), np.int8)
    wide = ops.normal(rows, 7 * s, seed=2)
    return {
        "condition": dict(given=x, noise=2 * x, rows=rows, out=np.zeros_like(x)),
        "input": dict(x=x, estimate=e, rows=rows, out=wide, input_scale=0.3),
        "hold": dict(held=held, rows=rows, out=wide),
        "estimate": dict(
            logits=logits, x=x, estimate=e, rows=rows, a=0.9, b=0.2, c=0.1
        ),
        "noise": dict(x=x, estimate=e, ragged=ragged, **seed),
        "renoise": dict(logits=logits, x=x, ragged=ragged, **seed),
        "draw": dict(logits=logits, ragged=ragged, cells=held, temperature=0.0, **seed),
    }[op]


def size_of(y: np.ndarray) -> float:
    """Return the size of the values of an array."""
    return float(np.abs(y).max(initial=0.0))


@needs_device
@pytest.mark.parametrize(
    "op",
    [
        *["linear", "gated", "norm", "attention", "condition"],
        *["input", "hold", "estimate", "noise", "renoise", "draw"],
    ],
)
def test_ops_are_plain_c(op: str, family: str) -> None:
    """Sizes 1 to 1,024: floats within 1e-5 of the largest, drawn cells the same.

    That is fp32 sums of up to 1,024 terms in another order; C is built with the
    instructions that every CPU has.
    """
    kernel = "linear" if op == "gated" else op
    for n in (1, 7, 63, 65, 127, 1024):
        for given in cases_of(op, n):
            wanted = ops.run("cpu:baseline", kernel, **given)
            got = ops.run("vulkan:0", kernel, **given)
            wanted.pop("qkv", None)  # scratch
            for name, y in wanted.items():
                bound = 1e-5 * max(1.0, size_of(y))
                assert size_of(got[name].astype(float) - y) <= bound, (n, name)


@needs_device
@pytest.mark.parametrize("size", SIZES)
def test_every_block_is_torchs(size: str, folder: Path, family: str) -> None:
    """Input, each block and logits of a ragged batch: within 1e-3 of both."""
    path, reference = weights_of(size, folder)
    given = inputs(SIZES[size], LENGTHS)
    got = _core.Model(path, device="vulkan", **SIZES[size]).forward(**given)
    assert_close(got, expected(reference, given))
    assert_close(got, _core.Model(path, device="cpu", **SIZES[size]).forward(**given))


@needs_device
@pytest.mark.parametrize("sigma", [40.0, 0.05])
def test_noise_levels(sigma: float, folder: Path, family: str) -> None:
    """The level scales the input and conditions the blocks."""
    path, reference = weights_of("7", folder)
    given = inputs(SIZES["7"], (5, 2))
    given["sigmas"][:] = sigma
    model = _core.Model(path, device="vulkan", **SIZES["7"])
    assert_close(model.forward(**given), expected(reference, given))


@needs_device
def test_long_flow(folder: Path, family: str) -> None:
    """1,024 packets: many tiles of queries, many blocks of keys."""
    path, _ = weights_of("7", folder)
    given = inputs(SIZES["7"], (1024, 3))
    got = _core.Model(path, device="vulkan", **SIZES["7"]).forward(**given)
    assert_close(got, _core.Model(path, device="cpu", **SIZES["7"]).forward(**given))


@needs_device
@pytest.mark.parametrize(
    "options",
    [
        dict(temperature=0.0),
        dict(temperature=0.7, guidance=2.0),
        dict(temperature=1.0, renoise_rounds=2, renoise_sigma=0.7),
    ],
    ids=["arg-max", "guided", "renoised"],
)
def test_samples_are_cpus(options: dict[str, Any], folder: Path, family: str) -> None:
    """The same seed draws the same cells, but for sums that end on an edge."""
    path, _ = weights_of("127", folder)
    ours = _core.Model(path, device="vulkan", **SIZES["127"])
    cpu = _core.Model(path, device="cpu", **SIZES["127"])
    flows = 8 if family == "tile" else 40
    got = np.concatenate(sample(ours, flows, **options))
    wanted = np.concatenate(sample(cpu, flows, **options))
    assert set(np.unique(got)) <= {-1, 0, 1}
    assert np.mean(got == wanted) >= 0.9999


@needs_device
def test_neighbours_change_nothing(folder: Path, family: str) -> None:
    """Batches of 1, 7 and 64 draw the same flows, bit for bit."""
    path, _ = weights_of("63", folder)
    model = _core.Model(path, device="vulkan", **SIZES["63"])
    of_64, of_7, of_1 = (sample(model, n) for n in (64, 7, 1))
    for few in (of_7, of_1):
        for flow, same in zip(few, of_64, strict=False):
            np.testing.assert_array_equal(flow, same)


@needs_device
def test_devices_are_described() -> None:
    """Names count up; type, driver, Vulkan version, subgroup and memory are told."""
    devices = vulkan_devices()
    assert [d["name"] for d in devices] == [f"vulkan:{i}" for i in range(len(devices))]
    types = {"discrete", "integrated", "virtual", "cpu", "other"}
    assert {d["type"] for d in devices} <= types
    told = r"; driver .+; Vulkan 1\.\d+\.\d+; subgroups of \d+; \d+ MB$"
    assert all(re.search(told, d["description"]) for d in devices)


@needs_device
def test_index_past_the_last(folder: Path) -> None:
    """vulkan:99 is an error that says what there is."""
    path, _ = weights_of("1", folder)
    with pytest.raises(_core.DeviceError, match=r"no Vulkan device 99.*vulkan:0"):
        _core.Model(path, device="vulkan:99", **SIZES["1"])


def run_python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python afresh with these words and variables."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT / "tests",
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"NETDIFFUSION_VULKAN_LOADER": "/none/libvulkan.so.1"}, "cannot be opened"),
        ({"NETDIFFUSION_VULKAN_LOADER": "libm.so.6"}, "not a Vulkan loader"),
        (
            {
                "VK_ICD_FILENAMES": "/none.json",
                "VK_DRIVER_FILES": "/none.json",
            },
            "found no driver",
        ),
    ],
    ids=["no loader", "not a loader", "no driver"],
)
def test_without_vulkan(environment: dict[str, str], text: str, folder: Path) -> None:
    """Import, devices() and cpu work; vulkan names the packages to install."""
    path, _ = weights_of("1", folder)
    program = textwrap.dedent(
        f"""
        from netdiffusion import _core
        size = {SIZES["1"]!r}
        assert not [d for d in _core.devices() if d["name"] != "cpu"]
        _core.Model({str(path)!r}, device="cpu", **size)
        try:
            _core.Model({str(path)!r}, device="vulkan", **size)
        except _core.DeviceError as error:
            print(error)
        """
    )
    done = run_python("-c", program, **environment)
    assert done.returncode == 0, done.stderr
    assert text in done.stdout and "mesa-vulkan-drivers" in done.stdout


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the loader whose devices fail."""
    path = tmp_path_factory.mktemp("shim") / "libshim.so"
    source = ROOT / "tests" / "vulkan_shim.c"
    command = ["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", "-o", str(path)]
    subprocess.run([*command, str(source), "-ldl"], check=True)
    return str(path)


def draw(folder: Path, cache: Path, **environment: str) -> list[str]:
    """Draw flows in a fresh process; return the device and the warnings."""
    path, _ = weights_of("7", folder)
    environment["NETDIFFUSION_CACHE"] = str(cache)
    done = run_python("vulkan_run.py", "draw", str(path), **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@needs_device
@pytest.mark.parametrize(
    ("fault", "device", "warning"),
    [
        ({"SHIM_LOST": "8"}, "cpu", "the device was lost"),
        ({"SHIM_LOST": "1"}, "cpu", "the device was lost"),
        ({"SHIM_SHUFFLE": "0"}, "tile", "texel needs subgroup shuffles"),
        ({"SHIM_INT64": "0"}, "subgroup", "texel needs integers of 64 bits"),
        ({"SHIM_WRONG": "texel"}, "subgroup", "texel computes wrong results"),
        ({"SHIM_WRONG": "all"}, "cpu", "no kernel family is right"),
    ],
    ids=[
        "lost",
        "lost at once",
        "no shuffles",
        "no int64",
        "wrong texels",
        "all wrong",
    ],
)
def test_devices_that_fail(
    fault: dict[str, str],
    device: str,
    warning: str,
    folder: Path,
    cache: Path,
    shim: str,
) -> None:
    """Each failure ends in a named fallback, one warning, and the same flows."""
    ran_on, *told = draw(folder, cache, NETDIFFUSION_VULKAN_LOADER=shim, **fault)
    assert device in ran_on
    assert len(told) == 1 and warning in told[0]


@needs_device
def test_little_memory(folder: Path, shim: str) -> None:
    """6 MB of device memory: the batch is halved, with one warning, and goes on."""
    path, _ = weights_of("127", folder)
    faults = {"NETDIFFUSION_VULKAN_LOADER": shim, "SHIM_MEMORY": "6000000"}
    done = run_python("vulkan_run.py", "halve", str(path), **faults)
    assert done.returncode == 0, done.stderr
    (told,) = done.stdout.splitlines()
    assert "not enough memory for the batch" in told


@needs_device
def test_choice_is_kept(folder: Path, cache: Path, shim: str) -> None:
    """The family is chosen once; a torn, old or foreign file is as none."""
    texel = draw(folder, cache)
    assert len(texel) == 1 and "texel" in texel[0]
    (kept,) = cache.glob("vulkan-*.family")
    whole = kept.read_bytes()
    for wrong in (whole[:-1], b"", whole.replace(b"driver", b"Driver")):
        kept.write_bytes(wrong)
        assert draw(folder, cache) == texel
        assert kept.read_bytes() == whole
    kept.unlink()
    wrong_texels = {"NETDIFFUSION_VULKAN_LOADER": shim, "SHIM_WRONG": "texel"}
    draw(folder, cache, **wrong_texels)
    (subgroup,) = draw(folder, cache)  # not tested again, not warned again
    assert "subgroup" in subgroup
    (measured,) = draw(folder, cache, NETDIFFUSION_VULKAN_FAMILY="measure")
    assert "texel" in measured and kept.read_bytes() == whole


@needs_device
def test_cache_can_be_off_or_impossible(folder: Path, cache: Path) -> None:
    """Without a place for files, all goes on."""
    cache.write_text("a file where the directory should be")
    assert "texel" in draw(folder, cache)[0]
    here = Path.cwd()
    assert "texel" in draw(folder, Path("0"))[0]
    assert not (here / "0").exists() and not (ROOT / "tests" / "0").exists()


@needs_device
def test_families_have_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown family is an error that names the others."""
    path, _ = weights_of("1", folder)
    monkeypatch.setenv("NETDIFFUSION_VULKAN_FAMILY", "cuda")
    with pytest.raises(_core.DeviceError, match="texel, subgroup, tile"):
        _core.Model(path, device="vulkan", **SIZES["1"])


@needs_device
def test_base_model_draws_the_same(family: str) -> None:
    """The model in the package: 99.99 % of cells or more as on the CPU."""
    base = ROOT / "netdiffusion" / "models" / "base"
    config = json.loads((base / "config.json").read_text())
    flows = 24 if family == "texel" else 2
    lengths = (np.arange(flows) * 7 % 32 + 1).astype(np.int32)
    cells = [
        _core.Model(
            base / "model.safetensors", device=device, **config["network"]
        ).sample(
            np.arange(flows, dtype=np.int32),
            lengths,
            np.arange(flows, dtype=np.uint64),
            11,
            np.array(config["sampler"]["sigmas"][:: 1 if flows > 2 else 4], np.float32),
            0.0,
        )
        for device in ("cpu", "vulkan")
    ]
    assert np.mean(cells[0] == cells[1]) >= 0.9999


@needs_device
@pytest.mark.parametrize("kernels", FAMILIES)
def test_validation_layer_is_silent(kernels: str, folder: Path) -> None:
    """All ops under VK_LAYER_KHRONOS_validation: no message, no leaked object."""
    layers = Path("/usr/share/vulkan/explicit_layer.d") / LAYER
    if not layers.exists() and "VK_LAYER_PATH" not in os.environ:
        pytest.skip("apt-get install vulkan-validationlayers")
    path, _ = weights_of("63", folder)
    done = run_python(
        "vulkan_run.py",
        "ops",
        str(path),
        NETDIFFUSION_VALIDATION="1",
        NETDIFFUSION_VULKAN_FAMILY=kernels,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
