"""The feature store: a folder of immutable shards, looked up by key, read as memory.

Nothing in the folder changes once it is there, so nothing needs a lock: writers add shards under names that no one else
chooses, readers map what they find, and the row in the shard whose name sorts first counts. Two writers that compute
the same text waste one computation and lose nothing. Opening reads every key once (16 bytes per row).

`gather` copies rows from the map on a few threads (numpy lets go of the interpreter meanwhile), in blocks of two
megabytes, to where they go, or to scratch memory where rows are scattered or widened. Checksums are computed right
there, in the cache, so that checking reads no memory twice and what is checked is what the caller gets. With smaller
blocks two threads spend their time handing the interpreter to each other.

The alternative that most reach for, one HDF5 file that grows, needs a lock for every append, loses all of it to one
badly timed kill, and reads a list of rows several times more slowly (`benchmarks/cache/store.py`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError, DamageError, file_errors
from cache.store.atomic import flush
from cache.store.description import DESCRIPTION_FILE, LAST_USED_FILE, checked, read_description, write_description
from cache.store.dtypes import ENCODINGS, decode
from cache.store.hashing import BLOCK_BYTES, KEY_BYTES, as_keys, row_checksums, scratch_for
from cache.store.index import KeyIndex
from cache.store.shard import Rows, Shard, mapped, read_shards, rows_in_words
from cache.store.writer import ShardWriter

_ATTEMPTS = 100
_THREADS = min(4, os.cpu_count() or 1)
_TASK_BYTES = 1 << 23


class FeatureStore:
    """Features of one layer of one backbone, by key. Make one with `create` or `open`.

    As of the last `refresh`: `shards` in the order in which they count, and `index`, where each key's row is among all
    of them, 24 bytes per row.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        """Use `FeatureStore.create` or `FeatureStore.open`."""
        self.folder = folder
        self.description = dict(description)
        self.dim = int(description["hidden_size"])
        self.dtype = str(description["store_dtype"])
        self.shards: tuple[Shard, ...] = ()
        self._touched = False
        self.refresh()

    @classmethod
    def create(cls, folder: Path, description: Mapping[str, Any]) -> FeatureStore:
        """Open the store in `folder`, making it first if there is none.

        `description` says what determines the features, JSON values only; it must have "hidden_size" (H),
        "store_dtype" (float16, float32 or bfloat16) and "fingerprint".

        :raises CacheError: if the folder holds a store of another description, or cannot be written.
        """
        folder = Path(folder)
        wanted = checked(description)
        with file_errors("create", folder):
            folder.mkdir(parents=True, exist_ok=True)
        path = folder / DESCRIPTION_FILE
        if not path.exists():
            write_description(folder, wanted)
            with contextlib.suppress(OSError):  # a parent that may be entered but not read cannot be flushed
                flush(folder.parent)
        found = read_description(folder)
        if found != wanted:
            differing = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
            first = differing[0]
            raise CacheError(
                f"{path} describes another store: {first} is {found.get(first)!r}, not {wanted.get(first)!r}"
                + (f" ({', '.join(differing[1:])} differ too)" if differing[1:] else ""),
                "name another folder: features of two backbones never share one",
            )
        return cls(folder, wanted)

    @classmethod
    def open(cls, folder: Path) -> FeatureStore:
        """Open the store in `folder` for reading.

        :raises CacheError: if there is none, or its description or a shard's header is damaged.
        """
        return cls(Path(folder), read_description(Path(folder)))

    def __len__(self) -> int:
        return len(self.index.numbers)

    def refresh(self) -> None:
        """Take in what was committed, compacted or repaired since the store was opened.

        :raises CacheError: if the folder is gone, or a shard's header is damaged.
        """
        for _ in range(_ATTEMPTS):
            try:
                shards = read_shards(self.folder, self.description, self.shards)
                if shards and shards == self.shards:
                    return
                keys = self._read_keys(shards)
            except FileNotFoundError:  # compacted or repaired between listing and opening: list again
                continue
            self.shards = shards
            self._starts = np.cumsum([0, *(shard.rows for shard in shards)], dtype=np.int64)
            self.index = KeyIndex.build(keys)
            return
        raise CacheError(f"the shards of {self.folder} keep changing while they are read", "try again in a moment")

    def contains(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return which of `keys`, uint8 [n, 16], have a row, bool [n]."""
        return self.index.find(as_keys(keys)) >= 0

    def gather(self, keys: NDArray[np.uint8], *, check: bool = True) -> NDArray[np.generic]:
        """Return the features of `keys`, uint8 [n, 16], as [n, H] in the stored dtype (bfloat16 as float32).

        :param check: compare every row with its checksum (see `cache.store.hashing` for what that costs).
        :raises CacheError: if a key has no row, or a row does not match its checksum.
        """
        keys = as_keys(keys)
        self._note_use()
        for _ in range(_ATTEMPTS):
            numbers = self._find(keys)
            out = np.empty((len(keys), self.dim), ENCODINGS[self.dtype].returned)
            try:
                self._copy(self._plan(numbers), keys, out, check)
            except FileNotFoundError:  # compacted or repaired since: the rows are in another shard now
                self.refresh()
                continue
            return out
        raise CacheError(f"the shards of {self.folder} keep changing while they are read", "try again in a moment")

    def writer(self, *, seconds: float = 10.0, nbytes: int = 64 << 20) -> ShardWriter:
        """Return a context manager whose `append` adds rows; it commits a shard every `seconds` or `nbytes`.

        `refresh` shows this object what the writer has committed.
        """
        return ShardWriter(self.folder, self.description, seconds=seconds, nbytes=nbytes)

    def counting(self) -> list[NDArray[np.int64]]:
        """Return for each of `shards`, ascending, its rows that count: no earlier row has their key."""
        numbers = np.sort(self.index.numbers)
        cuts = np.searchsorted(numbers, self._starts)
        return [
            numbers[first:last] - start
            for (first, last), start in zip(itertools.pairwise(cuts), self._starts, strict=False)
        ]

    def _read_keys(self, shards: tuple[Shard, ...]) -> NDArray[np.uint8]:
        keys = np.empty((sum(shard.rows for shard in shards), KEY_BYTES), np.uint8)
        done = 0
        for shard in shards:  # copied one by one: a view would keep its map, and with it a descriptor, open
            keys[done : done + shard.rows] = mapped(shard).keys
            done += shard.rows
        return keys

    def _find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        numbers = self.index.find(keys)
        missing = np.flatnonzero(numbers < 0)
        if len(missing):
            raise CacheError(
                f"{len(missing)} of {len(keys)} keys have no feature in {self.folder}, the first at row {missing[0]}",
                "embed these texts first: `pipeline embed`, or cache.embed",
            )
        return numbers

    def _plan(self, numbers: NDArray[np.int64]) -> Iterator[_Part]:
        """Split row numbers by shard, keeping runs of the result as slices where the shards come in order."""
        if not len(numbers):
            return
        owners = np.searchsorted(self._starts, numbers, side="right") - 1
        ordered = bool((owners[1:] >= owners[:-1]).all())
        order = None if ordered else np.argsort(owners, kind="stable")
        grouped = owners if order is None else owners[order]
        cuts = [0, *(np.flatnonzero(grouped[1:] != grouped[:-1]) + 1).tolist(), len(numbers)]
        for first, last in itertools.pairwise(cuts):
            place = grouped[first]
            target = slice(first, last) if order is None else order[first:last]
            yield _Part(self.shards[place], numbers[target] - self._starts[place], target)

    def _copy(self, parts: Iterator[_Part], keys: NDArray[np.uint8], out: NDArray[np.generic], check: bool) -> None:
        step = max(1, _TASK_BYTES // (self.dim * ENCODINGS[self.dtype].stored.itemsize))
        tasks = (part.section(at, step) for part in parts for at in range(0, len(part.source), step))

        def copy(part: _Part) -> _Part:
            # mapped here, not when the task is made: of a thousand shards only a few are to be open at once
            wrong = _copy_rows(mapped(part.shard), part, keys, out, self.dtype, check)
            return part._replace(source=wrong)

        if out.nbytes <= _TASK_BYTES or _THREADS == 1:
            found = [copy(part) for part in tasks]
        else:
            with ThreadPoolExecutor(_THREADS) as pool:
                found = list(pool.map(copy, tasks))
        for part in found:
            if len(part.source):
                raise DamageError(part.shard.path, f"{rows_in_words(part.source)} do not match their checksums")

    def _note_use(self) -> None:
        """Record that rows are read now: the time of an empty file, set by the file server."""
        if not self._touched:
            self._touched = True
            with contextlib.suppress(OSError):  # a folder that may only be read keeps no record, and needs none
                (self.folder / LAST_USED_FILE).touch()


class _Part(NamedTuple):
    """Rows to copy from one shard: their rows there, and where they go in the result."""

    shard: Shard
    source: NDArray[np.int64]
    target: slice | NDArray[np.int64]

    def section(self, at: int, length: int) -> _Part:
        """Return `length` of these rows, from the one at position `at` on."""
        if isinstance(self.target, slice):
            first = self.target.start + at
            return _Part(self.shard, self.source[at : at + length], slice(first, min(first + length, self.target.stop)))
        return _Part(self.shard, self.source[at : at + length], self.target[at : at + length])


def _copy_rows(
    rows: Rows, part: _Part, keys: NDArray[np.uint8], out: NDArray[np.generic], dtype: str, check: bool
) -> NDArray[np.int64]:
    """Copy a part of a shard's `rows` to where it goes in `out`; return the shard's rows that fail their checksum."""
    step = max(1, BLOCK_BYTES // (rows.features.shape[1] * rows.features.itemsize))
    direct = isinstance(part.target, slice) and out.dtype == rows.features.dtype
    scratch = None if direct else np.empty((min(step, len(part.source)), out.shape[1]), rows.features.dtype)
    folded = scratch_for(min(step, len(part.source)), rows.features.shape[1], rows.features.itemsize)
    wrong = []
    for at in range(0, len(part.source), step):
        _, source, target = part.section(at, step)
        block = out[target] if scratch is None else scratch[: len(source)]
        if source[-1] - source[0] == len(source) - 1 and (np.diff(source) == 1).all():
            np.copyto(block, rows.features[source[0] : source[0] + len(source)])
        else:
            np.take(rows.features, source, axis=0, out=block, mode="clip")  # "clip" writes to `block` directly
        if check:
            # with the keys that were asked for, not the shard's: a row that answers to a wrong key is found too
            differs = row_checksums(keys[target], block, folded) != rows.checksums[source]
            wrong.append(source[differs])
        if scratch is not None:
            out[target] = decode(block, dtype)
    return np.concatenate(wrong) if wrong else np.empty(0, np.int64)
