"""train.py --hash and retrieval with code: learned, on six real pairs: what they write, refuse, resume."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tests.conftest import Archive
from tests.training.test_run import Bench

from bigearthnet_cbir.cli import train
from bigearthnet_cbir.errors import TrainingError
from bigearthnet_cbir.losses.hashing import ContrastiveHashLoss
from bigearthnet_cbir.models.hash_heads import HashHeads
from bigearthnet_cbir.pipelines import hashing
from bigearthnet_cbir.storage.feature_stamps import stamped_digest
from bigearthnet_cbir.storage.results import read_results
from bigearthnet_cbir.training.checkpoints import load_checkpoint
from bigearthnet_cbir.training.hashing import HashSettings, HashTrainer, fit_heads

pytestmark = pytest.mark.slow

SHORT = HashSettings(epochs=4, batch_size=3)


class HashBench(Bench):
    def hash(self, *words: str, code: int = 0) -> str:
        return self._tell(train.main(["--hash", str(self.run.root), *words]), code)

    def edit(self, **keys: Any) -> None:
        self.run.parameters.write_text(yaml.safe_dump({**self.keys, **keys}))

    def heads(self, loss: str = "contrastive", bits: int = 64) -> Path:
        return self.run.hash_heads(loss, bits)


@pytest.fixture
def bench(
    tmp_path: Path, archives: dict[str, Archive], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> HashBench:
    monkeypatch.setattr(hashing, "HashSettings", lambda: SHORT)
    found = HashBench(tmp_path, archives["rico"], capsys)
    found.trained()
    return found


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path)["state_dict"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_whole_way_from_a_trained_run_to_retrieval_with_learned_codes(
    bench: HashBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.hash("--change", "code_bits=16", "hash_loss=orthohash")
    assert bench.heads("orthohash", 16).exists()
    bench.edit(code="learned", code_bits=16, hash_loss="orthohash", distance="hamming", rerank=2)
    bench.retrieve()
    results = read_results(bench.run.retrieval)
    assert (results.attributes["code"], results.attributes["code_bits"]) == ("learned", 16)
    assert results.directions["s1_fused"].rerank is not None
    before = os.stat(bench.run.retrieval).st_mtime_ns
    bench.retrieve()
    assert os.stat(bench.run.retrieval).st_mtime_ns == before
    monkeypatch.setattr(hashing, "HashSettings", lambda: HashSettings(epochs=5))
    bench.hash("--overwrite")
    bench.retrieve()
    assert os.stat(bench.run.retrieval).st_mtime_ns != before, "other heads, other codes"


def test_training_is_exact_for_its_seed_and_goes_on_where_it_stopped(
    bench: HashBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.hash("--change", "code_bits=8")
    whole = weights(bench.heads(bits=8))
    bench.hash("--change", "code_bits=8", "--overwrite")
    assert same(weights(bench.heads(bits=8)), whole)
    done: list[int] = []
    train_epoch = HashTrainer.train_epoch

    def stop(trainer: HashTrainer, *arrays: np.ndarray) -> float:
        if trainer.epoch == 2 and not done:
            done.append(trainer.epoch)
            raise KeyboardInterrupt
        return train_epoch(trainer, *arrays)

    monkeypatch.setattr(HashTrainer, "train_epoch", stop)
    monkeypatch.setattr(hashing.fit_heads, "__defaults__", (1,))
    bench.heads(bits=8).unlink()
    assert train.main(["--hash", str(bench.run.root), "--change", "code_bits=8"]) == 130
    assert load_checkpoint(bench.heads(bits=8))["epoch"] == 2
    bench.edit(code="learned", code_bits=8, distance="hamming")
    assert "hash heads at epoch 2 of 4; complete the training" in bench.retrieve(code=2)
    assert "use --resume to continue" in bench.hash(code=2)
    bench.hash("--resume")
    assert same(weights(bench.heads(bits=8)), whole)


def test_heads_of_another_encoder_or_other_features_are_refused(bench: HashBench) -> None:
    bench.hash()
    bench.edit(code="learned", distance="hamming", feature="backbone")
    assert "feature 'projection' is not 'backbone'" in bench.retrieve(code=2)
    assert "these hash heads are of another training" in bench.hash("--resume", code=2)
    bench.edit(code="learned", distance="hamming")
    content = load_checkpoint(bench.run.best)
    content["state_dict"] = {name: tensor * 1.5 if tensor.is_floating_point() else tensor
                             for name, tensor in content["state_dict"].items()}  # fmt: skip
    torch.save(content, bench.run.best)
    assert "these hash heads are of another training (encoder" in bench.retrieve(code=2)


def test_a_baseline_has_no_heads_and_a_run_without_them_is_refused_before_it_extracts(bench: HashBench) -> None:
    bench.edit(code="learned", distance="hamming")
    assert "missing; train them with project/train.py --hash" in bench.retrieve(code=2)
    assert not bench.run.query.exists()
    assert "a baseline has no hash heads" in bench.retrieve("--baseline", "untrained", code=2)


def test_mistakes_are_one_line(bench: HashBench) -> None:
    assert "with --hash only code_bits, hash_loss may change" in bench.hash("--change", "seed=3", code=2)
    assert "code_bits is 12; give a multiple of 8" in bench.hash("--change", "code_bits=12", code=2)
    bench.hash()
    assert "hash heads exist already" in bench.hash(code=2)
    bench.heads().write_bytes(bench.run.best.read_bytes())
    bench.edit(code="learned", distance="hamming")
    assert "holds no hash heads" in bench.retrieve(code=2)
    bench.run.best.unlink()
    assert "there is no such file" in bench.hash("--overwrite", code=2)
    with pytest.raises(SystemExit):
        train.main(["--hash", "a", "--filepath", "b"])


def test_features_are_extracted_once(bench: HashBench) -> None:
    bench.hash()
    written, digest = os.stat(bench.run.train_features).st_mtime_ns, stamped_digest(bench.run.train_features)
    bench.hash("--change", "code_bits=8")
    assert os.stat(bench.run.train_features).st_mtime_ns == written
    assert load_checkpoint(bench.heads(bits=8))["identity"]["training_features"] == digest


def test_overwriting_the_run_removes_its_heads_and_codes(bench: HashBench) -> None:
    bench.hash()
    bench.edit(code="learned", distance="hamming")
    bench.retrieve()
    assert bench.run.codes.exists()
    bench.train("--overwrite")
    assert not bench.heads().exists()
    assert not bench.run.codes.exists()
    assert not bench.run.train_features.exists()


def two_views() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    shared = generator.standard_normal((200, 12))
    one, two = (shared + 0.4 * generator.standard_normal((200, 12)) + offset for offset in (1.0, -2.0))
    return one.astype(np.float32), two.astype(np.float32), np.zeros((200, 3), np.uint8)


def test_training_brings_both_sensors_codes_of_a_place_together_and_balances_bits() -> None:
    one, two, labels = two_views()
    torch.manual_seed(0)
    heads = HashHeads(12, 32)

    def state() -> tuple[float, float, float]:
        with torch.no_grad():
            u1, u2 = heads(torch.from_numpy(one), torch.from_numpy(two))
        apart = float((u1.sign() != u2.sign()).float().mean())
        return apart, float((u1.sign() != u2.sign().roll(1, 0)).float().mean()), float(u1.sign().mean(0).abs().max())

    before = state()
    settings = HashSettings(epochs=30, batch_size=50, learning_rate=1e-2)
    saved: list[dict[str, Any]] = []
    fit_heads(HashTrainer(heads, ContrastiveHashLoss(), settings, 0, {}), one, two, labels, saved.append)
    apart, others, bias = state()
    assert [content["epoch"] for content in saved] == [10, 20, 30]
    assert apart < before[0] / 2
    assert others > 0.4
    assert bias < min(0.3, before[2])


def test_a_loss_that_is_not_finite_is_told() -> None:
    one, two, labels = two_views()
    one[3] = np.inf
    trainer = HashTrainer(HashHeads(12, 8), ContrastiveHashLoss(), HashSettings(), 0, {})
    with pytest.raises(TrainingError, match="not finite"):
        trainer.train_epoch(one, two, labels)
