import json
from pathlib import Path

import numpy as np
import pytest

from bigearthnet_cbir.cli.make_demo import main
from bigearthnet_cbir.data.geotiff import read_s1_folder, read_s2_folder
from bigearthnet_cbir.data.labels import to_19_classes
from bigearthnet_cbir.data.synthetic import make_pair
from bigearthnet_cbir.pipelines.demo import S1_FOLDER, S2_FOLDER, DemoWorld, build_demo

WORLD = DemoWorld(train=3, val=1, test=2, seed=4)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("demo") / "new" / "world"
    assert build_demo(output, WORLD) == 6
    return output


def test_the_files_hold_the_worlds_pixels_and_labels(demo: Path) -> None:
    for index in range(6):
        pair = make_pair(WORLD.seed, index)
        s2, s1 = demo / S2_FOLDER / pair.acquisition.names.s2, demo / S1_FOLDER / pair.acquisition.names.s1
        for written, made in ((read_s2_folder(s2), pair.s2), (read_s1_folder(s1), pair.s1)):
            assert set(written) == set(made)
            assert all(np.array_equal(written[band], made[band]) for band in made)
        notes = json.loads((s1 / f"{s1.name}_labels_metadata.json").read_text())
        assert to_19_classes(notes["labels"]) == pair.labels
        assert notes["corresponding_s2_patch"] == s2.name


def test_split_lists_name_every_pair_once(demo: Path) -> None:
    lines = {split: (demo / f"{split}.csv").read_text().splitlines() for split in ("train", "val", "test")}
    assert {split: len(found) for split, found in lines.items()} == {"train": 3, "val": 1, "test": 2}
    pairs = [tuple(line.split(",")) for found in lines.values() for line in found]
    assert len(set(pairs)) == 6
    assert {s2 for s2, _ in pairs} == {path.name for path in (demo / S2_FOLDER).iterdir()}
    assert {s1 for _, s1 in pairs} == {path.name for path in (demo / S1_FOLDER).iterdir()}


def test_worker_processes_write_the_same_bytes_as_this_one(demo: Path, tmp_path: Path) -> None:
    build_demo(tmp_path, WORLD, workers=2)
    assert contents(tmp_path) == contents(demo)


def test_an_interrupted_demo_is_completed_and_a_complete_one_reused(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []

    def write(output: Path, seed: int, index: int) -> int:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(index)
        return genuine(output, seed, index)

    from bigearthnet_cbir.pipelines import demo as module

    genuine = module._write_pair
    monkeypatch.setattr(module, "_write_pair", write)
    with pytest.raises(KeyboardInterrupt):
        build_demo(tmp_path, WORLD)
    monkeypatch.undo()
    assert not (tmp_path / "train.csv").exists()
    assert build_demo(tmp_path, WORLD) == 4
    assert contents(tmp_path) == contents(demo)
    assert build_demo(tmp_path, WORLD) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--train", "0"], "--train is 0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--workers", "-2"], "--workers is -2"),
    ],
)
def test_senseless_sizes_end_in_one_line(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--output", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_things_in_it_is_refused_untouched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["--output", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert main(["--output", str(tmp_path / "thesis.txt")]) == 2
    assert "is a file" in capsys.readouterr().err
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


def test_a_demo_of_another_world_is_refused_by_what_differs(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(demo)
    assert main(["--output", str(demo), "--train", "3", "--val", "1", "--test", "5", "--seed", "4"]) == 2
    error = capsys.readouterr().err
    assert "test is 2 instead of 5" in error
    assert "seed" not in error
    assert contents(demo) == before


def test_the_command_says_what_it_did(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--output", str(demo), "--train", "3", "--val", "1", "--test", "2", "--seed", "4"]
    assert main(arguments) == 0
    assert "3 train, 1 val, 2 test pairs; complete, reused" in capsys.readouterr().out
