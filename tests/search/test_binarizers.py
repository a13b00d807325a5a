"""Codes of any length against loops: rotations, iterative quantisation, exact bits, what is fitted on what."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from tests.search.test_memory import MEGA, peak_of

from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search import binary_codes, projections
from bigearthnet_cbir.search.binarizers import FITTED_METHODS, Binarizer, constant_bits, fit_binarizers
from bigearthnet_cbir.search.binary_codes import median_thresholds
from bigearthnet_cbir.search.projections import (
    itq_rotation,
    mean_unit_row,
    principal_axes,
    project_sample,
    random_rotation,
    unit_vectors,
)


class File:
    """Rows that are read by slices only."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape = array, array.shape

    def __getitem__(self, part: slice) -> np.ndarray:
        return self.array[part].copy()


def vectors(rows: int = 300, width: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two sensors' vectors of the same places, each with an offset of its own."""
    generator = np.random.default_rng(seed)
    shared = generator.standard_normal((rows, 8)) @ generator.standard_normal((8, width))
    noise = generator.standard_normal((2, rows, width))
    return (shared + 0.3 * noise[0] + 2).astype(np.float32), (shared + 0.3 * noise[1] - 1).astype(np.float32)


def bits_of(codes: np.ndarray, bits: int) -> np.ndarray:
    return np.unpackbits(codes, axis=1)[:, :bits]


@pytest.mark.parametrize(("width", "bits"), [(24, 16), (24, 24), (24, 64), (5, 8)])
def test_rotations_are_orthonormal_in_blocks_and_come_from_the_seed(width: int, bits: int) -> None:
    one, same, other = (random_rotation(width, bits, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == (width, bits)
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)
    for first in range(0, bits, width):
        block = one[:, first : first + width]
        assert np.allclose(block.T @ block, np.eye(block.shape[1]))
    if bits > width:
        assert not np.allclose(one[:, :3], one[:, width : width + 3])


def test_principal_axes_are_those_of_the_centred_unit_vectors_of_both_archives() -> None:
    s1, s2 = vectors()
    centred = []
    for archive in (s1, s2):
        unit = [row / np.sqrt(sum(float(value) ** 2 for value in row)) for row in archive]
        centred += [row - np.mean(unit, axis=0) for row in unit]
    _, _, expected = np.linalg.svd(np.array(centred), full_matrices=False)
    means = [mean_unit_row(File(s1)), mean_unit_row(File(s2))]
    axes = principal_axes([File(s1), File(s2)], means, 6)
    assert np.allclose(axes.T @ axes, np.eye(6))
    assert np.allclose(np.abs((axes * expected[:6].T).sum(axis=0)), 1, atol=1e-5)


def loop_error(projected: np.ndarray, rotation: np.ndarray) -> float:
    total = 0.0
    for row in projected:
        for column in rotation.T:
            value = sum(a * b for a, b in zip(row.tolist(), column.tolist(), strict=True))
            total += ((1.0 if value > 0 else -1.0) - value) ** 2
    return total


def test_itq_rotation_stays_orthogonal_and_its_error_only_falls() -> None:
    projected = np.random.default_rng(3).standard_normal((80, 6)) * [3, 2, 1, 1, 0.5, 0.2]
    rotation, errors = itq_rotation(projected, np.random.default_rng(4), iterations=12)
    assert np.allclose(rotation.T @ rotation, np.eye(6))
    assert len(errors) == 13
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(errors))
    assert errors[-1] < errors[0]
    assert errors[-1] == pytest.approx(loop_error(projected, rotation))
    start = random_rotation(6, 6, np.random.default_rng(4))
    assert errors[0] == pytest.approx(loop_error(projected, start))


def test_each_itq_step_is_the_best_rotation_for_its_signs() -> None:
    """The Procrustes solution beats thousands of rotations near it and far from it."""
    generator = np.random.default_rng(5)
    projected = generator.standard_normal((60, 3)) * [2, 1, 0.5]
    start = random_rotation(3, 3, np.random.default_rng(6))
    signs = np.where(projected @ start > 0, 1.0, -1.0)
    found, _ = itq_rotation(projected, np.random.default_rng(6), iterations=1)
    best = ((signs - projected @ found) ** 2).sum()
    for _ in range(2000):
        near, _ = np.linalg.qr(found + generator.uniform(0, 1) * generator.standard_normal((3, 3)))
        assert best <= ((signs - projected @ (near * np.sign(np.diag(near.T @ found)))) ** 2).sum() + 1e-9


@pytest.mark.parametrize("method", FITTED_METHODS)
@pytest.mark.parametrize("block", [1 << 8, 1 << 24])
def test_a_code_does_not_depend_on_its_company(method: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    s1, s2 = vectors()
    fitted = fit_binarizers(method, {"s1": s1, "s2": s2}, None if method in ("median", "mean") else 40)
    whole = fitted["s1"].codes(s1)
    monkeypatch.setattr(binary_codes, "BLOCK_BYTES", block)
    alone = [fitted["s1"].codes(s1[row : row + 1])[0] for row in range(30)]
    assert np.array_equal(alone, whole[:30])
    backwards = fitted["s1"].codes(File(s1[::-1].copy()))
    assert np.array_equal(backwards[::-1], whole)


def test_bits_are_signs_of_exact_sums() -> None:
    """Vectors on a threshold, where a product's rounding errors would decide."""
    generator = np.random.default_rng(7)
    projection = generator.standard_normal((40, 16)).astype(np.float32)
    rows = generator.standard_normal((50, 40)).astype(np.float32)
    rows[:, -1] = 0
    for row in rows[:25]:  # the last element brings each as near to the first threshold as a float32 can
        row[-1] = -(row.astype(float) @ projection[:, 0].astype(float)) / float(projection[-1, 0])
    thresholds = np.zeros(16, np.float32)
    thresholds[1:] = (rows[3].astype(float) @ projection[:, 1:].astype(float)).astype(np.float32)
    found = bits_of(Binarizer("learned", thresholds, projection).codes(rows), 16)
    for row, code in zip(rows, found, strict=True):
        for column, threshold, bit in zip(projection.T, thresholds, code, strict=True):
            total = sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(row, column, strict=True))
            assert bit == (total > Fraction(float(threshold)))


@pytest.mark.parametrize(("method", "bits"), [("rotation", 16), ("rotation", 56), ("itq", 16), ("itq", 56)])
def test_codes_are_signs_of_projected_unit_vectors_less_their_own_mean(method: str, bits: int) -> None:
    s1, s2 = vectors()
    fitted = fit_binarizers(method, {"s1": s1, "s2": s2}, bits, seed=3)
    assert fitted["s1"].projection is fitted["s2"].projection
    for kind, rows in (("s1", s1), ("s2", s2)):
        unit = unit_vectors(rows).astype(float)
        values = (unit - unit.mean(axis=0)) @ fitted[kind].projection.astype(float)
        found = bits_of(fitted[kind].codes(rows), bits)
        clear = np.abs(values) > 1e-6
        assert found.shape == (300, bits)
        assert np.array_equal(found[clear], (values > 0)[clear])


def test_both_sensors_of_a_place_get_nearly_the_same_code() -> None:
    s1, s2 = vectors()
    for method in ("rotation", "itq"):
        fitted = fit_binarizers(method, {"s1": s1, "s2": s2}, 16)
        one, two = (bits_of(fitted[kind].codes(rows), 16) for kind, rows in (("s1", s1), ("s2", s2)))
        own, other = (one != two).mean(), (one != np.roll(two, 1, axis=0)).mean()
        assert own < 0.2 < 0.4 < other, method


def test_other_kinds_get_thresholds_of_their_own_and_no_say_in_the_projection() -> None:
    s1, s2 = vectors()
    alone = fit_binarizers("itq", {"s1": s1}, 16)
    beside = fit_binarizers("itq", {"s1": s1}, 16, others={"s2": s2})
    assert np.array_equal(alone["s1"].projection, beside["s2"].projection)
    assert not np.array_equal(beside["s1"].thresholds, beside["s2"].thresholds)


def test_a_fit_reads_slices_only_and_its_sample_is_spread_over_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    s1, s2 = vectors()
    means = [mean_unit_row(s1), mean_unit_row(s2)]
    monkeypatch.setattr(binary_codes, "BLOCK_BYTES", 8 * 24 * 7)
    axes = principal_axes([File(s1), File(s2)], means, 5, 100)
    _, _, expected = np.linalg.svd(
        np.concatenate([(unit_vectors(rows) - mean)[::6] for rows, mean in zip((s1, s2), means, strict=True)])
    )
    assert np.allclose(np.abs((axes * expected[:5].T).sum(axis=0)), 1, atol=1e-5)
    sample = project_sample([File(s1), File(s2)], means, axes, most=100)
    expected = np.concatenate([(unit_vectors(rows) - mean)[::6] for rows, mean in zip((s1, s2), means, strict=True)])
    assert len(sample) == 100
    assert np.allclose(sample, expected @ axes)


def test_vectors_of_few_directions_get_random_bits_for_the_rest() -> None:
    generator = np.random.default_rng(8)
    flat = (generator.standard_normal((100, 3)) @ generator.standard_normal((3, 12))).astype(np.float32)
    fitted = fit_binarizers("itq", {"s1": flat}, 32)["s1"]
    assert fitted.bits == 32
    assert constant_bits(fitted.codes(flat), 32) == 0
    same = np.repeat(flat[:1], 10, axis=0)
    assert constant_bits(fit_binarizers("itq", {"s1": same}, 16)["s1"].codes(same), 16) == 16


def test_constant_bits_are_counted_without_the_filling() -> None:
    assert constant_bits(np.packbits([[1, 0, 1, 0, 1], [1, 1, 0, 0, 0]], axis=1), 5) == 2
    assert constant_bits(np.zeros((4, 2), np.uint8), 10) == 10
    assert constant_bits(np.zeros((0, 2), np.uint8), 10) == 10


def test_a_median_that_is_the_greatest_value_is_lowered_so_that_its_bit_changes() -> None:
    archive = np.array([[0, 0, 5], [1, 0, 5], [1, 0, 5], [1, 2, 5], [0.5, 0, 5]], np.float32)
    assert median_thresholds(archive).tolist() == [0.5, 0, 5]
    codes = fit_binarizers("median", {"s1": archive})["s1"].codes(archive)
    assert constant_bits(codes, 3) == 1


def test_mean_thresholds_are_the_archives_means() -> None:
    s1, _ = vectors()
    expected = [np.float32(sum(column) / len(column)) for column in s1.astype(float).T.tolist()]
    assert fit_binarizers("mean", {"s1": s1})["s1"].thresholds.tolist() == expected


def test_arrays_bring_back_an_equal_binarizer() -> None:
    s1, _ = vectors()
    for method in FITTED_METHODS:
        fitted = fit_binarizers(method, {"s1": s1})["s1"]
        again = Binarizer.from_arrays(fitted.arrays())
        assert again.method == method
        assert np.array_equal(again.codes(s1), fitted.codes(s1))


def test_rows_of_zeros_and_other_float_types_have_codes() -> None:
    s1, _ = vectors()
    fitted = fit_binarizers("itq", {"s1": s1}, 16)["s1"]
    assert fitted.codes(np.zeros((1, 24), np.float32)).shape == (1, 2)
    assert np.array_equal(fitted.codes(s1.astype(np.float64)), fitted.codes(s1))


def test_mistakes_are_refused() -> None:
    s1, s2 = vectors()
    with pytest.raises(SearchError, match="choose one of median, mean, rotation, itq"):
        fit_binarizers("lsh", {"s1": s1})
    with pytest.raises(SearchError, match="one bit for each of 24 features"):
        fit_binarizers("median", {"s1": s1}, 16)
    with pytest.raises(SearchError, match="cannot share one code"):
        fit_binarizers("itq", {"s1": s1, "s2": s2[:, :5]}, 8)
    with pytest.raises(SearchError, match="needs dimension 24"):
        fit_binarizers("itq", {"s1": s1}, 8)["s1"].codes(s1[:, :5])
    with pytest.raises(SearchError, match="NaN"):
        fit_binarizers("rotation", {"s1": np.full((3, 4), np.nan, np.float32)}, 8)
    with pytest.raises(SearchError, match="N, D >= 1"):
        fit_binarizers("itq", {"s1": s1[:0]}, 8)
    with pytest.raises(SearchError, match="inconsistent shapes"):
        Binarizer.from_arrays(
            {"method": "itq", "unit": True, "thresholds": np.zeros(3), "projection": np.zeros((4, 2))}
        )


def test_fits_are_made_of_blocks_of_any_size_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    s1, _ = vectors()
    whole = principal_axes([s1], [mean_unit_row(s1)], 8)
    monkeypatch.setattr(binary_codes, "BLOCK_BYTES", 1000)
    assert np.allclose(principal_axes([File(s1)], [mean_unit_row(File(s1))], 8), whole)
    assert projections.ITQ_ITERATIONS == 50


def test_a_file_of_features_is_turned_into_codes_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary_codes, "BLOCK_BYTES", 1 << 17)
    monkeypatch.setattr(projections, "FIT_ROWS", 1000)
    features = File(np.random.default_rng(9).standard_normal((60_000, 32)).astype(np.float32))
    fitted = fit_binarizers("itq", {"s1": features}, 64)["s1"]
    codes = fitted.codes(features).nbytes
    assert peak_of(lambda: fit_binarizers("itq", {"s1": features}, 64)["s1"].codes(features)) < codes + 4 * MEGA
    assert features.array.nbytes > 7 * MEGA
