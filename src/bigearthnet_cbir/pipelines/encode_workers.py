"""Reading patch folders and encoding their records in parallel, a pair at a time."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from bigearthnet_cbir.data import records
from bigearthnet_cbir.data.geotiff import read_s1_folder, read_s2_folder
from bigearthnet_cbir.data.patch_folders import read_notes
from bigearthnet_cbir.data.selection import NO_LABEL
from bigearthnet_cbir.errors import CbirError, DataError
from bigearthnet_cbir.types import PatchPair

_CHUNK: Final = 16
_WORTH_PROCESSES: Final = 1500
"""Fewer jobs are done in this process before others have started."""

_CHUNKS_PER_WORKER: Final = 3


class Job(NamedTuple):
    """One pair to read; labels None: its JSONs have them."""

    pair: PatchPair
    s2_folder: Path
    s1_folder: Path
    labels: tuple[str, ...] | None


class Outcome(NamedTuple):
    """What became of a job: either the two records and the labels, or why the pair is skipped."""

    pair: PatchPair
    s2_record: bytes = b""
    s1_record: bytes = b""
    labels: tuple[str, ...] = ()
    failure: str | None = None
    unlabelled: bool = False


def encode_pair(job: Job) -> Outcome:
    """Read both patches of a pair and encode them; a malformed patch is an outcome, not an error."""
    try:
        labels = job.labels
        if labels is None:
            labels = _labels(job)
        if not labels:
            return Outcome(job.pair, failure=f"{job.s2_folder}: {NO_LABEL}", unlabelled=True)
        s2_record = records.encode(read_s2_folder(job.s2_folder), labels)
        s1_record = records.encode(read_s1_folder(job.s1_folder), labels)
    except DataError as error:
        absent = next((folder for folder in (job.s2_folder, job.s1_folder) if not folder.is_dir()), None)
        failure = str(error) if absent is None else f"{absent}: this patch's folder is missing; download it"
        return Outcome(job.pair, failure=failure)
    return Outcome(job.pair, s2_record, s1_record, labels)


def _labels(job: Job) -> tuple[str, ...]:
    s1_notes = read_notes(job.s1_folder)
    if s1_notes.s2 is not None and s1_notes.s2 != job.pair.s2:
        raise DataError(
            f"{job.s1_folder}: its JSON pairs it with {s1_notes.s2}, the list with {job.pair.s2}; mend the list"
        )
    return read_notes(job.s2_folder).labels


def encode_pairs(jobs: Sequence[Job], workers: int) -> Iterator[Outcome]:
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
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_interrupts_to_the_parent) as pool:
        under_way: set[Future[list[Outcome]]] = set()
        try:
            while True:
                for chunk in islice(chunks, workers * _CHUNKS_PER_WORKER - len(under_way)):
                    under_way.add(pool.submit(_encode_chunk, chunk))
                if not under_way:
                    return
                finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield from future.result()
        except BrokenProcessPool as error:
            raise CbirError(
                "a worker process died, perhaps for lack of memory; run again with fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _encode_chunk(jobs: Sequence[Job]) -> list[Outcome]:
    return [encode_pair(job) for job in jobs]


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
