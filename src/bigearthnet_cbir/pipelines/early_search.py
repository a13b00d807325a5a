"""Decision whether a retrieval starts Ray before its imports and its feature extraction."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.config.schema import BACKBONE_WIDTHS
from bigearthnet_cbir.pipelines.inputs import count_pairs
from bigearthnet_cbir.search.early_ray import early_ray
from bigearthnet_cbir.storage.run_folder import RunFolder

_BAND_STATISTICS: Final = 24
_FLOAT: Final = 4
_FEW: Final = 256
"""Pairs of one batch of extraction, for which no process is forked."""


def early_search(
    config: Config, folder: RunFolder, baseline: str | None, recompute: bool
) -> AbstractContextManager[None]:
    """Return a block in which Ray starts at once, if a search on Ray workers will surely follow.

    That is not sure where results exist already, which may be up to date, and where there is no checkpoint. Where
    feature extraction forks processes, Ray starts after it (see early_ray), and where it uses Ray workers, with it.

    Args:
        config: configuration of the run; its inputs are checked.
        folder: run folder.
        baseline: as in `retrieve`.
        recompute: as in `retrieve`.
    """
    width = _largest_width(config, baseline)
    place = folder if baseline is None else folder.baseline(baseline)
    if not config.num_cpu or config.extract_workers or width is None or (place.retrieval.exists() and not recompute):
        return nullcontext()
    checkpoint = Path(config.state_dict) if config.state_dict else folder.best
    if baseline is None and not checkpoint.exists():
        return nullcontext()
    sizes = [count_pairs(config, split) for split in (config.query_split, config.archive_split)]
    if config.num_workers and max(sizes) > _FEW:
        return nullcontext()
    return early_ray(config.num_cpu, sizes[1] * width * _FLOAT, config.ray_address, config.distance)


def _largest_width(config: Config, baseline: str | None) -> int | None:
    """Return the length of the fused vectors; None if only the network itself tells it."""
    if baseline == "band_statistics":
        return _BAND_STATISTICS
    if config.encoder is not None:
        return None
    width = config.projection_dim
    if config.feature == "backbone":
        known = config.n_features or BACKBONE_WIDTHS.get(config.backbone)
        if known is None:
            return None
        width = known
    return 2 * width if config.fusion == "concat" else width
