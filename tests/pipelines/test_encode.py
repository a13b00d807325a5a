"""Encoding: real folders in, the same values and labels out, and nothing lost when a patch is broken."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import lmdb
import numpy as np
import psutil
import pytest
from tests.test_files import hold

from bigearthnet_cbir.cli.encode import main
from bigearthnet_cbir.data.geotiff import read_s1_folder, write_s1_folder
from bigearthnet_cbir.data.official_splits import package_folder
from bigearthnet_cbir.data.pair_filter import PairInfo, Selection
from bigearthnet_cbir.data.patch_store import PatchStore, PatchWriter
from bigearthnet_cbir.data.split_writing import write_split
from bigearthnet_cbir.data.splits import known_splits, read_split
from bigearthnet_cbir.errors import CbirError, LockedError
from bigearthnet_cbir.pipelines import encode_workers
from bigearthnet_cbir.pipelines.encode import encode
from bigearthnet_cbir.pipelines.encode_types import EncodeOptions
from bigearthnet_cbir.pipelines.pair_discovery import assign_splits
from bigearthnet_cbir.types import PatchPair

ROOT = Path(__file__).resolve().parents[2]


def options_for(real_pairs, tmp_path, **changes) -> EncodeOptions:
    store = tmp_path / "store.lmdb"
    given = {"s1_root": real_pairs.s1_root, "s2_root": real_pairs.s2_root, "output_s1": store, "output_s2": store}
    return EncodeOptions(**{**given, "splits": tmp_path / "splits", **changes})


def arguments_for(real_pairs, tmp_path, *more: str) -> list[str]:
    roots = ["--s1-root", str(real_pairs.s1_root), "--s2-root", str(real_pairs.s2_root)]
    return [*roots, "--output", str(tmp_path / "store.lmdb"), "--workers", "0", *more]


def copy_of(real_pairs, tmp_path):
    """The six pairs where a test may break them."""
    return real_pairs._replace(
        s1_root=Path(shutil.copytree(real_pairs.s1_root, tmp_path / "S1")),
        s2_root=Path(shutil.copytree(real_pairs.s2_root, tmp_path / "S2")),
    )


def assert_holds(store: Path, names, true_patches) -> None:
    with PatchStore(store) as opened:
        for name in names:
            patch = opened.read(name)
            assert patch.labels == true_patches[name].labels
            assert patch.bands.keys() == true_patches[name].bands.keys()
            for band, pixels in true_patches[name].bands.items():
                np.testing.assert_array_equal(patch.bands[band], pixels)
                assert patch.bands[band].dtype == pixels.dtype


@pytest.mark.parametrize("one_store", [True, False])
def test_every_pixel_and_label_equals_the_geotiffs(real_pairs, true_patches, tmp_path, one_store):
    s1 = tmp_path / ("store.lmdb" if one_store else "s1.lmdb")
    report = encode(options_for(real_pairs, tmp_path, output_s1=s1))
    assert (report.encoded, report.skipped, report.exit_code) == (6, {}, 0)
    assert_holds(tmp_path / "store.lmdb", [pair.s2 for pair in real_pairs.pairs], true_patches)
    assert_holds(s1, [pair.s1 for pair in real_pairs.pairs], true_patches)
    with PatchStore(tmp_path / "store.lmdb") as store:
        assert len(store) == (12 if one_store else 6)
    listed = known_splits(tmp_path / "splits")
    assert sorted(pair for pairs in listed.values() for pair in pairs) == sorted(real_pairs.pairs)
    assert [len(listed[split]) for split in ("train", "val", "test")] == [3, 2, 1]


def test_worker_processes_write_the_same_store(real_pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(encode_workers, "_CHUNK", 2)
    monkeypatch.setattr(encode_workers, "_WORTH_PROCESSES", 0)
    contents = []
    for workers in (0, 2):
        folder = tmp_path / str(workers)
        encode(options_for(real_pairs, folder, workers=workers))
        with PatchStore(folder / "store.lmdb") as store:
            contents.append(
                {name: store.read(name).bands["VV" if name[1] == "1" else "B02"].sum() for name in store.names()}
            )
        contents.append({path.name: path.read_text() for path in (folder / "splits").iterdir()})
    assert contents[:2] == contents[2:]


def test_v2_folders_take_pairs_labels_and_splits_from_the_parquet(real_pairs, true_patches, archives, tmp_path):
    """The same six patches laid out as v2 (two levels, no JSON): same pixels, same labels, validation is val."""
    for sensor, root in (("S1", real_pairs.s1_root), ("S2", real_pairs.s2_root)):
        for folder in root.iterdir():
            product = folder.name.rsplit("_", 3 if sensor == "S1" else 2)[0]
            target = tmp_path / f"BigEarthNet-{sensor}" / product / folder.name
            shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.json"))
    shutil.copy(archives["rico"].parquet, tmp_path / "metadata.parquet")
    roots = {"s1_root": tmp_path / "BigEarthNet-S1", "s2_root": tmp_path / "BigEarthNet-S2"}
    report = encode(options_for(real_pairs, tmp_path, **roots))
    assert (report.encoded, report.skipped) == (6, {})
    assert_holds(tmp_path / "store.lmdb", [name for pair in real_pairs.pairs for name in pair], true_patches)
    assert read_split(tmp_path / "splits" / "val.csv") == real_pairs.pairs[3:4]
    (tmp_path / "metadata.parquet").unlink()
    with pytest.raises(CbirError, match=r"pairs and labels are in metadata\.parquet"):
        encode(options_for(real_pairs, tmp_path, **roots))


def test_published_v2_folders_are_encoded_as_rico_hdl_has_them(samples, tmp_path):
    v2 = samples / "bigearthnet-v2"
    report = encode(
        EncodeOptions(v2 / "BigEarthNet-S1", v2 / "BigEarthNet-S2", tmp_path / "a", tmp_path / "a", tmp_path / "splits")
    )
    assert report.encoded == 6
    assert len(report.skipped) == 12  # the sample has the pixels of 6 of the 18 pairs in its table
    with PatchStore(tmp_path / "a") as ours, PatchStore(v2 / "BigEarthNet-V2-LMDB") as theirs:
        assert len(ours) == 12
        for name in ours.names():
            expected = theirs.read(name).bands
            assert ours.read(name).bands.keys() == expected.keys()
            assert all(np.array_equal(pixels, expected[band]) for band, pixels in ours.read(name).bands.items())


def test_a_broken_patch_is_skipped_by_name_and_nothing_else_is_lost(real_pairs, true_patches, tmp_path, capsys, caplog):
    broken = copy_of(real_pairs, tmp_path)
    no_band, misshapen, no_json, absent, fine, wrong_pair = broken.pairs
    (broken.s2_root / no_band.s2 / f"{no_band.s2}_B11.tif").unlink()
    vv = broken.s1_root / misshapen.s1 / f"{misshapen.s1}_VV.tif"
    vv.write_bytes(vv.read_bytes()[:30_000])
    (broken.s2_root / no_json.s2 / f"{no_json.s2}_labels_metadata.json").unlink()
    shutil.rmtree(broken.s2_root / absent.s2)
    path = broken.s1_root / wrong_pair.s1 / f"{wrong_pair.s1}_labels_metadata.json"
    write_split(tmp_path / "lists" / "train.csv", broken.pairs)
    path.write_text(path.read_text().replace(wrong_pair.s2, fine.s2))
    code = main(
        arguments_for(broken, tmp_path, "--split-from", str(tmp_path / "lists"), "--splits", str(tmp_path / "new"))
    )
    assert code == 1
    assert read_split(tmp_path / "new" / "train.csv") == [fine]
    assert read_split(tmp_path / "lists" / "train.csv") == broken.pairs
    assert_holds(tmp_path / "store.lmdb", fine, true_patches)
    assert len(PatchStore(tmp_path / "store.lmdb")) == 2
    for pair, reason in (
        (no_band, "_B11.tif: this band is missing"),
        (misshapen, "_VV.tif: not a readable GeoTIFF"),
        (no_json, "JSON is missing"),
        (absent, "is missing; download it"),
        (wrong_pair, f"its JSON pairs it with {fine.s2}"),
    ):
        assert any(pair.s2 in line and reason in line for line in caplog.messages), reason
    assert "        1  this band is missing" in capsys.readouterr().out


def renamed_list(pairs, tmp_path) -> list[str]:
    """Arguments for a list of these pairs, and for another folder that gets the lists of what was encoded."""
    write_split(tmp_path / "lists" / "train.csv", pairs)
    return ["--split-from", str(tmp_path / "lists"), "--splits", str(tmp_path / "new")]


def test_lists_grow_with_the_archive_and_the_table_shows_what_is_on_the_disk(real_pairs, tmp_path, capsys):
    copy = copy_of(real_pairs, tmp_path)
    late = copy.s2_root / copy.pairs[0].s2 / f"{copy.pairs[0].s2}_B02.tif"
    late.rename(tmp_path / "late.tif")
    arguments = arguments_for(copy, tmp_path, *renamed_list(copy.pairs, tmp_path))
    assert main(arguments) == 1
    assert f"wrote {tmp_path / 'new' / 'train.csv'}, 5 pairs" in capsys.readouterr().out
    (tmp_path / "late.tif").rename(late)
    assert main(arguments) == 0
    assert f"updated {tmp_path / 'new' / 'train.csv'}, 5 to 6 pairs" in capsys.readouterr().out
    assert read_split(tmp_path / "new" / "train.csv") == copy.pairs
    assert main(arguments) == 0
    assert "already has these 6 pairs" in capsys.readouterr().out


def test_a_list_that_differs_is_named_and_the_exit_code_says_so(real_pairs, tmp_path, capsys):
    splits = tmp_path / "splits"
    assert main(arguments_for(real_pairs, tmp_path, "--splits", str(splits))) == 0
    before = {path.name: path.read_bytes() for path in splits.iterdir()}
    season = ("--seasons", "summer", "--splits", str(splits))
    capsys.readouterr()
    assert main(arguments_for(real_pairs, tmp_path, *season)) == 1
    printed = capsys.readouterr().out
    assert f"{splits / 'train.csv'} keeps its 3 pairs: " in printed
    assert "wrote" not in printed
    assert {path.name: path.read_bytes() for path in splits.iterdir()} == before


def test_a_splits_folder_that_cannot_be_written_is_told_before_any_patch_is_read(real_pairs, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(arguments_for(real_pairs, tmp_path, "--splits", str(tmp_path / "file" / "splits"))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --splits {tmp_path / 'file' / 'splits'}: cannot be written")
    assert not (tmp_path / "store.lmdb").exists()


def test_two_sentinel_1_patches_of_one_sentinel_2_patch_are_both_left_out_by_name(real_pairs, tmp_path, capsys, caplog):
    copy = copy_of(real_pairs, tmp_path)
    pair = copy.pairs[0]
    twin = pair.s1.replace("S1A", "S1B")
    shutil.copytree(copy.s1_root / pair.s1, copy.s1_root / twin)
    for path in (copy.s1_root / twin).iterdir():
        path.rename(path.with_name(path.name.replace(pair.s1, twin)))
    assert main(arguments_for(copy, tmp_path, "--splits", str(tmp_path / "splits"))) == 1
    assert "        2  several Sentinel-1 patches are paired with one Sentinel-2 patch" in capsys.readouterr().out
    assert all(any(name in line and pair.s2 in line for line in caplog.messages) for name in (pair.s1, twin))
    listed = [found for pairs in known_splits(tmp_path / "splits").values() for found in pairs]
    assert sorted(listed) == sorted(copy.pairs[1:])
    assert len(PatchStore(tmp_path / "store.lmdb")) == 10


def test_a_sentinel_2_patch_without_partner_is_counted_and_named(real_pairs, tmp_path, capsys, caplog):
    copy = copy_of(real_pairs, tmp_path)
    alone = copy.pairs[0]
    shutil.rmtree(copy.s1_root / alone.s1)
    assert main(arguments_for(copy, tmp_path)) == 1
    assert "        1  no Sentinel-1 JSON names this Sentinel-2 patch" in capsys.readouterr().out
    assert any(alone.s2 in line for line in caplog.messages)
    assert len(PatchStore(tmp_path / "store.lmdb")) == 10


def test_folders_that_no_list_names_are_counted_and_named(real_pairs, tmp_path, capsys, caplog):
    assert main(arguments_for(real_pairs, tmp_path, *renamed_list(real_pairs.pairs[1:], tmp_path))) == 0
    assert "        1  Sentinel-2 folders that no list names" in capsys.readouterr().out
    assert any(real_pairs.pairs[0].s2 in line for line in caplog.messages)


@pytest.mark.parametrize("stored", [False, True])
def test_a_list_that_pairs_two_places_is_refused_by_their_names(real_pairs, tmp_path, capsys, caplog, stored):
    """Patches that are in the archive already, each from its right pair, are no exception."""
    if stored:
        assert main(arguments_for(real_pairs, tmp_path)) == 0
    (s2, _), (_, s1), *others = real_pairs.pairs
    assert main(arguments_for(real_pairs, tmp_path, *renamed_list([PatchPair(s2, s1), *others], tmp_path))) == 1
    assert "        1  paired with a patch of another tile, column or row" in capsys.readouterr().out
    assert any(s1 in line and s2 in line for line in caplog.messages)
    assert read_split(tmp_path / "new" / "train.csv") == others


def twin_of(copy, pair, *, zone=0, north=0, tell_in_json=True):
    """Add a Sentinel-1 patch with the column and row of a pair's, at another place; return its name.

    Names of version 1 tell no tile of Sentinel-2: only coordinates tell the two apart.
    """
    name = pair.s1.replace(pair.s1.split("_")[5], "31TCJ")
    path = copy.s1_root / pair.s1 / f"{pair.s1}_labels_metadata.json"
    told = json.loads(path.read_text())
    corner = told["coordinates"]["ulx"], told["coordinates"]["uly"] + north
    utm = int(re.search(r"326(\d\d)\D*$", told["projection"])[1]) + zone
    bands = read_s1_folder(copy.s1_root / pair.s1)
    write_s1_folder(copy.s1_root, name, bands, told["labels"], pair.s2, upper_left=corner, utm_zone=utm)
    if not tell_in_json:
        written = copy.s1_root / name / f"{name}_labels_metadata.json"
        written.write_text(json.dumps({"labels": told["labels"], "corresponding_s2_patch": pair.s2}))
    shutil.rmtree(copy.s1_root / pair.s1)
    return name


@pytest.mark.parametrize("tell_in_json", [True, False])
@pytest.mark.parametrize("change", [{"zone": 1}, {"north": 1200}])
def test_pairs_of_two_places_are_refused_by_coordinates_where_names_do_not_tell(
    real_pairs, tmp_path, capsys, caplog, change, tell_in_json
):
    copy = copy_of(real_pairs, tmp_path)
    pair = copy.pairs[0]
    name = twin_of(copy, pair, **change, tell_in_json=tell_in_json)
    assert main(arguments_for(copy, tmp_path)) == 1
    assert "        1  it and its partner have different locations" in capsys.readouterr().out
    assert any(pair.s2 in line and name in line for line in caplog.messages)
    assert len(PatchStore(tmp_path / "store.lmdb")) == 10


def test_the_same_place_is_taken_whether_json_or_file_tells_it(real_pairs, tmp_path, capsys):
    copy = copy_of(real_pairs, tmp_path)
    for pair, tell_in_json in zip(copy.pairs, (True, False), strict=False):
        twin_of(copy, pair, tell_in_json=tell_in_json)
    assert main(arguments_for(copy, tmp_path)) == 0
    assert "encoded 6 pairs" in capsys.readouterr().out


def test_stored_patches_in_a_new_pair_of_two_places_are_refused(real_pairs, tmp_path, capsys):
    """Both were encoded from their own pairs; the list pairs them anew."""
    copy = copy_of(real_pairs, tmp_path)
    pair = copy.pairs[0]
    assert main(arguments_for(copy, tmp_path)) == 0
    name = twin_of(copy, pair, zone=1)
    with PatchWriter(tmp_path / "store.lmdb") as writer:
        writer.write_record(name, writer.record(pair.s1))
    capsys.readouterr()
    listed = [PatchPair(pair.s2, name), *copy.pairs[1:]]
    assert main(arguments_for(copy, tmp_path, *renamed_list(listed, tmp_path))) == 1
    assert "        1  it and its partner have different locations" in capsys.readouterr().out
    assert read_split(tmp_path / "new" / "train.csv") == copy.pairs[1:]
    for root in (copy.s1_root, copy.s2_root):  # the folders may be gone once all is encoded
        for place in root.iterdir():
            shutil.rmtree(place)
            place.mkdir()
    assert main(arguments_for(copy, tmp_path, *renamed_list(copy.pairs, tmp_path / "gone"))) == 0
    assert "        6  location is not in the names, the JSONs or the files" in capsys.readouterr().out


@pytest.mark.parametrize("value", [7, 1.5, True, ["S2A_x"], {"a": 1}, "", "S1A_x", "../S2A_x", "S2A_x/../../y"])
def test_a_partner_that_is_no_name_is_a_skipped_patch(real_pairs, tmp_path, caplog, value):
    copy = copy_of(real_pairs, tmp_path)
    pair = copy.pairs[0]
    path = copy.s1_root / pair.s1 / f"{pair.s1}_labels_metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "corresponding_s2_patch": value}))
    assert main(arguments_for(copy, tmp_path)) == 1
    assert any("not a Sentinel-2 patch name; download this" in line for line in caplog.messages)
    assert len(PatchStore(tmp_path / "store.lmdb")) == 10


def test_a_killed_worker_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(encode_workers, "_CHUNK", 1)
    monkeypatch.setattr(encode_workers, "_WORTH_PROCESSES", 0)
    job = encode_workers.EncodeJob(PatchPair("S2A_x", "S1A_x"), tmp_path / "x", tmp_path / "x", None)
    outcomes = encode_workers.encode_pairs([job] * 500, 1)
    assert next(outcomes).failure is not None
    for worker in multiprocessing.active_children():
        worker.kill()
    with pytest.raises(CbirError, match=r"a worker process died, .*; run again with fewer --workers"):
        list(outcomes)


ENCODES_UNTIL_KILLED = """
    import sys, time
    from pathlib import Path
    from bigearthnet_cbir.pipelines import encode_workers
    from bigearthnet_cbir.types import PatchPair
    if __name__ == "__main__":
        encode_workers._CHUNK, encode_workers._WORTH_PROCESSES = 1, 0
        job = encode_workers.EncodeJob(PatchPair("S2A_x", "S1A_x"), Path("absent"), Path("absent"), None)
        outcomes = encode_workers.encode_pairs([job] * 1000, 2)
        next(outcomes)
        print("working", flush=True)
        time.sleep(600)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "encodes.py"
    script.write_text(textwrap.dedent(ENCODES_UNTIL_KILLED))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)
    workers = []
    try:
        assert parent.stdout.readline() == "working\n"
        workers = psutil.Process(parent.pid).children(recursive=True)
        assert len(workers) >= 2
        parent.send_signal(signal.SIGKILL)
        parent.wait(60)
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive
    finally:
        for process in (parent, *workers):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        parent.communicate()


