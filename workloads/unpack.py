"""The bytes of a text file, whatever it is wrapped in: gzip (once or more), zip, tar; and its encoding.

Files come from issue trackers and shared drives: zipped for the upload, gzipped twice, with a byte order mark, in UTF-16. What
cannot be unwrapped is refused by its true reason. Nothing is unpacked to disk and little of it held at once.
"""

from __future__ import annotations

import codecs
import io
import os
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

_MOST_LAYERS = 4
_FEED_BYTES = 1 << 14  # unpacks to 16 MiB at most: gzip's ratio is below 1,032
_HEAD_BYTES = 512
_FOREIGN = {
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "rar",
}
_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


class FileError(Exception):
    """What is wrong with a file, to follow its name."""


class Gunzip(io.RawIOBase):
    """The bytes in gzip data. Data that end too early give what there is, and set `cut`."""

    def __init__(self, packed: BinaryIO) -> None:
        self.cut = False
        self._packed, self._left, self._ready = packed, b"", b""
        self._unpack: Any = zlib.decompressobj(31)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """As io.RawIOBase.

        Raises:
            FileError: data that gzip did not write.
        """
        while not self._ready:
            if not self._left:
                self._left = self._packed.read(_FEED_BYTES) or b""
            if not self._left:
                self.cut = self._unpack is not None and not self._unpack.eof
                return 0
            if self._unpack.eof:  # another member, or padding
                self._left = self._left.lstrip(b"\0")
                if not self._left.startswith(b"\x1f"):
                    self._left = b""
                    continue
                self._unpack = zlib.decompressobj(31)
            try:
                self._ready = self._unpack.decompress(self._left)
            except zlib.error as error:
                raise FileError(f"is damaged: its gzip data cannot be unpacked ({error})") from None
            self._left = self._unpack.unused_data
        part, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


class Text:
    """The text of a file, a piece at a time.

    encoding: what it turned out to be in. layers: what it was wrapped in, outermost first. All gzip layers say whether their data
    were cut: `cut`.

    Raises:
        FileError: no such file, one that cannot be read, or wrapped in what this cannot unwrap.
    """

    def __init__(self, path: Path) -> None:
        self.layers: list[str] = []
        self._gunzips: list[Gunzip] = []
        self._path = path
        self._raw = self._opened()
        try:
            self._stream = self._unpacked()
            self.encoding = _encoding(_peek(self._stream))
        except BaseException:
            self._raw.close()
            raise
        self._decode = codecs.getincrementaldecoder(self.encoding)("replace").decode

    def read(self, nbytes: int) -> str | None:
        """The text of about so many bytes; None at the end."""
        data = self._stream.read(nbytes)
        text = self._decode(data, not data)
        return text if data else (text or None)

    @property
    def cut(self) -> bool:
        """Whether gzip data ended too early."""
        return any(layer.cut for layer in self._gunzips)

    def close(self) -> None:
        """Give the file back."""
        self._raw.close()

    def read_bytes(self) -> int:
        """How far into the file, in its own bytes."""
        return self._raw.tell()

    def _opened(self) -> BinaryIO:
        if os.path.isdir(self._path):
            raise FileError("is a folder, not a Kineto trace")
        try:
            return self._path.open("rb")
        except FileNotFoundError:
            raise FileError("does not exist") from None
        except OSError as error:
            raise FileError(f"cannot be read: {error.strerror or error}") from None

    def _unpacked(self) -> io.BufferedReader:
        stream: Any = self._raw
        for _ in range(_MOST_LAYERS + 1):
            head = _peek(stream)
            layer = _layer(head)
            if layer is None:
                return stream
            self.layers.append(layer)
            stream = io.BufferedReader(self._unwrapped(layer, stream), 1 << 16)
        raise FileError(f"is packed more than {_MOST_LAYERS} times over: unpack it first")

    def _unwrapped(self, layer: str, stream: Any) -> Any:
        if layer == "gzip":
            self._gunzips.append(Gunzip(stream))
            return self._gunzips[-1]
        try:
            if layer == "zip":
                return _zipped(stream)
            return _tarred(stream)
        except (zipfile.BadZipFile, tarfile.TarError, RuntimeError, NotImplementedError, EOFError) as error:
            raise FileError(f"is damaged: its {layer} archive cannot be unpacked ({error})") from None


def _peek(stream: Any) -> bytes:
    data: bytes = stream.peek(_HEAD_BYTES)
    return data[:_HEAD_BYTES]


def _layer(head: bytes) -> str | None:
    for magic, name in _FOREIGN.items():
        if head.startswith(magic):
            raise FileError(f"is packed with {name}: unpack it first")
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    return "tar" if head[257:262] == b"ustar" else None


def _zipped(stream: Any) -> Any:
    if not stream.seekable():
        raise FileError("holds a zip archive within gzip: unpack it first")
    archive = zipfile.ZipFile(stream)
    return archive.open(_only([info.filename for info in archive.infolist() if not info.is_dir()], "zip"))


def _tarred(stream: Any) -> Any:
    if not stream.seekable():
        # A stream goes one way: the first file that may be a trace is taken, and a second one cannot be ruled out beforehand.
        archive = tarfile.open(fileobj=stream, mode="r|")  # noqa: SIM115
        for member in archive:
            if member.isfile() and _may_be(member.name):
                return archive.extractfile(member)
        raise FileError("is a tar archive without a .json or .json.gz file")
    archive = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115
    return archive.extractfile(_only([member.name for member in archive if member.isfile()], "tar"))


def _may_be(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return "__MACOSX" not in parts and not parts[-1].startswith(".") and parts[-1].endswith((".json", ".gz"))


def _only(names: list[str], kind: str) -> str:
    found = [name for name in names if _may_be(name)]
    if not found and len(names) == 1:
        found = names
    if not found:
        raise FileError(f"is a {kind} archive without a .json or .json.gz file")
    if len(found) > 1:
        listed = ", ".join(repr(name) for name in found[:4]) + (", ..." if len(found) > 4 else "")
        raise FileError(f"is a {kind} archive of {len(found)} traces ({listed}): unpack it and import one")
    return found[0]


def _encoding(head: bytes) -> str:
    for mark, name in _ENCODINGS:
        if head.startswith(mark):
            return name
    if head[1:2] == b"\0" and head[:1] != b"\0":
        return "utf-16-le"
    if head[:1] == b"\0" and head[1:2] != b"\0":
        return "utf-16-be"
    return "utf-8"
