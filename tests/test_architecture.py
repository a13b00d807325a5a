"""The import rules of docs/architecture.md, held by reading every import in src/ and in the scripts."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "bigearthnet_cbir"
CORE = {
    "errors", "types", "directions", "results", "files", "callable_package", "provenance", "compiled", "kernel_cache",
}  # fmt: skip
COMPONENTS = {"config", "data", "models", "losses", "search", "evaluation", "storage"}
MAY_IMPORT = {
    **dict.fromkeys(COMPONENTS, CORE),
    "training": CORE | (COMPONENTS - {"config"}),
    "report": CORE | (COMPONENTS - {"config"}),
    "pipelines": CORE | COMPONENTS | {"training", "report"},
    "cli": CORE | COMPONENTS | {"pipelines", "report"},
}
HOMES = {
    "ray": {"search/parallel"},
    "h5py": {"storage"},
    "lmdb": {"data/patch_store"},
    "rasterio": {"data/geotiff"},
    "yaml": {"config"},
    "argparse": {"cli"},
    "torchvision": {"models/resnet"},
    "sklearn": {"evaluation/classification"},
    "numba": {"compiled", "kernel_cache", "search", "evaluation"},
    "tensorboard": {"storage/training_log"},
    "PIL": {"report/rgb"},
    "jinja2": {"report/render"},
    "matplotlib": {"report/export_figures"},
}
TORCH_FREE = {
    "errors", "types", "directions", "results", "files", "provenance", "compiled", "kernel_cache", "config", "cli",
    "report", "search", "evaluation", "storage",
    "data/bands", "data/labels", "data/pair_list", "data/splits", "data/geotiff", "data/records",
    "data/patch_store",
}  # fmt: skip
LAZY_TORCH = {"search/gpu"}
"""Modules that import torch inside functions, when a GPU is asked for."""


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").as_posix().removesuffix("/__init__")


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
            assert node.level == 0, f"{path}: relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def within(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}/") or name.startswith(place + "_") for place in places)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_go_downwards_only(path: Path) -> None:
    layer = name_of(path).split("/")[0]
    allowed = MAY_IMPORT.get(layer, CORE) | {layer}
    for imported in imports(path):
        parts = imported.split(".")
        if parts[0] == "bigearthnet_cbir" and parts[1:] and not parts[1].startswith("__"):
            assert parts[1] in allowed, f"{name_of(path)} imports {imported}; {layer} may import {sorted(allowed)}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_each_dependency_has_one_home(path: Path) -> None:
    for imported in imports(path):
        home = HOMES.get(imported.split(".")[0])
        assert home is None or within(name_of(path), home), f"{name_of(path)} imports {imported}; its home is {home}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_torch_free_modules_import_no_torch(path: Path) -> None:
    name = name_of(path)
    if not within(name, TORCH_FREE):
        return
    taken = imports(path, at_top_only=name in LAZY_TORCH)
    assert not {imported for imported in taken if imported.split(".")[0] in {"torch", "torchvision"}}


def test_only_assembly_builds_networks_from_the_configuration() -> None:
    """A configured name becomes a class in one place; an export and a checkpoint name their own."""
    builders = {name_of(path) for path in modules() if "DualEncoder(" in path.read_text()}
    assert builders <= {"models/dual_encoder", "models/exported", "pipelines/assembly", "pipelines/embedding"}


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
