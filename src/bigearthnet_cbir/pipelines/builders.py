"""Construction of objects from the configuration; the only module that maps configured names to classes."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.config.keys import model_settings, training_settings
from bigearthnet_cbir.data.augment import (
    Augmentation,
    BandDropout,
    Compose,
    Dihedral,
    Noise,
    ResizedCrop,
    Speckle,
    Window,
)
from bigearthnet_cbir.data.bands import MODEL_S2_BANDS, PATCH_SIZE, S1_BANDS
from bigearthnet_cbir.data.dataset import BigEarthNetMM
from bigearthnet_cbir.data.labels import N_CLASSES
from bigearthnet_cbir.data.transforms import BatchTransform
from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.losses.hashing import ContrastiveHashLoss, OrthoHashLoss
from bigearthnet_cbir.losses.label_aware import LabelAwareLoss
from bigearthnet_cbir.losses.memory_bank import CrossBatchMemory
from bigearthnet_cbir.losses.ntxent import DecoupledLoss, NTXentLoss
from bigearthnet_cbir.models.backbones import AnyBackbone
from bigearthnet_cbir.models.dual_encoder import DualEncoder
from bigearthnet_cbir.models.pretrained import load_backbone_weights, random_layers, read_pretrained
from bigearthnet_cbir.models.sensor_batchnorm import has_sensor_batchnorm
from bigearthnet_cbir.models.timm_backbone import TimmBackbone
from bigearthnet_cbir.models.timm_pretrained import load_timm_weights, read_timm_weights
from bigearthnet_cbir.pipelines.inputs import open_split
from bigearthnet_cbir.training.distributed import convert_sync_batchnorm, world_size
from bigearthnet_cbir.training.engine import Trainer
from bigearthnet_cbir.training.objectives import ClassificationObjective, ContrastiveObjective, Objective
from bigearthnet_cbir.training.optimizers import build_optimizer, one_cycle
from bigearthnet_cbir.training.precision import choose_precision
from bigearthnet_cbir.types import PatchPair

logger = logging.getLogger(__name__)

CONTRASTIVE_LOSSES: Final[dict[str, type[NTXentLoss] | type[LabelAwareLoss]]] = {
    "ntxent": NTXentLoss,
    "decoupled": DecoupledLoss,
    "label_aware": LabelAwareLoss,
}


def choose_device(config: Config) -> torch.device:
    """Return the configured device; raises as pick_device does."""
    return pick_device(config.device, config.source)


def pick_device(device: str, source: str = "device") -> torch.device:
    """Return the device for auto, cpu, cuda or cuda:N.

    Raises:
        ConfigError: CUDA is configured but not available; `source` is the start of the message.
    """
    if device in {"auto", "cuda"} and torch.cuda.is_available():
        # torchrun numbers the processes of a machine; without torchrun there is one, on the first GPU.
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if device == "auto":
        return torch.device("cpu")
    picked = torch.device(device)
    if picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"{source}: device is {device!r}, but this machine has {torch.cuda.device_count()} CUDA devices; use "
            "auto or cpu"
        )
    return picked


def build_encoder(config: Config, **options: Any) -> DualEncoder:
    """Return a newly initialised encoder; the seed determines its weights, and options replace configured keys."""
    torch.manual_seed(config.seed)
    model = DualEncoder(**{**model_settings(config), **options})
    if config.n_features not in (None, model.n_features):
        raise ConfigError(
            f"{config.source}: n_features is {config.n_features}; {config.backbone} gives {model.n_features}: write "
            "that or leave it out"
        )
    return model


def start_from_pretrained(config: Config, model: DualEncoder) -> None:
    """Load init_weights and init_weights_s1 into the backbones, and log the layers that stay random.

    Raises:
        CheckpointError: a file is missing, or does not fit the backbone.
    """
    both = config.init_weights
    trunks: dict[str, tuple[str | None, tuple[str, ...] | None]]
    if model.is_joint:
        trunks = {"trunk": (both, None)}
    else:
        trunks = {"trunk_s1": (config.init_weights_s1 or both, S1_BANDS), "trunk_s2": (both, MODEL_S2_BANDS)}
    filled: set[str] = set()
    for name, (file, bands) in trunks.items():
        if file is not None:
            trunk: AnyBackbone = getattr(model, name)
            if isinstance(trunk, TimmBackbone):
                loaded = load_timm_weights(trunk, read_timm_weights(Path(file)), bands, file)
            else:
                loaded = load_backbone_weights(trunk, read_pretrained(Path(file)), bands, file)
            filled |= {f"{name}.{weight}" for weight in loaded}
            logger.info("%s is initialised from %s", name, file)
    if filled:
        logger.info("randomly initialised layers: %s", ", ".join(random_layers(model, filled)))


def build_objective(config: Config) -> Objective:
    """Return the training objective."""
    if config.loss_func == "classification":
        return ClassificationObjective(config.projection_dim, config.fusion, N_CLASSES)
    loss = CONTRASTIVE_LOSSES[config.contrastive_loss](config.temperature, config.learn_temperature)
    memory = CrossBatchMemory(config.memory_size, config.projection_dim) if config.memory_size else None
    return ContrastiveObjective(loss, config.alignment_weight, memory)


def build_hash_loss(config: Config, bits: int) -> nn.Module:
    """Return what hash heads for codes of so many bits are trained with."""
    return OrthoHashLoss(N_CLASSES, bits, config.seed) if config.hash_loss == "orthohash" else ContrastiveHashLoss()


def build_augmentation(config: Config) -> Augmentation | None:
    """Return the configured augmentations in order: geometry, speckle, noise, band dropout."""
    steps: list[Augmentation] = []
    if config.window < PATCH_SIZE:
        steps.append(Window(config.window))
    if config.augment:
        steps.append(Dihedral())
    if config.crop_area < 1:
        steps.append(ResizedCrop(config.crop_area))
    if config.speckle_looks:
        steps.append(Speckle(config.speckle_looks))
    if config.noise:
        steps.append(Noise(config.noise))
    if config.band_dropout:
        steps.append(BandDropout(config.band_dropout))
    return Compose(steps) if steps else None


def build_dataset(config: Config, split: str, *, require_labels: bool) -> BigEarthNetMM:
    """Return the dataset of train, val or test; raises as inputs.open_split does."""
    pairs, s2_store, s1_store = open_split(config, split)
    return BigEarthNetMM(pairs, s2_store, s1_store, require_labels=require_labels, is_checked=True)


def pairs_digest(pairs: Sequence[PatchPair]) -> str:
    """Return a hash of a list of pairs, including their order."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(f"{pair.s2},{pair.s1}\n".encode())
    return digest.hexdigest()


