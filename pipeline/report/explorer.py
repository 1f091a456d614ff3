"""What the semantic zoom explorer shows: a map of test texts at every prefix, and each text's ten nearest others.

Neighbours are exact, searched among the texts shown (`heads.neighbours`), and all of them are computed here: a browser
then only looks up. Packed as typed arrays in base64, a text costs 24 bytes a prefix and method for ten neighbours, their
cosines and its place, so 5,000 texts x 4 prefixes x 6 methods are 4 MB; more texts than that are sampled, by a seed.
Embeddings themselves would be 5 MB a method, and the search a stutter.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import data
from heads.neighbours import prefix_neighbours
from pipeline.report.layout import MOVES, Points, layout, principal_plane, rotation
from pipeline.subjects import Subject

Ints = NDArray[np.int64]

MOST_TEXTS = 5000
MOST_METHODS = 6
NEAREST = 10
TEXT_BYTES = 2_500_000
"""Texts longer than the share of this that falls to each are cut: the page is to stay under 10 MB."""


@dataclass(frozen=True)
class View:
    """One method's map at each prefix.

    `neighbours`: int64 [J, n, 10], rows of the texts shown. `cosines`: float32 [J, n, 10]. `places`: float32 [J, n, 2],
    between 0 and 1. `shares`: float64 [J, L], the mean share of a text's neighbours that have its label.
    """

    name: str
    seed: int | None
    dims: tuple[int, ...]
    neighbours: Ints
    cosines: NDArray[np.float32]
    places: Points
    shares: NDArray[np.float64]


@dataclass(frozen=True)
class Explorer:
    """Texts [n], their labels [n, L], a view a method; `total` texts there are, of which n are shown."""

    texts: Sequence[str]
    labels: Ints
    hierarchy: data.Hierarchy
    dims: tuple[int, ...]
    views: Sequence[View]
    total: int
    first: int

    def to_json(self) -> dict[str, Any]:
        """Spell the explorer out for the page's script."""
        return {
            "levels": list(self.hierarchy.names),
            "classes": [list(names) for names in self.hierarchy.classes],
            "dims": list(self.dims),
            "nearest": int(self.views[0].neighbours.shape[2]),
            "texts": list(self.texts),
            "labels": [_packed(column.astype("<u2")) for column in self.labels.T],
            "first": self.first,
            "views": [
                {
                    "name": view.name,
                    "seed": view.seed,
                    "dims": list(view.dims),
                    "neighbours": _packed(view.neighbours.astype("<u2")),
                    "cosines": _packed(np.rint(view.cosines * 100).astype("i1")),
                    "places": _packed(np.rint(view.places * 65535).astype("<u2")),
                    "shares": view.shares.round(4).tolist(),
                }
                for view in self.views
            ],
        }


def explore(
    dataset: data.Dataset,
    subjects: Mapping[str, Subject],
    *,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Explorer | None:
    """Lay out at most 5,000 test texts as at most six methods see them; None if there are fewer than three.

    :param subjects: by the name to show; the first ones are kept if there are more than six.
    """
    shown = shown_rows(len(dataset.split_rows("test")))
    if len(shown) < 3:
        return None
    rows = dataset.split_rows("test")[shown]
    labels = dataset.labels[rows]
    texts = dataset.texts
    kept = dict(list(subjects.items())[:MOST_METHODS])
    vectors = {name: subject.split("test")[0][shown] for name, subject in kept.items()}
    dims = next(iter(kept.values())).dims
    views = _views(kept, vectors, labels, progress)
    return Explorer(
        cut([texts[row] for row in rows]), labels, dataset.hierarchy, dims, views, len(dataset.split_rows("test")),
        _telling(views, labels),
    )  # fmt: skip


def shown_rows(total: int, most: int = MOST_TEXTS) -> Ints:
    """Which of `total` rows are shown, ascending: all, or a sample that depends on their number alone."""
    if total <= most:
        return np.arange(total)
    return np.sort(np.random.default_rng(0).permutation(total)[:most])


def cut(texts: Sequence[str], budget: int = TEXT_BYTES) -> list[str]:
    """Texts as they are if they fit the budget of UTF-8 bytes together, else the long ones cut, with an ellipsis."""
    limit = max((len(text) for text in texts), default=0)
    while limit > 1 and sum(min(len(t), limit) * len(t.encode()) / max(len(t), 1) for t in texts) > budget:
        limit = limit * 3 // 4
    return [text if len(text) <= limit else text[: limit - 1] + "…" for text in texts]


def _views(
    subjects: Mapping[str, Subject],
    vectors: Mapping[str, NDArray[np.float32]],
    labels: Ints,
    progress: Callable[[int, int, str], None],
) -> list[View]:
    """A view a subject: neighbours one after another (the search takes every core), maps side by side."""
    dims, views = next(iter(subjects.values())).dims, []
    with ThreadPoolExecutor() as pool:
        drawn = []
        for name, rows in vectors.items():
            own = tuple(dict.fromkeys(min(dim, rows.shape[1]) for dim in dims))
            rows = rows[:, : own[-1]]
            found = prefix_neighbours(rows, rows, own, NEAREST, exclude="same-row")
            drawn.append((name, own, found, pool.submit(_places, found.indices, principal_plane(rows))))
        for done, (name, own, found, places) in enumerate(drawn):
            progress(done, len(drawn), name)
            shares = (labels[found.indices] == labels[None, :, None]).mean(axis=(1, 2))
            seed = subjects[name].facts["seed"]
            views.append(View(name, seed, own, found.indices, found.similarities, places.result(), shares))
    return [_turned(view, views[0].places[-1]) for view in views]


def _places(neighbours: Ints, start: Points) -> Points:
    """Maps [J, n, 2]: the full vector's from scratch, the others begun at it and turned to lie on it."""
    full = layout(neighbours[-1], start)
    shorter = [layout(nearest, full, MOVES, 0) for nearest in neighbours[:-1]]
    return np.stack([*(place @ rotation(place, full) for place in shorter), full])


def _turned(view: View, to: Points) -> View:
    """The same view, turned as a whole to lie on another's full map, and scaled between 0 and 1."""
    turned = view.places @ rotation(view.places[-1], to)
    reach = np.abs(turned).max(axis=(1, 2), keepdims=True) * 2.04
    placed = np.asarray(turned / np.where(reach > 0, reach, 1) + 0.5, np.float32)
    return View(view.name, view.seed, view.dims, view.neighbours, view.cosines, placed, view.shares)


def _telling(views: Sequence[View], labels: Ints) -> int:
    """The text to begin with: where the first two methods' neighbours at the shortest prefix differ most in label.

    Of those whose coarse neighbours are all right, and of them the first.
    """
    shares = [(labels[view.neighbours[0]] == labels[:, None]).mean(axis=1) for view in views[:2]]
    gap = np.abs(shares[0][:, -1] - shares[-1][:, -1]) + 2 * (shares[0][:, 0] == 1) * (shares[-1][:, 0] == 1)
    return int(np.argmax(gap))


def _packed(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
