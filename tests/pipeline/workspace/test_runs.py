"""A run that may not be read is no damaged run: it is neither replaced nor called damaged."""

import json

import numpy as np
import pytest

import heads
from pipeline.stages.with_progress import usable
from pipeline.workspace.records import marked
from pipeline.workspace.runs import scan, whole_run


@pytest.fixture
def folder(tmp_path):
    """A run of two classes, as `write_run` leaves it."""
    rng = np.random.default_rng(0)
    labels = np.stack([np.arange(24) % 2, np.arange(24) % 4], 1)
    result = heads.fit(rng.standard_normal((24, 8)).astype(np.float32), labels, method="mrl", epochs=1)
    head = getattr(result, "head", result)
    record = {
        "id": "0123456789ab", "dataset": "own-1", "backbone": "minilm", "backbone_source": "minilm", "prompt": "",
        "layer": 6, "fingerprint": "f" * 32, "features": {}, "method": "mrl", "head": "paper", "seed": 1,
        "hyperparameters": {"epochs": 1}, "seconds": 0.1, "parameters": 1, "best_epoch": 1, "dims": list(head.dims),
        "levels": ["a", "b"], "classes": [["x", "y"], ["p", "q", "r", "s"]],
    }  # fmt: skip
    folder = tmp_path / "runs" / "own-1" / "minilm" / "mrl" / "0123456789ab"
    heads.save(head, folder, marked(record))
    return folder


def test_a_whole_run_is_found_and_loaded(folder):
    assert whole_run(folder).seed == 1
    runs, unreadable = scan(folder.parents[3])
    assert ([run.id for run in runs], unreadable) == (["0123456789ab"], [])


def test_weights_that_may_not_be_read_are_said_and_not_trained_again(folder, monkeypatch):
    def refused(path):
        if path.name == "head.safetensors":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    from pathlib import Path

    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", refused)  # root may read everything
    with pytest.raises(heads.HeadsError, match="Permission denied"):
        whole_run(folder)


def test_a_copied_folder_is_no_run_of_its_own(folder, caplog):
    other = folder.rename(folder.with_name("ba9876543210"))
    assert whole_run(other) is None
    assert "it is the record of run 0123456789ab" in caplog.text


def test_a_head_with_a_changed_bit_is_named_and_left_out_and_the_only_one_is_refused(folder):
    (run,), _ = scan(folder.parents[3])
    weights = folder / "head.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    said = []
    with pytest.raises(heads.HeadsError, match="0123456789ab"):
        usable([run], said.append)


@pytest.mark.parametrize("name", ["seed", "features", "dims"])
def test_a_record_of_before_that_lacks_a_key_is_named(folder, name):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    record = {key: value for key, value in config["record"].items() if key not in ("format", "digest", name)}
    path.write_text(json.dumps({**config, "record": record}))
    runs, unreadable = scan(folder.parents[3])
    assert runs == []
    assert f"record.{name} is missing" in str(unreadable[0].error)
