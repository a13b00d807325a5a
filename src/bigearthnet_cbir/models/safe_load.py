"""Safe reader of torch.save files: no code is executed, and checksums are verified."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from bigearthnet_cbir.errors import CheckpointError, MissingCheckpointError, summarize_names

_ZIP: Final = b"PK\x03\x04"


def read_tensor_file(path: Path, cure: str) -> Any:
    """Return a file's tensors and plain values, on the CPU.

    Args:
        path: the file.
        cure: remedy for a missing or damaged file; the end of the error message.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, or has anything other than dense tensors and plain
            values.
    """
    try:
        _check_sums(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error below replaces PyTorch's warnings
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise MissingCheckpointError(f"{path}: there is no such file; {cure}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: refused, it has more than tensors and plain values; {cure}") from error
    except Exception as error:
        # A damaged file can raise almost any error.
        raise CheckpointError(f"{path}: not a readable file of tensors (truncated?); {cure}") from error
    if not all(map(_is_dense, _tensors(content))):
        raise CheckpointError(f"{path}: refused, it has tensors that are not dense and real; {cure}")
    return content


def _check_sums(path: Path) -> None:
    """Raise BadZipFile if a checksum is wrong; PyTorch does not verify checksums.

    Files of PyTorch before 1.6 have no checksums.
    """
    with path.open("rb") as stream:
        if stream.read(4) != _ZIP:
            return
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):  # PyTorch never compresses
            raise zipfile.BadZipFile("a part is compressed")
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} has a wrong checksum")


def _tensors(content: Any) -> list[Tensor]:
    """Return all tensors in nested containers; each container is visited once."""
    found, seen, left = [], set(), [content]
    while left:
        item = left.pop()
        if isinstance(item, Tensor):
            found.append(item)
        elif isinstance(item, Mapping | list | tuple | set) and id(item) not in seen:
            seen.add(id(item))
            left += item.values() if isinstance(item, Mapping) else item
    return found


def _is_dense(tensor: Tensor) -> bool:
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return plain and not (tensor.is_quantized or tensor.is_complex() or tensor.is_nested)


def check_weights(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path | str) -> None:
    """Refuse invalid weights, for the names that both have.

    Raises:
        CheckpointError: a weight is not finite, a variance is negative, or a float weight is stored as integers.
    """
    kinds = [name for name in own if name in weights and _is_float(weights[name]) != _is_float(own[name])]
    if kinds:
        raise CheckpointError(
            f"{path}: {summarize_names(kinds, 3)}: the data type differs from the network's; use another file"
        )
    floats = {name: tensor for name, tensor in weights.items() if name in own and _is_float(tensor)}
    wrong = [name for name, tensor in floats.items() if not _is_finite(tensor)]
    wrong += [name for name, tensor in floats.items() if name.endswith("running_var") and bool((tensor < 0).any())]
    if wrong:
        raise CheckpointError(
            f"{path}: {summarize_names(wrong, 3)}: NaN, infinite, or a variance below 0; its training diverged or the "
            "file is damaged, use another"
        )


def _is_finite(tensor: Tensor) -> bool:
    """Return whether all values are finite; their sum tells it in a tenth of the time, unless it is too large."""
    if tensor.dtype == torch.float32 and bool(torch.isfinite(tensor.sum())):
        return True
    return bool(torch.isfinite(tensor).all())


def _is_float(tensor: Tensor) -> bool:
    return tensor.is_floating_point()
