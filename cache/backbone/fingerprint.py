"""The content address of everything but the text that determines a feature.

Weights count by their bytes, not by their name: a checkpoint edited in place is another store. Hashing a gigabyte takes
seconds, so it happens once: hashes are remembered by (path, size, modification time, inode) in a file beside the
stores, and the hub's cache names its blobs by their SHA-256 already. Configuration and tokenizer count too, without the
fields that a mere re-saving changes. The alternative, trusting a name and revision, mixes features of two models in one
matrix without a word.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cache.backbone.registry import Backbone, read_json
from cache.errors import CacheError, file_error
from cache.store.atomic import atomic_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REMEMBERED = ".hashes.json"
_HASHING_THREADS = 4
_VOLATILE = {"transformers_version", "_name_or_path", "name_or_path", "torch_dtype", "dtype", "use_cache"}
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Content:
    """What a checkpoint folder holds that features depend on: `weights` and `tokenizer` are SHA-256 by file name."""

    config: Mapping[str, Any]
    weights: Mapping[str, str]
    tokenizer: Mapping[str, str]
    hidden_size: int
    layers: int


def read_content(folder: Path, backbone: Backbone, root: Path) -> Content:
    """Read or recall the content of the checkpoint in `folder`; `root` is where hashes are remembered.

    :raises CacheError: no configuration, no safetensors weights, a truncated weights file, no tokenizer file.
    """
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise CacheError(f"backbone {backbone.name}: no config.json in {folder}", "fetch the whole checkpoint")
    text = config.get("text_config", config)
    if not {"hidden_size", "num_hidden_layers"} <= text.keys():
        raise CacheError(
            f"backbone {backbone.name}: config.json states no hidden_size and num_hidden_layers",
            "choose an encoder or decoder of text",
        )
    weights = weight_files(folder, backbone)
    tokenizer = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    if not tokenizer:
        raise CacheError(
            f"backbone {backbone.name}: no tokenizer in {folder}", "copy tokenizer.json of the checkpoint there"
        )
    if tokenizer[0].name == "tokenizer.json":
        tokenizer = tokenizer[:1]
    for path in weights:
        _check_whole(path)
    hashes = _hashes([*weights, *tokenizer], root)
    return Content(
        {key: value for key, value in config.items() if key not in _VOLATILE},
        {path.name: hashes[path] for path in weights},
        {path.name: hashes[path] for path in tokenizer},
        int(text["hidden_size"]),
        int(text["num_hidden_layers"]),
    )


def absolute_layer(layer: int, layers: int) -> int:
    """Return the index of a layer among the `layers` + 1 hidden states, of which 0 is the embedding.

    :raises CacheError: there is no such layer.
    """
    if not -layers - 1 <= layer <= layers:
        raise CacheError(
            f"layer {layer} of {layers} layers", f"name one from {-layers - 1} to {layers}; -1 is the last"
        )
    return layer if layer >= 0 else layers + 1 + layer


def identity(content: Content, backbone: Backbone, layer: int) -> str:
    """Return the address of a feature's origin without its number formats, hex: what `--dtype auto` matches on."""
    return _digest(
        {
            "weights": content.weights,
            "config": content.config,
            "tokenizer": content.tokenizer,
            "pooling": backbone.pooling,
            "layer": layer,
            "max_length": backbone.max_length,
            "end_token": backbone.end_token,
        }
    )


def fingerprint(origin: str, compute_dtype: str, store_dtype: str) -> str:
    """Return the fingerprint, 32 hex digits: the origin of `identity` and the two number formats."""
    return _digest({"origin": origin, "compute_dtype": compute_dtype, "store_dtype": store_dtype})


def _digest(facts: Mapping[str, Any]) -> str:
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=dict)
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


def weight_files(folder: Path, backbone: Backbone) -> list[Path]:
    """Return the safetensors files of a checkpoint, sorted by name.

    :raises CacheError: there are none, or one that the index names is missing.
    """
    index = read_json(folder / "model.safetensors.index.json")
    if index is not None:
        names = sorted(set(index.get("weight_map", {}).values()))
    elif (folder / "model.safetensors").is_file():
        names = ["model.safetensors"]
    else:
        names = sorted(path.name for path in folder.glob("*.safetensors"))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        what = f"{missing[0]} of {len(names)} weight files" if missing else "model.safetensors"
        remedy = "fetch the checkpoint again; pickled weights (pytorch_model.bin) are never read: save as safetensors"
        raise CacheError(f"backbone {backbone.name}: {what} missing in {folder}", remedy)
    return [folder / name for name in names]


def _check_whole(path: Path) -> None:
    """Compare a safetensors file's length with its own header: a cheap look that finds a broken download.

    :raises CacheError: the header cannot be read or speaks of another length.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if 0 < length < min(size, 1 << 28) else None
    except OSError as error:
        raise file_error("read", path, error) from error
    except ValueError:
        header = None
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"] if header else []
    if not ends or 8 + length + max(ends) != size:
        raise CacheError(f"weights {path} are damaged: {size} bytes do not fit its header", "fetch the file again")


def _hashes(paths: list[Path], root: Path) -> dict[Path, str]:
    """Return the SHA-256 of each file, from its blob's name, from memory, or by reading it."""
    remembered = _recall(root / REMEMBERED)
    found, stamps = {}, {}
    for path in paths:
        blob = path.resolve()
        if blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name):
            found[path] = blob.name
            continue
        state = blob.stat()
        stamps[path] = f"{state.st_size}-{state.st_mtime_ns}-{state.st_ino}"
        known = remembered.get(str(blob))
        if isinstance(known, list) and known[:1] == [stamps[path]]:
            found[path] = str(known[1])
    unknown = [path for path in paths if path not in found]
    if unknown:
        found |= dict(zip(unknown, _read_and_hash(unknown), strict=True))
        remembered |= {str(path.resolve()): [stamps[path], found[path]] for path in unknown}
        root.mkdir(parents=True, exist_ok=True)
        with atomic_file(root / REMEMBERED) as partial:
            partial.write_text(json.dumps(remembered, indent=1), encoding="utf-8")
    return found


def _read_and_hash(paths: list[Path]) -> list[str]:
    """Hash files on threads, importing torch meanwhile: new weights are about to be used, and either takes seconds."""
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        digests = pool.map(_sha256, paths)
        importlib.import_module("torch")
        return list(digests)


def _recall(path: Path) -> dict[str, Any]:
    """Return what is remembered; a damaged memory is no memory."""
    try:
        remembered = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return remembered if isinstance(remembered, dict) else {}


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise file_error("read", path, error) from error
