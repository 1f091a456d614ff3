"""What a fit is given, checked once and brought to the device: everything behind this file may trust it.

Labels may be of any hashable kind. Each level's distinct labels become the classes 0, 1, ... in sorted order, so that
an id of 10^9 costs no more than one of 10. A row may lack its finer labels: -1 (or None) from some level on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from heads.errors import HeadsError
from heads.training.scatter import Scatter

JUDGING = 1000  # validation rows that judge, at most
_MOST_CLASSES = 10_000_000  # a classifier of so many takes gigabytes


@dataclass(frozen=True)
class Inputs:
    """Unit features [n, H] and labels [n, L] on the device, the rows that select, and the hierarchy.

    Labels are class numbers, -1 below a row's last known level. `classes` are the class counts per level; `parents[l]`
    int64 [C_{l+1}] the parent of each class, -1 where unseen; `names[l]` the labels that the classes had, None where
    all were the class numbers already. `shrinkage` is that of `lda` where it is settled; None: the data choose it.
    `scatter` are the sums of `features`, where they are known already.
    """

    features: Tensor
    labels: Tensor
    validation: Tensor | None
    validation_labels: Tensor | None
    classes: tuple[int, ...]
    parents: tuple[np.ndarray, ...]
    names: tuple[tuple[Any, ...], ...] | None
    shrinkage: float | None = None
    scatter: Scatter | None = None

    @property
    def complete(self) -> bool:
        """Whether every training row has a label on every level."""
        return bool((self.labels >= 0).all())


def checked_inputs(
    features: Any,
    labels: Any,
    validation: tuple[Any, Any] | None,
    device: torch.device,
    *,
    classes: Sequence[int] | None = None,
    every_held_row: bool = False,
) -> Inputs:
    """Check what `fit` was given.

    :param classes: the class counts per level, if labels are class numbers already; by default the distinct labels.
    :param every_held_row: whether to keep every validation row rather than a fixed sample of them.
    :raises HeadsError: if shapes, dtypes or values cannot be used, or a class stands under two parents.
    """
    rows = checked_features(features, "features")
    own = _checked_labels(labels, len(rows), "labels")
    if len(rows) == 1:
        raise HeadsError("there is one training row", "give at least two rows of one class")
    held, held_labels, everything = None, None, own
    if validation is not None:
        held, held_labels = _checked_validation(validation, rows, own)
        everything = np.concatenate([own, held_labels])
    numbered, names = _numbered(everything, classes)
    _check_depth(numbered)
    counts = tuple(classes) if classes is not None else tuple(len(found) for found in names)
    parents = _parents(numbered, counts)
    own = numbered[: len(own)]
    if held is not None:
        held_labels = numbered[len(own) :]
        if not every_held_row:
            chosen = fixed_sample(len(held)).numpy()
            held, held_labels = held[chosen], held_labels[chosen]
    return Inputs(
        features=_units(rows, device),
        labels=torch.from_numpy(own).to(device),
        validation=None if held is None else _units(held, device),
        validation_labels=None if held_labels is None else torch.from_numpy(held_labels).to(device),
        classes=counts,
        parents=parents,
        names=None if all(_are_numbers(found) for found in names) else names,
    )


def part_of_inputs(inputs: Inputs, kept: Tensor, held: Tensor) -> Inputs:
    """Some of the training rows, with others of them as the validation rows; classes are numbered anew.

    :param kept: int64, of the training rows.
    :param held: int64, of the training rows too.
    """
    numbers, _ = _numbered(inputs.labels[torch.cat([kept, held])].cpu().numpy(), None)
    classes = tuple(int(top) + 1 for top in numbers.max(axis=0))
    labels = torch.from_numpy(numbers).to(inputs.labels.device)
    return replace(
        inputs,
        features=inputs.features[kept],
        labels=labels[: len(kept)],
        validation=inputs.features[held],
        validation_labels=labels[len(kept) :],
        classes=classes,
        parents=_parents(numbers, classes),
        names=None,
        scatter=None,
    )


def fixed_sample(rows: int, most: int | None = None) -> Tensor:
    """Numbers of at most so many of some rows, int64, in order: the same sample every time; by default `JUDGING`."""
    most = JUDGING if most is None else most
    return torch.from_numpy(np.sort(np.random.default_rng(0).permutation(rows)[:most]))


def _units(rows: np.ndarray, device: torch.device) -> Tensor:
    return functional.normalize(torch.from_numpy(rows).to(device), dim=1)


def _checked_labels(labels: Any, rows: int, name: str) -> np.ndarray:
    array = _whole(_as_array(labels, name))
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.dtype.kind not in "iuUOb" or array.shape[1] < 1 or len(array) != rows:
        raise HeadsError(
            f"{name} have shape {array.shape} and dtype {array.dtype} beside {rows} rows of features",
            "give integers or strings of shape [n, L], coarsest level first",
        )
    if len(array) == 0:
        raise HeadsError(f"{name} hold no rows", "give at least two rows of one class")
    if array.dtype.kind == "i" and array.min() < -1:
        raise HeadsError(f"{name} hold {int(array.min())}", "number the classes from 0; -1 is a label that is missing")
    return array


def _as_array(labels: Any, name: str) -> np.ndarray:
    """Labels as an array; those of a list with strings keep their types, or NaN and None would become words."""
    if isinstance(labels, Tensor):
        return labels.cpu().numpy()
    labels = list(labels) if isinstance(labels, Iterator) else labels
    try:
        array = np.asarray(labels)
        return np.asarray(labels, object) if array.dtype.kind == "U" and isinstance(labels, list | tuple) else array
    except ValueError as error:
        raise HeadsError(
            f"{name} have rows of different lengths", "give every row one label per level; -1 or None: no label known"
        ) from error


def _whole(array: np.ndarray) -> np.ndarray:
    """Whole numbers that are written as floats, as pandas does beside missing ones, as integers; NaN as -1."""
    if array.dtype.kind != "f" or not array.size:
        return array
    known = ~np.isnan(array)
    if (np.abs(array[known]) >= 2**53).any() or (array[known] % 1 != 0).any():
        return array
    return np.where(known, array, -1).astype(np.int64)


def _numbered(labels: np.ndarray, classes: Sequence[int] | None) -> tuple[np.ndarray, tuple[tuple[Any, ...], ...]]:
    """Turn labels into class numbers, int64 [n, L], and say which label each class had."""
    if classes is not None:
        top = labels.max(axis=0)
        if labels.dtype.kind not in "iu" or len(classes) != labels.shape[1] or (top >= np.asarray(classes)).any():
            raise HeadsError(
                f"labels reach {top.tolist()} with classes {list(classes)}", "give the class counts of every level"
            )
        if max(classes) > _MOST_CLASSES:
            raise HeadsError(f"classes are {list(classes)}", f"use at most {_MOST_CLASSES:,} per level")
        return np.ascontiguousarray(labels, np.int64), tuple(tuple(range(count)) for count in classes)
    numbers = np.full(labels.shape, -1, np.int64)
    names = []
    for level, column in enumerate(labels.T):
        if column.dtype.kind == "O":
            found = sorted({one for one in column if not _is_missing(one)}, key=lambda one: (str(type(one)), one))
            places = {one: at for at, one in enumerate(found)}
            numbers[:, level] = [-1 if _is_missing(one) else places[one] for one in column]
        else:
            known = column >= 0 if column.dtype.kind == "i" else np.ones(len(column), bool)
            distinct, place = np.unique(column[known], return_inverse=True)
            numbers[known, level] = place.reshape(-1)
            found = distinct.tolist()
        if not found:
            raise HeadsError(f"no row has a label on level {level}", "leave the level out")
        names.append(tuple(found))
    return numbers, tuple(names)


def _is_missing(label: Any) -> bool:
    if label is None or type(label).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(label, float | np.floating):
        return bool(np.isnan(label)) or label == -1
    return isinstance(label, int | np.integer) and int(label) == -1


def _are_numbers(names: Sequence[Any]) -> bool:
    return isinstance(names[0], int) and list(names) == list(range(len(names)))


def _check_depth(labels: np.ndarray) -> None:
    """Refuse a row whose label is missing above one that is there."""
    known = labels >= 0
    wrong = np.flatnonzero((known[:, 1:] & ~known[:, :-1]).any(1) | ~known[:, 0])
    if len(wrong):
        raise HeadsError(
            f"row {int(wrong[0])} has labels {labels[wrong[0]].tolist()}: one is missing above another or at the top",
            "a row may lack its finer labels only: -1 from some level on",
        )


def _checked_validation(
    validation: tuple[Any, Any], rows: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        raise HeadsError("validation is no pair", "give two: features and labels")
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
        rows = labels[labels[:, level] >= 0]
        parents = np.full(classes[level], -1, np.int64)
        parents[rows[:, level]] = rows[:, level - 1]
        wrong = np.flatnonzero(parents[rows[:, level]] != rows[:, level - 1])
        if len(wrong):
            child, one = rows[wrong[0], level], rows[wrong[0], level - 1]
            raise HeadsError(
                f"class {child} of level {level} stands under classes {one} and {parents[child]} of level {level - 1}",
                "number the classes so that each has one parent",
            )
        found.append(parents)
    return tuple(found)


def labels_of(numbers: np.ndarray, names: tuple[tuple[Any, ...], ...] | None) -> np.ndarray:
    """Turn class numbers int64 [n, L] into the labels that the classes had; -1 stays -1.

    :returns: [n, L], int64 where all labels are integers, else objects.
    """
    if names is None:
        return numbers
    whole = all(isinstance(name, int) for level in names for name in level)
    found = np.full(numbers.shape, -1, np.int64 if whole else object)
    for level, known in enumerate(names):
        for row in np.flatnonzero(numbers[:, level] >= 0):
            found[row, level] = known[numbers[row, level]]
    return found


_SHORTEST = 1e-20
"""Squared length below which float32 loses digits, and normalising takes a row for a zero: the row is scaled up."""


def checked_features(features: Any, name: str) -> np.ndarray:
    """Check features and bring them to float32; the direction of a row is what counts, so very short ones are scaled.

    :raises HeadsError: if they are no real matrix, hold NaN or infinity, or a row so long that its length is infinite
        in float32: it would be normalised to zeros.
    """
    if np.ma.is_masked(features):
        raise HeadsError(f"{name} have masked values", "fill them, or leave out their rows")
    array = features.detach().cpu().float().numpy() if isinstance(features, Tensor) else np.asarray(features)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or array.shape[1] == 0:
        raise HeadsError(
            f"{name} have shape {array.shape} and dtype {array.dtype}", "give real numbers of shape [n, H]"
        )
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, np.float32)
    squares = np.einsum("ij,ij->i", array, array)
    broken = ~np.isfinite(squares)
    if broken.any():
        raise HeadsError(
            f"row {int(broken.argmax())} of {name} holds NaN, infinity or values too large for float32",
            "look for it where the features were made; `pipeline cache verify` checks a store",
        )
    short = squares < _SHORTEST
    if short.any():
        peaks = np.abs(array[short]).max(axis=1, keepdims=True)
        array = array.copy()
        array[short] /= np.where(peaks > 0, peaks, 1)
    return array
