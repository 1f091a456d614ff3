"""One shard: an HDF5 file that is written once and from then on mapped into memory.

`docs/store-format.md` specifies the file; `cache.store.writer` writes it. HDF5 stores its three datasets contiguously
at page boundaries, so `h5py` is asked where they begin and `mmap` for the rest: no copy, one page cache for all
processes, and no lock. A map holds a file descriptor, and a process may have about a thousand, a store thousands of
shards before it is compacted: the maps used last are kept, of all stores. Mapping again costs 20 us and no reading. The
alternative, a list of rows through h5py, must be in ascending order and takes several times as long.

What can go wrong with a file is checked before it can hurt: HDF5 takes no file lock (they fail on network file systems)
and verifies its own metadata checksums, shapes and dtypes are compared with the store's, and the file's size with the
end of the last dataset before mapping, since touching a map beyond the end kills the process (SIGBUS).
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import mmap
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError, DamageError, file_error, file_errors, one_line
from cache.store.description import SHARD_FILES, VERSION, canonical
from cache.store.dtypes import ENCODINGS
from cache.store.hashing import KEY_BYTES

FORMAT = "feature-shard"


@dataclass(frozen=True)
class Shard:
    """Facts of a shard's header: where the file is, how many rows it holds, where its datasets begin (bytes).

    `file` tells this file from another one that takes its name, such as a copy brought back from a backup.
    """

    path: Path
    rows: int
    dim: int
    dtype: str
    keys_at: int
    features_at: int
    checksums_at: int
    size: int
    file: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Rows:
    """The rows of a shard: keys uint8 [n, 16], features [n, H] as stored, checksums uint64 [n]."""

    keys: NDArray[np.uint8]
    features: NDArray[np.generic]
    checksums: NDArray[np.uint64]

    def part(self, at: slice | NDArray[np.bool_]) -> Rows:
        """Return some of them; of a slice views."""
        return Rows(self.keys[at], self.features[at], self.checksums[at])


_MAPS = 128
_open: OrderedDict[Shard, Rows] = OrderedDict()
_lock = threading.Lock()


def list_shards(folder: Path) -> list[Path]:
    """Return the committed shards in `folder` in the order in which they count.

    :raises CacheError: if the folder cannot be read.
    """
    previous: list[str] | None = None
    with file_errors("read", folder):
        # listing is not atomic: while shards are replaced it can miss old and new, so two have to agree
        while (names := sorted(fnmatch.filter((entry.name for entry in os.scandir(folder)), SHARD_FILES))) != previous:
            previous = names
    return [folder / name for name in names]


def read_shards(folder: Path, description: Mapping[str, Any], known: Iterable[Shard]) -> tuple[Shard, ...]:
    """Return what `list_shards` lists, reading the headers of those that are not `known`.

    :raises CacheError: if the folder cannot be read, or a header is damaged.
    :raises FileNotFoundError: if one was replaced meanwhile.
    """
    before = {shard.path: shard for shard in known}
    return tuple(before.get(path) or read_header(path, description) for path in list_shards(folder))


def size_and_time(path: Path) -> tuple[int, float]:
    """Return a file's bytes and when it was last written (seconds since the epoch); zeros where it is gone."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0.0
    return found.st_size, found.st_mtime


def rows_in_words(rows: NDArray[np.int64]) -> str:
    """Return "rows 1, 2, 3 and 4 more" for row numbers."""
    shown = ", ".join(str(row) for row in rows[:5])
    return f"rows {shown}" + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")


def read_header(path: Path, description: Mapping[str, Any]) -> Shard:
    """Return the facts of the shard at `path`, which must belong to the store of `description`.

    :raises CacheError: if the header is damaged, of another format version or of another store, or the file too short.
    :raises FileNotFoundError: if another process replaced the shard meanwhile.
    """
    shard = _parse_header(path, description)
    state = path.stat()
    _refuse_shorter(shard, state.st_size)
    return replace(shard, file=(state.st_ino, state.st_mtime_ns))


def read_description_of(paths: Iterable[Path]) -> dict[str, Any] | None:
    """Return the description in the first of the shards `paths` whose header can be read, or None.

    :raises CacheError: if a shard is of another format version.
    """
    import h5py

    for path in filter(Path.is_file, paths):
        try:
            with h5py.File(path, "r", locking=False) as file:
                return _described_in(path, file.attrs)
        except (OSError, RuntimeError, KeyError):
            continue
    return None


