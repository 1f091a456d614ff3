"""Words, sentence length and numbers in parentheses of the README are counted; RESULTS.md keeps short lines."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def without_code(text: str) -> str:
    """Without fenced blocks, pictures, and the targets of links."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"\]\([^)]*\)", "]", re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text))


def sentences(text: str) -> list[str]:
    """Sentences of paragraphs and list items; tables and headings have none."""
    lines = (line for line in without_code(text).splitlines() if not line.startswith(("|", "#")))
    blocks = re.split(r"\n\s*\n|\n(?=- )", "\n".join(lines))
    found = (re.split(r"(?<=[.!?])[*_]*\s+", " ".join(block.split())) for block in blocks)
    return [sentence for block in found for sentence in block if re.search(r"\w", sentence)]


def test_readme_has_at_most_900_words_beside_its_code():
    assert 500 <= len(re.findall(r"\S*\w\S*", without_code(README))) <= 900


def test_sentences_of_the_readme_have_17_words_on_average():
    lengths = [len(re.findall(r"\S*\w\S*", sentence)) for sentence in sentences(README)]
    assert len(lengths) > 30
    assert sum(lengths) / len(lengths) <= 17, sorted(sentences(README), key=len)[-3:]


def test_no_parenthesis_of_the_readme_holds_two_numbers():
    inside = re.findall(r"\(([^()]*)\)", without_code(README))
    assert not [text for text in inside if len(re.findall(r"\d[\d,.]*", text)) > 1]


def test_the_example_from_python_has_eight_lines():
    example = README.split("## From Python\n")[1].split("```python\n")[1].split("```")[0]
    assert len(list(filter(None, example.splitlines()))) <= 8


def test_results_have_short_lines_outside_tables():
    lines = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if len(line) > 130 and not line.startswith("|")]
