"""Encoders of other projects: a callable named in the YAML file, the interface of its result, and how it is loaded."""

from __future__ import annotations

import importlib
import math
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol

from torch import Tensor

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.data.bands import S1_BANDS, S2_BANDS
from bigearthnet_cbir.errors import ConfigError, short, summarize_names
from bigearthnet_cbir.pipelines.foreign_calls import failure, guarded
from bigearthnet_cbir.provenance import file_digest

LARGEST_INPUT: Final = 4096
_KEY: Final = "encoder"


class ForeignEncoder(Protocol):
    """The interface of the object that the callable returns; docs/embeddings.md has a complete example.

    An encoder of one sensor has no bands of the other, and needs no method for it. The methods `to` and `eval` are
    called if they exist, as in every torch.nn.Module. Optional: `encode_fused(s1, s2)`, which replaces the configured
    fusion of both vectors; `weights`, the path of the file with its weights.

    Attributes:
        bands_s1: some of VV, VH, in the order of the channels.
        bands_s2: some of B01 to B12 and B8A (BigEarthNet has no B10), in the order of the channels.
        size: width and height of the input images in pixels; patches have 120.
        normalisation: band -> (mean, standard deviation); a channel is (value - mean) / standard deviation of the
            values in the patch store: reflectance x 10 000, or dB. Bands without an entry are not normalised.
    """

    bands_s1: Sequence[str]
    bands_s2: Sequence[str]
    size: int
    normalisation: Mapping[str, tuple[float, float]]

    def encode_s1(self, images: Tensor) -> Tensor:
        """Return (B, D) embeddings of (B, len(bands_s1), size, size) float32 images on the configured device."""
        ...

    def encode_s2(self, images: Tensor) -> Tensor:
        """Return (B, D) embeddings of (B, len(bands_s2), size, size) images."""
        ...


