"""Features and results that are damaged, or well formed and wrong, are one line; earlier files are still read."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.faults.hostile.hdf5 import HDF5

from bigearthnet_cbir.errors import CbirError, ResultsError
from bigearthnet_cbir.storage import hdf5_verdicts
from bigearthnet_cbir.storage.features import read_labels, read_names, reusable_digest
from bigearthnet_cbir.storage.hdf5 import create_hdf5
from bigearthnet_cbir.storage.hdf5_reading import open_hdf5
from bigearthnet_cbir.storage.results import is_current, read_neighbours, read_results

BUILD = {subject.name: subject.build for subject in HDF5}
FINGERPRINT = "f" * 64


@pytest.fixture
def features(tmp_path: Path) -> Path:
    BUILD["features"](tmp_path)
    return tmp_path / "query.h5"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    BUILD["results"](tmp_path)
    return tmp_path / "retrieval.h5"


def refused(read: Callable[[], object]) -> str:
    with pytest.raises(ResultsError) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message
    assert "run project/retrieval.py" in message
    return message


def flip(path: Path, part: bytes) -> None:
    """Change one bit of a file where `part` stands for the first time."""
    content = bytearray(path.read_bytes())
    content[content.index(part)] ^= 1
    path.write_bytes(content)


def test_one_flipped_bit_of_values_names_or_structure_is_noticed(features: Path, results: Path) -> None:
    content, changes = features.read_bytes(), (b"S1A_IW_GRDH_2", b"OHDR", read_labels(features)[1:3].tobytes())
    for part in changes:
        features.write_bytes(content)
        flip(features, part)
        refused(lambda: (read_names(features), read_labels(features)))
        assert reusable_digest(features, FINGERPRINT) is None
    curve = read_results(results).directions["s1_s2"].curves["recall"]
    rows = read_neighbours(results, "s1_s2", 7).distances[1]
    content = results.read_bytes()
    for part in (curve.tobytes(), rows.tobytes()):
        results.write_bytes(content)
        flip(results, part)
        refused(lambda: (read_results(results), read_neighbours(results, "s1_s2", 3)))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("s1_s2/retrieval_result", (0, 0, -1), "positions outside the archive"),
        ("s1_s2/retrieval_result", (1, 2, 12), "positions outside the archive"),
        ("s1_s2/retrieval_result", (1, 0, None), "a position twice"),
        ("s1_s2/distance", (2, 1, np.nan), "no order"),
        ("s1_s2/distance", (2, 1, 9.0), "no order"),
    ],
)
def test_rows_that_cannot_be_neighbours(results: Path, name: str, value: tuple, words: str) -> None:
    row, column, number = value
    with h5py.File(results, "r+") as file:
        file[name][row, column] = file[name][row, column + 1] if number is None else number
    assert words in refused(lambda: read_neighbours(results, "s1_s2", 7))
    assert not is_current(results, FINGERPRINT)


def put(name: str, **options: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **options)

    return change


def link(name: str, target: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = target

    return change


WRONG = {
    "a curve of another length": (put("s1_s2/recall", data=np.zeros(6)), "not 7 values"),
    "a curve above 1": (put("s1_s2/recall", data=np.full(7, 1.5)), "outside 0..1"),
    "a curve that is infinite": (put("s1_s2/average_cumulative_gains", data=np.full(7, np.inf)), "outside 0..1"),
    "a curve of text": (put("s1_s2/recall", data=["x"] * 7), "not 7 values"),
    "a compound type": (put("s1_s2/recall", data=np.zeros(7, "i4,f4")), "type that is never written"),
    "object references": (put("s1_s2/recall", shape=(7,), dtype=h5py.ref_dtype), "type that is never written"),
    "fewer distances": (put("s1_s2/distance", data=np.zeros((4, 7), "f4")), "not 5 x 7"),
    "an interval upside down": (put("s1_s2/intervals/P@10", data=[0.6, 0.4]), "no interval"),
    "a huge claim": (put("s1_s2/distance", shape=(2**40, 7), dtype="f4"), "the file holds fewer"),
    "a huge claim in chunks": (put("s1_s2/distance", shape=(2**40, 7), dtype="f4", chunks=(1, 7)), "holds fewer"),
    "a huge packed claim": (
        put("s1_s2/distance", shape=(2**40, 7), dtype="f4", chunks=(2**20, 7), compression="gzip"), "holds fewer",
    ),
    "rows never written": (put("s1_s2/distance", shape=(5, 7), dtype="f4", chunks=(1, 7)), "0 of 5 blocks"),
    "an unknown filter": (
        put("s1_s2/distance", data=np.zeros((5, 7), "f4"), compression="lzf"), "has the filters",
    ),
    "another file's dataset": (link("s1_s2/recall", h5py.ExternalLink("other.h5", "/x")), "link to another file"),
    "another direction's curve": (link("precision", h5py.SoftLink("/s1_s2/precision")), "link to somewhere else"),
    "a link that leads nowhere": (link("s1_s2/recall", h5py.SoftLink("/nowhere")), "link to somewhere else"),
    "bytes of another file": (
        put("s1_s2/recall", shape=(7,), dtype="f8", external=[("/etc/passwd", 0, 56)]), "lies in another file",
    ),
    "one object twice": (lambda file: file.__setitem__("s1_s2/loop", file["s1_s2"]), "under two names"),
    "a direction that is a number": (lambda file: (file.__delitem__("s1_s2"), file.__setitem__("s1_s2", 1.0)),
                                     "no direction of search"),
    "k of another size": (lambda file: file.attrs.__setitem__("k", 9), "attribute k says 9"),
    "other queries": (lambda file: file.attrs.__setitem__("queries", 4), "attribute queries says 4"),
    "a class less": (lambda file: file.attrs.__setitem__("class_names", ["a"]), "attribute class_names says 1"),
    "a number that is text": (lambda file: file.attrs.__setitem__("archive_size", "x"), "archive_size is 'x'"),
    "text that is a number": (lambda file: file.attrs.__setitem__("distance", 3), "attribute distance is 3"),
    "text that is no UTF-8": (lambda file: file.attrs.__setitem__("distance", np.bytes_(b"\xff")), "no UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_well_formed_and_wrong_results_are_one_line(results: Path, what: str) -> None:
    change, words = WRONG[what]
    with h5py.File(results, "r+") as file:
        change(file)
    assert words in refused(lambda: read_results(results))
    assert not is_current(results, FINGERPRINT), "such results are kept for ever"


def test_labels_and_names_that_cannot_be(features: Path) -> None:
    for name, value, read in (("label", 2, read_labels), ("patch_name", "", read_names)):
        with h5py.File(features, "r+") as file:
            kept = file[name][0, 0]
            file[name][0, 0] = value
        assert "is not what was written" in refused(lambda read=read: read(features))
        with h5py.File(features, "r+") as file:
            sealed = file[name].attrs.pop("sha256")  # as earlier versions wrote it
        assert {"label": "not 0 or 1", "patch_name": "no names"}[name] in refused(lambda read=read: read(features))
        with h5py.File(features, "r+") as file:
            file[name][0, 0] = kept
            file[name].attrs["sha256"] = sealed


def test_datasets_of_features_that_do_not_fit_together(features: Path) -> None:
    with h5py.File(features, "r+") as file:
        put("feature_s2", data=np.zeros((6, 4), "f4"))(file)
    assert "not 5 x n values" in refused(lambda: read_names(features))
    with h5py.File(features, "r+") as file:
        put("label", data=np.zeros((4, 19), "u1"))(file)
    assert "label" in refused(lambda: read_names(features))


def test_a_process_that_dies_or_hangs_in_the_library_is_one_line(
    features: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(features)
    for program in ("import os; print('sound', flush=True); os.abort()", "import sys; sys.exit(3)", ""):
        command = [sys.executable, "-c", program]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        monkeypatch.setattr(hdf5_verdicts, "_start", lambda _, process=process: process)
        assert "(damaged)" in refused(lambda: read_names(features)), program
        os.utime(features)


def states(paths: list[Path]) -> list[hdf5_verdicts.FileState]:
    return [hdf5_verdicts.FileState.of(path, path.stat()) for path in paths]


def test_files_of_one_process_have_their_own_verdicts(
    features: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends at the first fault; files after it are validated by another one."""
    started = []
    start = hdf5_verdicts._start
    monkeypatch.setattr(hdf5_verdicts, "_start", lambda paths: started.append(paths) or start(paths))
    for path in (features, results, features.with_name("archive.h5")):
        os.utime(path)  # they are not what this process has just written
    flip(results, b"OHDR")
    paths = [features, results, features.with_name("archive.h5")]
    with hdf5_verdicts.early_verdicts([*paths, features.with_name("missing.h5")]):
        for _ in range(2):
            refused(lambda: read_results(results))
            assert [len(read_names(path)) for path in (features, paths[2])] == [5, 12]
    assert started == [[str(path) for path in paths], [str(paths[2])]]


