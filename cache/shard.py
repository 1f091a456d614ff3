"""One shard: an HDF5 file that is written once and from then on mapped into memory.

`docs/store-format.md` specifies the file. HDF5 lays the three datasets out contiguously at page boundaries and tells
where they begin; the rows themselves never pass through it. Writing: HDF5 lays out a file that exists in memory only
(a few kilobytes of metadata), then the metadata and the rows go to the disk with `pwrite`, so that a full disk is a
plain `OSError` and not a broken HDF5 handle. Reading: `h5py` reads shape and offset, `mmap` the rest, which costs no
copy and shares one page cache among all processes.

What can go wrong with a file is checked before it can hurt: HDF5 takes no file lock (they fail on network file systems)
and verifies its own metadata checksums, the layout is compared with the one that this module writes, and the file's
size with the end of the last dataset before mapping, since a map beyond the end kills the process (SIGBUS).
"""

from __future__ import annotations

import io
import json
import mmap
import os
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.atomic import atomic_file
from cache.encodings import ENCODINGS
from cache.errors import CacheError, file_error
from cache.keys import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

FORMAT = "feature-shard"
VERSION = 1
PAGE = 4096
_REPAIR = "run `pipeline cache verify --repair`: it drops what is damaged, and the next embed computes it again"


@dataclass(frozen=True)
class Shard:
    """Facts of a shard's header: where the file is, how many rows it holds, where its datasets begin (bytes)."""

    path: Path
    rows: int
    dim: int
    dtype: str
    keys_at: int
    features_at: int
    checksums_at: int
    size: int


@dataclass(frozen=True)
class Rows:
    """The rows of a shard: keys uint8 [n, 16], features [n, H] as stored, checksums uint64 [n]."""

    keys: NDArray[np.uint8]
    features: NDArray[np.generic]
    checksums: NDArray[np.uint64]


def damaged(path: Path, what: str) -> CacheError:
    """Return the error for a shard that cannot be trusted."""
    return CacheError(f"{path} is damaged: {what}", _REPAIR)


def new_name() -> str:
    """Return a shard name that sorts by time and that no other process or host chooses."""
    return f"shard-{time.time_ns():020d}-{secrets.token_hex(6)}.h5"


def is_shard_name(name: str) -> bool:
    """Return whether `name` is that of a committed shard."""
    return name.startswith("shard-") and name.endswith(".h5")


def successor_name(name: str) -> str:
    """Return a name for what replaces shard `name`: it sorts at `name`, before every shard that sorts after `name`."""
    return f"{'-'.join(name.removesuffix('.h5').split('-')[:3])}-{secrets.token_hex(6)}.h5"


def write_shard(path: Path, description: Mapping[str, Any], count: int, blocks: Iterable[Rows]) -> None:
    """Commit a shard of `count` > 0 rows that come in `blocks`; it appears under `path` whole or not at all.

    :raises CacheError: if the file system refuses a step; nothing is left behind then.
    """
    facts, pieces = _lay_out(path, description, count)
    sections = (facts.keys_at, facts.features_at, facts.checksums_at)
    with atomic_file(path) as partial, partial.open("r+b", buffering=0) as file:
        done = 0
        for block in blocks:
            for start, array in zip(sections, (block.keys, block.features, block.checksums), strict=True):
                _write_at(file.fileno(), array, start + done * array[:1].nbytes)
            done += len(block.keys)
        for start, data in pieces.items():
            _write_at(file.fileno(), np.frombuffer(data, np.uint8), start)
        if done != count:
            raise RuntimeError(f"{done} rows came for a shard of {count}")


def read_header(path: Path, description: Mapping[str, Any]) -> Shard:
    """Return the facts of the shard at `path`, which must belong to the store of `description`.

    :raises CacheError: if the header is damaged, of another format version or of another store, or the file too short.
    :raises FileNotFoundError: if another process replaced the shard meanwhile.
    """
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            _check_attributes(path, dict(file.attrs), description)
            shard = _facts(path, file, description)
    except FileNotFoundError:
        raise
    except CacheError:
        raise
    except PermissionError as error:
        raise file_error("read", path, error) from error
    except Exception as error:  # whatever HDF5 and h5py make of damaged bytes: OSError, RuntimeError, KeyError, ...
        raise damaged(path, f"HDF5 cannot read its header ({_first_line(error)})") from error
    if (found := path.stat().st_size) < shard.size:
        raise damaged(path, f"it has {found} bytes instead of {shard.size}")
    return shard


