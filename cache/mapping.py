"""One bounded pool of mapped shards: a map holds a file descriptor, and a process may have only about a thousand.

A slow machine commits a shard every ten seconds, so a store can have thousands before it is compacted, and a process
can have a store open for each layer. The pool keeps the maps used last, of all stores; mapping again costs 20 us and no
reading.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict

from cache.errors import DamageError
from cache.shard import Rows, Shard, map_rows

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
