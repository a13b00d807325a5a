"""Split lists from CSV files and from metadata.parquet, and each way in which they can be wrong."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.data.metadata import read_metadata
from bigearthnet_cbir.data.split_writing import write_split
from bigearthnet_cbir.data.splits import (
    check_disjoint,
    known_splits,
    read_split,
    read_split_labels,
)
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.types import PatchPair

A = PatchPair("S2A_MSIL2A_20170613T101031_87_48", "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48")
B = PatchPair("S2B_MSIL2A_20180204T94161_57_38", "S1A_IW_GRDH_1SDV_20180204T043253_35VPK_57_38")


def test_written_lists_read_back_in_order(tmp_path):
    write_split(tmp_path / "new" / "train.csv", [B, A])
    assert read_split(tmp_path / "new" / "train.csv") == [B, A]
    assert read_split_labels(tmp_path / "new" / "train.csv") is None


@pytest.mark.parametrize("text", ["{0},{1}\r\n{2},{3}\r\n", "\ufeff{0},{1}\n{2},{3}", " {0} , {1} \n\n{2},{3}\n"])
def test_line_ends_spaces_and_byte_order_marks_do_not_matter(tmp_path, text):
    (tmp_path / "train.csv").write_bytes(text.format(*A, *B).encode())
    assert read_split(tmp_path / "train.csv") == [A, B]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{A.s2}\n{B.s2}\n", "line 1: 1 column"),
        (f"{A.s2},{A.s1}\n{B.s2},{B.s1},x\n", "line 2: 3 columns"),
        (f"s2_name,s1_name\n{A.s2},{A.s1}\n", "line 1: 's2_name' is not a Sentinel-2 patch name .*header"),
        (f"{A.s2},{A.s1}\n{B.s1},{B.s2}\n", "line 2: the names are swapped"),
        (f"{A.s2},{A.s1}\n{B.s2},{B.s1}\n{A.s2},{A.s1}\n", "line 3: .* is already in line 1"),
        (f"{A.s2},{A.s1}\n{B.s2},{A.s1}\n", f"line 2: {A.s1} is already in line 1"),
        (f"{A.s2},{B.s2}\n", "line 1: .* is not a Sentinel-1 patch name"),
        (f"{A.s2},{A.s1}\n{B.s2} x,{B.s1}\n", "line 2: .* is not a Sentinel-2 patch name .* no spaces"),
        (f"{A.s2},{A.s1}\n{B.s2}{'x' * 600},{B.s1}\n", "line 2: .* is not a Sentinel-2 patch name"),
        (f'{A.s2},"{A.s1}\n{B.s2},{B.s1}\n', "line 1: a quote is not closed"),
        (f'{A.s2},{A.s1}\n{B.s2},"{B.s1}"x\n', "line 2: a quote .* inside a name"),
        ("\n\n", "is empty"),
        ("", "is empty"),
    ],
    ids=[
        "one column",
        "three",
        "header",
        "swapped",
        "duplicate",
        "same S1",
        "two S2",
        "space",
        "too long",
        "open quote",
        "quote inside",
        "blank",
        "empty",
    ],
)
def test_malformed_lists_are_refused_with_file_and_line(tmp_path, text, message):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(DataError, match=rf"train\.csv.*{message}") as caught:
        read_split(tmp_path / "train.csv")
    assert "\n" not in str(caught.value)


def test_a_stray_quote_in_a_large_list_is_refused_with_its_line(tmp_path):
    """The CSV reader would take in every line after it, and refuse a name of 131,073 letters with a traceback."""
    lines = [f"S2A_MSIL2A_{number},S1A_IW_{number}\n" for number in range(6_000)]
    lines[2] = 'S2A_MSIL2A_2,"S1A_IW_2\n'
    (tmp_path / "train.csv").write_text("".join(lines))
    assert sum(map(len, lines)) > 131_072 + 2_000
    with pytest.raises(DataError, match=r"train\.csv, line 3: a quote is not closed"):
        read_split(tmp_path / "train.csv")


def test_names_in_quotes_are_read(tmp_path):
    (tmp_path / "train.csv").write_text(f'"{A.s2}","{A.s1}"\n{B.s2}, "{B.s1}"\n')
    assert read_split(tmp_path / "train.csv") == [A, B]
    (tmp_path / "val.csv").write_text(f'"{A.s2}","{A.s1}"\n{B.s2}, "{B.s1}"\nx,y\n')
    with pytest.raises(DataError, match="line 3"):
        read_split(tmp_path / "val.csv")


def test_missing_or_binary_list_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no such split list"):
        read_split(tmp_path / "train.csv")
    (tmp_path / "train.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match="cannot be read as a CSV"):
        read_split(tmp_path / "train.csv")


def test_a_patch_in_two_splits_and_a_folder_without_lists_are_refused(tmp_path):
    with pytest.raises(DataError, match="is in train and in val"):
        check_disjoint({"train": [A, B], "val": [B]})
    with pytest.raises(DataError, match=r"no train\.csv"):
        known_splits(tmp_path)


def test_parquet_splits_give_pairs_and_labels_in_column_order(archives, real_pairs, true_patches):
    parquet = archives["rico"].parquet
    assert read_split(f"{parquet}:train") == real_pairs.pairs[:3]
    assert read_split(f"{parquet}:val") == read_split(f"{parquet}:validation") == real_pairs.pairs[3:4]
    labels = read_split_labels(f"{parquet}:test")
    assert labels == {pair.s2: true_patches[pair.s2].labels for pair in real_pairs.pairs[4:]}


def test_pairs_and_labels_of_a_table_share_the_names_and_a_changed_table_is_read_again(archives, tmp_path):
    path = shutil.copy(archives["rico"].parquet, tmp_path)
    pairs, labels = read_split(f"{path}:train"), read_split_labels(f"{path}:train")
    assert labels._names is pairs.s2
    content = pq.read_table(path).to_pydict()
    content["labels"][0] = ["Marine waters"]
    pq.write_table(pa.table(content), path)
    assert read_split_labels(f"{path}:train")[pairs[0].s2] == ("Marine waters",)


def test_published_parquet_is_read(samples):
    rows = read_metadata(samples / "bigearthnet-v2" / "metadata.parquet")
    assert [sum(row.split == split for row in rows) for split in ("train", "val", "test")] == [6, 6, 6]
    assert {row.country for row in rows} == {"Austria"}


def test_whole_columns_give_what_rows_give(tmp_path):
    """Pairs and labels of a split are read without a Python object per row; the rows are the oracle."""
    names = ["Road and rail networks and associated land", "Rice fields", *CLASSES]
    labels = [[], [CLASSES[3]], [], names[:2], names[1:4], *([name, names[-1]] for name in names)]
    count = len(labels)
    columns = {
        "patch_id": [f"S2A_{number}" for number in range(count)],
        "s1_name": [f"S1A_{number}" for number in range(count)],
        "labels": labels,
        "split": [("train", "validation", "test")[number % 3] for number in range(count)],
    }
    tables = (pa.table(columns), pa.table({name: pa.array(values) for name, values in columns.items()}).slice(2, 9))
    for number, table in enumerate(tables):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(table, path, row_group_size=4)
        for split in ("train", "val", "test"):
            rows = [row for row in read_metadata(path) if row.split == split]
            assert read_split(f"{path}:{split}") == [PatchPair(row.s2, row.s1) for row in rows]
            assert read_split_labels(f"{path}:{split}") == {row.s2: row.labels for row in rows}


def test_columns_of_other_text_types_are_read_row_by_row(archives, real_pairs, tmp_path):
    table = pq.read_table(archives["rico"].parquet)
    coded = table.set_column(0, "patch_id", table.column("patch_id").dictionary_encode())
    pq.write_table(coded, tmp_path / "metadata.parquet")
    assert read_split(f"{tmp_path}/metadata.parquet:train") == real_pairs.pairs[:3]
    labels = read_split_labels(f"{tmp_path}/metadata.parquet:train")
    assert labels == read_split_labels(f"{archives['rico'].parquet}:train")


@pytest.mark.parametrize("column", ["patch_id", "labels", "split", "s1_name"])
def test_parquet_without_a_column_is_refused_by_its_name(archives, tmp_path, column):
    path = tmp_path / "metadata.parquet"
    pq.write_table(pq.read_table(archives["rico"].parquet).drop_columns([column]), path)
    with pytest.raises(DataError, match=rf"metadata\.parquet: column {column} is missing"):
        read_split(f"{path}:train")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("split", "dev", "row 1: split is 'dev'"),
        ("patch_id", None, "row 1: patch_id is empty"),
        ("labels", ["Moon"], "row 1: label 'Moon' is in neither"),
    ],
)
def test_parquet_with_a_bad_value_is_refused_by_row(archives, tmp_path, column, value, message):
    content = pq.read_table(archives["rico"].parquet).to_pydict()
    content[column][1] = value
    pq.write_table(pa.table(content), tmp_path / "metadata.parquet")
    with pytest.raises(DataError, match=message):
        read_metadata(tmp_path / "metadata.parquet")
    with pytest.raises(DataError, match=message):
        read_split(f"{tmp_path / 'metadata.parquet'}:test")


def test_parquet_specs_that_cannot_be_meant_are_refused(archives, tmp_path):
    parquet = archives["rico"].parquet
    with pytest.raises(DataError, match=r"write .*:train, :val or :test"):
        read_split(parquet)
    with pytest.raises(DataError, match="'dev' is not a split; write train, val or test"):
        read_split(f"{parquet}:dev")
    with pytest.raises(DataError, match="there is no such parquet"):
        read_split(f"{tmp_path}/metadata.parquet:train")
    (tmp_path / "metadata.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="not a readable parquet"):
        read_split(f"{tmp_path}/metadata.parquet:train")
