"""The layout of design as a rule, and the checks of style, types and warnings."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"

# Top to bottom: a file includes only headers above it in its own half.
NET = [
    "bytes",
    "layout",
    "checksum",
    "packet",
    "capture",
    "merge",
    "pcapng",
    "flow",
    "rows",
    "icmp",
    "payload",
    "reader",
    "writer",
    "gap",
    "phrase",
    "canonical",
    "nprint",
    "repair",
    "validate",
]
ENGINE = [
    "json",
    "safetensors",
    "rng",
    "threads",
    "backend",
    "cpu",
    "gpu",
    "ops",
    "rowformer",
    "sampler",
]

FOREIGN_OWNERS = {
    "pcap/pcap.h": {"csrc/net/capture.c"},
    "png.h": {"csrc/image/pngio.c"},
    "vulkan/vulkan.h": {"csrc/engine/gpu_internal.h"},
    "Python.h": {"csrc/python/module.h"},
    "numpy/arrayobject.h": {"csrc/python/module.h"},
}

TORCH_IMPORTERS = "netdiffusion/training/"
LAZY_IMPORTS = (
    "torch",
    "sklearn",
    "imblearn",
    "matplotlib",
    "pandas",
    "scipy",
    "scapy",
)


def c_files() -> list[Path]:
    """Return every C source and header."""
    return sorted([*CSRC.rglob("*.c"), *CSRC.rglob("*.h")])


def includes(path: Path) -> list[str]:
    """Return what a C file includes, as written."""
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)', path.read_text(), re.M)


def half(path: Path) -> str:
    """Return net, image, engine, python, or the empty string for csrc itself."""
    inside = path.relative_to(CSRC).parts
    return inside[0] if len(inside) > 1 else ""


@pytest.mark.parametrize("path", c_files(), ids=lambda p: str(p.relative_to(CSRC)))
def test_halves_do_not_include_each_other(path: Path) -> None:
    """net, image and engine see only themselves and csrc/status.h."""
    allowed = {"net": {"net"}, "image": {"image"}, "engine": {"engine"}, "": set()}
    for name in includes(path):
        target = (path.parent / name).resolve()
        if not target.is_relative_to(CSRC) or not target.exists():
            continue
        where = half(target)
        if where and half(path) != "python":
            assert where in allowed[half(path)], f"{path.name} includes {name}"
        assert where != "python" or half(path) == "python"


@pytest.mark.parametrize(("order", "folder"), [(NET, "net"), (ENGINE, "engine")])
def test_headers_are_layered(order: list[str], folder: str) -> None:
    """A header includes only headers above it; the list names every header."""
    headers = sorted((CSRC / folder).glob("*.h"))
    for header in headers:
        place = order.index(stem_in(order, header))
        for name in includes(header):
            above = header.parent / name
            if above in headers and above != header:
                assert order.index(stem_in(order, above)) <= place, (header, name)


def stem_in(order: list[str], header: Path) -> str:
    """Return the longest listed stem that a header's name starts with."""
    fits = [s for s in order if header.stem == s or header.stem.startswith(s + "_")]
    assert fits, f"{header.name} stands in no layer of test_codebase.py"
    return max(fits, key=len)


def test_foreign_headers_have_one_owner() -> None:
    """pcap.h, png.h, vulkan.h, Python.h and NumPy's each have one includer."""
    for foreign, owners in FOREIGN_OWNERS.items():
        found = {str(p.relative_to(ROOT)) for p in c_files() if foreign in includes(p)}
        assert found == owners, foreign


@pytest.mark.parametrize("folder", ["net", "image", "engine"])
def test_core_has_no_globals(folder: str, object_files: list[Path]) -> None:
    """.data and .bss of the pure halves are empty but for the thread pool."""
    mine = [p for p in object_files if p.parent.name == folder]
    assert mine
    for path in mine:
        out = subprocess.run(
            ["size", "-A", str(path)], capture_output=True, text=True, check=True
        ).stdout
        sizes = dict(re.findall(r"^(\.data|\.bss)\s+(\d+)", out, re.M))
        assert all(int(v) == 0 for v in sizes.values()), (path.name, sizes)