@dataclass(frozen=True)
class LoadedEncoder:
    """A loaded encoder with a valid interface.

    Attributes:
        network: the object that the callable returned.
        bands: sensor, s1 or s2 -> its bands; sensors that it does not support are absent.
        identity: plain values that determine its vectors, as far as they are visible from outside.
        origin: the arguments of load_foreign.
    """

    network: Any
    bands: dict[str, tuple[str, ...]]
    identity: dict[str, Any]
    origin: tuple[str, Path | None, str]

    @property
    def where(self) -> str:
        """Prefix of each message about it."""
        return _prefix(self.origin[0], self.origin[2])

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process loads it from its files again, because its module may lie in no installed package."""
        return _loaded_again, (self.origin, self.identity)

    def call(self, name: str, *images: Tensor) -> Any:
        """Return the result of one of its methods; raises ConfigError with the line of its code that failed."""
        return guarded(lambda: getattr(self.network, name)(*images), f"{self.where}: {name}")


def load_foreign(spec: str, folder: Path | None, source: str) -> LoadedEncoder:
    """Import the callable that `spec` names, call it, and validate the result.

    Args:
        spec: package.module:function.
        folder: searched after the installed packages.
        source: the YAML file, for messages.

    Raises:
        ConfigError: the module is missing or fails, the name is not a callable, or the result lacks a part of the
            interface.
    """
    where = _prefix(spec, source)
    module_name, _, name = spec.partition(":")
    module = _import(module_name, folder, where)
    function = getattr(module, name, None)
    if not callable(function):
        found = "is not callable" if hasattr(module, name) else "does not exist"
        raise ConfigError(f"{where}; {name} {found} in {module.__file__}; name a function that returns an encoder")
    network = guarded(function, f"{where}: {name}()")
    bands = _checked_bands(network, where)
    size = getattr(network, "size", None)
    if not isinstance(size, int) or not 1 <= size <= LARGEST_INPUT:
        raise ConfigError(f"{where}; its size is {short(size)}, give the image width in pixels, 1 to {LARGEST_INPUT:,}")
    normalisation = _checked_normalisation(network, where)
    sources = {module.__file__, getattr(sys.modules.get(function.__module__), "__file__", None)}
    identity = {
        "encoder": spec,
        "source": sorted(file_digest(Path(file)) for file in sources if file),
        "weights": _digest_of_weights(network, where),
        "bands": bands, "size": size, "normalisation": normalisation,
    }  # fmt: skip
    return LoadedEncoder(network, bands, identity, (spec, folder, source))


def _prefix(spec: str, source: str) -> str:
    return f"{source}: {_KEY} is {spec}"


def _loaded_again(origin: tuple[str, Path | None, str], identity: dict[str, Any]) -> LoadedEncoder:
    """Return a pickled encoder in another process, perhaps on another machine."""
    found = load_foreign(*origin)
    if found.identity != identity:
        raise ConfigError(f"{found.where}; on {socket.gethostname()} its code or weights differ; copy the files there")
    return found


def load_configured(config: Config) -> LoadedEncoder:
    """Return the encoder that the key encoder names; raises the errors of load_foreign."""
    folder = None if config.encoder_path is None else Path(config.encoder_path)
    return load_foreign(str(config.encoder), folder, config.source)


def refuse_foreign(config: Config, why: str) -> None:
    """Raise ConfigError if the key encoder is set, for commands that need a network of this project."""
    if config.encoder is not None:
        raise ConfigError(f"{config.source}: encoder is {config.encoder}, a network of another project; {why}")


_searched: list[Path] = []
"""Folders of YAML files added to the module search path, the latest last."""


def _import(name: str, folder: Path | None, where: str) -> ModuleType:
    """Import a module from the installed environment, or else from the folder."""
    _search_in(folder, name.partition(".")[0])
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            places = "among the installed packages" + (f" or in {folder}" if folder is not None else "")
            raise ConfigError(
                f"{where}; module {error.name} is not {places}; install it or set encoder_path"
            ) from error
        raise ConfigError(f"{where}; its module imports {error.name}, which is missing; install it") from error
    except Exception as error:
        raise failure(error, f"{where}: importing {name}") from error


def _search_in(folder: Path | None, top: str) -> None:
    """Append a folder to Python's search path, replacing the folder of an earlier YAML file.

    Two YAML files may name different modules of the same name, so a module imported from an earlier folder is unloaded.
    """
    origin = getattr(sys.modules.get(top), "__file__", None)
    if origin is not None and any(Path(origin).is_relative_to(other) for other in _searched if other != folder):
        for known in [module for module in sys.modules if module == top or module.startswith(f"{top}.")]:
            del sys.modules[known]
    places = {str(other) for other in _searched}
    sys.path[:] = [place for place in sys.path if place not in places]
    if folder is not None:
        if folder not in _searched:
            _searched.append(folder)
        sys.path.append(str(folder))
    importlib.invalidate_caches()


def _checked_bands(network: Any, where: str) -> dict[str, tuple[str, ...]]:
    bands: dict[str, tuple[str, ...]] = {}
    for sensor, known in (("s1", S1_BANDS), ("s2", S2_BANDS)):
        wanted = getattr(network, f"bands_{sensor}", ())
        if isinstance(wanted, str) or not isinstance(wanted, Sequence):
            raise ConfigError(f"{where}; its bands_{sensor} is {short(wanted)}; give a list of band names")
        unknown = [str(band) for band in wanted if band not in known]
        if unknown:
            raise ConfigError(
                f"{where}; its bands_{sensor} has {summarize_names(unknown)}; choose from {', '.join(known)}"
            )
        if wanted:
            bands[sensor] = tuple(wanted)
            if not callable(getattr(network, f"encode_{sensor}", None)):
                raise ConfigError(f"{where}; it has bands_{sensor}, but no method encode_{sensor}; add this method")
    if not bands:
        raise ConfigError(f"{where}; the returned encoder has no bands; set bands_s1, bands_s2 or both")
    return bands


def _checked_normalisation(network: Any, where: str) -> dict[str, tuple[float, float]]:
    given = getattr(network, "normalisation", None)
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{where}; its normalisation is {short(given)}; give band -> (mean, standard deviation), or {{}}"
        )
    checked = {}
    for band, pair in given.items():
        try:
            mean, deviation = (float(value) for value in pair)
        except (TypeError, ValueError):
            mean = deviation = math.nan
        if band not in (*S1_BANDS, *S2_BANDS) or not math.isfinite(mean) or not 0 < deviation < math.inf:
            raise ConfigError(
                f"{where}; its normalisation of {short(band)} is {short(pair)}; give the mean and standard deviation "
                "(> 0) of a band"
            )
        checked[str(band)] = (mean, deviation)
    return checked


def _digest_of_weights(network: Any, where: str) -> str | None:
    weights = getattr(network, "weights", None)
    if not isinstance(weights, str | Path):
        return None
    try:
        return file_digest(Path(weights))
    except OSError as error:
        raise ConfigError(
            f"{where}; its weights are {short(str(weights))}: {error.strerror}; give the path of a file"
        ) from error
