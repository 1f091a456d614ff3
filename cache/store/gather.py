"""Copying rows from a mapped shard to a result, and checking them while they are in the cache.

A block of two megabytes is copied to where it goes (or to scratch memory, where rows are scattered or widened) and its
checksums are computed right there, in the cache, so that checking reads no memory twice and what is checked is what the
caller gets. With smaller blocks two threads spend their time handing the interpreter to each other. Neighbouring rows
are one copy; others go through `np.take`.

One bounded pool of mapped shards: a map holds a file descriptor, and a process may have only about a thousand.

A slow machine commits a shard every ten seconds, so a store can have thousands before it is compacted, and a process
can have a store open for each layer. The pool keeps the maps used last, of all stores; mapping again costs 20 us and no
reading.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.errors import DamageError
from cache.store.dtypes import decode
from cache.store.hashing import BLOCK_BYTES, row_checksums, scratch_for
from cache.store.shard import Rows, Shard, map_rows

_LIMIT = 128
_open: OrderedDict[Shard, Rows] = OrderedDict()
_lock = threading.Lock()


def mapped(shard: Shard) -> Rows:
    """Return the mapped rows of `shard`; safe to call from several threads.

    :raises CacheError: if the file is shorter than its header says.
    :raises FileNotFoundError: if the shard is gone and was not mapped.
    """
    with _lock:
        rows = _open.pop(shard, None)
        if rows is None:
            rows = map_rows(shard)
        else:
            _check_length(shard)
        _open[shard] = rows
        if len(_open) > _LIMIT:
            _open.popitem(last=False)
        return rows


def _check_length(shard: Shard) -> None:
    """Look once more before memory is touched that may be beyond the end of a file cut short since it was mapped."""
    with contextlib.suppress(FileNotFoundError):  # replaced by another shard: what is mapped is still whole
        found = shard.path.stat().st_size
        if found < shard.size:
            raise DamageError(shard.path, f"it has {found} bytes instead of {shard.size}")


def forget() -> None:
    """Let go of all maps."""
    with _lock:
        _open.clear()


class Part(NamedTuple):
    """Rows to copy from one shard: their rows there, and where they go in the result."""

    shard: Shard
    source: NDArray[np.int64]
    target: slice | NDArray[np.int64]

    def section(self, at: int, length: int) -> Part:
        """Return `length` of these rows, from the one at position `at` on."""
        if isinstance(self.target, slice):
            first = self.target.start + at
            return Part(self.shard, self.source[at : at + length], slice(first, min(first + length, self.target.stop)))
        return Part(self.shard, self.source[at : at + length], self.target[at : at + length])


def copy_rows(
    rows: Rows, part: Part, keys: NDArray[np.uint8], out: NDArray[np.generic], dtype: str, check: bool
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
        _take(rows.features, source, block)
        if check:
            # with the keys that were asked for, not the shard's: a row that answers to a wrong key is found too
            differs = row_checksums(keys[target], block, folded) != rows.checksums[source]
            wrong.append(source[differs])
        if scratch is not None:
            out[target] = decode(block, dtype)
    return np.concatenate(wrong) if wrong else np.empty(0, np.int64)


def _take(features: NDArray[np.generic], source: NDArray[np.int64], out: NDArray[np.generic]) -> None:
    first, count = int(source[0]), len(source)
    if source[-1] - first == count - 1 and (source[1:] - source[:-1] == 1).all():
        np.copyto(out, features[first : first + count])
    else:
        np.take(features, source, axis=0, out=out, mode="clip")  # "clip" writes to `out` directly
