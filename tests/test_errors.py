"""Errors are also what Python itself would raise, and keep their one line."""

import pickle
from pathlib import Path

import pytest

from bigearthnet_cbir import errors
from bigearthnet_cbir.config import load_config, parse_config
from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.data.records import decode
from bigearthnet_cbir.data.splits import read_split
from bigearthnet_cbir.storage.features import read_labels
from bigearthnet_cbir.storage.results import read_results


@pytest.mark.parametrize(
    "call", [load_config, read_split, read_labels, read_results, lambda path: len(PatchStore(path))]
)
def test_a_missing_file_is_a_file_not_found_error_and_ours(call, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing") as found:
        call(tmp_path / "missing")
    assert isinstance(found.value, errors.CbirError)


def test_a_wrong_value_is_a_value_error_and_ours() -> None:
    with pytest.raises(ValueError, match="is missing") as found:
        parse_config({})
    assert isinstance(found.value, errors.ConfigError)


def test_a_message_is_not_wrapped_by_the_handlers_of_other_value_errors(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (1 << 24))
    with pytest.raises(errors.ConfigError, match="is larger than") as found:
        load_config(large)
    assert "cannot be read" not in str(found.value)
    header = b'{"B02":{"dtype":"U16","shape":[3,3],"data_offsets":[0,18]}}'
    with pytest.raises(errors.DataError, match="not 120x120") as refused:
        decode(len(header).to_bytes(8, "little") + header + bytes(18))
    assert "malformed" not in str(refused.value)


@pytest.mark.parametrize("kind", [errors.MissingDataError, errors.MissingCheckpointError, errors.SearchError])
def test_an_error_travels_between_processes(kind: type[errors.CbirError]) -> None:
    again = pickle.loads(pickle.dumps(kind("one line")))
    assert (type(again), str(again)) == (kind, "one line")
