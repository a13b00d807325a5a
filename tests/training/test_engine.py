import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.utils.data import DataLoader, Dataset

from bigearthnet_cbir.data.augment import Dihedral
from bigearthnet_cbir.data.dataset import PairBatch
from bigearthnet_cbir.data.loaders import EpochSampler, mixed_seed
from bigearthnet_cbir.data.transforms import BatchTransform
from bigearthnet_cbir.errors import CheckpointError, TrainingError
from bigearthnet_cbir.losses.ntxent import NTXentLoss
from bigearthnet_cbir.models.dual_encoder import DualEncoder, DualOutput
from bigearthnet_cbir.training.checkpoints import load_checkpoint, load_weights, save_checkpoint
from bigearthnet_cbir.training.engine import Trainer
from bigearthnet_cbir.training.fit import fit
from bigearthnet_cbir.training.objectives import ClassificationObjective, ContrastiveObjective, Objective
from bigearthnet_cbir.training.optimizers import OPTIMIZERS, build_optimizer, one_cycle


class RandomPairs(Dataset[PairBatch]):
    def __init__(self, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.s1 = torch.randn(size, 2, 120, 120, generator=generator) * 5 - 15
        self.s2_10m = torch.randint(0, 5000, (size, 4, 120, 120), generator=generator).to(torch.uint16)
        self.s2_20m = torch.randint(0, 5000, (size, 6, 60, 60), generator=generator).to(torch.uint16)
        self.label = (torch.rand(size, 19, generator=generator) < 0.3).to(torch.uint8)

    def __len__(self) -> int:
        return len(self.s1)

    def __getitem__(self, index: int) -> PairBatch:
        return PairBatch(self.s1[index], self.s2_10m[index], self.s2_20m[index], self.label[index], torch.tensor(index))


class SmallEncoder(nn.Module):
    """As small as an encoder can be that still has a batch norm to restore."""

    def __init__(self) -> None:
        super().__init__()
        self.s1 = nn.Sequential(nn.Conv2d(2, 8, 8, 8), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.s2 = nn.Sequential(nn.Conv2d(10, 8, 8, 8), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, s1: torch.Tensor, s2: torch.Tensor) -> DualOutput:
        h1, h2 = self.s1(s1).flatten(1), self.s2(s2).flatten(1)
        return DualOutput(h1, h2, h1, h2)


DATA = RandomPairs(7)
EPOCHS = 3


def new_trainer(loss: str = "contrastive", optimizer: str = "adamw", learning_rate: float = 1e-3) -> Trainer:
    torch.manual_seed(1)
    model = SmallEncoder()
    objective: Objective = (
        ContrastiveObjective(NTXentLoss(0.1)) if loss == "contrastive" else ClassificationObjective(8, "concat", 19)
    )
    updates = build_optimizer(optimizer, [*model.parameters(), *objective.parameters()], learning_rate, 1e-4)
    schedule = one_cycle(updates, learning_rate, EPOCHS * 2)
    return Trainer(
        model, objective, updates, schedule, BatchTransform(), Dihedral(), torch.float32, 3, {"learning_rate": 1e-3}
    )


def loaders() -> tuple[DataLoader[PairBatch], DataLoader[PairBatch]]:
    return (
        DataLoader(DATA, batch_size=3, sampler=EpochSampler(7, 3), drop_last=True),
        DataLoader(DATA, batch_size=4),
    )


def run_to(trainer: Trainer, epochs: int, folder: Path) -> list[dict[str, float]]:
    figures: list[dict[str, float]] = []
    folder.mkdir(exist_ok=True)
    fit(trainer, *loaders(), epochs, folder / "best", folder / "last", lambda _, values: figures.append(values))
    return figures


@pytest.mark.parametrize("loss", ["contrastive", "classification"])
def test_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, loss: str) -> None:
    whole = new_trainer(loss)
    run_to(whole, EPOCHS, tmp_path / "whole")
    run_to(new_trainer(loss), 1, tmp_path / "parts")
    torch.manual_seed(999)
    resumed = new_trainer(loss)
    last = tmp_path / "parts" / "last"
    resumed.restore(load_checkpoint(last), last)
    assert resumed.state.epoch == 1
    run_to(resumed, EPOCHS, tmp_path / "parts")
    for module in ("model", "objective"):
        ours, theirs = getattr(resumed, module).state_dict(), getattr(whole, module).state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert resumed.state == whole.state


def test_training_lowers_the_loss_and_reports_every_score(tmp_path: Path) -> None:
    figures = run_to(new_trainer("classification", learning_rate=2e-2), EPOCHS, tmp_path)
    assert figures[-1]["loss/training"] < figures[0]["loss/training"]
    averaged = ("precision", "recall", "f1", "f2", "accuracy")
    wanted = {f"validation/{name}_{average}" for name in averaged for average in ("macro", "micro", "samples")}
    wanted |= {
        f"validation/{name}"
        for name in (
            "hamming_loss", "subset_accuracy", "one_error", "coverage", "ranking_loss",
            "label_ranking_average_precision",
        )
    }  # fmt: skip
    assert wanted <= set(figures[-1])


def test_validation_loss_is_weighted_by_samples() -> None:
    trainer = new_trainer("classification")
    small, _ = trainer.validate(DataLoader(DATA, batch_size=4))
    large, _ = trainer.validate(DataLoader(DATA, batch_size=7))
    assert small == pytest.approx(large, rel=1e-5)


def test_best_checkpoint_is_that_of_the_lowest_validation_loss(tmp_path: Path) -> None:
    figures = run_to(new_trainer(), EPOCHS, tmp_path)
    losses = [values["loss/validation"] for values in figures]
    best = load_checkpoint(tmp_path / "best")
    assert best["epoch"] == losses.index(min(losses)) + 1
    assert best["best_loss"] == min(losses)


def test_loss_that_is_not_finite_names_epoch_and_step_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    trainer = new_trainer()
    run_to(trainer, 1, tmp_path)
    before = (tmp_path / "last").read_bytes()
    with torch.no_grad():
        trainer.model.s1[0].weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="epoch 2, step 1"):
        run_to(trainer, 2, tmp_path)
    assert (tmp_path / "last").read_bytes() == before


