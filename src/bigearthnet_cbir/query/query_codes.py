"""The binary code of a query vector, computed with the binarizers that an index stores."""

from __future__ import annotations

import numpy as np

from bigearthnet_cbir.directions import FUSED
from bigearthnet_cbir.errors import QueryError
from bigearthnet_cbir.query.index import Index
from bigearthnet_cbir.query.missing_modality import STAND_INS, JoinedUnitRows, MissingModality
from bigearthnet_cbir.search.binarizers import Binarizer
from bigearthnet_cbir.types import ByteArray, FloatArray

MEDIAN, LEARNED = "median", "learned"


def query_code(index: Index, vector: FloatArray, query: str, archive: str) -> ByteArray:
    """Return the (B,) packed code of a query, comparable with index.codes(archive).

    Args:
        index: from `open_index`.
        vector: (D,) float32 vector of the dimension of the archive, as `query_vector` returns it.
        query: modality of the query: s1, s2 or fused.
        archive: modality that is searched.

    Raises:
        QueryError: the index has no codes for this direction.
    """
    kind = STAND_INS[query] if archive == FUSED and query != FUSED else query
    binarizer = read_binarizer(index, kind)
    rows = vector[None]
    if binarizer.method == LEARNED and archive == FUSED:
        rows = _input_of_heads(index, rows, kind)
    code: ByteArray = binarizer.codes(rows)[0]
    return code


def read_binarizer(index: Index, kind: str) -> Binarizer:
    """Return the binarizer of a kind of vectors: s1, s2, fused, s1_as_fused or s2_as_fused.

    An index of an earlier version has median codes, with the thresholds of s1, s2 and fused only.

    Raises:
        QueryError: the index has no codes of this kind, or a file of it is missing or damaged.
    """
    stored = index.manifest.get("codes")
    if stored is None:
        return _earlier_binarizer(index, kind)
    if kind not in stored:
        raise QueryError(f"{index.folder}: has no codes of {kind}, only of {', '.join(stored)}; use another distance")
    told = stored[kind]
    projection = np.asarray(index.projection(kind)) if told["has_projection"] else None
    return Binarizer(told["method"], np.asarray(index.thresholds(kind)), projection, told["unit"])


def _earlier_binarizer(index: Index, kind: str) -> Binarizer:
    sensor = next((sensor for sensor, replaced in STAND_INS.items() if replaced == kind), None)
    medians = np.asarray(index.thresholds(sensor or kind))
    if sensor is not None:  # the median of a fused vector of two equal parts consists of the medians of the part
        medians = np.ascontiguousarray(MissingModality(medians[None], index.fusion)[0:1][0])
    return Binarizer(MEDIAN, medians)


def _input_of_heads(index: Index, rows: FloatArray, kind: str) -> FloatArray:
    """Return the input of hash heads, which have one head per sensor: vectors of the sensors, not their fusion."""
    half = rows.shape[1] // 2
    if kind != FUSED:
        return rows[:, :half] if index.fusion == "concat" else rows
    if index.fusion != "concat":
        raise QueryError(
            f"fusion is {index.fusion}, but learned codes of fused queries need concat, which keeps both vectors; "
            "choose another distance, or a query of s1 or s2"
        )
    return JoinedUnitRows(rows[:, :half], rows[:, half:])[0 : len(rows)]
