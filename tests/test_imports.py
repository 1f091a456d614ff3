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


LAYERS = {
    "cache": [
        {"errors", "lazy", "devices", "progress"},
        *(
            {name}
            for name in (
                "store",
                "backbone",
                "compute_dtype",
                "plan",
                "batching",
                "model",
                "workers",
                "lookup",
                "endpoint",
                "embedding",
                "cluster",
            )
        ),
    ],
    "pipeline": [{name} for name in ("workspace", "evaluation", "terminal", "stages", "claims", "report", "commands")],
}
# of heads and data, what pipeline takes from a module instead of from what the package exports: nothing to be added
BY_PATH = {
    "data.files.several",
    "data.summary",
    "heads.exported",
    "heads.knn",
    "heads.methods",
    "heads.presets",
    "heads.training.sampling",
}


def modules_imported_by(path: Path) -> set[str]:
    """Dotted names of the modules of this repository that a file imports, `__init__` files not counted."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in (node for node in nodes if isinstance(node, ast.ImportFrom)):
        found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if (ROOT / (name.replace(".", "/") + ".py")).is_file()}


@pytest.mark.parametrize("package", sorted(LAYERS))
def test_a_layer_imports_only_what_lies_below_it(package):
    floor = {name: number for number, names in enumerate(LAYERS[package]) for name in names}
    seen = set()
    for path in (ROOT / package).rglob("*.py"):
        own = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        if own not in floor:
            continue
        seen.add(own)
        for name in modules_imported_by(path):
            other = name.split(".")[1] if name.startswith(f"{package}.") else own
            assert floor.get(other, -1) <= floor[own], f"{path} imports {name}"
    assert seen == floor.keys()


def test_pipeline_takes_from_the_others_what_they_export():
    for path in (ROOT / "pipeline").rglob("*.py"):
        others = {name for name in modules_imported_by(path) if name.split(".")[0] in ("cache", "data", "heads")}
        assert others <= BY_PATH, path


def test_no_folder_has_more_modules_than_one_can_look_over():
    for top in (*PACKAGES, "benchmarks"):
        for folder in {path.parent for path in (ROOT / top).rglob("*.py")} - {ROOT / "pipeline" / "commands"}:
            modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
            assert len(modules) <= 13, folder


def test_a_public_name_is_itself_and_no_submodule():
    """Each name is imported first, in a fresh process: a submodule of its name would take its place later."""
    code = """
import importlib, os, sys, types
import h5py, numpy, polars, torch, transformers  # once for all the processes that are forked

def check(package):
    names = importlib.import_module(package).__all__
    for name in names:
        if os.fork() == 0:
            found = getattr(__import__(package, fromlist=[name]), name)
            os._exit(isinstance(found, types.ModuleType))
        assert os.wait()[1] == 0, (package, name)
    folder = os.path.dirname(sys.modules[package].__file__)
    assert not {file.removesuffix(".py") for file in os.listdir(folder)} & set(names), package
    assert package not in ("cache", "data") or len(names) <= 10

for package in sys.argv[1:]:
    if os.fork() == 0:
        check(package)
        os._exit(0)
    assert os.wait()[1] == 0, package
"""
    packages = ["cache", "heads", "data", *(f"cache.{name}" for name in ("store", "backbone", "batching", "workers"))]
    done = subprocess.run([sys.executable, "-c", code, *packages], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["data", "cache", "heads", "pipeline.cli", "semantic_zoom"])
def test_importing_a_package_does_not_load_torch(package):
    code = f"import sys, {package}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