def map_rows(shard: Shard) -> Rows:
    """Return the rows of `shard` as views of the mapped file: read-only, and paged in as they are touched.

    :raises CacheError: if the file is shorter than its header says.
    :raises FileNotFoundError: if another process replaced the shard meanwhile.
    """
    try:
        handle = os.open(shard.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = os.fstat(handle).st_size
            if found < shard.size:
                raise damaged(shard.path, f"it has {found} bytes instead of {shard.size}")
            data = mmap.mmap(handle, shard.size, prot=mmap.PROT_READ)
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise file_error("read", shard.path, error) from error
    n = shard.rows
    return Rows(
        np.frombuffer(data, np.uint8, n * KEY_BYTES, shard.keys_at).reshape(n, KEY_BYTES),
        np.frombuffer(data, ENCODINGS[shard.dtype].stored, n * shard.dim, shard.features_at).reshape(n, shard.dim),
        np.frombuffer(data, "<u8", n, shard.checksums_at),
    )


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


def _lay_out(path: Path, description: Mapping[str, Any], count: int) -> tuple[Shard, dict[int, bytes]]:
    """Return the facts of a shard of `count` rows, and the bytes of its HDF5 metadata by offset."""
    import h5py

    dim, dtype = int(description["hidden_size"]), str(description["store_dtype"])
    sketch = _Sketch()
    # what "latest" has written since HDF5 1.10, metadata checksums included, and what 1.10 and later all read
    bounds = ("v110", "v110")
    with h5py.File(sketch, "w", libver=bounds, alignment_threshold=1, alignment_interval=PAGE) as file:
        file.attrs["format"] = np.bytes_(FORMAT.encode())
        file.attrs["version"] = VERSION
        # fixed-length strings: those of variable length live in a heap that HDF5 does not checksum
        file.attrs["description"] = np.bytes_(canonical(description).encode())
        starts = {
            "keys": _place(file, "keys", (count, KEY_BYTES), np.dtype(np.uint8)),
            "features": _place(file, "features", (count, dim), ENCODINGS[dtype].stored),
            "checksums": _place(file, "checksums", (count,), np.dtype("<u8")),
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


def canonical(description: Mapping[str, Any]) -> str:
    """Return `description` as the one JSON text that equal descriptions share."""
    return json.dumps(dict(description), sort_keys=True, separators=(",", ":"))


def _check_attributes(path: Path, attributes: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    if bytes(attributes.get("format", b"")) != FORMAT.encode():
        raise CacheError(f"{path} is no feature shard", "move it elsewhere: this folder is for shards alone")
    version = int(attributes["version"])
    if version != VERSION:
        raise CacheError(
            f"{path} has format version {version}, this program reads version {VERSION}",
            "use the release that wrote it, or name another store folder and embed again",
        )
    found = json.loads(bytes(attributes["description"]))
    if canonical(found) != canonical(description):
        differing = sorted(k for k in found.keys() | description.keys() if found.get(k) != description.get(k))
        raise CacheError(
            f"{path} belongs to another store: {', '.join(differing)} differ from backbone.json",
            "move it back to the store that it came from",
        )


def _facts(path: Path, file: Any, description: Mapping[str, Any]) -> Shard:
    dtype = str(description["store_dtype"])
    keys, features, checksums = file["keys"], file["features"], file["checksums"]
    rows, dim = (int(extent) for extent in features.shape)
    expected = {
        "keys": ((rows, KEY_BYTES), np.dtype(np.uint8)),
        "features": ((rows, int(description["hidden_size"])), ENCODINGS[dtype].stored),
        "checksums": ((rows,), np.dtype("<u8")),
    }
    starts, ends = [], []
    for dataset in (keys, features, checksums):
        name = dataset.name.removeprefix("/")
        if (dataset.shape, dataset.dtype) != expected[name]:
            raise damaged(path, f"{name} is {dataset.dtype} {list(dataset.shape)}")
        start = dataset.id.get_offset()
        if start is None:
            raise damaged(path, f"{name} is not stored contiguously")
        starts.append(int(start))
        ends.append(int(start) + int(dataset.nbytes))
    return Shard(path, rows, dim, dtype, *starts, size=max(ends))


def _write_at(handle: int, array: NDArray[Any], offset: int) -> None:
    view = memoryview(np.ascontiguousarray(array)).cast("B")
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
