"""Which stores there are, and removing one: the folders under one root, each described by its `backbone.json`.

Listing reads descriptions, shard headers and file sizes, no row and no key: HDF5 guards headers by checksums, so that
damage changes no figure without a word. Counting distinct rows would read every key, which only `verify` can check.
Last use is the time of an empty file that readers and writers touch, or of the newest shard if
that is later; file systems' own access times are off or coarse nearly everywhere.

Few large shards from many small ones, at any time, whoever reads or writes meanwhile.

Neighbours in the order of names are merged, the superseded rows left out, and the result is named after the first of
them, so that it sorts before every shard that sorted after that one: whatever another writer commits meanwhile, the row
that counted when compaction began counts when it has ended. Only when the new shard is on the disk are the old ones
removed, the last first, so that at every moment in between the same row counts. A kill leaves duplicates at the worst,
which the next compaction drops. Every row is compared with its checksum on the way and keeps it.

It needs room for one more shard, and the memory of one block.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError, DamageError, file_errors
from cache.store.atomic import remove_folder, remove_stale_partials
from cache.store.description import DESCRIPTION_FILE, LAST_USED_FILE, SHARD_FILES, read_description
from cache.store.dtypes import ENCODINGS
from cache.store.hashing import row_checksums
from cache.store.shard import (
    Rows,
    Shard,
    list_shards,
    read_blocks,
    read_description_of,
    read_header,
    rows_in_words,
    size_and_time,
)
from cache.store.store import FeatureStore
from cache.store.writer import replace_shards

_ATTEMPTS = 10


_Source = tuple[Shard, NDArray[np.int64]]
"""A shard and, ascending, its rows that count."""


def compact(folder: Path, *, shard_bytes: int = 1 << 30, progress: Callable[[int, int], None] | None = None) -> None:
    """Merge the shards of the store in `folder` into shards of about `shard_bytes` of features.

    `progress` is called with the rows rewritten so far and the rows to rewrite.

    :raises CacheError: if a row does not match its checksum, or the file system refuses a step.
    """
    for _ in range(_ATTEMPTS):
        store = FeatureStore.open(folder)
        remove_stale_partials(folder)
        try:
            # one shard whose rows all count would be the same shard again
            groups = [
                group
                for group in _groups(store, shard_bytes)
                if len(group) > 1 or any(len(rows) < shard.rows for shard, rows in group)
            ]
            counts = [sum(len(rows) for _, rows in group) for group in groups]
            total, done = sum(counts), 0
            for group, count in zip(groups, counts, strict=True):
                blocks = (block for source in group for block in _counting_rows(*source))
                replace_shards([shard.path for shard, _ in group], store.description, count, blocks)
                done += count
                if progress is not None:
                    progress(done, total)
        except FileNotFoundError:  # another compaction or a repair replaced what this one was about to: plan again
            continue
        return
    raise CacheError(f"the shards of {folder} keep changing", "run one `pipeline cache compact` at a time")


def _groups(store: FeatureStore, shard_bytes: int) -> Iterator[list[_Source]]:
    """Yield neighbours that fit together into one shard."""
    row_bytes = store.dim * ENCODINGS[store.dtype].stored.itemsize
    group: list[_Source] = []
    size = 0
    for shard, rows in zip(store.shards, store.counting(), strict=True):
        if group and size + len(rows) * row_bytes > shard_bytes:
            yield group
            group, size = [], 0
        group.append((shard, rows))
        size += len(rows) * row_bytes
    yield group


def _counting_rows(shard: Shard, rows: NDArray[np.int64]) -> Iterator[Rows]:
    counts = np.zeros(shard.rows, np.bool_)
    counts[rows] = True
    for first, block in read_blocks(shard):
        keep = counts[first : first + len(block.keys)]
        wrong = keep & (row_checksums(block.keys, block.features) != block.checksums)
        if wrong.any():
            which = rows_in_words(first + np.flatnonzero(wrong))
            raise DamageError(shard.path, f"{which} do not match their checksums")
        yield block.part(keep)


_UNKNOWN = dict.fromkeys(("backbone", "fingerprint", "layer", "hidden_size", "store_dtype"), "unknown")


@dataclass(frozen=True)
class StoreSummary:
    """A store at a glance: bytes of its shards, how many they are, when it was last read or written (local time)."""

    folder: Path
    description: dict[str, Any]
    bytes: int
    shards: int
    last_used: datetime | None

    @property
    def rows(self) -> int:
        """Rows in its shards, 0 while the store cannot be opened; what two writers both wrote counts twice."""
        return self._headers[0]

    @property
    def damage(self) -> str | None:
        """What keeps the store from being opened, or None. Damage inside a shard takes `verify` to find."""
        return self._headers[1]

    @functools.cached_property
    def _headers(self) -> tuple[int, str | None]:
        try:
            description = read_description(self.folder)
            for _ in range(_ATTEMPTS):
                try:
                    return sum(read_header(path, description).rows for path in list_shards(self.folder)), None
                except FileNotFoundError:  # compacted or repaired between listing and opening
                    continue
            return 0, f"the shards of {self.folder} keep changing"
        except CacheError as error:
            return 0, error.problem


def find_stores(root: Path) -> list[StoreSummary]:
    """Return the stores in `root`, a folder of store folders, by name; none if `root` does not exist.

    A folder of shards without a description is a store too, a damaged one.

    :raises CacheError: if `root` cannot be read, or is a link to a folder that is not there (not mounted).
    """
    root = Path(root)
    if root.is_symlink() and not root.exists():
        raise CacheError(
            f"{root} is a link to {root.readlink()}, which is not there", "mount that folder, or change the link"
        )
    with file_errors("read", root):
        described = (path for name in (DESCRIPTION_FILE, SHARD_FILES) for path in root.glob(f"*/{name}"))
        folders = sorted({path.parent for path in described if path.parent.name[0] != "."})
    return [_summary(folder) for folder in folders]


def remove_store(folder: Path) -> None:
    """Remove the store in `folder` with all its features; killed halfway, it is gone from sight already.

    :raises CacheError: if `folder` is no store, or may not be removed.
    """
    folder = Path(folder).resolve()
    if not (folder / DESCRIPTION_FILE).exists() and not list_shards(folder):
        raise CacheError(f"{folder} is no feature store: it has no {DESCRIPTION_FILE}", "see `pipeline cache list`")
    remove_folder(folder)
    remove_stale_partials(folder.parent)


def _summary(folder: Path) -> StoreSummary:
    shards = list_shards(folder)
    sizes, times = zip(*map(size_and_time, (*shards, folder / LAST_USED_FILE)), strict=True)  # the last one is empty
    used = datetime.fromtimestamp(max(times)).astimezone() if any(times) else None
    return StoreSummary(folder, _description(folder, shards), sum(sizes), len(shards), used)


def _description(folder: Path, shards: list[Path]) -> dict[str, Any]:
    try:
        return read_description(folder)
    except CacheError:
        # listed all the same, so that it can be verified, repaired or removed
        return read_description_of(shards) or dict(_UNKNOWN)
