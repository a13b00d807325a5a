"""Attributes that identify feature files: the fingerprint of their inputs, and the digest of their content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.storage.hdf5_reading import open_hdf5

CONTENT: Final = "content_sha256"
"""Attribute: digest of all datasets, which links results to their features."""
_CURE: Final = "run project/retrieval.py to compute it"


def stamped_digest(path: Path) -> str | None:
    """Return the content digest stored in a feature file, or None if there is none."""
    return read_attribute(path, CONTENT)


def read_fingerprint(path: Path) -> str | None:
    """Return the fingerprint stored in a feature or results file, or None if it cannot be read."""
    return read_attribute(path, "fingerprint")


def read_attribute(path: Path, name: str) -> str | None:
    """Return an attribute of a feature or results file as text, or None where there is none or no such file."""
    try:
        with open_hdf5(path, _CURE) as file:
            value = file.attrs.get(name)
    except (ResultsError, OSError):
        return None
    return value if isinstance(value, str) else None


def check_measured_with(path: Path, side: str, attributes: Mapping[str, Any], results: Path) -> None:
    """Raise ResultsError unless the results were computed from this feature file.

    Args:
        path: query.h5 or archive.h5.
        side: "query" or "archive".
        attributes: attributes of the results file; missing ones (earlier versions) are not checked.
        results: the results file, for the message.
    """
    for suffix, name in (("content", CONTENT), ("fingerprint", "fingerprint")):
        stored = attributes.get(f"{side}_{suffix}")
        if path.exists() and stored is not None and stored != read_attribute(path, name):
            raise ResultsError(f"{path}: is not what {results} was computed from; run project/retrieval.py again")
