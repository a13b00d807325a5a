"""Reading patch folders and encoding their records in parallel, a pair at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from bigearthnet_cbir.data import records
from bigearthnet_cbir.data.geotiff import read_s1_folder, read_s2_folder
from bigearthnet_cbir.data.pair_filter import NO_LABEL
from bigearthnet_cbir.data.patch_folders import Notes, notes_file, read_notes
from bigearthnet_cbir.data.places import corner_in_file, names_agree
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.pipelines.worker_pool import worker_pool
from bigearthnet_cbir.types import PatchPair

_CHUNK: Final = 16
_WORTH_PROCESSES: Final = 1500
"""Fewer jobs are done in this process before others have started."""

_CHUNKS_PER_WORKER: Final = 3


class EncodeJob(NamedTuple):
    """One pair to read.

    Attributes:
        pair: the names.
        s2_folder: of the Sentinel-2 patch.
        s1_folder: of the Sentinel-1 patch.
        labels: 19-class names; None: its JSONs have them.
        stored: labels of a pair that the stores hold already: only its place is looked at.
    """

    pair: PatchPair
    s2_folder: Path
    s1_folder: Path
    labels: tuple[str, ...] | None
    stored: tuple[str, ...] | None = None


class Outcome(NamedTuple):
    """What became of a job: the labels and, unless they are stored already, the two records; or why it is skipped."""

    pair: PatchPair
    s2_record: bytes = b""
    s1_record: bytes = b""
    labels: tuple[str, ...] = ()
    failure: str | None = None
    unlabelled: bool = False
    is_stored: bool = False
    is_placed: bool = True


def encode_pair(job: EncodeJob) -> Outcome:
    """Read both patches of a pair and encode them; a malformed patch is an outcome, not an error."""
    try:
        labels, is_placed = _labels_and_place(job)
        if job.stored is not None:
            return Outcome(job.pair, labels=job.stored, is_stored=True, is_placed=is_placed)
        if not labels:
            return Outcome(job.pair, failure=f"{job.s2_folder}: {NO_LABEL}", unlabelled=True)
        s2_record = records.encode_record(read_s2_folder(job.s2_folder), labels)
        s1_record = records.encode_record(read_s1_folder(job.s1_folder), labels)
    except DataError as error:
        absent = next((folder for folder in (job.s2_folder, job.s1_folder) if not folder.is_dir()), None)
        failure = str(error) if absent is None else f"{absent}: this patch's folder is missing; download it"
        return Outcome(job.pair, failure=failure)
    return Outcome(job.pair, s2_record, s1_record, labels, is_placed=is_placed)


def _labels_and_place(job: EncodeJob) -> tuple[tuple[str, ...], bool]:
    """Return the labels of a pair, and whether something tells that both patches show one place.

    Raises:
        DataError: a JSON is malformed or missing where it has to be read, or names another partner, or the patches show
            two places.
    """
    is_told = names_agree(job.pair) is True
    if is_told and job.labels is not None:
        return job.labels, True
    s1_notes, s2_notes = None, None
    if job.labels is None:
        folders = (job.s1_folder, job.s2_folder)
        # Of a stored pair the folders may be gone; what is there must agree.
        is_needed = job.stored is None
        s1_notes, s2_notes = (read_notes(path) if is_needed or notes_file(path).exists() else None for path in folders)
    if s1_notes is not None and s1_notes.s2 not in (None, job.pair.s2):
        raise DataError(
            f"{job.s1_folder}: its JSON and the list disagree; its JSON pairs it with {s1_notes.s2}, the list with "
            f"{job.pair.s2}: mend the list"
        )
    labels = job.labels if s2_notes is None else s2_notes.labels
    return labels or (), is_told or _is_one_place(job, s1_notes, s2_notes)


def _is_one_place(job: EncodeJob, s1_notes: Notes | None, s2_notes: Notes | None) -> bool:
    """Return whether coordinates tell that both patches show one place, in the JSONs or else in the files."""
    one, two = (None if notes is None else notes.corner for notes in (s1_notes, s2_notes))
    one = one or corner_in_file(job.s1_folder / f"{job.pair.s1}_VV.tif")
    two = two or corner_in_file(job.s2_folder / f"{job.pair.s2}_B02.tif")
    if one is None or two is None:
        return False
    if not one.is_near(two):
        raise DataError(
            f"{job.s1_folder}: it and its partner show two places; it lies at {one}, {job.pair.s2} at {two}: mend the "
            "list, or download both again"
        )
    return True


def encode_pairs(jobs: Sequence[EncodeJob], workers: int) -> Iterator[Outcome]:
    """Yield the outcome of every job, in no particular order where there are workers.

    At most a few chunks per worker are under way, so that a slow disk on the writing side does not fill the memory.

    Args:
        jobs: the pairs to read.
        workers: processes; 0 reads in this one, and so do few jobs.

    Raises:
        CbirError: a worker process died, as when the machine is out of memory.
    """
    if workers == 0 or len(jobs) < _WORTH_PROCESSES:
        yield from map(encode_pair, jobs)
        return
    chunks = iter([jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK)])
    with worker_pool(workers) as pool:
        under_way: set[Future[list[Outcome]]] = set()
        while True:
            for chunk in islice(chunks, workers * _CHUNKS_PER_WORKER - len(under_way)):
                under_way.add(pool.submit(_encode_chunk, chunk))
            if not under_way:
                return
            finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for future in finished:
                yield from future.result()


def _encode_chunk(jobs: Sequence[EncodeJob]) -> list[Outcome]:
    return [encode_pair(job) for job in jobs]
