"""Every distinct token prefix once: texts that begin alike share the states of a causal backbone.

In a causal backbone a token's state depends on the tokens before it and on nothing else, so a batch is a trie of
tokens, not a rectangle of padded rows. Sort the texts by their tokens and each new text adds only what it does not
share with the one before. Laid out in that order (preorder), node k is an ancestor of node q exactly when

    k <= q < end[k]

where end[k] is one past the last node of k's subtree: one comparison is the whole attention mask. It saves a third of
CLINC's tokens, three quarters where an instruction precedes every text, and repeated texts cost nothing; sorting and
building take microseconds per text, in numpy, without a loop over tokens. The alternative, sharing whole cache blocks
of 16 tokens as inference servers do, shares nothing among texts of ten tokens.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.batching.ragged import Sequences, offsets_of, ragged_ranges


class Trie(NamedTuple):
    """Nodes in preorder: token ids int32, positions (depths), subtree ends int64, each [nodes]; last int64 [texts].

    `last[i]` is the node of text i's last token.
    """

    ids: NDArray[np.int32]
    positions: NDArray[np.int64]
    end: NDArray[np.int64]
    last: NDArray[np.int64]


def token_order(sequences: Sequences) -> NDArray[np.int64]:
    """Return the rows sorted by their tokens, a prefix before what continues it, int64 [n]; equal texts keep order."""
    raw = sequences.ids.astype(">u4").tobytes()  # big-endian: comparing bytes compares token ids
    bounds = (sequences.offsets * 4).tolist()
    keys = [raw[a:b] for a, b in itertools.pairwise(bounds)]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def shared_lengths(ordered: Sequences) -> NDArray[np.int64]:
    """Return how many leading tokens each sequence shares with the one before it, int64 [n]; the first shares none."""
    shared = np.zeros(len(ordered), np.int64)
    if len(ordered) < 2:
        return shared
    compared = np.minimum(ordered.lengths[1:], ordered.lengths[:-1])
    here = ordered.ids[ragged_ranges(ordered.offsets[1:-1], compared)]
    before = ordered.ids[ragged_ranges(ordered.offsets[:-2], compared)]
    starts = offsets_of(compared)
    differs = np.append(np.flatnonzero(here != before), starts[-1])
    first = differs[np.searchsorted(differs, starts[:-1])]  # first difference at or after a pair's start
    shared[1:] = np.minimum(first - starts[:-1], compared)
    return shared


def cut(lengths: NDArray[np.int64], shared: NDArray[np.int64], budget: int) -> list[tuple[int, int]]:
    """Cut sorted sequences into ranges whose tries have at most `budget` nodes; a longer text gets a range of its own.

    The first text of a range is whole again, so that a cut costs what it shared with the text before. Ranges are about
    equal: a last one that is small would keep a device as long as its launches take.
    """
    added = offsets_of(lengths - shared)
    full = _full_ranges(added, shared, budget)
    count = len(full)
    if count < 2:
        return full
    most = int(added[-1]) + (count - 1) * int(shared.max())
    return _full_ranges(added, shared, min(budget, -(-most // count) + int(np.diff(added)[1:].max())))


def _full_ranges(added: NDArray[np.int64], shared: NDArray[np.int64], budget: int) -> list[tuple[int, int]]:
    """Cut where the budget is reached; `added` [n + 1] counts the nodes that come before each text."""
    ranges, start = [], 0
    while start < len(shared):
        limit = added[start] + budget - shared[start]
        stop = max(int(np.searchsorted(added, limit, side="right")) - 1, start + 1)
        ranges.append((start, stop))
        start = stop
    return ranges


def build_trie(ordered: Sequences, shared: NDArray[np.int64]) -> Trie:
    """Lay sequences sorted by `token_order` out as a trie; `shared` as `shared_lengths` gives it, the first one 0."""
    n, added = len(ordered), ordered.lengths - shared
    start = offsets_of(added)
    positions = ragged_ranges(shared, added)
    owner = np.repeat(np.arange(n), added)
    # a repeated text adds no node: its last token is that of the nearest text before it that added one
    source = np.maximum.accumulate(np.where(added > 0, np.arange(n), 0))
    return Trie(
        ids=ordered.ids[ragged_ranges(ordered.offsets[:-1] + shared, added)],
        positions=positions,
        end=_subtree_ends(positions, owner, shared, start),
        last=start[source + 1] - 1,
    )


def _subtree_ends(
    positions: NDArray[np.int64], owner: NDArray[np.int64], shared: NDArray[np.int64], start: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return one past each node's subtree: a node at depth d ends where a later text shares d tokens or fewer.

    Only nodes that the next text shares look further, and they jump from each text to the next that shares less.
    """
    n = len(shared)
    limits = np.append(shared, -1)  # a text past the last ends everything
    following = _next_smaller(limits)
    stop = owner + 1
    unsettled = np.flatnonzero(limits[stop] > positions)
    while len(unsettled):
        stop[unsettled] = following[stop[unsettled]]
        unsettled = unsettled[limits[stop[unsettled]] > positions[unsettled]]
    return start[np.minimum(stop, n)]


def _next_smaller(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each value the index of the next smaller one; the last index where there is none."""
    found = [len(values) - 1] * len(values)
    waiting: list[tuple[int, int]] = []
    for i, value in enumerate(values.tolist()):
        while waiting and waiting[-1][0] > value:
            found[waiting.pop()[1]] = i
        waiting.append((value, i))
    return np.array(found, np.int64)
