"""The Vulkan backend on lavapipe: both kernel families against torch and cpu."""

from __future__ import annotations

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

from reference import Reference, random_weights, save_weights  # noqa: E402
from test_rowformer import assert_close, expected, inputs  # noqa: E402

ROOT = Path(__file__).parent.parent
SHADERS = sorted((ROOT / "shaders").glob("*.comp"))
LAYER = "VkLayer_khronos_validation.json"

# Every op sees 1, 7, 63, 65 and 127 as rows or columns; heads of 8 to 128.
SIZES = {
    "1": dict(columns=1, width=32, blocks=1, heads=4, mlp=7, classes=1),
    "7": dict(columns=7, width=64, blocks=2, heads=1, mlp=63, classes=7),
    "63": dict(columns=63, width=96, blocks=1, heads=4, mlp=127, classes=3),
    "65": dict(columns=65, width=128, blocks=1, heads=1, mlp=65, classes=2),
    "127": dict(columns=127, width=160, blocks=1, heads=4, mlp=1, classes=63),
}
LENGTHS = (1, 7, 63, 65, 127)
FAMILIES = ("shuffle", "tile")


def vulkan_devices() -> list[dict[str, str]]:
    """Return the Vulkan devices of this machine."""
    return [d for d in _core.devices() if d["name"].startswith("vulkan")]


needs_device = pytest.mark.skipif(
    not vulkan_devices(), reason="no Vulkan device: apt-get install mesa-vulkan-drivers"
)


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


def sample(model: _core.Model, flows: int, **options: Any) -> list[np.ndarray]:
    """Draw flows with ids from 2^32 - 3 on; lengths run over 1 to 16."""
    number = np.arange(flows)
    lengths = (number * 5 % 16 + 1).astype(np.int32)
    cells = model.sample(
        (number % 4).astype(np.int32),
        lengths,
        number.astype(np.uint64) + np.uint64(2**32 - 3),
        20_000_000_007,
        np.array([40, 6, 1.5, 0.5, 0.1], np.float32),
        **options,
    )
    return np.split(cells, np.cumsum(lengths)[:-1])


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
    got = np.concatenate(sample(ours, 40, **options))
    wanted = np.concatenate(sample(cpu, 40, **options))
    assert set(np.unique(got)) <= {-1, 0, 1}
    assert np.mean(got == wanted) >= 0.999


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


def run_python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter with these variables set."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
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
    done = run_python(
        f"""
        from netdiffusion import _core
        size = {SIZES["1"]!r}
        assert not [d for d in _core.devices() if d["name"] != "cpu"]
        _core.Model({str(path)!r}, device="cpu", **size)
        try:
            _core.Model({str(path)!r}, device="vulkan", **size)
        except _core.DeviceError as error:
            print(error)
        """,
        **environment,
    )
    assert done.returncode == 0, done.stderr
    assert text in done.stdout and "mesa-vulkan-drivers" in done.stdout


@needs_device
@pytest.mark.parametrize("kernels", FAMILIES)
def test_validation_layer_is_silent(kernels: str, folder: Path) -> None:
    """All ops under VK_LAYER_KHRONOS_validation: no message, no leaked object."""
    layers = Path("/usr/share/vulkan/explicit_layer.d") / LAYER
    if not layers.exists() and "VK_LAYER_PATH" not in os.environ:
        pytest.skip("apt-get install vulkan-validationlayers")
    path, _ = weights_of("63", folder)
    done = run_python(
        f"""
        from netdiffusion import _core
        from test_rowformer import inputs
        from test_vulkan import SIZES, sample
        model = _core.Model({str(path)!r}, device="vulkan", **SIZES["63"])
        model.forward(**inputs(SIZES["63"], (1, 7, 3)))
        sample(model, 5, temperature=1.0, renoise_rounds=1, guidance=1.5)
        """,
        NETDIFFUSION_VALIDATION="1",
        NETDIFFUSION_VULKAN_FAMILY=kernels,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
