"""Relevance feedback: a query vector computed from patches marked as relevant and not relevant.

Two methods are available. Rocchio's rule (Rocchio 1971, "Relevance feedback in information retrieval", in Salton, The
SMART Retrieval System; Manning et al. 2008, chapter 9, https://nlp.stanford.edu/IR-book) has the weights 2 and 1, as in
Qdrant's average vector and in Earth Index. The other is the weight vector of a logistic regression. Both give a single
vector, so one exact cosine search ranks the archive.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.errors import QueryError
from bigearthnet_cbir.types import DoubleArray, FloatArray

WANTED_WEIGHT: Final = 2.0
UNWANTED_WEIGHT: Final = 1.0
LEAST_MARKS: Final = 5
"""Minimum number of marks of each kind for a logistic regression."""


def rocchio(wanted: npt.NDArray[np.float32], unwanted: npt.NDArray[np.float32] | None = None) -> FloatArray:
    """Return the (D,) float32 unit vector of 2 mean(wanted) - mean(unwanted), with all vectors scaled to unit length.

    Args:
        wanted: (P, D) vectors of the relevant patches, P >= 1.
        unwanted: (M, D) vectors of the patches that are not relevant, M >= 0; None for none.

    Raises:
        QueryError: `wanted` is empty, a vector is zero or not finite, or the marks cancel each other.
    """
    if not len(wanted):
        raise QueryError("0 patches are marked as relevant; relevance feedback needs at least 1: mark one as relevant")
    towards: DoubleArray = WANTED_WEIGHT * _units(wanted).mean(axis=0)
    if unwanted is not None and len(unwanted):
        towards = towards - UNWANTED_WEIGHT * _units(unwanted).mean(axis=0)
    length = float(np.linalg.norm(towards))
    if length < 1e-6:
        raise QueryError("the relevant and the non-relevant patches cancel out: their query vector is 0; remove a mark")
    return (towards / length).astype(np.float32)


def logistic(wanted: npt.NDArray[np.float32], unwanted: npt.NDArray[np.float32]) -> FloatArray:
    """Return the (D,) float32 weight vector w, of unit length, of a logistic regression on unit-length vectors.

    For an archive of unit-length vectors, ranking by w . x equals ranking by cosine distance to w.

    Args:
        wanted: (P, D) vectors of the relevant patches, P >= 5.
        unwanted: (M, D) vectors of the patches that are not relevant, M >= 5.

    Raises:
        QueryError: there are too few marks, or a vector is zero or not finite.
    """
    from sklearn.linear_model import LogisticRegression  # imported here: loading it takes a second

    for what, marks in (("relevant", wanted), ("not relevant", unwanted)):
        if len(marks) < LEAST_MARKS:
            raise QueryError(
                f"{len(marks)} patches are marked as {what}; a logistic regression needs {LEAST_MARKS} or more of "
                "each kind: mark more patches, or use rocchio"
            )
    samples = np.concatenate([_units(wanted), _units(unwanted)])
    truth = np.repeat([1, 0], [len(wanted), len(unwanted)])
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(samples, truth)
    weights: DoubleArray = np.asarray(model.coef_[0], np.float64)
    length = float(np.linalg.norm(weights))
    if length == 0.0:
        raise QueryError("the relevant and the non-relevant patches have equal vectors; mark other patches")
    return (weights / length).astype(np.float32)


def _units(vectors: npt.NDArray[np.float32]) -> DoubleArray:
    found = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise QueryError("the vector of a marked patch is 0 or not finite; remove the mark of this patch")
    return np.asarray(found / lengths, np.float64)
