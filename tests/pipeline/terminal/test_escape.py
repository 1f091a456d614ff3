"""What comes from data is shown, never obeyed: on a terminal, in Markdown, in code."""

import ast
import json
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipeline.terminal.escape import code_literal, code_span, markdown_text, one_line, shown

MARKDOWN = MarkdownIt("gfm-like", {"linkify": False})
HOSTILE = "\x1b]52;c;ZXZpbA==\x07 \x1b[2J\u202eevil\u2066 \x9b31m \x00\x7f"


@given(st.text(st.characters(categories=("Cc", "Cf", "Cs", "L", "Zs"))) | st.just(HOSTILE))
def test_no_control_character_gets_through_and_plain_text_stays(text):
    escaped = shown(text)
    assert not [c for c in escaped if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"]
    assert not [c for c in escaped if unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI")]
    assert shown(escaped) == escaped
    assert "\n" not in one_line(text)


@pytest.mark.parametrize("text", ["שלום", "中文 🙂 👩‍👩‍👧", "naïve café", "a\tb\nc"])
def test_letters_of_any_script_and_emoji_stay(text):
    assert shown(text) == text


@given(st.text())
def test_a_literal_is_read_back_by_python_and_json(text):
    assert json.loads(code_literal(text)) == text
    assert code_literal(text).isascii()
    if not any("\ud800" <= c <= "\udfff" or ord(c) > 0xFFFF for c in text):
        assert ast.literal_eval(code_literal(text)) == text


def test_a_name_cannot_leave_its_literal():
    assert code_literal('mo del"); import os #') == '"mo del\\"); import os #"'


MARKUP = st.lists(st.sampled_from([*"`|*_[]()<>#+-=~&!:.1a \n\\", "http://a.b", "www.a.b", "<b>", "&lt;", "\x1b]52;"]))


@given(MARKUP.map("".join) | st.text(st.characters(exclude_categories=["Cs"])) | st.just(HOSTILE))
def test_markdown_shows_the_text_and_takes_nothing_in_it_for_markup(text):
    text = one_line(text)
    line, cell = f"{markdown_text(text)} {code_span(text)}", f"| a |\n|---|\n| {markdown_text(text)} |"
    paragraph = [token for token in MARKDOWN.parse(line) if token.type == "inline"]
    assert len(paragraph) == 1
    words, code = paragraph[0].children[:-1], paragraph[0].children[-1]
    assert {token.type for token in words} <= {"text", "text_special"}
    assert "".join(token.content for token in words).rstrip(" ") == text
    assert (code.type, code.content) == ("code_inline", text) or not text
    (_, body) = (token for token in MARKDOWN.parse(cell) if token.type == "inline")
    assert "".join(token.content for token in body.children) == text


def test_plain_names_stay_as_they_are():
    assert markdown_text("all-MiniLM-L6-v2 (level_0), 50 %!") == "all-MiniLM-L6-v2 (level_0), 50 %!"
    assert code_span("a`b``c") == "``` a`b``c ```"


def test_the_console_shows_what_tables_lines_and_errors_hold():
    code = (
        "from pipeline.terminal.console import Console; from rich.table import Table; from rich.text import "
        f"Text; t = {HOSTILE!r}; c = Console(False); table = Table(t, title=t); table.add_row(t); "
        "table.add_row(Text(t)); c.show(table); c.show(t); c.say(t); c.error(t, t)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"COLUMNS": "200", "PATH": ""}
    )
    printed = done.stdout + done.stderr
    assert not [c for c in printed if unicodedata.category(c) == "Cc" and c != "\n"]
    assert "\u202e" not in printed
    assert printed.count("\\x1b]52;c;ZXZpbA==") == 8
