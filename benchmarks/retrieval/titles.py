"""The published claims on search among all 97,449 titles of ICD-10-CM: as many real documents as it has.

    pipeline embed icd10cm --all --backbone minilm
    pipeline embed icd10cm --backbone minilm
    pipeline fit-head --method v5,mrl --seeds 42,123,456
    python benchmarks/retrieval/titles.py --json benchmarks/results/titles-icd10cm.json

Queries are 1,000 test texts of the usual dataset, documents all other titles. Heads are those of the usual training
texts. Among the documents are near twins of a query (left and right, first and later encounter), which the usual
dataset leaves out, so the finest level is easier here.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

import data
from benchmarks.measured import machine
from pipeline.claims.search import plan_for_claims, search_measurements
from pipeline.claims.verdicts import NOT_MEASURED, judge
from pipeline.evaluation.embeddings import run_scorable
from pipeline.evaluation.scores import to_json
from pipeline.retrieval.experiment import device_of, experiment
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.features import LabelledFeatures, labelled_features, runs_of

QUERIES = 1000


def all_titles(usual: LabelledFeatures) -> LabelledFeatures:
    """Every title with its labels; the test split is 1,000 test texts of the usual dataset, the others are the rest."""
    test = [usual.dataset.texts[row] for row in usual.dataset.split_rows("test")]
    asked = [test[row] for row in np.random.default_rng(0).permutation(len(test))[:QUERIES]]
    everything = data.load("icd10cm", all_rows=True)
    split = pl.when(pl.col("text").is_in(asked)).then(pl.lit("test")).otherwise(pl.lit("train")).alias("split")
    return replace(usual, dataset=replace(everything, frame=everything.frame.with_columns(split), warnings=()))


def main() -> None:
    """Search, judge, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    artifacts = Artifacts(options.artifacts)
    usual = labelled_features(artifacts, dataset="icd10cm")
    titles = all_titles(usual)
    runs = runs_of(artifacts, usual, ("v5", "mrl"))
    documents = len(titles.dataset.split_rows("train"))
    device = device_of("auto")
    scorables = [run_scorable(run, usual) for run in runs]
    found = experiment(scorables, titles, (documents,), QUERIES, plan_for_claims(device, documents))
    claims = [to_json(claim) for claim in judge({}, search_measurements([found])) if claim.verdict != NOT_MEASURED]
    for claim in claims:
        print(claim["id"], claim["measured"], claim["verdict"], claim["note"], sep="\n  ")
    if options.json:
        about = {**machine(device), "documents": documents, "queries": found.queries}
        about["seeds"] = sorted({run.seed for run in runs})
        result = {"about": about, "dataset": usual.dataset.id, "claims": claims}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