def test_a_process_that_dies_on_one_file_says_nothing_of_the_others(
    features: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, asked = hdf5_verdicts._start, [features, results]
    for path in asked:
        os.utime(path)

    def dies(paths: list[str]) -> subprocess.Popen[str]:
        if len(paths) == 1:
            return start(paths)
        program = "import os; print('sound', flush=True); os.abort()"
        return subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    monkeypatch.setattr(hdf5_verdicts, "_start", dies)
    with hdf5_verdicts.early_verdicts(asked):
        hdf5_verdicts.fault_of(states([features])[0])
        assert states([results])[0] not in hdf5_verdicts._verdicts
        assert len(read_results(results).directions) == 2


def test_a_process_that_is_not_needed_ends_with_the_block(features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = [sys.executable, "-c", "import time; time.sleep(600)"]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    monkeypatch.setattr(hdf5_verdicts, "_start", lambda _: process)
    with hdf5_verdicts.early_verdicts([features]):
        pass
    assert process.returncode == -signal.SIGKILL


def test_what_was_just_written_is_trusted_until_it_changes(
    features: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a change follows within the tick of the clock that gives files their times."""
    monkeypatch.setattr(hdf5_verdicts, "_start", lambda paths: pytest.fail(f"{paths} are validated"))
    assert len(read_names(features)) == 5
    assert len(read_results(results).directions) == 2
    monkeypatch.undo()
    for _ in range(50):
        with create_hdf5(features) as file:
            file.hdf5["label"] = np.zeros(3)
        flip(features, b"OHDR")
        assert states([features])[0] not in hdf5_verdicts._verdicts
    refused(lambda: read_names(features))


def test_the_limits_of_one_file_are_not_those_of_the_next(tmp_path: Path) -> None:
    """Memory is limited by the size of the file: a small one before a large one must not count."""
    paths = [tmp_path / "small.h5", tmp_path / "large.h5"]
    for path, size in zip(paths, (10, 100 << 20), strict=True):
        with h5py.File(path, "w") as file:
            file.create_dataset("values", data=np.zeros(size, "u1"))
            file["values"].attrs["text"] = "x"
    program = (
        "import sys, resource; from bigearthnet_cbir.storage import hdf5_probe; hdf5_probe.main(); "
        "print(resource.getrlimit(resource.RLIMIT_AS)[0] >> 20)"
    )
    done = subprocess.run([sys.executable, "-c", program, *map(str, paths)], capture_output=True, text=True, check=True)
    *verdicts, limit = done.stdout.split()
    assert verdicts == ["sound", "sound"]
    assert int(limit) > 256 + 4 * 100


@pytest.mark.slow
def test_an_endless_loop_of_the_library_ends_by_its_limit(tmp_path: Path) -> None:
    """HDF5 2.0.0 walks for ever through a heap of text whose objects have no length."""
    path = tmp_path / "heap.h5"
    with h5py.File(path, "w") as file:
        file["patch_name"] = np.array([["S1A_a", "S2A_b"]] * 3, dtype=object)
    content = bytearray(path.read_bytes())
    start = content.index(b"GCOL") + 16
    content[start : start + 4000] = bytes(4000)
    path.write_bytes(content)
    before = os.times()
    refused(lambda: read_names(path))
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 10


def test_folders_pipes_and_other_formats_are_one_line(tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(900)):
        path = tmp_path / "query.h5"
        path.write_bytes(content)
        refused(lambda: read_names(tmp_path / "query.h5"))
        refused(lambda: read_results(tmp_path / "query.h5"))


def test_a_file_is_walked_again_when_it_changed(features: Path) -> None:
    assert len(read_names(features)) == 5
    flip(features, b"OHDR")
    refused(lambda: read_names(features))


def test_the_walk_finds_the_package_wherever_it_is(features: Path, tmp_path: Path) -> None:
    """A script that put the package on its own path passes that on."""
    source = Path(sys.modules["bigearthnet_cbir"].__file__ or "").parents[1]
    program = (
        f"import sys; sys.path.insert(0, {str(source)!r}); from pathlib import Path; "
        f"from bigearthnet_cbir.storage.features import read_names; print(len(read_names(Path({str(features)!r}))))"
    )
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("5\n", "")


@pytest.mark.parametrize("name", [name for name in BUILD if "version" in name or "original" in name])
def test_files_of_earlier_versions_and_of_the_original_scripts_are_read(tmp_path: Path, name: str) -> None:
    BUILD[name](tmp_path)
    for path in tmp_path.glob("*.h5"):
        with open_hdf5(path, "") as file:
            assert "fingerprint" in file.attrs or name == "results, original"
    subject = next(subject for subject in HDF5 if subject.name == name)
    try:
        subject.check(subject.read(tmp_path))
    except CbirError as error:
        pytest.fail(str(error))
