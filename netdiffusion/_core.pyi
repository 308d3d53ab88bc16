"""The C core of netdiffusion: packets, rows, repair, engine."""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, final

import numpy as np
import numpy.typing as npt

class Error(Exception): ...
class FormatError(Error, ValueError): ...
class CaptureError(FormatError): ...
class DeviceError(Error, RuntimeError): ...
class DeviceLostError(DeviceError): ...

# py_capture.c
@final
class CaptureReader:
    def __new__(
        cls,
        path: str | os.PathLike[str],
        *,
        bpf: str | None = None,
        max_packets: int = 1024,
        idle_timeout: int = 60000000000,
        layout: str = "netdiffusion-1088",
        on_error: str = "raise",
    ) -> CaptureReader: ...
    def read(self, max_flows: int, /) -> dict[str, npt.NDArray[Any]] | None: ...
    @property
    def stats(self) -> dict[str, Any]: ...

@final
class CaptureWriter:
    def __new__(
        cls,
        path: str | os.PathLike[str],
        *,
        format: str = "pcap",
        nanoseconds: bool = True,
        snap_length: int = 262144,
    ) -> CaptureWriter: ...
    def write(
        self,
        rows: npt.NDArray[np.int8],
        offsets: npt.NDArray[np.int64],
        timestamps: npt.NDArray[np.int64],
        direction: npt.NDArray[np.uint8],
        addresses: npt.NDArray[np.uint8],
        ports: npt.NDArray[np.uint16],
        layout: str,
        checksums: str,
        payload: str = "zeros",
        seed: int = 0,
        services: npt.NDArray[np.uint8] | None = None,
        hosts: npt.NDArray[np.uint8] | None = None,
        wire_length: npt.NDArray[np.uint32] | None = None,
    ) -> dict[str, tuple[int, int, int, int]]: ...
    def close(self) -> None: ...

def read_slices(
    path: str | os.PathLike[str],
    first_packet: npt.NDArray[np.int64],
    packets: npt.NDArray[np.int64],
    layout: str,
    *,
    max_packets: int = 4294967295,
    on_error: str = "skip",
) -> dict[str, Any]: ...
def payload_services() -> list[str]: ...
def merge_captures(
    paths: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    format: str = "pcap",
    nanoseconds: bool = True,
    snap_length: int = 262144,
) -> None: ...
def libpcap_version() -> str: ...

# py_rows.c
class _Layout(TypedDict):
    cells: int
    hash: str
    fields: list[tuple[str, str, str, int, int]]

def layouts() -> dict[str, _Layout]: ...
def encode(
    frames: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    link_type: int,
    layout: str,
) -> npt.NDArray[np.int8]: ...
def decode(
    rows: npt.NDArray[np.int8],
    offsets: npt.NDArray[np.int64],
    direction: npt.NDArray[np.uint8],
    addresses: npt.NDArray[np.uint8],
    ports: npt.NDArray[np.uint16],
    layout: str,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]: ...
def convert_layout(
    rows: npt.NDArray[np.int8], source: str, target: str, /
) -> npt.NDArray[np.int8]: ...
def canonicalize(
    rows: npt.NDArray[np.int8],
    offsets: npt.NDArray[np.int64],
    timestamps: npt.NDArray[np.int64],
    direction: npt.NDArray[np.uint8],
    /,
) -> npt.NDArray[np.int8]: ...
def gap_code(nanoseconds: int, /) -> int: ...
def gap_limits(code: int, /) -> tuple[int, int]: ...

# py_image.c
def png_write(
    path: str | os.PathLike[str], rows: npt.NDArray[np.int8], text: dict[str, str], /
) -> None: ...
def png_read(
    path: str | os.PathLike[str], /
) -> tuple[npt.NDArray[np.int8], dict[str, str]]: ...
def libpng_version() -> str: ...

# py_nprint.c
def nprint_parse(
    text: bytes, places: npt.NDArray[np.int16], cells: int, /
) -> tuple[
    npt.NDArray[np.int8], npt.NDArray[np.int64], tuple[int, int, str] | None
]: ...
def nprint_format(
    rows: npt.NDArray[np.int8], prefixes: bytes, offsets: npt.NDArray[np.int64], /
) -> bytes: ...

