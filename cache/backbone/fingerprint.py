"""The content address of everything but the text that determines a feature.

Weights count by their bytes, not by their name: a checkpoint edited in place is another store. Hashing a gigabyte takes
seconds, so it happens once: hashes are remembered in a file beside the stores, with size, times, inode and a sample of
blocks of each file, all of which must still be the same; the hub's cache names its blobs by their SHA-256 already.
`forget_hashes` makes the next call read every byte. Configuration and tokenizer count too, without the fields that a
mere re-saving changes. The alternative, trusting a name and revision, mixes features of two models in one matrix
without a word. Where no checkpoint is read, `cache.store.given` and `cache.endpoint` make fingerprints of their own.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import operator
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache.backbone.gguf import ORIGIN_FILE
from cache.backbone.json_files import JsonObject, text_config
from cache.backbone.registry import Backbone
from cache.backbone.settings import check_dense
from cache.backbone.tokenizer_files import SETTINGS_FILES, digest_if_changed
from cache.errors import CacheError, file_errors
from cache.store.atomic import atomic_file

REMEMBERED = ".hashes.json"
_HASHING_THREADS = 4
_HASHED_BYTES = 8 << 20  # at once: between two pieces a thread waits for Python's lock, which importing torch holds
_EVERY_BYTE = "read every byte"
_SAMPLED_BLOCKS, _BLOCK_BYTES = 64, 4096
_VOLATILE = {"transformers_version", "_name_or_path", "name_or_path", "torch_dtype", "dtype", "use_cache"}
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_PLAIN_NAME = re.compile(r"[\w-][\w.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Content:
    """What a checkpoint folder holds that features depend on: `weights` and `tokenizer` are SHA-256 by file name.

    `further` are facts that most checkpoints have none of: a tokenizer that its settings change, Dense modules.
    """

    config: Mapping[str, Any]
    weights: Mapping[str, str]
    tokenizer: Mapping[str, str]
    hidden_size: int
    layers: int
    further: Mapping[str, Any] = field(default_factory=dict)


def read_content(folder: Path, backbone: Backbone, root: Path) -> Content:
    """Read or recall the content of the checkpoint in `folder`; `root` is where hashes are remembered.

    :raises CacheError: no configuration, no safetensors weights, a truncated weights file, no tokenizer file.
    """
    config = JsonObject.read(folder / "config.json")
    if config is None:
        raise CacheError(f"backbone {backbone.name}: no config.json in {folder}", "fetch the whole checkpoint")
    text = text_config(folder)
    if not {"hidden_size", "num_hidden_layers"} <= text.values.keys():
        raise CacheError(
            f"backbone {backbone.name}: config.json states no hidden_size and num_hidden_layers",
            "choose an encoder or decoder of text",
        )
    hidden_size, layers = text.count("hidden_size"), text.count("num_hidden_layers")
    weights = weight_files(folder, backbone)
    dense = [folder / where / "model.safetensors" for where in backbone.dense]
    for path in (*weights, *dense):
        _check_whole(path)
    if (origin := JsonObject.read(folder / ORIGIN_FILE)) is not None:  # all that a GGUF file holds is told by its bytes
        shape = {"hidden_size": hidden_size, "num_hidden_layers": layers}
        return Content(shape, {"gguf": str(origin.text("sha256"))}, {}, hidden_size, layers)
    tokenizer = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    if not tokenizer:
        raise CacheError(
            f"backbone {backbone.name}: no tokenizer in {folder}", "copy tokenizer.json of the checkpoint there"
        )
    if tokenizer[0].name == "tokenizer.json":
        tokenizer = tokenizer[:1]
    hashes = _hashes([*weights, *tokenizer, *dense], root)
    further: dict[str, Any] = {}
    digest = _tokenizer_digest(folder, backbone, [hashes[path] for path in tokenizer], root)
    if digest is not None:
        further["tokenizer_as_loaded"] = digest
    if dense:
        modules = [check_dense(path.parent) for path in dense]
        further["dense"] = [{**one.values, "weights": hashes[path]} for one, path in zip(modules, dense, strict=True)]
    return Content(
        {key: value for key, value in config.values.items() if key not in _VOLATILE},
        {path.name: hashes[path] for path in weights},
        {path.name: hashes[path] for path in tokenizer},
        hidden_size,
        layers,
        further,
    )


def _tokenizer_digest(folder: Path, backbone: Backbone, hashes: list[str], root: Path) -> str | None:
    """Return `digest_if_changed`, which can take seconds, from memory where these very files were read before."""
    from importlib.metadata import version

    small = [path.read_bytes() for name in SETTINGS_FILES if (path := folder / name).is_file()]
    model = JsonObject.read_or_empty(folder / "config.json").values
    facts = [*hashes, *(hashlib.sha256(content).hexdigest() for content in small), str(backbone.lowercase)]
    facts += [str(model.get("model_type")), str(model.get("tokenizer_class")), version("transformers")]
    key = f"tokenizer {hashlib.sha256(' '.join(facts).encode()).hexdigest()}"
    known = _recall(root / REMEMBERED).get(key)
    if isinstance(known, list) and len(known) == 1 and isinstance(known[0], str | None):
        return known[0]
    digest = digest_if_changed(folder, backbone)
    _remember(root, {key: [digest]})
    return digest


def forget_hashes(root: Path) -> None:
    """Forget what is remembered of checkpoints, so that the next call reads every byte, the hub's blobs' too.

    :raises CacheError: `root` cannot be written.
    """
    root.mkdir(parents=True, exist_ok=True)
    with atomic_file(root / REMEMBERED) as partial:
        partial.write_text(json.dumps({_EVERY_BYTE: True}), encoding="utf-8")


def absolute_layer(layer: int, layers: int) -> int:
    """Return the index of a layer among the `layers` + 1 hidden states, of which 0 is the embedding.

    :raises CacheError: there is no such layer.
    """
    try:
        layer = operator.index(layer)  # numpy's whole numbers become plain ones
    except TypeError as error:
        raise CacheError(f"layer {layer!r} is no whole number", "use -1 for the last") from error
    if not -layers - 1 <= layer <= layers:
        raise CacheError(
            f"layer {layer} of {layers} layers", f"name one from {-layers - 1} to {layers}; -1 is the last"
        )
    return layer if layer >= 0 else layers + 1 + layer


def identity(content: Content, backbone: Backbone, layer: int) -> str:
    """Return the address of a feature's origin without its number formats, hex: what `--dtype auto` matches on."""
    facts = {
        "weights": content.weights,
        "config": content.config,
        "tokenizer": content.tokenizer,
        "pooling": backbone.pooling,
        "layer": layer,
        "max_length": backbone.max_length,
        "end_token": backbone.end_token,
    }
    return _digest(facts | further_facts(content, backbone, layer))


