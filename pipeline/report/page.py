"""The page put together: one HTML file with its styles, scripts, charts and data inside, and nothing fetched, ever.

The content security policy names the hash of each script, so that nothing else runs, whatever stands in the data, and
forbids every connection. Vega is 0.9 MB and embedded once; its expressions are interpreted instead of compiled, for
compiling would need the policy to allow eval. The alternative, charts drawn to SVG beforehand, would need no script but
fit one width and one colour scheme.

The report as the command line shows it: what `pipeline report` does, and what `pipeline run` ends with.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import cache
from pipeline.report import provenance
from pipeline.report.collect import ReportData, gather, page_name, page_title
from pipeline.report.html import Section, tag
from pipeline.terminal import extras
from pipeline.terminal.command import Session
from pipeline.terminal.escape import shown_on_page
from pipeline.workspace.features import LabelledFeatures
from pipeline.workspace.kept_arrays import keep_arrays, read_arrays
from pipeline.workspace.outputs import check_output
from pipeline.workspace.runs import Run


def report_stage(
    session: Session,
    features: LabelledFeatures,
    runs: Sequence[Run],
    output: Path | None = None,
    *,
    galleries: bool = True,
) -> dict[str, Any]:
    """Write the page about these runs and say where it is.

    :param output: by default `reports/<page name>.html` in the artifacts folder (`collect.page_name`).
    :param galleries: whether galleries that were not measured yet are.
    :returns: what `report --json` prints.
    :raises PipelineError: if the libraries of the extra `report` are not installed.
    """
    check_extra()
    path = output or session.artifacts.root / "reports" / f"{page_name(features)}.html"
    check_output(path, own=True)
    with ThreadPoolExecutor(1) as beside:  # the charts' script, a second where none is kept
        vega = beside.submit(vega_bundle, session.artifacts.root)
        report_data = gather(session, features, runs, galleries=galleries)
    content = page(report_data, vega.result()).encode("utf-8")
    with cache.store.atomic_file(path) as partial:
        partial.write_bytes(content)
    session.console.show(f"report: {path} ({len(content) / 1e6:.1f} MB, opens in any browser, needs no network)")
    return {
        "path": str(path),
        "bytes": len(content),
        "dataset": features.dataset.id,
        "backbone": features.backbone,
        "methods": list(report_data.methods),
        "seeds": list(report_data.seeds),
        "runs": [run.id for run in runs],
        "galleries": bool(report_data.cells),
        "retrieval": report_data.retrieval is not None,
        "claims": bool(report_data.claims),
        "explorer": None if report_data.explorer is None else {
            "texts": len(report_data.explorer.texts), "total": report_data.explorer.total,
            "methods": [view.name for view in report_data.explorer.views],
        },
    }  # fmt: skip


TEMPLATES = Environment(
    loader=PackageLoader("pipeline.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    finalize=lambda value: value if isinstance(value, Markup) else shown_on_page(value),
)
TEMPLATES.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
_VEGA = "window.drawChart = (place, spec, options) => vegaEmbed(place, spec, options);"


def check_extra() -> None:
    """Refuse to begin without the chart libraries.

    :raises PipelineError: if they are not installed.
    """
    extras.needed("altair")
    extras.needed("vl_convert")


def is_page_of(path: Path, features: LabelledFeatures) -> bool:
    """Whether a file is a page about the same dataset, backbone and layer: a rerun replaces it unasked."""
    try:
        return f"<title>{page_title(features)}</title>" in path.read_text("utf-8", errors="replace")
    except OSError:
        return False


def page(report_data: ReportData, vega: str) -> str:
    """The whole page, with `vega` as the script that draws charts.

    The same material gives the same bytes, but for the line with the day.
    """
    from pipeline.report.sections import sections  # these draw with altair, an extra
    from pipeline.report.summary import answer_section, summary

    shown = [
        answer_section(report_data),
        explorer_section(report_data),
        summary(report_data),
        *sections(report_data),
        provenance.claims(report_data),
        provenance.settings(report_data),
    ]
    present = [section for section in shown if section is not None]
    scripts = (vega, _source("explorer.js"), _source("charts.js"))
    return TEMPLATES.get_template("page.html").render(
        data=report_data,
        title=page_title(report_data.features),
        sections=present,
        charts=shown_on_page({figure.place: figure.spec for section in present for figure in section.figures}),
        explorer=report_data.explorer and shown_on_page(report_data.explorer.to_json()),
        style=Markup(_source("style.css")),
        scripts=[Markup(text) for text in scripts],
        hashes=[_hash(text) for text in scripts],
        today=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def explorer_section(report_data: ReportData) -> Section | None:
    """The place of the semantic zoom explorer; nothing where there are too few test texts for a map."""
    explorer = report_data.explorer
    if explorer is None:
        return None
    coarse, fine = report_data.levels[0], report_data.levels[-1]
    sampled = "" if explorer.total == len(explorer.texts) else f", a seeded sample of the {explorer.total:,} there are"
    seeds = {view.seed for view in explorer.views if view.seed is not None}
    kinds = f"what shares its {fine}, what only its {coarse}, and what nothing"
    if len(report_data.levels) == 1:
        kinds = f"what shares its {fine} and what does not"
    words = (
        f"Each point is one of {len(explorer.texts):,} test texts{sampled}; texts whose embeddings are neighbours lie "
        "together. Choose one (click, search, or the arrow keys on a map) and see its ten nearest others at the prefix "
        f"that the slider says: {kinds}."
    )
    if seeds:
        words += f" Heads of seed {', '.join(map(str, sorted(seeds)))}."
    if explorer.left_out:
        chosen = " (--methods chooses)" if {*explorer.left_out} - {*report_data.untrained} else ""
        words += f" Left out for want of room: {', '.join(explorer.left_out)}{chosen}."
    note = (
        "Distances in a map mean little (it is a drawing of the ten nearest neighbours, as t-SNE makes one); the lists "
        "are exact, by cosine of the prefixes."
    )
    body = tag(
        "div", tag("p", words), Markup(TEMPLATES.get_template("explorer.html").render()), tag("p", note, class_="note")
    )
    return Section("explorer", "See it: the explorer", body)


def vega_bundle(artifacts: Path) -> str:
    """Vega, Vega-Lite and vega-embed with all they need, as one script.

    Putting it together takes two seconds, so it is kept beside the pages, under the version of what made it.
    """
    kept = artifacts / "reports" / f".vega-{version('vl-convert-python')}.npz"
    found = read_arrays(kept, ("script",))
    if found is not None:
        return found["script"].tobytes().decode("utf-8")
    import vl_convert

    made = str(vl_convert.javascript_bundle(_VEGA)).replace("\r", "").replace("</script", "<\\/script")
    keep_arrays(kept, {"script": np.frombuffer(made.encode("utf-8"), np.uint8)})
    return made


def _source(name: str) -> str:
    return files("pipeline.report").joinpath("templates", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
