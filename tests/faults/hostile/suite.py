"""Damages the sound files of every reader, reads them, and counts what came of it."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random

from tests.faults.hostile.archives import ARCHIVES
from tests.faults.hostile.children import FAILED, OTHER, REFUSED, SAME, Ending, run_cases
from tests.faults.hostile.damage import damaged
from tests.faults.hostile.hdf5 import HDF5
from tests.faults.hostile.networks import NETWORKS
from tests.faults.hostile.patches import PATCHES
from tests.faults.hostile.subject import Subject, digest
from tests.faults.hostile.tables import TABLES

SUBJECTS: dict[str, Subject] = {subject.name: subject for subject in (*ARCHIVES, *PATCHES, *TABLES, *NETWORKS, *HDF5)}
_FOREIGN = (b"", bytes(8192), b"\x89HDF\r\n\x1a\n" + bytes(512), b"PK\x03\x04" + bytes(60), b"PAR1" * 8, b"a,b", b"{}")


@dataclass
class Counts:
    """What came of a reader's cases.

    Attributes:
        reader: its name.
        refused: one line that says why.
        same: read as if undamaged.
        other: read with other values that are valid, where the format cannot tell.
        failures: how to make each failed case again, and what happened.
    """

    reader: str
    refused: int = 0
    same: int = 0
    other: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """All cases."""
        return self.refused + self.same + self.other + len(self.failures)


def mutate_and_read(reader: str, seed: int, runs: int, only: Sequence[int] | None = None) -> Counts:
    """Damage the reader's files in `runs` ways drawn from the seed, and read each.

    Args:
        reader: a name in SUBJECTS.
        seed: with the number of a case it decides the damage.
        runs: number of cases.
        only: these cases instead.
    """
    subject = SUBJECTS[reader]
    counts = Counts(reader)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as place:
        cases = _Cases(subject, seed, Path(place))
        for ending in run_cases([-1], cases.build):
            if ending.end != SAME:
                raise RuntimeError(f"{reader}: the sound files: {ending.why}")
        for ending in run_cases(range(runs) if only is None else only, cases.run):
            _count(counts, ending, cases)
    return counts


def _count(counts: Counts, ending: Ending, cases: _Cases) -> None:
    if ending.end == REFUSED:
        counts.refused += 1
    elif ending.end == SAME:
        counts.same += 1
    elif ending.end == OTHER:
        counts.other += 1
    else:
        assert ending.end == FAILED
        again = f"--reader '{counts.reader}' --seed {cases.seed} --only {ending.case}"
        counts.failures.append(f"{again}: {cases.told(ending.case)}\n{ending.why}")


class _Cases:
    """The cases of one reader: each a folder of its own, damaged by the seed and its number."""

    def __init__(self, subject: Subject, seed: int, place: Path) -> None:
        self._subject = subject
        self.seed = seed
        self._place = place
        self._sound = place / "sound"

    def build(self, _: int) -> str:
        """Write the sound files; they must be read, and be valid."""
        self._sound.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._subject.build(self._sound)
        self._expected()
        return SAME

    @cache  # noqa: B019 (one object per run)
    def _expected(self) -> str:
        folder = self._place / f"expected-{os.getpid()}"
        shutil.copytree(self._sound, folder)
        value = self._subject.read(folder)
        self._subject.check(value)
        return digest(value)

    def run(self, case: int) -> str:
        """Damage, read, compare."""
        expected = self._expected()
        folder = self._place / f"case-{case}"
        try:
            told = self._damage(folder, case)
            (self._place / f"told-{case}").write_text(told, encoding="utf-8")
            value = self._subject.read(folder)
            self._subject.check(value)
            return SAME if digest(value) == expected else OTHER
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def told(self, case: int) -> str:
        """Return what was done to the files of a case."""
        path = self._place / f"told-{case}"
        return path.read_text(encoding="utf-8") if path.exists() else "not damaged"

    def _damage(self, folder: Path, case: int) -> str:
        random = Random(f"{self.seed} {self._subject.name} {case}")
        shutil.copytree(self._sound, folder)
        if self._subject.edit is not None and random.random() < self._subject.edits:
            return self._subject.edit(folder, random)
        path = random.choice(sorted(path for path in folder.glob(self._subject.targets) if path.is_file()))
        content = path.read_bytes()
        changed, told = damaged(content, random, self._subject.spans(path.name, content), _FOREIGN)
        path.unlink()
        path.write_bytes(changed)
        return f"{path.relative_to(folder)}: {told}"
