"""Provenance attributes of files, so that results are traceable and outdated files are not reused."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from bigearthnet_cbir import __version__
from bigearthnet_cbir.checkout import own_checkout

SCHEMA_VERSION = 1
"""Incremented when older files can no longer be read in the same way."""


@lru_cache(maxsize=1)
def git_commit() -> str:
    """Return the commit of the checkout that this package runs from, or "unknown".

    A package in site-packages may be inside the repository of another project, whose commit is unrelated.
    """
    root = own_checkout()
    if root is None:
        return "unknown"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() or "unknown"


def stamp() -> dict[str, Any]:
    """Return the attributes with the software versions that wrote a file."""
    return {"schema_version": SCHEMA_VERSION, "package_version": __version__, "git_commit": git_commit()}


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def fingerprint(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a mapping of plain values, independent of key order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def replace_file(temporary: Path, final: Path) -> None:
    """Move a completely written temporary file to its final path, synced and atomically."""
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(temporary, final)
