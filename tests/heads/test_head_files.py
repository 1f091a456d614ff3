"""Checkpoints: the same bits back, and every damage an error that says what to do."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from heads import HeadsError, check, fit, load, save


@pytest.fixture(scope="module", params=["v5", "mrl", "joint"])
def head(request, three_levels):
    (features, labels), _ = three_levels
    return fit(features, labels, method=request.param, epochs=1, batch_size=24)


@pytest.fixture(scope="module")
def saved(three_levels, tmp_path_factory):
    (features, labels), _ = three_levels
    folder = tmp_path_factory.mktemp("saved") / "run"
    save(fit(features, labels, method="v5", epochs=1, head="linear"), folder, {})
    return folder


def test_a_loaded_head_computes_the_same_bits(head, three_levels, tmp_path):
    _, (features, _) = three_levels
    save(head, tmp_path / "run", {"levels": ["ä", "b"], "seed": 42})
    loaded = load(tmp_path / "run")
    assert torch.equal(loaded.weights, head.weights)
    assert loaded.shape == head.shape
    assert (loaded.method, loaded.preset) == (head.method, head.preset)
    assert loaded.record == {"levels": ["ä", "b"], "seed": 42}
    for dim in head.dims:
        assert np.array_equal(loaded.embed(features, dim), head.embed(features, dim))
        for ours, theirs in zip(loaded.classify(features, dim), head.classify(features, dim), strict=True):
            assert np.array_equal(ours, theirs)


def test_tensors_are_stored_by_name_as_float32_and_nothing_else_is_written(head, tmp_path):
    save(head, tmp_path, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "head.safetensors"]
    tensors = load_file(tmp_path / "head.safetensors")
    centring = set() if head.centre is None else {"input.centre", "input.scale"}
    assert tensors.keys() == head.named().keys() | centring
    for name, tensor in head.named().items():
        assert tensors[name].dtype == torch.float32
        assert torch.equal(tensors[name], tensor)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path):
    """Change one bit of one weight."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def pickled(path):
    path.write_bytes(pickle.dumps(Ran()))


class Ran:
    """Unpickled, it leaves a trace."""

    def __reduce__(self):
        return (pytest.fail, ("something was unpickled",))


def other_tensor(change):
    def write(path):
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return write


def config(change):
    def write(path):
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return write


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("head.safetensors", cut, ""),
        ("head.safetensors", pickled, ""),
        ("head.safetensors", lambda path: path.unlink(), "No such file"),
        ("head.safetensors", lambda path: path.write_bytes(b""), ""),
        ("head.safetensors", other_tensor(lambda t: t.pop("input.bias")), "input.bias"),
        ("head.safetensors", other_tensor(lambda t: t.update(extra=torch.zeros(1))), "extra"),
        ("head.safetensors", other_tensor(lambda t: t.update({"input.bias": torch.zeros(3)})), "input.bias"),
        ("head.safetensors", other_tensor(lambda t: t.update({"input.bias": t["input.bias"].half()})), "float16"),
        ("config.json", lambda path: path.unlink(), "config.json: No such file"),
        ("config.json", cut, ""),
        ("config.json", pickled, ""),
        ("config.json", lambda path: path.write_text("[]"), "format"),
        ("config.json", config(lambda c: c.pop("shape")), "shape"),
        ("config.json", config(lambda c: c["shape"].pop("inputs")), "inputs"),
        ("config.json", config(lambda c: c["shape"].update(classes=None)), ""),
        ("config.json", config(lambda c: c["shape"].update(classes="many")), ""),
        ("config.json", config(lambda c: c["shape"].update(scales="four")), ""),
        ("config.json", config(lambda c: c.update(parents=[["a"]])), ""),
        ("config.json", config(lambda c: c.update(parents=[])), "parents"),
        ("config.json", config(lambda c: c["parents"][0].__setitem__(0, 7)), "parents"),
        ("config.json", config(lambda c: c["supervised"].pop()), "supervised"),
        ("config.json", config(lambda c: c.pop("record")), "record"),
    ],
)
def test_damage_is_named_in_one_line_with_a_way_out(saved, tmp_path, name, damage, said):
    folder = shutil.copytree(saved, tmp_path / "run")
    damage(folder / name)
    with pytest.raises(HeadsError) as checked:
        check(folder)
    assert "fit the head again" in checked.value.remedy
    with pytest.raises(HeadsError) as error:
        load(folder)
    assert str(folder) in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "fit the head again" in error.value.remedy


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(HeadsError, match="absent"):
        load(tmp_path / "absent")


def test_a_newer_format_is_refused_by_name_and_an_older_one_is_read_with_a_line(saved, tmp_path, caplog):
    folder = shutil.copytree(saved, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format": 3}))
    with pytest.raises(HeadsError, match="format 3"):
        load(folder)
    older = {name: value for name, value in config.items() if name not in ("digest", "names")} | {"format": 1}
    (folder / "config.json").write_text(json.dumps(older))
    assert check(saved)
    assert not check(folder)
    assert torch.equal(load(folder).weights, load(saved).weights)
    assert [record.message for record in caplog.records] == [
        f"{folder} was saved without a digest: whether it is undamaged cannot be checked"
    ]


def test_files_have_the_mode_that_the_umask_gives(saved):
    mask = os.umask(0)
    os.umask(mask)
    assert [path.stat().st_mode & 0o777 for path in saved.iterdir()] == [0o666 & ~mask] * 2
