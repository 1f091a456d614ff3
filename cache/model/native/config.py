"""Which checkpoints run here rather than in transformers' layers: read off config.json, trusting only what is known.

Five architectures cover most text encoders: Qwen3, Qwen2, Llama and Mistral (`cache.model.native.decoder`), BERT
(`cache.model.native.bert`). Running them here is faster, and saves importing transformers' models, which takes longer
than embedding ten thousand texts. A configuration that holds a key or a value that this file does not know gets None,
and the backbone runs in transformers' own layers (`cache.model.transformers_model`): a new option is never silently
ignored. The alternative, trusting `model_type` alone, is wrong with the first checkpoint that scales its positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_IRRELEVANT = {
    *("architectures", "model_type", "vocab_size", "max_position_embeddings", "initializer_range", "use_cache"),
    *("attention_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings", "torch_dtype", "dtype"),
    *("transformers_version", "_name_or_path", "name_or_path", "gradient_checkpointing", "pretraining_tp"),
    *("id2label", "label2id", "type_vocab_size", "intermediate_size", "return_dict", "output_hidden_states"),
    *("problem_type", "num_labels", "chunk_size_feed_forward", "tokenizer_class", "directionality"),
    *("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type"),
    *("_model_name_or_path", "_commit_hash", "auto_map", "task_specific_params", "decoder_start_token_id"),
    *("label_smoothing", "finetuning_task", "remove_invalid_values", "_attn_implementation", "attn_implementation"),
    *("output_past", "output_attentions", "sep_token_id", "cls_token_id", "mask_token_id", "unk_token_id"),
}
_SIZES = {"hidden_size", "num_hidden_layers", "num_attention_heads"}
_DECODERS = ("qwen3", "qwen2", "llama", "mistral")
FAMILIES = (*_DECODERS, "bert")
_DECODER_KEYS = {"num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters"}
# what a family reads of local windows; in another family's configuration such a key means nothing, or something unknown
_WINDOW_KEYS = {
    "qwen3": {"use_sliding_window", "sliding_window", "max_window_layers", "layer_types"},
    "qwen2": {"use_sliding_window", "sliding_window", "max_window_layers", "layer_types"},
    "mistral": {"sliding_window"},
    "llama": set(),
}
_STATIC_ROPE = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary positions whose frequencies do not depend on the length of a batch."""
# values that a key may have, where it is there; every other value means something that is not computed here
_VALUES: Mapping[str, tuple[Any, ...]] = {
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "pruned_heads": ({}, None),
}
_DECODER_VALUES: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "is_decoder": (True, None),
    **_VALUES,
}
_BERT_VALUES: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    **_VALUES,
}


@dataclass(frozen=True)
class DecoderShape:
    """A decoder's numbers that its weights do not show: `windows` has a local window or None for each layer.

    `theta` is the base of plain rotary positions; `rope` the kind of others, whose frequencies transformers computes.
    `normed`: queries and keys are normalised by head; `biased`: their projections, and the values', have biases.
    """

    vocabulary: int
    hidden: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    dim: int
    eps: float
    theta: float
    rope: str
    windows: tuple[int | None, ...]
    normed: bool
    biased: bool


@dataclass(frozen=True)
class BertShape:
    """The same of a BERT; `tables`: rows of words, positions and kinds."""

    tables: tuple[int, int, int]
    hidden: int
    width: int
    layers: int
    heads: int
    eps: float


