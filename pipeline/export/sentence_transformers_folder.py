"""A run as a sentence-transformers model: backbone, pooling and head in one folder that needs nothing else from here.

The folder holds the backbone's files as they are (the tokenizer with its end token built in), the pooling, and the
head's checkpoint; `heads.exported.ExportedHead` is what runs it. The backbone that is copied is proved to be the one
whose features the head was trained on, by its content, and the folder, before it gets its name, is loaded by
sentence-transformers and must give the run's own embeddings. That costs some seconds; a folder that is silently wrong
(another end token, another pooling, another number format) costs more.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cache
import heads
from cache.backbones import Backbone
from cache.fingerprint import identity, read_content
from cache.hub import locate
from pipeline.artifacts import Artifacts
from pipeline.errors import PipelineError
from pipeline.export import extras
from pipeline.export.loading import HEAD, PACKED, POOLING, TRANSFORMER, load_model
from pipeline.export.tokenizer import carry_end_token
from pipeline.runs import Run

POOLING_FOLDER, HEAD_FOLDER = "1_Pooling", "2_Head"
_POOLINGS = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "model.safetensors.index.json",
)
TOLERANCE, BROKEN = 2e-3, 5e-2
"""Difference in any dimension between what the folder gives and what the run gave: what float16 features explain, and
what no rounding explains."""


@dataclass(frozen=True)
class Checked:
    """The largest difference in any dimension of any prefix over `texts` texts."""

    texts: int
    difference: float


def backbone_of(artifacts: Artifacts, run: Run, source: str | None = None) -> tuple[Backbone, Path]:
    """The backbone that a run's features came from, and the folder of its files.

    :param source: where it is found now, if not where it was when the run was trained.
    :raises PipelineError: if what is found is another one, or the features are not of the last layer.
    :raises cache.CacheError: if it cannot be had.
    """
    description = run.record["features"]
    backbone = cache.resolve(source or run.record["backbone_source"])
    folder = locate(backbone.source, "")
    content = read_content(folder, backbone, artifacts.features)
    if int(description["layer"]) != content.layers:
        raise PipelineError(
            f"run {run.id} was trained on layer {description['layer']} of {content.layers}",
            "export a run of the last layer: sentence-transformers reads no other",
        )
    if identity(content, backbone, content.layers) != description["origin"]:
        raise PipelineError(
            f"{folder} is not the backbone that run {run.id} was trained on",
            "name the checkpoint it was trained on (--backbone PATH), or fit heads on this one",
        )
    return backbone, folder


def write_folder(folder: Path, run: Run, backbone: Backbone, files: Path, card: str) -> None:
    """Write the model into an existing, empty folder.

    :param files: the backbone's own folder.
    :param card: the model card.
    :raises PipelineError: if its tokenizer cannot carry the end token.
    """
    transformer = TRANSFORMER if run.record["features"]["compute_dtype"] == "float32" else PACKED
    _copy_backbone(files, folder)
    carry_end_token(folder, backbone)
    description = run.record["features"]
    _write(
        folder / "sentence_bert_config.json",
        {"max_seq_length": backbone.max_length, "model_kwargs": {"dtype": description["compute_dtype"]}},
    )
    _write(folder / "config_sentence_transformers.json", _settings(run.record["prompt"]))
    _write(
        folder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": transformer},
            {"idx": 1, "name": "1", "path": POOLING_FOLDER, "type": POOLING},
            {"idx": 2, "name": "2", "path": HEAD_FOLDER, "type": HEAD},
        ],
    )
    (folder / POOLING_FOLDER).mkdir()
    pooling = {
        "word_embedding_dimension": int(description["hidden_size"]),
        **{f"pooling_mode_{mode}": name == backbone.pooling for name, mode in _POOLINGS.items()},
        "include_prompt": True,
    }
    _write(folder / POOLING_FOLDER / "config.json", pooling)
    record = {**run.record, "backbone_source": run.record["backbone"]}  # a local path is nobody else's business
    heads.save(run.load(), folder / HEAD_FOLDER, record)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _copy_backbone(source: Path, folder: Path) -> None:
    """Copy configuration, tokenizer and safetensors weights; nothing that could run, nothing pickled."""
    for path in sorted(source.iterdir()):
        if path.name in _FILES or path.suffix == ".safetensors":
            shutil.copyfile(path, folder / path.name)


def _settings(prompt: str) -> dict[str, Any]:
    return {
        "__version__": {"sentence_transformers": extras.sentence_transformers().__version__},
        "model_type": "SentenceTransformer",
        "prompts": {"query": prompt, "document": prompt},
        "default_prompt_name": "document" if prompt else None,
        "similarity_fn_name": "cosine",
    }


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_folder(folder: Path, texts: list[str], expected: NDArray[np.float32], dims: tuple[int, ...]) -> Checked:
    """Load what was written with sentence-transformers and compare every prefix with the run's own embeddings.

    :param expected: full embeddings [n, D] of the texts.
    :raises PipelineError: if a prefix differs by more than rounding explains.
    """
    with _quiet():
        model = load_model(folder, device="cpu")
    worst = 0.0
    for dim in dims:
        model.truncate_dim = dim
        found = np.asarray(model.encode(texts, show_progress_bar=False))
        prefix = expected[:, :dim]
        own = prefix / np.linalg.norm(prefix, axis=1, keepdims=True)
        worst = max(worst, float(np.abs(found - own).max()))
    if not worst <= BROKEN:
        raise PipelineError(
            f"sentence-transformers gives other embeddings than the run, {worst:.3g} apart",
            "export as parquet instead, and please report this backbone",
        )
    return Checked(len(texts), worst)


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and warnings of transformers' own: what they would say is compared."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    theirs = getLogger("sentence_transformers")
    before = theirs.level
    theirs.setLevel(ERROR)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        theirs.setLevel(before)
        if bars:
            logging.enable_progress_bar()
