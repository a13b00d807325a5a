"""Damaged files of every reader: refused in one line, or read with values that the format cannot tell from good."""

import os

import pytest
from tests.faults.conftest import RUNS, SEED
from tests.faults.hostile.suite import SUBJECTS, mutate_and_read
from tests.faults.tally import Tally, Tried

CASES = 24
"""Damaged files of each reader where --runs is 1; a slow reader gets fewer."""


@pytest.mark.parametrize("reader", SUBJECTS)
def test_damaged_files_are_refused_or_read_as_they_are(reader: str, tally: Tally) -> None:
    runs = max(6, int(os.environ.get(RUNS, "1")) * CASES // SUBJECTS[reader].cost)
    counts = mutate_and_read(reader, int(os.environ.get(SEED, "0")), runs)
    for number in range(counts.tried):
        problem = counts.failures[number] if number < len(counts.failures) else ""
        tally.add(Tried("read", f"damaged file: {reader}", problem, lost=bool(problem)))
    assert counts.refused > 0, "no damage was noticed at all"
    assert not counts.failures, "\n".join(counts.failures)
