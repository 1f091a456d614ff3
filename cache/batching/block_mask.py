"""A trie's attention mask by blocks: which blocks of keys a block of queries can see at all.

Node k is visible to node q when k <= q < end[k], so a block of keys is visible to a block of queries when it does not
begin after the queries' last and its furthest end lies past their first. That takes a maximum per block and one small
comparison; a dense mask of the nodes is never built. A pair of blocks is full when every pair in it is visible, which
saves the kernel its mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

QUERY_BLOCK = KEY_BLOCK = 32


def padded_ends(end: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return subtree ends for `size` nodes: nodes past the given ones are leaves at the root, which see themselves."""
    ends = np.arange(1, size + 1)
    ends[: len(end)] = end
    return ends


def visible_blocks(
    ends: NDArray[np.int64], query_block: int, key_block: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which block pairs [query, key] may have a visible pair, and which are full; bool [query and key blocks].

    `ends` int64 [nodes], a multiple of either block. No block that overlaps its own queries is called full.
    """
    query, key = np.arange(0, len(ends), query_block)[:, None], np.arange(0, len(ends), key_block)
    furthest = np.maximum.reduceat(ends, key)
    nearest = np.minimum.reduceat(ends, key)
    some = (key < query + query_block) & (query < furthest)
    full = (key + key_block <= query) & (query + query_block <= nearest)
    return some, full


def block_lists(visible: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return starts [query blocks + 1] and key blocks: block q sees `blocks[starts[q]:starts[q + 1]]`, ascending."""
    query, key = np.nonzero(visible)
    starts = np.searchsorted(query, np.arange(len(visible) + 1))
    return starts.astype(np.int32), key.astype(np.int32)


@dataclass(frozen=True)
class HostTrie:
    """A trie with its block lists in one int32 array, so that one copy moves it; `sizes` are the fields' lengths."""

    packed: NDArray[np.int32]
    sizes: Mapping[str, int]

    @classmethod
    def of(
        cls,
        ids: NDArray[np.int64],
        positions: NDArray[np.int64],
        end: NDArray[np.int64],
        last: NDArray[np.int64],
        *,
        windowed: bool,
    ) -> HostTrie:
        """Lay a trie out. `windowed`: a local window may cut any block, so that none counts as full."""
        longer = max(QUERY_BLOCK, KEY_BLOCK)
        ends = padded_ends(end, -(-len(end) // longer) * longer)
        some, full = visible_blocks(ends, QUERY_BLOCK, KEY_BLOCK)
        full &= not windowed
        starts, blocks = block_lists(some & ~full)
        full_starts, full_blocks = block_lists(full)
        fields: dict[str, NDArray[np.integer]] = {
            "ids": ids,
            "positions": positions,
            "ends": end,
            "last": last,
            "starts": starts,
            "blocks": blocks,
            "full_starts": full_starts,
            "full_blocks": full_blocks,
        }
        # every field starts at a multiple of 16 bytes: kernels are compiled for the alignment that they meet
        spare = [np.zeros(-len(values) % 4, np.int32) for values in fields.values()]
        pairs = zip(fields.values(), spare, strict=True)
        packed = np.concatenate([part.astype(np.int32) for pair in pairs for part in pair])
        return cls(packed, {name: len(values) for name, values in fields.items()})

    def on(self, device: str) -> dict[str, Tensor]:
        """Copy to the device without waiting for it: int32 tensors by name."""
        import torch

        packed = torch.from_numpy(self.packed)
        if device.startswith("cuda"):
            packed = packed.pin_memory().to(device, non_blocking=True)
        parts = torch.split(packed, [-(-size // 4) * 4 for size in self.sizes.values()])
        return {name: part[: self.sizes[name]] for name, part in zip(self.sizes, parts, strict=True)}
