"""The options of every command."""

import argparse
import importlib
import pkgutil
from pathlib import Path

import pytest

from bigearthnet_cbir import checkout as base_folder
from bigearthnet_cbir import cli
from bigearthnet_cbir.cli import encode, find_file, make_demo, report, show, sweep, train
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


ODD_PATHS = ["~nobody-of-that-name/a.yaml", "n" * 300, "d/" * 3000, "a\0b", "two\nlines", "\udcff"]


@pytest.mark.parametrize("given", ODD_PATHS)
def test_a_path_that_cannot_be_is_one_line(given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_file(given, ROOT)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1500


def test_relative_paths_start_where_they_do_for_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Away from a checkout, as an installed package is: the checkout that holds the YAML file."""
    checkout = tmp_path / "checkout"
    (checkout / "project").mkdir(parents=True)
    (checkout / "project" / "train.py").touch()
    (checkout / "src" / "bigearthnet_cbir").mkdir(parents=True)
    keys = ("train_csv", "val_csv", "test_csv", "bigEarthPthLMDB_S2", "bigEarthPthLMDB_S1")
    text = "".join(f"{key}: data/x\n" for key in keys) + "name: g\nlogging_params: {name: r}\n"
    (checkout / "args.yaml").write_text(text)
    monkeypatch.setattr(base_folder, "own_checkout", lambda: None)
    monkeypatch.chdir(tmp_path)
    assert train.main(["--filepath", "checkout/args.yaml"]) == 2
    assert f"{checkout}/data/x" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--train", "9" * 30], ["--seed", "9" * 30]])
def test_a_demo_beyond_all_bounds_is_one_line(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_demo.main(["--output", str(tmp_path / "demo"), *words]) == 2
    assert f"{words[0]} is {words[1]}; give" in capsys.readouterr().err
