"""Pictures: pixels, text chunks, and files that are none."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from test_rows import ICMP, OPTIONS, UDP, encode, ipv4, tcp

import netdiffusion as nd
from netdiffusion import _core
from netdiffusion.images import read_pixels

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG chunk."""
    return (
        struct.pack(">I", len(body))
        + kind
        + body
        + struct.pack(">I", zlib.crc32(kind + body))
    )


def png(
    width: int, height: int, depth: int, colour: int, raw: bytes, *extra: bytes
) -> bytes:
    """Return a PNG of filtered rows, not interlaced."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *extra, chunk(b"IDAT", zlib.compress(raw))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    """Decode an 8-bit RGB PNG with filters 0 and 2, without libpng."""
    data, at = path.read_bytes(), 8
    idat = b""
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"IHDR":
            width, height = struct.unpack_from(">II", data, at + 8)
        if data[at + 4 : at + 8] == b"IDAT":
            idat += data[at + 8 : at + 8 + size]
        at += size + 12
    lines = np.frombuffer(zlib.decompress(idat), np.uint8).reshape(height, -1)
    out = np.zeros((height + 1, width * 3), np.uint8)
    for i, line in enumerate(lines):
        assert line[0] in (0, 2)
        out[i + 1] = line[1:] + (out[i] if line[0] == 2 else 0)
    return out[1:].reshape(height, width, 3)


@pytest.fixture
def rows() -> npt.NDArray[np.int8]:
    """Return the rows of four packets."""
    packets = [ipv4(6, tcp(OPTIONS)), ipv4(6, tcp()), ipv4(17, UDP), ipv4(1, ICMP)]
    return encode(packets, "netdiffusion-1088")


def test_colours_are_the_originals(tmp_path: Path, rows: npt.NDArray[np.int8]) -> None:
    """1 is pure red, 0 pure green, -1 pure blue; one row a packet."""
    nd.write_png(tmp_path / "a.png", rows, label="x")
    shown = pixels(tmp_path / "a.png")
    assert shown.shape == (4, 1088, 3)
    for cell, colour in ((1, RED), (0, GREEN), (-1, BLUE)):
        assert np.all(shown[rows == cell] == colour)


def test_there_and_back(tmp_path: Path, rows: npt.NDArray[np.int8]) -> None:
    """Cells, label, layout, times and directions survive."""
    times = np.array([5, 7, 2**60, 2**60 + 1])
    way = np.array([1, 0, 1, 0], np.uint8)
    nd.write_png(
        tmp_path / "a.png", rows, label="vidéo", timestamps=times, direction=way
    )
    flows = nd.read_png(tmp_path / "a.png")
    assert np.array_equal(flows.rows, rows)
    assert flows.labels.tolist() == ["vidéo"]
    assert flows.layout == "netdiffusion-1088"
    assert np.array_equal(flows.timestamps, times)
    assert np.array_equal(flows.direction, way)
    assert flows.ports.tolist() == [[7, 9]]  # packet 0 is from the server
    assert flows.protocol.tolist() == [6]


def test_text_chunks(tmp_path: Path, rows: npt.NDArray[np.int8]) -> None:
    """Short and long, ASCII and not."""
    text = {"short": "a", "long": "b" * 5000, "both": "é" * 5000}
    nd.write_png(tmp_path / "a.png", rows, label="l", text=text)
    _, told = read_pixels(tmp_path / "a.png")
    assert told["layout"] == "netdiffusion-1088" and told["label"] == "l"
    assert {k: told[k] for k in text} == text


@pytest.mark.parametrize("key", ["", "two words", "x" * 80, "é"])
def test_bad_text_keys_are_refused(
    tmp_path: Path, rows: npt.NDArray[np.int8], key: str
) -> None:
    """PNG's rules for keywords; nothing is left behind."""
    with pytest.raises(ValueError, match="text: key"):
        nd.write_png(tmp_path / "a.png", rows, text={key: "v"})
    assert list(tmp_path.iterdir()) == []


def test_off_colours_snap_to_the_nearest(tmp_path: Path) -> None:
    """Brightest channel; ties with blue, as in grey, are blue."""
    colours = [(200, 90, 80), (10, 11, 9), (3, 3, 4), (255, 255, 255), (0, 0, 0)]
    colours += [(90, 90, 10)]
    line = b"\0" + b"".join(bytes(c) for c in colours)
    (tmp_path / "a.png").write_bytes(png(6, 2, 8, 2, line * 2))
    cells, _ = read_pixels(tmp_path / "a.png")
    assert cells.tolist() == [[1, 0, -1, -1, -1, 1]] * 2


def test_other_forms_of_png(tmp_path: Path) -> None:
    """Palette, grey, 16 bits and alpha give the same cells."""
    path = tmp_path / "a.png"
    palette = chunk(b"PLTE", bytes([*RED, *GREEN, *BLUE]))
    path.write_bytes(png(3, 1, 2, 3, b"\0" + bytes([0b00011000]), palette))
    assert read_pixels(path)[0].tolist() == [[1, 0, -1]]
    wide = struct.pack(">9H", 65535, 0, 0, 0, 65535, 0, 0, 0, 65535)
    path.write_bytes(png(3, 1, 16, 2, b"\0" + wide))
    assert read_pixels(path)[0].tolist() == [[1, 0, -1]]
    path.write_bytes(png(2, 1, 8, 6, b"\0" + bytes([*RED, 0, *GREEN, 255])))
    assert read_pixels(path)[0].tolist() == [[1, 0]]
    path.write_bytes(png(8, 1, 1, 0, b"\0" + b"\xf0"))
    assert read_pixels(path)[0].tolist() == [[-1] * 8]


