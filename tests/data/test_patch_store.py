"""Patch stores: the same pixels and labels from every kind, in every process, and clear refusals."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import shutil
import stat

import lmdb
import numpy as np
import pytest

from bigearthnet_cbir.data import patch_store, records
from bigearthnet_cbir.data.patch_store import PatchStore, PatchWriter
from bigearthnet_cbir.data.records import RecordKind
from bigearthnet_cbir.data.splits import read_split_labels
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.types import PatchPair


@pytest.fixture
def store(true_patches, tmp_path):
    with PatchWriter(tmp_path / "store.lmdb", map_size=1 << 16, batch=5) as writer:
        for name, patch in true_patches.items():
            writer.write(name, patch)
    with PatchStore(tmp_path / "store.lmdb") as store:
        yield store


def assert_same(found, expected):
    for band, pixels in expected.bands.items():
        np.testing.assert_array_equal(found.bands[band], pixels, err_msg=band)


def test_patch_store_returns_geotiff_values_unchanged(store, true_patches):
    assert store.kind is RecordKind.SAFETENSORS
    assert sorted(store.names()) == sorted(true_patches)
    assert len(store) == 12
    for name, expected in true_patches.items():
        patch = store.read(name)
        assert patch.labels == expected.labels
        assert_same(patch, expected)


@pytest.mark.parametrize("kind", ["original", "encoder", "rico"])
def test_every_kind_gives_the_same_pixels_and_labels(archives, real_pairs, true_patches, kind, caplog, monkeypatch):
    monkeypatch.setattr(patch_store, "_told", set())  # other tests of this process may have read it
    archive = archives[kind]
    labels = {}
    if archive.parquet:
        for split in ("train", "val", "test"):
            labels |= read_split_labels(f"{archive.parquet}:{split}")
    s2, s1 = PatchStore(archive.s2, labels), PatchStore(archive.s1)
    with caplog.at_level(logging.INFO):
        assert s1.kind.value in caplog.text, "the recognised kind is logged"
        assert len(s2) == (12 if kind == "rico" else 6)
        assert s2.missing([pair.s2 for pair in real_pairs.pairs]) == []
    for pair in real_pairs.pairs:
        s2_patch, s1_patch = s2.read(pair.s2), s1.read(s1.s1_name(pair))
        assert s2_patch.labels == true_patches[pair.s2].labels
        assert_same(s2_patch, true_patches[pair.s2])
        assert_same(s1_patch, true_patches[pair.s1])
    expected = {"original": "ORIGINAL_S1", "encoder": "ENCODER", "rico": "SAFETENSORS"}[kind]
    assert s1.kind is RecordKind[expected]


def test_archives_of_other_tools_are_read(samples):
    kinds = {
        "bigearthnet-v2/BigEarthNet-V2-LMDB": (RecordKind.SAFETENSORS, 48),
        "encoder-lmdb/BigEarthNetEncoded.lmdb": (RecordKind.ENCODER, 4),
        "original-lmdb/BigEarth_S2.lmdb": (RecordKind.ORIGINAL_S2, 6),
        "original-lmdb/BigEarth_S1.lmdb": (RecordKind.ORIGINAL_S1, 6),
    }
    for path, (kind, number) in kinds.items():
        with PatchStore(samples / path) as store:
            names = list(store.names())
            assert (store.kind, len(names), len(store)) == (kind, number, number)
            for name in names:
                assert store.read(name).bands


def test_original_archives_equal_the_geotiffs(samples, true_patches):
    for path in ("BigEarth_S2.lmdb", "BigEarth_S1.lmdb"):
        with PatchStore(samples / "original-lmdb" / path) as store:
            for name in store.names():
                found = store.read(name)
                assert_same(found, true_patches[name])
                assert found.labels == true_patches[name].labels


def test_read_bands_gives_the_asked_bands_in_their_order(store, real_pairs, true_patches):
    pair = real_pairs.pairs[2]
    for found, band in zip(store.read_bands(pair.s2, ["B12", "B02"]), ["B12", "B02"], strict=True):
        np.testing.assert_array_equal(found, true_patches[pair.s2].bands[band])
    with pytest.raises(DataError, match=f"record {pair.s2} has no band VV .* swapped"):
        store.read_bands(pair.s2, ["VV"])


def test_missing_names_are_listed_in_order(store, real_pairs):
    there = real_pairs.pairs[0].s1
    assert store.missing(["b", there, "a", "", "x" * 600, "__keys__x"]) == ["b", "a", "", "x" * 600, "__keys__x"]
    assert there in store
    with pytest.raises(DataError, match=r"store\.lmdb: patch b is not in this archive"):
        store.read("b")


def _read_elsewhere(store, name, queue):
    queue.put((os.getpid(), store.read(name).bands["VV"].tobytes()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_the_same_bytes(store, real_pairs, true_patches, method):
    name = real_pairs.pairs[0].s1
    store.read(name)  # opened here first, as a missing-names check would
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [context.Process(target=_read_elsewhere, args=(store, name, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    answers = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert {content for _, content in answers} == {true_patches[name].bands["VV"].tobytes()}
    assert os.getpid() not in {process for process, _ in answers}
    assert_same(store.read(name), true_patches[name])


def test_two_objects_and_two_spellings_of_one_folder_share_its_environment(store, real_pairs, tmp_path):
    (tmp_path / "link").symlink_to(store.path)
    for path in (store.path, tmp_path / "link", tmp_path / "." / "store.lmdb"):
        assert len(PatchStore(path)) == 12
    copied = pickle.loads(pickle.dumps(store))
    assert copied.read(real_pairs.pairs[0].s2).labels == store.read(real_pairs.pairs[0].s2).labels


def test_read_only_media_need_no_lock_file(store, tmp_path, real_pairs):
    place = tmp_path / "media" / "store.lmdb"
    place.mkdir(parents=True)
    shutil.copy(store.path / "data.mdb", place)
    (place / "data.mdb").chmod(stat.S_IRUSR)
    place.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with PatchStore(place) as other:
            assert other.read(real_pairs.pairs[0].s1).bands["VV"].shape == (120, 120)
        assert [path.name for path in place.iterdir()] == ["data.mdb"]
    finally:
        place.chmod(stat.S_IRWXU)


def test_paths_that_are_no_store_are_refused(tmp_path):
    (tmp_path / "garbage").mkdir()
    (tmp_path / "garbage" / "data.mdb").write_bytes(b"no LMDB" * 5000)
    (tmp_path / "nothing").mkdir()
    for path, message in (
        ("absent", "there is no such LMDB"),
        ("nothing", "not an LMDB folder"),
        ("garbage", "LMDB cannot open it"),
    ):
        with pytest.raises(DataError, match=f"{path}: .*{message}"):
            len(PatchStore(tmp_path / path))


def test_store_cut_short_is_refused_instead_of_killing_the_process(store, tmp_path):
    copy = tmp_path / "short"
    copy.mkdir()
    content = (store.path / "data.mdb").read_bytes()
    (copy / "data.mdb").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"short/data\.mdb: .*862,208 of 1,724,416 bytes.*encode it again"):
        len(PatchStore(copy))


def test_damage_in_the_pages_of_lmdb_itself_is_one_line(store, tmp_path, real_pairs):
    content = bytearray((store.path / "data.mdb").read_bytes())
    leaves = [start for start in range(8192, len(content), 4096) if content[start + 10 : start + 12] == b"\2\0"]
    assert leaves
    for start in leaves:
        content[start + 10] = 0  # no kind of page
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "data.mdb").write_bytes(content)
    with PatchStore(tmp_path / "damaged") as damaged:
        name = real_pairs.pairs[0].s1
        for read in (
            lambda: damaged.kind,
            lambda: list(damaged.names()),
            lambda: damaged.read(name),
            lambda: name in damaged,
        ):
            with pytest.raises(DataError, match=r"/damaged/data.mdb: page \d+ is damaged") as caught:
                read()
            assert "\n" not in str(caught.value)


def test_names_that_cannot_be_keys_are_missing(store):
    assert store.missing(["é" * 300, "x" * 512]) == ["é" * 300, "x" * 512]
    with pytest.raises(DataError, match="is not in this archive"):
        store.read("é" * 300)


def test_malformed_record_is_named_with_its_archive(store, real_pairs):
    name = real_pairs.pairs[0].s2
    record = records.encode_record(store.read(name).bands, None)
    store.close()
    environment = lmdb.open(str(store.path))
    with environment.begin(write=True) as transaction:
        transaction.put(name.encode(), record[:-10])
    environment.close()
    with pytest.raises(DataError, match=rf"store\.lmdb: record {name}: the record has 159,990 bytes"):
        store.read(name)


def test_writer_grows_its_map_and_keeps_what_was_there(true_patches, tmp_path, caplog):
    names = list(true_patches)
    with caplog.at_level(logging.INFO), PatchWriter(tmp_path / "s", map_size=1 << 16, batch=2) as writer:
        for name in names[:6]:
            writer.write(name, true_patches[name])
    assert "growing the map" in caplog.text
    with PatchWriter(tmp_path / "s", map_size=1 << 16) as writer:
        assert names[0] in writer
        assert names[6] not in writer
        for name in names[6:]:
            writer.write(name, true_patches[name])
    with PatchStore(tmp_path / "s") as store:
        for name in names:
            assert_same(store.read(name), true_patches[name])


def test_writer_commits_what_it_has_when_the_block_fails(true_patches, tmp_path):
    name, patch = next(iter(true_patches.items()))

    def interrupted():
        with PatchWriter(tmp_path / "s") as writer:
            writer.write(name, patch)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert PatchStore(tmp_path / "s").missing([name]) == []


def test_writer_leaves_archives_of_other_tools_alone(archives, tmp_path):
    copy = shutil.copytree(archives["original"].s2, tmp_path / "theirs")
    before = (copy / "data.mdb").read_bytes()
    with pytest.raises(DataError, match=r"theirs: .*pickled Sentinel-2 arrays .* choose another --output"):
        PatchWriter(copy)
    assert (copy / "data.mdb").read_bytes() == before


def test_s1_name_is_the_s2_name_only_in_encoder_archives(archives):
    pair = PatchPair("S2A_x", "S1A_y")
    assert PatchStore(archives["encoder"].s1).s1_name(pair) == pair.s2
    assert PatchStore(archives["rico"].s1).s1_name(pair) == pair.s1
