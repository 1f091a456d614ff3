"""A text's feature is that of the text alone, whatever it is packed with: property tests against transformers."""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from cache.backbone.registry import resolve
from cache.batching.ragged import Sequences
from cache.batching.tokenizer import TextTokenizer
from cache.errors import CacheError
from cache.model.encoder import Encoder
from cache.model.native.config import bert_shape, decoder_shape
from cache.model.transformers_model import TransformersModel

CAUSAL = ["qwen3", "qwen2", "qwen2-window", "llama", "llama-scaled", "mistral"]
BIDIRECTIONAL = ["bert", "xlm-roberta"]
# two letters and short words: shared prefixes, duplicates and texts that are prefixes of others are the rule
TEXTS = st.lists(st.text("ab", min_size=1, max_size=12), min_size=1, max_size=24)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def encoder(checkpoint):
    @functools.cache
    def make(name: str, layers: tuple[int, ...] = (3,)) -> Encoder:
        folder = checkpoint(name)
        return Encoder(folder, resolve(str(folder)), layers, "float32", "cpu")

    return make


@pytest.fixture(scope="module")
def alone(checkpoint):
    """A function: each sequence through transformers' own forward by itself, one hidden state."""

    @functools.cache
    def model(name: str):
        from transformers import AutoModel

        return AutoModel.from_pretrained(checkpoint(name), dtype=torch.float32, attn_implementation="eager").eval()

    def run(name: str, sequences: Sequences, layer: int, pooling: str) -> np.ndarray:
        rows = []
        for a, b in zip(sequences.offsets, sequences.offsets[1:], strict=False):
            ids = torch.from_numpy(sequences.ids[a:b].astype(np.int64))[None]
            with torch.inference_mode():
                states = model(name)(ids, output_hidden_states=True).hidden_states[layer][0]
            rows.append({"last": states[-1], "mean": states.mean(0), "cls": states[0]}[pooling].numpy())
        return np.stack(rows)

    return run


def packed(encoder: Encoder, sequences: Sequences, budget: int) -> np.ndarray:
    out = np.full((len(encoder.layers), len(sequences), 32), np.nan, np.float32)
    for batch in replace(encoder.packing, budget=budget).batches(sequences):
        out[:, batch.rows] = encoder.features(batch).numpy()
    return out


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float((np.linalg.norm(a - b, axis=-1) / np.linalg.norm(b, axis=-1)).max())


@pytest.mark.parametrize("name", CAUSAL)
@settings(deadline=None, max_examples=60, database=None)
@given(texts=TEXTS, budget=st.sampled_from([1, 7, 40, 500]), cap=st.sampled_from([1, 2, 6, 100]))
def test_trie_gives_each_text_what_it_has_alone(checkpoint, encoder, alone, name, texts, budget, cap):
    tokenizer = TextTokenizer(checkpoint(name), resolve(str(checkpoint(name))))
    tokenizer.room = min(tokenizer.room, cap)
    sequences = tokenizer.encode(texts)
    assert encoder(name).layout == "trie"
    got = packed(encoder(name), sequences, budget)[0]
    assert relative(got, alone(name, sequences, 3, "last")) <= 1e-5


def test_trie_of_many_blocks_and_long_texts(encoder, alone):
    generator = np.random.default_rng(0)
    lists = [[4, 5, 6] * 20 + generator.integers(4, 8, n).tolist() for n in (1, 2, 30, 150, 3, 90, 200)]
    lists += [generator.integers(4, 6, n).tolist() for n in generator.integers(1, 9, 200)]
    sequences = Sequences.of(lists)
    for name in ("qwen3", "qwen2-window"):
        for budget in (100, 300, 5000):
            got = packed(encoder(name), sequences, budget)[0]
            assert relative(got, alone(name, sequences, 3, "last")) <= 1e-5


@pytest.mark.parametrize("name", BIDIRECTIONAL)
@settings(deadline=None, max_examples=60, database=None)
@given(texts=TEXTS, budget=st.sampled_from([1, 7, 40, 500]))
def test_runs_give_each_text_what_it_has_alone(checkpoint, encoder, alone, name, texts, budget):
    sequences = TextTokenizer(checkpoint(name), resolve(str(checkpoint(name)))).encode(texts)
    assert encoder(name).layout == "runs"
    assert relative(packed(encoder(name), sequences, budget)[0], alone(name, sequences, 3, "mean")) <= 1e-5


@pytest.mark.parametrize(("name", "pooling"), [("gemma2", "last"), ("gpt2", "last"), ("mpnet", "mean")])
def test_attention_that_cannot_be_packed_is_padded_and_said(encoder, alone, name, pooling):
    sequences = Sequences.of([[5, 6, 7, 8, 9, 10, 11, 12], [5], [5, 6, 7, 9], [8, 8]])
    found = encoder(name)
    got = packed(found, sequences, 12)[0]
    assert relative(got, alone(name, sequences, 3, pooling)) <= 1e-5
    assert (found.layout == "padded") == any("padded" in note for note in found.notes)
    assert found.layout == "padded" or name == "gpt2"


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_gemma3_shares_prefixes_in_transformers_layers(checkpoint, alone, pooling):
    """Alternating local windows, norms around each block, scaled embeddings: all in transformers' own layers."""
    folder = checkpoint("gemma3")
    found = Encoder(folder, resolve(f"{folder}?pooling={pooling}"), (6,), "float32", "cpu")
    assert isinstance(found._model, TransformersModel)
    assert found.layout == "trie"
    generator = np.random.default_rng(0)
    lists = [[4, 5, 6] * 3 + generator.integers(4, 8, n).tolist() for n in (1, 2, 30, 5)] + [[5, 6, 7], [5, 6]]
    sequences = Sequences.of(lists)
    for budget in (20, 500):
        assert relative(packed(found, sequences, budget)[0], alone("gemma3", sequences, 6, pooling)) <= 1e-5


