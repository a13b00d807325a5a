"""Export of a checkpoint for other programs."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.data.bands import BAND_STATISTICS, MODEL_S2_BANDS, PATCH_SIZE, S1_BANDS
from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.models.export import write_export, write_onnx
from bigearthnet_cbir.pipelines.feature_extractors import build_from_checkpoint
from bigearthnet_cbir.provenance import file_digest, stamp

logger = logging.getLogger(__name__)


def export_model(config: Config, checkpoint: Path, folder: Path, *, allow_different: bool = False) -> list[str]:
    """Write the encoder of a checkpoint and return the file names.

    The ONNX file is written if the optional packages onnx and onnxscript are installed.

    Args:
        config: the training settings.
        checkpoint: path of the checkpoint.
        folder: output folder; created if missing.
        allow_different: continue if the settings differ, and record both values.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, belongs to another model, or was trained with other
            settings.
    """
    model, options, provenance = build_from_checkpoint(config, checkpoint, allow_different=allow_different)
    description = {
        "inputs": {"s1": list(S1_BANDS), "s2": list(MODEL_S2_BANDS)},
        "units": {"s1": "dB", "s2": "reflectance x 10 000"},
        "normalisation": {band: list(BAND_STATISTICS[band]) for band in (*S1_BANDS, *MODEL_S2_BANDS)},
        "preparation": (
            f"(value - mean) / std per band, then bands of 60 pixels to {PATCH_SIZE} by bicubic interpolation "
            "without aligned corners"
        ),
        "outputs": {"h1": "features of s1", "h2": "features of s2", "z1": "projection of s1", "z2": "projection of s2"},
        "fusion": config.fusion,
        "feature": config.feature,
        "class_names": list(CLASSES),
        "checkpoint_sha256": file_digest(checkpoint),
        **{name: json.loads(text) for name, text in provenance.items()},
        **stamp(),
    }
    model = model.cpu().eval()
    write_export(model, folder, options, description)
    if importlib.util.find_spec("onnx") is None or importlib.util.find_spec("onnxscript") is None:
        logger.info("no ONNX file was written; it needs: pip install 'bigearthnet-cbir[onnx]'")
    else:
        write_onnx(model, folder)
    return sorted(path.name for path in folder.iterdir())
