"""Appending to a store: rows wait in memory and become a shard every ten seconds of work or 32 MiB.

A shard a batch would be thirty thousand files for a million rows; a shard at the end would lose a night to one kill.
One shard fills while a thread writes the one before, so that the caller waits for the disk only where the disk is
slower than the backbone. A kill costs at most both: the rows of the last `seconds`, or `nbytes` of them, half waiting
and half on their way. The clock runs from when work on the oldest waiting row began, and a shard is also closed when
the next append, taking as long as the last, would come too late.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from cache.atomic import remove_stale_partials
from cache.checksums import row_checksums
from cache.encodings import ENCODINGS, acceptable, encode
from cache.errors import CacheError
from cache.keys import KEY_BYTES, as_keys
from cache.layout import write_shard
from cache.shard import Rows, new_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray


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
        self._began = self._appended = time.monotonic()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shard-writer")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        """Start the clock, and clear away what killed writers left."""
        remove_stale_partials(self.folder)
        self._began = self._appended = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
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
            raise CacheError(f"{len(keys)} keys came with {len(features)} features", "pass one key a feature")
        done = 0
        while done < len(keys):
            done += self._filling.add(keys[done:], features[done:], self._dtype)
            if self._filling.full:
                self._hand_over()
        self.rows += len(keys)
        now = time.monotonic()
        took, self._appended = now - self._appended, now
        if now - self._began + took >= self._seconds:
            self._hand_over()

    def flush(self) -> None:
        """Commit what is waiting as one shard, and return when it is on the disk.

        :raises CacheError: if the file system refuses it; the rows wait no longer then.
        """
        self._hand_over()
        self._settle()

    def _hand_over(self) -> None:
        self._settle()
        self._filling, self._spare = self._spare, self._filling
        self._began = time.monotonic()
        rows = self._spare.take()
        if len(rows.keys):
            self._writing = self._thread.submit(self._commit, rows)

    def _commit(self, rows: Rows) -> None:
        rows.checksums[...] = row_checksums(rows.keys, rows.features)
        write_shard(self.folder / new_name(), self._description, len(rows.keys), [rows])
        self.committed += len(rows.keys)

    def _settle(self) -> None:
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

    @property
    def full(self) -> bool:
        return self._count == len(self._rows.keys)

    def add(self, keys: NDArray[np.uint8], features: NDArray[np.floating], dtype: str) -> int:
        """Take in the first rows, as many as there is room for; return how many."""
        first, last = self._count, min(self._count + len(keys), len(self._rows.keys))
        taken = self._part(first, last)
        taken.keys[...] = keys[: last - first]
        encode(features[: last - first], dtype, taken.features)
        self._count = last
        return last - first

    def take(self) -> Rows:
        """Return the rows, their checksums still to be computed, and begin anew."""
        count, self._count = self._count, 0
        return self._part(0, count)

    def _part(self, first: int, last: int) -> Rows:
        rows = self._rows
        return Rows(rows.keys[first:last], rows.features[first:last], rows.checksums[first:last])
