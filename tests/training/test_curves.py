import multiprocessing as mp
import resource
import signal
import time
from pathlib import Path

import pytest

from bigearthnet_cbir.errors import TrainingError
from bigearthnet_cbir.storage.training_log import read_training_log
from bigearthnet_cbir.training.tensorboard import TensorBoardCurves


def write_on_a_full_disk(folder: Path, bytes_left: int, told: mp.SimpleQueue) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, bytes_left))
    try:
        with TensorBoardCurves(folder, 0) as curves:
            for epoch in range(1, 200):
                curves(epoch, {"loss/training": 1 / epoch, "learning_rate": 0.1})
    except TrainingError as error:
        told.put(str(error))


@pytest.mark.parametrize("bytes_left", [0, 40, 700, 5000])
def test_curves_on_a_full_disk_are_one_line(tmp_path: Path, bytes_left: int, capfd: pytest.CaptureFixture[str]) -> None:
    context = mp.get_context("fork")
    told = context.SimpleQueue()
    process = context.Process(target=write_on_a_full_disk, args=(tmp_path / "training", bytes_left, told))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert not told.empty(), "it was written after all"
    message = told.get()
    assert "the training curves cannot be written (File too large)" in message
    assert len(message.splitlines()) == 1
    assert capfd.readouterr().err == ""


def test_curves_where_no_folder_can_be_made_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "training").write_text("a file")
    with pytest.raises(TrainingError, match="cannot be written"):
        TensorBoardCurves(tmp_path / "training", 0)


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    with TensorBoardCurves(tmp_path, 0) as curves:
        for epoch in range(1, 5):
            curves(epoch, {"loss": 1.0})
    started = int(time.time())
    while int(time.time()) == started:  # TensorBoard orders the files of runs by the second in which they begin
        time.sleep(0.05)
    with TensorBoardCurves(tmp_path, 2) as curves:
        curves(3, {"loss": 3.0})
    log = read_training_log(tmp_path)["loss"]
    assert (log.steps, log.values) == ((1, 2, 3), (1.0, 1.0, 3.0))
