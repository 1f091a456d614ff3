"""What a store is the store of: `backbone.json`, which spells out everything that determines its features.

The description goes into every shard too, so that a shard explains itself and a damaged `backbone.json` can be written
again. A digest guards it: one flipped digit of a prompt or a length would silently make it another store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache.errors import CacheError, DamageError, file_error
from cache.store.atomic import atomic_file
from cache.store.dtypes import ENCODINGS

DESCRIPTION_FILE = "backbone.json"
SHARD_FILES = "shard-*.h5"
VERSION = 1  # of the description and of the shards
LAST_USED_FILE = ".last-used"
_RESERVED = ("store_version", "digest")


def canonical(description: Mapping[str, Any]) -> str:
    """Return `description` as the one JSON text that equal descriptions share."""
    return json.dumps(dict(description), sort_keys=True, separators=(",", ":"))


def checked(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return `description` as JSON gives it back.

    :raises CacheError: if it is not plain JSON, or lacks a valid "hidden_size" or "store_dtype".
    """
    try:
        clean = json.loads(canonical(description))
    except (TypeError, ValueError) as error:
        raise CacheError(
            f"the description is not plain JSON: {error}", "use strings, numbers, lists and null"
        ) from None
    dim, dtype = clean.get("hidden_size"), clean.get("store_dtype")
    if not isinstance(dim, int) or isinstance(dim, bool) or dim < 1:
        raise CacheError(f"hidden_size is {dim!r}", "give the features' width, an integer above 0")
    if dtype not in ENCODINGS:
        raise CacheError(f"store_dtype is {dtype!r}", f"use one of {', '.join(ENCODINGS)}")
    if reserved := [name for name in _RESERVED if name in clean]:
        raise CacheError(f"the description has the reserved key {reserved[0]!r}", "name it otherwise")
    return dict(clean)


def read_description(folder: Path) -> dict[str, Any]:
    """Return the description of the store in `folder`.

    :raises CacheError: if there is no store, or its description is damaged or of another version.
    """
    path = folder / DESCRIPTION_FILE
    try:
        if path.exists() and not path.is_file():  # reading a pipe would wait for ever
            raise DamageError(path, "it is no file")
        content = json.loads(path.read_bytes())
        version, digest = content.pop("store_version"), content.pop("digest")
    except FileNotFoundError:
        if any(folder.glob(SHARD_FILES)):
            raise DamageError(path, "it is missing") from None
        raise CacheError(
            f"{folder} is no feature store: it has no {DESCRIPTION_FILE}", "name the folder that `embed` wrote"
        ) from None
    except OSError as error:
        raise file_error("read", path, error) from error
    except DamageError:
        raise
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamageError(path, f"it is not the JSON that was written ({error})") from error
    if digest != _digest(version, content):
        raise DamageError(path, "its content does not match its digest")
    if version != VERSION:
        raise CacheError(
            f"{path} has store version {version!r}, this program reads version {VERSION}",
            "use the release that wrote it, or name another store folder and embed again",
        )
    return dict(content)


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Write the file that says whose features are in `folder`.

    :raises CacheError: if it cannot be written.
    """
    content = {"store_version": VERSION, **description, "digest": _digest(VERSION, description)}
    with atomic_file(folder / DESCRIPTION_FILE) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def description_of_vectors(name: str, digits: str, origin: str, width: int, pooling: str) -> dict[str, Any]:
    """Return the description of float32 vectors of `width` dimensions that no backbone here computed."""
    return {
        "backbone": name,
        "fingerprint": digits,
        "origin": origin,
        "layer": 0,
        "hidden_size": width,
        "store_dtype": "float32",
        "compute_dtype": "float32",
        "pooling": pooling,
        "max_length": None,
        "end_token": None,
        "weights": {},
        "tokenizer": {},
        "config": {"hidden_size": width, "num_hidden_layers": 0},
    }


def _digest(version: Any, description: Mapping[str, Any]) -> str:
    return hashlib.blake2b(f"{version}{canonical(description)}".encode(), digest_size=16).hexdigest()
