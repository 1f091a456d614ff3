"""Labels beside stored features: what the fit and score stages work on. No backbone is loaded for it, ever."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cache
import data
from pipeline.artifacts import Artifacts
from pipeline.errors import PipelineError


@dataclass(frozen=True)
class LabelledFeatures:
    """A dataset and the store that holds its features."""

    dataset: data.Dataset
    store: cache.FeatureStore

    @property
    def backbone(self) -> str:
        """Name of the backbone whose features these are."""
        return str(self.store.description["backbone"])

    @property
    def fingerprint(self) -> str:
        """Content address of all that determines the features."""
        return str(self.store.description["fingerprint"])

    @property
    def layer(self) -> int:
        """Absolute index of the layer."""
        return int(self.store.description["layer"])

    def split(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Features [n, H] float32 and labels [n, L] of one split, in the dataset's order.

        :raises PipelineError: if texts of the split were not embedded.
        :raises cache.CacheError: if a stored row is damaged.
        """
        rows = self.dataset.split_rows(name)
        texts = self.dataset.texts
        keys = cache.text_keys([texts[row] for row in rows], str(self.store.description.get("prompt") or ""))
        missing = int((~self.store.contains(keys)).sum())
        if missing:
            raise PipelineError(
                f"{missing:,} of {len(rows):,} {name} texts of {self.dataset.id} are not in {self.store.folder}",
                "run `pipeline embed` on this dataset with this backbone: it computes only what is missing",
            )
        return self.store.gather(keys).astype(np.float32), self.dataset.labels[rows]


def labelled_features(
    artifacts: Artifacts, *, dataset: str | None = None, backbone: str | None = None, layer: int = -1
) -> LabelledFeatures:
    """The dataset and the one store of its features that the options name, by default what `embed` used last.

    :raises PipelineError: if no store or several stores fit.
    """
    loaded = artifacts.load_dataset(artifacts.dataset_source(dataset))
    return LabelledFeatures(loaded, cache.FeatureStore.open(find_store(artifacts, backbone, layer)))


def find_store(artifacts: Artifacts, backbone: str | None, layer: int) -> Path:
    """Folder of the one store of a backbone's layer; `backbone` may also be the name of the store's folder.

    :raises PipelineError: if none or several fit.
    """
    wanted = artifacts.current().backbone.name if backbone is None else backbone
    stores = cache.find_stores(artifacts.features)
    exact = [store.folder for store in stores if store.folder.name == wanted]
    if exact:
        return exact[0]
    name = wanted if any(store.description["backbone"] == wanted for store in stores) else cache.resolve(wanted).name
    fitting = [
        store.folder
        for store in stores
        if store.description["backbone"] == name and _is_layer(store.description, layer)
    ]
    if not fitting:
        raise PipelineError(
            f"no features of layer {layer} of {name} in {artifacts.features}",
            f"run `pipeline embed DATASET --backbone {wanted}" + (f" --layers {layer}`" if layer != -1 else "`"),
        )
    if len(fitting) > 1:
        raise PipelineError(
            f"{len(fitting)} stores hold layer {layer} of {name}: {', '.join(folder.name for folder in fitting)}",
            "name one as --backbone STORE, or delete the others with `pipeline cache prune`",
        )
    return fitting[0]


def _is_layer(description: Any, layer: int) -> bool:
    absolute = layer if layer >= 0 else int(description["layers"]) + 1 + layer
    return int(description["layer"]) == absolute