def test_an_interrupted_run_is_continued_and_damaged_records_are_written_again(
    real_pairs, true_patches, tmp_path, monkeypatch
):
    def stops_after_two(jobs, workers):
        yield from map(encode_workers.encode_pair, jobs[:2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("bigearthnet_cbir.pipelines.encode.encode_pairs", stops_after_two)
        with pytest.raises(KeyboardInterrupt):
            encode(options_for(real_pairs, tmp_path))
    with PatchStore(tmp_path / "store.lmdb") as store:
        names = list(store.names())
    assert len(names) == 4
    damaged = next(name for name in names if name.startswith("S2"))
    environment = lmdb.open(str(tmp_path / "store.lmdb"))
    with environment.begin(write=True) as transaction:
        transaction.put(damaged.encode(), bytes(transaction.get(damaged.encode()))[:-1])
    environment.close()
    report = encode(options_for(real_pairs, tmp_path))
    assert (report.present, report.encoded) == (1, 5)
    assert sum(map(len, report.splits.values())) == 6
    assert_holds(tmp_path / "store.lmdb", [name for pair in real_pairs.pairs for name in pair], true_patches)
    again = encode(options_for(real_pairs, tmp_path))
    assert (again.present, again.encoded, again.labels) == (6, 0, report.labels)


def test_split_assignment_depends_on_names_fractions_and_seed_only():
    pairs = [PairInfo(f"S2A_{number}", f"S1A_{number}") for number in range(100)]
    first = assign_splits(pairs, (0.5, 0.25, 0.25), 0)
    assert first == assign_splits(reversed(pairs), (0.5, 0.25, 0.25), 0)
    assert first != assign_splits(pairs, (0.5, 0.25, 0.25), 1)
    assert [sum(pair.split == split for pair in first) for split in ("train", "val", "test")] == [50, 25, 25]


@pytest.mark.slow
def test_ben14k_on_the_official_lists_has_the_published_counts(capsys):
    package_folder()
    assert main(["--preset", "ben14k", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for split, count in (("train", "7,761"), ("val", "3,508"), ("test", "3,563"), ("all", "14,832")):
        assert f"{split:<6}{count:>9} pairs" in printed
    assert "2  no label of the 19 classes" in printed


def test_dry_run_reads_jsons_but_no_pixels_and_writes_nothing(real_pairs, tmp_path, capsys):
    copy = copy_of(real_pairs, tmp_path)
    for path in [*copy.s2_root.glob("*/*.tif"), *copy.s1_root.glob("*/*.tif")]:
        path.unlink()
    assert main(arguments_for(copy, tmp_path, "--dry-run", "--splits", str(tmp_path / "splits"))) == 0
    printed = capsys.readouterr().out
    assert "all           6 pairs" in printed
    assert "        3  Arable land" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"S1", "S2"}


def test_lists_only_writes_lists_and_no_store(real_pairs, tmp_path):
    assert main(arguments_for(real_pairs, tmp_path, "--lists-only", "--splits", str(tmp_path / "splits"))) == 0
    assert len(read_split(tmp_path / "splits" / "train.csv")) == 3
    assert not (tmp_path / "store.lmdb").exists()


def test_leftovers_of_a_killed_run_are_removed_from_the_lists_folder(real_pairs, tmp_path):
    options = options_for(real_pairs, tmp_path, lists_only=True)
    options.splits.mkdir(parents=True)
    left = options.splits / ".train.csv.12345-0123abcd.tmp"
    left.touch()
    encode(options)
    assert not left.exists()


def test_two_encoders_do_not_write_lists_into_one_folder_at_once(real_pairs, tmp_path):
    options = options_for(real_pairs, tmp_path, lists_only=True)
    process = hold(options.splits)
    try:
        with pytest.raises(LockedError, match=rf"in use by train \(process {process.pid} "):
            encode(options)
    finally:
        process.kill()
        process.wait()


def test_selection_reaches_the_parquet(archives, real_pairs, tmp_path):
    options = EncodeOptions(
        split_from=str(archives["rico"].parquet), dry_run=True, selection=Selection(seasons=("summer",))
    )
    summer = [pair for pair in real_pairs.pairs if pair.s2.split("_")[2][4:6] in ("06", "07", "08")]
    assert sorted(p for pairs in encode(options).splits.values() for p in pairs) == sorted(summer)
    assert 0 < len(summer) < 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--s1-root", "/absent"], "error: /absent: cannot be listed"),
        (["--s1-root", "{s2}", "--s2-root", "{s1}"], "are --s1-root and --s2-root swapped"),
        (["--output-s1", "x"], "--output is one store for both sensors"),
        (["--fractions", "0.5", "0.5", "0.5"], "must sum to 1"),
        (["--workers", "-1"], "--workers -1"),
        (["--seasons", "Monsoon"], "--seasons: 'Monsoon' does not occur"),
        (["--split-from", "/absent"], "error: /absent: it has no train.csv"),
        (["--acquisitions", "20990101T000000"], "--acquisitions: '20990101T000000' does not occur"),
        (["--preset", "ben14k", "--acquisitions", "20170719T094029"], "remove --acquisitions"),
        (["--lists-only"], "--lists-only needs --splits FOLDER"),
    ],
)
def test_user_mistakes_end_in_one_line_and_exit_code_2(real_pairs, tmp_path, capsys, change, message):
    filled = [part.format(s1=real_pairs.s1_root, s2=real_pairs.s2_root) for part in change]
    assert main(arguments_for(real_pairs, tmp_path, *filled)) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1
    assert message in printed[0]
    assert not (tmp_path / "store.lmdb").exists()


def test_the_script_runs_from_another_folder_without_an_install(real_pairs, tmp_path):
    script = [sys.executable, "-S", str(ROOT / "project" / "encode_patches.py")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if "site-packages" in path)}
    done = subprocess.run(
        [*script, *arguments_for(real_pairs, tmp_path, "--splits", "splits")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "encoded 6 pairs into" in done.stdout
    assert done.stderr == "", "no progress bar where stderr is not a terminal"
    assert len(read_split(tmp_path / "splits" / "train.csv")) == 3
