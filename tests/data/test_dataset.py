from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import Archive, RealPairs, write_parquet

from bigearthnet_cbir.data.bands import S1_BANDS, S2_10M_BANDS, S2_20M_BANDS
from bigearthnet_cbir.data.dataset import BigEarthNetMM, PairBatch
from bigearthnet_cbir.data.labels import CLASSES, multi_hot
from bigearthnet_cbir.data.loaders import ordered_loader, training_loader
from bigearthnet_cbir.data.patch_store import PatchStore, PatchWriter
from bigearthnet_cbir.data.splits import read_split, read_split_labels
from bigearthnet_cbir.data.transforms import BatchTransform
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.types import Patch, PatchPair


def dataset(archive: Archive, real: RealPairs, **options: bool) -> BigEarthNetMM:
    return BigEarthNetMM(real.pairs, PatchStore(archive.s2), PatchStore(archive.s1), **options)


def test_sample_holds_the_values_of_the_files(
    archives: dict[str, Archive], real_pairs: RealPairs, true_patches: dict[str, Patch]
) -> None:
    samples = dataset(archives["rico"], real_pairs, require_labels=False)
    for position, pair in enumerate(real_pairs.pairs):
        sample = samples[position]
        s1, s2 = true_patches[pair.s1].bands, true_patches[pair.s2].bands
        assert sample.s2_10m.dtype == torch.uint16
        assert np.array_equal(sample.s1.numpy(), np.stack([s1[band] for band in S1_BANDS]))
        assert np.array_equal(sample.s2_10m.numpy(), np.stack([s2[band] for band in S2_10M_BANDS]))
        assert np.array_equal(sample.s2_20m.numpy(), np.stack([s2[band] for band in S2_20M_BANDS]))
        assert int(sample.pair_index) == position


def test_missing_labels_are_an_error_only_where_labels_are_needed(
    archives: dict[str, Archive], real_pairs: RealPairs
) -> None:
    assert int(dataset(archives["rico"], real_pairs, require_labels=False)[0].label.sum()) == 0
    with pytest.raises(DataError, match="neither record of this pair has labels"):
        dataset(archives["rico"], real_pairs)[0]


@pytest.mark.parametrize("kind", ["ours", "original", "encoder", "rico"])
def test_labels_of_the_table_win_over_the_records(
    archives: dict[str, Archive], real_pairs: RealPairs, true_patches: dict[str, Patch], tmp_path: Path, kind: str
) -> None:
    """docs/formats.md, Labels: the table that a list names, then the Sentinel-2 record, then the Sentinel-1 record."""
    if kind == "ours":
        write_ours(tmp_path / "ours", true_patches)
    archive = Archive(tmp_path / "ours", tmp_path / "ours") if kind == "ours" else archives[kind]
    first, *others = real_pairs.pairs
    corrected = tuple(name for name in CLASSES if name not in true_patches[first.s2].labels)
    write_parquet(tmp_path / "metadata.parquet", [(first.s2, first.s1, corrected, "train")])
    table = read_split_labels(f"{tmp_path / 'metadata.parquet'}:train")
    samples = BigEarthNetMM(
        real_pairs.pairs, PatchStore(archive.s2, table), PatchStore(archive.s1), require_labels=kind != "rico"
    )
    assert np.array_equal(samples[0].label, multi_hot(corrected))
    for position, pair in enumerate(others, start=1):
        expected = () if kind == "rico" else true_patches[pair.s2].labels
        assert np.array_equal(samples[position].label, multi_hot(expected)), "not in the table: the record's"


def write_ours(path: Path, patches: dict[str, Patch]) -> None:
    with PatchWriter(path) as writer:
        for name, patch in patches.items():
            writer.write(name, patch)


