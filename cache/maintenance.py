"""Which stores there are, and removing one: the folders under one root, each described by its `backbone.json`.

Listing reads descriptions and file sizes, no row: what takes longer (counting distinct rows reads every key) is done
when it is asked for. Last use is the time of an empty file that readers and writers touch, or of the newest shard if
that is later; file systems' own access times are off or coarse nearly everywhere.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cache.atomic import remove_folder, remove_stale_partials
from cache.description import DESCRIPTION_FILE, LAST_USED_FILE, read_description
from cache.errors import CacheError, file_error
from cache.shard import list_shards, read_description_of
from cache.store import FeatureStore

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
        """Distinct rows, counted when first asked for; 0 while the store cannot be opened."""
        return self._opened[0]

    @property
    def damage(self) -> str | None:
        """What keeps the store from being opened, or None. Damage inside a shard takes `verify` to find."""
        return self._opened[1]

    @functools.cached_property
    def _opened(self) -> tuple[int, str | None]:
        try:
            return len(FeatureStore.open(self.folder)), None
        except CacheError as error:
            return 0, error.problem


def find_stores(root: Path) -> list[StoreSummary]:
    """Return the stores in `root`, a folder of store folders, by name; none if `root` does not exist.

    :raises CacheError: if `root` cannot be read.
    """
    root = Path(root)
    try:
        folders = sorted(path.parent for path in root.glob(f"*/{DESCRIPTION_FILE}") if path.parent.name[0] != ".")
    except OSError as error:
        raise file_error("read", root, error) from error
    return [_summary(folder) for folder in folders]


def remove_store(folder: Path) -> None:
    """Remove the store in `folder` with all its features; killed halfway, it is gone from sight already.

    :raises CacheError: if `folder` is no store, or may not be removed.
    """
    folder = Path(folder).resolve()
    if not (folder / DESCRIPTION_FILE).exists():
        raise CacheError(f"{folder} is no feature store: it has no {DESCRIPTION_FILE}", "see `pipeline cache list`")
    remove_folder(folder)
    remove_stale_partials(folder.parent)


def _summary(folder: Path) -> StoreSummary:
    shards = list_shards(folder)
    states = [state for path in shards if (state := _state(path))]
    used = _state(folder / LAST_USED_FILE)
    times = [time for _, time in (*states, *([used] if used else []))]
    return StoreSummary(
        folder=folder,
        description=_description(folder, shards),
        bytes=sum(size for size, _ in states),
        shards=len(shards),
        last_used=datetime.fromtimestamp(max(times)).astimezone() if times else None,
    )


def _state(path: Path) -> tuple[int, float] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime


def _description(folder: Path, shards: list[Path]) -> dict[str, Any]:
    try:
        return read_description(folder)
    except CacheError:
        # listed all the same, so that it can be verified, repaired or removed
        return read_description_of(shards) or dict(_UNKNOWN)
