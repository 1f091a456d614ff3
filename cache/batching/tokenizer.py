"""Texts to token ids: a checkpoint's tokenizer with the backbone's rules for what goes around a text, and how long.

Words are looked up where that is exact (`cache.batching.token_cache`), the rest goes through the Rust tokenizer.
Special tokens and truncation are applied here, not there: what the tokenizer puts around a text is learnt from one
probe, the text's own tokens are cut to the room between, and a backbone's end token is appended exactly once, also
where a text is truncated and also where the tokenizer file already appends it (Qwen3's does in one distribution and not
in another, and an embedding read off another token is silently wrong).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.backbone.hub import locate
from cache.backbone.json_files import text_config
from cache.backbone.registry import Backbone
from cache.backbone.tokenizer_files import around, load_tokenizer
from cache.batching.ragged import Sequences, offsets_of, ragged_ranges
from cache.batching.token_cache import TokenCache, cuts_at_blanks
from cache.errors import CacheError

_SLICE = 4096
_SAMPLE = 2000


class TextTokenizer:
    """A checkpoint's tokenizer with the backbone's rules for ends and length, and a prompt before every text.

    `room` is how many tokens of prompt and text are read; further ones are cut off.
    """

    def __init__(self, folder: Path, backbone: Backbone, prompt: str = "") -> None:
        """Load the checkpoint's tokenizer (`cache.backbone.tokenizer_files`).

        :raises CacheError: no tokenizer, or one that cannot be read; a maximum length without room for a text.
        """
        self._prompt = prompt
        self._tokenizer, _, side = load_tokenizer(folder, backbone)
        self._from_left = side == "left"
        self._vocabulary = text_config(folder).integer("vocab_size")
        self._token_cache = TokenCache(self._tokenizer, self._whole) if cuts_at_blanks(self._tokenizer) else None
        before, after = around(self._tokenizer)
        if backbone.end_token is not None and after[-1:] != [backbone.end_token]:  # once
            after = [*after, backbone.end_token]
        self._before = np.array(before, np.int32)
        self._after = np.array(after, np.int32)
        self.room = backbone.max_length - len(before) - len(after)
        if self.room < 0:
            raise CacheError(
                f"maximum length {backbone.max_length} of {backbone.name} leaves no room for its special tokens",
                "raise the maximum length",
            )

    @property
    def unknown(self) -> int | None:
        """The token that stands for what the vocabulary lacks; None where there is none, as in bytes."""
        token = getattr(self._tokenizer.model, "unk_token", None)
        return None if token is None else self._tokenizer.token_to_id(token)

    def bare(self, texts: Sequence[str]) -> Sequences:
        """Return the tokens of prompt + text alone, not cut and without special tokens."""
        return self._whole([self._prompt + text for text in texts])

    def encode(self, texts: Sequence[str]) -> Sequences:
        """Return the token sequences of prompt + text for each of `texts`.

        :raises CacheError: a token that the model does not have.
        """
        texts = [self._prompt + text for text in texts] if self._prompt else list(texts)
        # an encoding holds a hundred bytes a token until it is let go
        slices = (texts[first : first + _SLICE] for first in range(0, len(texts), _SLICE))
        bare = self._whole if self._token_cache is None else self._token_cache.encode
        closed = self._close(Sequences.concatenated([bare(part) for part in slices]))
        # a token that has no row in the model's table would end the process on a GPU
        if self._vocabulary is None or not closed.ids.size or closed.ids.max() < self._vocabulary:
            return closed
        at = int(np.argmax(closed.ids >= self._vocabulary))
        text = texts[int(np.searchsorted(closed.offsets, at, side="right")) - 1]
        token = int(closed.ids[at])
        raise CacheError(
            f"{text[:60]!r} has the token {token} ({self._tokenizer.id_to_token(token)!r}), and the model has "
            f"{self._vocabulary} tokens",
            "fetch the checkpoint again: its tokenizer does not fit its weights",
        )

    def _whole(self, texts: Sequence[str]) -> Sequences:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return Sequences.of([encoding.ids for encoding in encodings])

    def _close(self, bare: Sequences) -> Sequences:
        """Cut each text to the room there is and put the special tokens around it."""
        kept = np.minimum(bare.lengths, self.room)
        offsets = offsets_of(kept + len(self._before) + len(self._after))
        ids = np.empty(int(offsets[-1]), np.int32)
        first = bare.offsets[1:] - kept if self._from_left else bare.offsets[:-1]
        ids[ragged_ranges(offsets[:-1] + len(self._before), kept)] = bare.ids[ragged_ranges(first, kept)]
        for i, token in enumerate(self._before):
            ids[offsets[:-1] + i] = token
        for i, token in enumerate(self._after[::-1]):
            ids[offsets[1:] - 1 - i] = token
        return Sequences(ids, offsets)


@dataclass(frozen=True)
class Reading:
    """How a backbone reads texts: how many it cuts at `room` tokens, and the share of tokens unknown to it.

    `unknown` is that of a sample of `sampled` texts.
    """

    texts: int
    cut: int
    room: int
    unknown: float
    sampled: int


def reading_of(texts: Sequence[str], backbone: Backbone) -> Reading:
    """Count the texts that a backbone cuts, and the tokens that its tokenizer does not know.

    A token takes a byte at least, so texts that are short enough by their bytes are not tokenized, but for the sample.

    :raises CacheError: the backbone's files are not here and cannot be had.
    """
    tokenizer = TextTokenizer(locate(backbone.source, ""), backbone, backbone.prompt)
    sample = texts[:: max(1, len(texts) // _SAMPLE)][:_SAMPLE]
    ids = tokenizer.bare(sample).ids
    unknown = 0.0 if tokenizer.unknown is None or not ids.size else float((ids == tokenizer.unknown).mean())
    least = tokenizer.room - len(backbone.prompt.encode())
    long = [place for place, text in enumerate(texts) if 4 * len(text) > least and len(text.encode()) > least]
    cut = 0
    for first in range(0, len(long), _SLICE):
        bare = tokenizer.bare([texts[place] for place in long[first : first + _SLICE]])
        cut += int((bare.lengths > tokenizer.room).sum())
    return Reading(len(texts), cut, tokenizer.room, unknown, len(sample))


def token_lengths(texts: Sequence[str], backbone: Backbone) -> NDArray[np.int64]:
    """Count what a backbone would see of each text: prompt, special tokens and truncation included, int64 [n].

    :raises CacheError: the backbone's files are not here and cannot be had.
    """
    if backbone.endpoint is not None:
        raise CacheError(
            f"{backbone.name} is behind an endpoint: its tokenizer is not here", "count characters instead"
        )
    tokenizer = TextTokenizer(locate(backbone.source, ""), backbone)
    return tokenizer.encode([backbone.prompt + text for text in texts]).lengths
