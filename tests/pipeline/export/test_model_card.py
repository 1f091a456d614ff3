"""A model card is Markdown and code, whatever names are in it."""

from __future__ import annotations

import json
from itertools import pairwise

from markdown_it import MarkdownIt

from pipeline.terminal.escape import one_line
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.runs import runs_by_id


def test_names_are_quoted_where_they_would_be_code_or_markdown(fitted, tmp_path):
    from pipeline.export.model_card import card_text

    (run, *_) = runs_by_id(Artifacts(fitted.artifacts), [fitted.json("runs", "list")["runs"][0]["id"]])
    scores = [{**score, "run": run.id} for score in fitted.json("score", "--method", run.method)["scores"][:1]]
    hostile = ["a|b `c`", "\x1b]52;c;\n# d"]
    record = {**run.record, "levels": hostile, "backbone": "<script>", "prompt": "`|\n", "dataset": "*`|-1"}
    folder = 'mo del"); import os #'
    card = card_text(type(run)(run.folder, record), scores, folder)
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
    assert "".join(token.content for token in title) == f"<script> with a {run.method} head for *`|"
