"""Checkpoints of this project and of the original scripts, starting weights, and exported encoders."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import torch
from tests.faults.hostile.damage import Spans
from tests.faults.hostile.edits import edited, edited_json
from tests.faults.hostile.subject import Subject, require
from torch import nn

from bigearthnet_cbir.data.transforms import BatchTransform
from bigearthnet_cbir.losses.ntxent import NTXentLoss
from bigearthnet_cbir.models.dual_encoder import DualEncoder
from bigearthnet_cbir.models.export import DESCRIPTION, WEIGHTS, read_export, write_export
from bigearthnet_cbir.models.legacy_checkpoint import from_original, is_original
from bigearthnet_cbir.models.pretrained import load_backbone_weights, read_pretrained
from bigearthnet_cbir.training.checkpoints import load_checkpoint, load_weights, save_checkpoint
from bigearthnet_cbir.training.engine import Trainer
from bigearthnet_cbir.training.objectives import ContrastiveObjective
from bigearthnet_cbir.training.optimizers import one_cycle

OPTIONS = {
    "type": "joint", "backbone": "resnet10", "projection_dim": 4, "projection_head": "original", "out_channels": 2,
    "sensor_norm": "per_sensor",
}  # fmt: skip


def _trainer() -> Trainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    objective = ContrastiveObjective(NTXentLoss(0.1, True), 0.0, None)
    optimizer = torch.optim.Adam([*model.parameters(), *objective.parameters()], 0.01)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    schedule = one_cycle(optimizer, 0.01, 40)
    identity = {**OPTIONS, "learning_rate": 0.01, "seed": 1, "training_pairs": "abc", "fusion": None}
    return Trainer(
        model, objective, optimizer, schedule, BatchTransform(torch.device("cpu")), None, torch.float32, 1, identity
    )


def _build_checkpoint(folder: Path) -> None:
    """Write a checkpoint of a small network as it is written now, and as old versions of PyTorch wrote files."""
    trainer = _trainer()
    trainer.state.epoch, trainer.state.best_loss = 3, 0.25
    content = trainer.checkpoint()
    save_checkpoint(folder / "last.pth.tar", content)
    torch.save(content, folder / "old.pth.tar", _use_new_zipfile_serialization=False)


def _read_checkpoint(folder: Path) -> list[Any]:
    found: list[Any] = []
    for path in sorted(folder.glob("*.tar")):
        trainer = _trainer()
        content = load_checkpoint(path)
        trainer.restore(content, path)
        state = trainer.state
        found.append([dict(trainer.model.state_dict()), state.epoch, state.best_loss, trainer.changes])
        found.append([trainer.optimizer.param_groups[0]["lr"], trainer.objective.state_dict()])
    return found


def _check_checkpoint(found: list[Any]) -> None:
    for (weights, epoch, best, changes), (rate, objective) in zip(found[::2], found[1::2], strict=True):
        _check_weights({**weights, **objective})
        require(type(epoch) is int and 0 <= epoch < 2**40, f"epoch {epoch!r}")
        require(type(best) is float and not math.isnan(best), f"best loss {best!r}")
        require(isinstance(rate, float) and math.isfinite(rate) and rate >= 0, f"learning rate {rate!r}")
        require(isinstance(changes, list), f"changes {changes!r}")


def _check_weights(weights: Mapping[str, Any]) -> None:
    for name, tensor in weights.items():
        require(isinstance(tensor, torch.Tensor), f"{name} is {type(tensor)}")
        require(bool(torch.isfinite(tensor).all()), f"{name} is not finite")
        require(not name.endswith("running_var") or bool((tensor >= 0).all()), f"{name} is negative")


def _edit_checkpoint(folder: Path, random: Random) -> str:
    path = random.choice(sorted(folder.glob("*.tar")))
    content = torch.load(path, weights_only=True)
    if random.random() < 0.3:
        changed, told = content, _edit_tensor(content["state_dict"], random)
    else:
        changed, told = edited(content, random)
    torch.save(changed, path, _use_new_zipfile_serialization=path.name != "old.pth.tar")
    return f"{path.name}: {told}"


def _edit_tensor(weights: dict[str, Any], random: Random) -> str:
    name = random.choice(list(weights))
    tensor = weights[name]
    action = random.choice(("nan", "inf", "huge", "half", "int", "complex", "sparse", "shape", "expanded", "bool"))
    changed = {
        "half": tensor.half, "int": tensor.long, "complex": tensor.to(torch.complex64).clone, "bool": tensor.bool,
        "sparse": tensor.to_sparse, "shape": lambda: tensor.reshape(1, *tensor.shape),
        "expanded": lambda: torch.zeros(1).expand(2**40),
    }.get(action)  # fmt: skip
    if changed is not None:
        weights[name] = changed()
    elif tensor.is_floating_point() and tensor.numel():
        value = {"nan": math.nan, "inf": math.inf, "huge": 3e38}[action]
        tensor.view(-1)[random.randrange(tensor.numel())] = value
    return f"{name}: {action}"


class Holder:
    """Stands for a network in which these weights fit."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self.weights = dict(weights)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return dict(self.weights)

    def load_state_dict(self, weights: Mapping[str, torch.Tensor]) -> None:
        self.weights = {name: torch.zeros_like(own).copy_(weights[name]) for name, own in self.weights.items()}


