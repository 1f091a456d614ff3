"""Token sequences to batches without padding: tries for causal backbones, runs of equal length for the others.

A batch is flat, one long row of nodes; how texts are kept apart is the attention plan's business
(`cache.model.attention`). Sequences are sorted within what is packed together, by tokens for a trie, by length for
runs, so that neighbours share most and runs are long; the rows of a batch say which sequence is which. Batches hold at
most `budget` nodes, but a text is never cropped: one longer than the budget is a batch of its own. The padded layout is
the reference and the fallback for attention that cannot be packed; sorted by length it wastes little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cache.batching.block_mask import HostTrie
from cache.batching.prefix_trie import build_trie, cut, shared_lengths, token_order
from cache.batching.ragged import Sequences, offsets_of, ragged_ranges


@dataclass(frozen=True)
class Batch:
    """Nodes to compute together, and where each text's states are.

    `ids` and `positions` are int64 [nodes], in the padded layout [texts, longest]. `rows` int64 [texts] are the packed
    sequences' indices in the sequences that were given. A trie has subtree `end`s [nodes] and each text's `last` node;
    runs are (first node, texts, length); `lengths` int64 [texts] counts each text's tokens. `laid_out` is a trie with
    the block lists that fused attention walks, where that was asked for.
    """

    layout: str
    rows: NDArray[np.int64]
    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    lengths: NDArray[np.int64]
    end: NDArray[np.int64] | None = None
    last: NDArray[np.int64] | None = None
    runs: tuple[tuple[int, int, int], ...] = ()
    laid_out: HostTrie | None = None

    @property
    def tokens(self) -> int:
        """Tokens of the batch's texts, before sharing."""
        return int(self.lengths.sum())

    @property
    def nodes(self) -> int:
        """Positions that carry a token."""
        return self.tokens if self.layout == "padded" else len(self.ids)

    @property
    def padding(self) -> int:
        """Positions that carry none."""
        return self.ids.size - self.nodes

    def with_block_lists(self, *, windowed: bool) -> Batch:
        """Return a trie with its block lists. `windowed`: some layer sees a local window only (`HostTrie`)."""
        assert self.end is not None
        assert self.last is not None
        return replace(self, laid_out=HostTrie.of(self.ids, self.positions, self.end, self.last, windowed=windowed))

    def sequences(self) -> Sequences:
        """Return the batch's token sequences again, in the order of `rows`: to pack them smaller."""
        if self.layout == "padded":
            kept = np.arange(self.ids.shape[1]) < self.lengths[:, None]
            return Sequences(self.ids[kept].astype(np.int32), offsets_of(self.lengths))
        if self.end is None or self.last is None:
            return Sequences(self.ids.astype(np.int32), offsets_of(self.lengths))
        return Sequences.of([self.ids[path].tolist() for path in _paths(self.end, self.last)])


def _paths(end: NDArray[np.int64], last: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the nodes from the root to each of `last`: its ancestors by the rule of `cache.batching.prefix_trie`."""
    for node in last:
        yield np.flatnonzero(end[: node + 1] > node)


def pack(sequences: Sequences, layout: str, budget: int) -> Iterator[Batch]:
    """Yield batches of at most `budget` nodes that hold every sequence once."""
    if layout == "trie":
        yield from _pack_tries(sequences, budget)
        return
    order = np.argsort(sequences.lengths, kind="stable")
    ordered = sequences.take(order)
    for start, stop in cut_by_length(ordered.lengths, budget, padded=layout == "padded"):
        part = ordered.take(np.arange(start, stop))
        batch = _pad(part) if layout == "padded" else _run(part)
        yield replace(batch, rows=order[start:stop])


def _pack_tries(sequences: Sequences, budget: int) -> Iterator[Batch]:
    order = token_order(sequences)
    ordered = sequences.take(order)
    shared = shared_lengths(ordered)
    for start, stop in cut(ordered.lengths, shared, budget):
        part = ordered.take(np.arange(start, stop))
        trie = build_trie(part, np.append(0, shared[start + 1 : stop]))
        yield Batch(
            "trie",
            order[start:stop],
            trie.ids.astype(np.int64),
            trie.positions,
            part.lengths,
            end=trie.end,
            last=trie.last,
        )


def cut_by_length(lengths: NDArray[np.int64], budget: int, *, padded: bool) -> list[tuple[int, int]]:
    """Cut sequences sorted by length into ranges of at most `budget` positions, at least one sequence each."""
    ranges, start = [], 0
    offsets = offsets_of(lengths)
    while start < len(lengths):
        if padded:  # positions = texts x longest, and the longest is the last
            sizes = np.arange(1, len(lengths) - start + 1) * lengths[start:]
            fit = int(np.searchsorted(sizes, budget, side="right"))
        else:
            fit = int(np.searchsorted(offsets, offsets[start] + budget, side="right")) - 1 - start
        stop = start + max(fit, 1)
        ranges.append((start, stop))
        start = stop
    return ranges


def _run(part: Sequences) -> Batch:
    """Lay sequences sorted by length out flat, as runs of equal length."""
    lengths = part.lengths
    starts = np.flatnonzero(np.append(True, lengths[1:] != lengths[:-1]))
    counts = np.diff(np.append(starts, len(lengths)))
    runs = tuple(zip(part.offsets[starts].tolist(), counts.tolist(), lengths[starts].tolist(), strict=True))
    positions = ragged_ranges(np.zeros_like(lengths), lengths)
    return Batch("runs", np.empty(0, np.int64), part.ids.astype(np.int64), positions, lengths, runs=runs)


def _pad(part: Sequences) -> Batch:
    """Pad sequences on the right, with id 0 and a growing position."""
    lengths = part.lengths
    ids = np.zeros((len(part), int(lengths.max())), np.int64)
    ids[np.arange(ids.shape[1]) < lengths[:, None]] = part.ids
    return Batch("padded", np.empty(0, np.int64), ids, np.broadcast_to(np.arange(ids.shape[1]), ids.shape), lengths)


@dataclass(frozen=True)
class Packing:
    """How an encoder wants its batches: layout and most nodes (`pack`); `with_block_lists` if `laid_out`."""

    layout: str
    budget: int
    laid_out: bool = False
    windowed: bool = False

    def batches(self, sequences: Sequences) -> Iterator[Batch]:
        """Yield the batches that hold `sequences`."""
        for batch in pack(sequences, self.layout, self.budget):
            yield batch.with_block_lists(windowed=self.windowed) if self.laid_out else batch
