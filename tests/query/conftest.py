"""A run with an index, on the six real pairs: random weights, which decide no test."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Archive

from bigearthnet_cbir.config import parse_config, write_config
from bigearthnet_cbir.config.keys import training_settings
from bigearthnet_cbir.pipelines.builders import build_encoder
from bigearthnet_cbir.pipelines.index import build_index
from bigearthnet_cbir.query.index import Index, open_index
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.training.checkpoints import save_checkpoint


def make_run(folder: Path, archive: Archive, **changes: object) -> RunFolder:
    """Write a run folder whose network has the weights that its seed draws."""
    given = {
        **{f"{split}_csv": f"{archive.parquet}:{split}" for split in ("train", "val", "test")},
        "bigEarthPthLMDB_S2": str(archive.s2), "bigEarthPthLMDB_S1": str(archive.s1), "backbone": "resnet10",
        "projection_dim": 8, "out_channels": 4, "batch_size": 3, "epochs": 1, "num_workers": 0, "device": "cpu",
        "precision": "fp32", "top_k": 2, "name": "g", "logging_params": {"save_dir": str(folder), "name": "run"},
        **changes,
    }  # fmt: skip
    config = parse_config(given)
    run = RunFolder(config.run_folder)
    run.root.mkdir(parents=True)
    write_config(config, run.parameters)
    identity = training_settings(config)
    save_checkpoint(run.best, {"epoch": 1, "state_dict": build_encoder(config).state_dict(), "identity": identity})
    return run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, archives: dict[str, Archive]) -> RunFolder:
    made = make_run(tmp_path_factory.mktemp("query"), archives["rico"])
    build_index(made.root)
    return made


@pytest.fixture(scope="session")
def index(run: RunFolder) -> Index:
    return open_index(run.index)
