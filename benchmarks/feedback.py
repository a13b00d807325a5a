"""What marks give: F1@10 after 0, 1, 2 and 3 rounds of five simulated marks, with intervals.

    python benchmarks/feedback.py --filepath logs/demo/default

The run needs an index of all three splits (project/index.py). Every validation patch with labels asks. In each round
the five nearest training patches that are not marked yet are marked: as wanted where their labels agree with the
query's (intersection over union of 0.5 or more), else as unwanted; the query itself counts as wanted. What is scored
is the test split, of which no patch is ever marked, so that a round gains nothing from having seen the answers (test
and control groups: Chang, Cirillo & Razon 1971, in Salton, The SMART Retrieval System).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
from hardware import write_results

from bigearthnet_cbir.evaluation.bootstrap import headline_intervals, paired_differences
from bigearthnet_cbir.evaluation.headline_metrics import figures, query_columns
from bigearthnet_cbir.pipelines.query import mark_vector
from bigearthnet_cbir.query.feedback import LEAST_MARKS
from bigearthnet_cbir.query.filters import Filters
from bigearthnet_cbir.query.find import find, query_vector
from bigearthnet_cbir.query.index import Index, open_index

ROUNDS: Final = 3
MARKS: Final = 5
AGREEING: Final = 0.5
DIRECTIONS: Final = (("fused", "fused"), ("s2", "s2"), ("s1", "s2"))
LEARN, SCORE = Filters(splits=("train",)), Filters(splits=("test",))
METRIC: Final = "F1@10"


def agree(index: Index, one: int, two: int) -> bool:
    """Return whether the labels of two patches agree."""
    left, right = index.labels[one].astype(bool), index.labels[two].astype(bool)
    return bool((left & right).sum() >= AGREEING * max((left | right).sum(), 1))


class Session:
    """One user with one query: shows results, marks the next five, asks again."""

    def __init__(self, index: Index, asks: int, sides: tuple[str, str], method: str) -> None:
        self._index, self._asks, self._sides, self._method = index, asks, sides, method
        self._wanted: list[int] = [asks]
        self._unwanted: list[int] = []

    def vector(self) -> Any:
        """Return the query as the marks have made it."""
        if len(self._wanted) == 1 and not self._unwanted:
            return query_vector(self._index, self._asks, *self._sides)
        enough = min(len(self._wanted), len(self._unwanted)) >= LEAST_MARKS
        method = "logistic" if self._method == "logistic" and enough else "rocchio"
        return mark_vector(self._index, self._wanted, self._unwanted, *self._sides, method, "cosine")

    def mark(self) -> None:
        """Mark the nearest training patches that are not marked yet."""
        marked = [*self._wanted, *self._unwanted]
        shown = find(self._index, self.vector(), archive=self._sides[1], distance="cosine", k=MARKS, filters=LEARN,
                     asked=marked).indices  # fmt: skip
        for position in shown.tolist():
            (self._wanted if agree(self._index, self._asks, position) else self._unwanted).append(position)

    def score(self) -> Any:
        """Return the ten nearest patches of the test split."""
        return find(self._index, self.vector(), archive=self._sides[1], distance="cosine", k=10, filters=SCORE).indices


def measure(index: Index, sides: tuple[str, str], method: str) -> dict[str, Any]:
    """Return one line of the table."""
    labelled = index.labels.any(axis=1)
    queries = np.flatnonzero(index.catalogue.split.is_in(["val"]) & labelled)
    sessions = [Session(index, int(position), sides, method) for position in queries]
    columns = []
    for number in range(ROUNDS + 1):
        if number:
            for session in sessions:
                session.mark()
        found = np.array([session.score() for session in sessions])
        columns.append(query_columns(index.labels[queries], np.asarray(index.labels), found))
    line: dict[str, Any] = {"direction": " -> ".join(sides), "method": method, "queries": len(queries)}
    for number, values in enumerate(columns):
        low, high = headline_intervals(values)[METRIC]
        line[f"round {number}"] = f"{figures(values.mean(axis=0))[METRIC]:.3f} [{low:.3f}, {high:.3f}]"
    gain = paired_differences(columns[-1], columns[0])[METRIC]
    line["gain of round 3"] = f"{gain.value:+.3f} [{gain.lower:+.3f}, {gain.upper:+.3f}]"
    return line


def main() -> None:
    """Measure every direction and method, and write benchmarks/results/feedback.*."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filepath", type=Path, required=True, metavar="RUN", help="run folder with an index")
    index = open_index(parser.parse_args().filepath)
    write_results(
        "feedback", [measure(index, sides, method) for sides in DIRECTIONS for method in ("rocchio", "logistic")]
    )


if __name__ == "__main__":
    main()
