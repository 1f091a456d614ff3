"""Draw docs/learning-curve.svg: accuracy on the finest level at 64 dims against the number of training rows.

    python scripts/draw_learning_curve.py

Reads what benchmarks/heads/small.py and joint.py wrote to benchmarks/results/: nothing is measured here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import altair as alt

RESULTS, TO = Path("benchmarks/results"), Path("docs/learning-curve.svg")
METHODS = ("joint", "lda", "pca", "features")
DATASETS = {"clinc": ("CLINC, intent", "intent", 15000), "icd10cm": ("ICD-10-CM, category", "category", 16061)}


def points() -> list[dict[str, Any]]:
    """A row per dataset, method and number of training rows."""
    small, whole = (
        json.loads((RESULTS / name).read_text())["results"] for name in ("heads-small.json", "heads-joint.json")
    )
    found = []
    for dataset, (title, level, everything) in DATASETS.items():
        for row in small:
            told = re.fullmatch(rf"{dataset}, (\d+) rows, 64 dims, {level}: joint - .*", row["what"])
            found += [
                {"data": title, "method": method, "rows": int(told[1]), "accuracy": row["accuracies"][method]}
                for method in (METHODS if told else ())
            ]
        for method in METHODS:
            table = next(row for row in whole if row["what"] == f"{dataset}: {method}, gallery")["accuracies"]
            found.append({"data": title, "method": method, "rows": everything, "accuracy": table[0][-1]})
    return found


def chart(rows: list[dict[str, Any]]) -> alt.Chart:
    """Two panels, a line per method, a logarithmic axis of rows."""
    line = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point=True)
        .encode(
            x=alt.X(
                "rows:Q",
                scale=alt.Scale(type="log"),
                axis=alt.Axis(values=[300, 1000, 3000, 15000]),
                title="training rows",
            ),
            y=alt.Y("accuracy:Q", scale=alt.Scale(zero=False), title="accuracy in % at 64 dims"),
            color=alt.Color("method:N", sort=list(METHODS), title=None),
        )
    )
    return (
        line.properties(width=300, height=260)
        .facet(column=alt.Column("data:N", title=None))
        .resolve_scale(y="independent")
    )


if __name__ == "__main__":
    chart(points()).save(TO)
