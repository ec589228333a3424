"""The .fcb file: what is written is read, and nothing damaged is."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcbench.core.codecs import Bitstream, Decoded
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features, FeatureSpec
from fcbench.transmit.container import MAGIC, ContainerReader, ContainerWriter, Header, Record

SPECS = (FeatureSpec("stage2", 8, 8), FeatureSpec("stage3", 16, 16))
HEADER = Header("hyperprior", "ab" * 32, SPECS)

SIZES = st.tuples(st.integers(1, 2000), st.integers(1, 2000))
SHAPES = st.fixed_dictionaries({"stage2": SIZES, "stage3": SIZES}) | st.just({"stage2": (4, 4), "stage3": (2, 2)})
RECORDS = st.lists(
    st.builds(
        Record,
        payload=st.binary(max_size=100),
        shapes=SHAPES,
        n_symbols=st.integers(1, 1 << 28) | st.just(192),
        check=st.integers(0, 0xFFFF),
    ),
    min_size=1,
    max_size=5,
)


def write(path: Path, records: list[Record], header: Header = HEADER) -> bytes:
    with ContainerWriter(path, header) as writer:
        for record in records:
            writer.append(Bitstream({"y": record.payload}, record.n_symbols, record.check), record.shapes)
    return path.read_bytes()


def simple(n: int = 3) -> list[Record]:
    """Records of common shapes, the last one with its own."""
    shapes = {"stage2": (23, 30), "stage3": (12, 15)}
    own = {"stage2": (5, 7), "stage3": (3, 4)}
    return [Record(bytes(range(40 + i)), own if i == 2 else shapes, 100 + i // 2, 7 * i) for i in range(n)]


@settings(deadline=None, max_examples=60)
@given(RECORDS)
def test_any_records_survive(records: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.fcb"
        size = len(write(path, records))
        reader = ContainerReader(path)
        assert list(reader) == records
        assert [reader[i] for i in reversed(range(len(reader)))] == records[::-1]
        assert reader.header == Header("hyperprior", "ab" * 16, SPECS)
        assert reader.n_bytes == size == os.path.getsize(path)


def test_every_flipped_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.fcb"
    data = write(path, simple())
    for at in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            path.write_bytes(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])
            with pytest.raises(FcbenchError, match="a.fcb"):
                list(ContainerReader(path))


def test_every_truncation_and_extension_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.fcb"
    data = write(path, simple())
    for n in range(len(data)):
        path.write_bytes(data[:n])
        with pytest.raises(FcbenchError, match="a.fcb"):
            list(ContainerReader(path))
    path.write_bytes(data + b"\0")
    with pytest.raises(FcbenchError, match="after the last of 3 records"):
        ContainerReader(path)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda b: MAGIC + b"\x01" + b))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.fcb"
        path.write_bytes(data)
        with pytest.raises(FcbenchError):
            list(ContainerReader(path))


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=80), st.binary(max_size=40))
def test_arbitrary_headers_whose_checksums_fit_are_refused_or_read(body: bytes, rest: bytes) -> None:
    head = MAGIC + b"\x01" + len(body).to_bytes(2, "little") + body
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.fcb"
        path.write_bytes(head + zlib.crc32(head).to_bytes(4, "little") + rest)
        with contextlib.suppress(FcbenchError):
            list(ContainerReader(path))


def test_records_cannot_change_places(tmp_path: Path) -> None:
    path = tmp_path / "a.fcb"
    a, b = Record(b"first", simple()[0].shapes, 9, 1), Record(b"other", simple()[0].shapes, 9, 2)
    data = write(path, [a, b])
    size = 7 + 5
    path.write_bytes(data[: -2 * size] + data[-size:] + data[-2 * size : -size])
    with pytest.raises(FcbenchError, match="record 0: CRC"):
        list(ContainerReader(path))


@pytest.mark.parametrize(("n_payload", "overhead_bytes"), [(0, 7), (63, 7), (64, 8), (8191, 8), (8192, 9)])
def test_record_overhead(tmp_path: Path, n_payload: int, overhead_bytes: int) -> None:
    record = Record(bytes(n_payload), {"stage2": (2, 2), "stage3": (1, 1)}, 48, 0)
    one = len(write(tmp_path / "1.fcb", [record]))
    two = len(write(tmp_path / "2.fcb", [record, record]))
    assert two - one == n_payload + overhead_bytes


def edit_version(data: bytes) -> bytes:
    return data[:4] + b"\x02" + data[5:]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: b"PK\3\4" + d[4:], "not an .fcb file"),
        (edit_version, "version 2"),
        (lambda d: d[:20] + b"x" + d[21:], "CRC mismatch in the header"),
        (lambda d: d[:-3], "record 2: truncated"),
        (lambda d: d[:-3] + b"xyz", "record 2: CRC mismatch"),
        (lambda d: b"", "truncated"),
    ],
)
def test_refusals_have_names(tmp_path: Path, edit: Callable[[bytes], bytes], message: str) -> None:
    path = tmp_path / "a.fcb"
    path.write_bytes(edit(write(path, simple())))
    with pytest.raises(FcbenchError, match=message):
        list(ContainerReader(path))


def test_writer_leaves_nothing_behind_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "a.fcb"
    with pytest.raises(RuntimeError), ContainerWriter(path, HEADER) as writer:
        writer.append(Bitstream({"y": b"1"}, 1, 1), simple()[0].shapes)
        raise RuntimeError
    with pytest.raises(PermissionError), ContainerWriter(path, HEADER):  # of an image, say: not the stream's
        raise PermissionError
    with pytest.raises(FcbenchError, match="no samples"), ContainerWriter(path, HEADER):
        pass
    assert list(tmp_path.iterdir()) == []


def test_writer_keeps_the_old_file_until_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.fcb"
    old = write(path, simple(1))
    with ContainerWriter(path, HEADER) as writer:
        writer.append(Bitstream({"y": b"1"}, 1, 1), simple()[0].shapes)
        assert path.read_bytes() == old
    assert path.read_bytes() != old


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.fcb"
    old = write(path, simple(1))
    record = Record(bytes(1 << 20), simple()[0].shapes, 1, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
        with pytest.raises(FcbenchError, match="cannot use .*a.fcb: File too large"):
            write(path, [record])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


def test_writer_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FcbenchError, match="cannot use .*a.fcb: File exists; choose a folder that can be written"):
        ContainerWriter(tmp_path / "file" / "a.fcb", HEADER)
    with pytest.raises(FcbenchError, match="hexadecimal"):
        ContainerWriter(tmp_path / "a.fcb", Header("raw", "xyz", SPECS))
    with pytest.raises(FcbenchError, match="layout BCHW, got BNC"):
        ContainerWriter(tmp_path / "a.fcb", Header("raw", "ab" * 32, (replace(SPECS[0], layout="BNC"),)))
    with pytest.raises(FcbenchError, match="different names"):
        ContainerWriter(tmp_path / "a.fcb", Header("raw", "ab" * 32, (SPECS[0], SPECS[0])))
    with pytest.raises(FcbenchError, match="stage2"), ContainerWriter(tmp_path / "a.fcb", HEADER) as writer:
        writer.append(Bitstream({"y": b"1"}, 1, 1), {"stage3": (1, 1)})
    with pytest.raises(FcbenchError, match="cannot read"):
        ContainerReader(tmp_path / "absent.fcb")
    with pytest.raises(IndexError):
        write(tmp_path / "a.fcb", simple())
        ContainerReader(tmp_path / "a.fcb")[3]


def test_checkpoint_and_check_are_verified(tmp_path: Path) -> None:
    path = tmp_path / "a.fcb"
    write(path, simple())
    ContainerReader(path).verify_checkpoint("ab" * 32)
    with pytest.raises(FcbenchError, match="not with cdcd"):
        ContainerReader(path).verify_checkpoint("cd" * 32)
    record = ContainerReader(path)[1]
    record.verify(Decoded(Features({}), record.n_symbols, record.check))
    for n, check in ((record.n_symbols + 1, record.check), (record.n_symbols, record.check ^ 1)):
        with pytest.raises(FcbenchError, match="a.fcb, record 1: the decoder is out of step") as caught:
            record.verify(Decoded(Features({}), n, check))
        assert "decode with the checkpoint" not in str(caught.value)


def test_surplus_bytes_are_refused_where_the_codec_can_code_again(tmp_path: Path) -> None:
    write(tmp_path / "a.fcb", simple())
    record = ContainerReader(tmp_path / "a.fcb")[1]
    record.verify(Decoded(Features({}), record.n_symbols, record.check, lambda: {"y": record.payload}))
    with pytest.raises(FcbenchError, match=r"record 1: .* 41 bytes differs from the code of its symbols \(40 bytes\)"):
        record.verify(
            Decoded(Features({}), record.n_symbols, record.check, lambda: {"z": b"", "y": record.payload[:-1]})
        )


@pytest.mark.parametrize(
    ("codec", "change", "words"),
    [
        ("uniform", {}, "the codec uniform in its header, c.safetensors the codec hyperprior"),
        ("hyperprior", {"channels": 9}, "stage2 \\(9 channels, .* c.safetensors the maps stage2 \\(8 channels"),
        ("hyperprior", {"stride_px": 4}, "stride 4 px, .* stride 8 px"),
        ("hyperprior", {"name": "x"}, "the maps x .* the maps stage2"),
        ("hyperprior", {"layout": "BNC"}, "stride 8 px, BCHW.* stride 8 px, BNC"),
    ],
)
def test_the_header_must_be_that_of_the_checkpoint(
    tmp_path: Path, codec: str, change: dict[str, Any], words: str
) -> None:
    other = (replace(SPECS[0], **change), SPECS[1])
    written, expected = (SPECS, other) if "layout" in change else (other, SPECS)
    shapes = {s.name: (4, 4) for s in written}
    with ContainerWriter(tmp_path / "a.fcb", Header(codec, "ab" * 32, written)) as writer:
        writer.append(Bitstream({"y": b"1"}, 1, 1), shapes)
    reader = ContainerReader(tmp_path / "a.fcb")
    reader.verify_header(Header(codec, "ab" * 32, written), Path("c.safetensors"))
    with pytest.raises(FcbenchError, match=f"a.fcb has .*{words}"):
        reader.verify_header(Header("hyperprior", "ab" * 32, expected), Path("c.safetensors"))


def test_a_file_of_no_samples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.fcb"
    data = write(path, simple(1))
    body = data[: -(len(simple(1)[0].payload) + 7)][:-8]
    head = body + bytes(4)
    path.write_bytes(head + zlib.crc32(head).to_bytes(4, "little"))
    with pytest.raises(FcbenchError, match="a.fcb: holds 0 samples of 2 maps: there is nothing to read"):
        ContainerReader(path)
