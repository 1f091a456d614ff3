"""A model card is Markdown and code, whatever names are in it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise

from markdown_it import MarkdownIt

from pipeline.terminal.escape import one_line
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.runs import runs_by_id
from tests.pipeline.conftest import Pipeline


def test_names_are_quoted_where_they_would_be_code_or_markdown(fitted, tmp_path):
    from pipeline.export.model_card import card_text

    (run, *_) = runs_by_id(Artifacts(fitted.artifacts), [fitted.json("runs", "list")["runs"][0]["id"]])
    scores = [{**score, "run": run.id} for score in fitted.json("score", "--method", run.method)["scores"][:1]]
    hostile = ["a|b `c`", "\x1b]52;c;\n# d"]
    record = {**run.record, "levels": hostile, "backbone": "<script>", "prompt": "`|\n", "dataset": "*`|-1"}
    folder = 'mo del"); import os #'
    card = card_text(replace(run, record=record), scores, folder)
    assert f"SentenceTransformer({json.dumps(folder)}" in card
    assert "\x1b" not in card
    tokens = MarkdownIt("commonmark").enable("table").parse(card.split("---\n", 2)[2])
    cells = [
        "".join(token.content for token in after.children)
        for before, after in pairwise(tokens)
        if before.type == "th_open"
    ]
    assert cells == ["dims", *map(one_line, hostile), "module", "does"]
    shown = {token.type for inline in tokens for token in inline.children or ()}
    assert shown == {
        "text", "softbreak", "code_inline", "strong_open", "strong_close", "link_open", "link_close"
    }  # fmt: skip
    (title,) = (
        after.children for before, after in pairwise(tokens) if before.type == "heading_open" and before.tag == "h1"
    )
    assert "".join(token.content for token in title) == f"<script> with the {run.method} head for *`|"


def test_a_closed_form_is_not_said_to_be_trained(fitted, tmp_path):
    from pipeline.export.model_card import card_text

    copy = Pipeline(shutil.copytree(fitted.artifacts, tmp_path / "artifacts"), tmp_path)
    found = copy.json("fit-head", "--method", "lda")["runs"][0]["id"]
    (run,) = runs_by_id(Artifacts(copy.artifacts), [found])
    card = card_text(run, copy.json("score", "--method", "lda")["scores"], "model")
    assert "computed by a formula, without seed or epochs." in card
    assert "best epoch" not in card
    assert "trained on" not in card
