"""Labels beside stored features: what the fit and score stages work on. No backbone is loaded for it, ever."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cache
import data
from pipeline.errors import PipelineError
from pipeline.workspace.artifacts import Artifacts, BackboneSource, lasting_source
from pipeline.workspace.records import refuse_link_to_nothing, tell
from pipeline.workspace.runs import Run, runs_on


@dataclass(frozen=True)
class LabelledFeatures:
    """A dataset and the store that holds its features.

    `backbone` is the name of the one whose features these are, `layer` the absolute index of its layer, `fingerprint`
    the content address of all that determines them.
    """

    dataset: data.Dataset
    store: cache.FeatureStore
    source: BackboneSource
    backbone: str = field(init=False)
    layer: int = field(init=False)
    fingerprint: str = field(init=False)
    _splits: dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        known = self.store.description
        for name, value in (
            ("backbone", self.source.name),
            ("layer", int(known["layer"])),
            ("fingerprint", str(known["fingerprint"])),
        ):
            object.__setattr__(self, name, value)

    @property
    def other_layer(self) -> int | None:
        """The layer if it is not the backbone's last, which is taken where none is named."""
        return None if is_layer(self.store.description, -1) else self.layer

    def split(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Features [n, H] float32 and labels [n, L] of one split, in the dataset's order.

        A split is gathered and checked once, however many runs are trained or scored on it.

        :raises PipelineError: if texts of the split were not embedded.
        :raises cache.CacheError: if a stored row is damaged.
        """
        if name not in self._splits:
            rows = self.dataset.split_rows(name)
            self._splits[name] = self.gather(rows, f"{name} texts")[1], self.dataset.labels[rows]
        return self._splits[name]

    @property
    def validation(self) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        """The split val; None where it has fewer than two texts, which have no neighbour among them."""
        return self.split("val") if len(self.dataset.split_rows("val")) > 1 else None

    def gather(self, rows: NDArray[np.int64], what: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Keys [n, 16] and features [n, H] float32 of some rows of the dataset, which an error calls `what`.

        :raises PipelineError: if their texts were not embedded.
        :raises cache.CacheError: if a stored row is damaged.
        """
        keys = cache.text_keys(self.dataset.texts_of(rows), self.source.prompt)
        missing = int((~self.store.contains(keys)).sum())
        if missing:
            raise PipelineError(
                f"{missing:,} of {len(rows):,} {what} of {self.dataset.id} are not in {self.store.folder}",
                "run `pipeline embed` on this dataset with this backbone: it computes only what is missing",
            )
        return keys, self.store.gather(keys).astype(np.float32)


def labelled_features(
    artifacts: Artifacts,
    *,
    dataset: str | None = None,
    backbone: str | None = None,
    layer: int = -1,
    changed: bool = False,
) -> LabelledFeatures:
    """The dataset and the one store of its features that the options name, by default what `embed` used last.

    :param backbone: name, hub id, path, or the name of the store's folder.
    :param changed: whether `dataset`, where it is an id, may have changed since: it is taken as it is now.
    :raises PipelineError: if no store or several stores fit, or an id names another dataset than is loaded.
    """
    source = artifacts.dataset_source(dataset)
    loaded = artifacts.load_dataset(source)
    if dataset is not None and not changed and loaded.id != dataset and artifacts.ids_answering(dataset) == [[dataset]]:
        name = loaded.id.rpartition("-")[0]
        again = ["--dataset", name] if source.limit is None else ["pipeline", "embed", source.source, *source.options]
        raise PipelineError(
            f"{dataset} is not there any more: what it was loaded from is now {loaded.id}",
            f"bring its rows and labels back, or take it as it is: {shlex.join(again)}",
        )
    if backbone is None:
        store = current_store(artifacts, layer)
    else:
        store = find_store(artifacts, backbone, layer, dataset=loaded.id)
    return LabelledFeatures(loaded, store, artifacts.backbone_source(str(store.description["backbone"])))


def current_store(artifacts: Artifacts, layer: int) -> cache.FeatureStore:
    """The store of a layer that the last `embed` filled, else the one store of its backbone's layer.

    :raises PipelineError: if there is none.
    """
    current = artifacts.current()
    filled = [artifacts.features / name for name in current.stores.values()]
    for folder in filled:
        if folder.is_dir():
            store = cache.FeatureStore.open(folder)
            if is_layer(store.description, layer):
                return store
    return find_store(artifacts, current.backbone.name, layer)


def find_store(artifacts: Artifacts, backbone: str, layer: int, *, dataset: str | None = None) -> cache.FeatureStore:
    """The one store of a backbone's layer; `backbone` may also be the name of the store's folder.

    :param dataset: id; of several stores the one is taken on which runs of it were trained, and said.
    :raises PipelineError: if none or several fit.
    """
    refuse_link_to_nothing(artifacts.features)
    stores = cache.store.find_stores(artifacts.features)
    exact = [store for store in stores if store.folder.name == backbone]
    named = [store for store in stores if store.description["backbone"] == backbone]
    if not exact and not named:
        name = artifacts.backbone_source(lasting_source(backbone)).name
        named = [store for store in stores if store.description["backbone"] == name]
    fitting = exact or [store for store in named if is_layer(store.description, layer)]
    if exact and layer != -1 and not is_layer(exact[0].description, layer):
        raise PipelineError(
            f"{backbone} holds layer {exact[0].description['layer']}, not layer {layer}", "leave one of the two out"
        )
    if not fitting:
        raise PipelineError(
            f"no features of layer {layer} of {backbone} in {artifacts.features}",
            f"run `pipeline embed DATASET --backbone {backbone}" + (f" --layers {layer}`" if layer != -1 else "`"),
        )
    if len(fitting) > 1 and dataset is not None:
        name = str(fitting[0].description["backbone"])
        used = {run.record["fingerprint"] for run in runs_on(artifacts, dataset, name)}
        of_runs = [store for store in fitting if store.description["fingerprint"] in used]
        if len(of_runs) == 1:
            tell(f"of {len(fitting)} stores of {backbone} the one that runs of {dataset} use: {of_runs[0].folder.name}")
            fitting = of_runs
    if len(fitting) > 1:
        names = ", ".join(store.folder.name for store in fitting)
        raise PipelineError(
            f"{len(fitting)} stores hold layer {layer} of {backbone}: {names}",
            "name one of them: --backbone STORE (see `pipeline cache list`)",
        )
    return cache.FeatureStore.open(fitting[0].folder)


def runs_of(artifacts: Artifacts, features: LabelledFeatures, methods: Sequence[str] | None = None) -> list[Run]:
    """The runs trained on these features, by method (as listed, else as in the table of methods) and seed."""
    found = runs_on(artifacts, features.dataset.id, features.backbone, methods)
    return [run for run in found if run.record["fingerprint"] == features.fingerprint]


def is_layer(description: Mapping[str, Any], layer: int) -> bool:
    """Whether described features are of a layer, by its absolute index or, below zero, counted from the last."""
    config = description["config"]
    layers = int(config.get("text_config", config)["num_hidden_layers"])
    return int(description["layer"]) == (layer if layer >= 0 else layers + 1 + layer)
