"""Stage one as the command line shows it: a progress bar, the choices made, and what was done.

Apart from the other stages (`pipeline.stages.with_progress`), so that `embed` loads nothing of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cache
from pipeline.stages.embed import Embedded, EmbeddedTexts, embed, embed_corpus, embed_request, reading_lines
from pipeline.stages.given_features import store_given
from pipeline.terminal.command import Session
from pipeline.terminal.console import duration
from pipeline.workspace.artifacts import DatasetSource


def rate_of(progress: cache.EmbedProgress) -> str:
    """Texts per second, once there is a rate to speak of."""
    return f"{progress.texts_per_second:,.0f} texts/s" if progress.texts_per_second else progress.stage


def embed_stage(
    session: Session, source: DatasetSource, options: Mapping[str, Any], layers: Sequence[int] = (-1,)
) -> Embedded:
    """Stage one, shown, on the engine that `options` name, if they name one."""
    request = embed_request(session.artifacts, _with_backbone(session, options), layers)
    with session.console.progress("embedding") as bar:
        embedded = embed(session.artifacts, source, request, lambda p: bar.update(p.done, p.total, rate_of(p)))
    embedded = _coarsened(session, source, embedded, options)
    show_embedded(session, embedded)
    return embedded


def _coarsened(session: Session, source: DatasetSource, embedded: Embedded, options: Mapping[str, Any]) -> Embedded:
    """With the coarse level that --make-coarse asks for, if it does."""
    count = options.get("make_coarse")
    if count is None:
        return embedded
    from pipeline.stages.coarse_level import with_coarse_level

    return with_coarse_level(session.artifacts, source, embedded, count)


def given_stage(
    session: Session, source: DatasetSource, path: Path, name: str | None, options: Mapping[str, Any]
) -> Embedded:
    """Stage one for vectors that were made elsewhere, shown."""
    embedded = store_given(session.artifacts, source, path, name, session.console.say, bits=options["bits"])
    embedded = _coarsened(session, source, embedded, options)
    show_embedded(session, embedded)
    return embedded


def corpus_stage(
    session: Session, corpus: Any, options: Mapping[str, Any], layers: Sequence[int] = (-1,)
) -> EmbeddedTexts:
    """Stage one for texts without labels, on a cluster, shown."""
    request = embed_request(session.artifacts, _with_backbone(session, options), layers)
    with session.console.progress("embedding") as bar:
        embedded = embed_corpus(corpus, request, lambda p: bar.update(p.done, p.total, rate_of(p)))
    show_embedded(session, embedded)
    return embedded


def _with_backbone(session: Session, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options with a backbone: the one named, else the default that is at hand, said if it is not the first."""
    if options["backbone"] is not None:
        return options
    name, why = cache.backbone.at_hand()
    if why:
        session.console.say(f"{why}: {name} is used instead (--backbone names another)")
    return {**options, "backbone": name}


def show_embedded(session: Session, embedded: EmbeddedTexts) -> None:
    """Warnings and choices, and what an embed did."""
    for line in (*embedded.warnings, *embedded.report.notes, *reading_lines(embedded.reading, embedded.backbone.name)):
        session.console.say(line)
    for line in embed_lines(embedded):
        session.console.show(line)


def embed_lines(embedded: EmbeddedTexts) -> list[str]:
    """What an embed did: texts, tokens, and where the seconds went."""
    report = embedded.report
    lines = [
        f"{embedded.dataset_id} through {embedded.backbone.name}: {report.texts:,} texts, "
        f"{report.computed:,} computed, {report.reused:,} reused, {duration(report.seconds)}"
    ]
    if report.computed and report.nodes:  # vectors of a file or a server have no tokens here
        stages = ", ".join(f"{name} {duration(seconds)}" for name, seconds in report.stages.items() if seconds >= 0.05)
        padding = report.padding / (report.nodes + report.padding)
        shared = (
            f", {report.nodes:,} of them computed: texts that begin alike share" if report.nodes < report.tokens else ""
        )
        lines.append(
            f"  {report.tokens:,} tokens{shared}, padding {padding:.1%}, "
            f"{report.computed / report.seconds:,.0f} texts/s on {report.device} in {report.dtype}"
        )
        lines.append(f"  time: {stages}")
    return lines + [f"  features of layer {layer.layer}: {layer.folder}" for layer in report.stores]
