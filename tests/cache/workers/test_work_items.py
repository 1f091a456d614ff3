"""Pieces of chunks: every text once with what belongs to it, neighbours together, none that takes long."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.workers.work_items import WorkItem, split_items

TEXTS = st.lists(st.text("ab ", min_size=1, max_size=40), min_size=1, max_size=60)


def chunk_of(texts, first):
    rows = np.arange(first, first + len(texts))
    keys = np.repeat(rows[:, None].astype(np.uint8), 16, axis=1)
    return WorkItem(texts, rows, keys, (rows % 2 == 0)[:, None], first)


@settings(max_examples=200, deadline=None, database=None)
@given(st.lists(TEXTS, min_size=1, max_size=3), st.integers(1, 4), st.integers(1, 20), st.integers(1, 200))
def test_pieces_hold_every_text_once_in_sorted_order(chunks, least, texts, characters):
    starts = np.cumsum([0, *map(len, chunks)])
    given_chunks = [chunk_of(some, int(at)) for some, at in zip(chunks, starts, strict=False)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cache.workers.work_items._PIECE_CHARACTERS", characters)
        pieces = list(split_items(given_chunks, texts, least))
    for chunk in given_chunks:
        own = [piece for piece in pieces if piece.piece == chunk.piece]
        assert [text for piece in own for text in piece.texts] == sorted(chunk.texts)
        assert len(own) >= min(least, len(chunk.texts))
        assert max(len(piece.texts) for piece in own) <= texts
        for piece in own:
            at = piece.rows - chunk.rows[0]
            assert [chunk.texts[i] for i in at] == piece.texts
            assert (chunk.keys[at] == piece.keys).all()
            assert (chunk.absent[at] == piece.absent).all()


def test_a_piece_of_long_texts_is_short():
    long = ["x" * 2000 + str(i) for i in range(5000)]
    pieces = list(split_items([chunk_of(long, 0)], 1 << 14))
    assert max(sum(map(len, piece.texts)) for piece in pieces) < 1.05 * 2**22
