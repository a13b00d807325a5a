"""Output files of an answer: tables, points, a page, GeoTIFFs. Each is written completely or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bigearthnet_cbir.data.geotiff import write_bands
from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.errors import ConfigError, DataError, QueryError
from bigearthnet_cbir.files import atomic_write
from bigearthnet_cbir.pipelines.patch_images import PatchImages
from bigearthnet_cbir.query.answer import Answer, Hit
from bigearthnet_cbir.query.export import as_csv, as_geojson, as_json
from bigearthnet_cbir.query.index import Index
from bigearthnet_cbir.report.query_page import PagePatch, QueryPage, render_query_page
from bigearthnet_cbir.types import PatchPair

_NORTH = 32600
"""Base of the EPSG codes of WGS 84 / UTM on the northern hemisphere, to which the zone is added."""


def write_answer(answer: Answer, index: Index, files: Mapping[str, Path]) -> Iterator[Path]:
    """Write an answer, and yield each path after it is written.

    Args:
        answer: to write.
        index: that was searched.
        files: csv, geojson, json and html -> file; tiffs -> folder.

    Raises:
        ConfigError: a file cannot be written.
        DataError: the archive that holds the patches cannot be read.
        QueryError: a patch has no known location, which a GeoTIFF needs.
    """
    texts = {"csv": as_csv, "geojson": as_geojson, "json": as_json}
    for kind, path in files.items():
        if kind == "tiffs":
            yield write_tiffs(answer, index, path)
            continue
        content = texts[kind](answer) if kind in texts else answer_page(answer, index)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary:
                temporary.write_text(content, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--{kind} {path}: cannot be written ({error.strerror}); choose another file") from error
        yield path


def patch_stores(index: Index) -> tuple[PatchStore, PatchStore]:
    """Return the Sentinel-2 and Sentinel-1 stores from which an index was built."""
    configuration: dict[str, Any] = index.manifest["configuration"]
    return PatchStore(configuration["bigEarthPthLMDB_S2"]), PatchStore(configuration["bigEarthPthLMDB_S1"])


def answer_page(answer: Answer, index: Index) -> str:
    """Return an answer as one self-contained HTML page; without images if the archive is missing.

    Raises:
        DataError: a patch cannot be read.
    """
    s2, s1 = patch_stores(index)
    images = PatchImages(s1.path, s2.path) if s1.path.is_dir() and s2.path.is_dir() else None
    page = QueryPage(
        question=answer.question,
        facts=_facts(answer),
        asked=tuple(_page_patch(hit, images) for hit in answer.asked if len(answer.asked) == 1),
        hits=tuple(_page_patch(hit, images) for hit in answer.hits),
        images={} if images is None else images.encoded(),
    )
    return render_query_page(page)


def _facts(answer: Answer) -> tuple[tuple[str, str], ...]:
    return (
        ("Direction", f"{answer.query} → {answer.archive}"),
        ("Distance", answer.distance),
        ("Searched", f"{answer.kept:,} of {answer.size:,} patches"),
        ("Found", f"{len(answer.hits):,}"),
    )


def _page_patch(hit: Hit, images: PatchImages | None) -> PagePatch:
    pair = PatchPair(hit.name_s2, hit.name_s1)
    keys = {} if images is None else {sensor: images.key(sensor, pair) for sensor in ("s2", "s1")}
    place = "" if hit.latitude is None or hit.longitude is None else f"{hit.latitude:.4f}, {hit.longitude:.4f}"
    return PagePatch(
        name=hit.name_s2,
        rank=hit.rank,
        distance=hit.distance,
        labels=hit.labels,
        shared=frozenset(hit.shared),
        facts=tuple(text for text in (hit.date_s2, hit.country, place) if text),
        images=keys,
    )


def write_tiffs(answer: Answer, index: Index, folder: Path) -> Path:
    """Write the patches found as folders of single-band GeoTIFFs of both sensors, with values and data types as stored.

    Each folder is written under a temporary name and then renamed. An existing folder is kept.

    Raises:
        DataError: a patch cannot be read.
        QueryError: a patch has no known location.
    """
    s2, s1 = patch_stores(index)
    for hit in answer.hits:
        pair = PatchPair(hit.name_s2, hit.name_s1)
        for name, bands in ((pair.s2, _bands(s2, pair.s2, "B")), (pair.s1, _bands(s1, s1.s1_name(pair), "V"))):
            if not (folder / name).is_dir():
                _write_folder(folder, name, bands, index, hit.position)
    return folder


def _bands(store: PatchStore, key: str, first: str) -> dict[str, Any]:
    """Return the bands of one sensor from a record that may hold both sensors."""
    found = {band: pixels for band, pixels in store.read(key).bands.items() if band.startswith(first)}
    if not found:
        raise DataError(
            f"{store.path}: record {key} has no bands {first}..; check that the two LMDB paths are not swapped"
        )
    return found


def _write_folder(folder: Path, name: str, bands: dict[str, Any], index: Index, position: int) -> None:
    known = index.catalogue
    epsg = int(known.epsg[position])
    if not _NORTH < epsg <= _NORTH + 60:
        raise QueryError(f"--tiffs: {name} has no known location in a northern UTM zone; use --csv or --html instead")
    corner = float(known.left[position]), float(known.top[position])
    aside = folder / f".{os.getpid()}-{secrets.token_hex(4)}"
    try:
        write_bands(aside, name, bands, corner, epsg - _NORTH).rename(folder / name)
    except OSError as error:
        raise ConfigError(f"--tiffs {folder}: cannot be written ({error.strerror}); choose another folder") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
