"""Finding damage, byte by byte, and dropping just what is damaged.

Disks flip bits, copies stop halfway, and a wrong feature trains a head that is wrong in a way that nobody traces back.
`verify` reads every row from the disk and compares it with its checksum. Repair writes the rows that are whole to a new
shard that counts where the damaged one did, and only then removes that one; the next `embed` computes the rest. Of a
shard whose header is damaged or cut off all rows are computed again: it is named with how many rows its size allows.

A read compares the rows that it takes too (`store.py`), and compaction those that it moves (`maintenance.py`).
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError, DamageError
from cache.store.description import read_description, write_description
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
from cache.store.writer import lay_out, replace_shards


@dataclass(frozen=True)
class Damage:
    """What is wrong with one file, which of its rows are lost by it, and how many: all, where its header is lost."""

    path: Path
    what: str
    rows: tuple[int, ...] = ()
    lost: int = 0

    def __str__(self) -> str:
        """Return one line that names the file, the damage and the rows."""
        if self.rows:
            return f"{self.path}: {self.what}; {rows_in_words(np.array(self.rows))} lost"
        return f"{self.path}: {self.what}; {f'all {self.lost:,} rows' if self.lost else 'no row'} lost"


@dataclass(frozen=True)
class Verification:
    """How many rows were read, in how many shards, and what was wrong with them."""

    rows: int
    shards: int
    damage: tuple[Damage, ...]


@dataclass(frozen=True)
class _Checked:
    """A shard as found (None if its header is damaged), which of its rows are whole, bool [n], and the damage."""

    shard: Shard | None
    whole: NDArray[np.bool_]
    damage: Damage | None


def verify(folder: Path, *, repair: bool = False, progress: Callable[[int, int], None] | None = None) -> Verification:
    """Compare every row of the store in `folder` with its checksum; with `repair`, drop those that differ.

    `progress` is called with the bytes read so far and the bytes in all.

    :raises CacheError: if `folder` is no store, a file belongs to another store or format version, or cannot be read.
    """
    folder = Path(folder)
    pending = list_shards(folder)
    description, damage = _described(folder, pending, repair)
    rows, shards, done, seen = 0, 0, 0, set[Path]()
    total = sum(size_and_time(path)[0] for path in pending)
    while pending:
        for path in pending:
            done += size_and_time(path)[0]
            try:
                checked = _check(path, description)
            except FileNotFoundError:  # replaced meanwhile: its successor is in the next listing
                continue
            rows, shards = rows + len(checked.whole), shards + 1
            if checked.damage:
                damage.append(checked.damage)
                if repair:
                    count = 0 if checked.shard is None else int(checked.whole.sum())
                    seen.add(replace_shards([path], description, count, _whole_rows(checked)))
            if progress is not None:
                progress(done, max(done, total))
        seen.update(pending)
        pending = [path for path in list_shards(folder) if path not in seen]
    return Verification(rows, shards, tuple(damage))


def _described(folder: Path, shards: list[Path], repair: bool) -> tuple[dict[str, Any], list[Damage]]:
    """Return the store's description, from its shards if need be, and what is wrong with the file that has it."""
    try:
        return read_description(folder), []
    except DamageError as error:
        description = read_description_of(shards)
        if description is None:
            raise CacheError(
                f"{error.problem}, and no shard is left that tells", f"remove {folder}, then embed again"
            ) from error
        if repair:
            write_description(folder, description)
        return description, [Damage(error.path, error.what)]


def _check(path: Path, description: Mapping[str, Any]) -> _Checked:
    try:
        shard = read_header(path, description)
    except DamageError as error:
        return _Checked(None, np.empty(0, np.bool_), Damage(path, error.what, lost=_rows_held(path, description)))
    whole = np.concatenate(
        [row_checksums(block.keys, block.features) == block.checksums for _, block in read_blocks(shard)]
    )
    lost = tuple(np.flatnonzero(~whole).tolist())
    damage = Damage(path, f"{len(lost)} rows do not match their checksums", lost, len(lost)) if lost else None
    return _Checked(shard, whole, damage)


def _rows_held(path: Path, description: Mapping[str, Any]) -> int:
    """Return how many rows per shard without a header held: those of the largest shard that fits into the file."""
    size, _ = size_and_time(path)
    most = size // (int(description["hidden_size"]) * ENCODINGS[str(description["store_dtype"])].stored.itemsize)
    return bisect.bisect_right(range(1, most + 1), size, key=lambda rows: lay_out(path, description, rows)[0].size)


def _whole_rows(checked: _Checked) -> Iterator[Rows]:
    for first, block in read_blocks(checked.shard) if checked.shard is not None else ():
        yield block.part(checked.whole[first : first + len(block.keys)])
