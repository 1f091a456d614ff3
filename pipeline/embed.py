"""Stage one: every text of a dataset through the frozen backbone, once, into the store."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cache
import data
from pipeline.artifacts import Artifacts, BackboneSource, Current, DatasetSource, lasting_source
from pipeline.features import LabelledFeatures


@dataclass(frozen=True)
class EmbeddedTexts:
    """What an embed did, for the texts that `dataset_id` names, and what was noticed about them."""

    dataset_id: str
    warnings: tuple[str, ...]
    backbone: BackboneSource
    report: cache.EmbedReport

    def summary(self) -> dict[str, Any]:
        """What `embed --json` prints."""
        report = self.report
        stores = [
            {"layer": layer.layer, "fingerprint": layer.fingerprint, "store": str(layer.folder)}
            for layer in report.stores
        ]
        return {
            "dataset": self.dataset_id,
            "backbone": self.backbone.name,
            "fingerprint": stores[0]["fingerprint"],
            "texts": report.texts,
            "computed": report.computed,
            "reused": report.reused,
            "tokens": report.tokens,
            "nodes": report.nodes,
            "padding": report.padding,
            "seconds": report.seconds,
            "texts_per_second": report.computed / report.seconds if report.seconds else 0.0,
            "store": stores[0]["store"],
            "stores": stores,
            "stages": report.stages,
            "dtype": report.dtype,
            "device": report.device,
        }


@dataclass(frozen=True)
class Embedded(EmbeddedTexts):
    """What `embed` did for a dataset."""

    dataset: data.Dataset

    def features(self) -> LabelledFeatures:
        """The features of the first layer asked for, beside the dataset's labels."""
        return LabelledFeatures(self.dataset, cache.FeatureStore.open(self.report.stores[0].folder), self.backbone)


def embed(
    artifacts: Artifacts,
    source: DatasetSource,
    backbone: str,
    *,
    layers: Sequence[int] = (-1,),
    dtype: str = "auto",
    devices: str = "auto",
    engine: str = "local",
    ray_address: str | None = None,
    progress: Callable[[cache.EmbedProgress], None] | None = None,
) -> Embedded:
    """Computes and stores the missing features of a dataset, and makes it and the backbone the current ones.

    :param engine: "local", or "ray" for a Ray cluster: the one at `ray_address` or RAY_ADDRESS, else one made for this.
    :raises data.DataError: if the dataset cannot be used.
    :raises cache.CacheError: if the backbone cannot be loaded or a feature not be stored.
    """
    dataset = artifacts.load_dataset(source)
    resolved = cache.resolve(lasting_source(backbone))
    report = computing(engine, ray_address)(
        dataset.texts, resolved, artifacts.features, layers=layers, dtype=dtype, devices=devices, progress=progress
    )
    used = BackboneSource(resolved.name, lasting_source(backbone), resolved.prompt)
    stores = {str(layer.layer): layer.folder.name for layer in report.stores}
    artifacts.remember(Current(source, dataset.id, used, stores))
    return Embedded(dataset.id, dataset.warnings, used, report, dataset)


def computing(engine: str, ray_address: str | None) -> Callable[..., cache.EmbedReport]:
    """What computes missing features on an engine: one signature, one result."""
    if engine == "local":
        return cache.embed_missing
    from cache.cluster.engine import embed_on_cluster

    return functools.partial(embed_on_cluster, address=ray_address)
