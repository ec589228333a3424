"""Numbers and names in bytes, and a bounded reader of them: the basic types of the ``.fcb`` format."""

from typing import BinaryIO

from fcbench.core.errors import FcbenchError

_MAX_VARINT_BYTES = 5
_MAX_VALUE = (1 << 35) - 1


def varint(value: int) -> bytes:
    """LEB128.

    >>> varint(300).hex()
    'ac02'
    """
    if not 0 <= value <= _MAX_VALUE:
        raise FcbenchError(f"{value} does not fit the .fcb format (0 to {_MAX_VALUE})")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def string(text: str) -> bytes:
    """Varint of the length in bytes, then UTF-8."""
    data = text.encode()
    return varint(len(data)) + data


class Cursor:
    """Reads forward through a file, never beyond its end. ``where`` starts every message."""

    def __init__(self, file: BinaryIO, end: int, where: str) -> None:
        self._file, self._end, self.where = file, end, where
        self.at = 0

    def seek(self, at: int) -> None:
        """Go to a byte offset."""
        self.at = at
        self._file.seek(at)

    def skip(self, n_bytes: int) -> None:
        """Go forward. Raises `FcbenchError` beyond the end."""
        if n_bytes > self._end - self.at:
            raise FcbenchError(
                f"{self.where}: truncated, {n_bytes} bytes expected at offset {self.at}, "
                f"{self._end - self.at} left: copy or code the file again"
            )
        self.seek(self.at + n_bytes)

    def take(self, n_bytes: int) -> bytes:
        """Next bytes. Raises `FcbenchError` beyond the end."""
        start = self.at
        self.skip(n_bytes)
        self.seek(start)
        data = self._file.read(n_bytes)
        self.at += n_bytes
        if len(data) != n_bytes:
            raise FcbenchError(f"{self.where}: the file became shorter while it was read")
        return data

    def varint(self) -> int:
        """Next LEB128 number. Raises `FcbenchError` for more than 5 bytes, or more than are needed."""
        value = 0
        for i in range(_MAX_VARINT_BYTES):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                if byte == 0 and i > 0:
                    break
                return value
        raise FcbenchError(f"{self.where}: a number at offset {self.at} is malformed: the file is damaged")

    def string(self) -> str:
        """Next string."""
        try:
            return self.take(self.varint()).decode()
        except UnicodeDecodeError:
            raise FcbenchError(f"{self.where}: a name is not UTF-8: the file is damaged") from None
