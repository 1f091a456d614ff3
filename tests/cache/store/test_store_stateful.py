"""The store against a dict over any sequence of append, reopen, gather, compact, damage, repair and prune."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from cache import FeatureStore, text_keys, verify
from cache.store import compact, find_stores, remove_store

DIM = 6
DESCRIPTION = {"backbone": "b", "fingerprint": "f", "layer": 0, "hidden_size": DIM, "store_dtype": "float32"}
KEYS = text_keys([str(number) for number in range(40)])
NUMBERS = st.lists(st.integers(0, len(KEYS) - 1), max_size=12)


class StoreAgainstDict(RuleBasedStateMachine):
    """`model` maps the number of a key to the row that was appended for it first."""

    readers = Bundle("readers")

    @initialize()
    def begin(self):
        self.root = Path(tempfile.mkdtemp())
        self.folder = self.root / "store"
        self.values = 0.0
        self.create()

    def create(self):
        self.store = FeatureStore.create(self.folder, DESCRIPTION)
        self.model: dict[int, np.ndarray] = {}

    def teardown(self):
        shutil.rmtree(self.root)

    @rule(numbers=NUMBERS, shards=st.integers(1, 3))
    def append(self, numbers, shards):
        rows = self.values + np.arange(len(numbers) * DIM, dtype=np.float32).reshape(-1, DIM)
        self.values += rows.size
        with self.store.writer() as writer:
            for part in np.array_split(np.arange(len(numbers)), shards):
                writer.append(KEYS[numbers][part], rows[part])
                writer.flush()
        self.store.refresh()
        for number, row in zip(numbers, rows, strict=True):
            self.model.setdefault(number, row)

    @rule()
    def reopen(self):
        self.store = FeatureStore.open(self.folder)

    @rule(target=readers)
    def read_on_while_things_change(self):
        """Hold a reader open from now on: it must go on finding the rows of this moment until they are damaged."""
        return FeatureStore.open(self.folder), dict(self.model)

    @rule(reader=readers)
    def read_with_an_old_reader(self, reader):
        store, then = reader
        wanted = [number for number in then if number in self.model and (self.model[number] == then[number]).all()]
        assert (store.gather(KEYS[wanted]) == self.expected(wanted)).all()

    @rule(numbers=NUMBERS)
    def gather(self, numbers):
        wanted = [number for number in numbers if number in self.model]
        assert (self.store.gather(KEYS[wanted]) == self.expected(wanted)).all()

    @rule(rows=st.integers(1, 30))
    def compact(self, rows):
        compact(self.folder, shard_bytes=rows * DIM * 4)
        self.store.refresh()
        assert sum(shard.rows for shard in self.store.shards) == len(self.model)
        before = self.store.shards
        compact(self.folder, shard_bytes=rows * DIM * 4)
        self.store.refresh()
        assert self.store.shards == before

    @rule(place=st.integers(0, 2**30), bit=st.integers(0, 7))
    def damage_and_repair(self, place, bit):
        if not self.store.shards:
            return
        shard = self.store.shards[place % len(self.store.shards)]
        row = place % shard.rows
        content = bytearray(shard.path.read_bytes())
        key = content[shard.keys_at + 16 * row : shard.keys_at + 16 * row + 16]
        content[shard.features_at + row * DIM * 4 + place % (DIM * 4)] ^= 1 << bit
        replacement = shard.path.with_suffix(".tmp")  # a new file: old readers keep the undamaged one
        replacement.write_bytes(content)
        replacement.rename(shard.path)
        found = verify(self.folder, repair=True)
        assert [(item.path, item.rows) for item in found.damage] == [(shard.path, (row,))]
        assert verify(self.folder).damage == ()
        self.store = FeatureStore.open(self.folder)
        number = KEYS.tolist().index(list(key))
        if not self.store.contains(KEYS[[number]])[0]:
            del self.model[number]
        else:  # a later row with the same key counts now, or a superseded one was damaged
            self.model[number] = self.store.gather(KEYS[[number]])[0]

    @rule()
    def prune(self):
        remove_store(self.folder)
        assert find_stores(self.root) == []
        self.create()

    @invariant()
    def holds_what_the_dict_holds(self):
        there = self.store.contains(KEYS)
        assert np.flatnonzero(there).tolist() == sorted(self.model)
        assert len(self.store) == len(self.model)
        assert (self.store.gather(KEYS[there]) == self.expected(sorted(self.model))).all()
        assert not list(self.folder.glob(".*.partial"))

    def expected(self, numbers):
        return np.array([self.model[number] for number in numbers], np.float32).reshape(-1, DIM)


TestStoreAgainstDict = StoreAgainstDict.TestCase
TestStoreAgainstDict.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
