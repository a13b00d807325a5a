"""The wheel in an environment of its own, away from the repository; what it needs, and what the bounds say."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from bigearthnet_cbir.config import load_config, parse_config, write_config

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "bigearthnet_cbir"
COMMANDS = (
    "cbir-train", "cbir-retrieve", "cbir-sweep", "cbir-encode", "cbir-show", "cbir-report", "cbir-export",
    "cbir-make-demo", "cbir-index", "cbir-query", "cbir-serve", "cbir-evaluate", "cbir-export-embeddings",
)  # fmt: skip

VALUES = {
    "train_csv": "data/train.csv", "val_csv": "data/val.csv", "test_csv": "data/test.csv",
    "bigEarthPthLMDB_S2": "data/patches.lmdb", "bigEarthPthLMDB_S1": "data/patches.lmdb",
    "type": "joint", "loss_func": "contrastive", "fusion": "concat", "backbone": "resnet10", "projection_dim": 8,
    "out_channels": 4, "batch_size": 4, "epochs": 1, "top_k": 5, "device": "cpu", "num_workers": 0, "num_cpu": 0,
    "name": "group", "logging_params": {"name": "run"},
}  # fmt: skip


class Installed(NamedTuple):
    """An environment that has the package from its wheel, and the dependencies of the one that runs the tests."""

    wheel: Path
    programs: Path

    def run(self, *words: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [str(self.programs / str(words[0])), *map(str, words[1:])]
        done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
        return done


def environment() -> dict[str, str]:
    """Variables of a process that is to know nothing of the checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    copy = folder / "copy"  # setuptools writes beside what it builds
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    offline = ("--no-deps", "--no-index", "--no-build-isolation")
    subprocess.run([*pip, "wheel", *offline, "--wheel-dir", str(folder), str(copy)], env=environment(), check=True)
    (wheel,) = folder.glob("*.whl")
    shutil.rmtree(copy)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    programs = folder / "venv" / "bin"
    install = [*pip, "--python", str(programs / "python"), "install", *offline[:2], str(wheel)]
    subprocess.run(install, env=environment(), check=True)
    # Only now, or pip would find the editable install there and install nothing. Of a folder that a .pth file names the
    # packages are found; its own .pth files, such as that of the editable install, are not read.
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    ours = [path for path in sys.path if path.endswith("-packages")] or [sysconfig.get_path("purelib")]
    (packages / "dependencies.pth").write_text("\n".join(ours))
    return Installed(wheel, programs)


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that lies in no repository."""
    folder = tmp_path_factory.mktemp("away")
    assert not [place for place in folder.parents if (place / "project").exists()]
    return folder


@pytest.mark.slow
def test_wheel_holds_every_file_of_the_package(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as content:
        packed = {name for name in content.namelist() if name.startswith("bigearthnet_cbir/")}
    there = {
        path.relative_to(ROOT / "src").as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == there
    assert "bigearthnet_cbir/py.typed" in packed
    for room in ("report", "serve"):
        assert [name for name in packed if name.startswith(f"bigearthnet_cbir/{room}/assets/")]


@pytest.mark.slow
def test_package_is_that_of_the_wheel_and_names_no_commit_of_a_repository_around_it(installed: Installed) -> None:
    around = installed.programs.parents[1]
    git = ("git", "-C", str(around), "-c", "user.name=x", "-c", "user.email=x@localhost")
    for words in (("init", "--quiet"), ("commit", "--quiet", "--allow-empty", "--message", "another project")):
        subprocess.run([*git, *words], check=True)
    code = "import bigearthnet_cbir.provenance as p; print(p.__file__, p.git_commit())"
    file, commit = installed.run("python", "-c", code, cwd=around).stdout.split()
    assert Path(file).is_relative_to(installed.programs.parent)
    assert commit == "unknown"
    shutil.rmtree(around / ".git")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_explain_themselves(installed: Installed, away: Path, command: str) -> None:
    assert installed.run(command, "--help", cwd=away).stdout.startswith(f"usage: {command} [-h]")


def test_commands_are_those_declared() -> None:
    declared = (ROOT / "pyproject.toml").read_text().partition("[project.scripts]\n")[2].partition("\n\n")[0]
    assert set(re.findall(r"^(\S+) =", declared, flags=re.MULTILINE)) == set(COMMANDS)


@pytest.mark.slow
def test_demo_to_report_away_from_the_repository(installed: Installed, away: Path) -> None:
    """Relative paths start at the current folder, here that of the data; parameters.yaml then reads from anywhere."""
    world = away / "world"
    installed.run(
        "cbir-make-demo", "--output", "data", "--train", 8, "--val", 4, "--test", 8, "--workers", 2,
        cwd=_made(world),
    )  # fmt: skip
    done = installed.run(
        "cbir-encode", "--s2-root", "data/BigEarthNet-v1.0", "--s1-root", "data/BigEarthNet-S1-v1.0",
        "--output", "data/patches.lmdb", "--split-from", "data", "--workers", 2, cwd=world,
    )  # fmt: skip
    assert "encoded 20 pairs" in done.stdout
    (world / "base.yaml").write_text(yaml.safe_dump(VALUES))
    installed.run(
        "cbir-sweep", "--folder_name", "grid", "--loss_func", "contrastive", "--base", "base.yaml",
        "--set", "type=joint", "fusion=concat", cwd=world,
    )  # fmt: skip
    assert not (world / "project").exists()
    group = world / "logs" / "grid"
    assert "</html>" in (group / "sweep_contrastive_joint_concat.html").read_text()
    assert {"grid_contrastive_joint_concat.yaml"} == {path.name for path in group.glob("*.yaml")}
    (run,) = (path for path in group.iterdir() if path.is_dir())
    assert "chance" in installed.run("python", "-c", API, run, cwd=world).stdout
    elsewhere = _made(away / "elsewhere")
    again = installed.run("cbir-retrieve", "--filepath", run / "parameters.yaml", "--no-report", cwd=elsewhere)
    assert "extracted" not in again.stderr
    assert "mAP" in installed.run("cbir-show", "--filepath", run, cwd=elsewhere).stdout
    assert not list(elsewhere.iterdir())


API = """
import sys
import bigearthnet_cbir as cbir
data = cbir.BigEarthNetMM.from_lmdb("data/patches.lmdb", cbir.read_split("data/test.csv"))
embeddings = cbir.embed(cbir.load_encoder(sys.argv[1]), data)
hits = cbir.search(embeddings.s1, embeddings.s2, k=5, distance="cosine")
print(cbir.evaluate(hits, query_labels=embeddings.labels, archive_labels=embeddings.labels))
"""


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


READ = """
import sys
from pathlib import Path
from bigearthnet_cbir.config import load_config, write_config
config = load_config(sys.argv[1])
print(config.train_csv, config.logging_params.save_dir)
write_config(config, Path(sys.argv[2]))
"""


def read_and_write(installed: Installed, given: Path, written: Path, cwd: Path) -> list[str]:
    return installed.run("python", "-c", READ, given, written, cwd=cwd).stdout.split()


@pytest.mark.slow
def test_wheel_and_checkout_read_what_the_other_wrote(installed: Installed, away: Path) -> None:
    config = parse_config({**VALUES, "train_csv": str(away / "train.csv")})
    for cwd in (ROOT, ROOT / "project"):
        write_config(config, away / "checkout.yaml")
        found = read_and_write(installed, away / "checkout.yaml", away / "wheel.yaml", cwd)
        assert found == [str(away / "train.csv"), str(ROOT / "logs")]
        assert load_config(away / "wheel.yaml") == config


@pytest.mark.slow
def test_file_inside_a_checkout_means_the_same_from_everywhere(installed: Installed, away: Path) -> None:
    checkout = away / "checkout"
    for path in (checkout / "project" / "train.py", checkout / "src" / SOURCE.name / "__init__.py"):
        _made(path.parent)
        path.write_text("")
    given, written = checkout / "given.yaml", checkout / "logs.yaml"
    given.write_text(yaml.safe_dump(VALUES))
    expected = [str(checkout / "data/train.csv"), str(checkout / "logs")]
    assert read_and_write(installed, given, written, away) == expected
    assert yaml.safe_load(written.read_text())["train_csv"] == "data/train.csv"


@pytest.mark.slow
def test_mistakes_away_from_the_repository_are_one_line(installed: Installed, away: Path) -> None:
    error = installed.run("cbir-train", "--filepath", "missing.yaml", cwd=away, code=2).stderr
    assert error == f"error: --filepath missing.yaml: not found at {away / 'missing.yaml'}; give a path that exists\n"
    refused = installed.run("cbir-sweep", "--folder_name", "x", "--loss_func", "contrastive", cwd=away, code=2)
    assert "required: --base" in refused.stderr


def requirements(name: str) -> dict[str, Requirement]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    found = [Requirement(line) for line in lines if line]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def test_lowest_versions_are_the_lower_bounds() -> None:
    lowest, ranges = requirements("constraints-lowest.txt"), requirements("requirements.txt")
    assert list(lowest) == list(ranges)
    for name, requirement in ranges.items():
        (pin,) = lowest[name].specifier
        assert pin.operator == "=="
        assert [Version(pin.version)] == [
            Version(bound.version) for bound in requirement.specifier if bound.operator == ">="
        ], name


def test_versions_of_make_are_within_the_bounds() -> None:
    ranges, pins = requirements("requirements.txt"), requirements("constraints.txt")
    for name in ("torch", "torchvision"):
        (pin,) = pins[name].specifier
        assert ranges[name].specifier.contains(pin.version)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    used = {word for repo in hooks["repos"] for hook in repo["hooks"] for word in hook["additional_dependencies"]}
    assert used == {str(pins["ruff"])}


def test_every_requirement_has_its_reason() -> None:
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert re.fullmatch(r"#.+|\S+ +# \S.+", line), line


OPTIONAL = {"onnx", "onnxscript", "onnxruntime", "timm", "fastapi", "pydantic", "starlette", "uvicorn"}
"""Of the extras `onnx` (export names the files that it leaves out without them), `onnxruntime` (`extract_backend: auto`
does without it), `timm` (`backbone: timm:NAME` says what to install) and `serve` (FastAPI needs pydantic and Starlette;
without them cbir-serve ends in a line that names it)."""


def test_every_package_that_is_imported_is_required() -> None:
    distributions = importlib.metadata.packages_distributions()
    imported: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).partition(".")[0])
    foreign = imported - sys.stdlib_module_names - {SOURCE.name}
    required = set(requirements("requirements.txt")) | OPTIONAL
    used = {name: set(map(canonicalize_name, distributions.get(name, [name]))) for name in foreign}
    assert {name for name, names in used.items() if not required & names} == set()
    assert required - OPTIONAL <= set().union(*used.values()), "required, but never imported"


def test_contributing_names_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`([\w/-]+(?:\.py|\.md|/))`", text)) - {"src/bigearthnet_cbir/"}
    assert len(named) > 20
    assert {name for name in named if not ((SOURCE / name).exists() or (ROOT / name).exists())} == set()
