"""Finding the rows of a shard whose header is lost, so that one flipped byte does not cost 64 MiB of work.

A file cut short still has its header, which HDF5 refuses to read because of the file's size: here it is told the size
that it expects. A header that fails its checksum is laid out anew: the layout follows from the store's description and
the number of rows, and that follows from the file's size. Either may be wrong without harm, since no row is believed
before its checksum matches.
"""

from __future__ import annotations

import bisect
import io
import os
from typing import TYPE_CHECKING, Any

from cache.errors import DamageError
from cache.store.dtypes import ENCODINGS
from cache.store.shard import Shard, parse_header
from cache.store.writer import lay_out

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_ANY_SIZE = 1 << 60


def recover(path: Path, description: Mapping[str, Any]) -> Shard | None:
    """Return where the rows of the damaged shard at `path` must be, or None where nothing tells.

    :raises CacheError: if it is no shard of this store or format version, or cannot be opened.
    :raises FileNotFoundError: if another process replaced the shard meanwhile.
    """
    with path.open("rb", buffering=0) as file:
        try:
            return parse_header(path, _Lengthened(file.fileno()), description)
        except DamageError:
            return _infer(path, os.fstat(file.fileno()).st_size, description)


class _Lengthened(io.RawIOBase):
    """A file that claims to go on for ever, in zeros."""

    def __init__(self, handle: int) -> None:
        super().__init__()
        self._handle = handle
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (0, self._at, _ANY_SIZE)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        found = os.pread(self._handle, len(view), self._at)
        view[: len(found)] = found
        view[len(found) :] = bytes(len(view) - len(found))
        self._at += len(view)
        return len(view)


def _infer(path: Path, size: int, description: Mapping[str, Any]) -> Shard | None:
    """Return the layout of the only number of rows that makes a file of `size` bytes."""
    most = size // (int(description["hidden_size"]) * ENCODINGS[str(description["store_dtype"])].stored.itemsize)
    sizes = range(1, most + 1)
    place = bisect.bisect_left(sizes, size, key=lambda rows: lay_out(path, description, rows)[0].size)
    if place == len(sizes):
        return None
    shard, _ = lay_out(path, description, sizes[place])
    return shard if shard.size == size else None
