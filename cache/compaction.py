"""Few large shards from many small ones, at any time, whoever reads or writes meanwhile.

Neighbours in the order of names are merged, the superseded rows left out, and the result is named after the first of
them, so that it sorts before every shard that sorted after that one: whatever another writer commits meanwhile, the row
that counted when compaction began counts when it has ended. Only when the new shard is on the disk are the old ones
removed, the last first, so that at every moment in between the same row counts. A kill leaves duplicates at the worst,
which the next compaction drops. Every row is compared with its checksum on the way and keeps it.

It needs room for one more shard, and the memory of one block.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cache.atomic import flush, remove_stale_partials
from cache.checksums import row_checksums
from cache.encodings import ENCODINGS
from cache.errors import CacheError, DamageError, file_error
from cache.layout import write_shard
from cache.shard import Rows, Shard, list_shards, read_blocks, rows_in_words, successor_name
from cache.store import FeatureStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

_ATTEMPTS = 10


@dataclass(frozen=True)
class Compaction:
    """How many shards there were before and after."""

    shards_before: int
    shards: int


@dataclass(frozen=True)
class _Source:
    """A shard and, ascending, its rows that count."""

    shard: Shard
    rows: NDArray[np.int64]


def compact(
    folder: Path, *, shard_bytes: int = 1 << 30, progress: Callable[[int, int], None] | None = None
) -> Compaction:
    """Merge the shards of the store in `folder` into shards of about `shard_bytes` of features.

    `progress` is called with the rows rewritten so far and the rows to rewrite.

    :raises CacheError: if a row does not match its checksum, or the file system refuses a step.
    """
    folder = Path(folder)
    before = len(list_shards(folder))
    for _ in range(_ATTEMPTS):
        store = FeatureStore.open(folder)
        remove_stale_partials(folder)
        try:
            groups = list(_groups(store, shard_bytes))
            total = sum(len(source.rows) for group in groups for source in group)
            done = 0
            for group in groups:
                done += _merge(store, group)
                if progress is not None:
                    progress(done, total)
        except FileNotFoundError:  # another compaction or a repair replaced what this one was about to: plan again
            continue
        return Compaction(before, len(list_shards(folder)))
    raise CacheError(f"the shards of {folder} keep changing", "run one `pipeline cache compact` at a time")


def _groups(store: FeatureStore, shard_bytes: int) -> Iterator[list[_Source]]:
    """Yield neighbours that fit together into one shard, unless it would be the same shard again."""
    row_bytes = store.dim * ENCODINGS[store.dtype].stored.itemsize
    group: list[_Source] = []
    size = 0
    for shard, rows in zip(store.shards, store.counting(), strict=True):
        if group and size + len(rows) * row_bytes > shard_bytes:
            yield from _worthwhile(group)
            group, size = [], 0
        group.append(_Source(shard, rows))
        size += len(rows) * row_bytes
    yield from _worthwhile(group)


def _worthwhile(group: list[_Source]) -> Iterator[list[_Source]]:
    if len(group) > 1 or any(len(source.rows) < source.shard.rows for source in group):
        yield group


def _merge(store: FeatureStore, group: list[_Source]) -> int:
    """Replace the shards of `group` by one; return how many rows it has."""
    count = sum(len(source.rows) for source in group)
    first = group[0].shard.path
    if count:
        blocks = (block for source in group for block in _counting_rows(source))
        write_shard(first.with_name(successor_name(first.name)), store.description, count, blocks)
    try:
        for source in reversed(group):
            source.shard.path.unlink(missing_ok=True)
        flush(store.folder)
    except OSError as error:
        raise file_error("remove", source.shard.path, error) from error
    return count


def _counting_rows(source: _Source) -> Iterator[Rows]:
    counts = np.zeros(source.shard.rows, np.bool_)
    counts[source.rows] = True
    for first, block in read_blocks(source.shard):
        keep = counts[first : first + len(block.keys)]
        wrong = keep & (row_checksums(block.keys, block.features) != block.checksums)
        if wrong.any():
            rows = first + np.flatnonzero(wrong)
            raise DamageError(source.shard.path, f"{rows_in_words(rows)} do not match their checksums")
        yield Rows(block.keys[keep], block.features[keep], block.checksums[keep])
