"""A 64-bit checksum a row, over its key and its bytes, at the speed of memory and with numpy alone.

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

Cost: three passes over a block of two megabytes that stays in the cache, 8 GB/s a core, about half of the time of
reading (`benchmarks/store.py`). The alternatives: CRC32 or BLAKE2b take a Python call a row and 1 GB/s; one checksum a
shard cannot name the row and has to read the whole shard for one row.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from cache.keys import key_words

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
    words = key_words(keys)
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
