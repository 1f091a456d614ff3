"""Exact nearest neighbours at every prefix, their votes, and the pieces that other searches share."""

from heads.knn.growing_galleries import growing_neighbours
from heads.knn.search import Neighbours, prefix_lengths, prefix_neighbours, vote
from heads.knn.tile_scan import RUN, finds, numbered, side_by_side, tiles

__all__ = [
    "RUN",
    "Neighbours",
    "finds",
    "growing_neighbours",
    "numbered",
    "prefix_lengths",
    "prefix_neighbours",
    "side_by_side",
    "tiles",
    "vote",
]