def _parse_header(path: Path, description: Mapping[str, Any]) -> Shard:
    """Return the facts in the header of the shard at `path`."""
    import h5py

    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
        raise DamageError(path, "it is no file")
    try:
        with h5py.File(path, "r", locking=False) as file:
            _check_store(path, _described_in(path, file.attrs), description)
            return _facts(path, file, description)
    except (FileNotFoundError, MemoryError, CacheError):
        raise
    except Exception as error:  # whatever HDF5 and h5py make of damaged bytes: OSError, RuntimeError, KeyError, ...
        if isinstance(error, OSError) and error.errno:
            raise file_error("read", path, error) from error
        if not path.exists():  # removed while HDF5 was opening it, which HDF5 reports without an errno
            raise FileNotFoundError(path) from error
        raise DamageError(path, f"HDF5 cannot read its header ({one_line(error, 160)})") from error


def read_blocks(shard: Shard, nbytes: int = 8 << 20) -> Iterator[tuple[int, Rows]]:
    """Yield all rows of `shard` from the disk in blocks of `nbytes`, each with the number of its first row.

    Bytes that are missing or that the disk refuses to read come as zeros, which match no checksum.

    :raises CacheError: if the file cannot be opened.
    :raises FileNotFoundError: if another process replaced the shard meanwhile.
    """
    step = max(1, nbytes // (shard.dim * ENCODINGS[shard.dtype].stored.itemsize))
    with _opened(shard.path) as handle:
        for first in range(0, shard.rows, step):
            count = min(step, shard.rows - first)
            keys = np.zeros((count, KEY_BYTES), np.uint8)
            features = np.zeros((count, shard.dim), ENCODINGS[shard.dtype].stored)
            checksums = np.zeros(count, "<u8")
            for start, array in (
                (shard.keys_at, keys),
                (shard.features_at, features),
                (shard.checksums_at, checksums),
            ):
                _read_at(handle, array, start + first * array[:1].nbytes)
            yield first, Rows(keys, features, checksums)


def mapped(shard: Shard) -> Rows:
    """Return the mapped rows of `shard`; safe to call from several threads.

    :raises CacheError: if the file is shorter than its header says.
    :raises FileNotFoundError: if the shard is gone and was not mapped.
    """
    with _lock:
        rows = _open.pop(shard, None)
        if rows is None:
            rows = _map_rows(shard)
        else:  # look before memory is touched that may be beyond the end of a file cut short since it was mapped
            with contextlib.suppress(FileNotFoundError):  # replaced by another shard: what is mapped is still whole
                _refuse_shorter(shard, shard.path.stat().st_size)
        _open[shard] = rows
        if len(_open) > _MAPS:
            _open.popitem(last=False)
        return rows


def _refuse_shorter(shard: Shard, found: int) -> None:
    if found < shard.size:
        raise DamageError(shard.path, f"it has {found} bytes instead of {shard.size}")


def forget() -> None:
    """Let go of all maps."""
    with _lock:
        _open.clear()


def _map_rows(shard: Shard) -> Rows:
    """Return the rows of `shard` as views of the mapped file: read-only, and paged in as they are touched.

    :raises CacheError: if the file is shorter than its header says.
    :raises FileNotFoundError: if another process replaced the shard meanwhile.
    """
    with _opened(shard.path) as handle:
        _refuse_shorter(shard, os.fstat(handle).st_size)
        data = mmap.mmap(handle, shard.size, prot=mmap.PROT_READ)
    n = shard.rows
    return Rows(
        np.frombuffer(data, np.uint8, n * KEY_BYTES, shard.keys_at).reshape(n, KEY_BYTES),
        np.frombuffer(data, ENCODINGS[shard.dtype].stored, n * shard.dim, shard.features_at).reshape(n, shard.dim),
        np.frombuffer(data, "<u8", n, shard.checksums_at),
    )


def _described_in(path: Path, attributes: Mapping[str, Any]) -> dict[str, Any]:
    if bytes(attributes.get("format", b"")) != FORMAT.encode():
        raise CacheError(f"{path} is no feature shard", "move it elsewhere: this folder is for shards alone")
    version = int(attributes["version"])
    if version != VERSION:
        raise CacheError(
            f"{path} has format version {version}, this program reads version {VERSION}",
            "use the release that wrote it, or name another store folder and embed again",
        )
    return dict(json.loads(bytes(attributes["description"])))


def _check_store(path: Path, found: Mapping[str, Any], description: Mapping[str, Any]) -> None:
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
            raise DamageError(path, f"{name} is {dataset.dtype} {list(dataset.shape)}")
        start = dataset.id.get_offset()
        if start is None:
            raise DamageError(path, f"{name} is not stored contiguously")
        starts.append(int(start))
        ends.append(int(start) + int(dataset.nbytes))
    return Shard(path, rows, dim, dtype, starts[0], starts[1], starts[2], max(ends))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Yield a descriptor for reading `path`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield handle
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise file_error("read", path, error) from error


def _read_at(handle: int, array: NDArray[Any], offset: int) -> None:
    view = array.view(np.uint8).reshape(-1).data
    with contextlib.suppress(OSError):
        while view and (count := os.preadv(handle, [view], offset)):
            view, offset = view[count:], offset + count
