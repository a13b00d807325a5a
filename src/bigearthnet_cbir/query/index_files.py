"""Names of the files in an index folder. Kinds of vectors: s1, s2, fused, and s1_as_fused, s2_as_fused (one sensor)."""

from __future__ import annotations

from typing import Final

MANIFEST: Final = "manifest.json"
CATALOGUE: Final = "catalogue.parquet"
LABELS: Final = "labels.npy"


def vectors_file(side: str) -> str:
    """Return the name of the file with the embeddings of a modality: s1, s2 or fused."""
    return f"embeddings_{side}.npy"


def codes_file(side: str) -> str:
    """Return the name of the file with the packed codes of a modality."""
    return f"codes_{side}.npy"


def thresholds_file(kind: str) -> str:
    """Return the name of the file with the thresholds of the codes of a kind of vectors."""
    return f"thresholds_{kind}.npy"


def projection_file(kind: str) -> str:
    """Return the name of the file with the projection of the codes of a kind of vectors."""
    return f"projection_{kind}.npy"
