"""Imports go one way: semantic_zoom -> pipeline -> heads, cache, data; the three know nothing of one another."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"semantic_zoom", "pipeline", "heads", "cache", "data"}
ALLOWED = {
    "semantic_zoom": PACKAGES,
    "pipeline": PACKAGES - {"semantic_zoom"},
    "heads": {"heads"},
    "cache": {"cache"},
    "data": {"data"},
}
FORBIDDEN = {"data": {"torch", "transformers"}, "cache": {"polars"}, "heads": {"polars", "h5py", "transformers"}}


def imported_by(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_a_package_imports_only_what_lies_below_it(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        imported = imported_by(path)
        assert imported & PACKAGES <= ALLOWED[package], path
        assert not imported & FORBIDDEN.get(package, set()), path


def test_modules_form_no_circle_not_even_for_types():
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    graph = {}
    for name, path in files.items():
        nodes = list(ast.walk(ast.parse(path.read_text())))
        found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        for node in (node for node in nodes if isinstance(node, ast.ImportFrom)):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        graph[name] = found & files.keys() - {name}
    assert any(graph.values())
    list(TopologicalSorter(graph).static_order())  # CycleError names the circle


@pytest.mark.parametrize("package", ["data", "cache", "heads", "pipeline.cli", "semantic_zoom"])
def test_importing_a_package_does_not_load_torch(package):
    code = f"import sys, {package}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
