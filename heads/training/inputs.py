"""What a fit is given, checked once and brought to the device: everything behind this file may trust it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heads.errors import HeadsError
from heads.head import checked_features
from heads.training import losses
from heads.training.validation import chosen_rows


@dataclass(frozen=True)
class Inputs:
    """Unit features [n, H] and labels [n, L] on the device, the rows that select an epoch, and the hierarchy.

    `classes` are the class counts a level; `parents[l]` int64 [C_{l+1}] the parent of each class, -1 where unseen.
    """

    features: Tensor
    labels: Tensor
    validation: Tensor | None
    validation_labels: Tensor | None
    classes: tuple[int, ...]
    parents: tuple[np.ndarray, ...]


def checked_inputs(features: Any, labels: Any, validation: tuple[Any, Any] | None, device: torch.device) -> Inputs:
    """Check what `fit` was given.

    :raises HeadsError: if shapes, dtypes or values cannot be used, or a class stands under two parents.
    """
    rows = checked_features(features, "features")
    own = _checked_labels(labels, len(rows), "labels")
    held, held_labels, everything = None, None, own
    if validation is not None:
        held, held_labels = _checked_validation(validation, rows, own)
        everything = np.concatenate([own, held_labels])
        chosen = chosen_rows(len(held))
        held, held_labels = held[chosen], held_labels[chosen]
    classes = tuple(int(count) for count in everything.max(axis=0) + 1)
    return Inputs(
        features=_units(rows, device),
        labels=torch.from_numpy(own).to(device),
        validation=None if held is None else _units(held, device),
        validation_labels=None if held_labels is None else torch.from_numpy(held_labels).to(device),
        classes=classes,
        parents=_parents(everything, classes),
    )


def _units(rows: np.ndarray, device: torch.device) -> Tensor:
    return losses.normalise(torch.from_numpy(rows).to(device))[0]


def _checked_labels(labels: Any, rows: int, name: str) -> np.ndarray:
    array = np.asarray(labels)
    if array.ndim != 2 or array.dtype.kind not in "iu" or array.shape[1] < 2 or len(array) != rows:
        raise HeadsError(
            f"{name} have shape {array.shape} and dtype {array.dtype} beside {rows} rows of features",
            "give integers of shape [n, L] with two or more levels, coarsest first",
        )
    if len(array) == 0 or array.min() < 0:
        raise HeadsError(
            f"{name} hold {'no rows' if len(array) == 0 else int(array.min())}", "number the classes from 0"
        )
    return np.ascontiguousarray(array, np.int64)


def _checked_validation(
    validation: tuple[Any, Any], rows: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    held = checked_features(validation[0], "validation features")
    if len(held) < 2:
        raise HeadsError(f"validation has {len(held)} rows", "give two or more, or none at all (validation=None)")
    held_labels = _checked_labels(validation[1], len(held), "validation labels")
    if held.shape[1] != rows.shape[1] or held_labels.shape[1] != labels.shape[1]:
        raise HeadsError(
            f"validation has {held.shape[1]} dimensions and {held_labels.shape[1]} levels, training"
            f" {rows.shape[1]} and {labels.shape[1]}",
            "take both from the same features and the same hierarchy",
        )
    return held, held_labels


def _parents(labels: np.ndarray, classes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Learn each class's parent from the rows."""
    found = []
    for level in range(1, len(classes)):
        parents = np.full(classes[level], -1, np.int64)
        parents[labels[:, level]] = labels[:, level - 1]
        wrong = np.flatnonzero(parents[labels[:, level]] != labels[:, level - 1])
        if len(wrong):
            child, one = labels[wrong[0], level], labels[wrong[0], level - 1]
            raise HeadsError(
                f"class {child} of level {level} stands under classes {one} and {parents[child]} of level {level - 1}",
                "number the classes so that each has one parent",
            )
        found.append(parents)
    return tuple(found)
