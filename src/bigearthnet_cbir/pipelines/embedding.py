"""Public API: load an encoder, and compute the embeddings of a dataset."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bigearthnet_cbir.config import MODEL_KEYS, Config, load_config
from bigearthnet_cbir.data.dataset import BigEarthNetMM
from bigearthnet_cbir.data.labels import N_CLASSES
from bigearthnet_cbir.data.loaders import ordered_loader
from bigearthnet_cbir.data.pair_list import PairList
from bigearthnet_cbir.errors import CheckpointError
from bigearthnet_cbir.models.dual_encoder import DualEncoder
from bigearthnet_cbir.models.export import DESCRIPTION, WEIGHTS, read_export
from bigearthnet_cbir.models.legacy_checkpoint import from_original, is_original
from bigearthnet_cbir.models.skip_init import SkipInit
from bigearthnet_cbir.pipelines.builders import pick_device
from bigearthnet_cbir.pipelines.encoder_features import choose_arithmetic
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor, encoder_extractor, foreign_extractor
from bigearthnet_cbir.pipelines.foreign_encoder import load_configured
from bigearthnet_cbir.provenance import file_digest
from bigearthnet_cbir.storage.features import FUSED_FEATURE, S1_FEATURE, S2_FEATURE
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.training.checkpoints import load_checkpoint, load_weights
from bigearthnet_cbir.training.precision import choose_precision
from bigearthnet_cbir.types import ByteArray, FloatArray

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of N pairs.

    Attributes:
        fused: (N, F) float32 fused embeddings; F is 2 D for fusion concat, else D.
        s1: (N, D) float32 embeddings of Sentinel-1.
        s2: (N, D) float32 embeddings of Sentinel-2.
        labels: (N, 19) uint8 multi-hot, columns in the order of data.labels.CLASSES.
        names: the N pairs, as PatchPair(s2, s1).
    """

    fused: FloatArray
    s1: FloatArray
    s2: FloatArray
    labels: ByteArray
    names: PairList

    def __len__(self) -> int:
        return len(self.names)


def load_encoder(
    path: Path | str,
    *,
    device: str = "auto",
    precision: str = "auto",
    backend: str = "auto",
    feature: str | None = None,
    fusion: str | None = None,
    type: str = "joint",
) -> FeatureExtractor:
    """Return a trained encoder, ready for `embed`.

    Args:
        path: a run folder (its best checkpoint, or the encoder that it names), a checkpoint of this project or of the
            original scripts, or an export folder of project/export_model.py.
        device: auto, cpu, cuda or cuda:N.
        precision: auto (bfloat16 if the hardware supports it), fp32 or bf16.
        backend: torch, onnxruntime, or auto: as the key extract_backend.
        feature: "projection" for z1 and z2, "backbone" for h1 and h2; None for the setting of the run.
        fusion: concat, avg, max or sum; None for the setting of the run.
        type: for a checkpoint of the original scripts, which of its encoders was trained: joint or separate.

    Raises:
        CheckpointError, ConfigError: the file is missing, damaged or no encoder; the device or backend is not there.

    Example (`run` is a run folder, here with 8 dimensions per sensor):
        >>> import bigearthnet_cbir as cbir
        >>> cbir.load_encoder(run, device="cpu").identity["projection_dim"]
        8
    """
    chosen = pick_device(device)
    if (config := _foreign_config(Path(path))) is not None:
        kind = choose_precision(precision, chosen)
        return foreign_extractor(load_configured(config), chosen, kind, fusion or config.fusion)
    model, told = _read_encoder(Path(path), type)
    kind, program = choose_arithmetic(precision, backend, chosen, model.settings["backbone"])
    feature, fusion = _chosen(told, feature, fusion)
    return encoder_extractor(
        model, told, device=chosen, precision=kind, backend=program, feature=feature, fusion=fusion
    )


