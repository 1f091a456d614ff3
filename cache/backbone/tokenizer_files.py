"""A checkpoint's tokenizer, as transformers reads it: tokenizer.json and the settings in the files beside it.

transformers 5 builds many tokenizers anew from the vocabulary in tokenizer.json, by the settings in
tokenizer_config.json, special_tokens_map.json and added_tokens.json: lower case, accents, added tokens, end tokens. So
tokenizer.json alone is the tokenizer only where these settings say the same. Where that is plain (a few kinds of
tokenizers with settings that are known here) tokenizer.json is loaded directly, in milliseconds. Everything else is
loaded through transformers, whose import takes seconds, and where the result is not that of tokenizer.json its digest
goes into the fingerprint. The alternative, reading some keys and dropping the others, gives other tokens than
sentence-transformers for the same folder, and says nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from cache.backbone.gguf import SPLIT_PATTERNS
from cache.backbone.json_files import JsonObject
from cache.backbone.quiet import quiet_transformers
from cache.backbone.registry import Backbone
from cache.backbone.settings import ABSOLUTE_POSITIONS
from cache.errors import CacheError, one_line

SETTINGS_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_PROBE = "a"
_SPECIAL = ("unk_token", "bos_token", "eos_token", "sep_token", "pad_token", "cls_token", "mask_token")
# settings that change no token id of a single text, truncated by this package
_WITHOUT_EFFECT = {
    *("name_or_path", "model_max_length", "max_len", "max_length", "padding_side", "truncation_side", "stride"),
    *("clean_up_tokenization_spaces", "chat_template", "tokenizer_class", "do_basic_tokenize", "never_split", "errors"),
    *("special_tokens_map_file", "tokenizer_file", "vocab_file", "merges_file", "processor_class", "backend"),
    *("truncation_strategy", "pad_token_type_id", "pad_to_multiple_of", "is_local", "local_files_only", "use_fast"),
}
_BERT = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
_READ_DIRECTLY = ("PreTrainedTokenizerFast", "TokenizersBackend")


def digest_if_changed(folder: Path, backbone: Backbone) -> str | None:
    """Return a digest of the tokenizer as loaded, hex; None where tokenizer.json alone gives the same tokens.

    :raises CacheError: as `load_tokenizer` does.
    """
    loaded, raw, _ = load_tokenizer(folder, backbone)
    if loaded is raw:
        return None
    state = _state(loaded)
    if raw is not None and state == _state(raw):
        return None
    canonical = json.dumps(state, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def load_tokenizer(folder: Path, backbone: Backbone) -> tuple[Any, Any, str]:
    """Return a checkpoint's `tokenizers.Tokenizer`, that of tokenizer.json alone or None, and the side of truncation.

    Neither truncates or pads. The two are one object where they are the same.

    :raises CacheError: there is none, or none that can be used.
    """
    try:
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        raw: Any = Tokenizer.from_file(str(path)) if path.is_file() else None
        _check_padding(raw, path)
        stated = _unbounded(raw)
        settings = _settings_beside(raw, folder)
        direct = settings is not None and _read_directly(raw, settings, folder)
        loaded: Any = raw if direct else _through_transformers(folder, backbone, None if settings else raw)
        rebuilt = _unbounded(loaded)
    except CacheError:
        raise
    except Exception as error:  # the Rust library raises plain Exception
        raise CacheError(
            f"backbone {backbone.name}: no usable tokenizer in {folder} ({one_line(error)})",
            "copy tokenizer.json and tokenizer_config.json of the checkpoint into that folder",
        ) from error
    if backbone.lowercase and not _in_lower_case(loaded):
        from tokenizers import normalizers

        raw = Tokenizer.from_str(loaded.to_str()) if loaded is raw else raw
        loaded.normalizer = normalizers.Sequence([normalizers.Lowercase(), *_parts(loaded.normalizer)])
    return loaded, raw, backbone.truncation_side or stated or rebuilt or "right"


def _check_padding(raw: Any, path: Path) -> None:
    """Refuse padding on the left in tokenizer.json, unless tokenizer_config.json says right."""
    side = (raw.padding or {}).get("direction") if raw is not None else None
    kind = JsonObject.read_or_empty(path.with_name("config.json")).values.get("model_type")
    stated = JsonObject.read_or_empty(path.with_name("tokenizer_config.json")).values.get("padding_side")
    if str(side).lower() == "left" and stated is None and kind in ABSOLUTE_POSITIONS:
        raise CacheError(
            f"{path}: padding is on the left, and positions of {kind} are absolute: an embedding of "
            "sentence-transformers would depend on its batch",
            "set padding to null there",
        )


def _unbounded(tokenizer: Any) -> str | None:
    """Turn truncation and padding off; return the side at which it truncated."""
    if tokenizer is None:
        return None
    stated = tokenizer.truncation
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return str(stated["direction"]).lower() if stated else None


def _through_transformers(folder: Path, backbone: Backbone, plain: Any) -> Any:
    """Load as transformers does.

    `plain` is the tokenizer of tokenizer.json where nothing beside it asks for more. It is returned where transformers
    takes the file for another kind of tokenizer, which config.json alone made it believe.
    """
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            made = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=backbone.trust_remote_code
            )
    except Exception:
        if plain is None:
            raise
        return plain
    backend = getattr(made, "backend_tokenizer", None)
    if backend is None:
        raise CacheError(
            f"backbone {backbone.name}: {type(made).__name__} is a tokenizer without a tokenizer.json",
            "convert it: load it with transformers and save_pretrained where sentencepiece or tiktoken is installed",
        )
    fits = plain is None or type(backend.model) is type(plain.model)
    return backend if fits else plain


def _settings_beside(raw: Any, folder: Path) -> dict[str, Any] | None:
    """Return the settings beside tokenizer.json that may ask for more than it holds; None where some certainly do."""
    config, special, added = (JsonObject.read_or_empty(folder / name) for name in SETTINGS_FILES)
    if raw is None or added.values:
        return None
    rest = {key: value for key, value in config.values.items() if key not in _WITHOUT_EFFECT}
    named = {key: rest.pop(key) for key in _SPECIAL if rest.get(key) is not None}
    named |= dict(special.values)
    if not _are_added(raw, named | _extra(rest), rest.pop("added_tokens_decoder", None)):
        return None
    if _are_special(raw, rest.get("additional_special_tokens")):
        del rest["additional_special_tokens"]
    ends = [rest.pop(key, None) for key in ("add_bos_token", "add_eos_token")]
    if any(ends) or (ends != [None, None] and around(raw) != ([], [])):
        return None
    return {key: value for key, value in rest.items() if value is not None or key == "strip_accents"} | {
        key: value for key, value in named.items() if _BERT.get(key) != value
    }


def _extra(rest: dict[str, Any]) -> dict[str, Any]:
    """Take further special tokens out of the settings, by number; what is no list of them stands for itself."""
    found: list[Any] = []
    for key in ("additional_special_tokens", "extra_special_tokens"):
        listed = rest.pop(key, None) or []
        found += listed if isinstance(listed, list) else [listed]
    return {str(number): token for number, token in enumerate(found)}


def _read_directly(raw: Any, settings: dict[str, Any], folder: Path) -> bool:
    """Tell whether transformers makes of tokenizer.json and these settings what is in tokenizer.json."""
    model = JsonObject.read_or_empty(folder / "config.json").values
    name = JsonObject.read_or_empty(folder / "tokenizer_config.json").values.get("tokenizer_class")
    name, kind = name or model.get("tokenizer_class"), model.get("model_type")
    rest = {key: value for key, value in settings.items() if key not in _SPECIAL}
    if (folder / "gguf.json").is_file():  # tokenizer.json was written from the GGUF file's metadata
        return True
    if name in _READ_DIRECTLY and kind != "qwen2":
        return not rest.keys() - {"add_prefix_space"}
    short = str(name).removesuffix("Fast")
    if short == "BertTokenizer" and kind == "bert":
        return rest == settings and _is_bert(raw, rest)
    return short == "Qwen2Tokenizer" and kind in ("qwen2", "qwen3") and _is_qwen(raw, rest)


def _are_added(raw: Any, named: dict[str, Any], listed: Any) -> bool:
    """Tell whether special tokens, by name and by id, are added tokens of tokenizer.json as they are there."""
    flags = ("lstrip", "rstrip", "single_word", "normalized", "special")
    held = raw.get_added_tokens_decoder()
    contents = {token.content for token in held.values()}
    if not all(isinstance(token, str) and token in contents for token in named.values()):
        return False
    if listed is None:
        return True
    for number, token in listed.items() if isinstance(listed, dict) else [("", None)]:
        there = held.get(int(number)) if str(number).isdecimal() else None
        if there is None or not isinstance(token, dict) or token.get("content") != there.content:
            return False
        if any(token.get(flag, getattr(there, flag)) != getattr(there, flag) for flag in flags):
            return False
    return True


def _are_special(raw: Any, listed: Any) -> bool:
    """Tell whether further special tokens are special in tokenizer.json already: naming them then changes nothing."""
    special = {token.content for token in raw.get_added_tokens_decoder().values() if token.special}
    return isinstance(listed, list) and all(isinstance(token, str) and token in special for token in listed)


def _is_bert(raw: Any, rest: dict[str, Any]) -> bool:
    wanted = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": rest.pop("tokenize_chinese_chars", True),
        "strip_accents": rest.pop("strip_accents", None),
        "lowercase": rest.pop("do_lower_case", True),
    }
    before, after = around(raw)
    return (
        not rest
        and component(raw.normalizer) == wanted
        and component(raw.pre_tokenizer) == {"type": "BertPreTokenizer"}
        and type(raw.model).__name__ == "WordPiece"
        and (raw.model.max_input_chars_per_word, raw.model.continuing_subword_prefix) == (100, "##")
        and [raw.id_to_token(i) for i in (*before, *after)] == ["[CLS]", "[SEP]"]
    )


def _is_qwen(raw: Any, rest: dict[str, Any]) -> bool:
    split = {"type": "Split", "pattern": {"Regex": SPLIT_PATTERNS["qwen2"]}, "behavior": "Isolated", "invert": False}
    by_bytes = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    model = raw.model
    options = ("dropout", "unk_token", "fuse_unk", "byte_fallback", "ignore_merges")
    return (
        not {key for key, value in rest.items() if value not in (False, [], {})}
        and component(raw.normalizer) == {"type": "NFC"}
        and component(raw.pre_tokenizer) == {"type": "Sequence", "pretokenizers": [split, by_bytes]}
        and type(model).__name__ == "BPE"
        and not any(getattr(model, key) for key in (*options, "continuing_subword_prefix", "end_of_word_suffix"))
    )


def component(part: Any) -> Any:
    """Return a component's settings as in tokenizer.json, but what decides only where in the text a token lies.

    None where there is no such component; one that is written in Python has no settings.
    """
    if part is None:
        return None
    try:
        return _without_offsets(json.loads(part.__getstate__()))
    except Exception:  # the Rust library raises plain Exception
        return {}


def _in_lower_case(tokenizer: Any) -> bool:
    """Tell whether a normaliser makes lower case of a text already."""
    parts = component(tokenizer.normalizer) or {}
    parts = parts.get("normalizers", [parts])
    return any(part.get("type") == "Lowercase" or part.get("lowercase") is True for part in parts)


def _parts(normalizer: Any) -> list[Any]:
    if normalizer is None:
        return []
    with contextlib.suppress(TypeError):  # a sequence can be iterated
        return list(normalizer)
    return [normalizer]


def _state(tokenizer: Any) -> dict[str, Any]:
    """Return what decides the token ids of a text, as in tokenizer.json."""
    state = json.loads(tokenizer.to_str())
    kept = {key: state.get(key) for key in ("added_tokens", "model")}
    parts = {"normalizer": tokenizer.normalizer, "pre_tokenizer": tokenizer.pre_tokenizer}
    return {**kept, **{name: component(part) for name, part in parts.items()}, "around": around(tokenizer)}


def _without_offsets(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_offsets(one) for one in value]
    if isinstance(value, dict):
        return {key: _without_offsets(one) for key, one in value.items() if key != "trim_offsets"}
    return value


def around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the token ids that are put before and after a text."""
    bare = tokenizer.encode(_PROBE, add_special_tokens=False).ids
    whole = tokenizer.encode(_PROBE, add_special_tokens=True).ids
    at = next(i for i in range(len(whole) + 1) if whole[i : i + len(bare)] == bare)
    return whole[:at], whole[at + len(bare) :]
