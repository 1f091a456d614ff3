"""README and docs: links and paths exist, commands and options exist, code blocks run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import polars as pl
import pytest

from pipeline.cli import cli

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
TESTED_ELSEWHERE = {"store-format.md", "use-it-elsewhere.md", "databases.md", "decoder.md"}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(path: Path, *languages: str) -> Iterator[str]:
    for language, body in FENCE.findall(path.read_text(encoding="utf-8")):
        if language in languages:
            yield body


def commands(path: Path) -> Iterator[list[str]]:
    """Every `pipeline ...` line of a shell block, comments and environment left out."""
    for body in blocks(path, "shell", "bash", "console"):
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and words[0] == "pipeline":
                yield words[1:]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_paths_exist(path):
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not re.match(r"\w+:", target):
            assert (path.parent / target).exists(), target
    folders = "pipeline|cache|heads|data|tests|benchmarks|scripts|docs|examples|semantic_zoom"
    for named in re.findall(rf"`((?:{folders})/[\w./-]+)`", text):
        assert (ROOT / named).exists() or "<" in named, named


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_their_options_exist(path):
    for words in commands(path):
        command: click.Command = cli
        with click.Context(cli) as context:
            while isinstance(command, click.Group) and words:
                found = command.get_command(context, words[0])
                assert found is not None, words
                command, words = found, words[1:]
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in options | {"--help"}, (command.name, word)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_blocks_run(path, tmp_path, monkeypatch):
    """The blocks of one document run one after the other, in a folder of their own, with texts and labels given."""
    found = list(blocks(path, "python"))
    if not found or path.name in TESTED_ELSEWHERE:
        return
    monkeypatch.chdir(tmp_path)
    namespace = given()
    rows = [(text, *path) for text, path in zip(namespace["texts"], namespace["label_names"], strict=True)]
    pl.DataFrame(rows, schema=["text", "level0", "level1"], orient="row").write_csv("mine.csv")
    for body in found:
        exec(compile(body, str(path), "exec"), namespace)


def given() -> dict:
    """What the documents' blocks assume to be there: a few texts with their labels."""
    subjects = ("invoice", "refund", "delivery", "return")
    texts = [f"{subject} number {n} {word}" for subject in subjects for n in range(6) for word in ("late", "missing")]
    labels = [[subjects.index(text.split()[0]) // 2, subjects.index(text.split()[0])] for text in texts]
    names = [["money" if fine < 2 else "parcel", subjects[fine]] for _, fine in labels]
    return {
        "texts": texts,
        "labels": np.array(labels),
        "label_names": names,
    }