@pytest.fixture(scope="session")
def object_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Build the extension afresh with every warning as an error."""
    scratch = tmp_path_factory.mktemp("werror")
    places = [
        "--build-temp",
        str(scratch / "temp"),
        "--build-lib",
        str(scratch / "lib"),
    ]
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--force", *places],
        cwd=ROOT,
        env={**os.environ, "NETDIFFUSION_WERROR": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return sorted(scratch.rglob("*.o"))


def test_builds_without_warnings(object_files: list[Path]) -> None:
    """-Wall -Wextra -Wconversion -Wshadow -Wvla -Wmissing-prototypes -Werror."""
    assert len(object_files) == len(list(CSRC.rglob("*.c")))


def test_only_init_is_exported() -> None:
    """The extension exports PyInit__core alone."""
    import netdiffusion._core as core

    out = subprocess.run(
        ["nm", "-D", "--defined-only", core.__file__],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = {line.split()[-1] for line in out.splitlines()}
    assert {n for n in names if not n.startswith("_")} == {"PyInit__core"}


def imports(path: Path) -> set[tuple[str, bool]]:
    """Return (top-level module, at module level?) of every import."""
    tree = ast.parse(path.read_text())
    guarded = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if node in guarded:
            continue
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        found |= {(n.split(".")[0], node in tree.body) for n in names}
    return found


PYTHON = sorted((ROOT / "netdiffusion").rglob("*.py"))


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_libraries_are_imported_late(path: Path) -> None:
    """Torch only under training/, the others only inside functions."""
    name = str(path.relative_to(ROOT))
    for module, at_top in imports(path):
        if name.startswith(TORCH_IMPORTERS):
            continue
        assert module != "torch", f"{name} imports torch"
        assert module not in LAZY_IMPORTS or not at_top, f"{name} imports {module}"


@pytest.mark.parametrize(
    "path",
    [p for p in c_files() if p.suffix == ".h"],
    ids=lambda p: str(p.relative_to(CSRC)),
)
def test_header_opens_with_its_contract(path: Path) -> None:
    """The header is the manual: In, Out, Errors, Memory, Threads, Python."""
    opening = path.read_text().split("*/")[0]
    assert opening.startswith(f"/*\n * {path.name} - ")
    for heading in ("In:", "Out:", "Errors:", "Memory:", "Threads:", "Python:"):
        assert f" * {heading}" in opening, heading


def test_files_keep_their_budgets() -> None:
    """C files of 600 lines and shaders of 120 at most; 80 columns in both."""
    for path in [*c_files(), *(ROOT / "shaders").glob("*")]:
        lines = path.read_text().splitlines()
        assert len(lines) <= (600 if path.suffix in (".c", ".h") else 120), path
        for number, line in enumerate(lines, 1):
            assert len(line.expandtabs(8)) <= 80, f"{path}:{number}"


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return every function of a Python file."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, kinds)]


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_bodies_are_short(path: Path) -> None:
    """A body has 50 lines at most, the docstring not counted."""
    for function in functions(path):
        body = function.body[1 if ast.get_docstring(function) else 0 :]
        if body:
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1
            assert length <= 50, f"{path.name}: {function.name} has {length} lines"


def test_nothing_names_this_machine() -> None:
    """No tracked file holds an absolute path of a workplace."""
    out = subprocess.run(
        ["git", "grep", "-nIE", r"/(work|home/[a-z]+|root)/", "--", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout
    told = [line for line in out.splitlines() if "test_codebase.py" not in line]
    assert not told, told


CHECKS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
    "stubtest": [
        "mypy.stubtest",
        "--mypy-config-file",
        "pyproject.toml",
        "netdiffusion._core",
    ],
}


@pytest.mark.parametrize("check", CHECKS)
def test_check_passes(check: str) -> None:
    """Style, types, and the stub held against the extension."""
    done = subprocess.run(
        [sys.executable, "-m", *CHECKS[check]],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