@pytest.mark.parametrize("option", [{}, {"an_option_of_next_year": 1}])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_trie_pools_each_texts_own_path(tmp_path, checkpoint, alone, pooling, option):
    folder = shutil.copytree(checkpoint("llama"), tmp_path / "llama")
    config = json.loads((folder / "config.json").read_text())
    inert = {"unk_token_id": 0, "_model_name_or_path": "x", **option}
    (folder / "config.json").write_text(json.dumps({**config, **inert}))
    found = Encoder(folder, resolve(f"{folder}?pooling={pooling}"), (2, 3), "float32", "cpu")
    assert found.layout == "trie"
    assert isinstance(found._model, TransformersModel) == bool(option)
    sequences = Sequences.of([[5, 6, 7, 8], [5, 6], [5, 6, 9], [8] * 9, [8], [5, 6], [7, 8, 5, 6], [5, 6, 7, 8, 9]])
    for budget in (4, 100):
        for layer, features in zip((2, 3), packed(found, sequences, budget), strict=True):
            assert relative(features, alone("llama", sequences, layer, pooling)) <= 1e-5


@pytest.mark.parametrize("name", ["qwen3", "bert"])
def test_several_layers_come_from_one_pass(encoder, alone, name):
    sequences = Sequences.of([[5, 6, 7], [5, 6], [9, 9, 9, 9]])
    found = encoder(name, (0, 1, 3))
    got = packed(found, sequences, 100)
    for features, layer in zip(got, (0, 1, 3), strict=True):
        assert relative(features, alone(name, sequences, layer, found.backbone.pooling)) <= 1e-5


@pytest.mark.parametrize("name", [*CAUSAL, "bert"])
def test_known_backbones_run_here_and_an_option_nobody_knows_sends_them_to_transformers(
    tmp_path, checkpoint, encoder, alone, name
):
    """Features are the same either way; transformers ignores the option, this package must not guess that."""
    folder = tmp_path / name
    shutil.copytree(checkpoint(name), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "an_option_of_next_year": 1}))
    stranger = Encoder(folder, resolve(str(folder)), (3,), "float32", "cpu")
    known = encoder(name)
    assert isinstance(stranger._model, TransformersModel)
    assert not isinstance(known._model, TransformersModel)
    assert any("do not know an_option_of_next_year" in note for note in stranger.notes)
    assert stranger.layout == known.layout  # prefixes are shared in transformers' layers too
    sequences = Sequences.of([[5, 6, 7, 8], [5, 6], [5, 6, 9], [8, 8, 8, 8, 8, 8, 8, 8, 8, 8]])
    expected = alone(name, sequences, 3, known.backbone.pooling)
    for each in (stranger, known):
        assert relative(packed(each, sequences, 100)[0], expected) <= 1e-5


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("qwen3", {"hidden_act": "gelu"}),
        ("qwen3", {"attention_bias": True}),
        ("qwen3", {"quantization_config": {"bits": 4}}),
        ("qwen2", {"layer_types": ["sliding_attention", "full_attention", "chunked_attention"]}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
        ("bert", {"position_embedding_type": "relative_key"}),
        ("bert", {"is_decoder": True}),
        ("bert", {"num_attention_heads": 5}),
        ("llama", {"rope_scaling": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),  # stated twice
        ("llama", {"use_sliding_window": True, "sliding_window": 4}),
        ("llama", {"num_key_value_heads": 3}),
    ],
)
def test_a_configuration_that_means_something_else_is_not_taken_for_a_known_one(checkpoint, name, changes):
    config = json.loads((checkpoint(name) / "config.json").read_text())
    shape = bert_shape if name == "bert" else decoder_shape
    assert shape(config) is not None
    assert shape({**config, **changes}) is None


def renamed(weights: dict, old: str, new: str) -> dict:
    return {name.replace(old, new): tensor for name, tensor in weights.items()}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (
            "bert",
            lambda w: renamed(renamed(w, "LayerNorm.weight", "LayerNorm.gamma"), "LayerNorm.bias", "LayerNorm.beta"),
        ),
        ("llama", lambda w: w | {f"layers.{i}.self_attn.q_proj.bias": torch.ones(32) for i in range(3)}),
    ],
)
def test_tensors_that_are_not_the_familys_are_left_to_transformers(tmp_path, checkpoint, alone, name, change):
    """Older BERTs' names, which transformers changes; biases that a Llama's configuration denies, which it ignores."""
    folder = tmp_path / name
    shutil.copytree(checkpoint(name), folder)
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    found = Encoder(folder, resolve(str(folder)), (3,), "float32", "cpu")
    assert isinstance(found._model, TransformersModel)
    assert any("transformers' own layers" in note for note in found.notes)
    sequences = Sequences.of([[5, 6, 7, 8], [5, 6], [5, 6, 9], [8, 8, 8, 8, 8, 8]])
    expected = alone(name, sequences, 3, found.backbone.pooling)
    assert relative(packed(found, sequences, 100)[0], expected) <= 1e-5


def test_a_checkpoint_of_other_shapes_than_its_configuration_says_is_refused(tmp_path, checkpoint):
    folder = tmp_path / "llama"
    shutil.copytree(checkpoint("llama"), folder)
    weights = load_file(folder / "model.safetensors")
    save_file(
        weights | {"layers.1.mlp.down_proj.weight": torch.ones(32, 40)}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(CacheError, match="llama"):
        Encoder(folder, resolve(str(folder)), (3,), "float32", "cpu")
