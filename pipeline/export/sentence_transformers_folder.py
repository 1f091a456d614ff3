"""A run as a sentence-transformers model: backbone, pooling and head in one folder that stands alone.

The folder holds the backbone's files as they are (the tokenizer with its end token built in), modules of
sentence-transformers, and the head (`head_modules.py`). It computes in float32. The backbone that is copied is proved
to be the one whose features the head was trained on, by its content, and the folder, before it gets its name, is loaded
by sentence-transformers and must give the run's own embeddings. That costs some seconds; a folder that is silently
wrong (another end token, another pooling) costs more.

Runs on bfloat16 features are exported in float32 too: two implementations of bfloat16 are as far apart as either is
from float32, and float32 is what every machine computes alike.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cache
from cache.backbone import Backbone, identity, locate, quiet_transformers, read_content, read_json, weight_files
from pipeline.errors import PipelineError
from pipeline.export.head_modules import POOLING, TRANSFORMER, write_head, write_json
from pipeline.terminal import extras
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.runs import Run

POOLING_FOLDER, RECORD = "1_Pooling", "training.json"
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
TOLERANCE = 2e-3
"""Difference in any dimension between what the folder gives and what the run gave that float16 features explain."""
ROUNDING = 0.04
"""Relative error of a feature that bfloat16 explains. With MiniLM's six layers it is 0.007 between two implementations
and 0.009 from float32, with 28 layers of Qwen3's shape 0.015; a missing end token is 0.1, missing special tokens are
0.4. What an error does depends on the head, so the limit is what noise of this size does to the embeddings: over 24
heads of MiniLM (v5, mrl and joint, fitted briefly and fully, three datasets) rounding stays at 0.2 to 0.4 of it, and a
missing end token at 3.5 to 13 times."""


def backbone_of(
    artifacts: Artifacts, run: Run, source: str | None = None, *, any_layer: bool = False
) -> tuple[Backbone, Path]:
    """The backbone that a run's features came from, and the folder of its files.

    :param source: where it is found now, if not where it was when the run was trained.
    :param any_layer: accept features of an inner layer too.
    :raises PipelineError: if what is found is another one, or the features are not of the last layer.
    :raises cache.CacheError: if it cannot be had.
    """
    description = run.record["features"]
    backbone = cache.resolve(source or run.record["backbone_source"])
    folder = locate(backbone.source, "")
    content = read_content(folder, backbone, artifacts.features)
    if not any_layer and int(description["layer"]) != content.layers:
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
    _copy_backbone(files, folder, backbone)
    _carry_end_token(folder, backbone)
    description = run.record["features"]
    write_json(
        folder / "sentence_bert_config.json",
        {
            "max_seq_length": backbone.max_length,
            **({"do_lower_case": True} if backbone.lowercase else {}),
            "model_kwargs": {"dtype": "float32"},
        },
    )
    write_json(folder / "config_sentence_transformers.json", _settings(run.record["prompt"]))
    (folder / POOLING_FOLDER).mkdir()
    pooling = {
        "word_embedding_dimension": int(description["hidden_size"]),
        **{f"pooling_mode_{mode}": name == backbone.pooling for name, mode in _POOLINGS.items()},
        "include_prompt": True,
    }
    write_json(folder / POOLING_FOLDER / "config.json", pooling)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": TRANSFORMER},
        {"idx": 1, "name": "1", "path": POOLING_FOLDER, "type": POOLING},
        *write_head(folder, run.load(), first=2),
    ]
    write_json(folder / "modules.json", modules)
    # a local path is nobody else's business
    write_json(folder / RECORD, {**run.record, "backbone_source": run.record["backbone"]})
    (folder / "README.md").write_text(card, encoding="utf-8")


def _copy_backbone(source: Path, folder: Path, backbone: Backbone) -> None:
    """Copy configuration, tokenizer and the weights that were fingerprinted; nothing that could run or is pickled."""
    small = [source / name for name in _FILES if (source / name).is_file()]
    for path in (*small, *weight_files(source, backbone)):
        shutil.copyfile(path, folder / path.name)


def _carry_end_token(folder: Path, backbone: Backbone) -> None:
    """Make the tokenizer in `folder` append the backbone's end token, unless it does.

    `cache` appends it by itself, once, whether the tokenizer file does or not; whoever else reads the folder knows
    nothing of that. The file's post-processor gets the token as a template, which truncation leaves room for. The class
    that transformers would pick for the architecture builds its tokenizer anew, without the template, so the
    configuration names the one that takes the file as it is.

    :raises PipelineError: if there is no tokenizer.json.
    """
    from tokenizers import Tokenizer, processors

    path = folder / "tokenizer.json"
    if backbone.end_token is None:
        return
    if not path.is_file():
        raise PipelineError(
            f"backbone {backbone.name} has no tokenizer.json to put its end token into",
            "save its tokenizer with transformers' save_pretrained, and embed again",
        )
    tokenizer = Tokenizer.from_file(str(path))
    if tokenizer.encode("a").ids[-1:] != [backbone.end_token]:
        token = tokenizer.id_to_token(backbone.end_token)
        template = processors.TemplateProcessing(
            single=f"$A {token}", pair=f"$A {token} $B {token}", special_tokens=[(token, backbone.end_token)]
        )
        before = tokenizer.post_processor
        both = template if before is None else processors.Sequence([before, template])
        content = json.loads(path.read_text(encoding="utf-8"))  # of a vocabulary with holes, save() writes to stdout
        content["post_processor"] = json.loads(both.__getstate__())
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    config: dict[str, Any] = read_json(folder / "tokenizer_config.json") or {}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    for name in ("add_eos_token", "add_bos_token"):
        config.pop(name, None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False), encoding="utf-8")


def _settings(prompt: str) -> dict[str, Any]:
    return {
        "__version__": {"sentence_transformers": extras.needed("sentence_transformers").__version__},
        "model_type": "SentenceTransformer",
        "prompts": {"query": prompt, "document": prompt},
        "default_prompt_name": "document" if prompt else None,
        "similarity_fn_name": "cosine",
    }


def check_folder(folder: Path, run: Run, texts: list[str], features: NDArray[np.float32]) -> float:
    """Load what was written with sentence-transformers and compare every prefix with the run's own embeddings.

    :param features: stored features [n, H] of the texts.
    :returns: the largest difference in any dimension of any prefix.
    :raises PipelineError: if a prefix differs by more than rounding explains: `TOLERANCE`, and for a run whose features
        were computed in bfloat16 as much as features that are `ROUNDING` away.
    """
    model = load_folder(folder)
    head, bfloat16 = run.load(), run.record["features"]["compute_dtype"] == "bfloat16"
    noisy = _noisy(features)
    difference, explained = 0.0, True
    for dim in head.dims:
        own = head.embed(features, dim=dim)
        given = model.encode(texts, truncate_dim=dim, normalize_embeddings=True, show_progress_bar=False)
        apart = np.nan_to_num(np.asarray(given) - own, nan=np.inf)
        worst, limit = float(np.abs(apart).max()), _mean_length(head.embed(noisy, dim=dim) - own)
        explained &= worst <= TOLERANCE or (bfloat16 and _mean_length(apart) <= limit)
        difference = max(difference, worst)
    if not explained:
        raise PipelineError(
            f"sentence-transformers gives other embeddings than the run, {difference:.2g} apart in a dimension",
            "export as parquet instead, and please report this backbone",
        )
    return difference


def _mean_length(rows: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(rows, axis=1).mean())


def _noisy(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move every feature by `ROUNDING` times its length, in a seeded direction."""
    noise = np.random.default_rng(0).standard_normal(features.shape, dtype=np.float32)
    noise *= ROUNDING * np.linalg.norm(features, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    return np.add(features, noise, dtype=np.float32)


def load_folder(folder: Path) -> Any:
    """The model in a folder that was just written, on the CPU."""
    with _quiet():
        return extras.needed("sentence_transformers").SentenceTransformer(
            str(folder), device="cpu", local_files_only=True, trust_remote_code=True
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and warnings of transformers' and sentence-transformers' own: what they would say is compared."""
    theirs = getLogger("sentence_transformers")
    before = theirs.level
    theirs.setLevel(ERROR)
    try:
        with quiet_transformers():
            yield
    finally:
        theirs.setLevel(before)
