"""The trie against a dictionary of prefixes, and its masks against the rule written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.batching.block_mask import block_lists, padded_ends, visible_blocks
from cache.batching.packing import pack
from cache.batching.prefix_trie import build_trie, cut, shared_lengths, token_order
from cache.batching.ragged import Sequences

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=30)


def trie_of(lists):
    sequences = Sequences.of(lists)
    order = token_order(sequences)
    ordered = sequences.take(order)
    return order, build_trie(ordered, shared_lengths(ordered))


def path_of(trie, node):
    return [k for k in range(node + 1) if trie.end[k] > node]


@settings(max_examples=300, deadline=None, database=None)
@given(SEQUENCES)
def test_nodes_are_the_distinct_prefixes_and_ancestors_spell_the_text(lists):
    order, trie = trie_of(lists)
    prefixes = {tuple(tokens[: i + 1]) for tokens in lists for i in range(len(tokens))}
    assert len(trie.ids) == len(prefixes)
    for row, last in zip(order, trie.last, strict=True):
        path = path_of(trie, last)
        assert trie.ids[path].tolist() == lists[row]
        assert trie.positions[path].tolist() == list(range(len(lists[row])))


@settings(max_examples=200, deadline=None, database=None)
@given(SEQUENCES, st.integers(1, 20))
def test_batches_hold_every_text_once_and_none_is_cropped(lists, budget):
    sequences = Sequences.of(lists)
    for layout in ("trie", "runs", "padded"):
        rows = []
        for batch in pack(sequences, layout, budget):
            rows += batch.rows.tolist()
            again = batch.sequences()
            for i, row in enumerate(batch.rows):
                assert again.ids[again.offsets[i] : again.offsets[i + 1]].tolist() == lists[row]
            assert batch.ids.size <= budget or len(batch.rows) == 1
        assert sorted(rows) == list(range(len(lists)))


def test_order_is_that_of_token_lists_and_keeps_repeats_in_place():
    lists = [[256, 1], [1], [256], [1, 2], [1], [70000]]
    assert token_order(Sequences.of(lists)).tolist() == [1, 4, 3, 2, 0, 5]


def test_cut_counts_a_shared_beginning_again_in_each_range():
    lengths, shared = np.array([4, 4, 4]), np.array([0, 3, 3])
    assert cut(lengths, shared, 6) == [(0, 3)]
    assert cut(lengths, shared, 5) == [(0, 2), (2, 3)]
    assert cut(lengths, shared, 1) == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("budget", [100, 290, 300, 410, 999, 1000])
def test_cut_leaves_no_small_rest(budget):
    lengths, shared = np.full(100, 10), np.zeros(100, int)
    sizes = [10 * (stop - start) for start, stop in cut(lengths, shared, budget)]
    assert max(sizes) <= budget
    assert len(sizes) == -(-1000 // (budget // 10 * 10))
    assert max(sizes) - min(sizes) <= 10 * len(sizes)


def test_cut_leaves_no_small_rest_where_every_range_begins_with_what_all_share():
    lengths, shared = np.full(1000, 50), np.full(1000, 40)
    shared[0] = 0
    for budget in (290, 500, 1000, 1010, 1500):
        sizes = [10 * (stop - start) + 40 for start, stop in cut(lengths, shared, budget)]
        assert max(sizes) <= budget
        assert max(sizes) - min(sizes) <= 11 * len(sizes)
        assert len(sizes) == -(-1000 // ((budget - 40) // 10))


@settings(max_examples=100, deadline=None, database=None)
@given(SEQUENCES, st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]))
def test_blocks_are_visible_where_a_pair_is_and_full_where_all_are(lists, queries, keys):
    _, trie = trie_of(lists)
    size = -(-len(trie.ids) // 4) * 4
    ends = padded_ends(trie.end, size)
    node = np.arange(size)
    pairs = (node <= node[:, None]) & (node[:, None] < ends)
    tiles = pairs.reshape(size // queries, queries, size // keys, keys)
    some, full = visible_blocks(ends, queries, keys)
    assert (some == tiles.any((1, 3))).all()
    before = np.arange(keys, size + 1, keys) <= np.arange(0, size, queries)[:, None]
    assert (full == (tiles.all((1, 3)) & before)).all()
    starts, blocks = block_lists(some)
    for query in range(len(some)):
        assert blocks[starts[query] : starts[query + 1]].tolist() == np.flatnonzero(some[query]).tolist()
