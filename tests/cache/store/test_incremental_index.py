"""Growing sets of keys against a set, and against a store after every kind of change to it."""

import numpy as np
import pytest

from cache import FeatureStore, compact, text_keys
from cache.store.index import IncrementalKeys, IncrementalStoreKeys, KeyIndex

DESCRIPTION = {"hidden_size": 2, "store_dtype": "float32", "fingerprint": "0" * 64}
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


@pytest.mark.parametrize("seed", range(3))
def test_each_look_finds_what_came_since_the_last(tmp_path, seed):
    generator = np.random.default_rng(seed)
    store = FeatureStore.create(tmp_path / "store", DESCRIPTION)
    with store.writer() as writer:
        writer.append(KEYS[:10], np.zeros((10, 2), np.float32))
    later, held = IncrementalStoreKeys(store.folder, store.description), np.zeros(len(KEYS), bool)
    held[:10] = True
    for step in range(25):
        before = held.copy()
        chosen = generator.choice(len(KEYS), int(generator.integers(1, 200)))
        with store.writer() as writer:
            writer.append(KEYS[chosen], np.zeros((len(chosen), 2), np.float32))
        held[chosen] = True
        if step % 10 == 9:
            compact(store.folder)
        found = later.look().find(KEYS) >= 0
        assert (found >= (held & ~before)).all()
        assert (found <= held).all()
        assert len(later.look().first) == 0
