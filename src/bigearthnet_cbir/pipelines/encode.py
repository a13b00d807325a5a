"""Encoding of patch folders into patch stores, with unchanged values."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from bigearthnet_cbir.data import records
from bigearthnet_cbir.data.pair_filter import NO_LABEL, PairInfo
from bigearthnet_cbir.data.patch_folders import PatchFolders, read_notes
from bigearthnet_cbir.data.patch_store import PatchWriter
from bigearthnet_cbir.data.places import names_agree
from bigearthnet_cbir.data.split_writing import require_writable, write_splits
from bigearthnet_cbir.data.splits import SPLITS, check_disjoint
from bigearthnet_cbir.errors import ConfigError, DataError
from bigearthnet_cbir.files import folder_lock
from bigearthnet_cbir.pipelines.encode_types import EncodeOptions, EncodeReport
from bigearthnet_cbir.pipelines.encode_workers import EncodeJob, Outcome, encode_pairs
from bigearthnet_cbir.pipelines.pair_checks import count_unlisted, sound_pairs
from bigearthnet_cbir.pipelines.pair_discovery import PairSource, assign_splits, find_pairs
from bigearthnet_cbir.types import PatchPair

logger = logging.getLogger(__name__)


def encode(options: EncodeOptions | None = None, **more: Any) -> EncodeReport:
    """Encode the pairs that the options select, and return a report.

    The same call continues an interrupted run: valid existing records are kept.

    Args:
        options: what to encode, with input and output folders.
        more: fields of EncodeOptions, instead of `options` or replacing some of its fields.

    Raises:
        ConfigError: the options contradict one another or lack a folder.
        DataError: a folder or list is missing or malformed. A malformed patch is skipped and reported instead.
        LockedError: another process is writing to the archive, or to the folder of the lists.
    """
    options = replace(options or EncodeOptions(), **more)
    _check(options)
    started = time.monotonic()
    s1 = None if options.s1_root is None else PatchFolders(options.s1_root, "S1")
    s2 = None if options.s2_root is None else PatchFolders(options.s2_root, "S2")
    source = find_pairs(options.split_from, s1, s2, options.selection)
    report = EncodeReport()
    for name, why in source.unreadable.items():
        report.skip(name, why)
    taken = _taken(options, source, report)
    if s2 is not None and source.has_splits:
        count_unlisted(source.pairs, s2, report)
    with _lists(options):
        if options.dry_run or options.lists_only:
            for pair in taken:
                _preview(report, pair, s2)
        elif s1 is not None and s2 is not None:
            _encode(options, taken, s1, s2, report)
        rank = {pair.s2: number for number, pair in enumerate(taken)}
        for pairs in report.splits.values():  # workers finish in any order; lists keep the order of the source
            pairs.sort(key=lambda pair: rank[pair.s2])
        if options.splits is not None and not options.dry_run:
            report.lists = write_splits(options.splits, report.splits)
    report.seconds = time.monotonic() - started
    return report


def _lists(options: EncodeOptions) -> AbstractContextManager[None]:
    """Lock the folder of the split lists, which encoders of different archives may share."""
    if options.splits is None or options.dry_run:
        return nullcontext()
    require_writable(options.splits)
    return folder_lock(options.splits, "encode")


def _check(options: EncodeOptions) -> None:
    if any(fraction < 0 for fraction in options.fractions) or abs(sum(options.fractions) - 1) > 1e-6:
        raise ConfigError(f"--fractions {options.fractions}: the shares of train, val and test must sum to 1")
    if options.dry_run:
        return
    if options.lists_only:
        if options.splits is None:
            raise ConfigError("--lists-only needs --splits FOLDER for the split lists")
        return
    if options.s1_root is None or options.s2_root is None:
        raise ConfigError("--s1-root and --s2-root are both needed: the folders of the Sentinel-1 and -2 patches")
    if options.output_s1 is None or options.output_s2 is None:
        raise ConfigError("--output FOLDER is needed, or --output-s1 and --output-s2 for a store per sensor")


def _taken(options: EncodeOptions, source: PairSource, report: EncodeReport) -> list[PairInfo]:
    """Return the pairs to read, each with a split, and count the excluded ones."""
    options.selection.check(source.pairs, source.name)
    taken, report.left_out = options.selection.choose(source.pairs)
    taken = sound_pairs(taken, report)
    if source.has_splits:
        without = sum(pair.split is None for pair in taken)
        if without:
            report.left_out["in no split"] = without
        taken = [pair for pair in taken if pair.split is not None]
        check_disjoint({split: [PatchPair(p.s2, p.s1) for p in taken if p.split == split] for split in SPLITS})
    if not taken and not report.skipped:
        reasons = ", ".join(f"{number:,}: {reason}" for reason, number in report.left_out.items())
        raise DataError(
            f"{source.name}: none of {len(source.pairs):,} pairs is selected ({reasons}); relax the filters"
        )
    return taken if source.has_splits else assign_splits(taken, options.fractions, options.seed)


def _preview(report: EncodeReport, pair: PairInfo, s2: PatchFolders | None) -> None:
    """Count a pair from its lists, and from its JSON if the folders are given; no pixels are read."""
    labels = pair.labels
    if labels is None and s2 is not None and not s2.is_v2:
        try:
            labels = read_notes(s2.folder(pair.s2)).labels
        except DataError as error:
            report.skip(pair.s2, str(error))
            return
    if labels == ():
        report.left_out[NO_LABEL] = report.left_out.get(NO_LABEL, 0) + 1
    else:
        _count(report, pair, labels or ())


def _encode(
    options: EncodeOptions, taken: Sequence[PairInfo], s1: PatchFolders, s2: PatchFolders, report: EncodeReport
) -> None:
    """Encode the selected pairs into the stores; failures are reported by name."""
    assert options.output_s1 is not None
    assert options.output_s2 is not None
    info = {pair.s2: pair for pair in taken}
    same = os.path.realpath(options.output_s1) == os.path.realpath(options.output_s2)
    with PatchWriter(options.output_s2) as s2_writer:
        s1_writer = s2_writer if same else PatchWriter(options.output_s1)
        try:
            jobs = []
            for pair in taken:
                labels = _stored_labels(s2_writer, s1_writer, pair)
                names = PatchPair(pair.s2, pair.s1)
                if labels is not None and names_agree(names):
                    report.present += 1
                    _count(report, pair, labels)
                else:
                    given = pair.labels if s2.is_v2 else None
                    jobs.append(EncodeJob(names, s2.folder(pair.s2), s1.folder(pair.s1), given, labels))
            _require_labels(jobs, s2)
            outcomes = encode_pairs(jobs, options.workers)
            hidden = None if options.progress else True  # None: no bar if stderr is not a terminal
            for outcome in tqdm(outcomes, "encoding", len(jobs), unit="pair", disable=hidden):
                _store(outcome, info[outcome.pair.s2], s2_writer, s1_writer, report)
        finally:
            if s1_writer is not s2_writer:
                s1_writer.close()


def _stored_labels(s2_writer: PatchWriter, s1_writer: PatchWriter, pair: PairInfo) -> tuple[str, ...] | None:
    """Return the labels of a pair that both stores have completely, or None if it must be encoded (again)."""
    s2_record, s1_record = s2_writer.record(pair.s2), s1_writer.record(pair.s1)
    if s2_record is None or s1_record is None:
        return None
    try:
        records.decode(s1_record)
        return records.decode(s2_record).labels
    except DataError:
        return None


def _require_labels(jobs: Sequence[EncodeJob], s2: PatchFolders) -> None:
    lacking = [job.pair.s2 for job in jobs if s2.is_v2 and job.labels is None and job.stored is None]
    if lacking:
        raise DataError(
            f"{s2.root}: no metadata.parquet in or beside it has the labels of {len(lacking):,} pairs "
            f"(the first: {lacking[0]}); put the one of BigEarthNet v2 there"
        )


def _store(
    outcome: Outcome, info: PairInfo, s2_writer: PatchWriter, s1_writer: PatchWriter, report: EncodeReport
) -> None:
    if outcome.unlabelled:
        report.left_out[NO_LABEL] = report.left_out.get(NO_LABEL, 0) + 1
    elif outcome.failure is not None:
        report.skip(outcome.pair.s2, outcome.failure)
    else:
        if not outcome.is_stored:
            s2_writer.write_record(outcome.pair.s2, outcome.s2_record)
            s1_writer.write_record(outcome.pair.s1, outcome.s1_record)
        report.encoded += not outcome.is_stored
        report.present += outcome.is_stored
        if not outcome.is_placed:
            report.unplaced.append(outcome.pair.s2)
            logger.warning(
                "%s: the location of %s cannot be compared, because coordinates are missing",
                outcome.pair.s2,
                outcome.pair.s1,
            )
        _count(report, info, outcome.labels)


def _count(report: EncodeReport, info: PairInfo, labels: tuple[str, ...]) -> None:
    report.splits[info.split or SPLITS[0]].append(PatchPair(info.s2, info.s1))
    report.labels.update(labels)