def decoder_shape(config: Mapping[str, Any]) -> DecoderShape | None:
    """Return the shape of a decoder that `decoder.py` runs, None if the configuration says more than it knows."""
    family = config.get("model_type")
    if family not in _DECODERS or not _understood(config):
        return None
    rope, windows = _rope(config), _windows(config)
    stated = {"rms_norm_eps", "intermediate_size", "vocab_size"} | (
        set() if family == "llama" else {"num_key_value_heads"}
    )
    if rope is None or windows is None or not stated <= config.keys():
        return None
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    if heads % kv_heads:
        return None
    dim = config.get("head_dim") or (128 if family == "qwen3" else hidden // heads)
    return DecoderShape(
        vocabulary=int(config["vocab_size"]),
        hidden=hidden,
        width=int(config["intermediate_size"]),
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=kv_heads,
        dim=int(dim),
        eps=float(config["rms_norm_eps"]),
        theta=rope[1],
        rope=rope[0],
        windows=windows,
        normed=family == "qwen3",
        biased=family == "qwen2",
    )


def _rope(config: Mapping[str, Any]) -> tuple[str, float] | None:
    """Return the kind of rotary positions and their base; None where they are not stated, or stated twice."""
    stated = [config[key] for key in ("rope_parameters", "rope_scaling") if config.get(key)]
    if len(stated) > 1 or not all(isinstance(one, dict) for one in stated):
        return None
    rope = stated[0] if stated else {}
    theta = rope.get("rope_theta", config.get("rope_theta"))
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    if theta is None or kind not in _STATIC_ROPE or "partial_rotary_factor" in rope:
        return None
    return kind, float(theta)


def bert_shape(config: Mapping[str, Any]) -> BertShape | None:
    """Return the shape of a BERT that `bert.py` runs, None if the configuration says more than it knows."""
    if config.get("model_type") != "bert" or not _understood(config):
        return None
    tables = ("vocab_size", "max_position_embeddings", "type_vocab_size")
    stated = config.keys() >= {"intermediate_size", *tables}
    if not stated or int(config["hidden_size"]) % int(config["num_attention_heads"]):
        return None
    words, places, kinds = (int(config[name]) for name in tables)
    return BertShape(
        tables=(words, places, kinds),
        hidden=int(config["hidden_size"]),
        width=int(config["intermediate_size"]),
        layers=int(config["num_hidden_layers"]),
        heads=int(config["num_attention_heads"]),
        eps=float(config.get("layer_norm_eps", 1e-12)),
    )


def _understood(config: Mapping[str, Any]) -> bool:
    sizes = [
        config.get(key, 1) for key in (*_SIZES, "vocab_size", "intermediate_size", "num_key_value_heads", "head_dim")
    ]
    return (
        not unknown_settings(config)
        and config.keys() >= _SIZES
        and all(size is None or (type(size) is int and size > 0) for size in sizes)
    )


def unknown_settings(config: Mapping[str, Any]) -> str:
    """Name what in a configuration of a known family keeps it from running here; empty where it is none by itself."""
    family = str(config.get("model_type"))
    values, further = (_BERT_VALUES, {"layer_norm_eps"}) if family == "bert" else (_DECODER_VALUES, _DECODER_KEYS)
    further = further | _WINDOW_KEYS.get(family, set())
    unknown = config.keys() - _IRRELEVANT - _SIZES - further - values.keys()
    other = [
        f"{key} {config[key]!r}" for key, allowed in values.items() if key in config and config[key] not in allowed
    ]
    return ", ".join([*sorted(unknown), *other])


def _windows(config: Mapping[str, Any]) -> tuple[int | None, ...] | None:
    """Return each layer's local window; None where the rule is not known."""
    layers, window = int(config["num_hidden_layers"]), config.get("sliding_window")
    kinds = config.get("layer_types") or ()
    if set(kinds) - {"full_attention", "sliding_attention"} or len(kinds) not in (0, layers):
        return None
    if config["model_type"] == "mistral":
        return (window,) * layers if "sliding_window" in config else None
    if window is None or not config.get("use_sliding_window", False):
        return (None,) * layers if "sliding_attention" not in kinds else None
    if kinds:
        return tuple(int(window) if kind == "sliding_attention" else None for kind in kinds)
    first = config.get("max_window_layers")
    return None if first is None else tuple(int(window) if i >= first else None for i in range(layers))
