"""Feature extractors: a trained encoder, one of another project, an untrained one, or plain band statistics."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from bigearthnet_cbir.config import MODEL_KEYS, Config
from bigearthnet_cbir.config.keys import model_settings
from bigearthnet_cbir.data.dataset import PairBatch
from bigearthnet_cbir.directions import DIRECTIONS, SAME_FEATURES
from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.models.dual_encoder import DualEncoder
from bigearthnet_cbir.models.legacy_checkpoint import from_original, is_original
from bigearthnet_cbir.models.onnx_runtime import OnnxEncoder
from bigearthnet_cbir.models.skip_init import SkipInit
from bigearthnet_cbir.pipelines.agreement import check_agreement
from bigearthnet_cbir.pipelines.builders import build_encoder, choose_device
from bigearthnet_cbir.pipelines.calibration import Calibration
from bigearthnet_cbir.pipelines.encoder_features import BandStatistics, EncoderFeatures, OnnxFeatures, choose_arithmetic
from bigearthnet_cbir.pipelines.foreign_encoder import LoadedEncoder, load_configured, refuse_foreign
from bigearthnet_cbir.pipelines.foreign_features import ForeignFeatures
from bigearthnet_cbir.provenance import file_digest, fingerprint
from bigearthnet_cbir.training.checkpoints import load_checkpoint, load_weights
from bigearthnet_cbir.training.precision import choose_precision
from bigearthnet_cbir.training.resuming import changes_of

logger = logging.getLogger(__name__)

BASELINES: Final = ("untrained", "band_statistics")
"""Baselines of a trained network: random weights, and band statistics without a network."""


@dataclass(frozen=True)
class FeatureExtractor:
    """A function from a batch of pairs to feature vectors.

    Attributes:
        identity: plain values that determine the vectors; part of the fingerprint of the feature files.
        compute: batch -> {feature, feature_s1, feature_s2}, each (B, D) float32 on the CPU. It can be pickled for a
            Ray worker, which uses the first device of the same type.
        directions: valid directions; band statistics of different sensors are not comparable.
        provenance: further attributes of the output files: settings that differ from those of the checkpoint, and
            settings that changed during its training. Empty if there are none.
    """

    identity: dict[str, Any]
    compute: Callable[[PairBatch], dict[str, Tensor]]
    directions: tuple[str, ...] = tuple(DIRECTIONS)
    provenance: dict[str, str] = field(default_factory=dict)


def build_from_checkpoint(
    config: Config, checkpoint: Path, *, allow_different: bool = False
) -> tuple[DualEncoder, dict[str, Any], dict[str, str]]:
    """Return the encoder of a checkpoint (of this project or the original scripts), its options, and its provenance.

    Args:
        config: current settings.
        checkpoint: path of the checkpoint.
        allow_different: continue if the settings differ from those of the checkpoint, and record both values.

    Raises:
        CheckpointError: it is missing, damaged, belongs to another model, or was trained with other settings.
    """
    refuse_foreign(config, "there is no checkpoint to build a network from")
    content = load_checkpoint(checkpoint)
    differing = check_agreement(config, content, checkpoint, allow_different=allow_different)
    weights = content["state_dict"]
    options = model_settings(config)
    if is_original(weights):
        mapped, weights = from_original(weights, config.type)
        options |= mapped
        logger.info("%s: a checkpoint of the original scripts, mapped to %s", checkpoint, options)
    with SkipInit():
        model = build_encoder(config, **options)
    load_weights(model, weights, checkpoint)
    told = {"different_settings": differing, "training_changes": changes_of(content)}
    return model, options, {name: json.dumps(value) for name, value in told.items() if value}


def checkpoint_extractor(config: Config, checkpoint: Path, *, allow_different: bool = False) -> FeatureExtractor:
    """Return the encoder of a checkpoint as a feature extractor; raises as build_from_checkpoint does."""
    with ThreadPoolExecutor(1) as other:  # hashing hundreds of megabytes leaves the interpreter to this thread
        digest = other.submit(file_digest, checkpoint)
        model, options, provenance = build_from_checkpoint(config, checkpoint, allow_different=allow_different)
    identity = {"checkpoint": digest.result(), **provenance}
    return _with_provenance(_configured(config, model, options, identity), provenance)


def configured_extractor(config: Config, checkpoint: Path, *, allow_different: bool = False) -> FeatureExtractor:
    """Return the encoder that a configuration retrieves with: another project's, or that of a checkpoint.

    Raises:
        ConfigError: the key encoder names none that works.
        CheckpointError: as build_from_checkpoint.
    """
    if config.encoder is None:
        return checkpoint_extractor(config, checkpoint, allow_different=allow_different)
    device = choose_device(config)
    return foreign_extractor(load_configured(config), device, choose_precision(config.precision, device), config.fusion)


def foreign_extractor(
    loaded: LoadedEncoder, device: torch.device, precision: torch.dtype, fusion: str
) -> FeatureExtractor:
    """Return an encoder of another project as a feature extractor; raises as ForeignFeatures does."""
    compute = ForeignFeatures(loaded, device, precision, fusion)
    told = {key: loaded.identity[key] for key in ("encoder", "source", "weights", "bands", "size", "normalisation")}
    identity = {
        **loaded.identity,
        "checkpoint": f"encoder {loaded.identity['encoder']}, {fingerprint(loaded.identity)}",
        "feature": "encoder", "fusion": fusion, "precision": str(precision),
    }  # fmt: skip
    provenance = {"encoder": json.dumps(told)}
    return FeatureExtractor(identity, compute, compute.directions, provenance)


def baseline_extractor(
    config: Config, baseline: str, checkpoint: Path | None = None, *, allow_different: bool = False
) -> FeatureExtractor:
    """Return one of the BASELINES.

    Args:
        config: configuration of the untrained network.
        baseline: name of the baseline.
        checkpoint: checkpoint of the run; if it exists, the untrained network must be the one from which the run
            started, except for pretrained weights.
        allow_different: continue if it differs, and record both values.

    Raises:
        CheckpointError: the configured network differs from that of the run.
    """
    if baseline == "band_statistics":
        return FeatureExtractor(
            {"checkpoint": "none, band statistics"}, BandStatistics(choose_device(config)), SAME_FEATURES
        )
    refuse_foreign(config, "there are no random weights of it to compare with: use --baseline band_statistics")
    differing: dict[str, list[Any]] = {}
    if checkpoint is not None and checkpoint.exists():
        content, keys = load_checkpoint(checkpoint), (*MODEL_KEYS, "seed")
        differing = check_agreement(config, content, checkpoint, allow_different=allow_different, only=keys)
    options = model_settings(config)
    provenance = {"different_settings": json.dumps(differing)} if differing else {}
    identity = {"checkpoint": f"none, seed {config.seed}", **provenance}
    return _with_provenance(_configured(config, build_encoder(config), options, identity), provenance)


def _configured(
    config: Config, model: DualEncoder, options: dict[str, Any], identity: dict[str, Any]
) -> FeatureExtractor:
    device = choose_device(config)
    precision, backend = choose_arithmetic(config.precision, config.extract_backend, device, config.backbone)
    return encoder_extractor(
        model, {**identity, **options}, device=device, precision=precision, feature=config.feature,
        fusion=config.fusion, backend=backend,
        calibration=Calibration.of(config) if precision == torch.int8 else None,
    )  # fmt: skip


def _with_provenance(extractor: FeatureExtractor, told: dict[str, str]) -> FeatureExtractor:
    return replace(extractor, provenance={**extractor.provenance, **told})


def encoder_extractor(
    model: DualEncoder,
    identity: dict[str, Any],
    *,
    device: torch.device,
    precision: torch.dtype,
    feature: str,
    fusion: str,
    backend: str = "torch",
    calibration: Calibration | None = None,
) -> FeatureExtractor:
    """Return the feature extractor of a network.

    Args:
        model: network; it is moved to the device and set to eval mode.
        identity: plain values that determine its weights; the other arguments are added.
        device: device of the computation.
        precision: float32, bfloat16 with autocast, or int8.
        feature: "projection" for z1 and z2, "backbone" for h1 and h2.
        fusion: fusion of both vectors: concat, avg, max or sum.
        backend: torch, or onnxruntime on a CPU; see encoder_features.choose_arithmetic.
        calibration: training patches, for precision int8.

    Raises:
        ConfigError: precision is int8 without calibration.
    """
    if precision == torch.int8 and calibration is None:
        raise ConfigError(
            "precision is int8, which is calibrated on training patches: set it in the YAML file of a run, or use bf16"
        )
    identity = {**identity, "feature": feature, "fusion": fusion, "precision": str(precision)}
    if backend == "torch":
        return FeatureExtractor(identity, EncoderFeatures(model, device, precision, feature, fusion))
    told = {"extract_backend": json.dumps(backend)}
    if calibration is not None:
        identity["calibration"] = calibration.identity
        told["extract_precision"] = json.dumps(str(calibration))
    compute = OnnxFeatures(OnnxEncoder(model, feature, calibration), fusion)
    return FeatureExtractor({**identity, **told}, compute, provenance=told)
