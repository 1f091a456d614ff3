"""The report as the command line shows it: what `pipeline report` does, and what `pipeline run` ends with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cache
from pipeline.command import Session
from pipeline.features import LabelledFeatures
from pipeline.report.material import gather, page_name
from pipeline.report.page import check_extra, page
from pipeline.runs import Run


def report_stage(
    session: Session,
    features: LabelledFeatures,
    runs: Sequence[Run],
    output: Path | None = None,
    *,
    galleries: bool = True,
) -> dict[str, Any]:
    """Write the page about these runs and say where it is.

    :param output: by default `reports/<dataset id>-<backbone>.html` in the artifacts folder.
    :param galleries: whether galleries that were not measured yet are.
    :returns: what `report --json` prints.
    :raises PipelineError: if the libraries of the extra `report` are not installed.
    """
    check_extra()
    material = gather(session, features, runs, galleries=galleries)
    path = output or session.artifacts.root / "reports" / f"{page_name(features)}.html"
    content = page(material).encode("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    with cache.atomic_file(path) as partial:
        partial.write_bytes(content)
    session.console.show(f"report: {path} ({len(content) / 1e6:.1f} MB, opens in any browser, needs no network)")
    return {
        "path": str(path),
        "bytes": len(content),
        "dataset": features.dataset.id,
        "backbone": features.backbone,
        "methods": list(material.methods),
        "seeds": list(material.seeds),
        "runs": [run.id for run in runs],
        "galleries": bool(material.cells),
        "retrieval": material.retrieval is not None,
        "claims": bool(material.claims),
        "explorer": None if material.explorer is None else {
            "texts": len(material.explorer.texts), "total": material.explorer.total,
            "methods": [view.name for view in material.explorer.views],
        },
    }  # fmt: skip
