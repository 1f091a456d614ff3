"""Keys: the content address of a text, BLAKE2b with a 128-bit digest over the UTF-8 bytes of prompt + text.

A feature is found by what was embedded, not by a row number: a dataset may be reordered, extended or split anew and
reuses every feature that it still needs. 128 bits make a collision among ten billion texts rarer than 1e-18, so equal
keys are taken for equal texts. One hash costs about 0.7 us, a tenth of a percent of the cheapest embedding. The
alternative, row numbers beside a dataset's name, re-embeds everything when one row is added.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from cache.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

KEY_BYTES = 16


def text_keys(texts: Sequence[str], prompt: str = "") -> NDArray[np.uint8]:
    """Return the key of every text, uint8 [n, 16]: BLAKE2b-128 of the UTF-8 bytes of `prompt` + text.

    :raises CacheError: if an element is no string, or holds a lone surrogate, which UTF-8 cannot express.
    """
    if isinstance(texts, str):
        raise CacheError(f"texts is one string ({texts[:40]!r})", "pass a list of strings: [text]")
    start = hashlib.blake2b(_utf8(prompt, "the prompt"), digest_size=KEY_BYTES)
    digests = []
    for row, text in enumerate(texts):
        state = start.copy()
        state.update(_utf8(text, f"text {row}"))
        digests.append(state.digest())
    return np.frombuffer(bytearray(b"".join(digests)), np.uint8).reshape(-1, KEY_BYTES)


def as_keys(keys: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `keys` as a C-contiguous uint8 [n, 16] array.

    :raises CacheError: if their shape or dtype is another.
    """
    array = np.asarray(keys)
    if array.ndim != 2 or array.shape[1] != KEY_BYTES or array.dtype != np.uint8:
        raise CacheError(
            f"keys are {array.dtype} {list(array.shape)}, not uint8 [n, {KEY_BYTES}]", "make them with cache.text_keys"
        )
    return np.ascontiguousarray(array)


def key_words(keys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return contiguous keys uint8 [n, 16] as little-endian words uint64 [n, 2], without a copy."""
    return keys.view("<u8")


def _utf8(text: str, which: str) -> bytes:
    try:
        return text.encode()
    except AttributeError:
        raise CacheError(f"{which} is {type(text).__name__}, not a string ({text!r:.60})", "drop or fill it") from None
    except UnicodeEncodeError as error:
        raise CacheError(
            f"{which} holds a lone surrogate (U+{ord(text[error.start]):04X} at character {error.start})",
            "decode the source as UTF-8, or encode the text with errors='replace' first",
        ) from None
