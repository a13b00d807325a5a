"""The checkout of this project: the folder that relative paths start from."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).resolve().parent


def is_checkout(folder: Path) -> bool:
    """Return whether a folder is the root of a checkout of this project."""
    return (folder / "project" / "train.py").is_file() and (folder / "src" / PACKAGE.name).is_dir()


def own_checkout() -> Path | None:
    """Return the checkout that this package runs from, or None if it was installed from a wheel."""
    root = PACKAGE.parents[1]
    return root if PACKAGE.parent.name == "src" and is_checkout(root) else None


def repository_root(near: Path | None = None) -> Path:
    """Return the base folder of relative paths in a YAML file.

    It is the checkout of this package. For a package installed from a wheel it is the checkout that contains the YAML
    file `near` or else the current folder; outside a checkout it is the current folder.
    """
    here = Path.cwd()
    starts = [path.resolve() for path in (near, here) if path is not None]
    return own_checkout() or next(filter(None, map(checkout_around, starts)), here)


def checkout_around(path: Path) -> Path | None:
    """Return the checkout that contains a path or is it, or None."""
    return next((folder for folder in path.parents if is_checkout(folder)), path if is_checkout(path) else None)
