"""Two gloo processes against one process with the joined batch."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.utils.data import DataLoader, Dataset

from bigearthnet_cbir.data.dataset import PairBatch
from bigearthnet_cbir.data.loaders import EpochSampler
from bigearthnet_cbir.data.transforms import BatchTransform
from bigearthnet_cbir.losses.ntxent import NTXentLoss
from bigearthnet_cbir.models.dual_encoder import DualOutput
from bigearthnet_cbir.training.distributed import convert_sync_batchnorm, wrap_ddp
from bigearthnet_cbir.training.engine import Trainer
from bigearthnet_cbir.training.grad_cache import GradientCache
from bigearthnet_cbir.training.objectives import ClassificationObjective, ContrastiveObjective, TrainingStep
from bigearthnet_cbir.training.optimizers import build_optimizer

pytestmark = pytest.mark.slow

PAIRS = 6


class SmallEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.s1 = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.s2 = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, s1: torch.Tensor, s2: torch.Tensor) -> DualOutput:
        h1, h2 = self.s1(s1).flatten(1), self.s2(s2).flatten(1)
        return DualOutput(h1, h2, h1, h2)


def batch() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    s1, s2 = torch.randn(PAIRS, 2, 8, 8, generator=generator), torch.randn(PAIRS, 3, 8, 8, generator=generator)
    return s1, s2, torch.zeros(PAIRS, 19, dtype=torch.uint8), torch.arange(PAIRS)


def loss_and_state(rows: slice | list[int], micro_batch: int = 0) -> dict[str, torch.Tensor]:
    device = torch.device("cpu")
    model = convert_sync_batchnorm(SmallEncoder(), device)
    objective = ContrastiveObjective(NTXentLoss(0.2, learned=True), alignment_weight=0.5)
    step, inputs = TrainingStep(model, objective), [part[rows] for part in batch()]
    if micro_batch:
        loss = GradientCache(step, micro_batch, nullcontext).backward(*inputs)
    else:
        wrapped = wrap_ddp(step, device)
        loss = wrapped(*inputs)
        loss.backward()
    gradients = {f"grad {name}": weight.grad for name, weight in model.named_parameters()}
    temperature = {"grad temperature": objective.loss.temperature.log.grad}
    return {"loss": loss.detach(), **gradients, **temperature, **dict(model.named_buffers())}


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(loss_and_state(slice(3 * rank, 3 * rank + 3)), f"{folder}/{rank}")
    torch.save(loss_and_state(slice(3 * rank, 3 * rank + 3), micro_batch=1), f"{folder}/cached {rank}")
    dist.destroy_process_group()


def test_two_processes_get_the_loss_gradients_and_statistics_of_one(tmp_path: Path) -> None:
    mp.spawn(one_of_two, args=(str(tmp_path),), nprocs=2)
    # A micro-batch consists of one pair of each process.
    cached = loss_and_state([0, 3, 1, 4, 2, 5], micro_batch=2)
    for prefix, whole in (("", loss_and_state(slice(None))), ("cached ", cached)):
        assert float(whole["loss"]) > 0
        for rank in range(2):
            part = torch.load(tmp_path / f"{prefix}{rank}", weights_only=True)
            assert part.keys() == whole.keys()
            for name, value in whole.items():
                assert torch.allclose(part[name], value, rtol=1e-4, atol=1e-6), (prefix, rank, name)


def test_parts_of_an_epoch_make_up_the_batches_of_one_process() -> None:
    whole = list(EpochSampler(11, seed=4))
    parts = [list(EpochSampler(11, seed=4, rank=part, num_replicas=2)) for part in range(2)]
    assert [len(part) for part in parts] == [5, 5]
    assert [place for both in zip(*parts, strict=True) for place in both] == whole[:10]


class Parts(Dataset[PairBatch]):
    """The pairs of `batch` with labels, as stored values."""

    def __len__(self) -> int:
        return PAIRS

    def __getitem__(self, index: int) -> PairBatch:
        s1, s2, _, place = (part[index] for part in batch())
        return PairBatch(s1, s2, s2, (torch.arange(19) % PAIRS <= index).to(torch.uint8), place)


class AsStored(BatchTransform):
    def __call__(self, batch: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        return batch.s1, batch.s2_10m


def logged_loss(part: int, parts: int) -> torch.Tensor:
    """Return the loss that an epoch of three steps reports, with labels: each process knows its own pairs only."""
    model = convert_sync_batchnorm(SmallEncoder(), torch.device("cpu"))
    torch.manual_seed(2)
    objective = ClassificationObjective(4, "concat", 19)
    optimizer = build_optimizer("sgd", [*model.parameters(), *objective.parameters()], 0.1, 0.0)
    trainer = Trainer(model, objective, optimizer, None, AsStored(), None, torch.float32, 0, {})
    sampler = EpochSampler(PAIRS, 0, part, parts)
    return torch.tensor(trainer.train_epoch(DataLoader(Parts(), batch_size=2 // parts, sampler=sampler)))


def loss_of_one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(logged_loss(rank, 2), f"{folder}/{rank}")
    dist.destroy_process_group()


def test_the_logged_training_loss_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    mp.spawn(loss_of_one_of_two, args=(str(tmp_path),), nprocs=2)
    expected = float(logged_loss(0, 1))
    for rank in range(2):
        assert float(torch.load(tmp_path / str(rank), weights_only=True)) == pytest.approx(expected, rel=1e-5)
