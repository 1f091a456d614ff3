"""`pipeline export`: a trained head for use elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import backbone_options

if TYPE_CHECKING:
    from pipeline.workspace.features import LabelledFeatures
    from pipeline.workspace.runs import Run

FORMATS = ("sentence-transformers", "parquet", "faiss")


@command("export", example="pipeline export --method joint --seed 42 --format sentence-transformers --output model")
@click.option("--method", help="Method of the run (default: the one that the kept scores advise).")
@click.option("--seed", type=int, help="Seed of the run (default: the lowest there is).")
@click.option("--run", "run_id", help="The run itself, instead of method and seed.")
@click.option("--format", "kind", type=click.Choice(FORMATS), required=True, help="What to write.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder or file; must not exist.")
@click.option("--dim", type=int, help="parquet, faiss: dimensions of the embedding, a prefix (default: all).")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="parquet, faiss: only these rows.")
@backbone_options
def COMMAND(session: Session, kind: str, output: Path, **options: Any) -> dict[str, Any]:
    """Write a run as a sentence-transformers model, or its embeddings of the dataset as Parquet or a FAISS index.

    The model holds backbone, pooling and head, a card with its scores, and is loaded and compared before it gets its
    name. Parquet: row, text, a column a level, split, key, embedding. FAISS: an exact index of the prefix whose ids are
    the dataset's rows, and OUTPUT.rows.parquet, which says what they are. `heads.load(PATH)` reads the head of any run.
    """
    from pipeline.export.vectors import check_columns, check_dim
    from pipeline.stages.with_progress import features_of

    if kind == "sentence-transformers" and (options["dim"] or options["split"]):
        raise click.UsageError("--dim and --split are for parquet and faiss; a model has every prefix: truncate_dim")
    _check_free(output, kind)
    features = features_of(session, options)
    if kind != "sentence-transformers":
        check_columns(features.dataset)
    run = _run(session, features, options)
    output.parent.mkdir(parents=True, exist_ok=True)
    if kind == "sentence-transformers":
        return _model(session, run, features, output, options)
    dim = run.record["dims"][-1] if options["dim"] is None else options["dim"]
    check_dim(run, dim)
    return _vectors(session, run, features, output, kind, dim, options["split"])


def _check_free(output: Path, kind: str) -> None:
    from pipeline.errors import PipelineError
    from pipeline.export.vectors import rows_file

    for path in (output, rows_file(output)) if kind == "faiss" else (output,):
        if path.exists():
            raise PipelineError(f"{path} is already there", "name another --output, or move it away first")


def _run(session: Session, features: LabelledFeatures, options: dict[str, Any]) -> Run:
    from pipeline.evaluation.advised_run import advised_run
    from pipeline.evaluation.embeddings import run_scorable
    from pipeline.stages.with_progress import runs_to_judge
    from pipeline.workspace.runs import runs_by_id
    from pipeline.workspace.select_run import chosen_line

    method, seed = options["method"], options["seed"]
    if options["run_id"] and (method or seed is not None):
        raise click.UsageError("--run names a run by itself: leave out --method and --seed")
    if options["run_id"]:
        runs = runs_by_id(session.artifacts, [options["run_id"]])
        run_scorable(runs[0], features)  # refuses a run of other features
    else:
        runs = runs_to_judge(session, features, None)
    run, why = advised_run(runs, method, seed)
    session.console.say(chosen_line(run, runs, method, seed, why))
    return run


def _model(
    session: Session, run: Run, features: LabelledFeatures, output: Path, options: dict[str, Any]
) -> dict[str, Any]:
    import cache
    from pipeline.evaluation.embeddings import run_scorable
    from pipeline.evaluation.score import PROTOCOLS, score
    from pipeline.export.model_card import Card
    from pipeline.export.sentence_transformers_folder import TOLERANCE, backbone_of, check_folder, write_folder
    from pipeline.terminal import extras

    extras.sentence_transformers()
    named = options["backbone"]
    backbone, files = backbone_of(session.artifacts, run, named if named and Path(named).is_dir() else None)
    scorable = run_scorable(run, features)
    with session.console.progress("exporting") as bar:
        bar.update(0, 3, "scoring")
        scores = [score(scorable, protocol) for protocol in PROTOCOLS]
        card = Card(run, session.artifacts.dataset_source(features.dataset.id), scores, output.name).text()
        texts = _compared([features.dataset.texts[row] for row in features.dataset.split_rows("test")])
        with cache.store.atomic_folder(output) as partial:
            bar.update(1, 3, "writing")
            write_folder(partial, run, backbone, files, card)
            bar.update(2, 3, "comparing")
            checked = check_folder(partial, run, texts, _stored(features, texts))
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    if checked.difference > TOLERANCE:  # which only bfloat16 may
        session.console.say(
            f"{checked.difference:.1e} from the run's own embeddings: bfloat16 on another machine or version than "
            "embedded them; features of `embed --dtype float32` do not depend on these"
        )
    show = session.console.show
    show(f"{output}: {size / 1e6:,.0f} MB, {checked.difference:.1e} at most from the run on {checked.texts} texts")
    show(f'  SentenceTransformer("{output}", truncate_dim={run.record["dims"][0]}, trust_remote_code=True)')
    return {
        "format": "sentence-transformers",
        "path": str(output),
        "run": run.id,
        "dims": list(run.record["dims"]),
        "checked": checked.texts,
        "difference": checked.difference,
        "bytes": size,
    }


def _compared(texts: list[str]) -> list[str]:
    """The first eight and the shortest eight, for in a short text a token too few tells most."""
    return [*texts[:8], *sorted(texts, key=len)[:8]]


def _stored(features: LabelledFeatures, texts: list[str]) -> Any:
    import numpy as np

    import cache

    return features.store.gather(cache.text_keys(texts, features.source.prompt)).astype(np.float32)


def _vectors(
    session: Session, run: Run, features: LabelledFeatures, output: Path, kind: str, dim: int, split: str | None
) -> dict[str, Any]:
    from pipeline.export.vectors import embedded_rows, rows_file, write_faiss, write_parquet
    from pipeline.terminal import extras

    if kind == "faiss":
        extras.faiss()
    rows = embedded_rows(run, features, dim, split)
    found = {"format": kind, "path": str(output), "run": run.id, "rows": rows.frame.height, "dim": dim, "split": split}
    if kind == "faiss":
        write_faiss(output, rows)
        session.console.show(f"{output}: {rows.frame.height:,} vectors, {dim} dims; rows: {rows_file(output)}")
        return {**found, "row_table": str(rows_file(output))}
    write_parquet(output, rows)
    columns = [*rows.frame.columns, "embedding"]
    session.console.show(f"{output}: {rows.frame.height:,} rows, {dim} dims, columns {', '.join(columns)}")
    return {**found, "columns": columns}
