from pathlib import Path

import pytest

from bigearthnet_cbir.config import load_config, parse_config, write_config
from bigearthnet_cbir.errors import ConfigError

MINIMAL = {
    "name": "group",
    "logging_params": {"name": "run"},
    "train_csv": "a/train.csv",
    "val_csv": "a/val.csv",
    "test_csv": "a/test.csv",
    "bigEarthPthLMDB_S2": "a/s2.lmdb",
    "bigEarthPthLMDB_S1": "/data/s1.lmdb",
}


def test_relative_paths_start_at_the_root(tmp_path: Path) -> None:
    config = parse_config(MINIMAL, root=tmp_path)
    assert config.train_csv == str(tmp_path / "a/train.csv")
    assert config.bigEarthPthLMDB_S1 == "/data/s1.lmdb"
    assert config.run_folder == tmp_path / "logs/group/run"


def test_written_configuration_reads_back_equal(tmp_path: Path) -> None:
    config = parse_config({**MINIMAL, "learning_rate": "1e-4", "fusion": "max"}, root=tmp_path)
    write_config(config, tmp_path / "parameters.yaml", root=tmp_path)
    assert load_config(tmp_path / "parameters.yaml", root=tmp_path) == config
    assert config.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("fusion", "mean", "fusion is 'mean'; choose one of concat, avg, max, sum"),
        ("type", "seperate", "did you mean separate?"),
        ("batch_size", 0, "batch_size is 0; give a whole number >= 1"),
        ("batch_size", 2.5, "batch_size is 2.5"),
        ("batch_size", True, "batch_size is True"),
        ("temperature", 0, "temperature is 0; give a number > 0"),
        ("temperature", ".nan", "temperature"),
        ("temperature", float("nan"), "temperature"),
        ("scheduler", "yes please", "give true or false"),
        ("fussion", "max", "fussion is not a key; did you mean fusion?"),
        ("n_features", 512, "write 2048"),
        ("start_epoch", 100, "below epochs"),
        ("device", "gpu", "choose one of auto, cpu, cuda, cuda:N"),
        ("name", "../up", "a name without slashes"),
        ("train_csv", None, "train_csv is None"),
        ("logging_params", "logs", "give the keys save_dir and name"),
    ],
)
def test_bad_value_is_named_with_its_rule(key: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({**MINIMAL, key: value}, source="args.yaml")
    assert words in str(caught.value)
    assert str(caught.value).startswith("args.yaml: ")
    assert "\n" not in str(caught.value)


def test_all_problems_come_in_one_error() -> None:
    values = {**MINIMAL, "fusion": "mean", "epochs": -1, "bogus": 1}
    del values["val_csv"]
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    for word in ("fusion", "epochs", "bogus", "val_csv is missing"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no keys"),
        ("- a\n- b\n", "has no keys"),
        ("name: [", "not valid YAML at line"),
        ("name: a\nname: b\n", "name is given twice"),
    ],
)
def test_malformed_file_is_one_clear_error(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "args.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_config(path)


def test_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")


def test_original_keys_without_effect_warn(caplog: pytest.LogCaptureFixture) -> None:
    values = {**MINIMAL, "pretrain": False, "epoch_num": 3, "logging_params": {"name": "run", "suffix": "x"}}
    config = parse_config(values)
    assert config.logging_params.name == "run"
    for word in ("pretrain", "epoch_num", "logging_params.suffix"):
        assert word in caplog.text


@pytest.mark.parametrize(
    ("given", "protocol", "splits"),
    [
        ({}, "csmae", ("val", "test")),
        ({"protocol": "original"}, "original", ("train", "test")),
        ({"query_split": "val"}, "csmae", ("val", "test")),
        ({"query_split": "train"}, "custom", ("train", "test")),
        ({"archive_split": "train"}, "custom", ("val", "train")),
        ({"protocol": "custom"}, "custom", ("val", "test")),
        ({"protocol": "original", "query_split": "train"}, "original", ("train", "test")),
    ],
)
def test_protocol_and_splits_settle_each_other(
    given: dict[str, str], protocol: str, splits: tuple[str, str], tmp_path: Path
) -> None:
    config = parse_config({**MINIMAL, **given}, root=tmp_path)
    assert (config.protocol, (config.query_split, config.archive_split)) == (protocol, splits)
    write_config(config, tmp_path / "parameters.yaml", root=tmp_path)
    assert load_config(tmp_path / "parameters.yaml", root=tmp_path) == config


def test_splits_that_contradict_a_named_protocol_are_refused(tmp_path: Path) -> None:
    values = {**MINIMAL, "protocol": "original", "query_split": "val", "archive_split": "train"}
    with pytest.raises(ConfigError) as caught:
        parse_config(values, root=tmp_path)
    message = str(caught.value)
    assert "query_split is 'val', but protocol original has train" in message
    assert "archive_split is 'train', but protocol original has test" in message
    assert "\n" not in message


def test_exclude_within_is_off_unless_given(tmp_path: Path) -> None:
    assert parse_config(MINIMAL, root=tmp_path).exclude_within is None
    assert parse_config({**MINIMAL, "exclude_within": 0}, root=tmp_path).exclude_within == 0
    with pytest.raises(ConfigError, match="exclude_within is -1; give a whole number >= 0"):
        parse_config({**MINIMAL, "exclude_within": -1}, root=tmp_path)
