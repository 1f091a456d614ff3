"""What any store must do, whatever wrote it: one writer, four processes at once, a compaction, a repair.

A new way to produce a store (another engine) adds a subclass of `StoreContract` with its `produce`.
"""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cache import CacheError, FeatureStore, text_keys, verify
from cache.store import compact
from tests.cache.store.killing import together

DIM = 24
TEXTS = [f"text {number}" for number in range(700)]
DESCRIPTION = {"backbone": "fake", "fingerprint": "f" * 64, "layer": 3, "hidden_size": DIM, "prompt": "say: "}
DTYPES = ["float16", "float32", "bfloat16"]


def fake_backbone(texts):
    """Features that follow from the text alone, with few enough digits for every dtype: float32 [n, DIM]."""
    words = text_keys(texts).view("<u8").astype(np.uint64)[:, :1]
    return (((words >> np.arange(DIM, dtype=np.uint64)) & np.uint64(127)).astype(np.float32) - 64) / 8


def append(folder, description, numbers, batch=32):
    store = FeatureStore.create(folder, description)
    with store.writer(nbytes=20_000) as writer:
        for start in range(0, len(numbers), batch):
            texts = [TEXTS[number] for number in numbers[start : start + batch]]
            writer.append(text_keys(texts, "say: "), fake_backbone(texts))


def append_two_fifths(folder, description, process):
    """What one of four processes writes: half of it the next one writes too, in another order and other batches."""
    first = process * len(TEXTS) // 5
    numbers = np.arange(first, first + 2 * len(TEXTS) // 5)
    append(folder, description, np.random.default_rng(process).permutation(numbers), batch=16)


class StoreContract:
    """Tests for a store of TEXTS; a subclass says how it comes about."""

    @staticmethod
    def produce(folder, description):
        raise NotImplementedError

    @pytest.fixture(scope="class", params=DTYPES)
    @classmethod
    def folder(cls, request, tmp_path_factory):
        folder = tmp_path_factory.mktemp("contract") / "store"
        cls.produce(folder, {**DESCRIPTION, "store_dtype": request.param})
        return folder

    @pytest.fixture
    def keys(self):
        return text_keys(TEXTS, "say: ")

    def test_every_row_is_there_and_equal(self, folder, keys):
        store = FeatureStore.open(folder)
        assert len(store) == len(TEXTS)
        assert store.contains(keys).all()
        found = store.gather(keys)
        assert found.dtype == {"float16": np.float16}.get(store.dtype, np.float32)
        assert found.shape == (len(TEXTS), DIM)
        assert (found == fake_backbone(TEXTS)).all()

    @pytest.mark.parametrize("check", [True, False])
    def test_rows_come_in_the_order_of_the_keys(self, folder, keys, check):
        chosen = np.random.default_rng(0).integers(0, len(TEXTS), 1500)
        found = FeatureStore.open(folder).gather(keys[chosen], check=check)
        assert (found == fake_backbone(TEXTS)[chosen]).all()

    def test_the_result_belongs_to_the_caller(self, folder, keys):
        store = FeatureStore.open(folder)
        store.gather(keys)[...] = 0
        assert (store.gather(keys) == fake_backbone(TEXTS)).all()

    def test_nothing_is_asked_nothing_comes(self, folder):
        store = FeatureStore.open(folder)
        none = np.empty((0, 16), np.uint8)
        assert store.gather(none).shape == (0, DIM)
        assert store.contains(none).shape == (0,)

    def test_an_unknown_key_is_an_error_that_names_its_row(self, folder, keys):
        store = FeatureStore.open(folder)
        keys[5] = 1
        assert np.flatnonzero(~store.contains(keys)).tolist() == [5]
        with pytest.raises(CacheError, match=r"1 of 700 keys have no feature in .*, the first at row 5"):
            store.gather(keys)

    def test_the_description_is_what_was_given(self, folder):
        store = FeatureStore.open(folder)
        assert store.description == {**DESCRIPTION, "store_dtype": store.dtype}
        assert (store.folder, store.dim) == (folder, DIM)
        assert json.loads((folder / "backbone.json").read_text())["fingerprint"] == "f" * 64

    def test_nothing_but_shards_is_left_behind(self, folder):
        left = [path.name for path in folder.iterdir() if not path.name.startswith("shard-")]
        assert set(left) <= {"backbone.json", ".last-used"}

    def test_verify_finds_no_damage(self, folder):
        found = verify(folder)
        assert found.damage == ()
        assert found.rows >= len(TEXTS)

    def test_threads_may_share_a_store(self, folder, keys):
        store = FeatureStore.open(folder)
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _: store.gather(keys), range(8)):
                assert (found == fake_backbone(TEXTS)).all()


class TestOneWriter(StoreContract):
    @staticmethod
    def produce(folder, description):
        append(folder, description, np.arange(len(TEXTS)))


class TestRowByRow(StoreContract):
    @staticmethod
    def produce(folder, description):
        append(folder, description, np.arange(len(TEXTS)), batch=1)


class TestFourProcessesOverOverlappingTexts(StoreContract):
    @staticmethod
    def produce(folder, description):
        together(*((append_two_fifths, folder, description, process) for process in range(4)))


class TestCompacted(StoreContract):
    @staticmethod
    def produce(folder, description):
        append(folder, description, np.arange(0, 500))
        append(folder, description, np.arange(300, len(TEXTS)))
        compact(folder, shard_bytes=25_000)


