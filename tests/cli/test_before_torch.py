"""Mistakes that need no network are reported before torch is imported."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.conftest import Archive, RealPairs

PROGRAM = """
import sys
from importlib import import_module
command = sys.argv.pop(1)
code = import_module(f"bigearthnet_cbir.cli.{command}").main()
assert "torch" not in sys.modules, "torch was imported"
sys.exit(code)
"""


def config_of(folder: Path, real: RealPairs, archive: Archive, changed: dict[str, str]) -> Path:
    listed = folder / "pairs.csv"
    listed.write_text("".join(f"{pair.s2},{pair.s1}\n" for pair in real.pairs))
    keys = {
        "name": "n",
        "logging_params": {"name": "r", "save_dir": str(folder / "logs")},
        **{f"{split}_csv": str(listed) for split in ("train", "val", "test")},
        "bigEarthPthLMDB_S2": str(archive.s2),
        "bigEarthPthLMDB_S1": str(archive.s1),
        **changed,
    }
    path = folder / "args.yaml"
    path.write_text(yaml.safe_dump(keys))
    return path


@pytest.mark.parametrize("command", ["train", "retrieve", "sweep", "index"])
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"val_csv": "nowhere.csv"}, "nowhere.csv"),
        ({"bigEarthPthLMDB_S2": "no_archive"}, "no_archive"),
        ({"val_csv": "others.csv"}, "1 of 1 Sentinel-2 patches of the list are not in this archive"),
        ({"val_csv": "metadata.parquet:validatoin"}, "validatoin"),
    ],
    ids=["list", "archive", "names", "split"],
)
def test_inputs_are_checked_first(
    command: str,
    changed: dict[str, str],
    said: str,
    tmp_path: Path,
    real_pairs: RealPairs,
    archives: dict[str, Archive],
) -> None:
    (tmp_path / "others.csv").write_text(
        "S2A_MSIL2A_20170613T101031_99_99,S1A_IW_GRDH_1SDV_20170612T165809_33UUP_99_99\n"
    )
    changed = {key: str(tmp_path / value) for key, value in changed.items()}
    config = config_of(tmp_path, real_pairs, archives["original"], changed)
    sweep = ["--folder_name", "g", "--loss_func", "contrastive", "--base", str(config)]
    words = sweep if command == "sweep" else ["--filepath", str(config)]
    done = subprocess.run([sys.executable, "-c", PROGRAM, command, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]
