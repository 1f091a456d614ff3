"""Writing a shard: HDF5 decides where things go, and `pwrite` puts them there.

HDF5 lays the file out in a file object that only remembers the two kilobytes of metadata written to it. These and the
rows then go to the disk with plain system calls, so that a full disk is an `OSError` and not a broken HDF5 handle that
complains again when the process ends, and the rows are copied once. The alternative, writing through h5py, is as fast
but leaves an HDF5 library that holds an unwritable file open.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.atomic import atomic_file
from cache.encodings import ENCODINGS
from cache.keys import KEY_BYTES
from cache.shard import FORMAT, VERSION, Rows, Shard, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_PAGE = 4096


def write_shard(path: Path, description: Mapping[str, Any], count: int, blocks: Iterable[Rows]) -> None:
    """Commit a shard of `count` > 0 rows that come in `blocks`; it appears under `path` whole or not at all.

    :raises CacheError: if the file system refuses a step; nothing is left behind then.
    """
    facts, pieces = lay_out(path, description, count)
    with atomic_file(path) as partial, partial.open("r+b", buffering=0) as file:
        done = 0
        for block in blocks:
            _write_at(file.fileno(), block.keys, facts.keys_at + done * KEY_BYTES)
            _write_at(file.fileno(), block.features, facts.features_at + done * block.features[:1].nbytes)
            _write_at(file.fileno(), block.checksums, facts.checksums_at + done * block.checksums[:1].nbytes)
            done += len(block.keys)
        for start, data in pieces.items():
            _write_at(file.fileno(), np.frombuffer(data, np.uint8), start)
        if done != count:
            raise RuntimeError(f"{done} rows came for a shard of {count}")


class _Sketch(io.RawIOBase):
    """A file that keeps only what is written to it: HDF5 lays out gigabytes here and writes two kilobytes."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: dict[int, bytes] = {}
        self._at = 0
        self._size = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self.pieces[self._at] = piece
        self._at += len(piece)
        self._size = max(self._size, self._at)
        return len(piece)

    def truncate(self, size: int | None = None) -> int:
        self._size = self._at if size is None else size
        return self._size

    def readinto(self, buffer: Any) -> int:
        raise NotImplementedError("HDF5 reads nothing back while it lays out a file")


def lay_out(path: Path, description: Mapping[str, Any], count: int) -> tuple[Shard, dict[int, bytes]]:
    """Return the facts of a shard of `count` rows, and the bytes of its HDF5 metadata by offset."""
    import h5py

    dim, dtype = int(description["hidden_size"]), str(description["store_dtype"])
    sketch = _Sketch()
    # what "latest" has written since HDF5 1.10, metadata checksums included, and what 1.10 and later all read
    bounds = ("v110", "v110")
    with h5py.File(sketch, "w", libver=bounds, alignment_threshold=1, alignment_interval=_PAGE) as file:
        file.attrs["format"] = np.bytes_(FORMAT.encode())
        file.attrs["version"] = VERSION
        # fixed-length strings: those of variable length live in a heap that HDF5 does not checksum
        file.attrs["description"] = np.bytes_(canonical(description).encode())
        starts = {
            "keys": _place(file, "keys", (count, KEY_BYTES), np.dtype(np.uint8)),
            # before the features, so that of a file cut short the rows that are left can still be checked
            "checksums": _place(file, "checksums", (count,), np.dtype("<u8")),
            "features": _place(file, "features", (count, dim), ENCODINGS[dtype].stored),
        }
        file["features"].attrs["encoding"] = np.bytes_(dtype.encode())
    size = sketch.seek(0, os.SEEK_END)
    return Shard(path, count, dim, dtype, starts["keys"], starts["features"], starts["checksums"], size), sketch.pieces


def _place(file: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Create a contiguous dataset, its room reserved and nothing written to it; return where it begins."""
    from h5py import h5d, h5p, h5s, h5t

    plan = h5p.create(h5p.DATASET_CREATE)
    plan.set_layout(h5d.CONTIGUOUS)
    plan.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5d.FILL_TIME_NEVER)
    dataset = h5d.create(file.id, name.encode(), h5t.py_create(dtype), h5s.create_simple(shape), plan)
    return int(dataset.get_offset())


def _write_at(handle: int, array: NDArray[Any], offset: int) -> None:
    view = np.ascontiguousarray(array).view(np.uint8).reshape(-1).data
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written