def _original_weights() -> dict[str, torch.Tensor]:
    """Return weights under the original scripts' names, with fewer channels and layers."""
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, torch.Tensor] = {}
    for encoder, channels in (("encoder_s1", 2), ("encoder_s2", 10), ("encoder_joint", 3)):
        weights[f"{encoder}.encoder.0.weight"] = torch.randn(4, channels, 7, 7, generator=generator)
        for name in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{encoder}.encoder.1.{name}"] = torch.rand(4, generator=generator)
        weights[f"{encoder}.encoder.1.num_batches_tracked"] = torch.tensor(7)
        weights[f"{encoder}.encoder.4.0.conv1.weight"] = torch.randn(4, 4, 3, 3, generator=generator)
    for name, channels in (("conv_SAR", 2), ("conv_RGB", 10)):
        weights[f"encoder_joint.{name}.conv.weight"] = torch.randn(3, channels, 1, 1, generator=generator)
        weights[f"encoder_joint.{name}.conv.bias"] = torch.randn(3, generator=generator)
    for old, new in (("encoder_s1.conv1", "encoder_s1"), ("encoder_s2.conv1", "encoder_s2")):
        weights[f"{old}.weight"] = weights[f"{new}.encoder.0.weight"]
    weights["encoder_joint.conv_first.weight"] = weights["encoder_joint.encoder.0.weight"]
    for head in ("projection_head_s1", "projection_head_s2"):
        weights[f"{head}.0.weight"] = torch.randn(5, 4, generator=generator)
        weights[f"{head}.0.bias"] = torch.randn(5, generator=generator)
    return weights


def _build_original(folder: Path) -> None:
    content = {"epoch": 9, "state_dict": _original_weights(), "optimizer": {"state": {}, "param_groups": []}}
    torch.save(content, folder / "checkpoint.pth.tar", _use_new_zipfile_serialization=False)
    torch.save(content, folder / "newer.pth.tar")


def _read_original(folder: Path) -> list[Any]:
    found = []
    for path in sorted(folder.glob("*.tar")):
        for kind in ("joint", "separate"):
            weights = load_checkpoint(path)["state_dict"]
            expected = from_original(_original_weights(), kind)[1]
            options: dict[str, Any] = {}
            if is_original(weights):
                options, weights = from_original(weights, kind)
            network = Holder(expected)
            load_weights(network, weights, path)  # type: ignore[arg-type]
            found.append([options, network.weights])
    return found


def _check_original(found: list[Any]) -> None:
    for options, weights in found:
        _check_weights(weights)
        require(options.get("projection_dim") == 5 and options.get("out_channels") == 3, f"{options}")


def _pretrained_weights() -> dict[str, torch.Tensor]:
    found = _original_weights()
    kept = {f"encoder.{name.removeprefix('encoder_s2.encoder.')}": found[name] for name in found if "s2.enc" in name}
    return {**kept, "encoder.7.0.conv1.weight": kept["encoder.4.0.conv1.weight"]}


