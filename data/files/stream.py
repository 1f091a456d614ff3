"""The text of a file: found, fetched, decompressed and decoded, as lines.

The encoding is found by reading the bytes once, at about a gigabyte per second, before any record is read: a byte order
mark, else UTF-8, else UTF-16 told by its zero bytes, else Windows-1252 if nothing in the file contradicts it. A file
with both valid and invalid UTF-8 is damaged and refused with the line. polars would replace or refuse such bytes, and
reads no UTF-16; it is used only for clouds (``hf://``, ``s3://``) and ``.zst``, which the standard library cannot open.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import polars as pl

from data.errors import DataError, quoted
from data.files.locate import compression_of, in_archive, is_url, local

_BLOCK = 1 << 20
_COMPRESSED = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\0": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
"""First bytes of compressed files, which decide: a browser may have unpacked what is called ``.gz``."""

_SECONDS = 60
_LETTERS = re.compile(r"[\u00c0-\u00ff\u0152\u0153\u0160\u0161\u0178\u017d\u017e]")
_TYPOGRAPHY = re.compile(
    r"[\u00a0-\u00bf\u00d7\u00f7\u2013\u2014\u2018-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122]"
)


@dataclass
class Stream:
    r"""A file of text: `lines()` gives its decoded lines, line ends included, as often as asked.

    `encoding` as Python names it; `note` says so where it was guessed; `backslashes`: whether ``\"`` occurs anywhere.
    `skipped`: lines at the start that are left out.
    """

    source: str
    encoding: str
    note: str | None
    backslashes: bool
    empty: bool
    _open: Callable[[], BinaryIO] = field(repr=False)
    skipped: int = 0

    def lines(self) -> Iterator[str]:
        r"""Yield the lines; a line ends after ``\n``, ``\r`` or ``\r\n``, which is kept."""
        with self._open() as binary, io.TextIOWrapper(binary, encoding=self.encoding, newline="") as text:
            yield from islice(text, self.skipped, None)

    def head(self, count: int) -> list[str]:
        """Return the first lines, at most so many."""
        return list(islice(self.lines(), count))

    def text(self) -> str:
        """Return the whole text."""
        return "".join(self.lines())


def open_stream(source: str, place: str, encoding: str | None = None) -> Stream:
    """Open the text file `source`, which lies at `place`, in `encoding` or the one found.

    :raises DataError: if it cannot be decoded; names the line and byte.
    :raises OSError: if it cannot be read.
    """
    opener = _opener(source, place)
    with opener() as binary:
        head = binary.read(4096)
    note = None
    if encoding is not None:
        try:
            io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        except (LookupError, ValueError) as error:  # not known, or one of bytes such as hex
            raise DataError(
                f"there is no encoding {quoted(encoding)}", "name one such as utf-8, cp1252, utf-16"
            ) from error
    elif (encoding := _marked(head)) is not None:
        note = None if encoding == "utf-8-sig" else f"{source} is encoded as {encoding.upper()}"
    if encoding is not None:
        backslashes = _scan(source, opener, encoding)
    else:
        try:
            encoding, backslashes = "utf-8-sig", _scan(source, opener, "utf-8")
        except DataError as error:
            encoding, backslashes = "cp1252", _scan_windows(source, opener, error)
            note = f"{source} is not UTF-8: read as Windows-1252 (another encoding: --encoding NAME)"
    return Stream(source, encoding, note, backslashes, not head, opener)


def _marked(head: bytes) -> str | None:
    """Return the encoding that a byte order mark, or zero bytes in every second place, says."""
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    even, odd = head[::2], head[1::2]
    if len(odd) > 8 and odd.count(0) > 0.7 * len(odd) and even.count(0) == 0:
        return "utf-16-le"
    if len(odd) > 8 and even.count(0) > 0.7 * len(even) and odd.count(0) == 0:
        return "utf-16-be"
    return None


def _scan(source: str, opener: Callable[[], BinaryIO], encoding: str) -> bool:
    r"""Decode the whole file once; return whether ``\"`` occurs anywhere."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    backslashes, lines, last = False, 1, ""
    with opener() as binary:
        while True:
            block = binary.read(_BLOCK)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                data = error.object
                line = lines + data[: error.start].decode(encoding, "replace").count("\n")
                what = f"byte 0x{data[error.start]:02X}" if error.start < len(data) else "the end"
                name = "UTF-8" if encoding.startswith("utf-8") else encoding
                raise DataError(
                    f"{source}, line {line:,}: {what} is not {name}",
                    "save it as UTF-8, or name the encoding: --encoding NAME",
                ) from error
            if not block:
                return backslashes
            backslashes = backslashes or '\\"' in text or (last == "\\" and text.startswith('"'))
            lines += text.count("\n")
            last = text[-1:] or last


