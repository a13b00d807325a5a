"""A key that is declared in the schema and nowhere else cannot mix two settings in one run, or in one comparison."""

import json
import logging
from dataclasses import asdict, make_dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import pytest
from tests.config.test_config import MINIMAL
from tests.pipelines.test_reuse import World
from tests.pipelines.test_reuse import world as world  # the fixture
from tests.training.test_resuming import new_trainer, run_to

from bigearthnet_cbir.config import Config, parse_config
from bigearthnet_cbir.config.keys import MEASUREMENT, MODEL, NOTHING, TRAINING, Affects, key
from bigearthnet_cbir.config.validators import Number
from bigearthnet_cbir.errors import CheckpointError
from bigearthnet_cbir.pipelines import baselines
from bigearthnet_cbir.pipelines.agreement import check_agreement
from bigearthnet_cbir.pipelines.baselines import find_baselines
from bigearthnet_cbir.pipelines.builders import training_identity
from bigearthnet_cbir.pipelines.resume import restore
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.training.checkpoints import load_checkpoint, save_checkpoint
from bigearthnet_cbir.types import PatchPair

PAIRS = [PatchPair("S2A_a", "S1A_a"), PatchPair("S2A_b", "S1A_b")]
FREE: Any = [NOTHING, MEASUREMENT]
FIXED: Any = [MODEL, TRAINING, TRAINING | MEASUREMENT]


def class_with(affects: Affects, **options: Any) -> type[Config]:
    """Return the schema with one more key, `added`, whose default is 0."""
    field = key(affects, Number(0), "a key that somebody adds", 0.0, **options)
    return make_dataclass("Added", [("added", float, field)], bases=(Config,), frozen=True, kw_only=True)


def config_with(schema: type[Config], config: Config | None = None, **values: Any) -> Config:
    return schema(**{**vars(config or parse_config(MINIMAL)), **values})


def trained(config: Config, folder: Path) -> RunFolder:
    """Return a run's folder after one epoch with a configuration."""
    trainer = replace(new_trainer(), identity=training_identity(config, PAIRS, 2))
    run_to(trainer, 1, folder)
    save_checkpoint(RunFolder(folder).last, load_checkpoint(folder / "last"))
    return RunFolder(folder)


def resume(config: Config, run: RunFolder) -> list[dict[str, Any]]:
    return restore(config, replace(new_trainer(), identity=training_identity(config, PAIRS, 2)), run, ())


@pytest.mark.parametrize("affects", FIXED)
def test_resuming_refuses_another_value(affects: Affects, tmp_path: Path) -> None:
    schema = class_with(affects)
    run = trained(config_with(schema, added=0.25), tmp_path)
    assert resume(config_with(schema, added=0.25), run) == []
    with pytest.raises(CheckpointError, match=r"added was 0\.25, is 0\.5"):
        resume(config_with(schema, added=0.5), run)


@pytest.mark.parametrize("affects", FREE)
def test_resuming_allows_another_value_of_what_does_not_affect_training(affects: Affects, tmp_path: Path) -> None:
    schema = class_with(affects)
    run = trained(config_with(schema, added=0.25), tmp_path)
    assert resume(config_with(schema, added=0.5), run) == []


@pytest.mark.parametrize("affects", FIXED)
def test_a_run_from_before_the_key_goes_on_with_the_default_only(affects: Affects, tmp_path: Path) -> None:
    run, schema = trained(parse_config(MINIMAL), tmp_path), class_with(affects)
    assert resume(config_with(schema), run) == []
    with pytest.raises(CheckpointError, match=r"added was 0\.0, is 0\.5"):
        resume(config_with(schema, added=0.5), run)


def test_a_key_that_trains_only_beside_another_one_is_compared_there(tmp_path: Path) -> None:
    schema = class_with(TRAINING, trains_with=("loss_func", "classification"))
    for loss, fixed in (("classification", True), ("contrastive", False)):
        (tmp_path / loss).mkdir()
        run = trained(config_with(schema, loss_func=loss, added=0.25), tmp_path / loss)
        if fixed:
            with pytest.raises(CheckpointError, match=r"added was 0\.25, is 0\.5"):
                resume(config_with(schema, loss_func=loss, added=0.5), run)
        else:
            assert resume(config_with(schema, loss_func=loss, added=0.5), run) == []


@pytest.mark.parametrize("affects", FIXED)
def test_retrieval_refuses_a_checkpoint_of_another_value(affects: Affects, tmp_path: Path) -> None:
    schema = class_with(affects)
    identity = training_identity(config_with(schema, added=0.25), PAIRS, 2)
    content = {"epoch": 1, "identity": {name: value for name, value in identity.items() if name != "training_pairs"}}
    assert check_agreement(config_with(schema, added=0.25), content, tmp_path) == {}
    with pytest.raises(CheckpointError, match=r"added was 0\.25, is 0\.5"):
        check_agreement(config_with(schema, added=0.5), content, tmp_path)


def test_retrieval_measures_anew_with_another_value(world: World) -> None:
    schema, plain = class_with(MEASUREMENT), world.config
    world.config = config_with(schema, plain)
    first = world.retrieve()
    assert world.retrieve() == first
    world.config = config_with(schema, plain, added=0.5)
    assert world.retrieve()[2] != first[2]
    assert world.retrieve()[:2] == first[:2], "the features do not depend on it"


def write_results(path: Path, config: Config) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_group("fused")
        file.attrs.update({"distance": config.distance, "configuration": json.dumps(asdict(config))})
    return path


@pytest.mark.parametrize(
    ("affects", "left_out"),
    [
        (MEASUREMENT, ["untrained", "band_statistics"]),
        (MODEL, ["untrained"]),
        (TRAINING, []),
        (NOTHING, []),
    ],
)
def test_a_baseline_of_another_value_is_left_out(
    affects: Affects,
    left_out: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    schema = class_with(affects)
    monkeypatch.setattr(baselines, "Config", schema)
    run = write_results(tmp_path / "retrieval.h5", config_with(schema, added=0.5))
    names = ("untrained", "band_statistics")
    for name in names:  # from before the key
        write_results(tmp_path / f"baseline_{name}" / "retrieval.h5", parse_config(MINIMAL))
    with caplog.at_level(logging.WARNING):
        assert list(find_baselines(run)) == sorted(set(names) - set(left_out))
    assert caplog.text.count("added 0.0, not 0.5") == len(left_out)
