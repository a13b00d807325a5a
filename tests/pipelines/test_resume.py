"""Which checkpoint a run goes on from, and what is in its folder then."""

from pathlib import Path

import pytest
import torch
from tests.config.test_config import MINIMAL
from tests.training.test_resuming import new_trainer, run_to

from bigearthnet_cbir.config import parse_config
from bigearthnet_cbir.pipelines.resume import restore
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.training.checkpoints import load_checkpoint, save_checkpoint


@pytest.mark.parametrize("epochs", [2, 3])
def test_the_last_checkpoint_catches_up_with_a_best_one_that_is_further_on(tmp_path: Path, epochs: int) -> None:
    """A kill between the two leaves the last one an epoch behind; after the final epoch nothing else would mend it."""
    folder = RunFolder(tmp_path)
    trainer = new_trainer()
    (tmp_path / "first").mkdir()
    run_to(trainer, 1, tmp_path / "first")
    (tmp_path / "first" / "last").rename(folder.last)
    run_to(trainer, 2, tmp_path / "first")
    save_checkpoint(folder.best, trainer.checkpoint())
    resumed = new_trainer()
    restore(parse_config({**MINIMAL, "epochs": epochs}), resumed, folder, ())
    assert resumed.state.epoch == 2
    best, last = load_checkpoint(folder.best), load_checkpoint(folder.last)
    assert last["epoch"] == 2
    assert last["best_loss"] == best["best_loss"]
    assert all(torch.equal(weights, last["state_dict"][name]) for name, weights in best["state_dict"].items())
