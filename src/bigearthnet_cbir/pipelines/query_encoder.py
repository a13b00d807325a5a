"""Embeddings of patches outside the archive: published folders, or one GeoTIFF with named bands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bigearthnet_cbir.config import Config, load_config
from bigearthnet_cbir.data.bands import PATCH_SIZE, S1_BANDS, S2_10M_BANDS, S2_20M_BANDS
from bigearthnet_cbir.data.dataset import PairBatch
from bigearthnet_cbir.data.labels import N_CLASSES
from bigearthnet_cbir.data.patch_rules import Bands
from bigearthnet_cbir.directions import FUSED, S1, S2
from bigearthnet_cbir.errors import QueryError
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor, configured_extractor
from bigearthnet_cbir.storage.features import DATASETS
from bigearthnet_cbir.storage.outside import refuse_outside
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.types import FloatArray


class QueryEncoder:
    """The encoder of a run, loaded once, for external patches.

    Attributes:
        identity: digest of the checkpoint and everything else that determines the vectors.
    """

    def __init__(self, folder: Path | str, *, allow_different: bool = False) -> None:
        """Load the encoder of a run folder; raises CheckpointError or ConfigError if that fails."""
        run = RunFolder(Path(folder))
        config: Config = load_config(run.parameters)
        refuse_outside(run)
        # Converting the network takes longer than an image.
        precision = "auto" if config.precision == "int8" else config.precision
        config = replace(config, extract_backend="torch", precision=precision)
        checkpoint = Path(config.state_dict) if config.state_dict else run.best
        self._extractor: FeatureExtractor = configured_extractor(config, checkpoint, allow_different=allow_different)
        self.identity = self._extractor.identity

    def encode(self, s2: Bands | None = None, s1: Bands | None = None) -> dict[str, FloatArray]:
        """Return modality -> (D,) float32 vector of the given sensors; also fused if both are given.

        Args:
            s2: band name -> uint16 or float32 reflectance x 10 000, the ten bands of the encoders at native size.
            s1: VV and VH, (120, 120) float32 dB.

        Raises:
            QueryError: neither is given, or a band is missing.
        """
        if s2 is None and s1 is None:
            raise QueryError("no bands are given; give the bands of Sentinel-2, Sentinel-1 or both")
        batch = PairBatch(
            s1=_stack(s1, S1_BANDS, PATCH_SIZE, np.float32),
            s2_10m=_stack(s2, S2_10M_BANDS, PATCH_SIZE, np.uint16),
            s2_20m=_stack(s2, S2_20M_BANDS, PATCH_SIZE // 2, np.uint16),
            label=torch.zeros(1, N_CLASSES, dtype=torch.uint8),
            pair_index=torch.zeros(1, dtype=torch.int64),
        )
        wanted = [side for side, bands in ((S1, s1), (S2, s2)) if bands is not None]
        computed = self._extractor.compute(batch)
        sides = [S1, S2, FUSED] if len(wanted) == 2 else wanted
        found = {side: computed[DATASETS[side]][0].numpy() for side in sides if DATASETS[side] in computed}
        if not found:
            raise QueryError(f"the encoder of this run has no {wanted[0]} vectors; give the patch of the other sensor")
        return found


def _stack(bands: Bands | None, names: tuple[str, ...], size: int, dtype: type) -> torch.Tensor:
    """Return (1, B, size, size) of bands; zeros for a missing sensor, whose vector is not used."""
    if bands is None:
        return torch.from_numpy(np.zeros((1, len(names), size, size), dtype))
    lacking = [name for name in names if name not in bands]
    if lacking:
        raise QueryError(f"the patch has no band {', '.join(lacking)}; the encoder needs {', '.join(names)}: add them")
    stacked = np.stack([np.asarray(bands[name]) for name in names])
    if stacked.shape[1:] != (size, size):
        raise QueryError(f"band {names[0]} has {stacked.shape[1:]} pixels; resample it to {size} x {size} pixels")
    return torch.from_numpy(stacked[None])
