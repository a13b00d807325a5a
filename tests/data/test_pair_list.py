"""Lists of names, pairs and labels as arrays: they behave as lists and dictionaries do, and hold no objects."""

from __future__ import annotations

import gc
import pickle
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigearthnet_cbir.data.dataset import BigEarthNetMM
from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.data.pair_list import LabelTable, Names, PairList
from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.data.splits import read_split
from bigearthnet_cbir.types import PatchPair

PAIRS = [PatchPair(f"S2A_MSIL2A_20170613T101031_{row}_48", f"S1A_20170613T165043_33UUP_{row}_48") for row in range(7)]


@given(st.lists(st.tuples(st.text(), st.text()), max_size=8), st.integers(-9, 9), st.slices(8))
@settings(deadline=None)
def test_it_behaves_as_the_list_of_the_same_pairs(names, position, part):
    expected = [PatchPair(*pair) for pair in names]
    pairs = PairList.of(expected)
    assert (list(pairs), len(pairs), bool(pairs)) == (expected, len(expected), bool(expected))
    assert pairs == expected
    assert expected == pairs
    assert pairs == pickle.loads(pickle.dumps(pairs))
    assert pairs[part] == expected[part]
    assert list(reversed(pairs)) == expected[::-1]
    assert expected + PAIRS == pairs + PAIRS == PairList.of(pairs) + PairList.of(PAIRS)
    assert PAIRS + pairs == PAIRS + expected
    assert (PAIRS[0] in pairs) == (PAIRS[0] in expected)
    if -len(expected) <= position < len(expected):
        assert pairs[position] == pairs[np.int64(position)] == expected[position]
        assert isinstance(pairs[position], PatchPair)
    else:
        with pytest.raises(IndexError, match=f"index {position} "):
            pairs[position]


def test_lists_that_differ_are_not_equal():
    pairs = PairList.of(PAIRS)
    assert pairs != PAIRS[:-1]
    assert pairs != PAIRS[::-1]
    assert pairs != PairList.of(PAIRS[:-1])
    assert pairs != "S2A"
    assert pairs != 3
    assert Names(["ab", "c"]) != Names(["a", "bc"]), "where one name ends matters"
    assert Names(["ab", "c"]) == ["ab", "c"]


@given(st.dictionaries(st.text(), st.sets(st.sampled_from(CLASSES)), max_size=8), st.text())
@settings(deadline=None)
def test_a_label_table_behaves_as_the_dictionary(labels, other):
    expected = {name: tuple(sorted(found, key=CLASSES.index)) for name, found in labels.items()}
    table = LabelTable.of(expected)
    assert table == expected
    assert list(table) == list(expected)
    assert list(table.items()) == list(expected.items())
    assert len(table.items()) == len(expected)
    assert all(item in table.items() for item in expected.items())
    assert pickle.loads(pickle.dumps(table)) == expected
    assert table.get(other) == expected.get(other)
    assert (other in table) == (other in expected)


def test_names_with_the_same_hash_are_told_apart():
    one, two = "plumless", "buckeroo"
    assert zlib.crc32(one.encode()) == zlib.crc32(two.encode()), "or the test shows nothing"
    table = LabelTable.of({one: CLASSES[:1], "x": CLASSES[:2], two: CLASSES[2:]})
    assert (table[one], table[two], table.get("y")) == (CLASSES[:1], CLASSES[2:], None)
    assert "plumless" not in LabelTable.of({two: ()})


def _objects(*roots: object) -> int:
    """How many objects the garbage collector's and the instances' references reach, classes and modules left out."""
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type):
            continue
        seen.add(id(item))
        if isinstance(item, list | tuple | dict | set) or type(item).__module__.startswith("bigearthnet_cbir"):
            waiting += gc.get_referents(item)
    return len(seen)


def test_what_a_worker_gets_does_not_grow_in_objects_with_the_list(archives, tmp_path):
    """Counting references is writing: each object of a list costs every forked worker its page."""
    lines = [f"S2A_{number},S1A_{number}\n" for number in range(5_000)]
    (tmp_path / "train.csv").write_text("".join(lines))
    pairs = read_split(tmp_path / "train.csv")
    table = LabelTable.of({pair.s2: CLASSES[:2] for pair in pairs})
    store = PatchStore(archives["rico"].s2, table)
    dataset = BigEarthNetMM([], store, store)
    dataset.pairs = pairs
    assert _objects(list(pairs)) > 5_000, "the count sees a list's objects"
    assert _objects(dataset) < 100


def test_the_dataset_keeps_given_lists_as_arrays(archives, real_pairs):
    store = PatchStore(archives["rico"].s2)
    dataset = BigEarthNetMM(real_pairs.pairs, store, store)
    assert isinstance(dataset.pairs, PairList)
    assert dataset.pairs == real_pairs.pairs
