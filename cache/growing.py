"""The keys of a store that grows while one looks: each look reads the shards that came since the last one.

A `FeatureStore` sorts all keys again when it takes in new shards, 0.1 s a million rows. Whoever looks every 65,536
texts while eight GPUs write would do little else. Here new keys are an index of their own, and indexes are merged when
the smaller has grown to half of its neighbour, so that a key is sorted a logarithmic number of times and a lookup asks
few indexes. A shard that goes (compaction, repair) may take rows along: then everything is read again.

Whoever only asks what came since the last look keeps names of shards and no keys (`LaterKeys`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cache.errors import CacheError
from cache.index import KeyIndex
from cache.keys import KEY_BYTES
from cache.mapping import mapped
from cache.shard import list_shards, read_header

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from cache.store import FeatureStore

_ATTEMPTS = 10


class GrowingKeys:
    """Which keys a store's folder holds, as of the last `refresh`."""

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        """Read nothing yet."""
        self._folder, self._description = folder, description
        self._seen: set[str] = set()
        self._indexes: list[KeyIndex] = []

    @classmethod
    def of(cls, store: FeatureStore) -> GrowingKeys:
        """Begin with what an open store has read, and with its index."""
        keys = cls(store.folder, store.description)
        keys._seen = {shard.path.name for shard in store.shards}
        keys._take_in(store.index)
        return keys

    def refresh(self) -> KeyIndex:
        """Take in what was committed since; return an index of what is new.

        :raises CacheError: if the folder is gone, or a shard's header is damaged.
        """
        names, found = _read_new(self._folder, self._description, self._seen, again=True)
        if self._seen - names:
            self._indexes = []
        self._seen = names
        self._take_in(found)
        return found

    def contains(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return which of `keys`, uint8 [n, 16], are there, bool [n]."""
        found = np.zeros(len(keys), bool)
        for index in self._indexes:
            found |= index.find(keys) >= 0
        return found

    def _take_in(self, found: KeyIndex) -> None:
        if not len(found.first):
            return
        self._indexes.append(found)
        while len(self._indexes) > 1 and len(self._indexes[-2].first) < 2 * len(self._indexes[-1].first):
            merged = np.concatenate([_keys_of(self._indexes.pop()), _keys_of(self._indexes.pop())])
            self._indexes.append(KeyIndex.build(merged))


class LaterKeys:
    """Which keys came to a store's folder since the last look; those that are there at the start are not read."""

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        """Note which shards there are.

        :raises CacheError: if the folder cannot be read.
        """
        self._folder, self._description = folder, description
        self._seen = {path.name for path in list_shards(folder)}

    def look(self) -> KeyIndex:
        """Return an index of what shards hold that were not there at the last look.

        :raises CacheError: if the folder is gone, or a shard's header is damaged.
        """
        self._seen, found = _read_new(self._folder, self._description, self._seen, again=False)
        return found


def _read_new(
    folder: Path, description: Mapping[str, Any], seen: set[str], *, again: bool
) -> tuple[set[str], KeyIndex]:
    """Return the names of the shards there are, and an index of those that were not seen.

    :param again: if one that was seen is gone, read all.
    """
    for _ in range(_ATTEMPTS):
        paths = list_shards(folder)
        names = {path.name for path in paths}
        known = set() if again and seen - names else seen
        try:
            shards = [read_header(path, description) for path in paths if path.name not in known]
            keys = [np.empty((0, KEY_BYTES), np.uint8), *(np.array(mapped(shard).keys) for shard in shards)]
        except FileNotFoundError:  # compacted or repaired between listing and opening: list again
            continue
        return names, KeyIndex.build(np.concatenate(keys))
    raise CacheError(f"the shards of {folder} keep changing while they are read", "try again in a moment")


def _keys_of(index: KeyIndex) -> NDArray[np.uint8]:
    """Return an index's keys, uint8 [n, 16]."""
    return np.stack([index.first, index.second], axis=1).astype("<u8").view(np.uint8)
