"""`pipeline export`: a trained head for use elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import NameList, NumberList, backbone_options, run_options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.evaluation.scores import Score
    from pipeline.workspace.features import LabelledFeatures
    from pipeline.workspace.runs import Run

FORMATS = ("sentence-transformers", "onnx", "parquet", "faiss")
MODELS = FORMATS[:2]


@command("export", example="pipeline export --format sentence-transformers --output model")
@run_options
@click.option("--format", "kind", type=click.Choice(FORMATS), required=True, help="What to write.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder or file; nothing is replaced.")
@click.option("--dim", type=int, help="parquet, faiss: dimensions of the one embedding (default: all).")
@click.option("--dims", type=NumberList(int), help="parquet: a column per prefix of these dimensions, such as 64,256.")
@click.option(
    "--quantize",
    type=NameList(lambda: ("int8", "binary")),
    help="parquet, with --dims: int8, binary or int8,binary, each a further column per prefix.",
)
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="parquet, faiss: only these rows.")
@backbone_options
def COMMAND(session: Session, kind: str, output: Path, **options: Any) -> dict[str, Any]:
    """Write a run as a model (sentence-transformers, ONNX), or its vectors of the dataset (Parquet, FAISS index).

    A model holds backbone, pooling and head, needs nothing of this project, and is loaded and compared before it gets
    its name. Parquet: text, a column per level, split and, with --dims, an id and a unit vector per prefix; else row,
    key and one embedding. FAISS: an exact index of a prefix whose ids are the dataset's rows, and OUTPUT.rows.parquet,
    which says what they are.
    """
    from pipeline.evaluation.embeddings import run_scorable
    from pipeline.export.vectors import check_columns
    from pipeline.stages.run_asked import run_asked
    from pipeline.stages.with_progress import features_of, runs_to_judge

    if kind in MODELS and any(options[name] for name in ("dim", "dims", "quantize", "split")):
        raise click.UsageError(
            "--dim, --dims, --quantize and --split are for parquet and faiss; a model has every prefix: truncate_dim"
        )
    if options["dims"] and (kind != "parquet" or options["dim"]):
        raise click.UsageError("--dims is for parquet, and instead of --dim")
    if options["quantize"] and not options["dims"]:
        raise click.UsageError("--quantize adds columns to those of --dims: name the dimensions there")
    features = features_of(session, options)
    if kind not in MODELS:
        check_columns(features.dataset)
    run = run_asked(session, options, None if options["run_id"] else runs_to_judge(session, features, None))
    run_scorable(run, features)  # refuses a run of other features
    return (_model if kind in MODELS else _vectors)(session, run, features, output, kind, options)


def _model(
    session: Session, run: Run, features: LabelledFeatures, output: Path, kind: str, options: dict[str, Any]
) -> dict[str, Any]:
    import cache
    from pipeline.evaluation.embeddings import run_scorable
    from pipeline.evaluation.score import PROTOCOLS, score
    from pipeline.export.finished import MODEL_FORMAT, facts_of, finished_model, note
    from pipeline.export.head_modules import is_linear
    from pipeline.export.model_card import card_text
    from pipeline.export.onnx_folder import check_onnx, write_onnx
    from pipeline.export.sentence_transformers_folder import TOLERANCE, backbone_of, check_folder, write_folder
    from pipeline.terminal import extras
    from pipeline.workspace.outputs import check_output

    facts = facts_of(run, kind, {"model": MODEL_FORMAT})
    if done := finished_model(output, facts):
        session.console.show(f"{output}: complete already, of the same run")
        return {**done, "path": str(output)}
    check_output(output, force=None)
    extras.needed("sentence_transformers")
    if kind == "onnx":
        extras.needed("onnxruntime")
    named = options["backbone"]
    backbone, files = backbone_of(session.artifacts, run, named if named and Path(named).is_dir() else None)
    texts, stored = _compared(features)
    with session.console.progress("exporting") as bar:
        bar.update(0, 3, "scoring" if kind != "onnx" else "writing")
        scorable = run_scorable(run, features)
        scores = [] if kind == "onnx" else [score(scorable, protocol) for protocol in PROTOCOLS]
        with cache.store.atomic_folder(output) as partial:
            scratch = partial / ".traced"
            folder = scratch if kind == "onnx" else partial
            folder.mkdir(exist_ok=True)
            bar.update(1, 3, "writing")
            write_folder(
                folder,
                run,
                backbone,
                files,
                card_text(run, [one.to_json() for one in scores], output.name) if scores else "",
            )
            if kind == "onnx":
                write_onnx(partial, folder, run, output.name)
            bar.update(2, 3, "comparing")
            found: dict[str, Any] = {"format": kind, "path": str(output), "run": run.id}
            found |= {"dims": list(run.record["dims"]), "checked": len(texts)}
            if kind == "onnx":
                difference, traced = check_onnx(partial, folder, run, texts, stored)
                shutil.rmtree(scratch, ignore_errors=True)
                found |= {"difference": difference, "difference_from_traced": traced}
            else:
                difference = check_folder(partial, run, texts, stored)
                found |= {"difference": difference}
            found |= {"bytes": sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())}
            note(partial, facts, found)
    show = session.console.show
    show(f"{output}: {found['bytes'] / 1e6:,.0f} MB")
    # more than TOLERANCE only bfloat16 may differ: the check raises otherwise
    why = ", since its features were computed in bfloat16 and the export computes in float32"
    show(
        f"  checked on {len(texts)} texts: no number differs from the run's by more than {difference:.1e}"
        f"{why if difference > TOLERANCE else ''}; good to use"
    )
    if kind != "onnx":
        trusted = "" if is_linear(run.load()) else ", trust_remote_code=True"
        dim = needed_dim(scores[0])
        show(f"  SentenceTransformer({str(output)!r}, truncate_dim={dim}{trusted})")
        if dim < scores[0].dims[-1]:
            show(f"  {dim} dims are within one point of all {scores[0].dims[-1]} on every level")
        show("  and encode(..., normalize_embeddings=True): a prefix is not of length one by itself")
    return found


def needed_dim(scored: Score) -> int:
    """The shortest prefix that loses no more than a point on any level: what a reader of the line may cut to."""
    from pipeline.evaluation.metrics import smallest_prefix

    levels = zip(*(prefix.levels for prefix in scored.prefixes), strict=True)
    return max(smallest_prefix([level.accuracy for level in each], scored.dims) for each in levels)


def _compared(features: LabelledFeatures) -> tuple[list[str], NDArray[np.float32]]:
    """Test texts, the first eight, the shortest eight (a token too few tells most), the longest two; their features."""
    import numpy as np

    rows = features.dataset.split_rows("test")
    by_length = np.argsort([len(text) for text in features.dataset.texts_of(rows)], kind="stable")
    chosen = np.concatenate([rows[:8], rows[by_length[:8]], rows[by_length[-2:]]])
    return features.dataset.texts_of(chosen), features.gather(chosen, "test texts")[1]


def _vectors(
    session: Session, run: Run, features: LabelledFeatures, output: Path, kind: str, options: dict[str, Any]
) -> dict[str, Any]:
    from pipeline.export.finished import facts_of, own_index
    from pipeline.export.vectors import check_dims, embedded_rows, rows_file, write_faiss, write_parquet
    from pipeline.terminal import extras
    from pipeline.workspace.outputs import check_output, made_by

    split, dims, quantized = options["split"], options["dims"], options["quantize"] or ()
    dim = run.record["dims"][-1] if options["dim"] is None else options["dim"]
    check_dims(run, dims or (dim,))
    written = {"dims": list(dims)} if dims else {"dim": dim}
    more = {"quantized": list(quantized)} if dims else {}
    facts = facts_of(run, kind, {"split": split, **written, **more})
    if kind == "faiss":
        own = own_index(output, facts)
        check_output(rows_file(output), force=None, own=own)
    else:
        own = made_by(output) == facts
    check_output(output, force=None, own=own)
    if kind == "faiss":
        extras.needed("faiss")
    rows = embedded_rows(run, features, split)
    found = {"format": kind, "path": str(output), "run": run.id, "rows": rows.frame.height, **written, "split": split}
    if kind == "faiss":
        write_faiss(output, rows, dim, facts)
        session.console.show(f"{output}: {rows.frame.height:,} vectors, {dim} dims; rows: {rows_file(output)}")
        return {**found, "row_table": str(rows_file(output))}
    columns = write_parquet(output, rows, dims or dim, quantized, facts)
    session.console.show(f"{output}: {rows.frame.height:,} rows, columns {', '.join(columns)}")
    return {**found, "columns": columns}
