"""The options of every command."""

import argparse
import importlib
import pkgutil
from pathlib import Path

import pytest

from bigearthnet_cbir import cli
from bigearthnet_cbir.cli import encode, report, show, sweep, train
from bigearthnet_cbir.cli.assignments import assignments
from bigearthnet_cbir.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def commands() -> list[str]:
    """Every module of cli/ that parses a command line."""
    names = [module.name for module in pkgutil.iter_modules(cli.__path__)]
    return [name for name in names if "argparse" in (ROOT / f"src/bigearthnet_cbir/cli/{name}.py").read_text()]


def parser_of(name: str) -> argparse.ArgumentParser:
    return importlib.import_module(f"bigearthnet_cbir.cli.{name}")._parser()


def test_every_script_has_its_command_here() -> None:
    scripts = [*(ROOT / "project").glob("*.py"), *(ROOT / "utils").glob("*.py")]
    asked = {name for name in commands() for path in scripts if f"cli.{name} import main" in path.read_text()}
    assert asked == set(commands())
    assert len(asked) == len(scripts)


@pytest.mark.parametrize("name", commands())
def test_options_that_take_several_words_add_up(name: str) -> None:
    for action in parser_of(name)._actions:
        if action.nargs in {"+", "*"}:
            assert isinstance(action, argparse._ExtendAction), f"{action.option_strings}: a second one drops the first"
            assert not action.default, f"{action.option_strings}: the words given would be added to the default"


@pytest.mark.parametrize(
    ("parser", "words", "name", "found"),
    [
        (sweep._parser, ["--folder_name", "g", "--loss_func", "contrastive", "--set", "a=1", "b=2", "--set", "c=3"],
         "set", ["a=1", "b=2", "c=3"]),
        (train._parser, ["--filepath", "x", "--change", "a=1", "--change", "b=2"], "change", ["a=1", "b=2"]),
        (show._parser, ["--filepath", "x", "--keys", "a", "--keys", "b", "c"], "keys", ["a", "b", "c"]),
        (show._parser, ["--filepath", "x", "--direction", "s1_s2", "--direction", "fused"], "direction",
         ["s1_s2", "fused"]),
        (report._parser, ["--filepath", "x", "y", "--filepath", "z"], "filepath", ["x", "y", "z"]),
        (encode._parser, ["--countries", "A", "--countries", "B"], "countries", ["A", "B"]),
        (encode._parser, ["--seasons", "A", "--seasons", "B"], "seasons", ["A", "B"]),
        (encode._parser, ["--acquisitions", "A", "--acquisitions", "B"], "acquisitions", ["A", "B"]),
    ],
)  # fmt: skip
def test_an_option_given_twice_keeps_both(parser: object, words: list[str], name: str, found: list[str]) -> None:
    assert getattr(parser().parse_args(words), name) == found  # type: ignore[operator]


def test_a_key_given_twice_is_refused_and_values_are_read_as_yaml() -> None:
    assert assignments(["epochs=1", "type=[joint]", "name=1=2"], "--set") == {
        "epochs": 1, "type": ["joint"], "name": "1=2",
    }  # fmt: skip
    for words, message in (
        (["epochs=1", "epochs=2"], "--set epochs is given twice"),
        (["epochs"], "give KEY=VALUE"),
        (["=3"], "give KEY=VALUE"),
    ):
        with pytest.raises(ConfigError, match=message):
            assignments(words, "--set")