# py_phrase.c
def read_phrases(
    drawn: npt.NDArray[np.uint16],
    direction: npt.NDArray[np.uint8],
    fixed: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    contexts: npt.NDArray[np.int32],
    first: npt.NDArray[np.int64],
    other: npt.NDArray[np.float64],
    words: npt.NDArray[np.int32],
    times: npt.NDArray[np.float64],
    wrong: float,
    own: float,
) -> npt.NDArray[np.uint16]: ...

# py_repair.c
def repair(
    canonical: npt.NDArray[np.int8],
    offsets: npt.NDArray[np.int64],
    seed: int,
    flow_ids: npt.NDArray[np.uint64],
    *,
    events: str = "keep",
    mtu: int = 65535,
    pools: npt.NDArray[np.uint8] | None = None,
    start: int = 1704067200000000000,
    spread: int = 3600000000000,
    addresses: npt.NDArray[np.uint8] | None = None,
    ports: npt.NDArray[np.uint16] | None = None,
    ip_version: npt.NDArray[np.uint8] | None = None,
    starts: npt.NDArray[np.int64] | None = None,
    known_ports: tuple[
        npt.NDArray[np.uint16], npt.NDArray[np.int64], npt.NDArray[np.int32]
    ]
    | None = None,
    client_ports: npt.NDArray[np.uint16] | None = None,
    hosts: npt.NDArray[np.uint32] | None = None,
    resolution: npt.NDArray[np.uint32] | None = None,
) -> dict[str, npt.NDArray[Any]]: ...
def repair_rules() -> list[tuple[str, str, str, str, str]]: ...
def validate(
    rows: npt.NDArray[np.int8],
    offsets: npt.NDArray[np.int64],
    timestamps: npt.NDArray[np.int64],
    direction: npt.NDArray[np.uint8],
    addresses: npt.NDArray[np.uint8],
    ports: npt.NDArray[np.uint16],
    ip_version: npt.NDArray[np.uint8],
    protocol: npt.NDArray[np.uint8],
    known_payload: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint64]]: ...
def validate_packets(path: str | os.PathLike[str], /) -> dict[str, Any]: ...

# py_engine.c
@final
class Model:
    def __new__(
        cls,
        path: str | os.PathLike[str],
        *,
        columns: int,
        width: int,
        blocks: int,
        heads: int,
        mlp: int,
        classes: int,
        reveal: bool = False,
        device: str = "auto",
        threads: int = 0,
    ) -> Model: ...
    @property
    def device(self) -> str: ...
    @property
    def note(self) -> str: ...
    def sample(
        self,
        classes: npt.NDArray[np.int32],
        lengths: npt.NDArray[np.int32],
        flow_ids: npt.NDArray[np.uint64],
        seed: int,
        sigmas: npt.NDArray[np.float32],
        temperature: float = 1.0,
        renoise_rounds: int = 0,
        renoise_sigma: float = 0.5,
        guidance: float = 1.0,
        *,
        sampler: str = "dpm++2m",
        guidance_low: float = 0.0,
        guidance_high: float = ...,
        held: npt.NDArray[np.int8] | None = None,
        batch_tokens: int = 0,
        progress: Callable[[int, int, int], object] | None = None,
    ) -> npt.NDArray[np.int8]: ...
    def forward(
        self,
        x: npt.NDArray[np.float32],
        estimate: npt.NDArray[np.float32],
        offsets: npt.NDArray[np.int64],
        classes: npt.NDArray[np.int32],
        sigmas: npt.NDArray[np.float32],
        held: npt.NDArray[np.int8] | None = None,
    ) -> dict[str, npt.NDArray[np.float32]]: ...

def devices() -> list[dict[str, str]]: ...
def philox(key: int, counters: npt.NDArray[np.uint32], /) -> npt.NDArray[np.uint32]: ...
def run_op(
    device: str,
    name: str,
    arguments: dict[str, Any],
    step: npt.NDArray[np.uint32],
    repeats: int = 0,
    threads: int = 0,
    /,
) -> dict[str, npt.NDArray[Any]]: ...
