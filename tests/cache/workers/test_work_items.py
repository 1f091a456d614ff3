"""Parts of items: every text once with what belongs to it, neighbours together, none that takes long."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.workers.work_items import WorkItem, split_items

TEXTS = st.lists(st.text("ab ", min_size=1, max_size=40), min_size=1, max_size=60)


def item_of(texts, first):
    rows = np.arange(first, first + len(texts))
    keys = np.repeat(rows[:, None].astype(np.uint8), 16, axis=1)
    return WorkItem(texts, rows, keys, (rows % 2 == 0)[:, None], first)


@settings(max_examples=200, deadline=None, database=None)
@given(st.lists(TEXTS, min_size=1, max_size=3), st.integers(1, 4), st.integers(1, 20), st.integers(1, 200))
def test_pieces_hold_every_text_once_in_sorted_order(items, least, texts, characters):
    starts = np.cumsum([0, *map(len, items)])
    given_items = [item_of(some, int(at)) for some, at in zip(items, starts, strict=False)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cache.workers.work_items._ITEM_CHARACTERS", characters)
        parts = list(split_items(given_items, texts, least))
    for item in given_items:
        own = [part for part in parts if part.number == item.number]
        assert [text for part in own for text in part.texts] == sorted(item.texts)
        assert len(own) >= min(least, len(item.texts))
        assert max(len(part.texts) for part in own) <= texts
        for part in own:
            at = part.rows - item.rows[0]
            assert [item.texts[i] for i in at] == part.texts
            assert (item.keys[at] == part.keys).all()
            assert (item.absent[at] == part.absent).all()


def test_a_piece_of_long_texts_is_short():
    long = ["x" * 2000 + str(i) for i in range(5000)]
    parts = list(split_items([item_of(long, 0)], 1 << 14))
    assert max(sum(map(len, part.texts)) for part in parts) < 1.05 * 2**22
