"""Encoding: real folders in, the same values and labels out, and nothing lost when a patch is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest

from bigearthnet_cbir.cli.encode import main
from bigearthnet_cbir.data.official_lists import package_folder
from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.data.selection import PairInfo, Selection
from bigearthnet_cbir.data.splits import known_splits, read_split, write_split
from bigearthnet_cbir.errors import CbirError
from bigearthnet_cbir.pipelines import encode_workers
from bigearthnet_cbir.pipelines.encode import encode
from bigearthnet_cbir.pipelines.encode_report import EncodeOptions
from bigearthnet_cbir.pipelines.pair_sources import assign_splits

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
        (misshapen, "_VV.tif: not a readable GeoTIFF, or cut short"),
        (no_json, "JSON is missing"),
        (absent, "folder is missing"),
        (wrong_pair, f"its JSON pairs it with {fine.s2}"),
    ):
        assert any(pair.s2 in line and reason in line for line in caplog.messages), reason
    assert "        1  this band is missing" in capsys.readouterr().out


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
        (["--fractions", "0.5", "0.5", "0.5"], "must add up to 1"),
        (["--workers", "-1"], "--workers -1"),
        (["--seasons", "Monsoon"], "--seasons: 'Monsoon' occurs nowhere"),
        (["--split-from", "/absent"], "error: /absent: it has none of train.csv"),
        (["--acquisitions", "20990101T000000"], "--acquisitions: '20990101T000000' occurs nowhere"),
        (["--preset", "ben14k", "--acquisitions", "20170719T094029"], "leave out --acquisitions"),
        (["--lists-only"], "say where with --splits"),
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
