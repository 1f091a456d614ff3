"""The nearest neighbours in galleries that grow: a row is compared once, however many galleries hold it.

The galleries are the first rows of one order, so that each holds the one before: what a larger one adds is searched by
itself, and of both lists the nearest are kept. Similarities are exact (`heads.knn.search`), so the answers are those of
a search in each gallery.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from heads.knn.search import Neighbours, prefix_neighbours

_OUT = np.float32(-2)  # a similarity below all: of a row that is not to be found


def growing_neighbours(
    queries: np.ndarray,
    gallery: np.ndarray,
    order: np.ndarray,
    sizes: Sequence[int],
    scale_dim: int | Sequence[int],
    k: int,
    *,
    exclude: Literal["same-row"] | None = None,
) -> Iterator[Neighbours]:
    """Find the k nearest rows of each query among the first rows of an order, one size after another.

    :param queries: real [q, D].
    :param gallery: real [g, D].
    :param order: int64 [g], every row of the gallery once.
    :param sizes: how many rows, ascending; up to g, or g - 1 with `exclude`.
    :param scale_dim: as for `prefix_neighbours`.
    :param k: neighbours per query; all rows of a gallery that has fewer.
    :param exclude: "same-row" if the queries are the rows of the gallery: one that is among the first of the order is
        replaced there by the row that follows them, so that each query is compared with as many.
    :raises HeadsError: as `prefix_neighbours` does.
    """
    spare = 0 if exclude is None else 1  # a query may find itself first
    found = None
    for start, stop in pairwise((0, *sizes)):
        rows = np.sort(order[start:stop])
        near = prefix_neighbours(queries, gallery[rows], scale_dim, k + spare)
        near = Neighbours(rows[near.indices], near.similarities)
        found = near if found is None else _nearest(found, near, k + spare)
        if exclude is None:
            yield found
            continue
        own = np.arange(len(queries))
        inside = np.isin(own, order[:stop])
        others = np.where(found.indices == own[:, None], _OUT, found.similarities)
        following = prefix_neighbours(queries, gallery[order[stop : stop + 1]], scale_dim, 1).similarities
        instead = Neighbours(
            np.full_like(found.indices[:, :, :1], order[stop]), np.where(inside[:, None], following, _OUT)
        )
        yield _nearest(Neighbours(found.indices, others), instead, min(k, stop))


def _nearest(some: Neighbours, others: Neighbours, k: int) -> Neighbours:
    """The k nearest of two lists [J, q, .], of equal similarities the lower row first."""
    indices, similarities = (np.concatenate(pair, axis=2) for pair in zip(some, others, strict=True))
    first = np.lexsort((indices, -similarities))[:, :, :k]
    return Neighbours(*(np.take_along_axis(one, first, axis=2) for one in (indices, similarities)))
