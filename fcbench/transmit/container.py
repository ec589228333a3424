"""The ``.fcb`` file: coded samples of one codec, one record each. Its size on disk is the rate.

Little-endian; ``varint`` is LEB128 (7 bits per byte, low first, at most 5 bytes), a ``string`` is a varint of its
length and UTF-8::

    header   4 B  magic  9E 46 43 42
             1 B  version (1)
             2 B  length of the body
             body     string  codec
                      16 B    first half of the checkpoint's sha256
                      varint  number of maps, then for each:
                              string name, varint channels, varint stride_px, 1 B layout (0: BCHW, 1: BNC),
                              varint h, varint w    common to the samples
                      varint  symbols per sample    common to the samples
                      4 B     number of records
             4 B  CRC-32 of all before

    record   varint  2 * length of the payload + (1: the record has its own shapes and symbol count)
             [for each map: varint h, varint w; varint symbols]     only with the 1
             2 B  check of the decoded integers
             4 B  CRC-32 of (record number, shapes, symbol count, check, payload)
             payload

A record costs 7 bytes besides a payload of up to 63 B, 8 up to 8 KiB, 9 above. The symbol count and shapes that all
samples share are in the header once, and every record's CRC covers them. The CRC covers the record's number too, so
that records cannot be swapped.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from fcbench.coders.varint import Cursor, string, varint
from fcbench.core.codecs import Bitstream, Decoded, Grids
from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec, Layout
from fcbench.core.files import atomic_file, disk_errors

MAGIC = b"\x9eFCB"
VERSION = 1
PREFIX_BYTES = 16  # Bytes of the checkpoint's sha256 that the header holds
_LAYOUTS: tuple[Layout, ...] = ("BCHW", "BNC")  # By their byte in the header
_FIXED_BYTES = len(MAGIC) + 3
_MAX_RECORDS = (1 << 32) - 1
_ANEW = "code the file again with this version of fcbench and of its coders"


@dataclass(frozen=True, slots=True)
class Header:
    """Facts about all samples of a file: ``specs`` are the maps in coding order. The file holds the first 16
    bytes of ``checkpoint_sha256``, which is hexadecimal."""

    codec: str
    checkpoint_sha256: str
    specs: tuple[FeatureSpec, ...]

    @property
    def prefix(self) -> bytes:
        """The 16 bytes in the file. Raises `FcbenchError`: the checksum is not hexadecimal."""
        try:
            prefix = bytes.fromhex(self.checkpoint_sha256)[:PREFIX_BYTES]
        except ValueError:
            prefix = b""
        if len(prefix) != PREFIX_BYTES:
            raise FcbenchError(f"checkpoint sha256 {self.checkpoint_sha256!r} is not 32 or more hexadecimal digits")
        return prefix


@dataclass(frozen=True, slots=True)
class Record:
    """One coded sample as the decoder reads it: a `Bitstream` with the (h, w) of its maps, in coding order."""

    payload: bytes
    shapes: dict[str, tuple[int, int]]
    n_symbols: int
    check: int
    where: str = field(default="the record", compare=False)  # File and number, for messages

    def verify(self, decoded: Decoded) -> None:
        """Raise `FcbenchError` where the decoder is out of step with the encoder."""
        if (decoded.n_symbols, decoded.check) != (self.n_symbols, self.check):
            raise FcbenchError(
                f"{self.where}: the decoder is out of step: got {decoded.n_symbols} symbols with check "
                f"{decoded.check:04x}, expected {self.n_symbols} with {self.check:04x}: {_ANEW}"
            )


# --------------------------------------------------------------------------------------------- header
@dataclass(frozen=True, slots=True)
class _Common:
    """Properties that samples share with the first one."""

    shapes: dict[str, tuple[int, int]]
    n_symbols: int


def _sizes(shapes: Grids) -> bytes:
    return b"".join(varint(h) + varint(w) for h, w in shapes.values())


def _layout(spec: FeatureSpec) -> bytes:
    return bytes([_LAYOUTS.index(spec.layout)])


def _pack_header(header: Header, common: _Common, n_records: int) -> bytes:
    maps = b"".join(
        string(s.name) + varint(s.channels) + varint(s.stride_px) + _layout(s) + _sizes({s.name: common.shapes[s.name]})
        for s in header.specs
    )
    body = string(header.codec) + header.prefix + varint(len(header.specs)) + maps + varint(common.n_symbols)
    body += struct.pack("<I", n_records)
    if len(body) > 0xFFFF:
        raise FcbenchError(f"the header of {len(header.specs)} maps takes {len(body)} bytes; at most 65535 fit")
    data = MAGIC + struct.pack("<BH", VERSION, len(body)) + body
    return data + struct.pack("<I", zlib.crc32(data))


def _unpack_header(cursor: Cursor) -> tuple[Header, _Common, int]:
    where = cursor.where
    if cursor.take(len(MAGIC)) != MAGIC:
        raise FcbenchError(f"{where}: not an .fcb file (wrong magic bytes)")
    version, n_body = struct.unpack("<BH", cursor.take(3))
    if version != VERSION:
        raise FcbenchError(f"{where}: .fcb version {version}, this fcbench reads version {VERSION}: update fcbench")
    cursor.skip(n_body)
    (crc,) = struct.unpack("<I", cursor.take(4))
    cursor.seek(0)
    if zlib.crc32(cursor.take(_FIXED_BYTES + n_body)) != crc:
        raise FcbenchError(f"{where}: CRC mismatch in the header: the file is damaged, copy or code it again")
    cursor.seek(_FIXED_BYTES)
    codec, prefix = cursor.string(), cursor.take(PREFIX_BYTES).hex()
    specs, shapes = [], {}
    for _ in range(cursor.varint()):
        name, channels, stride_px, layout = (cursor.string(), cursor.varint(), cursor.varint(), cursor.take(1))
        if layout[0] >= len(_LAYOUTS) or name in shapes:
            raise FcbenchError(f"{where}: unknown layout {layout[0]}, or map {name!r} twice")
        specs.append(FeatureSpec(name, channels, stride_px, _LAYOUTS[layout[0]]))
        shapes[name] = (cursor.varint(), cursor.varint())
    common = _Common(shapes, cursor.varint())
    (n_records,) = struct.unpack("<I", cursor.take(4))
    if cursor.at != _FIXED_BYTES + n_body:
        raise FcbenchError(f"{where}: the header's length is wrong: the file is damaged")
    cursor.skip(4)
    if not specs or not n_records:
        raise FcbenchError(f"{where}: holds {n_records} samples of {len(specs)} maps: there is nothing to read")
    return Header(codec, prefix, tuple(specs)), common, n_records


def _crc(number: int, record: Record) -> int:
    head = varint(number) + _sizes(record.shapes) + varint(record.n_symbols) + struct.pack("<H", record.check)
    return zlib.crc32(record.payload, zlib.crc32(head))


# --------------------------------------------------------------------------------------------- writing
class ContainerWriter:
    """Writes a file record by record; it appears under its name only when complete.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "test.fcb"
    >>> header = Header("raw", "00" * 32, (FeatureSpec("s", 1, 16),))
    >>> with ContainerWriter(path, header) as writer:
    ...     writer.append(Bitstream({"raw": b"abcd"}, 1, 7), {"s": (1, 1)})
    >>> [record.payload for record in ContainerReader(path)]
    [b'abcd']
    """

    def __init__(self, path: Path, header: Header) -> None:
        """Open a temporary file beside ``path``. Raises `FcbenchError`: it cannot be written."""
        if not header.specs or len({s.name for s in header.specs}) != len(header.specs):
            raise FcbenchError("an .fcb file needs one feature spec or more, with different names")
        self._path, self._header = path, header
        self._common: _Common | None = None
        self.n_records = 0
        header.prefix  # fails before any file is made
        self._whole = ExitStack()
        self._file = self._whole.enter_context(atomic_file(path))

    def append(self, stream: Bitstream, shapes: Grids) -> None:
        """Write a sample. Raises `FcbenchError`: other maps, values that the format cannot hold, a full disk."""
        names = [s.name for s in self._header.specs]
        if set(shapes) != set(names):
            raise FcbenchError(f"{self._path}: shapes of {', '.join(shapes)}; the file has {', '.join(names)}")
        if stream.check is None or not 0 <= stream.check <= 0xFFFF or self.n_records >= _MAX_RECORDS:
            raise FcbenchError(f"{self._path}: check {stream.check} or record {self.n_records} out of range")
        ordered = {name: shapes[name] for name in names}
        record = Record(stream.payload, ordered, stream.n_symbols, stream.check)
        common = _Common(ordered, stream.n_symbols)
        data = b""
        if self._common is None:
            self._common = common
            data = _pack_header(self._header, common, 0)
        differs = common != self._common
        data += varint(2 * len(record.payload) + differs)
        data += _sizes(ordered) + varint(stream.n_symbols) if differs else b""
        data += struct.pack("<HI", record.check, _crc(self.n_records, record)) + record.payload
        with disk_errors(self._path):
            self._file.write(data)
        self.n_records += 1

    def _complete(self) -> None:
        """Rewrite the header with facts that are known only now. Raises `FcbenchError`: no samples."""
        if self._common is None:
            raise FcbenchError(f"{self._path}: no samples were coded, so there is no rate: nothing was written")
        header = _pack_header(self._header, self._common, self.n_records)
        with disk_errors(self._path):
            self._file.seek(0)
            self._file.write(header)

    def __enter__(self) -> ContainerWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._whole.__exit__(kind, error, trace)
            return
        with self._whole:
            self._complete()


# --------------------------------------------------------------------------------------------- reading
class ContainerReader(Sequence[Record]):
    """Records of a file, by iteration or by number; ``n_bytes`` is its size on disk. Opening checks header and
    structure, reading a record checks its CRC: both raise `FcbenchError` on damage."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                self.n_bytes = os.fstat(file.fileno()).st_size
                cursor = Cursor(file, self.n_bytes, str(path))
                self.header, self._common, n_records = _unpack_header(cursor)
                self._offsets = self._scan(cursor, n_records)
        except OSError as error:
            raise FcbenchError(f"cannot read {path}: {error.strerror}") from None

    def _scan(self, cursor: Cursor, n_records: int) -> list[int]:
        offsets = []
        for number in range(n_records):
            cursor.where = f"{self._path}, record {number}"
            offsets.append(cursor.at)
            n_payload = self._head(cursor)[0]
            cursor.skip(6 + n_payload)
        if cursor.at != self.n_bytes:
            raise FcbenchError(
                f"{self._path}: {self.n_bytes - cursor.at} bytes after the last of {n_records} records: damaged"
            )
        return offsets

    def _head(self, cursor: Cursor) -> tuple[int, dict[str, tuple[int, int]], int]:
        n_payload, differs = divmod(cursor.varint(), 2)
        if not differs:
            return n_payload, self._common.shapes, self._common.n_symbols
        shapes = {name: (cursor.varint(), cursor.varint()) for name in self._common.shapes}
        return n_payload, shapes, cursor.varint()

    def _read(self, cursor: Cursor, number: int) -> Record:
        cursor.where = f"{self._path}, record {number}"
        cursor.seek(self._offsets[number])
        n_payload, shapes, n_symbols = self._head(cursor)
        check, crc = struct.unpack("<HI", cursor.take(6))
        record = Record(cursor.take(n_payload), dict(shapes), n_symbols, check, cursor.where)
        if _crc(number, record) != crc:
            raise FcbenchError(f"{cursor.where}: CRC mismatch: the file is damaged, copy or code it again")
        return record

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, number: int) -> Record:  # type: ignore[override]
        if not 0 <= number < len(self):
            raise IndexError(f"{self._path} has the records 0 to {len(self) - 1}, not {number}")
        return next(self._records([number]))

    def __iter__(self) -> Iterator[Record]:
        return self._records(range(len(self)))

    def _records(self, numbers: Sequence[int]) -> Iterator[Record]:
        try:
            with self._path.open("rb") as file:
                cursor = Cursor(file, self.n_bytes, str(self._path))
                for number in numbers:
                    yield self._read(cursor, number)
        except OSError as error:
            raise FcbenchError(f"cannot read {self._path}: {error.strerror}") from None

    def verify_checkpoint(self, sha256: str) -> None:
        """Raise `FcbenchError` unless the file was coded with the checkpoint of this sha256 (hexadecimal)."""
        if not sha256.startswith(self.header.checkpoint_sha256):
            raise FcbenchError(
                f"{self._path} was coded with the checkpoint {self.header.checkpoint_sha256}..., not with "
                f"{sha256[: 2 * PREFIX_BYTES]}...: give the checkpoint beside it"
            )

    def verify_header(self, expected: Header, checkpoint: Path) -> None:
        """Raise `FcbenchError` unless codec and maps are those of the checkpoint that coded the file."""
        pairs = [("codec", self.header.codec, expected.codec)]
        pairs += [("maps", _named(self.header.specs), _named(expected.specs))]
        for what, has, needed in pairs:
            if has != needed:
                raise FcbenchError(
                    f"{self._path} has the {what} {has} in its header, {checkpoint} the {what} {needed}: {_ANEW}"
                )


def _named(specs: Sequence[FeatureSpec]) -> str:
    return ", ".join(f"{s.name} ({s.channels} channels, stride {s.stride_px} px, {s.layout})" for s in specs)
