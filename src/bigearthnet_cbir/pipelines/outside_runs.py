"""Run folders of external vectors: their configuration and provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bigearthnet_cbir.config import Config, parse_config
from bigearthnet_cbir.config.keys import MEASUREMENT, names_affecting, settings_affecting
from bigearthnet_cbir.config.protocols import CUSTOM
from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.models.fusion import FUSIONS
from bigearthnet_cbir.pipelines.embedding_rows import Vectors
from bigearthnet_cbir.pipelines.embedding_splits import ProtocolLists
from bigearthnet_cbir.storage.features import OUTSIDE

_DECIDED: Final = ("protocol", "query_split", "archive_split", "feature", "encoder")
"""Keys of the evaluation that the files and the lists determine."""


def run_config(root: Path, lists: ProtocolLists | None, labels: Path | None, measured: Mapping[str, Any]) -> Config:
    """Return a valid configuration of such a run, whose lists of pairs are in its folder.

    Args:
        root: the run folder.
        lists: of the protocol, None if all rows are evaluated.
        labels: source of the labels; if it is an archive, the report also takes its images from there.
        measured: keys of the evaluation, as in a YAML file.

    Raises:
        ConfigError: one of the keys is invalid.
    """
    check_measured(measured)
    store = labels if labels is not None and labels.is_dir() else root / "patches.lmdb"
    return parse_config(
        {
            **{f"{split}_csv": str(root / f"{split}.csv") for split in ("train", "val", "test")},
            "bigEarthPthLMDB_S2": str(store.resolve()), "bigEarthPthLMDB_S1": str(store.resolve()),
            "protocol": lists.protocol if lists else CUSTOM, **measured, "name": root.parent.name,
            "logging_params": {"save_dir": str(root.parent.parent), "name": root.name},
        },
        source="the options",
    )  # fmt: skip


def check_measured(measured: Mapping[str, Any]) -> None:
    """Raise ConfigError if a key does not apply to the evaluation of external vectors."""
    known = [key for key in names_affecting(Config, MEASUREMENT) if key not in _DECIDED] + ["num_cpu"]
    unknown = [key for key in measured if key not in known]
    if unknown:
        raise ConfigError(f"{', '.join(unknown)}: not a key of this evaluation; choose from {', '.join(known)}")


def told_fusion(told: Mapping[str, Any]) -> str | None:
    """Return the fusion of a file's fused vectors: from an attribute, or from the configuration of its run."""
    fusion = told.get("fusion")
    if fusion is None:
        try:
            fusion = json.loads(told.get("configuration", "{}")).get("fusion")
        except (TypeError, ValueError, AttributeError):
            return None
    return fusion if fusion in FUSIONS else None


def record(
    model: str, config: Config, lists: ProtocolLists | None, sides: Sequence[Vectors], digests: Sequence[Sequence[str]]
) -> dict[str, str]:
    """Return the provenance of the vectors, which query.h5, archive.h5 and retrieval.h5 record."""
    query, archive = sides
    configuration = settings_affecting(config, MEASUREMENT)
    if Path(config.bigEarthPthLMDB_S2).is_dir():
        configuration |= {key: getattr(config, key) for key in ("bigEarthPthLMDB_S2", "bigEarthPthLMDB_S1")}
    return {
        "vectors": OUTSIDE,
        "model": model,
        "query_files": f"{query.source} (SHA-256 {', '.join(digests[0])})",
        "archive_files": f"{archive.source} (SHA-256 {', '.join(digests[1])})",
        "query_split": config.query_split if lists else "given",
        "archive_split": config.archive_split if lists else "given",
        "lists": lists.origin if lists else "none: all rows of the files",
        "rows_left_out": f"{query.beyond} of the queries' files, {archive.beyond} of the archive's",
        "configuration": json.dumps(configuration),
    }
