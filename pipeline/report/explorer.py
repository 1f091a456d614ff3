"""What the semantic zoom explorer shows: a map of test texts at every prefix, and each text's ten nearest others.

Neighbours are exact, searched among the texts shown (`heads.knn`), and all of them are computed here: a browser
then only looks up. A map takes seconds, so it is kept beside the run as predictions are.

Packed as typed arrays in base64, a text costs 45 bytes per prefix and method for ten neighbours, their cosines and its
place: 5,000 texts x 4 prefixes x 6 methods are 5.4 MB, 20,000 texts x 4 x 2 methods 7.3 MB. The more texts, the fewer
methods; of more than 20,000 texts a seeded sample is shown. Embeddings would be 20 MB per method.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import data
from cache.workers import threads_each
from pipeline.evaluation.embeddings import Scorable
from pipeline.report.html import isolated
from pipeline.report.tsne import MOVES, Points, layout, principal_plane, rotation
from pipeline.workspace.kept_arrays import keep_arrays, read_arrays

Ints = NDArray[np.int64]

DRAWING = 2  # a change in how maps are drawn gets another number: what was kept under an older one is not read
MOST_TEXTS = 20_000
MOST_POINTS, MOST_METHODS, LEAST_METHODS = 30_000, 6, 2
"""Methods have a map as long as all maps together have this many points; never fewer than two, never more than six."""
_MANY_POINTS = 1000
"""From so many on, maps are laid out in several threads."""
NEAREST = 10
PACKED_BYTES = (3 * NEAREST + 4) * 4 / 3
"""Bytes of one text, prefix and method on the page."""
PAGE_BYTES, TEXT_BYTES = 8_600_000, 2_500_000
"""What maps and texts may take, so that the page stays under 10 MB, and texts of it: longer ones are cut."""


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
    """Texts [n], their labels [n, L], one view per method.

    `total`: texts there are, of which n are shown. `first`: the one to begin with. `left_out`: methods without a view.
    """

    texts: Sequence[str]
    labels: Ints
    hierarchy: data.Hierarchy
    dims: tuple[int, ...]
    views: Sequence[View]
    total: int
    first: int
    left_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Spell the explorer out for the page's script."""
        return {
            "levels": list(isolated(self.hierarchy.names)),
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
    scorables: Mapping[str, Scorable],
    *,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Explorer | None:
    """Lay out at most 20,000 test texts as two to six methods see them; None if there are fewer than three texts.

    :param scorables: by the name to show; the first ones are kept where there are too many.
    """
    shown = shown_rows(len(dataset.split_rows("test")))
    if len(shown) < 3:
        return None
    rows = dataset.split_rows("test")[shown]
    labels = dataset.labels[rows]
    most = max(LEAST_METHODS, min(MOST_METHODS, MOST_POINTS // len(shown)))
    kept = dict(list(scorables.items())[:most])
    maps = _maps(kept, shown, progress)
    views = [_view(name, kept[name], one, maps[next(iter(kept))].places[0], labels) for name, one in maps.items()]
    left = PAGE_BYTES - round(PACKED_BYTES * len(shown) * sum(len(view.dims) for view in views))
    return Explorer(
        cut(dataset.texts_of(rows), min(TEXT_BYTES, left)), labels, dataset.hierarchy, _common_dims(kept), views,
        len(dataset.split_rows("test")), _telling(views, labels), tuple(scorables)[most:],
    )  # fmt: skip


def _common_dims(scorables: Mapping[str, Scorable]) -> tuple[int, ...]:
    """The prefixes that the slider has: those of the first head, else of the first of what no one trained."""
    return min(scorables.values(), key=lambda scorable: scorable.identity.untrained).dims


def shown_rows(total: int) -> Ints:
    """Which of `total` rows are shown, ascending: all, or a sample that depends on their number alone."""
    if total <= MOST_TEXTS:
        return np.arange(total)
    return np.sort(np.random.default_rng(0).permutation(total)[:MOST_TEXTS])


def cut(texts: Sequence[str], budget: int) -> list[str]:
    """Texts as they are if they fit the budget of UTF-8 bytes together, else the long ones cut, with an ellipsis."""
    limit = max((len(text) for text in texts), default=0)
    while limit > 1 and sum(min(len(t), limit) * len(t.encode()) / max(len(t), 1) for t in texts) > budget:
        limit = limit * 3 // 4
    return [text if len(text) <= limit else text[: limit - 1] + "…" for text in texts]


class _Map(NamedTuple):
    """A view before it is turned to lie on others: what is kept beside a run."""

    dims: tuple[int, ...]
    neighbours: Ints
    cosines: NDArray[np.float32]
    places: Points


def _maps(scorables: Mapping[str, Scorable], shown: Ints, progress: Callable[[int, int, str], None]) -> dict[str, _Map]:
    """One map per scorable: neighbours one after another (the search takes every core), layouts side by side."""
    dims = _common_dims(scorables)
    kept = {name: one.folder / f"map-{NEAREST}-{DRAWING}.npz" for name, one in scorables.items() if one.folder}
    maps: dict[str, _Map] = {}
    drawn = {}
    # few points: a step's operations take microseconds, and threads wait for one another longer than they work
    with ThreadPoolExecutor(1 if len(shown) < _MANY_POINTS else threads_each(1)) as pool:
        for name, scorable in scorables.items():
            found = None if name not in kept else _read_map(kept[name])
            own = tuple(dict.fromkeys(min(dim, scorable.dims[-1]) for dim in dims))
            if found is None or found.dims != own or found.neighbours.shape[1] != len(shown):
                from heads.knn import prefix_neighbours  # brings torch, which kept maps need not wait for

                rows = scorable.split("test")[0][shown][:, : own[-1]]
                near = prefix_neighbours(rows, rows, own, NEAREST, exclude="same-row")
                drawn[name] = own, near, pool.submit(_places, near.indices, principal_plane(rows))
            else:
                maps[name] = found
        for done, (name, (own, near, places)) in enumerate(drawn.items()):
            progress(done, len(drawn), name)
            maps[name] = _Map(own, near.indices, near.similarities, places.result())
            if name in kept:
                _keep_map(kept[name], maps[name])
    return {name: maps[name] for name in scorables}


def _read_map(path: Path) -> _Map | None:
    """Read a kept map; None if there is none or it is damaged (it is drawn again)."""
    arrays = read_arrays(path, _Map._fields)
    if arrays is None:
        return None
    dims, neighbours = tuple(arrays["dims"].tolist()), arrays["neighbours"].astype(np.int64)
    return _Map(dims, neighbours, arrays["cosines"], arrays["places"])


def _keep_map(path: Path, made: _Map) -> None:
    small = {"dims": np.array(made.dims), "neighbours": made.neighbours.astype(np.uint16)}
    keep_arrays(path, {**made._asdict(), **small}, compress=False)


def _places(neighbours: Ints, start: Points) -> Points:
    """Maps [J, n, 2]: the shortest prefix's from scratch, each longer one begun at the one before.

    So points stay where they can as the slider moves.
    """
    maps = [layout(neighbours[0], start)]
    for nearest in neighbours[1:]:
        moved = layout(nearest, maps[-1], MOVES, 0)
        maps.append(moved @ rotation(moved, maps[-1]))
    return np.stack(maps)


def _view(name: str, scorable: Scorable, made: _Map, to: Points, labels: Ints) -> View:
    """A map turned as a whole to lie on another's first, scaled between 0 and 1, and what its neighbours share."""
    turned = made.places @ rotation(made.places[0], to)
    reach = np.abs(turned).max(axis=(1, 2), keepdims=True) * 2.04
    places = np.asarray(turned / np.where(reach > 0, reach, 1) + 0.5, np.float32)
    known = np.maximum((labels >= 0).sum(axis=0), 1)
    shares = np.stack([_alike(labels, nearest).sum(axis=0) / known for nearest in made.neighbours])
    return View(name, scorable.identity.paired_seed, made.dims, made.neighbours, made.cosines, places, shares)


def _alike(labels: Ints, neighbours: Ints) -> NDArray[np.float64]:
    """Share of each text's neighbours [n, k] that have its label, float64 [n, L]; 0 where it has none."""
    same = (labels[neighbours] == labels[:, None]) & (labels >= 0)[:, None]
    return np.asarray(same.mean(axis=1))


def _telling(views: Sequence[View], labels: Ints) -> int:
    """The text to begin with: where the first two methods' neighbours at the shortest prefix differ most in label.

    Of those whose coarse neighbours are all right, and of them the first.
    """
    shares = [_alike(labels, view.neighbours[0]) for view in views[:2]]
    gap = np.abs(shares[0][:, -1] - shares[-1][:, -1]) + 2 * (shares[0][:, 0] == 1) * (shares[-1][:, 0] == 1)
    return int(np.argmax(gap))


def _packed(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