def training_identity(config: Config, train_pairs: Sequence[PatchPair], steps_per_epoch: int) -> dict[str, Any]:
    """Return the settings that must be equal when a run resumes from a checkpoint, as plain values."""
    identity = training_settings(config)
    identity["training_pairs"] = pairs_digest(train_pairs)
    identity["steps_per_epoch"] = steps_per_epoch
    return identity


def build_trainer(config: Config, train_pairs: Sequence[PatchPair], steps_per_epoch: int) -> Trainer:
    """Return the trainer in its initial state."""
    device = choose_device(config)
    encoder = build_encoder(config)
    if encoder.is_joint and config.sensor_norm == "per_sensor" and not has_sensor_batchnorm(encoder):
        logger.info("%s has no batch norm: sensor_norm changes nothing", config.backbone)
    start_from_pretrained(config, encoder)
    encoder = encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = convert_sync_batchnorm(encoder, device)
    objective = build_objective(config).to(device)
    parameters = [*model.parameters(), *objective.parameters()]
    optimizer = build_optimizer(config.optimizer, parameters, config.learning_rate, config.weight_decay)
    total_steps = config.epochs * math.ceil(steps_per_epoch / config.accumulate_steps)
    scheduler = one_cycle(optimizer, config.learning_rate, total_steps) if config.scheduler else None
    return Trainer(
        model=model,
        objective=objective,
        optimizer=optimizer,
        scheduler=scheduler,
        transform=BatchTransform(device),
        augment=build_augmentation(config),
        precision=choose_precision(config.precision, device),
        seed=config.seed,
        identity=training_identity(config, train_pairs, steps_per_epoch),
        accumulate=config.accumulate_steps,
        clip_norm=config.clip_norm,
        compile=config.compile,
        micro_batch=config.micro_batch_size // world_size(),
    )
