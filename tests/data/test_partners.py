"""Split lists of Sentinel-2 names alone: who names the Sentinel-1 partners, and what is said where nobody does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from tests.conftest import write_parquet

from bigearthnet_cbir.cli.encode import main
from bigearthnet_cbir.config import load_config
from bigearthnet_cbir.data import official_splits as official_lists
from bigearthnet_cbir.data.dataset import BigEarthNetMM
from bigearthnet_cbir.data.partners import TABLES, read_pairs
from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.data.splits import read_list, read_split
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.pipelines.builders import build_dataset
from bigearthnet_cbir.types import PatchPair

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def one_column(real_pairs, tmp_path) -> Path:
    path = tmp_path / "lists" / "train.csv"
    path.parent.mkdir()
    path.write_text("".join(f"{pair.s2}\n" for pair in real_pairs.pairs))
    return path


@pytest.fixture
def no_official_lists(monkeypatch):
    monkeypatch.setattr(official_lists, "is_installed", lambda: False)


def rows(pairs):
    return [(pair.s2, pair.s1, ["Pastures"], "train") for pair in pairs]


def alone(archive, tmp_path):
    """A copy of an archive with nothing beside it."""
    return PatchStore(shutil.copytree(archive, tmp_path / "alone" / "archive"))


def test_an_archive_of_both_sensors_needs_no_partners(
    archives, real_pairs, true_patches, one_column, no_official_lists
):
    store = PatchStore(archives["encoder"].s2)
    pairs = read_pairs(one_column, store, store)
    assert pairs == [PatchPair(pair.s2, pair.s2) for pair in real_pairs.pairs]
    sample = BigEarthNetMM(pairs, store, store)[1]
    assert (sample.s1[0].numpy() == true_patches[real_pairs.pairs[1].s1].bands["VV"]).all()


@pytest.mark.parametrize("place", ["lists", "alone", "alone/archive"])
def test_a_metadata_parquet_beside_the_list_or_the_archive_names_them(
    archives, real_pairs, one_column, tmp_path, no_official_lists, place
):
    store = alone(archives["rico"].s2, tmp_path)
    write_parquet(tmp_path / place / TABLES[0], rows(real_pairs.pairs[:4]))
    lacking = real_pairs.pairs[4].s2
    with pytest.raises(DataError, match=rf"2 of them \({lacking}, .*\) have no Sentinel-1 partner in .*{TABLES[0]}"):
        read_pairs(one_column, store, store)
    write_parquet(tmp_path / place / TABLES[1], rows(real_pairs.pairs[4:]))
    assert read_pairs(one_column, store, store) == real_pairs.pairs


@pytest.mark.slow
def test_the_official_lists_name_them_where_no_table_does(archives, real_pairs, one_column, tmp_path):
    store = alone(archives["original"].s1, tmp_path)
    write_parquet(one_column.parent / TABLES[0], rows([PatchPair("S2A_x", "S1A_x")]))
    assert read_pairs(one_column, alone(archives["original"].s2, tmp_path / "s2"), store) == real_pairs.pairs


def test_where_nobody_names_them_one_line_says_what_is_missing(archives, one_column, tmp_path, no_official_lists):
    store = alone(archives["rico"].s2, tmp_path)
    with pytest.raises(DataError) as caught:
        read_pairs(one_column, store, store)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(one_column), "6 of them", "metadata.parquet", "pip install", "second column"):
        assert part in message


def test_without_an_archive_one_column_is_refused_in_one_line(one_column, real_pairs):
    with pytest.raises(DataError, match=r"train\.csv, line 1: 1 column .* 2 are needed") as caught:
        read_split(one_column)
    assert "\n" not in str(caught.value)
    assert read_list(one_column) == [pair.s2 for pair in real_pairs.pairs]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{0}\n{1},{2}\n", "line 2: 2 columns"),
        ("{1},{2}\n{0}\n", "line 2: 1 column"),
        ("{0}\n{1}\n{0}\n", "line 3: .* is already in line 1"),
        ("{2}\n", "line 1: .* is not a Sentinel-2 patch name"),
        ("patch\n{0}\n", "line 1: 'patch' is not a Sentinel-2 .* header"),
    ],
)
def test_mistakes_in_one_column_are_refused_with_their_line(one_column, real_pairs, text, message):
    first, second = real_pairs.pairs[:2]
    one_column.write_text(text.format(first.s2, second.s2, second.s1))
    with pytest.raises(DataError, match=message):
        read_list(one_column)


def test_two_columns_are_read_as_ever(archives, real_pairs, tmp_path, no_official_lists):
    path = tmp_path / "train.csv"
    path.write_text("".join(f"{pair.s2},{pair.s1}\n" for pair in real_pairs.pairs))
    store = PatchStore(archives["encoder"].s2)
    assert read_pairs(path, store, store) == real_pairs.pairs
    assert read_pairs(f"{archives['rico'].parquet}:val", store, store) == real_pairs.pairs[3:4]


def test_encoding_takes_lists_of_one_column(real_pairs, one_column, tmp_path):
    write_parquet(one_column.parent / TABLES[0], rows(real_pairs.pairs))
    roots = ["--s1-root", str(real_pairs.s1_root), "--s2-root", str(real_pairs.s2_root)]
    more = ["--split-from", str(one_column.parent), "--splits", str(tmp_path / "new"), "--lists-only"]
    assert main([*roots, *more]) == 0
    assert read_split(tmp_path / "new" / "train.csv") == real_pairs.pairs


def test_a_configured_run_takes_lists_of_one_column(archives, real_pairs, one_column, tmp_path):
    values = yaml.safe_load((ROOT / "project" / "config" / "args.yaml").read_text())
    archive = {f"bigEarthPthLMDB_{sensor}": str(archives["encoder"].s2) for sensor in ("S1", "S2")}
    lists = {f"{split}_csv": str(one_column) for split in ("train", "val", "test")}
    (tmp_path / "args.yaml").write_text(yaml.safe_dump(values | archive | lists))
    dataset = build_dataset(load_config(tmp_path / "args.yaml"), "val", require_labels=True)
    assert dataset.pairs.s2 == [pair.s2 for pair in real_pairs.pairs]
    assert len(dataset[5].label) == 19
