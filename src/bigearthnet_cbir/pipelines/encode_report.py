"""What an encoding run is asked for, and what it tells at its end."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.data.selection import Selection
from bigearthnet_cbir.data.splits import SPLITS
from bigearthnet_cbir.types import PatchPair


@dataclass(frozen=True)
class EncodeOptions:
    """What to encode, from where to where.

    Attributes:
        s1_root: folder of the Sentinel-1 patch folders (v1) or scenes (v2); may be absent in a dry run.
        s2_root: likewise for Sentinel-2.
        output_s1: LMDB folder for the Sentinel-1 patches; may be the same as output_s2.
        output_s2: LMDB folder for the Sentinel-2 patches.
        splits: folder that gets train.csv, val.csv and test.csv, as far as it does not have them.
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
        encoded: pairs written now.
        present: pairs that the stores already held whole.
        lists: split lists written now.
        seconds: wall time.
    """

    splits: dict[str, list[PatchPair]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    labels: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    encoded: int = 0
    present: int = 0
    lists: list[Path] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0, or 1 where a pair was skipped."""
        return 1 if self.skipped else 0


def describe(report: EncodeReport) -> str:
    """Return the table that ends a run: pairs per split and per class, and what was left out or skipped, and why."""
    lines = [f"{split:<6}{len(pairs):>9,} pairs" for split, pairs in report.splits.items()]
    total = sum(len(pairs) for pairs in report.splits.values())
    lines.append(f"{'all':<6}{total:>9,} pairs")
    if report.labels:
        lines += ["", "pairs per class"]
        lines += [f"{report.labels[name]:>9,}  {name}" for name in CLASSES]
    if report.left_out:
        lines += ["", "left out by the selection"]
        lines += [f"{number:>9,}  {reason}" for reason, number in sorted(report.left_out.items())]
    if report.skipped:
        lines += ["", "skipped, because unreadable (each is named in the log)"]
        reasons = Counter(_short(reason) for reason in report.skipped.values())
        lines += [f"{number:>9,}  {reason}" for reason, number in reasons.most_common()]
    return "\n".join(lines)


def _short(reason: str) -> str:
    """Return the part of an error that many patches share: without the file before it and the cure after it."""
    return re.sub(r"^\S*: ", "", reason).split(";")[0]
