"""Keys: the content address of a text, BLAKE2b with a 128-bit digest over the UTF-8 bytes of prompt + text.

A feature is found by what was embedded, not by a row number: a dataset may be reordered, extended or split anew and
reuses every feature that it still needs. 128 bits make a collision among ten billion texts rarer than 1e-18, so equal
keys are taken for equal texts. One hash costs about 0.7 us, a tenth of a percent of the cheapest embedding. The
alternative, row numbers beside a dataset's name, re-embeds everything when one row is added.

A 64-bit checksum per row, over its key and its bytes, at the speed of memory and with numpy alone.

The key and the row are read as little-endian 64-bit words x_0, x_1, ... (the key's two first, then the row, its end
padded with zero bytes), and

    checksum = 0x243F6A8885A308D3 + sum_i w_i * f(x_i)  mod 2^64,    f(x) = x xor (x >> 31),

where w_i is output i of splitmix64 from seed 0, its lowest bit set.

f is a bijection and an odd factor has an inverse, so damage confined to one word, hence every flipped bit and byte, is
found with certainty; damage of several words passes once in 2^31 cases at the worst (only bits that the fold leaves at
the top), once in 2^64 typically. Without the fold, two flipped top bits cancel: 2^63 (w_i + w_j) = 0. The constant
makes an all-zero row differ from an all-zero checksum, so that a page of zeros is found. The sum after Carter and
Wegman 1979, "Universal classes of hash functions"; the weights after Steele, Lea and Flood 2014, "Fast splittable
pseudorandom number generators", section 4.

Cost: three passes over a block of two megabytes that stays in the cache, 8 GB/s per core, about half of the time of
reading (`benchmarks/cache/store.py`). The alternatives: CRC32 or BLAKE2b take a Python call per row and 1 GB/s; one
checksum per shard cannot name the row and has to read the whole shard for one row.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError

BLOCK_BYTES = 1 << 21
_FOLD = np.uint64(31)
_WORD = 8
_START = np.uint64(0x243F6A8885A308D3)


def scratch_for(rows: int, dim: int, itemsize: int) -> NDArray[np.uint64]:
    """Return working memory for `row_checksums` over blocks of `rows` rows of `dim` values of `itemsize` bytes."""
    return np.empty((rows, -(-dim * itemsize // _WORD)), np.uint64)


def row_checksums(
    keys: NDArray[np.uint8], rows: NDArray[np.generic], scratch: NDArray[np.uint64] | None = None
) -> NDArray[np.uint64]:
    """Return the checksums, uint64 [n], of `keys`, uint8 [n, 16], with `rows`, [n, H] of any fixed-size dtype.

    Both C-contiguous; computed in blocks of `BLOCK_BYTES`, or of the rows of `scratch`, which whoever calls often
    passes (fresh memory costs a page fault every 4 KB), so that the memory needed does not grow with n.
    """
    count, width = len(rows), rows.shape[1] * rows.itemsize
    key_weights, weights = _weights(-(-width // _WORD))
    if scratch is None:
        scratch = scratch_for(min(max(1, BLOCK_BYTES // width), max(1, count)), rows.shape[1], rows.itemsize)
    step = len(scratch)
    sums = np.empty(count, np.uint64)
    for start in range(0, count, step):
        block = _words(rows[start : start + step], width)
        folded = scratch[: len(block)]
        np.right_shift(block, _FOLD, out=folded)
        np.bitwise_xor(folded, block, out=folded)
        np.einsum("ij,j->i", folded, weights, out=sums[start : start + step])
    words = keys.view("<u8")
    sums += np.einsum("ij,j->i", words ^ (words >> _FOLD), key_weights)
    sums += _START
    return sums


def _words(rows: NDArray[np.generic], width: int) -> NDArray[np.uint64]:
    if width % _WORD == 0:
        return rows.view("<u8")
    padded = np.zeros((len(rows), -(-width // _WORD) * _WORD), np.uint8)
    padded[:, :width] = rows.view(np.uint8)
    return padded.view("<u8")


@functools.lru_cache(maxsize=16)
def _weights(words: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the weights of the key's two words and those of the row's words."""
    with np.errstate(over="ignore"):
        state = np.arange(1, words + 3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state = (state ^ (state >> np.uint64(31))) | np.uint64(1)
    return state[:2], state[2:]


KEY_BYTES = 16


def text_keys(texts: Sequence[str], prompt: str = "") -> NDArray[np.uint8]:
    """Return the key of every text, uint8 [n, 16]: BLAKE2b-128 of the UTF-8 bytes of `prompt` + text.

    :raises CacheError: if an element is no string, or holds a lone surrogate, which UTF-8 cannot express.
    """
    if isinstance(texts, str):
        raise CacheError(f"texts is one string ({texts[:40]!r})", "pass a list of strings: [text]")
    start = hashlib.blake2b(utf8(prompt, "the prompt"), digest_size=KEY_BYTES)
    digests = []
    for row, text in enumerate(texts):
        state = start.copy()
        state.update(utf8(text, f"text {row}"))
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


def utf8(text: str, which: str) -> bytes:
    """Return a text's bytes; `which` text it is goes into the error.

    :raises CacheError: it is no string, or holds a lone surrogate.
    """
    try:
        return text.encode()
    except AttributeError:
        shown = " ".join(repr(text).split())[:60]
        raise CacheError(f"{which} is {type(text).__name__}, not a string ({shown})", "drop or fill it") from None
    except UnicodeEncodeError as error:
        raise CacheError(
            f"{which} holds a lone surrogate (U+{ord(text[error.start]):04X} at character {error.start})",
            "decode the source as UTF-8, or encode the text with errors='replace' first",
        ) from None
