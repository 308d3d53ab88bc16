"""Build of ``netdiffusion._core``: shaders to SPIR-V, then the C extension."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wshadow",
    "-Wvla",
    "-Wmissing-prototypes",
]
PACKAGES = """\
netdiffusion needs the C libraries libpcap and libpng, the Vulkan headers and glslang:
  Debian, Ubuntu:  apt-get install gcc pkg-config python3-dev libpcap-dev libpng-dev \
libvulkan-dev glslang-tools
  Fedora:          dnf install gcc pkgconf python3-devel libpcap-devel libpng-devel \
vulkan-headers glslang"""


def missing(what: str) -> SystemExit:
    """Return the exit that names what the build lacks and how to get it."""
    return SystemExit(f"netdiffusion cannot be built: {what}.\n{PACKAGES}")


def pkg_config(package: str, option: str) -> list[str]:
    """Return what pkg-config says of a C library."""
    try:
        out = subprocess.run(
            ["pkg-config", option, package], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        raise missing("pkg-config is not installed") from None
    except subprocess.CalledProcessError:
        raise missing(f"pkg-config does not find {package}") from None
    return shlex.split(out.stdout)


def switched(name: str) -> bool:
    """Tell whether the build switch ``NETDIFFUSION_<name>`` is on."""
    return os.environ.get(f"NETDIFFUSION_{name}", "0") not in ("", "0")


def compile_flags() -> list[str]:
    """Return the compiler flags, with the build switches applied."""
    flags = ["-std=c11", "-fvisibility=hidden", "-O3", *WARNINGS]
    if switched("WERROR"):
        flags.append("-Werror")
    if switched("DEBUG"):
        flags += ["-O1", "-g", "-DND_DEBUG"]
    if switched("SANITIZE"):
        flags += ["-O1", "-g", "-fno-omit-frame-pointer", *sanitizers()]
    if switched("COVERAGE"):
        flags += ["-O0", "-g", "--coverage"]
    return flags


def sanitizers() -> list[str]:
    """Return the switches of AddressSanitizer and UBSan."""
    return ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


def link_flags() -> list[str]:
    """Return the linker flags, with the build switches applied."""
    flags = sanitizers() if switched("SANITIZE") else []
    return flags + (["--coverage"] if switched("COVERAGE") else [])


class BuildShaders(build_ext):
    """``build_ext`` that first compiles every shader to a SPIR-V header."""

    def run(self) -> None:
        """Compile the shaders, then the extension."""
        target = Path(self.build_temp).resolve() / "spirv"
        target.mkdir(parents=True, exist_ok=True)
        for shader in sorted((ROOT / "shaders").glob("*.comp")):
            self.compile_shader(shader, target / f"{shader.stem}.spv.h")
        for extension in self.extensions:
            extension.include_dirs.append(str(target))
        super().run()

    def compile_shader(self, shader: Path, header: Path) -> None:
        """Write the SPIR-V of one shader as a C array ``nd_spv_<stem>``."""
        sources = [
            shader,
            *(ROOT / "shaders").glob("*.glsl"),
            ROOT / "shaders/params.h",
        ]
        newest = max(s.stat().st_mtime for s in sources if s.exists())
        if header.exists() and header.stat().st_mtime > newest and not self.force:
            return
        glslang = shutil.which("glslangValidator") or shutil.which("glslang")
        if glslang is None:
            raise missing("the shader compiler glslangValidator is not installed")
        command = [glslang, "-V", "--target-env", "vulkan1.1", "-Ishaders"]
        command += ["--vn", f"nd_spv_{shader.stem}", "-o", str(header), str(shader)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            header.unlink(missing_ok=True)
            sys.exit(f"{shader.name}:\n{done.stdout}{done.stderr}")


def extension() -> Extension:
    """Describe ``netdiffusion._core``."""
    libraries = ["libpcap", "libpng"]
    sources = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("csrc/**/*.c"))
    headers = [*ROOT.glob("csrc/**/*.h"), *ROOT.glob("shaders/*")]
    return Extension(
        "netdiffusion._core",
        sources=sources,
        depends=sorted(str(p.relative_to(ROOT)) for p in headers),
        include_dirs=["csrc", "shaders", numpy.get_include()],
        extra_compile_args=compile_flags()
        + [f for lib in libraries for f in pkg_config(lib, "--cflags")],
        extra_link_args=link_flags()
        + [f for lib in libraries for f in pkg_config(lib, "--libs")]
        + ["-lm", "-ldl", "-lpthread"],
    )


setup(ext_modules=[extension()], cmdclass={"build_ext": BuildShaders})
