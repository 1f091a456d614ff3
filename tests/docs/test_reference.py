"""The Python reference is whole: every public name stands in it and says what it is."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", ["semantic_zoom", "cache", "heads", "data"])
def test_every_public_name_stands_in_the_reference_and_has_a_docstring(package):
    module = import_module(package)
    listed = set(re.findall(rf"^::: {package}\.(\w+)$", PYTHON, re.MULTILINE))
    assert listed == set(module.__all__)
    for name in listed:
        public = getattr(module, name)
        assert public.__doc__ if callable(public) else f"`{package}.{name}`" in PYTHON, name
