"""The module that runs our encoder inside sentence-transformers, on a tiny backbone: right whatever is done to it."""

from __future__ import annotations

import copy
import json
import pickle
import shutil

import numpy as np
import pytest
import torch

from cache.backbone.registry import resolve
from cache.batching.tokenizer import TextTokenizer
from cache.model.encoder import Encoder
from pipeline.errors import PipelineError
from pipeline.export.loading import PACKED, POOLING, load_model
from pipeline.export.tokenizer import carry_end_token
from tests.cache.conftest import write_model, write_tokenizer

TEXTS = ["hello there", "hello", "good bye world", "hello there again", "x"]


def write_folder(folder):
    write_model("qwen3", folder)
    write_tokenizer(folder, bert=False)
    modules = [{"path": "", "type": PACKED}, {"path": "1_Pooling", "type": POOLING}]
    (folder / "1_Pooling").mkdir()
    for name, content in {
        "tokenizer_config.json": {"pad_token": "<pad>"},
        "sentence_bert_config.json": {"max_seq_length": 64, "model_kwargs": {"dtype": "bfloat16"}},
        "1_Pooling/config.json": {"word_embedding_dimension": 32, "pooling_mode": "lasttoken"},
        "config_sentence_transformers.json": {},
        "modules.json": [{"idx": i, "name": str(i), **module} for i, module in enumerate(modules)],
    }.items():
        (folder / name).write_text(json.dumps(content))
    carry_end_token(folder, resolve(str(folder)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("packed") / "model"
    made.mkdir()
    write_folder(made)
    return made


def ours(folder) -> np.ndarray:
    backbone = resolve(str(folder))
    encoder, found = Encoder(folder, backbone, (3,), "bfloat16", "cpu"), np.empty((len(TEXTS), 32), np.float32)
    for batch in encoder.packing.batches(TextTokenizer(folder, backbone).encode(TEXTS)):
        found[batch.rows] = encoder.features(batch)[0].numpy()
    return found


def theirs(folder, change=lambda module: None) -> np.ndarray:
    """Embeddings by sentence-transformers' own module, after a change of it."""
    model = load_model(folder, device="cpu")
    change(model[0])
    model[0]._loaded = None
    return model.encode(TEXTS)


def halved(module):
    with torch.no_grad():
        for weight in module.model.parameters():
            weight.mul_(0.5)


def test_it_gives_what_embed_computes_and_transformers_layers_do_not(folder):
    assert np.array_equal(load_model(folder, device="cpu").encode(TEXTS), ours(folder))
    assert not np.array_equal(theirs(folder), ours(folder))


@pytest.mark.parametrize("change", [halved, lambda m: m.half(), lambda m: m.float(), lambda m: m.model.float()])
@pytest.mark.parametrize("used_before", [False, True])
def test_weights_that_changed_are_used(folder, change, used_before):
    model = load_model(folder, device="cpu")
    before = model.encode(TEXTS) if used_before else None
    change(model[0])
    found = model.encode(TEXTS)
    assert np.array_equal(found, theirs(folder, change))
    assert before is None or not np.array_equal(found, before)
    assert model[0]._encoders == {}


def test_moving_and_copying_change_nothing(folder):
    model = load_model(folder, device="cpu")
    for same in (model.to("cpu"), copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.bfloat16()):
        assert np.array_equal(same.encode(TEXTS), ours(folder))
        assert same[0]._encoders


def test_a_changed_copy_stays_changed(folder):
    model = load_model(folder, device="cpu")
    copied = copy.deepcopy(model)
    for one in (model, copied):
        halved(one[0])
        assert np.array_equal(one.encode(TEXTS), theirs(folder, halved))
        assert np.array_equal(pickle.loads(pickle.dumps(one)).encode(TEXTS), theirs(folder, halved))


def test_gradients_flow(folder):
    model = load_model(folder, device="cpu")
    model(model.preprocess(TEXTS))["sentence_embedding"].sum().backward()
    assert all(weight.grad is not None for weight in model[0].model.parameters())


@pytest.mark.parametrize("output", ["token_embeddings", None])
def test_states_of_tokens_are_refused(folder, output):
    model = load_model(folder, device="cpu")
    with pytest.raises(PipelineError, match="no token embeddings") as caught:
        model.encode(TEXTS, output_value=output)
    assert "AutoModel" in caught.value.remedy


def test_files_are_those_of_the_revision_that_was_asked_for(folder, tmp_path):
    """The hub's cache as the hub client lays it out, with another revision called main."""
    from sentence_transformers import SentenceTransformer

    repository = tmp_path / "models--mine--tiny"
    names = {"main": "a" * 40, "v1": "b" * 40}
    for name, commit in names.items():
        shutil.copytree(folder, repository / "snapshots" / commit)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / name).write_text(commit)
    other = repository / "snapshots" / names["main"]
    model = load_model(other, device="cpu")
    halved(model[0])
    model[0].model.save_pretrained(other)
    found = {
        name: SentenceTransformer(
            "mine/tiny", revision=name, cache_folder=str(tmp_path), local_files_only=True, device="cpu",
            trust_remote_code=True,
        ).encode(TEXTS)
        for name in names
    }  # fmt: skip
    assert np.array_equal(found["v1"], ours(folder))
    assert np.array_equal(found["main"], ours(other))


def test_batches_that_do_not_fit_are_made_smaller(folder, monkeypatch):
    expected, features, sizes = ours(folder), Encoder.features, []

    def short_of_memory(encoder, batch):
        sizes.append(len(batch.rows))
        if len(batch.rows) > 2:
            raise torch.OutOfMemoryError("a device of two texts")
        return features(encoder, batch)

    model = load_model(folder, device="cpu")
    model[0]._encoder("cpu")
    monkeypatch.setattr(Encoder, "features", short_of_memory)
    found = model.encode(TEXTS)
    assert np.abs(found - expected).max() < 0.1
    assert max(sizes) == len(TEXTS)
