"""Token ids of texts from those of their words: each distinct word goes through the tokenizer once.

A tokenizer cuts a text into pre-tokens and knows each alone, but pays for cutting, normalising and bookkeeping again at
every text: 40 us for 40 tokens, most of which the text before had too. Here a text is cut where a blank stands between
a visible ASCII character and an ASCII letter, and what lies between two cuts is looked up; a beginning that all texts
of a call share, such as an instruction, is cut once. Where texts are made of words that return, that is four to six
times as fast. Where most words are new (numbers, hashes) it would be slower, and the tokenizer does it from then on.

It is exact where no pre-token and no normalisation reaches across such a cut, whatever stands around it. This holds for
the pre-tokenizers named below: their expressions look behind nothing, no alternative matches a visible character and
then a blank, and at the blank each takes it with the letters behind it (byte-level BPE) or drops it (BERT). Neither
NFC nor BERT's normaliser carries anything over a blank. Tokens that were added to the vocabulary are found before all
this and may hold blanks: texts in which one occurs are left to the tokenizer, and so is everything where they are
found in normalised text, and with any other pre-tokenizer, normaliser or model. The first texts are tokenized both
ways, and if they differ words are not used.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cache.backbone.gguf import SPLIT_PATTERNS
from cache.backbone.tokenizer_files import component
from cache.batching.ragged import Sequences, offsets_of

_CUT = re.compile(r"(?<=[!-~])(?= [A-Za-z])")
_BYTES = 4  # an id
_HELD_BYTES = 1 << 26
_WORD_BYTES = 200  # what a word takes beside its characters and ids
_PROBED_TEXTS = 256
_JUDGED_WORDS = 1 << 16


class TokenCache:
    """The words seen so far and their ids, for one tokenizer."""

    def __init__(self, tokenizer: Any, encode: Callable[[Sequence[str]], Sequences]) -> None:
        """Know no word yet.

        :param tokenizer: a `tokenizers.Tokenizer` for which `cuts_at_blanks` holds.
        :param encode: texts to token ids by that tokenizer, without special tokens.
        """
        self._encode = encode
        self._added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        self._beginnings = {token[0] for token in self._added}
        self._ids: dict[str, bytes] = {}
        self._held = 0
        self._asked = self._unknown = 0
        self._used: bool | None = None  # not known before the first texts

    def encode(self, texts: Sequence[str]) -> Sequences:
        """Return what the tokenizer makes of `texts`, without special tokens."""
        if self._used is False or self._may_hold_added_tokens(texts):
            return self._encode(texts)
        if self._used is None:
            some = texts[:_PROBED_TEXTS]
            cut, whole = self._by_words(some), self._encode(some)
            self._used = np.array_equal(cut.offsets, whole.offsets) and np.array_equal(cut.ids, whole.ids)
            return self.encode(texts)
        found = self._by_words(texts)
        if self._asked >= _JUDGED_WORDS:
            self._used = 2 * self._unknown < self._asked
            self._asked = self._unknown = 0
        return found

    def _may_hold_added_tokens(self, texts: Sequence[str]) -> bool:
        joined = "".join(texts)
        return any(beginning in joined for beginning in self._beginnings) and any(
            token in joined for token in self._added
        )

    def _by_words(self, texts: Sequence[str]) -> Sequences:
        head = _common_head(texts)
        lists = [_CUT.split(text[len(head) :]) for text in texts]
        starts = offsets_of(np.fromiter(map(len, lists), np.int64, len(lists)))
        found = self._look_up(list(itertools.chain.from_iterable(lists)))
        if head:
            before = b"".join(self._look_up(_CUT.split(head)))
            for at in starts[:-1].tolist():
                found[at] = before + found[at]
        offsets = offsets_of(np.fromiter(map(len, found), np.int64, len(found)))[starts] // _BYTES
        return Sequences(np.frombuffer(b"".join(found), np.int32), offsets)

    def _look_up(self, words: list[str]) -> list[bytes]:
        """Return the ids of words, int32 each as bytes; what is not known is tokenized, all at once."""
        found = list(map(self._ids.get, words))
        self._asked += len(words)
        if None in found:
            if self._held > _HELD_BYTES:
                self._ids, self._held = {}, 0
                found = [None] * len(words)
            unknown = list({word for word, ids in zip(words, found, strict=True) if ids is None})
            self._unknown += len(unknown)
            encoded = self._encode(unknown)
            flat, offsets = encoded.ids.tobytes(), (_BYTES * encoded.offsets).tolist()
            for word, (a, b) in zip(unknown, itertools.pairwise(offsets), strict=True):
                self._ids[word] = flat[a:b]
            self._held += len(flat) + sum(map(len, unknown)) + _WORD_BYTES * len(unknown)
        return list(map(self._ids.__getitem__, words))


def cuts_at_blanks(tokenizer: Any) -> bool:
    """Whether a `tokenizers.Tokenizer` is known to make the same of words as of the text that they make up."""
    added = tokenizer.get_added_tokens_decoder().values()
    if tokenizer.normalizer is not None and any(token.normalized for token in added):
        return False
    model = tokenizer.model
    kind = type(model).__name__
    if kind == "BPE":
        plain = model.dropout is None and component(tokenizer.normalizer) in (None, {"type": "NFC"})
        return plain and _by_bytes(tokenizer)
    parts = [(component(part) or {}).get("type") for part in (tokenizer.normalizer, tokenizer.pre_tokenizer)]
    return kind == "WordPiece" and parts == ["BertNormalizer", "BertPreTokenizer"]


def _by_bytes(tokenizer: Any) -> bool:
    """Whether the pre-tokenizer is byte-level with GPT-2's expression or one of those known."""
    state = component(tokenizer.pre_tokenizer) or {}
    if state.get("type") != "Sequence":
        return _byte_level(state, use_regex=True)
    parts = state["pretokenizers"]
    return (
        len(parts) == 2
        and parts[0].get("type") == "Split"
        and parts[0]["pattern"].get("Regex") in SPLIT_PATTERNS.values()
        and (parts[0]["behavior"], parts[0]["invert"]) == ("Isolated", False)
        and _byte_level(parts[1], use_regex=False)
    )


def _byte_level(state: dict[str, Any], *, use_regex: bool) -> bool:
    wanted = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": use_regex}
    return {name: state.get(name) for name in wanted} == wanted


def _common_head(texts: Sequence[str]) -> str:
    """Return what all texts begin with, up to the last cut."""
    if len(texts) < 2:
        return ""
    low, high = min(texts), max(texts)
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[: max((cut.start() for cut in _CUT.finditer(low[:length])), default=0)]
