"""Projections for binary codes: seeded random rotations, PCA, and iterative quantisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search.binary_codes import checked_blocks
from bigearthnet_cbir.search.rows import Sliceable
from bigearthnet_cbir.search.shards import lengths_of
from bigearthnet_cbir.types import DoubleArray, FloatArray

ITQ_ITERATIONS: Final = 50
"""As in the paper; by then the quantisation error no longer decreases."""

FIT_ROWS: Final = 50_000
"""Rows that PCA and rotation are fitted on, evenly spaced over the archive; means use all rows."""

RANK_TOLERANCE: Final = 1e-10
"""Principal components whose variance is a smaller fraction of the first one's are rounding noise."""


def unit_vectors(features: npt.NDArray[np.float32]) -> FloatArray:
    """Return (N, D) float32 rows scaled to unit length; rows of zeros stay zero.

    The result of a row depends on that row alone, bit for bit: not on the batch and not on a BLAS library.
    """
    lengths = lengths_of(features)[:, None]
    return np.divide(features, lengths, out=np.zeros(features.shape), where=lengths > 0).astype(np.float32)


def unit_blocks(features: Sliceable) -> Iterator[tuple[int, FloatArray]]:
    """Yield (first row, unit rows) of an archive in blocks of some MiB.

    Raises:
        SearchError: a value is not finite.
    """
    for start, _, rows in checked_blocks(features, 8 * features.shape[1]):
        yield start, unit_vectors(rows.astype(np.float32))


def mean_unit_row(features: Sliceable) -> DoubleArray:
    """Return the (D,) mean of the unit rows of an (N, D) archive, which is read piece by piece.

    Raises:
        SearchError: the archive is empty or holds a value that is not finite.
    """
    if len(features.shape) != 2 or 0 in features.shape:
        raise SearchError(f"the archive has shape {features.shape}; a mean needs (N, D) features with N, D >= 1")
    total = np.zeros(features.shape[1])
    for _, rows in unit_blocks(features):
        total += rows.sum(axis=0, dtype=np.float64)
    return total / features.shape[0]


def random_rotation(width: int, bits: int, generator: np.random.Generator) -> DoubleArray:
    """Return a (width, bits) projection of random orthonormal columns; several rotations if bits > width.

    The columns of each rotation are uniform over the orthogonal matrices (Mezzadri 2007,
    https://arxiv.org/abs/math-ph/0609050): QR of a Gaussian matrix, with signs made unique.
    """
    columns = [np.empty((width, 0))]
    for first in range(0, bits, max(width, 1)):
        square, upper = np.linalg.qr(generator.standard_normal((width, width)))
        columns.append((square * np.sign(np.diag(upper)))[:, : bits - first])
    return np.concatenate(columns, axis=1)


def _sampled(archives: Sequence[Sliceable], means: Sequence[DoubleArray], most: int) -> Iterator[DoubleArray]:
    """Yield centred unit rows in blocks of some MiB: at most `most` rows, evenly spaced in each archive."""
    step = max(1, -(-sum(archive.shape[0] for archive in archives) // most))
    for archive, mean in zip(archives, means, strict=True):
        for start, rows in unit_blocks(archive):
            yield rows[-start % step :: step] - mean


def principal_axes(
    archives: Sequence[Sliceable], means: Sequence[DoubleArray], most: int, rows: int = FIT_ROWS
) -> DoubleArray:
    """Return the (D, d) first principal axes of several archives together, each centred at its own mean.

    d is `most`, or less if the vectors span fewer directions. The element of an axis with the largest magnitude is
    positive.

    Args:
        archives: (N_i, D) features, read piece by piece and scaled to unit rows.
        means: of each archive's unit rows.
        most: maximum number of axes.
        rows: maximum number of rows used for the axes.
    """
    width = archives[0].shape[1]
    covariance = np.zeros((width, width))
    for centred in _sampled(archives, means, rows):
        covariance += centred.T @ centred
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = min(most, int((values > RANK_TOLERANCE * max(values[0], 0.0)).sum()))
    vectors = vectors[:, :kept]
    largest = np.abs(vectors).argmax(axis=0)
    return np.asarray(vectors * np.sign(vectors[largest, np.arange(kept)]), np.float64)


def project_sample(
    archives: Sequence[Sliceable], means: Sequence[DoubleArray], axes: DoubleArray, most: int
) -> DoubleArray:
    """Return the products of centred unit rows with (D, d) axes, of at most `most` rows, evenly spaced in each archive.

    All rows are read, but only one block of them is in memory at full dimension.
    """
    return np.concatenate([centred @ axes for centred in _sampled(archives, means, most)])


def itq_rotation(
    projected: DoubleArray, generator: np.random.Generator, iterations: int = ITQ_ITERATIONS
) -> tuple[DoubleArray, list[float]]:
    """Return the rotation that minimises the quantisation error of centred vectors, and the error per iteration.

    Iterative quantisation (Gong & Lazebnik 2011, https://doi.org/10.1109/CVPR.2011.5995432): for fixed B = sign(V R),
    the best R is the Procrustes rotation of V to B; for fixed R, the best B is the signs. Both steps lower |B - V R|^2.

    Args:
        projected: (N, d) vectors V, centred, on their principal axes.
        generator: of the initial random rotation.
        iterations: number of updates of B and R.

    Returns:
        (d, d) orthogonal R, and |B - V R|^2 before each iteration and at the end.
    """
    rotation = random_rotation(projected.shape[1], projected.shape[1], generator)
    errors = []
    for _ in range(iterations):
        rotated = projected @ rotation
        signs = np.where(rotated > 0, 1.0, -1.0)
        errors.append(float(((signs - rotated) ** 2).sum()))
        left, _, right = np.linalg.svd(projected.T @ signs)
        rotation = left @ right
    rotated = projected @ rotation
    errors.append(float(((np.where(rotated > 0, 1.0, -1.0) - rotated) ** 2).sum()))
    return rotation, errors


def itq_projection(
    archives: Sequence[Sliceable], means: Sequence[DoubleArray], bits: int, generator: np.random.Generator
) -> DoubleArray:
    """Return the (D, bits) projection of PCA and iterative quantisation, shared by all archives.

    If the vectors span fewer than `bits` directions, these give as many bits; a random rotation gives the others.
    """
    axes = principal_axes(archives, means, bits, FIT_ROWS)
    rotation, _ = itq_rotation(project_sample(archives, means, axes, FIT_ROWS), generator)
    missing = bits - axes.shape[1]
    return np.concatenate([axes @ rotation, random_rotation(axes.shape[0], missing, generator)], axis=1)
