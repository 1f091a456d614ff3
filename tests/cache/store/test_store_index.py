"""The key index against a dict, with hashes, with keys made to collide, and with duplicates; a growing one too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import text_keys
from cache.store.index import IncrementalKeys, KeyIndex

KEYS = text_keys([str(i) for i in range(4000)])


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(0, 300),
    letters=st.sampled_from([1, 2, 256]),
    same=st.sampled_from([0, 4, 8, 15]),
    repeats=st.booleans(),
)
def test_finds_what_a_dict_finds(seed, rows, letters, same, repeats):
    random = np.random.default_rng(seed)
    keys = random.integers(0, letters, (rows, 16), dtype=np.uint8)
    others = random.integers(0, letters, (50, 16), dtype=np.uint8)
    keys[:, :same] = others[:, :same] = 7  # leading bytes alike: not what hashes do, but what a test or attacker may
    if repeats and rows:
        keys = keys[random.integers(0, rows, rows)]
    first = {}
    for number, key in enumerate(keys):
        first.setdefault(key.tobytes(), number)
    index = KeyIndex.build(keys)
    assert sorted(index.numbers.tolist()) == sorted(first.values())
    wanted = np.concatenate([keys, others])
    assert index.find(wanted).tolist() == [first.get(key.tobytes(), -1) for key in wanted]


@pytest.mark.parametrize("rows", [1, 1000, 100_000])
def test_memory_is_at_most_24_bytes_a_row(rows):
    index = KeyIndex.build(np.random.default_rng(0).integers(0, 256, (rows, 16), dtype=np.uint8))
    used = sum(array.nbytes for array in (index.first, index.second, index.numbers, index.begins))
    assert used <= 24 * rows + 8


@pytest.mark.parametrize("seed", range(3))
def test_a_set_holds_what_was_added(seed):
    generator = np.random.default_rng(seed)
    growing, held = IncrementalKeys(), np.zeros(len(KEYS), bool)
    for _ in range(40):
        chosen = generator.choice(len(KEYS), int(generator.integers(0, 200)))
        growing.add(KeyIndex.build(KEYS[chosen]))
        held[chosen] = True
        assert (growing.contains(KEYS) == held).all()
    assert len(growing._indexes) <= 12