def interlaced(cells: npt.NDArray[np.int8]) -> bytes:
    """Return an interlaced RGB picture (Adam7)."""
    colours = np.array([GREEN, RED, BLUE], np.uint8)[cells]
    starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)]
    starts += [(2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    raw = b""
    for y, x, step_y, step_x in starts:
        part = colours[y::step_y, x::step_x]
        if part.size:
            raw += b"".join(b"\0" + line.tobytes() for line in part)
    height, width = cells.shape
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


def test_interlaced(tmp_path: Path) -> None:
    """Some editors save so."""
    cells = np.random.default_rng(0).integers(-1, 2, (13, 21)).astype(np.int8)
    (tmp_path / "a.png").write_bytes(interlaced(cells))
    assert np.array_equal(read_pixels(tmp_path / "a.png")[0], cells)


def test_cut_at_every_length(tmp_path: Path, rows: npt.NDArray[np.int8]) -> None:
    """A cut picture is one clear error, wherever it is cut."""
    path = tmp_path / "a.png"
    nd.write_png(path, rows)
    data = path.read_bytes()
    for n in range(len(data) - 12):
        path.write_bytes(data[:n])
        with pytest.raises(nd.FormatError, match=r"a\.png: "):
            read_pixels(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"GIF89a" + bytes(50), "not a PNG"),
        (png(5, 1, 8, 2, b"\0" + bytes(15)), "5 pixels wide, which is not a layout"),
        (png(9999, 1, 8, 2, bytes(30000)), "too large"),
        (png(1088, 70000, 8, 2, b""), "too large"),
        (png(1088, 1, 8, 2, b"\0" + bytes(3264)), "no row has an IP header"),
    ],
)
def test_what_is_no_picture_of_a_flow(
    tmp_path: Path, data: bytes, message: str
) -> None:
    """Each gives its one clear error that names the file."""
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(nd.FormatError, match=f"a.png: .*{message}"):
        nd.read_png(tmp_path / "a.png")


def test_damaged_bytes_never_crash(tmp_path: Path, rows: npt.NDArray[np.int8]) -> None:
    """One byte changed anywhere: a result or FormatError."""
    path = tmp_path / "a.png"
    nd.write_png(path, rows)
    data = bytearray(path.read_bytes())
    for at in range(8, len(data)):
        changed = bytearray(data)
        changed[at] ^= 0x41
        path.write_bytes(changed)
        try:
            nd.read_png(path)
        except nd.FormatError as error:
            assert "a.png" in str(error)


def test_missing_file_and_existing_file(
    tmp_path: Path, rows: npt.NDArray[np.int8]
) -> None:
    """The system's words, and the way to overwrite."""
    with pytest.raises(FileNotFoundError):
        nd.read_png(tmp_path / "none.png")
    nd.write_png(tmp_path / "a.png", rows)
    with pytest.raises(FileExistsError, match="--force"):
        nd.write_png(tmp_path / "a.png", rows)
    nd.write_png(tmp_path / "a.png", rows[:1], overwrite=True)
    assert len(nd.read_png(tmp_path / "a.png").rows) == 1


def test_layout_has_to_fit(tmp_path: Path, rows: npt.NDArray[np.int8]) -> None:
    """Width against layout, when writing and when reading; no empty picture."""
    with pytest.raises(nd.FormatError, match="nprint-46tui has 1408 cells"):
        nd.write_png(tmp_path / "a.png", rows, layout="nprint-46tui")
    nd.write_png(tmp_path / "a.png", rows)
    with pytest.raises(nd.FormatError, match="not layout nprint-46tui"):
        nd.read_png(tmp_path / "a.png", layout="nprint-46tui")
    with pytest.raises(ValueError, match="1 to 65536 packets"):
        nd.write_png(tmp_path / "b.png", rows[:0])
    text = {"layout_hash": "0000", "layout": "netdiffusion-1088"}
    _core.png_write(tmp_path / "c.png", rows, text)
    with pytest.raises(nd.FormatError, match="Encode the capture again"):
        nd.read_png(tmp_path / "c.png")
    _core.png_write(tmp_path / "d.png", rows, {"direction": "01"})
    with pytest.raises(nd.FormatError, match="one number for each of the 4 rows"):
        nd.read_png(tmp_path / "d.png")


def test_padding_rows_are_left_out(tmp_path: Path, rows: npt.NDArray[np.int8]) -> None:
    """The original pads every flow to 1,024 rows of -1."""
    padded = np.concatenate([rows, np.full((20, 1088), -1, np.int8)])
    _core.png_write(tmp_path / "a.png", padded, {})
    flows = nd.read_png(tmp_path / "a.png")
    assert len(flows.rows) == 4
    assert flows.labels.tolist() == ["a"]
