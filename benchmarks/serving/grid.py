"""A grid search over methods with scikit-learn, 1,000 CLINC texts: how long it takes, and what embedding is of it.

    PIPELINE_DATA=folder python benchmarks/serving/grid.py

Prints one JSON object: seconds, with an empty store and again with the full one, and the mean accuracy per method.
"""

from __future__ import annotations

import json
import tempfile
import time

import numpy as np
from sklearn.model_selection import GridSearchCV

from data import load
from semantic_zoom import ZoomTransformer

METHODS = ["lda", "joint", "mrl"]


def main() -> None:
    """Search twice and print."""
    rows = load("clinc").frame.filter(split="train").sample(1000, seed=0)
    texts, labels = rows["text"].to_list(), rows["intent"].to_numpy()
    record: dict[str, object] = {"texts": len(texts), "classes": len(np.unique(labels)), "folds": 2}
    with tempfile.TemporaryDirectory() as store:
        for name in ("seconds", "seconds_again"):
            began = time.perf_counter()
            grid = GridSearchCV(ZoomTransformer(store=store), {"method": METHODS}, cv=2).fit(texts, labels)
            record[name] = time.perf_counter() - began
        record["accuracy"] = dict(zip(METHODS, grid.cv_results_["mean_test_score"].tolist(), strict=True))
    print(json.dumps(record))


if __name__ == "__main__":
    main()
