"""The import rules of docs/architecture.md that import-linter (pyproject.toml, `make lint`) cannot express."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "bigearthnet_cbir"
TORCH_FREE = {
    "errors", "types", "directions", "results", "files", "callable_package", "provenance", "compiled", "kernel_cache",
    "config", "cli",
    "report", "search", "evaluation", "storage", "query",
    "data/bands", "data/labels", "data/pair_list", "data/splits", "data/geotiff", "data/records",
    "data/patch_store", "data/mgrs", "data/positions", "data/projection", "data/geoparquet", "data/catalogue",
    "data/geotiff_stack", "pipelines/index_state", "pipelines/query_output",
}  # fmt: skip
if importlib.util.find_spec("fastapi") is not None:  # an extra
    TORCH_FREE.add("serve")
LAZY_TORCH = {"search/torch_backend"}
"""Modules that import torch inside functions, when a GPU is asked for."""

FIRST = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if {"torch", "torchvision"} & set(sys.modules):
        print(name)
        break
"""


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").as_posix().removesuffix("/__init__")


def torch_free_modules() -> list[Path]:
    return [path for path in modules() if within(name_of(path), TORCH_FREE)]


def imports(path: Path, *, at_top_only: bool = False) -> set[str]:
    """Return the dotted names that a file imports; those under TYPE_CHECKING are left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if at_top_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def within(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}/") or name.startswith(place + "_") for place in places)


@pytest.mark.parametrize("path", torch_free_modules(), ids=name_of)
def test_torch_free_modules_name_no_torch(path: Path) -> None:
    """Not even inside a function, where the interpreter would not see it."""
    taken = imports(path, at_top_only=name_of(path) in LAZY_TORCH)
    assert not {imported for imported in taken if imported.split(".")[0] in {"torch", "torchvision"}}


def first_that_loads_torch(names: list[str]) -> str:
    """Import modules by their dotted names, in order, in a new process; return the first after which torch is there."""
    done = subprocess.run([sys.executable, "-c", FIRST, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torch_free_modules_load_no_torch_through_others() -> None:
    names = [f"bigearthnet_cbir.{name_of(path).replace('/', '.')}" for path in torch_free_modules()]
    assert not first_that_loads_torch(names)
    assert first_that_loads_torch([names[0], "bigearthnet_cbir.pipelines.builders"]).endswith("builders")


def test_only_assembly_builds_networks_from_the_configuration() -> None:
    """A configured name becomes a class in one place; an export and a checkpoint name their own."""
    builders = {name_of(path) for path in modules() if "DualEncoder(" in path.read_text()}
    assert builders <= {"models/dual_encoder", "models/export", "pipelines/builders", "pipelines/embedding"}


def test_scripts_hold_no_logic() -> None:
    scripts = [*(ROOT / "project").glob("*.py"), *(ROOT / "utils").glob("*.py")]
    assert {"train.py", "retrieval.py", "multi_train_retrieval.py", "utils.py"} <= {path.name for path in scripts}
    for path in scripts:
        tree = ast.parse(path.read_text())
        kinds = (ast.FunctionDef, ast.For, ast.While, ast.Try, ast.With)
        assert not [node for node in ast.walk(tree) if isinstance(node, kinds)], path.name


def test_nobody_imports_the_scripts() -> None:
    for path in modules():
        assert not {name for name in imports(path) if name.split(".")[0] in {"project", "utils"}}


MOST_LINES = {"file": 250, "function": 40}
"""A reader takes a file in at a sitting and a function at a glance; compiled kernels are written out for speed."""


def too_long(path: Path) -> list[str]:
    """Return the file, and those of its functions, that have more lines than MOST_LINES, decorators left out."""
    text = path.read_text()
    found = [name_of(path)] if text.count("\n") > MOST_LINES["file"] else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            if node.end_lineno - node.lineno + 1 > MOST_LINES["function"]:
                found.append(f"{name_of(path)}.{node.name}")
    return found


def test_files_and_functions_are_short() -> None:
    measured = [path for path in modules() if not name_of(path).startswith("search/kernels/")]
    assert len(measured) > 100
    assert {found for path in measured for found in too_long(path)} == set()


def test_length_is_measured_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    (tmp_path / "fits.py").write_text("def f():\n" + "    pass\n" * 39 + "x = 1\n" * 210)
    (tmp_path / "long.py").write_text("class C:\n    def f(self):\n" + "        pass\n" * 40 + "x = 1\n" * 209)
    assert [too_long(path) for path in modules()] == [[], ["long", "long.f"]]


SHARED_NAMES = {"main", "logger"}
"""Each command has its main, each module that logs its logger."""


def public_names(path: Path) -> set[str]:
    """Return the public classes, functions and constants that a module defines itself."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update(name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
    return {name for name in found if not name.startswith("_")} - SHARED_NAMES


def test_no_public_name_is_defined_in_two_modules() -> None:
    homes: dict[str, list[str]] = {}
    for path in modules():
        for name in public_names(path):
            homes.setdefault(name, []).append(name_of(path))
    assert len(homes) > 500
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_public_names_are_found_however_they_are_bound(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("A, B = 1, 2\nC: int = 3\nclass D: x = 1\ndef f(y): z = 1\n_e = main = 4\n")
    assert public_names(tmp_path / "module.py") == {"A", "B", "C", "D", "f"}
