"""`Zoom` as an estimator of scikit-learn: for pipelines, cross-validation and grid searches.

`fit` takes texts and labels, `transform` gives embeddings, `predict` the finest labels (whole paths where y has
several levels). What costs most, the backbone's features, is stored: a grid over methods embeds each text once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data import DataError
from semantic_zoom.columns import label_frame, text_list
from semantic_zoom.zoom import Zoom

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise ImportError(f"ZoomTransformer needs scikit-learn ({error}): pip install scikit-learn") from error


class ZoomTransformer(ClassifierMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Transforms texts to embeddings and predicts their labels; parameters as of `Zoom.fit`, `dim` the prefix used."""

    def __init__(
        self,
        backbone: str = "minilm",
        method: str = "joint",
        head: str | None = None,
        dim: int | None = None,
        seed: int = 42,
        epochs: int | None = None,
        store: str | Path | None = None,
        device: str = "auto",
    ) -> None:
        self.backbone = backbone
        self.method = method
        self.head = head
        self.dim = dim
        self.seed = seed
        self.epochs = epochs
        self.store = store
        self.device = device

    def fit(self, X: Any, y: Any) -> ZoomTransformer:
        """Train a head on texts X and labels y; see `Zoom.fit`, which says what is raised."""
        texts = text_list(X, "X")
        y = list(y) if isinstance(y, Iterator) else y
        asked = {name: value for name, value in self.get_params(deep=False).items() if name != "dim"}
        self.zoom_ = Zoom.fit(texts, y, **asked)
        finest = self.zoom_.gallery.columns[-1]
        values = label_values(y, len(texts))
        self.values_ = _by_name(self.zoom_.gallery[finest].to_list(), values)
        known = [value for name, value in self.values_.items() if name is not None]
        self.classes_ = np.unique(np.asarray(known)) if len(self.zoom_.levels) == 1 else np.asarray(known, object)
        self.n_features_in_ = 1
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Embed texts: float32 [n, dim], unit vectors."""
        check_is_fitted(self)
        return self.zoom_.encode(text_list(X, "X"), dim=self.dim)

    def predict(self, X: Any) -> np.ndarray:
        """Label texts: [n] for labels of one level, of the type they were given in; object [n, L] for several."""
        check_is_fitted(self)
        found = self.zoom_.predict(text_list(X, "X"), dim=self.dim)
        if len(self.zoom_.levels) > 1:
            paths = np.empty((len(found), len(self.zoom_.levels)), object)
            for row, prediction in enumerate(found):
                paths[row, : len(prediction.path)] = prediction.path
            return paths
        return np.asarray([self.values_[prediction.path[0]] for prediction in found], self.classes_.dtype)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on the finest level over the texts that have a label of it, weighted where weights are given."""
        texts = text_list(X, "X")
        check_is_fitted(self)
        truth = label_frame(y, len(texts), self.zoom_.levels).to_series(-1).to_list()
        found = self.zoom_.predict(texts, dim=self.dim)
        known = [row for row, label in enumerate(truth) if label is not None]
        if not known:
            raise DataError("no text has a label of the finest level", "pass texts with labels of that level")
        if sample_weight is not None and len(sample_weight) != len(truth):
            raise DataError(f"{len(sample_weight)} weights for {len(truth)} texts", "give each text a weight")
        correct = [
            truth[row] == found[row].path[-1] and len(found[row].path) == len(self.zoom_.levels) for row in known
        ]
        return float(np.average(correct, weights=None if sample_weight is None else np.asarray(sample_weight)[known]))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the embedding's dimensions: zoom0, zoom1, ..."""
        check_is_fitted(self)
        return np.asarray([f"zoom{i}" for i in range(self.dim or self.zoom_.dims[-1])], object)

    def __sklearn_tags__(self) -> Any:
        """Text goes in, and labels are needed."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags


def label_values(y: Any, rows: int) -> list[Any]:
    """The finest labels as they were given."""
    array = np.asarray(y, object)
    values = list(array[:, -1]) if array.ndim == 2 else list(y)
    return values if len(values) == rows else [None] * rows


def _by_name(names: list[str | None], values: list[Any]) -> dict[str | None, Any]:
    """The label that each name stands for.

    :raises data.DataError: if two labels are written alike, such as 1 and "1".
    """
    found = dict(zip(names, values, strict=True))
    for name, value in zip(names, values, strict=True):
        if name is not None and type(value) is not type(found[name]):
            raise DataError(f"labels {value!r} and {found[name]!r} are written alike", "give labels of one type")
    return found
