"""Parallel reading and encoding of pairs."""

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
"""Fewer jobs than this run in this process, because starting workers takes longer."""

_CHUNKS_PER_WORKER: Final = 3


class EncodeJob(NamedTuple):
    """A pair to encode.

    Attributes:
        pair: patch names.
        s2_folder: folder of the Sentinel-2 patch.
        s1_folder: folder of the Sentinel-1 patch.
        labels: 19-class names; None if the JSONs have them.
        stored: labels of a pair that is already stored; only its location is checked.
    """

    pair: PatchPair
    s2_folder: Path
    s1_folder: Path
    labels: tuple[str, ...] | None
    stored: tuple[str, ...] | None = None


class Outcome(NamedTuple):
    """Result of a job: the labels and, unless already stored, the two records; or the reason for skipping it."""

    pair: PatchPair
    s2_record: bytes = b""
    s1_record: bytes = b""
    labels: tuple[str, ...] = ()
    failure: str | None = None
    unlabelled: bool = False
    is_stored: bool = False
    is_placed: bool = True


def encode_pair(job: EncodeJob) -> Outcome:
    """Read both patches of a pair and encode them; a malformed patch is a result, not an error."""
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
        failure = str(error) if absent is None else f"{absent}: the folder of this patch is missing; download it"
        return Outcome(job.pair, failure=failure)
    return Outcome(job.pair, s2_record, s1_record, labels, is_placed=is_placed)


def _labels_and_place(job: EncodeJob) -> tuple[tuple[str, ...], bool]:
    """Return the labels of a pair, and whether its locations could be compared.

    Raises:
        DataError: a required JSON is missing or malformed, or names another partner, or the locations of the two
            patches differ.
    """
    is_told = names_agree(job.pair) is True
    if is_told and job.labels is not None:
        return job.labels, True
    s1_notes, s2_notes = None, None
    if job.labels is None:
        folders = (job.s1_folder, job.s2_folder)
        # The folders of a stored pair may be missing; existing ones must agree.
        is_needed = job.stored is None
        s1_notes, s2_notes = (read_notes(path) if is_needed or notes_file(path).exists() else None for path in folders)
    if s1_notes is not None and s1_notes.s2 not in (None, job.pair.s2):
        raise DataError(
            f"{job.s1_folder}: its JSON and the list disagree; its JSON pairs it with {s1_notes.s2}, the list with "
            f"{job.pair.s2}: correct the list"
        )
    labels = job.labels if s2_notes is None else s2_notes.labels
    return labels or (), is_told or _is_one_place(job, s1_notes, s2_notes)


def _is_one_place(job: EncodeJob, s1_notes: Notes | None, s2_notes: Notes | None) -> bool:
    """Return whether the coordinates (of the JSONs, else of the files) could be compared and agree."""
    one, two = (None if notes is None else notes.corner for notes in (s1_notes, s2_notes))
    one = one or corner_in_file(job.s1_folder / f"{job.pair.s1}_VV.tif")
    two = two or corner_in_file(job.s2_folder / f"{job.pair.s2}_B02.tif")
    if one is None or two is None:
        return False
    if not one.is_near(two):
        raise DataError(
            f"{job.s1_folder}: it and its partner have different locations; it is at {one}, {job.pair.s2} at {two}: "
            "correct the list, or download both again"
        )
    return True


def encode_pairs(jobs: Sequence[EncodeJob], workers: int) -> Iterator[Outcome]:
    """Yield the result of every job, in arbitrary order with workers.

    The number of chunks in flight is limited, so that a slow output disk does not fill the memory.

    Args:
        jobs: the pairs to encode.
        workers: number of processes; 0, or few jobs: encode in this process.

    Raises:
        CbirError: a worker process died, for example without memory.
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
