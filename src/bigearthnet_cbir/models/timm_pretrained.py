"""Pretrained weights for backbones from timm, from a local file with timm's names. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bigearthnet_cbir.errors import CheckpointError, MissingCheckpointError, summarize_names
from bigearthnet_cbir.models.pretrained import first_convolution, nested_weights
from bigearthnet_cbir.models.safe_load import check_weights, read_tensor_file
from bigearthnet_cbir.models.sensor_batchnorm import SENSORS
from bigearthnet_cbir.models.timm_backbone import TimmBackbone, import_timm

_CURE: Final = "init_weights takes a local .pth or .safetensors file, nothing is downloaded"
_PREFIXES: Final = ("module.", "model.", "backbone.", "network.", "encoder.")
_POSITIONS: Final = "pos_embed"


def read_timm_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file under timm's names.

    Raises:
        CheckpointError: the file is missing, broken, or contains no weights.
    """
    if path.suffix == ".safetensors":
        try:
            content: Any = load_file(path)
        except FileNotFoundError as error:
            raise MissingCheckpointError(f"{path}: there is no such file; {_CURE}") from error
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: is no readable safetensors file (truncated?); {_CURE}") from error
    else:
        content = nested_weights(read_tensor_file(path, _CURE))
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: init_weights holds no state_dict; give a file that maps names to weights")
    weights = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
    for prefix in _PREFIXES:
        if weights and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def load_timm_weights(
    trunk: TimmBackbone, weights: Mapping[str, Tensor], bands: tuple[str, ...] | None, source: str
) -> set[str]:
    """Copy weights into a backbone, and return the names of its weights that come from the file.

    The first convolution gets the bands that both have, as in a ResNet, and stays random for the joint type. Position
    embeddings of another image size are resampled.

    Args:
        trunk: the backbone whose weights are replaced.
        weights: of read_timm_weights.
        bands: names of its input channels; None for the joint type.
        source: the file, for messages.

    Raises:
        CheckpointError: the weights are of another network.
    """
    own = trunk.network.state_dict()
    first = f"{trunk.first_convolution}.weight"
    new: dict[str, Tensor] = {}
    for name in own:
        tensor = weights.get(_name_in_file(name))
        if name == first:
            tensor = _first(tensor, own[name], bands)
        elif name == _POSITIONS and tensor is not None:
            tensor = _resampled(trunk, tensor, own[name])
        if tensor is not None:
            new[name] = tensor
    wrong = [name for name in own if name not in new and name != first and not name.endswith("num_batches_tracked")]
    wrong += [name for name, tensor in new.items() if tensor.shape != own[name].shape]
    if wrong:
        raise CheckpointError(
            f"{source}: init_weights is not of this backbone ({summarize_names(wrong, 3)}); set backbone to it"
        )
    check_weights(new, own, source)
    trunk.network.load_state_dict({**own, **new})
    return {f"network.{name}" for name in new}


def _first(tensor: Tensor | None, own: Tensor, bands: tuple[str, ...] | None) -> Tensor | None:
    """Return the first convolution for these bands; None for the joint type, where it stays random."""
    if tensor is None or bands is None or tensor.ndim != own.ndim:
        return None
    return tensor if tensor.shape == own.shape or tensor.ndim != 4 else first_convolution(tensor, bands)


def _name_in_file(name: str) -> str:
    """Return the name of a weight in the file, also if each sensor has its own batch norm."""
    for sensor in SENSORS:
        name = name.replace(f".norms.{sensor}.", ".")
    return name


def _resampled(trunk: TimmBackbone, positions: Tensor, own: Tensor) -> Tensor:
    """Return the position embeddings of a vision transformer, resampled to the patch grid of the backbone."""
    grid = getattr(getattr(trunk.network, "patch_embed", None), "grid_size", None)
    if positions.shape == own.shape or grid is None or positions.ndim != 3:
        return positions
    import_timm()
    from timm.layers import resample_abs_pos_embed  # type: ignore[attr-defined]

    prefix = int(getattr(trunk.network, "num_prefix_tokens", 0))
    resampled: Tensor = resample_abs_pos_embed(positions, list(grid), num_prefix_tokens=prefix)
    return resampled