def _build_pretrained(folder: Path) -> None:
    layers = {"0": "conv1", "1": "bn1", "4": "layer1", "7": "layer4"}
    weights = {}
    for name, tensor in _pretrained_weights().items():
        _, layer, rest = name.split(".", 2)
        weights[f"module.{layers[layer]}.{rest}"] = tensor
    weights |= {"module.fc.weight": torch.zeros(2, 4)}
    torch.save({"epoch": 3, "state_dict": weights}, folder / "weights.pth")


def _read_pretrained(folder: Path) -> dict[str, Any]:
    trunk = Holder(_pretrained_weights())
    bands = ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12")
    load_backbone_weights(trunk, read_pretrained(folder / "weights.pth"), bands, "weights.pth")  # type: ignore[arg-type]
    return trunk.weights


def _edit_state_dict(folder: Path, random: Random) -> str:
    path = random.choice(sorted(path for path in folder.iterdir()))
    content = torch.load(path, weights_only=True)
    if random.random() < 0.5:
        changed, told = content, _edit_tensor(content["state_dict"], random)
    else:
        changed, told = edited(content, random)
    torch.save(changed, path, _use_new_zipfile_serialization=path.name != "checkpoint.pth.tar")
    return f"{path.name}: {told}"


def _build_export(folder: Path) -> None:
    torch.manual_seed(0)
    description = {
        "inputs": {"s1": ["VV", "VH"], "s2": ["B02", "B03"]}, "normalisation": {"VV": [-12.6, 5.1]},
        "feature": "projection", "fusion": "concat", "class_names": ["Pastures"], "checkpoint_sha256": "0" * 64,
    }  # fmt: skip
    write_export(DualEncoder(**OPTIONS).eval(), folder, OPTIONS, description)  # type: ignore[arg-type]


def _read_export(folder: Path) -> list[Any]:
    model, description = read_export(folder)
    return [dict(model.state_dict()), description]


def _check_export(found: list[Any]) -> None:
    weights, description = found
    _check_weights(weights)
    require(description["encoder"] == OPTIONS, f"options {description['encoder']}")
    require(description.get("feature", "projection") in ("projection", "backbone"), "feature")
    require(description.get("fusion", "concat") in ("concat", "avg", "max", "sum"), "fusion")


def _edit_export(folder: Path, random: Random) -> str:
    """Change one thing in the JSON, or in the header of the safetensors file."""
    if random.random() < 0.6:
        path = folder / DESCRIPTION
        changed, told = edited_json(path.read_bytes(), random)
        path.write_bytes(changed)
        return f"{DESCRIPTION}: {told}"
    path = folder / WEIGHTS
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    changed, told = edited_json(content[8:end], random)
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + content[end:])
    return f"{WEIGHTS}: {told}"


def _zip_spans(_: str, content: bytes) -> Spans:
    """Return where a checkpoint is no weights: its pickle, the entries' heads and the directory."""
    if content[:2] != b"PK":
        return [(0, 4000)]
    with zipfile.ZipFile(_File(content)) as archive:
        infos = archive.infolist()
        return [(info.header_offset, info.header_offset + 64) for info in infos] + [
            (archive.start_dir, len(content)),
            *(
                (info.header_offset, info.header_offset + 64 + info.file_size)
                for info in infos
                if "pkl" in info.filename
            ),
        ]


def _File(content: bytes) -> Any:
    import io

    return io.BytesIO(content)


def _header_spans(name: str, content: bytes) -> Spans:
    return [(0, 8 + int.from_bytes(content[:8], "little"))] if name == WEIGHTS else ()


NETWORKS = (
    Subject(
        "checkpoint, ours", _build_checkpoint, _read_checkpoint, _check_checkpoint, spans=_zip_spans,
        edit=_edit_checkpoint,
    ),
    Subject(
        "checkpoint, original", _build_original, _read_original, _check_original, spans=_zip_spans,
        edit=_edit_state_dict,
    ),
    Subject(
        "init_weights", _build_pretrained, _read_pretrained, _check_weights, spans=_zip_spans, edit=_edit_state_dict
    ),
    Subject(
        "exported encoder", _build_export, _read_export, _check_export, spans=_header_spans, edit=_edit_export, cost=8
    ),
)  # fmt: skip
