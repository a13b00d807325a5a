"""The codes that an index and exported embeddings store: those of retrieval, or codes that are fitted for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from bigearthnet_cbir.config import Config, load_config
from bigearthnet_cbir.directions import DIRECTIONS, Direction
from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.pipelines.codes import Coder, make_binarizers, run_codes
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor
from bigearthnet_cbir.search.binarizers import Binarizer
from bigearthnet_cbir.storage.features import DATASETS, open_features, reusable_digest
from bigearthnet_cbir.storage.results import read_results
from bigearthnet_cbir.storage.run_folder import RunFolder

if TYPE_CHECKING:
    import h5py


def index_binarizers(
    config: Config, folder: RunFolder, source: FeatureExtractor, rows: Mapping[str, Any], archive: str | None
) -> dict[str, Binarizer]:
    """Return the binarizers of an index.

    If archive.h5 was computed by the same encoder, they are those of retrieval: read from codes.h5, or fitted on
    archive.h5. Otherwise they are fitted on the rows of the index.

    Args:
        config: of the run; gives method, length and seed.
        folder: of the run.
        source: computed the rows.
        rows: embeddings of the index by the dataset names of feature files.
        archive: fingerprint that archive.h5 has if its features can be reused; None if the index lacks its split.

    Raises:
        CheckpointError, SearchError: see make_binarizers.
    """
    if archive is not None and reusable_digest(folder.archive, archive):
        with open_features(folder.archive) as file:
            return run_codes(config, folder, source, file).binarizers
    return make_binarizers(config, folder, source, rows)


def stored_codes(folder: RunFolder, archive: h5py.File) -> Coder:
    """Return the coder of a run whose features are computed, without loading its encoder.

    Args:
        folder: of a run, or of a baseline.
        archive: its archive.h5, opened.

    Raises:
        ResultsError: archive.h5 does not record a configuration, and the folder has no parameters.yaml.
        CheckpointError, SearchError: see make_binarizers.
    """
    config = _configuration(folder, archive)
    identity = {"checkpoint": str(archive.attrs.get("checkpoint", "")), "feature": config.feature}
    source = FeatureExtractor(identity, lambda _: {}, _directions(folder, archive))
    return run_codes(config, folder, source, archive)


def _configuration(folder: RunFolder, archive: h5py.File) -> Config:
    """Return the configuration of a run: parameters.yaml or, in the folder of a baseline, what archive.h5 records."""
    if folder.parameters.is_file():
        return load_config(folder.parameters)
    told = json.loads(archive.attrs.get("configuration", "{}"))
    try:
        return Config(**{field.name: told[field.name] for field in fields(Config) if field.name in told})
    except TypeError as error:
        raise ResultsError(f"{folder.archive}: records no configuration; run project/retrieval.py again") from error


def _directions(folder: RunFolder, archive: h5py.File) -> tuple[str, ...]:
    """Return the directions of retrieval or, before it is complete, those that the vectors allow."""
    if folder.retrieval.is_file():
        found = read_results(folder.retrieval).directions
        return tuple(name for name in DIRECTIONS if name in found)
    widths = {side: archive[name].shape[1] for side, name in DATASETS.items() if name in archive}
    return tuple(name for name, direction in DIRECTIONS.items() if _fits(direction, widths))


def _fits(direction: Direction, widths: Mapping[str, int]) -> bool:
    if not {direction.query, direction.archive} <= widths.keys():
        return False
    if direction.lacks_a_sensor:
        return widths.get("s1") == widths.get("s2")
    return widths[direction.query] == widths[direction.archive]
