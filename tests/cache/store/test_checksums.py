"""The row checksum: equal to a loop over Python integers, and blind to no single flip."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.store.hashing import row_checksums, scratch_for

MASK = 2**64 - 1


def splitmix64(index):
    """Output `index` of splitmix64 from seed 0."""
    z = (index + 1) * 0x9E3779B97F4A7C15 & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def slow_checksum(key, row):
    data = key.tobytes() + row.tobytes()
    data += bytes(-len(data) % 8)
    total = 0x243F6A8885A308D3
    for place in range(len(data) // 8):
        word = int.from_bytes(data[8 * place : 8 * place + 8], "little")
        total += (splitmix64(place) | 1) * (word ^ word >> 31)
    return total & MASK


def random_rows(seed, rows, dim, dtype):
    random = np.random.default_rng(seed)
    keys = random.integers(0, 256, (rows, 16), dtype=np.uint8)
    width = dim * np.dtype(dtype).itemsize
    return keys, random.integers(0, 256, (rows, width), dtype=np.uint8).view(dtype)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 9), st.integers(1, 9), st.sampled_from(["<f2", "<f4", "<u2"]))
def test_equal_to_the_slow_loop(seed, rows, dim, dtype):
    keys, features = random_rows(seed, rows, dim, dtype)
    expected = [slow_checksum(key, row) for key, row in zip(keys, features, strict=True)]
    assert row_checksums(keys, features).tolist() == expected
    assert row_checksums(keys, features, scratch_for(2, dim, features.itemsize)).tolist() == expected


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_every_flipped_bit_of_key_and_row_is_found(seed, dim):
    keys, features = random_rows(seed, 1, dim, "<f2")
    good = row_checksums(keys, features)[0]
    for array in (keys, features.view(np.uint8)):
        for place in range(array.size):
            for bit in range(8):
                array.reshape(-1)[place] ^= 1 << bit
                assert row_checksums(keys, features)[0] != good
                array.reshape(-1)[place] ^= 1 << bit


@pytest.mark.parametrize("bit", [15, 31, 47, 63])
def test_the_same_bit_flipped_in_two_words_is_found(bit):
    # the top bits of two words would cancel in a plain sum of products
    keys, features = random_rows(1, 1, 256, "<f2")
    words = features.view("<u8")[0]
    good = row_checksums(keys, features)[0]
    for other in range(1, len(words)):
        words[[0, other]] ^= np.uint64(1 << bit)
        assert row_checksums(keys, features)[0] != good
        words[[0, other]] ^= np.uint64(1 << bit)


def test_all_signs_turned_is_found():
    for dtype, sign in (("<f2", 0x8000), ("<f4", 0x80000000)):
        keys, features = random_rows(2, 100, 64, dtype)
        good = row_checksums(keys, features)
        features.view(f"<u{features.itemsize}")[...] ^= sign
        assert (row_checksums(keys, features) != good).all()


def test_a_page_of_zeros_does_not_pass_for_a_row():
    assert row_checksums(np.zeros((1, 16), np.uint8), np.zeros((1, 64), np.float16))[0] != 0


def test_words_that_change_places_are_found():
    keys, features = random_rows(3, 1, 64, "<f2")
    good = row_checksums(keys, features)[0]
    features.view("<u8")[0, [0, 1]] = features.view("<u8")[0, [1, 0]]
    assert row_checksums(keys, features)[0] != good
