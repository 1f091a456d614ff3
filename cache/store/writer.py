"""Appending to a store: rows wait in memory and become a shard every ten seconds of work or 32 MiB.

A shard per batch would be thirty thousand files for a million rows; a shard at the end would lose a night to one kill.
One shard fills while a thread writes the one before, so that the caller waits for the disk only where the disk is
slower than the backbone. A kill costs at most both: the rows of the last `seconds`, or `nbytes` of them, half waiting
and half on their way. The clock runs from when work on the oldest waiting row began, and a shard is also closed when
the next append, taking as long as the last, would come too late.

Writing a shard: HDF5 decides where things go, and `pwrite` puts them there.

HDF5 lays the file out in a file object that only remembers the two kilobytes of metadata written to it. These and the
rows then go to the disk with plain system calls, so that a full disk is an `OSError` and not a broken HDF5 handle that
complains again when the process ends, and the rows are copied once. The alternative, writing through h5py, is as fast
but leaves an HDF5 library that holds an unwritable file open.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError, file_error
from cache.store.atomic import atomic_file, flush, remove_stale_partials
from cache.store.description import VERSION, canonical
from cache.store.dtypes import ENCODINGS, acceptable, encode
from cache.store.hashing import KEY_BYTES, as_keys, row_checksums
from cache.store.shard import FORMAT, Rows, Shard

_PAGE = 4096


def new_name() -> str:
    """Return a shard name that sorts by time and that no other process or host chooses."""
    return f"shard-{time.time_ns():020d}-{secrets.token_hex(6)}.h5"


def successor_name(name: str) -> str:
    """Return a name for what replaces shard `name`: it sorts at `name`, before every shard that sorts after `name`."""
    return f"{'-'.join(name.removesuffix('.h5').split('-')[:3])}-{secrets.token_hex(6)}.h5"


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


def replace_shards(old: Sequence[Path], description: Mapping[str, Any], count: int, blocks: Iterable[Rows]) -> Path:
    """Put one shard of `count` rows, none if 0, in the place of some neighbours `old`; return the path that it has.

    It counts where the first of them did. The others go when it is on the disk, the last first.

    :raises CacheError: if the file system refuses a step.
    """
    successor = old[0].with_name(successor_name(old[0].name))
    if count:
        write_shard(successor, description, count, blocks)
    try:
        for path in reversed(old):
            path.unlink(missing_ok=True)
        flush(successor.parent)
    except OSError as error:
        raise file_error("remove", path, error) from error
    return successor


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


class ShardWriter:
    """Commits appended rows as shards: for a `with` block and one thread; `FeatureStore.writer` makes it."""

    def __init__(
        self, folder: Path, description: Mapping[str, Any], *, seconds: float = 10.0, nbytes: int = 64 << 20
    ) -> None:
        """Write to `folder`, so that a kill costs at most `seconds` of work or `nbytes` of stored features.

        `rows` counts what was appended, `committed` how many of these, the first ones, are on the disk.
        """
        self.folder = folder
        self.rows = self.committed = 0
        self._description = description
        self._dim = int(description["hidden_size"])
        self._dtype = str(description["store_dtype"])
        self._seconds = seconds
        self._filling, self._spare = (_Buffer(nbytes // 2, self._dim, self._dtype) for _ in range(2))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shard-writer")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        """Start the clock, and clear away what killed writers left."""
        remove_stale_partials(self.folder)
        self._began = self._appended = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Commit what is waiting, after an exception too: those rows are whole, and computing them took time."""
        # the exception on its way says more than a second one
        with contextlib.suppress(*([CacheError] if kind else [])), self._thread:
            self.flush()

    def append(self, keys: NDArray[np.uint8], features: NDArray[np.floating]) -> None:
        """Add rows: `keys` uint8 [m, 16], `features` float [m, H].

        :raises CacheError: if shapes disagree, a value is not finite or out of the stored dtype's range (nothing of the
            call is stored then), or an earlier shard could not be written.
        """
        keys, features = as_keys(keys), acceptable(features, self._dtype, self._dim)
        if len(keys) != len(features):
            raise CacheError(f"{len(keys)} keys came with {len(features)} features", "pass one key per feature")
        done = 0
        while done < len(keys):
            taken, full = self._filling.add(keys[done:], features[done:], self._dtype)
            done += taken
            if full:
                self._swap()
        self.rows += len(keys)
        now = time.monotonic()
        took, self._appended = now - self._appended, now
        if now - self._began + took >= self._seconds:
            self._swap()

    def flush(self) -> None:
        """Commit what is waiting as one shard, and return when it is on the disk.

        :raises CacheError: if the file system refuses it; the rows wait no longer then.
        """
        try:
            self._wait()
        finally:  # what a shard before it met does not keep these rows
            self._swap()
            self._wait()

    def _swap(self) -> None:
        self._wait()
        self._filling, self._spare = self._spare, self._filling
        self._began = time.monotonic()
        rows = self._spare.take()
        if len(rows.keys):
            self._writing = self._thread.submit(self._commit, rows)

    def _commit(self, rows: Rows) -> None:
        rows.checksums[...] = row_checksums(rows.keys, rows.features)
        write_shard(self.folder / new_name(), self._description, len(rows.keys), [rows])
        self.committed += len(rows.keys)

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


class _Buffer:
    """Room for the rows of one shard, used again and again: fresh memory would cost more than filling it."""

    def __init__(self, nbytes: int, dim: int, dtype: str) -> None:
        stored = ENCODINGS[dtype].stored
        capacity = max(1, nbytes // (dim * stored.itemsize))
        self._rows = Rows(
            np.empty((capacity, KEY_BYTES), np.uint8), np.empty((capacity, dim), stored), np.empty(capacity, np.uint64)
        )
        self._count = 0

    def add(self, keys: NDArray[np.uint8], features: NDArray[np.floating], dtype: str) -> tuple[int, bool]:
        """Take in the first rows, as many as there is room for; return how many, and whether no room is left."""
        first, last = self._count, min(self._count + len(keys), len(self._rows.keys))
        taken = self._rows.part(slice(first, last))
        taken.keys[...] = keys[: last - first]
        encode(features[: last - first], dtype, taken.features)
        self._count = last
        return last - first, last == len(self._rows.keys)

    def take(self) -> Rows:
        """Return the rows, their checksums still to be computed, and begin anew."""
        count, self._count = self._count, 0
        return self._rows.part(slice(0, count))
