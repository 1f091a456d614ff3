"""The keys of a growing store against the store itself, after every kind of change to it."""

import numpy as np
import pytest

from cache import FeatureStore, compact, text_keys
from cache.growing import GrowingKeys

DESCRIPTION = {"hidden_size": 2, "store_dtype": "float32", "fingerprint": "0" * 64}


@pytest.mark.parametrize("seed", range(3))
def test_it_holds_what_the_store_holds(tmp_path, seed):
    generator = np.random.default_rng(seed)
    keys = text_keys([str(i) for i in range(4000)])
    store = FeatureStore.create(tmp_path / "store", DESCRIPTION)
    growing = GrowingKeys(store.folder, store.description)
    held = np.zeros(len(keys), bool)
    for step in range(25):
        before = held.copy()
        chosen = generator.choice(len(keys), int(generator.integers(1, 200)))
        with store.writer() as writer:
            writer.append(keys[chosen], np.zeros((len(chosen), 2), np.float32))
        held[chosen] = True
        if step % 10 == 9:
            compact(store.folder)
        new = growing.refresh()
        assert (growing.contains(keys) == held).all()
        assert ((new.find(keys) >= 0) >= (held & ~before)).all()
        assert len(growing.refresh().first) == 0
    assert len(growing._indexes) <= 12
    store.refresh()
    assert (store.contains(keys) == held).all()


def test_rows_that_go_with_their_shard_are_not_there_any_more(tmp_path):
    keys = text_keys(["a", "b"])
    store = FeatureStore.create(tmp_path / "store", DESCRIPTION)
    growing = GrowingKeys(store.folder, store.description)
    for i in range(2):
        with store.writer() as writer:
            writer.append(keys[i : i + 1], np.zeros((1, 2), np.float32))
    growing.refresh()
    assert growing.contains(keys).all()
    sorted(store.folder.glob("*.h5"))[0].unlink()
    growing.refresh()
    assert growing.contains(keys).tolist() == [False, True]
