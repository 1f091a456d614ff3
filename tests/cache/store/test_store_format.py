"""The written format: what docs/store-format.md says, done with nothing but h5py, is what the store holds."""

import hashlib
import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from cache import FeatureStore, text_keys

DOCUMENT = (Path(__file__).parents[3] / "docs" / "store-format.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
TEXTS = [f"text {number}" for number in range(50)]
DIM = 9


def make(folder, dtype):
    description = {"backbone": "b", "fingerprint": "f", "prompt": "say: ", "hidden_size": DIM, "store_dtype": dtype}
    store = FeatureStore.create(folder, description)
    features = np.random.default_rng(0).standard_normal((len(TEXTS), DIM), np.float32)
    with store.writer() as writer:
        writer.append(text_keys(TEXTS, "say: "), features)
    store.refresh()
    return store


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_the_documented_snippets_read_a_row_and_check_it(tmp_path, dtype):
    store = make(tmp_path / "s", dtype)
    names = {"path": store.shards[0].path, "prompt": "say: ", "text": TEXTS[17]}
    exec(SNIPPETS[0], names)
    exec(SNIPPETS[1], names)
    row = names["feature"]
    with h5py.File(store.shards[0].path, "r", locking=False) as shard:
        assert names["checksum"](names["keys"][17], row) == shard["checksums"][17]
    if dtype == "bfloat16":
        row = (row.astype("u4") << 16).view("f4")
    assert (row == store.gather(text_keys([TEXTS[17]], "say: "))[0]).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_the_layout_is_as_documented(tmp_path, dtype):
    shard = make(tmp_path / "s", dtype).shards[0]
    stored = {"float16": "<f2", "float32": "<f4", "bfloat16": "<u2"}[dtype]
    expected = {"keys": ("u1", (50, 16)), "checksums": ("<u8", (50,)), "features": (stored, (50, DIM))}
    starts = []
    with h5py.File(shard.path, "r", locking=False) as file:
        assert file.attrs["format"] == b"feature-shard"
        assert file.attrs["version"] == 1
        assert file["features"].attrs["encoding"] == dtype.encode()
        assert sorted(file) == sorted(expected)
        for name, (kind, shape) in expected.items():
            assert (file[name].dtype, file[name].shape) == (np.dtype(kind), shape)
            assert (file[name].chunks, file[name].compression) == (None, None)
            starts.append(file[name].id.get_offset())
    assert starts == sorted(starts)
    assert all(start % 4096 == 0 for start in starts)
    assert shard.path.read_bytes()[8] == 3  # the superblock's version


def test_the_description_is_as_documented(tmp_path):
    store = make(tmp_path / "s", "float16")
    content = json.loads((tmp_path / "s" / "backbone.json").read_text())
    digest = content.pop("digest")
    assert content.pop("store_version") == 1
    assert content == store.description
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert digest == hashlib.blake2b(b"1" + text.encode("ascii"), digest_size=16).hexdigest()
    with h5py.File(store.shards[0].path, "r", locking=False) as file:
        assert file.attrs["description"] == text.encode("ascii")


def test_names_are_as_documented(tmp_path):
    store = make(tmp_path / "s", "float16")
    assert re.fullmatch(r"shard-\d{20}-[0-9a-f]{12}\.h5", store.shards[0].path.name)


def test_another_version_is_refused_by_name(tmp_path):
    from cache import CacheError

    path = make(tmp_path / "s", "float16").folder / "backbone.json"
    content = json.loads(path.read_text())
    content.pop("store_version"), content.pop("digest")
    text = "2" + json.dumps(content, sort_keys=True, separators=(",", ":"))
    content |= {"store_version": 2, "digest": hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}
    path.write_text(json.dumps(content))
    with pytest.raises(CacheError, match="has store version 2, this program reads version 1") as error:
        FeatureStore.open(tmp_path / "s")
    assert str(path) in str(error.value)
