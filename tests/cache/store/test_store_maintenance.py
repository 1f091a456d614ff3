"""Listing, verifying, repairing, compacting and removing stores, beside readers and writers, and killed anywhere."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from datetime import datetime

import numpy as np
import pytest

from cache import CacheError, FeatureStore, text_keys, verify
from cache.store import compact, find_stores, remove_store
from cache.store.shard import forget, list_shards, read_header
from cache.store.writer import new_name, successor_name
from tests.cache.store.killing import killed_at, together

DIM = 16
DESCRIPTION = {"backbone": "b", "fingerprint": "f", "layer": 2, "hidden_size": DIM, "store_dtype": "float16"}
KEYS = text_keys([str(number) for number in range(400)])


def rows_of(value, count):
    return np.full((count, DIM), value, np.float32)


def make(folder, appends):
    """A store with a shard for every (first key, last key, value)."""
    store = FeatureStore.create(folder, DESCRIPTION)
    with store.writer() as writer:
        for first, last, value in appends:
            writer.append(KEYS[first:last], rows_of(value, last - first))
            writer.flush()
    store.refresh()
    return store


def flip(path, place, bit=0):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def values(folder, keys=KEYS):
    store = FeatureStore.open(folder)
    keys = keys[store.contains(keys)]
    return store.gather(keys)[:, 0].tolist()


def test_a_successor_sorts_where_what_it_replaces_did():
    earlier, name, later = new_name(), new_name(), new_name()
    for successor in (successor_name(name), successor_name(successor_name(name))):
        assert sorted([later, name, successor, earlier]) == [earlier, successor, name, later]


class TestCompact:
    def test_keeps_the_row_that_counted(self, tmp_path):
        make(tmp_path / "s", [(0, 100, 1), (50, 150, 2), (0, 400, 3), (390, 400, 4)])
        before = values(tmp_path / "s")
        assert before == [1] * 100 + [2] * 50 + [3] * 250
        compact(tmp_path / "s")
        assert len(FeatureStore.open(tmp_path / "s").shards) == 1
        assert values(tmp_path / "s") == before
        assert FeatureStore.open(tmp_path / "s").shards[0].rows == 400

    def test_makes_shards_of_about_the_size_that_is_asked(self, tmp_path):
        make(tmp_path / "s", [(start, start + 10, start) for start in range(0, 400, 10)])
        compact(tmp_path / "s", shard_bytes=100 * DIM * 2)
        assert [shard.rows for shard in FeatureStore.open(tmp_path / "s").shards] == [100] * 4
        assert values(tmp_path / "s") == [start for start in range(0, 400, 10) for _ in range(10)]

    def test_a_second_time_it_changes_nothing(self, tmp_path):
        make(tmp_path / "s", [(start, start + 10, start) for start in range(0, 400, 10)])
        compact(tmp_path / "s", shard_bytes=70 * DIM * 2)
        shards = FeatureStore.open(tmp_path / "s").shards
        compact(tmp_path / "s", shard_bytes=70 * DIM * 2)
        assert FeatureStore.open(tmp_path / "s").shards == shards

    def test_an_empty_store_stays_one(self, tmp_path):
        make(tmp_path / "s", [])
        compact(tmp_path / "s")
        assert FeatureStore.open(tmp_path / "s").shards == ()

    def test_progress_counts_rows(self, tmp_path):
        make(tmp_path / "s", [(0, 10, 1), (10, 20, 2)])
        seen = []
        compact(tmp_path / "s", progress=lambda done, total: seen.append((done, total)))
        assert seen == [(20, 20)]

    def test_refuses_to_copy_a_damaged_row(self, tmp_path):
        store = make(tmp_path / "s", [(0, 10, 1), (10, 20, 2)])
        flip(store.shards[1].path, store.shards[1].features_at + 3 * DIM * 2)
        with pytest.raises(CacheError, match="rows 3 do not match their checksums") as error:
            compact(tmp_path / "s")
        assert str(store.shards[1].path) in str(error.value)
        assert len(list((tmp_path / "s").glob("shard-*.h5"))) == 2

    def test_a_shard_committed_meanwhile_does_not_overrule(self, tmp_path, monkeypatch):
        # also one whose clock runs behind, so that its name sorts among those that are being merged
        store = make(tmp_path / "s", [(0, 100, 1), (100, 200, 2), (200, 300, 3)])
        stamp = int(store.shards[0].path.name.split("-")[1]) + 1
        write = "cache.store.writer.write_shard"
        original = sys.modules["cache.store.writer"].write_shard

        def meanwhile(*arguments):
            monkeypatch.setattr("time.time_ns", lambda: stamp)
            monkeypatch.setattr(write, original)
            make(tmp_path / "s", [(50, 400, 9)])
            original(*arguments)

        monkeypatch.setattr(write, meanwhile)
        compact(tmp_path / "s")
        assert values(tmp_path / "s") == [1] * 100 + [2] * 100 + [3] * 100 + [9] * 100

    @pytest.mark.parametrize("mapped", [True, False])
    def test_readers_go_on(self, tmp_path, mapped):
        store = make(tmp_path / "s", [(0, 200, 1), (100, 400, 2)])
        if mapped:
            assert store.gather(KEYS)[0, 0] == 1
        else:
            forget()
        compact(tmp_path / "s")
        assert store.gather(KEYS)[:, 0].tolist() == [1] * 200 + [2] * 200

    def test_readers_go_on_while_it_runs_again_and_again(self, tmp_path):
        make(tmp_path / "s", [(0, 400, 0)])
        ended, failures = threading.Event(), []

        def read():
            while not ended.is_set():
                store = FeatureStore.open(tmp_path / "s")
                if not store.contains(KEYS).all() or (store.gather(KEYS) != 0).any():
                    failures.append(len(store))

        reader = threading.Thread(target=read)
        reader.start()
        for value in range(1, 30):
            make(tmp_path / "s", [(0, 400, value)])
            compact(tmp_path / "s")
        ended.set()
        reader.join()
        assert failures == []

    def test_a_shard_removed_while_it_is_opened_is_gone_and_not_damaged(self, tmp_path):
        make(tmp_path / "s", [(0, 10, 1)])
        (shard,), passing = list_shards(tmp_path / "s"), tmp_path / "passing"
        passing.mkdir()

        def come_and_go():
            for number in range(20_000):
                (passing / f"{number}.h5").hardlink_to(shard)
                (passing / f"{number}.h5").unlink()
            passing.rmdir()

        def read():
            while passing.exists():
                for path in passing.glob("*.h5"):
                    with contextlib.suppress(FileNotFoundError):
                        read_header(path, DESCRIPTION)

        together((come_and_go,), (read,), (read,))

    def test_two_at_a_time_lose_nothing(self, tmp_path):
        make(tmp_path / "s", [(start, start + 20, start) for start in range(0, 390, 10)])
        before = values(tmp_path / "s")
        call = (lambda: compact(tmp_path / "s", shard_bytes=100 * DIM * 2),)
        together(call, call, call)
        assert values(tmp_path / "s") == before
        assert verify(tmp_path / "s").damage == ()

    @pytest.mark.slow
    def test_killed_at_every_step_the_same_rows_count(self, tmp_path):
        expected = [1] * 100 + [2] * 50 + [3] * 250
        for step in range(1, 200):
            folder = tmp_path / str(step)
            make(folder, [(0, 100, 1), (50, 150, 2), (0, 400, 3)])
            died = killed_at(step, compact, folder)
            assert values(folder) == expected
            compact(folder)
            assert values(folder) == expected
            assert len(list(folder.iterdir())) <= 3  # one shard, the description, the time of use
            if not died:
                break
        assert not died
        assert step > 10


class TestVerify:
    def test_finds_nothing_in_a_whole_store(self, tmp_path):
        make(tmp_path / "s", [(0, 100, 1), (100, 200, 2)])
        seen = []
        found = verify(tmp_path / "s", progress=lambda done, total: seen.append((done, total)))
        assert (found.rows, found.shards, found.damage) == (200, 2, ())
        assert seen[-1][0] == seen[-1][1]

    @pytest.mark.parametrize("section", ["keys_at", "features_at", "checksums_at"])
    def test_names_shard_and_row_and_repairs_just_that(self, tmp_path, section):
        store = make(tmp_path / "s", [(0, 100, 1), (100, 200, 2)])
        shard = store.shards[1]
        width = {"keys_at": 16, "features_at": DIM * 2, "checksums_at": 8}[section]
        flip(shard.path, getattr(shard, section) + 42 * width + 1)
        (damage,) = verify(tmp_path / "s").damage
        assert (damage.path, damage.rows) == (shard.path, (42,))
        assert str(damage) == f"{shard.path}: 1 rows do not match their checksums; rows 42 lost"
        if section != "keys_at":
            with pytest.raises(CacheError, match="rows 42 do not match their checksums") as error:
                FeatureStore.open(tmp_path / "s").gather(KEYS[:200])
            assert str(shard.path) in str(error.value)
            assert "pipeline cache verify --repair" in error.value.remedy
        assert verify(tmp_path / "s", repair=True).damage == (damage,)
        assert verify(tmp_path / "s").damage == ()
        there = FeatureStore.open(tmp_path / "s").contains(KEYS[:200])
        assert np.flatnonzero(~there).tolist() == [142]
        assert values(tmp_path / "s") == [1] * 100 + [2] * 99

    def test_a_shard_without_a_header_is_named_with_its_rows_which_are_computed_again(self, tmp_path):
        store = make(tmp_path / "s", [(0, 100, 1), (100, 200, 2)])
        path = store.shards[0].path
        content = path.read_bytes()
        path.write_bytes(bytes(store.shards[0].keys_at) + content[store.shards[0].keys_at :])
        with pytest.raises(CacheError, match="is damaged: HDF5 cannot read its header") as error:
            FeatureStore.open(tmp_path / "s")
        assert str(path) in str(error.value)
        (damage,) = verify(tmp_path / "s", repair=True).damage
        assert (damage.path, damage.rows, damage.lost) == (path, (), 100)
        assert str(damage).startswith(f"{path}: ") and str(damage).endswith("; all 100 rows lost")
        assert values(tmp_path / "s") == [2] * 100
        assert list(list_shards(tmp_path / "s")) == [store.shards[1].path]

    def test_of_a_shard_cut_short_no_row_is_believed(self, tmp_path):
        store = make(tmp_path / "s", [(0, 100, 1), (100, 200, 2)])
        shard = store.shards[1]
        os.truncate(shard.path, shard.features_at + 60 * DIM * 2 + 5)
        with pytest.raises(CacheError, match="is damaged: "):
            FeatureStore.open(tmp_path / "s")
        (damage,) = verify(tmp_path / "s", repair=True).damage
        assert (damage.path, damage.lost) == (shard.path, 60)
        assert values(tmp_path / "s") == [1] * 100

    @pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n" + b"\x00" * 3000])
    def test_a_file_without_any_row_is_dropped(self, tmp_path, content):
        store = make(tmp_path / "s", [(0, 100, 1), (100, 200, 2)])
        store.shards[0].path.write_bytes(content)
        (damage,) = verify(tmp_path / "s", repair=True).damage
        assert str(damage).endswith("; no row lost")
        assert values(tmp_path / "s") == [2] * 100

    def test_a_damaged_description_is_written_again_from_a_shard(self, tmp_path):
        make(tmp_path / "s", [(0, 100, 1)])
        path = tmp_path / "s" / "backbone.json"
        original = path.read_text()
        for damaged in (original.replace('"layer": 2', '"layer": 3'), original[:-20], "", None):
            if damaged is None:
                path.unlink()
            else:
                path.write_text(damaged)
            with pytest.raises(CacheError, match=r"backbone.json is damaged") as error:
                FeatureStore.open(tmp_path / "s")
            assert "verify --repair" in error.value.remedy
            assert [item.path for item in verify(tmp_path / "s", repair=True).damage] == [path]
            assert path.read_text() == original

    def test_killed_at_every_step_a_repair_loses_just_the_damaged_row(self, tmp_path):
        for step in range(1, 200):
            folder = tmp_path / str(step)
            shard = make(folder, [(0, 100, 1), (100, 200, 2)]).shards[0]
            flip(shard.path, shard.features_at)
            died = killed_at(step, lambda folder: verify(folder, repair=True), folder)
            verify(folder, repair=True)
            assert values(folder) == [1] * 99 + [2] * 100
            if not died:
                break
        assert not died

    def test_a_shard_of_another_store_or_version_is_never_dropped(self, tmp_path):
        h5py = pytest.importorskip("h5py")
        make(tmp_path / "a", [(0, 100, 1)])
        other = FeatureStore.create(tmp_path / "b", {**DESCRIPTION, "fingerprint": "g"})
        with other.writer() as writer:
            writer.append(KEYS[:10], rows_of(5, 10))
        stray = next((tmp_path / "b").glob("shard-*.h5"))
        stray = stray.rename(tmp_path / "a" / stray.name)
        for act in (FeatureStore.open, verify, compact):
            with pytest.raises(CacheError, match=r"belongs to another store: fingerprint differ from backbone\.json"):
                act(tmp_path / "a")
        with h5py.File(stray, "r+") as file:
            file.attrs["version"] = 2
        for act in (FeatureStore.open, lambda folder: verify(folder, repair=True)):
            with pytest.raises(CacheError, match="has format version 2, this program reads version 1") as error:
                act(tmp_path / "a")
            assert str(stray) in str(error.value)
        assert stray.exists()


class TestList:
    def test_says_what_there_is(self, tmp_path):
        begun = datetime.now().astimezone().timestamp()
        make(tmp_path / "one", [(0, 100, 1), (50, 200, 2)])
        make(tmp_path / "two", [])
        (tmp_path / "no store").mkdir()
        one, two = find_stores(tmp_path)
        assert (one.folder, one.description, one.rows, one.shards) == (tmp_path / "one", DESCRIPTION, 250, 2)
        assert one.bytes == sum(path.stat().st_size for path in (tmp_path / "one").glob("*.h5"))
        assert one.last_used.timestamp() > begun - 1
        assert (one.damage, two.rows, two.shards, two.bytes, two.last_used) == (None, 0, 0, 0, None)
        assert find_stores(tmp_path / "nowhere") == []

    def test_last_use_is_when_rows_were_read(self, tmp_path):
        store = make(tmp_path / "s", [(0, 100, 1)])
        os.utime(store.shards[0].path, (1e9, 1e9))
        assert find_stores(tmp_path)[0].last_used.timestamp() == 1e9
        verify(tmp_path / "s")
        assert find_stores(tmp_path)[0].last_used.timestamp() == 1e9
        FeatureStore.open(tmp_path / "s").gather(KEYS[:1])
        assert time.time() - find_stores(tmp_path)[0].last_used.timestamp() < 60

    def test_lists_a_damaged_store_too(self, tmp_path):
        shard = make(tmp_path / "s", [(0, 100, 1)]).shards[0]
        os.truncate(shard.path, 20_000)
        (found,) = find_stores(tmp_path)
        assert (found.description, found.rows) == (DESCRIPTION, 0)
        assert str(shard.path) in found.damage
        (tmp_path / "s" / "backbone.json").write_text("{}")
        assert find_stores(tmp_path)[0].description["backbone"] == "unknown"

    def test_damage_below_the_headers_changes_no_figure(self, tmp_path):
        shard = make(tmp_path / "s", [(0, 100, 1)]).shards[0]
        content = bytearray(shard.path.read_bytes())
        content[shard.keys_at : shard.keys_at + 1600] = bytes(1600)
        shard.path.write_bytes(content)
        (found,) = find_stores(tmp_path)
        assert (found.rows, found.damage) == (100, None)

    def test_loads_no_torch(self, tmp_path):
        make(tmp_path / "s", [(0, 100, 1)])
        code = (
            "import cache, sys; print(len(cache.store.find_stores(sys.argv[1])[0].description), 'torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
        assert done.stdout.split() == [str(len(DESCRIPTION)), "False"]


class TestRemove:
    def test_removes_the_store_alone(self, tmp_path):
        make(tmp_path / "one", [(0, 100, 1)])
        make(tmp_path / "two", [(0, 100, 2)])
        remove_store(tmp_path / "one")
        assert [path.name for path in tmp_path.iterdir()] == ["two"]

    def test_refuses_what_is_no_store(self, tmp_path):
        (tmp_path / "precious").mkdir()
        with pytest.raises(CacheError, match="is no feature store"):
            remove_store(tmp_path / "precious")
        assert (tmp_path / "precious").exists()

    def test_killed_at_every_step_the_store_is_whole_or_gone(self, tmp_path):
        for step in range(1, 100):
            make(tmp_path / "s", [(0, 400, 1)])
            died = killed_at(step, remove_store, tmp_path / "s")
            if (tmp_path / "s").exists():
                assert values(tmp_path / "s") == [1] * 400
                remove_store(tmp_path / "s")
            if not died:
                break
        make(tmp_path / "t", [])
        remove_store(tmp_path / "t")
        assert list(tmp_path.iterdir()) == []


def test_a_link_to_a_folder_that_is_not_mounted_is_not_taken_for_no_stores(tmp_path):
    (tmp_path / "features").symlink_to(tmp_path / "not mounted")
    with pytest.raises(CacheError, match=r"features is a link to .*not mounted, which is not there"):
        find_stores(tmp_path / "features")


def test_a_store_without_its_description_is_listed_as_damaged(tmp_path):
    make(tmp_path / "s", [(0, 100, 1)])
    (tmp_path / "s" / "backbone.json").unlink()
    (found,) = find_stores(tmp_path)
    assert found.shards == 1
    assert "it is missing" in str(found.damage)
    assert found.description["hidden_size"] == DIM
    remove_store(found.folder)
    assert find_stores(tmp_path) == []


@pytest.mark.parametrize("name", ["backbone.json", "shard-0-0.h5"])
def test_a_pipe_in_the_place_of_a_file_is_damage_and_nothing_waits_for_it(tmp_path, name):
    make(tmp_path / "s", [(0, 100, 1)])
    (tmp_path / "s" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "s" / name)
    with pytest.raises(CacheError, match=f"{name} is damaged: it is no file"):
        FeatureStore.open(tmp_path / "s")
    (found,) = find_stores(tmp_path)
    assert "it is no file" in str(found.damage)
