"""Beyond one machine: Ray reads and distributes; what computes a feature is the code that computes it anywhere.

Nothing here is imported before `--engine ray` asks for it, so that Ray stays an extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.lazy import importer

if TYPE_CHECKING:
    from cache.cluster.connection import check_shared, connected, import_ray, living_nodes, reason_of
    from cache.cluster.engine import embed_on_cluster
    from cache.cluster.parquet import Corpus, open_corpus

__getattr__, __all__ = importer(
    __name__,
    {
        "cache.cluster.connection": "check_shared connected import_ray living_nodes reason_of",
        "cache.cluster.engine": "embed_on_cluster",
        "cache.cluster.parquet": "Corpus open_corpus",
    },
)
