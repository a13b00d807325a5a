"""Options and report of an encoding run."""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.data.pair_filter import Selection
from bigearthnet_cbir.data.split_writing import ListState
from bigearthnet_cbir.data.splits import SPLITS
from bigearthnet_cbir.types import PatchPair

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodeOptions:
    """What to encode, with input and output folders.

    Attributes:
        s1_root: folder of the Sentinel-1 patch folders (v1) or scenes (v2); may be missing in a dry run.
        s2_root: the same for Sentinel-2.
        output_s1: LMDB folder for the Sentinel-1 patches; may be the same as output_s2.
        output_s2: LMDB folder for the Sentinel-2 patches.
        splits: folder for train.csv, val.csv and test.csv; see split_writing.write_splits for existing lists.
        split_from: "official", a metadata.parquet, or a folder with split lists; None: see pair_discovery.find_pairs.
        selection: filter of the pairs.
        fractions: shares of train, val and test if the source has no splits; the default is that of the official ones.
        seed: seed of that assignment.
        workers: processes that read and encode; 0 for none.
        dry_run: read lists only, write nothing.
        lists_only: write only the split lists, without reading or writing pixels.
        progress: whether to show a progress bar; never if stderr is not a terminal.
    """

    s1_root: Path | None = None
    s2_root: Path | None = None
    output_s1: Path | None = None
    output_s2: Path | None = None
    splits: Path | None = None
    split_from: str | None = None
    selection: Selection = field(default_factory=Selection)
    fractions: tuple[float, float, float] = (0.52, 0.24, 0.24)
    seed: int = 0
    workers: int = 0
    dry_run: bool = False
    lists_only: bool = False
    progress: bool = True


@dataclass
class EncodeReport:
    """Outcome of an encoding run.

    Attributes:
        splits: split -> its pairs in the stores (in a dry run: its selected pairs).
        labels: class -> number of pairs, if labels are known.
        left_out: reason -> number of excluded pairs.
        skipped: patch name -> why its pair could not be read or paired.
        unplaced: Sentinel-2 names of pairs whose locations cannot be compared.
        encoded: number of pairs written.
        present: number of pairs that the stores already had.
        lists: outcome for each split list.
        seconds: wall time.
    """

    splits: dict[str, list[PatchPair]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    labels: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    unplaced: list[str] = field(default_factory=list)
    encoded: int = 0
    present: int = 0
    lists: list[ListState] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0, or 1 if a pair was skipped or a split list differs."""
        return 1 if self.skipped or any(state.action == "differs" for state in self.lists) else 0

    def skip(self, name: str, why: str) -> None:
        """Record and log a skipped patch."""
        self.skipped[name] = why
        logger.warning("skipped %s: %s", name, why)


def describe(report: EncodeReport) -> str:
    """Return the final table: pairs per split and per class, and excluded and skipped pairs with reasons."""
    lines = [f"{split:<6}{len(pairs):>9,} pairs" for split, pairs in report.splits.items()]
    total = sum(len(pairs) for pairs in report.splits.values())
    lines.append(f"{'all':<6}{total:>9,} pairs")
    if report.labels:
        lines += ["", "pairs per class"]
        lines += [f"{report.labels[name]:>9,}  {name}" for name in CLASSES]
    if report.left_out:
        lines += ["", "left out"]
        lines += [f"{number:>9,}  {reason}" for reason, number in sorted(report.left_out.items())]
    if report.skipped:
        lines += ["", "skipped (each is named in the log)"]
        reasons = Counter(_short(reason) for reason in report.skipped.values())
        lines += [f"{number:>9,}  {reason}" for reason, number in reasons.most_common()]
    if report.unplaced:
        lines += ["", "encoded without a check of the location (each is named in the log)"]
        lines.append(f"{len(report.unplaced):>9,}  location is not in the names, the JSONs or the files")
    return "\n".join(lines)


def describe_list(state: ListState) -> str:
    """Return one line with the outcome for a split list."""
    if state.action == "written":
        return f"wrote {state.path}, {state.pairs:,} pairs"
    if state.action == "updated":
        return f"updated {state.path}, {state.there:,} to {state.pairs:,} pairs"
    if state.action == "kept":
        return f"{state.path} already has these {state.pairs:,} pairs"
    held = "is not written" if state.there is None else f"keeps its {state.there:,} pairs"
    return (
        f"{state.path} {held}: {state.only_there:,} only there, {state.only_here:,} only in this run; {state.reason}: "
        "remove the old lists to write new ones, or choose another --splits"
    )


def _short(reason: str) -> str:
    """Return an error message without the file name and the remedy, so that equal reasons can be counted."""
    return re.sub(r"^\S*: ", "", reason).split(";")[0]
