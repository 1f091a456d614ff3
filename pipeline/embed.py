"""Stage one: every text of a dataset through the frozen backbone, once, into the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cache
import data
from pipeline.artifacts import Artifacts, BackboneSource, Current, DatasetSource, lasting_source
from pipeline.features import LabelledFeatures


@dataclass(frozen=True)
class Embedded:
    """What `embed` did, and for which dataset."""

    dataset: data.Dataset
    backbone: BackboneSource
    report: cache.EmbedReport

    def features(self) -> LabelledFeatures:
        """The features of the first layer asked for, beside the dataset's labels."""
        return LabelledFeatures(self.dataset, cache.FeatureStore.open(self.report.stores[0].folder), self.backbone)

    def summary(self) -> dict[str, Any]:
        """What `embed --json` prints."""
        report = self.report
        stores = [
            {"layer": layer.layer, "fingerprint": layer.fingerprint, "store": str(layer.folder)}
            for layer in report.stores
        ]
        return {
            "dataset": self.dataset.id,
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


def embed(
    artifacts: Artifacts,
    source: DatasetSource,
    backbone: str,
    *,
    layers: Sequence[int] = (-1,),
    dtype: str = "auto",
    devices: str = "auto",
    progress: Callable[[cache.EmbedProgress], None] | None = None,
) -> Embedded:
    """Computes and stores the missing features of a dataset, and makes it and the backbone the current ones.

    :raises data.DataError: if the dataset cannot be used.
    :raises cache.CacheError: if the backbone cannot be loaded or a feature not be stored.
    """
    dataset = artifacts.load_dataset(source)
    resolved = cache.resolve(lasting_source(backbone))
    report = cache.embed_missing(
        dataset.texts, resolved, artifacts.features, layers=layers, dtype=dtype, devices=devices, progress=progress
    )
    used = BackboneSource(resolved.name, lasting_source(backbone), resolved.prompt)
    stores = {str(layer.layer): layer.folder.name for layer in report.stores}
    artifacts.remember(Current(source, dataset.id, used, stores))
    return Embedded(dataset, used, report)
