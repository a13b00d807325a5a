"""The README's tables against the code."""

import re
import subprocess
from dataclasses import MISSING
from pathlib import Path

from bigearthnet_cbir.config import load_config
from bigearthnet_cbir.config.keys import effect_in_words
from bigearthnet_cbir.config.schema import KEYS, LOGGING_KEYS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def table_rows() -> dict[str, list[str]]:
    section = README.split("## Configuration")[1].split("\n## ")[0]
    rows = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            rows[cells[0].strip("`")] = cells[1:]
    return rows


def test_every_key_stands_in_the_table_with_its_rule_and_default() -> None:
    rows = table_rows()
    expected = {**KEYS, **{f"logging_params.{name}": item for name, item in LOGGING_KEYS.items()}}
    assert set(rows) == set(expected)
    for name, item in expected.items():
        rule, default, effect, meaning = rows[name]
        assert rule == item.metadata["rule"].words, name
        assert effect == effect_in_words(item), name
        assert meaning == item.metadata["meaning"], name
        shown = "required" if item.default is MISSING else yaml_word(item.default)
        assert default == shown, name


def yaml_word(value: object) -> str:
    words = {None: "-", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def test_every_committed_yaml_is_valid() -> None:
    command = ["git", "ls-files", "project/config"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    files = [ROOT / name for name in listed.stdout.split()] or [ROOT / "project/config/args.yaml"]
    assert "args.yaml" in {path.name for path in files}
    for path in files:
        load_config(path)


def test_files_and_commands_that_the_readme_names_exist() -> None:
    for name in re.findall(r"(?:project|utils|docs|benchmarks)/[\w/]+\.(?:py|yaml|md)", README):
        assert (ROOT / name).exists(), name
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make (\w+)`", README):
        assert f"\n{target}:" in makefile, target