class TestRepaired(StoreContract):
    @staticmethod
    def produce(folder, description):
        append(folder, description, np.arange(len(TEXTS)))
        for path in sorted(folder.glob("shard-*.h5"))[:2]:
            content = bytearray(path.read_bytes())
            content[-5] ^= 4
            path.write_bytes(content)
        assert len(verify(folder, repair=True).damage) == 2
        store = FeatureStore.open(folder)
        append(folder, description, np.flatnonzero(~store.contains(text_keys(TEXTS, "say: "))))


def make(folder, **changes):
    return FeatureStore.create(folder, {**DESCRIPTION, "store_dtype": "float16", **changes})


def test_another_description_is_refused(tmp_path):
    make(tmp_path / "s")
    make(tmp_path / "s")
    with pytest.raises(CacheError, match=r"layer is 3, not 4$") as error:
        make(tmp_path / "s", layer=4)
    assert str(tmp_path / "s" / "backbone.json") in str(error.value)
    with pytest.raises(CacheError, match=r"store_dtype is 'float16', not 'float32'$"):
        make(tmp_path / "s", store_dtype="float32")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"hidden_size": "8"}, "hidden_size is '8'"),
        ({"store_dtype": "int8"}, "store_dtype is 'int8'"),
        ({"path": Path()}, "the description is not plain JSON"),
        ({"digest": ""}, "the description has the reserved key 'digest'"),
    ],
)
def test_an_unusable_description_is_refused_and_nothing_made(tmp_path, changes, problem):
    with pytest.raises(CacheError, match=problem):
        make(tmp_path / "s", **changes)
    assert not (tmp_path / "s").exists()


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CacheError, match=r"is no feature store: it has no backbone.json"):
            FeatureStore.open(folder)


@pytest.mark.parametrize("keys", [np.zeros((3, 16)), np.zeros((3, 8), np.uint8), np.zeros(16, np.uint8)])
def test_what_is_no_array_of_keys_is_refused(tmp_path, keys):
    store = make(tmp_path / "s")
    for call in (store.contains, store.gather):
        with pytest.raises(CacheError, match=r"not uint8 \[n, 16\]"):
            call(keys)


def test_a_refused_append_stores_nothing_of_it(tmp_path):
    store = make(tmp_path / "s")
    keys, features = text_keys(TEXTS[:4]), fake_backbone(TEXTS[:4])
    wrong = features.copy()
    wrong[2, 7] = np.inf
    with store.writer() as writer:
        writer.append(keys[:2], features[:2])
        with pytest.raises(CacheError, match="feature 7 of row 2 is inf"):
            writer.append(keys, wrong)
        with pytest.raises(CacheError, match="3 keys came with 4 features"):
            writer.append(keys[:3], features)
    store.refresh()
    assert store.contains(keys).tolist() == [True, True, False, False]


def test_what_was_appended_before_an_exception_is_committed(tmp_path):
    store = make(tmp_path / "s")
    with pytest.raises(KeyboardInterrupt), store.writer() as writer:
        writer.append(text_keys(TEXTS[:4]), fake_backbone(TEXTS[:4]))
        raise KeyboardInterrupt
    store.refresh()
    assert len(store) == 4


def test_refresh_shows_what_was_committed_since(tmp_path):
    writing, reading = make(tmp_path / "s"), make(tmp_path / "s")
    with writing.writer() as writer:
        for number in range(3):
            writer.append(text_keys(TEXTS[number : number + 1]), fake_backbone(TEXTS[number : number + 1]))
            writer.flush()
            assert len(reading) == number
            reading.refresh()
            assert len(reading) == number + 1


def test_shards_close_by_bytes_and_by_time_not_by_batch(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    store = make(tmp_path / "s", hidden_size=1024)
    keys, features = text_keys(TEXTS), np.zeros((len(TEXTS), 1024), np.float32)
    with store.writer(nbytes=400 * 2048) as writer:  # half of it waits, half is on its way: a shard is 200 rows
        for start in range(0, 600, 20):
            writer.append(keys[start : start + 20], features[start : start + 20])
    store.refresh()
    assert [shard.rows for shard in store.shards] == [200, 200, 200]
    with store.writer(seconds=10.0) as writer:
        for start in range(0, 700, 70):  # a batch takes 3 seconds: with the fourth, the oldest work would be 12 old
            clock[0] += 3.0
            writer.append(keys[start : start + 70], features[start : start + 70])
    store.refresh()
    assert [shard.rows for shard in store.shards[3:]] == [210, 210, 210, 70]


def test_more_shards_than_open_files(tmp_path):
    # a map holds a descriptor: a store of a slow machine has more shards than a process may open files
    resource = pytest.importorskip("resource")
    store = make(tmp_path / "s")
    keys, features = text_keys(TEXTS[:250]), fake_backbone(TEXTS[:250])
    with store.writer(nbytes=0) as writer:
        for number in range(len(keys)):
            writer.append(keys[number : number + 1], features[number : number + 1])
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    try:
        found = FeatureStore.open(tmp_path / "s")
        assert (found.gather(keys) == features).all()
        assert (found.gather(keys[::-1]) == features[::-1]).all()
        compact(tmp_path / "s")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (found.gather(keys) == features).all()


def test_errors_survive_the_way_from_a_worker_process(tmp_path):
    with pytest.raises(CacheError) as error:
        FeatureStore.open(tmp_path)
    copy = pickle.loads(pickle.dumps(error.value))
    assert (str(copy), copy.remedy) == (str(error.value), error.value.remedy)
