"""What is counted of how a backbone reads texts, on MiniLM's real tokenizer."""

import pytest

from cache import resolve
from cache.backbone.hub import locate
from cache.batching import TextTokenizer, reading_of


@pytest.fixture(scope="module")
def backbone():
    return resolve("minilm")


def test_texts_that_are_cut_are_those_with_more_tokens_than_room(backbone):
    tokenizer = TextTokenizer(locate(backbone.source, ""), backbone, backbone.prompt)
    texts = ["word " * count for count in (1, tokenizer.room - 1, tokenizer.room, tokenizer.room + 1, 20_000)]
    reading = reading_of(texts, backbone)
    assert (reading.cut, reading.texts) == (2, 5) and reading.room == backbone.max_length - 2


def test_tokens_that_the_vocabulary_lacks_are_counted(backbone):
    assert reading_of(["a plain sentence"] * 30, backbone).unknown == 0
    assert reading_of(["😀😃 ok"] * 30, backbone).unknown == pytest.approx(1 / 2)
    assert reading_of(["我想查询一下我的银行账户余额"] * 30, backbone).unknown > 0.2
    assert reading_of([], backbone).unknown == 0