def test_classification_head_is_trained_and_restored(tmp_path: Path) -> None:
    trainer = new_trainer("classification")
    start = trainer.objective.state_dict()["head.weight"].clone()
    run_to(trainer, 1, tmp_path)
    trained = trainer.objective.state_dict()["head.weight"]
    assert not torch.equal(start, trained)
    assert torch.equal(load_checkpoint(tmp_path / "last")["objective"]["head.weight"], trained)


def test_checkpoint_of_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    run_to(new_trainer(), 1, tmp_path)
    other = new_trainer()
    other.identity = {"learning_rate": 5e-2}
    with pytest.raises(CheckpointError, match=r"learning_rate was 0.001, is 0.05"):
        other.restore(load_checkpoint(tmp_path / "last"), tmp_path / "last")


@pytest.mark.parametrize("keep", [0, 10, 1000, -1])
def test_truncated_checkpoint_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "checkpoint"
    save_checkpoint(path, {"state_dict": {"weight": torch.zeros(100)}})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="truncated"):
        load_checkpoint(path)


def test_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("code ran",))

    torch.save({"state_dict": {}, "extra": Hostile()}, tmp_path / "hostile")
    with pytest.raises(CheckpointError, match="refused"):
        load_checkpoint(tmp_path / "hostile")


def test_weights_of_another_model_are_refused_in_one_line(tmp_path: Path) -> None:
    other = DualEncoder(type="separate", backbone="resnet18", projection_dim=4)
    with pytest.raises(CheckpointError, match="belongs to another model") as caught:
        load_weights(DualEncoder(type="joint", backbone="resnet18"), other.state_dict(), tmp_path / "x")
    assert "\n" not in str(caught.value)


ODD_WEIGHTS = [{"weight": 3}, {"weight": None}, {"weight": torch.zeros(()), 5: 5}, {5: torch.zeros(2)}]


@pytest.mark.parametrize("odd", ODD_WEIGHTS)
def test_weights_that_are_no_tensors_are_refused_in_one_line(odd: dict[object, object], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="belongs to another model"):
        load_weights(nn.Linear(2, 2, bias=False), odd, tmp_path / "x")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_a_step(name: str) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = build_optimizer(name, [weight], 0.1, 0.0)
    (weight**2).sum().backward()
    optimizer.step()
    assert float(weight.detach().abs().max()) < 1


def test_order_depends_on_seed_and_epoch_alone() -> None:
    sampler = EpochSampler(20, seed=1)
    first = list(sampler)
    sampler.epoch = 1
    assert list(sampler) != first
    sampler.epoch = 0
    assert list(sampler) == first
    assert sorted(first) == list(range(20))
    assert len({mixed_seed(a, b) for a in range(20) for b in range(20)}) == 400


