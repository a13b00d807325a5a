"""Split lists are brought up to date together, or named as differing; nobody's list is lost."""

from __future__ import annotations

import pytest

from bigearthnet_cbir.data.split_writing import NOTE, require_writable, write_split, write_splits
from bigearthnet_cbir.data.splits import known_splits, read_split
from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.types import PatchPair

A, B, C, D = (PatchPair(f"S2A_MSIL2A_2017_{row}_1", f"S1A_IW_2017_{row}_1") for row in range(4))


def actions(states) -> dict[str, str]:
    return {state.path.stem: state.action for state in states}


def test_lists_that_are_missing_are_written(tmp_path):
    states = write_splits(tmp_path / "new", {"train": [A, B], "val": [C], "test": []})
    assert actions(states) == {"train": "written", "val": "written"}
    assert known_splits(tmp_path / "new") == {"train": [A, B], "val": [C]}
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [NOTE, "train.csv", "val.csv"]


def test_lists_of_this_command_grow(tmp_path):
    write_splits(tmp_path, {"train": [A], "val": [C]})
    for train in ([A, B], [D, A, B]):
        (state, _) = write_splits(tmp_path, {"train": train, "val": [C]})
        assert (state.action, state.there, state.pairs, state.only_there) == ("updated", len(train) - 1, len(train), 0)
        assert read_split(tmp_path / "train.csv") == train
    assert actions(write_splits(tmp_path, {"train": [D, A, B], "val": [C]})) == {"train": "kept", "val": "kept"}


def test_a_list_of_somebody_else_is_never_replaced(tmp_path):
    """A chosen part of an archive looks just like an old list."""
    write_split(tmp_path / "train.csv", [A])
    (state,) = write_splits(tmp_path, {"train": [A, B]})
    assert (state.action, state.only_there, state.only_here) == ("differs", 0, 1)
    assert "no record that this command wrote it" in state.reason
    assert read_split(tmp_path / "train.csv") == [A]
    write_split(tmp_path / "train.csv", [B, A])
    assert actions(write_splits(tmp_path, {"train": [A, B]})) == {"train": "kept"}
    assert read_split(tmp_path / "train.csv") == [B, A]


def test_a_list_that_was_edited_is_never_replaced(tmp_path):
    write_splits(tmp_path, {"train": [A, B, C]})
    write_split(tmp_path / "train.csv", [A, B])
    assert actions(write_splits(tmp_path, {"train": [A, B, C]})) == {"train": "differs"}
    assert read_split(tmp_path / "train.csv") == [A, B]


def test_a_pair_that_changed_its_split_is_in_one_list_only(tmp_path):
    """Lists belong together: updating val alone would put C into train and val."""
    write_splits(tmp_path, {"train": [A, C], "val": [B]})
    states = write_splits(tmp_path, {"train": [A], "val": [B, C], "test": [D]})
    assert actions(states) == {"train": "differs", "val": "differs", "test": "differs"}
    counts = [(state.there, state.only_there, state.only_here) for state in states]
    assert counts == [(2, 1, 0), (1, 0, 1), (None, 0, 1)]
    assert known_splits(tmp_path) == {"train": [A, C], "val": [B]}


def test_a_list_whose_split_is_empty_now_differs(tmp_path):
    write_splits(tmp_path, {"train": [A], "val": [B]})
    states = write_splits(tmp_path, {"train": [A], "val": []})
    assert actions(states) == {"train": "kept", "val": "differs"}


def test_a_file_that_is_no_list_differs_and_one_of_one_column_is_compared_by_its_names(tmp_path):
    (tmp_path / "train.csv").write_text("patch,partner\n")
    (tmp_path / "val.csv").write_text(f"{B.s2}\n")
    train, val = write_splits(tmp_path, {"train": [A], "val": [B]})
    assert (train.action, val.action) == ("differs", "kept")
    assert "not a split list" in train.reason
    assert (tmp_path / "train.csv").read_text() == "patch,partner\n"


@pytest.mark.parametrize("note", ["", "[1]", '{"train.csv": 3}', "{" * 100_000])
def test_a_broken_note_means_that_nothing_is_known(tmp_path, note):
    write_splits(tmp_path, {"train": [A]})
    (tmp_path / NOTE).write_text(note)
    assert actions(write_splits(tmp_path, {"train": [A, B]})) == {"train": "differs"}


def test_a_folder_that_cannot_be_written_is_refused_and_a_good_one_stays_empty(tmp_path):
    (tmp_path / "file").touch()
    for place in ("file", "file/inside"):
        with pytest.raises(ConfigError, match=r"--splits .*file.*: cannot be written .*; choose another folder"):
            require_writable(tmp_path / place)
    require_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
