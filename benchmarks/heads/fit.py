"""How fast heads train, against sentence-transformers in the same run.

    python benchmarks/heads/fit.py --artifacts artifacts --clinc CLINC_FOLDER --json fit-cpu.json
    python benchmarks/heads/fit.py --parts fit --features build/features.npz --device cuda --json fit-cuda.json

The artifacts folder is one where `pipeline embed` was run on both datasets with MiniLM. The file that
`benchmarks/heads/methods.py --export` writes does as well; with it part `fit` needs torch and this repository, no
polars.

`fit`: preset `paper`, batch 24, 5 epochs on CLINC, selection by validation included; on a GPU ten seeds at once too.

`peer`: an MRL head as people train one today: sentence-transformers, MiniLM frozen, `Dense` to 256 dimensions,
`MatryoshkaLoss` of its default weights around `MultipleNegativesRankingLoss` on pairs of one intent, and around
`BatchHardSoftMarginTripletLoss` on batches of its own sampler; AdamW, linear decay, gradients clipped at 1. The steps
are a plain loop over its own modules and losses, with the batches drawn before the clock starts: its trainer needs two
more packages and adds work. Its learning rates are tuned, ours is the published one; both keep the last epoch. A second
row gives its losses the features computed once, which tells what caching saves from what the loop saves. Ours embeds
into an empty store in float32, loading included; its loading is left out. Both are asked by the same code.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

import heads
from benchmarks.measured import Results, machine
from pipeline.evaluation.protocols import score_embeddings

PARTS = ("fit", "peer")
DATASETS = ("clinc", "icd10cm")
SPLITS = ("train", "val", "test")
BATCH, EPOCHS, SEED = 24, 5, 42
SEEDS = (42, 123, 456, 789, 1011)
DIMS = (64, 128, 192, 256)
LOSSES = {"MultipleNegativesRankingLoss": 1e-3, "BatchHardSoftMarginTripletLoss": 3e-4}
"""Sentence-transformers' losses and for each the learning rate that is best on validation, mean of the prefixes: of
1e-4, 3e-4, 1e-3, 3e-3 and 1e-2, which differ by 0.7 points."""


@dataclass(frozen=True, eq=False)
class Features:
    """A dataset's features [n, H] float32 and labels [n, L] int64 by split, and the names of levels and classes."""

    name: str
    levels: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]
    splits: dict[str, tuple[np.ndarray, np.ndarray]]

    @cached_property
    def rows(self) -> dict[str, int]:
        """Rows of each split."""
        return {split: len(labels) for split, (_, labels) in self.splits.items()}

    def thinned(self, rows: int | None) -> Features:
        """Take about so many rows of each split, evenly."""
        if rows is None:
            return self
        steps = {split: max(1, count // rows) for split, count in self.rows.items()}
        return replace(self, splits={s: (x[:: steps[s]], y[:: steps[s]]) for s, (x, y) in self.splits.items()})


def datasets_of(options: argparse.Namespace) -> dict[str, Features]:
    """Read the datasets that the options name, from the file or the folder that they name."""
    if options.features:
        with np.load(options.features) as arrays:
            found = [_exported(arrays, name) for name in options.datasets]
    else:
        found = [_stored(options.artifacts, name) for name in options.datasets]
    return {features.name: features.thinned(options.rows) for features in found}


def _stored(root: Path, name: str) -> Features:
    from pipeline.workspace.artifacts import Artifacts
    from pipeline.workspace.features import labelled_features

    stored = labelled_features(Artifacts(root), dataset=name)
    hierarchy = stored.dataset.hierarchy
    return Features(name, hierarchy.names, hierarchy.classes, {split: stored.split(split) for split in SPLITS})


def _exported(arrays: Mapping[str, np.ndarray], name: str) -> Features:
    facts = json.loads(str(arrays[f"{name}.facts"]))
    kinds = {"features": np.float32, "labels": np.int64}
    splits = {s: tuple(arrays[f"{name}.{s}.{kind}"].astype(dtype) for kind, dtype in kinds.items()) for s in SPLITS}
    return Features(name, tuple(facts["levels"]), tuple(map(tuple, facts["classes"])), splits)


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where features are and where to compute."""
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="where `pipeline embed` was run")
    parser.add_argument("--features", type=Path, help="file that methods.py --export wrote, instead of --artifacts")
    parser.add_argument("--datasets", type=listed, default=list(DATASETS), help="clinc,icd10cm")
    parser.add_argument("--rows", type=int, help="take about so many rows of each split: a smoke run")
    parser.add_argument("--json", type=Path)


def listed(text: str) -> list[str]:
    """Split an option at its commas."""
    return [part for part in text.split(",") if part]


def numbers(text: str) -> list[int]:
    """Split an option into numbers."""
    return [int(part) for part in listed(text)]


def fit_part(options: argparse.Namespace, results: Results) -> None:
    """Time whole fits some times: the median of the wall clock, the fit loop's own seconds beside it."""
    clinc = datasets_of(options)["clinc"]
    small = {"batch_size": BATCH, "epochs": EPOCHS}
    counts = {"1 seed": [SEED], **({"10 seeds at once": list(range(10))} if options.device == "cuda" else {})}
    methods = (("v5", small), ("mrl", small), ("joint", small), ("joint", {}))
    for (count, seeds), (method, settings) in product(counts.items(), methods):
        walls, loops = [], []
        for _ in range(options.repeats):
            began = time.perf_counter()
            fitted = fitted_to(clinc, options.device, seeds=seeds, method=method, **settings)
            walls.append(time.perf_counter() - began)
            loops.append(sum(result.seconds for result in fitted))
        used = heads.hyperparameters(method, **settings)
        what = f"fit {method}, paper, batch {used['batch_size']}, {used['epochs']} epochs, {count}"
        remark = f"loop {statistics.median(loops):.2f} s; first call {walls[0]:.2f} s"
        results.add(what, statistics.median(walls), "s", remark, walls=walls, loops=loops, n=clinc.rows, settings=used)


def fitted_to(data: Features, device: str, **settings: Any) -> list[heads.FitResult]:
    """Train heads, the epoch kept chosen on the validation split."""
    return heads.fit_many(*data.splits["train"], validation=data.splits["val"], device=device, **settings)


def clinc_texts(folder: Path, rows: int | None) -> tuple[dict[str, list[str]], dict[str, np.ndarray]]:
    """Return the in-scope texts and labels [n, 2] (domain, intent) of the training and test splits."""
    queries = json.loads((folder / "data_full.json").read_text())
    domains = json.loads((folder / "domains.json").read_text())
    domain_of = {intent: domain for domain, intents in domains.items() for intent in intents}
    names, intents = sorted(domains), sorted(domain_of)
    texts, labels = {}, {}
    for split in ("train", "test"):
        some = queries[split][:: 1 if rows is None else max(1, len(queries[split]) // rows)]
        texts[split] = [text for text, _ in some]
        labels[split] = np.array([(names.index(domain_of[intent]), intents.index(intent)) for _, intent in some])
    return texts, labels


class Peer:
    """A sentence-transformers model whose Dense layer alone is trained, on texts or on features computed once."""

    def __init__(self, source: str, texts: list[str], device: str) -> None:
        """Load the encoder and freeze it."""
        from sentence_transformers import SentenceTransformer

        self.encoder = SentenceTransformer(source, device=device)
        self.encoder.requires_grad_(False)
        self.texts, self.device = texts, device

    def train(self, loss: str, labels: np.ndarray, limit: int | None, vectors: torch.Tensor | None) -> tuple[Any, ...]:
        """Train a Dense layer; return it, the seconds per step, and the steps of a whole training.

        :param limit: steps to take, after five that are not timed; all, and all timed, if None.
        :param vectors: the training texts' vectors, to train on them and not on texts.
        """
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer import losses, modules
        from sentence_transformers.util import batch_to_device

        torch.manual_seed(SEED)
        dense = modules.Dense(self.encoder.get_embedding_dimension(), DIMS[-1], activation_function=None)
        model = SentenceTransformer(modules=[*(self.encoder if vectors is None else ()), dense], device=self.device)
        objective = losses.MatryoshkaLoss(model, getattr(losses, loss)(model), DIMS)
        batches = list(pairs(labels) if loss == "MultipleNegativesRankingLoss" else labelled(labels))
        optimiser = torch.optim.AdamW(dense.parameters(), lr=LOSSES[loss], weight_decay=0.0)
        decay = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / len(batches))
        model.train()
        began = time.perf_counter()
        for step, columns in enumerate(batches[: None if limit is None else limit + 5]):
            if limit is not None and step == 5:
                began = self._now()
            if vectors is None:
                inputs = [model.preprocess([self.texts[row] for row in column]) for column in columns]
            else:
                inputs = [{"sentence_embedding": vectors[column]} for column in columns]
            target = torch.from_numpy(labels[columns[0]]).to(self.device)
            objective([batch_to_device(part, self.device) for part in inputs], target).backward()
            torch.nn.utils.clip_grad_norm_(dense.parameters(), 1.0)
            optimiser.step()
            decay.step()
            optimiser.zero_grad()
        return dense.eval(), (self._now() - began) / (limit or len(batches)), len(batches)

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def pairs(labels: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Give batches of anchors, all rows per epoch, and for each another row of its class."""
    rng = np.random.default_rng(SEED)
    members = {label: np.flatnonzero(labels == label) for label in np.unique(labels)}
    for _ in range(EPOCHS):
        order = rng.permutation(len(labels))
        for anchors in (order[i : i + BATCH] for i in range(0, len(order) - BATCH + 1, BATCH)):
            others = [members[labels[row]] for row in anchors]
            yield [anchors, np.array([rng.choice(o[o != row]) for o, row in zip(others, anchors, strict=True)])]


def labelled(labels: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Give batches of two or more rows of each class, by sentence-transformers' own sampler for such losses."""
    from sentence_transformers.base.sampler import GroupByLabelBatchSampler

    class Column(dict[str, list[int]]):
        column_names = ("label",)

    generator = torch.Generator()
    rows = Column(label=labels.tolist())
    sampler = GroupByLabelBatchSampler(rows, BATCH, True, ["label"], generator, SEED)
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        yield from ([np.array(batch)] for batch in sampler)


def peer_part(options: argparse.Namespace, results: Results) -> None:
    """The same MRL head trained by both, from texts to a trained head."""
    from cache import resolve

    texts, labels = clinc_texts(options.clinc, options.rows)
    backbone = resolve("minilm")
    embedding, fits = our_mrl(texts, labels, backbone, options, results)
    peer = Peer(backbone.source, texts["train"], options.device)
    began = time.perf_counter()
    vectors = {"train": peer.encoder.encode(texts["train"], convert_to_tensor=True)}
    encoding = time.perf_counter() - began
    vectors["test"] = peer.encoder.encode(texts["test"], convert_to_tensor=True)
    results.add("sentence-transformers: encoding the training texts once", encoding, "s", "default batch")
    for loss, cached in product(LOSSES, (False, True)):
        limit = None if cached else options.peer_steps
        dense, each, steps = peer.train(loss, labels["train"][:, -1], limit, vectors["train"] if cached else None)
        before, loop = encoding if cached else 0.0, each * steps
        how = "all timed" if limit is None else f"EXTRAPOLATED from {limit}"
        what = f"sentence-transformers, {loss}" + (", on features computed once" if cached else "")
        results.add(what, before + loop, "s", f"encoding {before:.1f} + loop {loop:.1f} s, {steps:,} steps, {how}")
        for preset, fitting in fits.items():
            alone = f"its loop / our fit alone {loop / fitting:.2f}"
            results.add(
                f"  its time / this project, preset {preset}", (before + loop) / (embedding + fitting), "x", alone
            )
        if limit is None:
            with torch.no_grad():
                embedded = [dense({"sentence_embedding": part})["sentence_embedding"] for part in vectors.values()]
            show_accuracy(*(part.cpu().numpy() for part in embedded), labels, options.device, results)


def our_mrl(
    texts: dict[str, list[str]], labels: dict[str, np.ndarray], backbone: Any, options: argparse.Namespace, results: Any
) -> tuple[float, dict[str, float]]:
    """Embed, train and ask our mrl; return the seconds of embedding the training texts, and of fitting by preset."""
    from cache import EmbedRequest, FeatureStore, embed_missing, text_keys

    features, taken, fits = {}, {}, {}
    with tempfile.TemporaryDirectory() as root:
        for split, some in texts.items():
            began = time.perf_counter()
            report = embed_missing(some, EmbedRequest(backbone, Path(root), dtype="float32", devices=options.device))
            features[split] = FeatureStore.open(report.stores[0].folder).gather(text_keys(some))
            taken[split] = time.perf_counter() - began
    n = {split: len(rows) for split, rows in texts.items()}
    results.add("this project: embedding the training texts, store included", taken["train"], "s", f"float32, {n}", n=n)
    settings = {"method": "mrl", "seed": SEED, "batch_size": BATCH, "epochs": EPOCHS, "device": options.device}
    for preset in ("linear", "paper"):
        began = time.perf_counter()
        head = heads.fit(features["train"], labels["train"], head=preset, **settings)
        fits[preset] = time.perf_counter() - began
        remark = f"{taken['train'] + fits[preset]:.1f} s with the embedding"
        results.add(f"ours: mrl, preset {preset}, fit alone", fits[preset], "s", remark)
        show_accuracy(*(head.embed(features[split]) for split in texts), labels, options.device, results)
    return taken["train"], fits


def show_accuracy(
    train: np.ndarray, test: np.ndarray, labels: dict[str, np.ndarray], device: str, results: Results
) -> None:
    """Ask the test split of the training split at every prefix."""
    predictions = score_embeddings(train, labels["train"], test, labels["test"], device=device)
    for dim, (domain, intent) in zip(predictions.dims, predictions.accuracy * 100, strict=True):
        results.add(f"  intents right at {dim} dims", intent, "%", f"domains {domain:.2f} %", domain=domain)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sources(parser)
    parser.add_argument("--parts", type=listed, default=list(PARTS), help=",".join(PARTS))
    parser.add_argument("--clinc", type=Path, help="folder that holds data_full.json and domains.json (part peer)")
    parser.add_argument("--peer-steps", type=int, help="time so many of its steps and extrapolate; all by default")
    parser.add_argument("--repeats", type=int, default=3, help="how often each fit of part fit is timed")
    options = parser.parse_args()
    if set(options.parts) - set(PARTS):
        parser.error(f"--parts: use {','.join(PARTS)}")
    if "peer" in options.parts and options.clinc is None:
        parser.error("part peer needs --clinc")
    about = {**machine(options.device), "rows": options.rows}
    print(" | ".join(f"{key} {value}" for key, value in about.items()))
    results = Results(about, options.json)
    for part in options.parts:
        {"fit": fit_part, "peer": peer_part}[part](options, results)


if __name__ == "__main__":
    main()
