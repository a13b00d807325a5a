"""What goes wrong in a worker process of a loader arrives as one line."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lmdb
import pytest
import torch
import yaml
from tests.conftest import Archive, RealPairs
from torch.utils.data import get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from bigearthnet_cbir.cli import retrieve, train
from bigearthnet_cbir.data.dataset import BigEarthNetMM, PairBatch
from bigearthnet_cbir.data.loaders import PairLoader, ordered_loader, training_loader
from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.errors import CbirError, DataError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _notice_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch looks every 5 seconds whether its workers are alive."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)


class Broken(BigEarthNetMM):
    """A dataset in which something happens in worker processes once the second batch is read."""

    happens: Any = None

    def __getitems__(self, indices: Sequence[int]) -> PairBatch:
        if get_worker_info() is not None and 1 in indices:
            self.happens()
        return super().__getitems__(indices)


def dataset_of(archive: Archive, pairs: RealPairs, happens: Any) -> Broken:
    made = Broken(pairs.pairs, PatchStore(archive.s2), PatchStore(archive.s1))
    made.happens = happens
    return made


def both_loaders(dataset: BigEarthNetMM) -> list[PairLoader]:
    return [ordered_loader(dataset, 1, 2), training_loader(dataset, 1, 0, 2)]


def raises(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [DataError("archive: record x: it is cut short; encode it again"), OSError(28, "No space left", "/tmp/x")],
    ids=["ours", "system"],
)
def test_an_error_in_a_worker_arrives_as_it_was(
    archives: dict[str, Archive], real_pairs: RealPairs, error: Exception
) -> None:
    for loader in both_loaders(dataset_of(archives["original"], real_pairs, lambda: raises(error))):
        with pytest.raises(type(error)) as caught:
            list(loader)
        assert str(caught.value) == str(error)


def test_a_defect_in_a_worker_keeps_its_traceback(archives: dict[str, Archive], real_pairs: RealPairs) -> None:
    dataset = dataset_of(archives["original"], real_pairs, lambda: raises(RuntimeError("a defect in a worker")))
    with pytest.raises(RuntimeError, match=r"(?s)Original Traceback.*a defect in a worker"):
        list(ordered_loader(dataset, 1, 1))


def test_a_killed_worker_is_one_line_with_the_cure(archives: dict[str, Archive], real_pairs: RealPairs) -> None:
    dataset = dataset_of(archives["original"], real_pairs, lambda: os.kill(os.getpid(), signal.SIGKILL))
    for loader in both_loaders(dataset):
        with pytest.raises(CbirError, match=r"worker.*lower num_workers \(it is 2\).*--shm-size") as caught:
            list(loader)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError(104, "Connection reset by peer")])
def test_a_pipe_that_breaks_before_the_worker_counts_as_dead_is_that_line_too(
    archives: dict[str, Archive], real_pairs: RealPairs, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    loader = ordered_loader(dataset_of(archives["original"], real_pairs, None), 1, 1)
    monkeypatch.setattr(PairLoader, "_batches", lambda _: map(raises, [error]))
    with pytest.raises(CbirError, match=r"a worker .*lower num_workers"):
        list(loader)


def test_a_worker_that_dies_is_noticed_at_the_next_batch_only(
    archives: dict[str, Archive], real_pairs: RealPairs
) -> None:
    """PyTorch's signal handler would raise in whatever line of the training step the program has come to."""
    before = signal.getsignal(signal.SIGCHLD)
    dataset = dataset_of(archives["original"], real_pairs, lambda: (time.sleep(1), os._exit(3)))
    batches = iter(ordered_loader(dataset, 1, 1))
    assert len(next(batches).label) == 1
    assert signal.getsignal(signal.SIGCHLD) == before
    with pytest.raises(CbirError, match="exited unexpectedly"):
        list(batches)


def test_loaders_are_iterated_again_and_again(archives: dict[str, Archive], real_pairs: RealPairs) -> None:
    dataset = BigEarthNetMM(real_pairs.pairs, PatchStore(archives["original"].s2), PatchStore(archives["original"].s1))
    here, workers = ordered_loader(dataset, 4, 0), ordered_loader(dataset, 4, 2)
    for _ in range(3):
        for one, other in zip(here, workers, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert len(workers) == len(here) == 2
    assert len(workers.dataset) == len(here.dataset) == 6
    assert workers.dataset.pairs == real_pairs.pairs
    assert workers.batch_size == 4


def test_train_and_retrieve_end_in_one_line_where_a_worker_meets_a_damaged_record(
    archives: dict[str, Archive], real_pairs: RealPairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(archives["original"].s2, tmp_path / "s2")
    (tmp_path / "all.csv").write_text("".join(f"{pair.s2},{pair.s1}\n" for pair in real_pairs.pairs))
    values = {
        **{f"{split}_csv": str(tmp_path / "all.csv") for split in ("train", "val", "test")},
        "bigEarthPthLMDB_S2": str(folder), "bigEarthPthLMDB_S1": str(archives["original"].s1),
        "backbone": "resnet10", "projection_dim": 8, "out_channels": 4, "loss_func": "contrastive", "batch_size": 3,
        "epochs": 1, "num_workers": 1, "num_cpu": 0, "device": "cpu", "name": "faults", "window": 32,
        "logging_params": {"save_dir": str(tmp_path), "name": "run"},
    }  # fmt: skip
    (tmp_path / "args.yaml").write_text(yaml.safe_dump(values))
    options = ["--filepath", str(tmp_path / "args.yaml")]
    assert train.main(options) == 0
    PatchStore(folder).close()
    name = real_pairs.pairs[3].s2
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as transaction:
        transaction.put(name.encode(), transaction.get(name.encode())[:-1000])
    for command, more in ((retrieve.main, []), (train.main, ["--overwrite"])):
        capsys.readouterr()
        assert command([*options, *more]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith(f"error: {folder}: record {name}: its pickle is refused")