def gradients_of(trainer: Trainer, batches: list[PairBatch]) -> list[torch.Tensor]:
    """Return what one optimiser step would use: the mean of the batches' gradients, without augmentation."""
    trainer.model.train()
    for batch in batches:
        output = trainer.model(*trainer.transform(batch))
        (trainer.objective(output, batch.label, batch.pair_index) / len(batches)).backward()
    return [weight.grad.clone() for weight in trainer.model.parameters() if weight.grad is not None]


def plain_step(accumulate: int, clip_norm: float) -> tuple[Trainer, list[PairBatch]]:
    trainer = replace(new_trainer("contrastive", "sgd"), augment=None, scheduler=None,
                      accumulate=accumulate, clip_norm=clip_norm)  # fmt: skip
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=1.0)
    return trainer, list(DataLoader(DATA, batch_size=3, drop_last=True))


def test_accumulated_step_follows_the_mean_gradient_of_its_batches() -> None:
    trainer, batches = plain_step(accumulate=2, clip_norm=0.0)
    before = [weight.detach().clone() for weight in trainer.model.parameters()]
    reference, _ = plain_step(accumulate=1, clip_norm=0.0)
    expected = gradients_of(reference, batches)
    trainer.train_epoch(DataLoader(DATA, batch_size=3, drop_last=True))
    for old, new, gradient in zip(before, trainer.model.parameters(), expected, strict=True):
        torch.testing.assert_close(old - new, gradient, rtol=1e-4, atol=1e-6)


def test_clipped_step_has_the_largest_norm_that_is_allowed() -> None:
    trainer, _ = plain_step(accumulate=2, clip_norm=1e-3)
    before = [weight.detach().clone() for weight in trainer.model.parameters()]
    trainer.train_epoch(DataLoader(DATA, batch_size=3, drop_last=True))
    moved = torch.cat([(old - new).flatten() for old, new in zip(before, trainer.model.parameters(), strict=True)])
    assert float(moved.detach().norm()) == pytest.approx(1e-3, rel=1e-3)


def test_a_batch_of_one_and_a_short_last_batch_are_trained_on_and_validated() -> None:
    trainer, _ = plain_step(accumulate=1, clip_norm=0.0)
    assert trainer.train_epoch(DataLoader(DATA, batch_size=1)) == 0.0, "one pair alone has no negatives"
    whole, _ = trainer.validate(DataLoader(DATA, batch_size=7))
    parts, _ = trainer.validate(DataLoader(DATA, batch_size=3))
    assert 0 < parts < whole, "the last batch of one pair counts with its weight"


def fill_up(bytes_left: int) -> None:
    """Refuse every byte of a file beyond a size, as a full disk does."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, bytes_left))


def save_on_a_full_disk(path: Path, bytes_left: int, told: mp.SimpleQueue) -> None:
    fill_up(bytes_left)
    try:
        save_checkpoint(path, {"epoch": 2, "state_dict": {"weight": torch.randn(50_000)}})
    except CheckpointError as error:
        told.put(str(error))
    else:
        told.put("written")


@pytest.mark.parametrize("bytes_left", [0, 1, 700, 4096, 60_000, 199_000])
def test_a_full_disk_at_a_checkpoint_is_one_line_and_keeps_the_earlier_one(tmp_path: Path, bytes_left: int) -> None:
    path = tmp_path / "last"
    save_checkpoint(path, {"epoch": 1, "state_dict": {"weight": torch.zeros(3)}})
    before = path.read_bytes()
    context = mp.get_context("fork")
    told = context.SimpleQueue()
    process = context.Process(target=save_on_a_full_disk, args=(path, bytes_left, told))
    process.start()
    process.join()
    assert process.exitcode == 0, "the error was of another kind"
    message = told.get()
    assert message.startswith(f"{path}: cannot be written (File too large).*checkpoint is kept")
    assert len(message.splitlines()) == 1
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["last"], "a temporary file was left"


def test_the_logged_learning_rate_is_that_of_the_epochs_last_step(tmp_path: Path) -> None:
    trainer, used = new_trainer(), []
    trainer.optimizer.register_step_pre_hook(lambda optimizer, *_: used.append(optimizer.param_groups[0]["lr"]))
    figures = run_to(trainer, EPOCHS, tmp_path)
    assert len(set(used)) == 2 * EPOCHS
    assert [values["learning_rate"] for values in figures] == used[1::2]
