"""Flipped bits, flipped bytes and truncations, anywhere in a store: found, named, never a wrong number, never a crash.

The damage is done in another process, so that a crash of the HDF5 library or a SIGBUS would be seen as such.
"""

import contextlib
import json
import os
import random
import shutil

import numpy as np
import pytest

from cache import CacheError, FeatureStore, text_keys, verify
from cache.store.shard import forget
from cache.store.writer import lay_out
from tests.cache.store.killing import together

DIM = 20
DESCRIPTION = {"backbone": "b", "fingerprint": "f" * 64, "layer": -1, "hidden_size": DIM, "store_dtype": "float16"}
KEYS = text_keys([str(number) for number in range(60)])
FEATURES = np.random.default_rng(0).standard_normal((60, DIM)).astype(np.float16)


@pytest.fixture
def store(tmp_path):
    made = FeatureStore.create(tmp_path / "store", DESCRIPTION)
    with made.writer() as writer:
        for start in range(0, 60, 20):
            writer.append(KEYS[start : start + 20], FEATURES[start : start + 20])
            writer.flush()
    made.refresh()
    return made


def used_bytes(store):
    """Every byte of the store that means something, as (path, offset, row or None); what is left is padding."""
    places = []
    for shard in store.shards:
        _, pieces = lay_out(shard.path, DESCRIPTION, shard.rows)
        for start, piece in pieces.items():
            places += [(shard.path, start + offset, None) for offset in range(len(piece))]
        for start, width in ((shard.keys_at, 16), (shard.features_at, 2 * DIM), (shard.checksums_at, 8)):
            places += [(shard.path, start + offset, offset // width) for offset in range(shard.rows * width)]
    description = store.folder / "backbone.json"
    return places + [(description, offset, None) for offset in range(description.stat().st_size)]


def read(folder):
    """What a reader gets: the rows that are there, checked against the truth; or the error's text."""
    forget()
    try:
        store = FeatureStore.open(folder)
        there = store.contains(KEYS)
        found = store.gather(KEYS[there])
    except CacheError as error:
        return str(error)
    assert (found == FEATURES[there]).all(), "a wrong number reached the reader"
    return None


def expect_found(folder, path, row):
    """The damage just done to `path` must be found, with its row, and hurt nobody."""
    error = read(folder)
    assert error is None or str(path) in error
    damage = verify(folder).damage
    assert [item.path for item in damage] == [path]
    assert row is None or damage[0].rows == (row,)
    assert row is not None or error is not None or path.name == "backbone.json"


def flip_again_and_again(store, seed, flips):
    chance = random.Random(seed)
    places = used_bytes(store)
    metadata = [place for place in places if place[2] is None]
    for number in range(flips):
        path, offset, row = chance.choice(metadata if number % 2 else places)
        original = path.read_bytes()
        damaged = bytearray(original)
        damaged[offset] ^= 1 << chance.randrange(8) if number % 3 else chance.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            if path.name == "backbone.json" and not means_something(original, damaged):
                assert read(store.folder) is None
            else:
                expect_found(store.folder, path, row)
        finally:
            path.write_bytes(original)
    assert read(store.folder) is None


def means_something(original, damaged):
    """Whether the JSON says anything else: white space turned into other white space does not."""
    with contextlib.suppress(ValueError):
        return json.loads(bytes(damaged)) != json.loads(original)
    return True


@pytest.mark.slow
def test_a_thousand_flips_are_found_and_none_is_read(store):
    copy = shutil.copytree(store.folder, store.folder.with_name("copy"))  # two processes share the work
    together((flip_again_and_again, store, 1, 500), (flip_again_and_again, FeatureStore.open(copy), 2, 500))


def flip_padding(store):
    chance = random.Random(3)
    used = {(path, offset) for path, offset, _ in used_bytes(store)}
    for shard in store.shards:
        original = shard.path.read_bytes()
        padding = [offset for offset in range(len(original)) if (shard.path, offset) not in used]
        for offset in chance.sample(padding, 30):
            damaged = bytearray(original)
            damaged[offset] ^= 0xFF
            shard.path.write_bytes(damaged)
            assert read(store.folder) is None
        shard.path.write_bytes(original)


def test_flips_of_padding_change_nothing(store):
    together((flip_padding, store))


def truncate_again_and_again(store):
    chance = random.Random(4)
    for _ in range(100):
        path = chance.choice([*(shard.path for shard in store.shards), store.folder / "backbone.json"])
        original = path.read_bytes()
        os.truncate(path, chance.randrange(len(original)))
        expect_found(store.folder, path, None)
        path.write_bytes(original)


def test_a_hundred_truncations_are_found_and_never_crash(store):
    together((truncate_again_and_again, store))


def damage_while_mapped(store):
    for shard in store.shards:
        whole = shard.path.read_bytes()
        os.truncate(shard.path, shard.features_at + 100)
        with pytest.raises(CacheError, match=f"it has {shard.features_at + 100} bytes instead of"):
            store.gather(KEYS)
        with shard.path.open("r+b") as file:
            file.write(whole)
        content = bytearray(shard.path.read_bytes())
        content[shard.features_at + 7] ^= 1
        with shard.path.open("r+b") as file:  # the same file: what is mapped changes under the reader
            file.write(content)
        with pytest.raises(CacheError, match="rows 0 do not match their checksums"):
            store.gather(KEYS)
        content[shard.features_at + 7] ^= 1
        with shard.path.open("r+b") as file:
            file.write(content)
    assert (store.gather(KEYS) == FEATURES).all()


def test_damage_under_an_open_reader_is_found(store):
    together((damage_while_mapped, store))


def zero_pages(store):
    for shard in store.shards:
        original = shard.path.read_bytes()
        for page in range(0, len(original), 4096):
            damaged = bytearray(original)
            damaged[page : page + 4096] = bytes(len(damaged[page : page + 4096]))
            shard.path.write_bytes(damaged)
            error = read(store.folder)
            found = verify(store.folder).damage
            assert bool(found) == (damaged != original)
            assert error is None or str(shard.path) in error
        shard.path.write_bytes(bytes(len(original)))
        assert "HDF5 cannot read its header" in read(store.folder)
        shard.path.write_bytes(original)


def test_pages_of_zeros_are_found(store):
    together((zero_pages, store))
