"""A trie's attention mask by blocks: which blocks of keys a block of queries can see at all.

Node k is visible to node q when k <= q < end[k], so block K is visible to a later or equal block Q when the furthest
end in K lies past the first query of Q. That takes a maximum per block and one small comparison; a dense mask of the
nodes is never built. A block pair is full when every pair in it is visible, which saves the kernel its mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cache.packing import Batch

BLOCK = 128
INT32_FIELDS = ("ids", "positions", "ends", "counts", "order", "full_counts", "full_order")


@dataclass(frozen=True)
class BlockRows:
    """For each block of queries its visible blocks of keys: counts int32 [blocks], order int32 [blocks, blocks].

    The first `counts[q]` entries of `order[q]` are visible, ascending; the rest are 0.
    """

    counts: NDArray[np.int32]
    order: NDArray[np.int32]

    @classmethod
    def of(cls, visible: NDArray[np.bool_]) -> BlockRows:
        """Compress a bool matrix [blocks, blocks]."""
        counts = visible.sum(1).astype(np.int32)
        order = np.zeros(visible.shape, np.int32)
        query, key = np.nonzero(visible)
        order[query, np.arange(len(key)) - np.repeat(np.cumsum(counts) - counts, counts)] = key
        return cls(counts, order)


def padded_ends(end: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return subtree ends for `size` nodes: nodes past the given ones are leaves at the root, which see themselves."""
    ends = np.arange(1, size + 1)
    ends[: len(end)] = end
    return ends


def visible_blocks(ends: NDArray[np.int64], block: int = BLOCK) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which block pairs [query, key] have a visible pair, and which of these are full; bool [blocks, blocks].

    `ends` int64 [nodes], a multiple of `block` nodes.
    """
    first = np.arange(0, len(ends), block)
    furthest = np.maximum.reduceat(ends, first)
    nearest = np.minimum.reduceat(ends, first)
    query, key = first[:, None], first
    some = (key <= query) & (query < furthest)
    full = (key < query) & (query + block <= nearest)
    return some, full


def layout_sizes(size: int) -> tuple[tuple[int, ...], ...]:
    """Return the shape of each of `INT32_FIELDS` for a trie padded to `size` nodes."""
    blocks = size // BLOCK
    return ((size,), (size,), (size,), (blocks,), (blocks, blocks), (blocks,), (blocks, blocks))


def fixed_size_trie(batch: Batch, size: int, *, windowed: bool) -> NDArray[np.int32]:
    """Lay a trie out in `size` nodes, everything that the device needs in one int32 array: one copy moves it.

    `windowed`: a local window may cut any block, so that none counts as full.
    """
    assert batch.end is not None
    ends = padded_ends(batch.end, size)
    some, full = visible_blocks(ends)
    full &= not windowed
    partial, whole = BlockRows.of(some & ~full), BlockRows.of(full)
    pad = (0, size - len(batch.ids))
    parts = (np.pad(batch.ids, pad), np.pad(batch.positions, pad), ends)
    masks = (partial.counts, partial.order, whole.counts, whole.order)
    return np.concatenate([part.ravel().astype(np.int32) for part in (*parts, *masks)])
