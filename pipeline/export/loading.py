"""An exported model loaded without leave to run anything: the classes that it may name are listed here.

sentence-transformers imports what `modules.json` names once it is told `trust_remote_code=True`, and lets a checkpoint
bring code of its own along. For a folder from elsewhere that is much to grant. This loads the same model from the four
classes that an export consists of, and refuses any other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from heads import HeadsError
from pipeline.errors import PipelineError
from pipeline.terminal import extras

TRANSFORMER, POOLING = "sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"
PACKED, HEAD = "pipeline.export.packed.PackedTransformer", "heads.exported.ExportedHead"


def load_model(folder: str | Path, truncate_dim: int | None = None, device: str | None = None) -> Any:
    """Load what `pipeline export --format sentence-transformers` wrote, as a SentenceTransformer.

    :param truncate_dim: prefix that `encode` returns, as unit vectors; the full vector by default.
    :param device: as torch names it; by default what sentence-transformers finds best.
    :raises PipelineError: if the folder is no such model, is damaged, or names another class.
    :raises heads.HeadsError: if the head in it is damaged.
    """
    library, root = extras.sentence_transformers(), Path(folder)
    settings = _read(root / "config_sentence_transformers.json")
    if not isinstance(settings, dict):
        raise _damaged(root / "config_sentence_transformers.json", "holds no settings")
    parts = [_part(root, row) for row in _rows(root)]
    return library.SentenceTransformer(
        modules=parts,
        device=device,
        truncate_dim=truncate_dim,
        prompts=settings.get("prompts"),
        default_prompt_name=settings.get("default_prompt_name"),
        similarity_fn_name=settings.get("similarity_fn_name"),
    )


def _rows(root: Path) -> list[dict[str, Any]]:
    rows = _read(root / "modules.json")
    if not isinstance(rows, list) or not rows or not all(_inside(root, row) for row in rows):
        raise _damaged(root / "modules.json", "is no list of modules of this folder")
    return rows


def _inside(root: Path, row: Any) -> bool:
    path = row.get("path") if isinstance(row, dict) else None
    return isinstance(path, str) and (root / path).resolve().is_relative_to(root.resolve())


def _part(root: Path, row: dict[str, Any]) -> Any:
    kind = _class(str(row.get("type")), root)
    try:
        return kind.load(str(root), subfolder=row["path"])
    except HeadsError:
        raise
    except Exception as error:  # sentence-transformers, transformers, tokenizers and safetensors each raise their own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise _damaged(root / row["path"], f"cannot be loaded as {kind.__name__} ({reason})") from error


def _class(name: str, root: Path) -> Any:
    # sentence-transformers writes the classes' later names when it saves a model again
    if name.endswith(".Transformer") and name.startswith("sentence_transformers."):
        return extras.needed("sentence_transformers.models", "sentence-transformers").Transformer
    if name.endswith(".Pooling") and name.startswith("sentence_transformers."):
        return extras.needed("sentence_transformers.models", "sentence-transformers").Pooling
    if name == PACKED:
        from pipeline.export.packed import PackedTransformer

        return PackedTransformer
    if name == HEAD:
        from heads.exported import ExportedHead

        return ExportedHead
    raise PipelineError(
        f"{root / 'modules.json'} names {name}, which is no part of an export",
        "if you trust that folder, load it with SentenceTransformer(..., trust_remote_code=True)",
    )


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PipelineError(f"{path} cannot be read ({error})", "name a folder that `pipeline export` wrote") from error


def _damaged(path: Path, what: str) -> PipelineError:
    return PipelineError(f"{path} {what}", "export the run again")
