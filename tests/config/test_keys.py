"""What the declarations of the keys say together."""

import inspect
from pathlib import Path

import pytest
from tests.config.test_config import MINIMAL

from bigearthnet_cbir.config import MODEL_KEYS, parse_config
from bigearthnet_cbir.config.keys import (
    MEASUREMENT,
    MODEL,
    TRAINING,
    complete_settings,
    effect_in_words,
    model_settings,
    settings_affecting,
    training_settings,
)
from bigearthnet_cbir.config.loader import read_mapping
from bigearthnet_cbir.config.schema import KEYS
from bigearthnet_cbir.models.dual_encoder import DualEncoder
from bigearthnet_cbir.training.resuming import CHANGEABLE

RECIPE = Path(__file__).resolve().parents[2] / "project" / "config" / "args.yaml"


def test_defaults_are_the_recommended_recipe() -> None:
    """Numbers of processes are the machine's, n_features only repeats the backbone's width."""
    given, shaping = read_mapping(RECIPE), MODEL | TRAINING | MEASUREMENT
    named = {name: KEYS[name].default for name in given if name in KEYS and KEYS[name].metadata["affects"] & shaping}
    assert len(named) > 15
    assert {name: value for name, value in named.items() if given[name] != value} == {}
    assert settings_affecting(parse_config(MINIMAL), shaping) == settings_affecting(parse_config(given), shaping)


def test_the_network_takes_the_keys_of_the_model_with_the_same_defaults() -> None:
    parameters = inspect.signature(DualEncoder).parameters
    assert {name: item.default for name, item in parameters.items()} == model_settings(parse_config(MINIMAL))
    assert tuple(parameters) == MODEL_KEYS


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, {"epochs"}),
        ({"scheduler": False}, set()),
        ({"loss_func": "classification"}, {"epochs", "fusion"}),
        ({"loss_func": "classification", "scheduler": False}, {"fusion"}),
    ],
)
def test_epochs_and_fusion_train_only_where_they_do(given: dict[str, object], named: set[str]) -> None:
    settings = training_settings(parse_config({**MINIMAL, **given}))
    assert settings.keys() & {"epochs", "fusion"} == named
    assert {"type", "seed", "precision", "init_weights"} <= settings.keys()
    assert not settings.keys() & {"train_csv", "device", "num_workers", "distance", "state_dict", "name"}


def test_what_may_change_on_resume_is_a_key_of_the_training() -> None:
    assert all(KEYS[name].metadata["affects"] & TRAINING for name in CHANGEABLE)


def test_settings_of_version_0_1_are_completed_without_those_it_did_not_record() -> None:
    told = {"type": "separate", "seed": 7}
    complete = complete_settings(told, parse_config({**MINIMAL, "scheduler": False}))
    assert complete["type"] == "separate"
    assert complete["window"] == 120
    assert not complete.keys() & {"precision", "epochs", "fusion", "distance"}


def test_effects_read_as_words() -> None:
    expected = {
        "type": "model", "seed": "training", "distance": "measurement", "device": "-",
        "epochs": "training with scheduler true", "fusion": "training with loss_func classification, measurement",
    }  # fmt: skip
    assert {name: effect_in_words(KEYS[name]) for name in expected} == expected
