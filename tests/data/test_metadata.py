"""metadata.parquet: columns of other types, empty places, names of nothing and damaged pages are told in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigearthnet_cbir.data.metadata import read_metadata, read_table_partners, read_table_split
from bigearthnet_cbir.errors import DataError


def columns() -> dict[str, Any]:
    """A table of three pairs."""
    return {
        "patch_id": [f"S2A_MSIL2A_20170613T101031_{row}_1" for row in range(3)],
        "s1_name": [f"S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{row}_1" for row in range(3)],
        "labels": [["Pastures"], ["Marine waters", "Arable land"], []],
        "split": ["train", "validation", "test"],
        "country": ["Austria"] * 3,
        "contains_seasonal_snow": [False, True, False],
        "contains_cloud_or_shadow": [False] * 3,
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metadata.parquet"


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_text_stored_in_another_way_is_read_alike(path, kind):
    pq.write_table(pa.table(columns()), path)
    expected = read_metadata(path)
    table = pa.table(columns())
    for name in ("patch_id", "s1_name", "split", "country"):
        try:
            column = table.column(name).cast(kind)
        except pa.ArrowNotImplementedError:
            pytest.skip(f"pyarrow {pa.__version__} makes no {kind}")
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, path)
    assert read_metadata(path) == expected
    assert list(read_table_split(path, "val")[0]) == [(expected[1].s2, expected[1].s1)]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("patch_id", [1, 2, 3], "column patch_id is 'int64', but must be string"),
        ("s1_name", [b"S1A_a", b"S1A_b", b"S1A_c"], "column s1_name is 'binary', but must be string"),
        ("labels", ["Pastures", "Pastures", "Pastures"], "column labels is 'string', but must be list"),
        ("labels", [1.5, 2.5, 3.5], "column labels is 'double'"),
        ("labels", [[1], [2], [3]], "column labels is 'list<.*int64>'"),
        ("contains_seasonal_snow", ["no", "yes", "no"], "column contains_seasonal_snow is 'string', but must be bool"),
        ("country", [float("nan")] * 3, "column country is 'double'"),
        ("contains_cloud_or_shadow", [False, None, True], "row 1: contains_cloud_or_shadow is empty"),
        ("country", ["Austria", "Austria", None], "row 2: country is empty"),
        ("labels", [["Pastures"], [None], []], "labels is empty"),
        ("patch_id", ["S2A_a", "x", "S2A_b"], "row 1: patch_id is 'x', which is not a patch name"),
        ("s1_name", ["S1A_a", "S1A_b", "S1A_c\n"], r"row 2: s1_name is 'S1A_c\\n', which is not a patch name"),
        ("s1_name", ["S1A_a", "S1A_b", "S1A_a"], "row 2: S1A_a .*twice"),
        ("split", ["train", "x" * 5000, "test"], "row 1: split is 'x{79}"),
    ],
)
def test_column_that_is_not_as_it_must_be_is_refused(path, name, values, message):
    pq.write_table(pa.table({**columns(), name: values}), path)
    for read in (read_metadata, lambda file: read_table_split(file, "train")):
        with pytest.raises(DataError, match=message) as refused:
            read(path)
        assert len(str(refused.value)) < 500


def test_text_that_is_no_utf_8_is_refused(path):
    table = pa.table(columns())
    text = pa.Array.from_buffers(pa.string(), 3, [None, *pa.array([b"a\xff", b"b", b"c"], pa.binary()).buffers()[1:]])
    pq.write_table(table.set_column(table.column_names.index("country"), "country", text), path)
    for read in (read_metadata, read_table_partners):
        with pytest.raises(DataError, match="not a readable parquet file"):
            read(path)


def test_pages_are_compared_with_their_checksums(path):
    pq.write_table(pa.table(columns()), path, write_page_checksum=True, compression="none", use_dictionary=False)
    content = path.read_bytes()
    assert content.count(b"_33UUP_2_1") >= 1
    path.write_bytes(content.replace(b"_33UUP_2_1", b"_33UUP_9_1"))
    with pytest.raises(DataError, match="not a readable parquet file"):
        read_metadata(path)
