"""A million labelled rows on a laptop: what each command takes in time and memory.

    python benchmarks/data/million.py --folder build/million

The rows are the distinct descriptions of ICD-10-CM, repeated with other words; their features are synthetic, a centre
per category plus noise, since embedding a million texts is another benchmark's business (`benchmarks/cache/embed.py`).
All but 2,000 rows are training rows; 1,000 are validation, 1,000 test. Each command is a process of its own, whose
seconds, CPU-seconds and largest resident memory (the system's ru_maxrss) are printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import polars as pl

import cache
import data
from cache.store import FeatureStore
from pipeline.workspace.artifacts import Artifacts, BackboneSource, Current, DatasetSource

CHUNK = 50_000
NAME = "synthetic"
FILE, ARTIFACTS = "million.csv", "artifacts"


def build(folder: Path, rows: int, width: int) -> None:
    """Write the rows and the store of their features, a chunk at a time."""
    frame = data.load("icd10cm", all_rows=True).frame.drop("split")
    labels = frame.columns[1:]
    numbers = dict(zip(frame[labels[-1]].unique().sort(), range(len(frame)), strict=False))
    centres = np.random.default_rng(0).normal(size=(len(numbers), width)).astype(np.float32)
    centres += 2 * np.random.default_rng(1).normal(size=(64, width))[np.arange(len(centres)) // 24 % 64]
    digest = hashlib.blake2b(f"{rows} {width}".encode(), digest_size=16).hexdigest()
    store = FeatureStore.create(folder / ARTIFACTS / "features" / f"{NAME}-{digest[:12]}", _description(width, digest))
    held = max(2, rows // 1000)
    with store.writer() as writer, (folder / FILE).open("wb") as file:
        for start, chunk in zip(range(0, rows, CHUNK), _repeated(frame, rows), strict=True):
            place = pl.int_range(start, start + len(chunk), eager=True)
            split = pl.select(
                pl.when(place % held == 0).then(pl.lit("test")).when(place % held == 1).then(pl.lit("val"))
                .otherwise(pl.lit("train")).alias("split")
            )  # fmt: skip
            text = chunk["text"] + pl.select(pl.format(", case {} of {}", place, place * 7919 % 9973)).to_series()
            chunk.with_columns(text.alias("text"), split.to_series()).write_csv(file, include_header=start == 0)
            own = centres[chunk[labels[-1]].replace_strict(numbers, return_dtype=pl.Int64).to_numpy()]
            noise = np.random.default_rng(start + 2).normal(size=own.shape).astype(np.float32)
            writer.append(cache.text_keys(text.to_list(), ""), (own + 1.5 * noise).astype(np.float16))
    source = DatasetSource(str((folder / FILE).resolve()))
    made = Artifacts(folder / ARTIFACTS)
    backbone = BackboneSource(NAME, f"given:{NAME}", "")
    made.remember(Current(source, made.load_dataset(source).id, backbone, {"0": store.folder.name}))


def _description(width: int, digest: str) -> dict[str, object]:
    return {
        "backbone": NAME, "fingerprint": digest, "origin": digest, "layer": 0, "hidden_size": width,
        "store_dtype": "float16", "compute_dtype": "float32", "pooling": "given", "max_length": None,
        "end_token": None, "weights": {}, "tokenizer": {},
        "config": {"hidden_size": width, "num_hidden_layers": 0},
    }  # fmt: skip


def _repeated(frame: pl.DataFrame, rows: int) -> Iterator[pl.DataFrame]:
    """Chunks of `rows` rows, the frame over and over."""
    places = cycle(range(len(frame)))
    for start in range(0, rows, CHUNK):
        yield frame[list(islice(places, min(CHUNK, rows - start)))]


def measured(what: str, words: Sequence[str]) -> None:
    """Run a command; print its seconds and its largest resident memory."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{what} failed")
    extra = ""
    if what.startswith("score"):
        prefix = json.loads(said)["scores"][0]["prefixes"][0]
        extra = f"accuracy at {prefix['dim']}: " + ", ".join(f"{one['accuracy']:.3f}" for one in prefix["levels"])
    seconds, computing = time.perf_counter() - began, usage.ru_utime + usage.ru_stime
    print(
        f"{what:14}{seconds:8.1f} s, {computing:8.1f} CPU-seconds, {usage.ru_maxrss / 2**20:6.2f} GiB  {extra}",
        flush=True,
    )


def main() -> None:
    """Run every step, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/million"))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--epochs", type=int, default=1, help="of joint")
    parser.add_argument("--steps", default="build,check,lda,joint,score-lda,score-joint,retrieve,report")
    parser.add_argument("--only-build", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only_build:
        build(asked.folder, asked.rows, asked.width)
        return
    asked.folder.mkdir(parents=True, exist_ok=True)
    here = ["--artifacts", str(asked.folder / ARTIFACTS), "--json"]
    size = ["--folder", str(asked.folder), "--rows", str(asked.rows), "--width", str(asked.width)]
    command = ["-m", "pipeline.cli"]
    joint = ["fit-head", "--method", "joint", "--head", "linear", "--epochs", str(asked.epochs)]
    steps = {
        "build": [__file__, "--only-build", *size],
        "check": [*command, "data", "check", str(asked.folder / FILE), *here],
        "lda": [*command, "fit-head", "--method", "lda", *here],
        "joint": [*command, *joint, *here],
        "score-lda": [*command, "score", "--method", "lda", *here],
        "score-joint": [*command, "score", "--method", "joint", *here],
        "retrieve": [*command, "retrieve", "--methods", "lda", *here],
        "report": [*command, "report", *here],
    }
    for name in asked.steps.split(","):
        measured(name.replace("-", " "), steps[name])


if __name__ == "__main__":
    main()
