"""CLINC150: 23,700 queries to an assistant, 10 domains of 15 intents each, and queries that belong to none.

Larson et al., "An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction", EMNLP-IJCNLP 2019
(D19-1131), CC BY 3.0. The publisher's splits are kept: 15,000 train, 3,000 val, 4,500 test, 150 intents evenly. The
1,200 out-of-scope queries stand apart: they have no place in a hierarchy, and as an eleventh domain they would change
every figure that is compared with a published one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from data.checks import Rows
from data.sources.download import PublishedFile, obtain
from data.splits import SPLITS

PUBLISHER = "https://raw.githubusercontent.com/clinc/oos-eval/master/data/"
QUERIES = PublishedFile(
    "clinc",
    "data_full.json",
    PUBLISHER + "data_full.json",
    "36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0",
)
DOMAINS = PublishedFile(
    "clinc",
    "domains.json",
    PUBLISHER + "domains.json",
    "b947b579d3b8e74b06f93b01083d8efaff2888b43a3e362533bd88a6e1211b3a",
)
LEVELS = ("domain", "intent")


def read_clinc(folder: Path | None = None) -> Rows:
    """Return the in-scope rows in the publisher's order, train, val, test, with the out-of-scope ones beside them.

    :raises DataError: if the files are neither there nor to be had; see `data.sources.download.obtain`.
    """
    queries = _read(QUERIES, folder)
    domain_of = {intent: domain for domain, intents in _read(DOMAINS, folder).items() for intent in intents}
    in_scope = [(text, domain_of[intent], intent, split) for split in SPLITS for text, intent in queries[split]]
    outside = [(text, split) for split in SPLITS for text, _ in queries[f"oos_{split}"]]
    return Rows(
        "clinc",
        pl.DataFrame(in_scope, schema=dict.fromkeys(("text", *LEVELS, "split"), pl.String), orient="row"),
        LEVELS,
        out_of_scope=pl.DataFrame(outside, schema={"text": pl.String, "split": pl.String}, orient="row"),
    )


def _read(file: PublishedFile, folder: Path | None) -> Any:
    return json.loads(obtain(file, folder).read_text(encoding="utf-8"))
