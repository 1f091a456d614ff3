"""A set of keys that grows, against a set."""

import numpy as np
import pytest

from cache import text_keys
from cache.store.index import IncrementalKeys, KeyIndex

KEYS = text_keys([str(i) for i in range(4000)])


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