def _scan_windows(source: str, opener: Callable[[], BinaryIO], error: DataError) -> bool:
    """Return what `_scan` does where every byte above 127 may be Windows-1252, else raise `error`, which UTF-8 gave.

    It may be if no two of them are valid UTF-8 together, and all are letters inside words, or typography.
    """
    try:
        with opener() as binary:
            text = binary.read().decode("cp1252")
    except UnicodeDecodeError:
        raise error from None
    if "\0" in text:
        raise error
    high = re.findall(r"[A-Za-z\u0080-\uffff]*[\u0080-\uffff][A-Za-z\u0080-\uffff]*", text)
    for word in high:
        rest = _TYPOGRAPHY.sub("", word)
        letters = _LETTERS.findall(rest)
        plain = sum(character.isascii() for character in rest)
        alone = rest and len(letters) > max(1, plain)  # mostly accents: no western word
        valid = re.search(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}", word.encode("cp1252"))
        if alone or valid or len(letters) + plain != len(rest):
            raise error
    return '\\"' in text


def _opener(source: str, place: str) -> Callable[[], BinaryIO]:
    """Return what opens the decompressed bytes of `place`."""
    if inside := in_archive(place):
        return lambda: cast(BinaryIO, zipfile.ZipFile(str(local(inside[0]))).open(inside[1]))
    kind = compression_of(place)
    scheme = place.split("://", 1)[0].lower() if is_url(place) else ""
    if not scheme and kind not in (".zip", ".zst"):
        with Path(place).open("rb") as binary:
            head = binary.read(6)
        kind = next((suffix for mark, suffix in _COMPRESSED.items() if head.startswith(mark)), "")
    if kind == ".zst" or scheme not in ("", "http", "https"):
        content = _lines_of_polars(place)
        return lambda: io.BytesIO(content)
    if scheme:
        with urllib.request.urlopen(place, timeout=_SECONDS) as answer:
            fetched: bytes = answer.read()
        return lambda: _decompressed(source, io.BytesIO(fetched), kind)
    return lambda: _decompressed(source, Path(place).open("rb"), kind)


def _decompressed(source: str, binary: BinaryIO, kind: str) -> BinaryIO:
    if kind == ".gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=binary))
    if kind == ".bz2":
        return cast(BinaryIO, bz2.BZ2File(binary))
    if kind == ".xz":
        return cast(BinaryIO, lzma.LZMAFile(binary))
    if kind == ".zip":
        archive = zipfile.ZipFile(binary)
        members = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
        if len(members) != 1:
            raise DataError(f"{source} holds {len(members):,} files, not one", "unpack it and name the file in it")
        return cast(BinaryIO, archive.open(members[0]))
    return binary


def _lines_of_polars(place: str) -> bytes:
    """Read a place that only polars can open: a separator that no text file holds makes each line one field."""
    lines = pl.scan_csv(place, has_header=False, infer_schema=False, separator="\x1e", quote_char=None).collect()
    return "\n".join(line or "" for line in lines.to_series()).encode()
