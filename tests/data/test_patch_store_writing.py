"""Writing patch stores: one process at a time, own archives only, and what the disk refuses is one line."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import subprocess
import sys
import textwrap

import lmdb
import numpy as np
import pytest
from safetensors.numpy import save

from bigearthnet_cbir.data import records
from bigearthnet_cbir.data.patch_store import PatchStore, PatchWriter
from bigearthnet_cbir.errors import DataError, LockedError


@pytest.fixture
def patches(true_patches):
    return dict(list(true_patches.items())[:4])


@pytest.fixture
def store(patches, tmp_path):
    with PatchWriter(tmp_path / "store.lmdb") as writer:
        for name, patch in patches.items():
            writer.write(name, patch)
    return tmp_path / "store.lmdb"


def contents(path) -> dict[bytes, bytes]:
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return {bytes(key): bytes(value) for key, value in transaction.cursor()}


def put(path, entries: dict[str, bytes]) -> None:
    with lmdb.open(str(path), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for name, record in entries.items():
            transaction.put(name.encode(), record)


@pytest.mark.parametrize("kind", ["rico", "encoder", "original"])
def test_archives_of_other_tools_are_refused_and_left_as_they_are(archives, patches, tmp_path, kind):
    copy = shutil.copytree(archives[kind].s2, tmp_path / "theirs")
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    with pytest.raises(DataError, match=r"theirs: .*(rico-hdl|pickled).* choose another --output"):
        PatchWriter(copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_an_lmdb_of_anything_else_is_refused(patches, tmp_path):
    put(tmp_path / "other", {"a": b"1", "b": b"a picture"})
    before = contents(tmp_path / "other")
    with pytest.raises(DataError, match=r"other: .*records other than patches.* choose another --output"):
        PatchWriter(tmp_path / "other")
    assert contents(tmp_path / "other") == before


@pytest.mark.parametrize("labelled", [True, False])
def test_archives_of_this_project_are_continued(patches, tmp_path, labelled):
    """Those of version 0.1 too: their records have labels and nothing else in the header's metadata."""
    first, *others = patches
    with PatchWriter(tmp_path / "store") as writer:
        writer.write(first, patches[first] if labelled else patches[first]._replace(labels=None))
    header = contents(tmp_path / "store")[first.encode()][:400]
    assert (b'"__metadata__":{"labels":' in header) == labelled
    assert (b'"__metadata__":{"writer":"bigearthnet-cbir"}' in header) == (not labelled)
    with PatchWriter(tmp_path / "store") as writer:
        for name in others:
            writer.write(name, patches[name])
    with PatchStore(tmp_path / "store") as store:
        assert sorted(store.names()) == sorted(patches)
        assert store.read(first).labels == (patches[first].labels if labelled else None)


def test_a_record_of_another_tool_among_ours_is_never_replaced(store, patches):
    """An archive into which two tools wrote: each record that is asked for is looked at."""
    first, *_, last = sorted(patches)
    middle = sorted(patches)[1]
    theirs = save(dict(patches[middle].bands))
    put(store, {middle: theirs})
    with PatchWriter(store) as writer:
        for attempt in (lambda: writer.record(middle), lambda: writer.write(middle, patches[middle])):
            with pytest.raises(DataError, match=rf"rico-hdl.*see record {middle}"):
                attempt()
        assert writer.record(first) is not None
        writer.write(last, patches[last])
    assert contents(store)[middle.encode()] == theirs
    put(store, {first: theirs})
    with pytest.raises(DataError, match=rf"rico-hdl.*see record {first}"):
        PatchWriter(store)


def test_damaged_records_do_not_keep_from_going_on(store, patches):
    first = min(patches)
    put(store, {first: b"\0" * 50})
    with PatchWriter(store) as writer:
        assert records.origin(writer.record(first)) is None
        writer.write(first, patches[first])
    with PatchStore(store) as opened:
        assert opened.read(first).labels == patches[first].labels


def test_what_a_process_left_that_died_at_its_beginning_is_no_obstacle(patches, tmp_path):
    for size in (0, 100, 4096):
        place = tmp_path / str(size)
        place.mkdir()
        (place / "data.mdb").write_bytes(bytes(size))
        (place / "lock.mdb").write_bytes(bytes(size))
        with PatchWriter(place) as writer:
            for name, patch in patches.items():
                writer.write(name, patch)
        with PatchStore(place) as store:
            assert len(store) == len(patches)


def elsewhere(code: str, *arguments: object, **options) -> subprocess.Popen:
    """Start a Python process that runs the code and says so by its standard streams."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        **options,
    )  # fmt: skip


WRITES_AND_WAITS = """
    import sys
    from bigearthnet_cbir.data.patch_store import PatchWriter
    with PatchWriter(sys.argv[1]) as writer:
        print("open", flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("killed", [False, True])
def test_a_second_encoder_is_refused_until_the_first_has_ended_however(store, patches, killed):
    other = elsewhere(WRITES_AND_WAITS, store)
    try:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(LockedError, match=rf"in use by encode \(process {other.pid} on .*, since .*\)") as caught:
            PatchWriter(store)
        assert "\n" not in str(caught.value)
        if killed:
            other.kill()
        other.communicate(timeout=60)
        name = next(iter(patches))
        with PatchWriter(store) as writer:
            writer.write(name, patches[name])
    finally:
        other.kill()
        other.communicate()
    with PatchStore(store) as opened:
        assert len(opened) == len(patches)


def test_a_map_that_another_process_enlarged_is_said_to_be_that(tmp_path, patches):
    """It was called "is the disk full?". Locks keep a second encoder out, but not every tool takes them."""
    name, patch = next(iter(patches.items()))
    with PatchWriter(tmp_path / "store", map_size=1 << 20) as writer:
        other = elsewhere(
            """
            import lmdb, sys
            with lmdb.open(sys.argv[1], map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
                for number in range(40):
                    transaction.put(b"S1A_%d" % number, bytes(100_000))
            """,
            tmp_path / "store",
        )
        assert other.communicate(timeout=60) == ("", "")
        with pytest.raises(DataError, match=r"MDB_MAP_RESIZED.*; another process is writing to this archive"):
            writer.write(name, patch)
    assert other.returncode == 0


WRITES = """
    import pickle, sys
    from bigearthnet_cbir.data.patch_store import PatchWriter
    from bigearthnet_cbir.errors import DataError
    try:
        with PatchWriter(sys.argv[1], batch=1) as writer:
            for name, patch in pickle.load(open(sys.argv[2], "rb")).items():
                writer.write(name, patch)
    except DataError as error:
        print(error)
"""


@pytest.mark.parametrize("room", [0, 4_096, 8_192, 100_000, 300_000])
def test_a_full_disk_is_one_line_and_what_was_committed_is_kept(patches, tmp_path, room):
    (tmp_path / "patches").write_bytes(pickle.dumps(patches))
    limit = elsewhere(
        WRITES, tmp_path / "store", tmp_path / "patches",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )  # fmt: skip
    printed, complaint = limit.communicate(timeout=60)
    assert (limit.returncode, complaint) == (0, "")
    assert len(printed.splitlines()) == 1
    assert "store: " in printed
    again = elsewhere(WRITES, tmp_path / "store", tmp_path / "patches")
    assert again.communicate(timeout=60) == ("", "")
    with PatchStore(tmp_path / "store") as store:
        for name, patch in patches.items():
            assert all(np.array_equal(store.read(name).bands[band], pixels) for band, pixels in patch.bands.items())