def further_facts(content: Content, backbone: Backbone, layer: int) -> dict[str, Any]:
    """Return what else decides a feature, of backbones that have such settings; empty for most."""
    facts = dict(content.further)
    if layer != content.layers:
        facts.pop("dense", None)  # applied to the last layer's features only
    if backbone.truncation_side == "left":
        facts["truncation_side"] = "left"
    if backbone.prompt_asked:
        facts["prompt"] = backbone.prompt
    return facts


def feature_width(content: Content, layer: int) -> int:
    """Return the width of a layer's features: that of the states, or of the last Dense module behind them."""
    dense = content.further.get("dense")
    return int(dense[-1]["out_features"]) if dense and layer == content.layers else content.hidden_size


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
    index = JsonObject.read(folder / "model.safetensors.index.json")
    if index is not None:
        names = sorted({str(name) for name in index.object("weight_map").values.values()})
        if outside := [name for name in names if not _PLAIN_NAME.fullmatch(name)]:
            raise CacheError(
                f"{index.where} names {outside[0]!r}, which is no file of the folder", "fetch the checkpoint again"
            )
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
    """Compare a safetensors file's length with its own header: a cheap look that finds a broken download."""
    with file_errors("read", path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        content = file.read(length) if 0 < length < min(size, 1 << 28) else b"{}"
    ends: list[int] = []
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        ends = [int(entry["data_offsets"][1]) for name, entry in json.loads(content).items() if name != "__metadata__"]
    if not ends or 8 + length + max(ends) != size:
        raise CacheError(f"weights {path} are damaged: {size} bytes do not fit its header", "fetch the file again")


def _hashes(paths: list[Path], root: Path) -> dict[Path, str]:
    """Return the SHA-256 of each file, from its blob's name, from memory, or by reading it."""
    remembered = _recall(root / REMEMBERED)
    trusted = not remembered.get(_EVERY_BYTE)
    found, new = {}, {}
    for path in paths:
        blob, stamp = path.resolve(), _stamp(path)
        known = remembered.get(str(blob))
        if isinstance(known, list) and known[:1] == [stamp]:
            found[path] = str(known[1])
        elif known is None and trusted and blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name):
            found[path] = blob.name
            new[str(blob)] = [stamp, blob.name]
    unknown = [path for path in paths if path not in found]
    found |= dict(zip(unknown, _read_and_hash(unknown), strict=True)) if unknown else {}
    new |= {str(path.resolve()): [_stamp(path), found[path]] for path in unknown}
    if new:
        _remember(root, new | ({} if trusted else {_EVERY_BYTE: False}))
    return found


def _stamp(path: Path) -> str:
    """Return size, times and inode of a file, and a digest of some of its blocks, spread evenly.

    A file whose blocks are written in place has another change time, which no tool sets back; the sample is for file
    systems that keep none.
    """
    digest = hashlib.blake2b(digest_size=16)
    with file_errors("read", path), path.open("rb") as file:
        state = os.fstat(file.fileno())
        last = max(0, state.st_size - _BLOCK_BYTES)
        for number in range(_SAMPLED_BLOCKS if last else 1):
            file.seek(last * number // (_SAMPLED_BLOCKS - 1))
            digest.update(file.read(_BLOCK_BYTES))
    return f"{state.st_size}-{state.st_mtime_ns}-{state.st_ctime_ns}-{state.st_ino}-{digest.hexdigest()}"


def _remember(root: Path, new: Mapping[str, Any]) -> None:
    with contextlib.suppress(CacheError, OSError):  # a folder that may only be read: hashed again next time
        root.mkdir(parents=True, exist_ok=True)
        with atomic_file(root / REMEMBERED) as partial:
            partial.write_text(json.dumps({**_recall(root / REMEMBERED), **new}, indent=1), encoding="utf-8")


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
    digest, block = hashlib.sha256(), bytearray(_HASHED_BYTES)
    with file_errors("read", path), path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(memoryview(block)[:count])
    return digest.hexdigest()