def _chosen(told: dict[str, Any], feature: str | None, fusion: str | None) -> tuple[str, str]:
    """Remove the feature and the fusion of a run from its settings, and return those to use."""
    stored = told.pop("feature", "projection"), told.pop("fusion", "concat")
    return feature or stored[0], fusion or stored[1]


def _foreign_config(path: Path) -> Config | None:
    """Return the configuration of a run that retrieves with another project's encoder, else None."""
    parameters = RunFolder(path).parameters
    config = load_config(parameters) if parameters.is_file() else None
    return None if config is None or config.encoder is None else config


def _read_encoder(path: Path, kind: str) -> tuple[DualEncoder, dict[str, Any]]:
    """Return the network and its settings from the files."""
    if (path / DESCRIPTION).is_file():
        model, description = read_export(path)
        kept = {name: description[name] for name in ("feature", "fusion") if name in description}
        return model, {**kept, **description["encoder"], "checkpoint": file_digest(path / WEIGHTS)}
    told: dict[str, Any] = {}
    checkpoint = path
    if path.is_dir():
        folder = RunFolder(path)
        checkpoint = folder.best
        if folder.parameters.is_file():
            config = load_config(folder.parameters)
            told = {"feature": config.feature, "fusion": config.fusion}
            checkpoint = Path(config.state_dict) if config.state_dict else checkpoint
    content = load_checkpoint(checkpoint)
    weights, options = content["state_dict"], _options(content)
    if is_original(weights):
        options, weights = from_original(weights, kind)
        options.setdefault("backbone", "resnet50")
    if not options:
        raise CheckpointError(f"{checkpoint}: has no settings of the network; give its run folder")
    try:
        with SkipInit():
            model = DualEncoder(**options)
    except ValueError as error:
        raise CheckpointError(
            f"{checkpoint}: the settings of the network are damaged ({error}); use another checkpoint"
        ) from error
    load_weights(model, weights, checkpoint)
    return model, {**told, **options, "checkpoint": file_digest(checkpoint)}


def _options(content: dict[str, Any]) -> dict[str, Any]:
    identity = content.get("identity", {})
    return {key: identity[key] for key in MODEL_KEYS if key in identity}


def embed(encoder: FeatureExtractor, data: BigEarthNetMM, *, batch_size: int = 256, num_workers: int = 0) -> Embeddings:
    """Return the embeddings of a dataset, in its order, computed in eval mode.

    Args:
        encoder: encoder of `load_encoder`.
        data: dataset of N pairs.
        batch_size: pairs per batch; affects the embeddings only by float rounding.
        num_workers: processes that read patches; 0 for none.

    Raises:
        DataError: a patch cannot be read, or has no labels where `data` requires them.

    Example (`archive` is an LMDB folder with six pairs, `pairs` their names):
        >>> import bigearthnet_cbir as cbir
        >>> data = cbir.BigEarthNetMM.from_lmdb(archive, pairs)
        >>> embeddings = cbir.embed(cbir.load_encoder(run, device="cpu"), data)
        >>> embeddings.s1.shape, embeddings.fused.shape, embeddings.labels.shape
        ((6, 8), (6, 16), (6, 19))
    """
    columns: dict[str, list[Any]] = {FUSED_FEATURE: [], S1_FEATURE: [], S2_FEATURE: [], "label": []}
    for batch in ordered_loader(data, batch_size, num_workers):
        for name, vectors in encoder.compute(batch).items():
            columns[name].append(vectors.numpy())
        columns["label"].append(batch.label.numpy())
    # An encoder of one sensor has no vectors of the other: width 0.
    fused, s1, s2 = (
        np.concatenate(columns[name]) if columns[name] else np.empty((len(data), 0), np.float32)
        for name in (FUSED_FEATURE, S1_FEATURE, S2_FEATURE)
    )
    labels = np.concatenate(columns["label"]) if columns["label"] else np.empty((0, N_CLASSES), np.uint8)
    return Embeddings(fused, s1, s2, labels, data.pairs)
