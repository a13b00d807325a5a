"""Features from an encoder of another project: preparation of its input and validation of its output."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from bigearthnet_cbir.data.bands import S1_BANDS, S2_10M_BANDS, S2_20M_BANDS, S2_60M_BANDS
from bigearthnet_cbir.data.dataset import PairBatch
from bigearthnet_cbir.directions import DIRECTIONS, SAME_FEATURES
from bigearthnet_cbir.errors import ConfigError, DataError
from bigearthnet_cbir.models.fusion import fuse
from bigearthnet_cbir.pipelines.foreign_encoder import LoadedEncoder
from bigearthnet_cbir.storage.features import FUSED_FEATURE, S1_FEATURE, S2_FEATURE

_STORED: Final = (
    ("s1", S1_BANDS),
    ("s2_10m", S2_10M_BANDS),
    ("s2_20m", S2_20M_BANDS),
    ("s2_60m", S2_60M_BANDS),
)
_FEATURES: Final = {"s1": S1_FEATURE, "s2": S2_FEATURE}


class ForeignFeatures:
    """Computes the vectors of batches of pairs.

    Attributes:
        directions: those that its vectors support.
    """

    def __init__(self, encoder: LoadedEncoder, device: torch.device, precision: torch.dtype, fusion: str) -> None:
        """Move the encoder to the device, and test it on one image of zeros.

        Raises:
            ConfigError: the encoder fails, or its output is not a (B, D) tensor of floats.
        """
        self._encoder = encoder
        self._device = device
        self._precision = precision
        self._fusion = fusion
        network = encoder.network
        for name, arguments in (("to", (device,)), ("eval", ())):
            if callable(getattr(network, name, None)):
                encoder.call(name, *arguments)
        self._own_fusion = len(encoder.bands) == 2 and callable(getattr(network, "encode_fused", None))
        size = encoder.identity["size"]
        zeros = {
            sensor: torch.zeros(1, len(bands), size, size, device=device) for sensor, bands in encoder.bands.items()
        }
        self._widths = {name: vectors.shape[1] for name, vectors in self._vectors(zeros, 1).items()}
        self.directions = self._directions()

    def __reduce__(self) -> tuple[Any, ...]:
        device = torch.device(self._device.type)
        return ForeignFeatures, (self._encoder, device, self._precision, self._fusion)

    def _directions(self) -> tuple[str, ...]:
        sides = {side for side in ("s1", "s2", "fused") if {"fused": FUSED_FEATURE, **_FEATURES}[side] in self._widths}
        one_space = len({width for name, width in self._widths.items() if name != FUSED_FEATURE}) == 1
        names = tuple(DIRECTIONS) if one_space else SAME_FEATURES
        return tuple(
            name
            for name in names
            if {DIRECTIONS[name].query, DIRECTIONS[name].archive} <= sides
            and not (DIRECTIONS[name].lacks_a_sensor and self._own_fusion)
        )

    @torch.inference_mode()
    def __call__(self, batch: PairBatch) -> dict[str, Tensor]:
        """Return those of feature_s1, feature_s2 and feature that the encoder provides, each (B, D) float32 on the CPU.

        Raises:
            ConfigError: the encoder fails, or returns a different shape than before, or a value that is not finite.
            DataError: the archive lacks a band.
        """
        images = {sensor: self._images(batch, bands) for sensor, bands in self._encoder.bands.items()}
        found = self._vectors(images, len(batch.label))
        for name, vectors in found.items():
            if vectors.shape[1] != self._widths[name]:
                raise ConfigError(
                    f"{self._encoder.where}; it returned {name} of dimension {vectors.shape[1]}, before "
                    f"{self._widths[name]}; return one dimension for all patches"
                )
            if not bool(torch.isfinite(vectors).all()):
                raise ConfigError(
                    f"{self._encoder.where}; it returned NaN or infinity; check its normalisation and weights"
                )
        return {name: vectors.cpu() for name, vectors in found.items()}

    def _vectors(self, images: dict[str, Tensor], rows: int) -> dict[str, Tensor]:
        with torch.inference_mode(), self._autocast():
            found = {
                _FEATURES[sensor]: self._checked(f"encode_{sensor}", rows, values) for sensor, values in images.items()
            }
            if self._own_fusion:
                found[FUSED_FEATURE] = self._checked("encode_fused", rows, images["s1"], images["s2"])
        if len(found) == 2:
            found[FUSED_FEATURE] = self._fused(found[S1_FEATURE], found[S2_FEATURE])
        return found

    def _autocast(self) -> Any:
        return torch.autocast(self._device.type, self._precision, enabled=self._precision != torch.float32)

    def _fused(self, one: Tensor, two: Tensor) -> Tensor:
        if one.shape == two.shape:
            return fuse(one, two, self._fusion)
        if self._fusion != "concat":
            raise ConfigError(
                f"{self._encoder.where}; fusion {self._fusion} needs vectors of equal dimension, but S1 has "
                f"{one.shape[1]} and S2 {two.shape[1]}; use fusion: concat"
            )
        return torch.cat((one, two), dim=1)

    def _checked(self, name: str, rows: int, *images: Tensor) -> Tensor:
        output = self._encoder.call(name, *images)
        if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != rows or not output.is_floating_point():
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ConfigError(
                f"{self._encoder.where}; {name} returned {shape} for {rows} images; return a float tensor (B, D)"
            )
        return output.float()

    def _images(self, batch: PairBatch, bands: tuple[str, ...]) -> Tensor:
        """Return (B, len(bands), size, size): first normalised, then resized per band, as for own networks."""
        channels: dict[str, Tensor] = {}
        for field, stored in _STORED:
            wanted = [band for band in stored if band in bands]
            if not wanted:
                continue
            values: Tensor = getattr(batch, field)
            if not values.numel():
                raise DataError(
                    f"{self._encoder.where}; it needs {', '.join(wanted)}, which the archive lacks; encode them too"
                )
            chosen = values[:, [stored.index(band) for band in wanted]].to(self._device, torch.float32)
            resized = self._resize(self._normalise(chosen, wanted))
            channels |= {band: resized[:, place] for place, band in enumerate(wanted)}
        return torch.stack([channels[band] for band in bands], dim=1)

    def _normalise(self, values: Tensor, bands: list[str]) -> Tensor:
        known = self._encoder.identity["normalisation"]
        mean, deviation = zip(*(known.get(band, (0.0, 1.0)) for band in bands), strict=True)
        shape = (1, len(bands), 1, 1)
        centred = values - torch.tensor(mean, device=values.device).view(shape)
        return centred / torch.tensor(deviation, device=values.device).view(shape)

    def _resize(self, values: Tensor) -> Tensor:
        size = self._encoder.identity["size"]
        if values.shape[-1] == size:
            return values
        return functional.interpolate(values, size=(size, size), mode="bicubic", align_corners=False)
