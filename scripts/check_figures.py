"""Every figure of README and findings comes from a file that a command wrote.

    python scripts/check_figures.py            # prints what no file supports, exits 1 if there is something

`benchmarks/results/manifest.toml` ties a passage of a document to fields of JSON files beside it: `{0}`, `{1}`, ...
in the passage stand for the values, formatted as it says. The passage must stand in the document exactly so. A number
with a decimal point, a per cent sign or a unit of time or rate that no passage covers is a finding too.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CHECKED = ("README.md",)
FIGURE = re.compile(
    r"(?<![\w./])[-+]?\d[\d,]*(?:\.\d+)?(?=\s*(?:%|points?\b|times\b|s\b|ms\b|min\b|GB\b|MB\b|texts/s))|(?<![\w./])\d+\.\d+(?![\w.])"
)


@cache
def read(name: str) -> Any:
    """The JSON value of a results file."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def value_of(field: str) -> Any:
    """The value at `file.json#key.key.3.key`."""
    name, _, path = field.partition("#")
    value = read(name)
    for step in path.split("."):
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


def main() -> int:
    """Check every passage, then every figure outside of them."""
    manifest = tomllib.loads((RESULTS / "manifest.toml").read_text(encoding="utf-8"))["passage"]
    findings = []
    covered: dict[str, str] = {name: prose((ROOT / name).read_text(encoding="utf-8")) for name in CHECKED}
    for passage in manifest:
        document, text = passage["document"], passage["text"]
        values = [value_of(field) * passage.get("times", 1) for field in passage["fields"]]
        spelled = text.format(*values)
        content = (ROOT / document).read_text(encoding="utf-8")
        if spelled not in content:
            findings.append(f"{document}: '{spelled}' is what {', '.join(passage['fields'])} says, not the document")
        if document in covered:
            covered[document] = covered[document].replace(spelled, "")
    for document, rest in covered.items():
        for number, line in enumerate(rest.splitlines(), 1):
            findings += [f"{document}:{number}: no file supports '{found[0]}'" for found in FIGURE.finditer(line)]
    for finding in findings:
        print(finding)
    return int(bool(findings))


def prose(text: str) -> str:
    """A document without code blocks and what stands in backticks; line numbers stay."""
    text = re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`|\]\([^)]*\)", "", text)


if __name__ == "__main__":
    sys.exit(main())