def test_labels_of_the_sentinel_2_record_win_over_its_partners(
    archives: dict[str, Archive], real_pairs: RealPairs, true_patches: dict[str, Patch], tmp_path: Path
) -> None:
    """Two archives of this project, or one of them of another tool, can disagree."""
    s1_only = {pair.s1: true_patches[pair.s1]._replace(labels=CLASSES[:2]) for pair in real_pairs.pairs}
    s2_only = {pair.s2: true_patches[pair.s2]._replace(labels=CLASSES[5:7]) for pair in real_pairs.pairs}
    write_ours(tmp_path / "s1", s1_only)
    write_ours(tmp_path / "s2", s2_only)
    for s2, expected in (
        (tmp_path / "s2", CLASSES[5:7]),
        (archives["original"].s2, true_patches[real_pairs.pairs[0].s2].labels),
        (archives["encoder"].s2, true_patches[real_pairs.pairs[0].s2].labels),
        (archives["rico"].s2, CLASSES[:2]),
    ):
        sample = BigEarthNetMM(real_pairs.pairs, PatchStore(s2), PatchStore(tmp_path / "s1"))[0]
        assert np.array_equal(sample.label, multi_hot(expected)), s2


def test_swapped_archives_are_refused_at_once(archives: dict[str, Archive], real_pairs: RealPairs) -> None:
    original = archives["original"]
    with pytest.raises(DataError, match=r"6 of 6 Sentinel-2 patches .* not swapped"):
        dataset(Archive(original.s1, original.s2), real_pairs)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_read_what_this_process_reads(
    archives: dict[str, Archive], real_pairs: RealPairs, context: str
) -> None:
    samples = dataset(archives["original"], real_pairs)
    here = list(ordered_loader(samples, 4, 0))
    workers = ordered_loader(samples, 4, 2)
    workers.multiprocessing_context = context
    for one, other in zip(here, workers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_batches_of_the_real_original_archive_equal_those_of_its_geotiffs(
    samples: Path, true_patches: dict[str, Patch]
) -> None:
    folder = samples / "original-lmdb"
    pairs = [pair for split in ("train", "val", "test") for pair in read_split(folder / f"{split}.csv")]
    stored = BigEarthNetMM(pairs, PatchStore(folder / "BigEarth_S2.lmdb"), PatchStore(folder / "BigEarth_S1.lmdb"))
    (batch,) = ordered_loader(stored, 8, 0)

    def stacked(sensor: str, bands: tuple[str, ...]) -> torch.Tensor:
        rows = [[true_patches[getattr(pair, sensor)].bands[band] for band in bands] for pair in pairs]
        return torch.from_numpy(np.array(rows))

    from_files = PairBatch(
        stacked("s1", S1_BANDS), stacked("s2", S2_10M_BANDS), stacked("s2", S2_20M_BANDS), batch.label, batch.pair_index
    )
    for ours, theirs in zip(BatchTransform()(batch), BatchTransform()(from_files), strict=True):
        assert torch.equal(ours, theirs)


def test_training_loader_drops_the_short_batch_but_keeps_a_lone_one(
    archives: dict[str, Archive], real_pairs: RealPairs
) -> None:
    samples = dataset(archives["original"], real_pairs)
    assert [len(batch.label) for batch in training_loader(samples, 4, 0, 0)] == [4]
    assert [len(batch.label) for batch in training_loader(samples, 100, 0, 0)] == [6]
    empty = BigEarthNetMM([], samples.s2_store, samples.s1_store)
    with pytest.raises(DataError, match="0 pairs; 1 processes need at least one"):
        training_loader(empty, 4, 0, 0)


def test_unknown_names_are_counted_and_shown(archives: dict[str, Archive], real_pairs: RealPairs) -> None:
    extra = [PatchPair(f"S2A_unknown_{number}", real_pairs.pairs[0].s1) for number in range(7)]
    wrong = RealPairs(real_pairs.s1_root, real_pairs.s2_root, [*real_pairs.pairs, *extra])
    with pytest.raises(DataError, match=r"7 of 13 Sentinel-2 patches .*S2A_unknown_0.* and 2 more"):
        dataset(archives["original"], wrong)
