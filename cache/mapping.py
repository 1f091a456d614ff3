"""A bounded pool of mapped shards: a map holds a file descriptor, and a process may have only about a thousand.

A slow machine commits a shard every ten seconds, so a store can have thousands before it is compacted. The pool keeps
the maps used last; mapping again costs 20 us and no reading.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from cache.shard import Rows, Shard, map_rows

if TYPE_CHECKING:
    from pathlib import Path

_OPEN_MAPS = 128


class MapPool:
    """The rows of shards, mapped when first asked for; safe to share among threads."""

    def __init__(self) -> None:
        """Start with nothing mapped."""
        self._open: OrderedDict[Path, Rows] = OrderedDict()
        self._lock = threading.Lock()

    def rows(self, shard: Shard) -> Rows:
        """Return the mapped rows of `shard`.

        :raises CacheError: if the file is shorter than its header says.
        :raises FileNotFoundError: if the shard is gone and was not mapped.
        """
        with self._lock:
            rows = self._open.pop(shard.path, None)
            if rows is None:
                rows = map_rows(shard)
            self._open[shard.path] = rows
            if len(self._open) > _OPEN_MAPS:
                self._open.popitem(last=False)
            return rows
