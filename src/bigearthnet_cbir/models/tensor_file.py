"""Files written by torch.save, read without running code from them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from bigearthnet_cbir.errors import CheckpointError, MissingCheckpointError


def read_tensor_file(path: Path, cure: str) -> Any:
    """Return a file's tensors and plain values, on the CPU.

    Args:
        path: the file.
        cure: what the user may do where it is missing or broken; ends the error's line.

    Raises:
        CheckpointError: the file is missing, truncated, or holds more than tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise MissingCheckpointError(f"{path}: there is no such file; {cure}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: refused, it holds more than tensors and plain values; {cure}") from error
    except Exception as error:
        # On a damaged file the reader meets whatever the bytes happen to mean: many kinds of errors, one cause.
        raise CheckpointError(f"{path}: is no readable file of tensors (truncated?); {cure}") from error
