"""What an encoding run is asked for, and what it tells at its end."""

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
    """What to encode, from where to where.

    Attributes:
        s1_root: folder of the Sentinel-1 patch folders (v1) or scenes (v2); may be absent in a dry run.
        s2_root: likewise for Sentinel-2.
        output_s1: LMDB folder for the Sentinel-1 patches; may be the same as output_s2.
        output_s2: LMDB folder for the Sentinel-2 patches.
        splits: folder that gets train.csv, val.csv and test.csv; see split_writing.write_splits for those it has.
        split_from: "official", a metadata.parquet, or a folder with split lists; None: see pair_sources.find_pairs.
        selection: which pairs are taken.
        fractions: shares of train, val and test where the source of pairs has no splits; the official ones' shares.
        seed: of that assignment.
        workers: processes that read and encode; 0 works in this process.
        dry_run: read lists only, write nothing.
        lists_only: write the split lists, read and write no pixels.
        progress: whether a progress bar may be drawn; there is none where stderr is not a terminal.
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
    """What an encoding run did.

    Attributes:
        splits: split -> the pairs in it that are in the stores (in a dry run: that would be read).
        labels: class -> number of pairs with it, where the labels are known.
        left_out: reason -> number of pairs that the selection did not take.
        skipped: patch name -> why its pair could not be read or paired.
        unplaced: Sentinel-2 names of pairs of which nothing tells whether both patches show one place.
        encoded: pairs written now.
        present: pairs that the stores already held whole.
        lists: what became of the split lists.
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
        """0, or 1 where a pair was skipped or a split list is not that of this run."""
        return 1 if self.skipped or any(state.action == "differs" for state in self.lists) else 0

    def skip(self, name: str, why: str) -> None:
        """Leave out what belongs to a patch, and say so in the log."""
        self.skipped[name] = why
        logger.warning("skipped %s: %s", name, why)


def describe(report: EncodeReport) -> str:
    """Return the table that ends a run: pairs per split and per class, and what was left out or skipped, and why."""
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
        lines += ["", "taken as they are paired (each is named in the log)"]
        lines.append(f"{len(report.unplaced):>9,}  neither names nor coordinates tell whether both show one place")
    return "\n".join(lines)


def describe_list(state: ListState) -> str:
    """Return one line on what became of a split list."""
    if state.action == "written":
        return f"wrote {state.path}, {state.pairs:,} pairs"
    if state.action == "updated":
        return f"brought {state.path} up to date, {state.there:,} to {state.pairs:,} pairs"
    if state.action == "kept":
        return f"{state.path} has these {state.pairs:,} pairs already"
    held = "is not written" if state.there is None else f"is left with its {state.there:,} pairs"
    return (
        f"{state.path} {held}: {state.only_there:,} only there, {state.only_here:,} only in this run; {state.reason}: "
        "remove the old lists to have them written anew, or choose another --splits"
    )


def _short(reason: str) -> str:
    """Return the part of an error that many patches share: without the file before it and the cure after it."""
    return re.sub(r"^\S*: ", "", reason).split(";")[0]
