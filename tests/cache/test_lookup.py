"""What is missing, against sets: read here or by a pool, from stores that hold some of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import CacheError, EmbedRequest, FeatureStore, embed_missing, resolve, text_keys
from cache.lookup import Lookup, lookup_pool, lookup_processes
from cache.workers.work_items import ITEM_TEXTS

DESCRIPTION = {"hidden_size": 2, "store_dtype": "float32", "fingerprint": "0" * 64}


def stores_with(root, held, prompt):
    """A store for each set of texts, holding those."""
    stores = []
    for number, texts in enumerate(held):
        store = FeatureStore.create(root / str(number), {**DESCRIPTION, "layer": number})
        with store.writer() as writer:
            writer.append(text_keys(sorted(texts), prompt), np.zeros((len(texts), 2), np.float32))
        store.refresh()
        stores.append(store)
    return stores


@pytest.fixture(scope="module", params=[0, 1, 3])
def pool(request):
    if not request.param:
        yield None
        return
    with lookup_pool(request.param, "ask: ", 7, 2) as some:
        yield some


def found_by(lookup, pool):
    return list(lookup.missing() if pool is None else lookup.missing_items(pool))


def test_every_missing_text_comes_once_with_what_belongs_to_it(tmp_path_factory, monkeypatch, pool):
    monkeypatch.setattr("cache.lookup.FIRST_READ", 4)
    monkeypatch.setattr("cache.lookup.READ_TEXTS", 16)
    words = st.sampled_from([f"text {i}" for i in range(40)])

    @settings(max_examples=40, deadline=None, database=None)
    @given(st.lists(words, max_size=80), st.sets(words, max_size=20), st.sets(words, max_size=20))
    def examples(texts, first, second):
        stores = stores_with(tmp_path_factory.mktemp("stores"), (first, second), "ask: ")
        lookup = Lookup(iter(texts), stores, "ask: ")
        items = found_by(lookup, pool)
        found = [text for item in items for text in item.texts]
        assert sorted(found) == sorted(set(texts) - (first & second))
        assert (lookup.texts, lookup.reused) == (len(texts), len(texts) - len(found))
        for item in items:
            assert [texts[row] for row in item.rows] == list(item.texts)
            assert all(texts.index(text) == row for text, row in zip(item.texts, item.rows, strict=True))
            assert (item.keys == text_keys(list(item.texts), "ask: ")).all()
            assert item.absent.tolist() == [[text not in first, text not in second] for text in item.texts]

    examples()


def test_readers_go_on_where_the_first_chunk_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("cache.lookup.FIRST_READ", 8)
    texts = [f"text {i % 150}" for i in range(300)]
    lookup = Lookup(texts, stores_with(tmp_path, (set(texts[:20]),), ""), "")
    first = next(lookup.missing())
    with lookup_pool(2, "", 5, 1) as pool:
        items = [first, *lookup.missing_items(pool)]
    assert sorted(row for item in items for row in item.rows) == list(range(20, 150))
    assert max(len(item.rows) for item in items[1:]) <= 5
    assert lookup.texts == 300


def test_a_bad_text_is_named_by_its_row_and_what_came_before_is_yielded(tmp_path, monkeypatch, pool):
    monkeypatch.setattr("cache.lookup.FIRST_READ", 4)
    monkeypatch.setattr("cache.lookup._SLICE", 4)
    texts = [*[f"text {i}" for i in range(4)], "fine", " "]
    lookup = Lookup(texts, stores_with(tmp_path, (set(),), "ask: "), "ask: ")
    items = lookup.missing() if pool is None else lookup.missing_items(pool)
    got = []
    with pytest.raises(CacheError, match="text 5 is empty"):
        got.extend(row for item in items for row in item.rows)
    assert sorted(got) == [0, 1, 2, 3]


def test_a_reader_that_is_killed_is_an_error_that_says_so(tmp_path):
    lookup = Lookup(["a", "b"], stores_with(tmp_path, (set(),), ""), "")
    with lookup_pool(1, "", 5, 1) as pool:
        pool._all[0]._process.kill()
        pool._all[0]._process.wait()
        with pytest.raises(CacheError, match="a reading process ended"):
            list(lookup.missing_items(pool))


def test_readers_are_for_several_gpus_with_much_to_read(monkeypatch):
    monkeypatch.setattr("cache.lookup.cores", lambda: 32)
    gpus = [f"cuda:{i}" for i in range(8)]
    assert [lookup_processes(gpus[:n], 10**7) for n in (1, 2, 3, 8)] == [0, 2, 3, 4]
    assert lookup_processes(gpus[:2], 0) == 2  # a stream of unknown length
    assert lookup_processes(gpus[:2], 100_000) == 0
    assert lookup_processes(["cpu", "cpu"], 10**7) == 0
    monkeypatch.setattr("cache.lookup.cores", lambda: 4)
    assert lookup_processes(gpus[:2], 10**7) == 0


@pytest.mark.parametrize("devices", ["cpu", "cpu:2"])
def test_features_by_pools_are_those_without(tmp_path, checkpoint, monkeypatch, devices):
    qwen = resolve(str(checkpoint("qwen3")))
    texts = [f"{word} {i % 70}" for i in range(200) for word in ("alpha", "beta")]
    options = {"dtype": "float32", "store_dtype": "float32", "prompt": "ask: "}
    plain = embed_missing(texts, EmbedRequest(qwen, tmp_path / "a", devices="cpu", **options))
    monkeypatch.setattr("cache.lookup.FIRST_READ", 16)
    monkeypatch.setattr("cache.embedding.lookup_processes", lambda devices, total: 2)
    monkeypatch.setitem(ITEM_TEXTS, "cuda", 9)
    monkeypatch.setattr("cache.workers.worker._POOL_DEVICES", ("cpu",))  # in this process: that of one device
    monkeypatch.setattr("cache.workers.worker._POOL_TEXTS", 0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    read = embed_missing(texts, EmbedRequest(qwen, tmp_path / "b", devices=devices, **options))
    assert (read.texts, read.computed, read.reused) == (400, 140, 260)
    assert plain.computed == read.computed
    a, b = (FeatureStore.open(r.stores[0].folder).gather(text_keys(texts, "ask: ")) for r in (plain, read))
    assert (np.linalg.norm(a - b, axis=1) <= 1e-5 * np.linalg.norm(a, axis=1)).all()
