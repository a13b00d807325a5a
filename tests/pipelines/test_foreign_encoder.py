"""Encoders of other projects: the example of docs/embeddings.md, what it is fed, and every mistake in one line."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tests.conftest import Archive, RealPairs

import bigearthnet_cbir as cbir
from bigearthnet_cbir.cli.retrieve import main as retrieve_command
from bigearthnet_cbir.config import Config, parse_config, write_config
from bigearthnet_cbir.data.bands import BAND_STATISTICS
from bigearthnet_cbir.data.dataset import BigEarthNetMM
from bigearthnet_cbir.errors import CbirError, ConfigError, DataError, QueryError
from bigearthnet_cbir.pipelines import index_sources
from bigearthnet_cbir.pipelines.feature_extractors import configured_extractor
from bigearthnet_cbir.pipelines.index import build_index
from bigearthnet_cbir.pipelines.query import Question, ask
from bigearthnet_cbir.query.index import open_index
from bigearthnet_cbir.types import Patch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "embeddings.md"
EXAMPLE = next(
    block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "my_encoder.py" in block
)

RECORDER = """
import torch
seen = []
class Recorder:
    bands_s1 = ["VH"]
    bands_s2 = ["B09", "B02", "B11"]
    size = 120
    normalisation = {"B02": (429.9430203, 572.41639287), "VH": (0.0, 2.0)}
    def encode_s1(self, images):
        seen.append(("s1", images))
        return images.flatten(1)[:, :6]
    def encode_s2(self, images):
        seen.append(("s2", images))
        return images.flatten(1)[:, :6]
def build():
    return Recorder()
"""


def config_of(folder: Path, archive: Archive, spec: str = "my_encoder:build", **more: object) -> Config:
    return parse_config(
        {
            "train_csv": f"{archive.parquet}:train", "val_csv": f"{archive.parquet}:test",
            "test_csv": f"{archive.parquet}:train", "bigEarthPthLMDB_S2": str(archive.s2),
            "bigEarthPthLMDB_S1": str(archive.s1), "num_workers": 0, "device": "cpu", "precision": "fp32",
            "encoder": spec, "encoder_path": str(folder), "name": "foreign",
            "logging_params": {"save_dir": str(folder / "logs"), "name": "run"}, **more,
        }
    )  # fmt: skip


def yaml_file(folder: Path, archive: Archive, code: str, **more: object) -> Path:
    """Write a module and a YAML file that names it, without encoder_path, into one folder."""
    folder.mkdir(exist_ok=True)
    (folder / "my_encoder.py").write_text(code)
    write_config(config_of(folder, archive, **more), folder / "my.yaml")
    lines = (folder / "my.yaml").read_text().splitlines()
    (folder / "my.yaml").write_text("\n".join(line for line in lines if not line.startswith("encoder_path")))
    return folder / "my.yaml"


def test_the_example_of_the_docs_is_measured(
    tmp_path: Path, archives: dict[str, Archive], capsys: pytest.CaptureFixture[str]
) -> None:
    path = yaml_file(tmp_path, archives["rico"], EXAMPLE)
    assert len(EXAMPLE.splitlines()) < 40
    assert retrieve_command(["--filepath", str(path)]) == 0
    assert "S1 -> S2" in capsys.readouterr().out
    run = tmp_path / "logs/foreign/run"
    assert (run / "report.html").is_file()
    results = cbir.read_results(run / "retrieval.h5")
    assert len(results.directions) == 7
    assert "my_encoder:build" in results.attributes["encoder"]
    with h5py.File(run / "archive.h5") as file:
        stored = {name: file[name][:] for name in ("feature", "feature_s1", "feature_s2")}
    assert stored["feature"].shape == (3, 64)
    pairs = cbir.read_split(f"{archives['rico'].parquet}:train")
    labels = cbir.read_split_labels(f"{archives['rico'].parquet}:train")
    data = BigEarthNetMM.from_lmdb(archives["rico"].s2, pairs, labels=labels)
    found = cbir.embed(cbir.load_encoder(run, device="cpu", precision="fp32"), data)
    np.testing.assert_array_equal(found.fused, stored["feature"])
    np.testing.assert_array_equal(found.s1, stored["feature_s1"])
    # What one patch gives by hand: normalised, then resized.
    scope: dict = {}
    exec(EXAMPLE, scope)
    network = scope["build"]().eval()
    stored_bands = cbir.BigEarthNetMM.from_lmdb(archives["rico"].s2, pairs[:1], labels=labels)[0]
    mean, deviation = zip(*(network.normalisation[band] for band in network.bands_s1), strict=True)
    image = (stored_bands.s1[None] - torch.tensor(mean).view(1, 2, 1, 1)) / torch.tensor(deviation).view(1, 2, 1, 1)
    image = torch.nn.functional.interpolate(image, size=(96, 96), mode="bicubic", align_corners=False)
    with torch.inference_mode():
        np.testing.assert_allclose(network.encode_s1(image)[0].numpy(), found.s1[0], rtol=1e-4, atol=1e-5)


def test_bands_come_by_name_in_the_order_that_was_asked_for(
    tmp_path: Path, archives: dict[str, Archive], true_patches: dict[str, Patch]
) -> None:
    (tmp_path / "my_encoder.py").write_text(RECORDER)
    extractor = configured_extractor(config_of(tmp_path, archives["original"]), tmp_path / "none")
    data = BigEarthNetMM.from_lmdb(
        s2=archives["original"].s2, s1=archives["original"].s1,
        pairs=cbir.read_split(f"{archives['rico'].parquet}:train"),
    )  # fmt: skip
    extractor.compute(data.__getitems__([0, 1]))
    import my_encoder

    (_, s1), (_, s2) = my_encoder.seen[-2:]
    assert s1.shape == (2, 1, 120, 120)
    assert s2.shape == (2, 3, 120, 120)
    for row in range(2):
        radar, optical = true_patches[data.pairs[row].s1].bands, true_patches[data.pairs[row].s2].bands
        np.testing.assert_allclose(s1[row, 0].numpy(), radar["VH"] / 2, rtol=1e-6)
        mean, deviation = BAND_STATISTICS["B02"]
        np.testing.assert_allclose(s2[row, 1].numpy(), (optical["B02"] - mean) / deviation, rtol=1e-3, atol=1e-5)
        for channel, band in ((0, "B09"), (2, "B11")):
            raw = torch.from_numpy(optical[band].astype(np.float32))[None, None]
            wanted = torch.nn.functional.interpolate(raw, size=(120, 120), mode="bicubic", align_corners=False)[0, 0]
            np.testing.assert_allclose(s2[row, channel].numpy(), wanted.numpy(), rtol=1e-5, atol=1e-2)


def test_an_encoder_of_one_sensor_has_one_direction(tmp_path: Path, archives: dict[str, Archive]) -> None:
    code = EXAMPLE.replace('bands_s1 = ("VV", "VH")', "bands_s1 = ()")
    path = yaml_file(tmp_path, archives["rico"], code)
    written = cbir.retrieve(path)
    assert list(cbir.read_results(written).directions) == ["s2_s2"]
    assert cbir.embed(
        cbir.load_encoder(written.parent, device="cpu"),
        BigEarthNetMM.from_lmdb(
            archives["rico"].s2, cbir.read_split(f"{archives['rico'].parquet}:train"), require_labels=False
        ),
    ).s1.shape == (3, 0)  # fmt: skip


def test_other_code_or_other_bands_are_computed_anew(tmp_path: Path, archives: dict[str, Archive]) -> None:
    path = yaml_file(tmp_path, archives["rico"], EXAMPLE)
    first = cbir.retrieve(path)
    times = [first.stat().st_mtime_ns]
    cbir.retrieve(path)
    times.append(first.stat().st_mtime_ns)
    assert times[0] == times[1]
    (tmp_path / "my_encoder.py").write_text(EXAMPLE.replace("manual_seed(0)", "manual_seed(1)"))
    import sys

    del sys.modules["my_encoder"]  # as a new process would
    cbir.retrieve(path)
    assert first.stat().st_mtime_ns != times[1]


def test_two_folders_may_have_a_module_of_one_name(tmp_path: Path, archives: dict[str, Archive]) -> None:
    paths = [
        yaml_file(tmp_path / name, archives["rico"], EXAMPLE.replace("Linear(16, 32)", f"Linear(16, {width})"))
        for name, width in (("a", 24), ("b", 40))
    ]
    for path, width in zip(paths, (24, 40), strict=True):
        with h5py.File(cbir.retrieve(path).with_name("query.h5")) as file:
            assert file["feature_s1"].shape[1] == width


MISTAKES = {
    "no module": ("nowhere:build", EXAMPLE, "module nowhere is not among the installed packages or in"),
    "no function": ("my_encoder:make", EXAMPLE, "make does not exist"),
    "no callable": ("my_encoder:S2", EXAMPLE, "S2 is not callable"),
    "needs a package": ("my_encoder:build", "import not_a_package_at_all", "its module imports not_a_package_at_all"),
    "syntax": ("my_encoder:build", "def build(:", "SyntaxError"),
    "band": ("my_encoder:build", EXAMPLE.replace('"B08")', '"B10")'), "bands_s2 has B10; choose from B02"),
    "no bands": ("my_encoder:build", EXAMPLE.replace("bands_", "others_"), "has no bands"),
    "size": ("my_encoder:build", EXAMPLE.replace("size = 96", "size = 0"), "its size is 0"),
    "normalisation": ("my_encoder:build", EXAMPLE.replace("(-12.6, 5.1)", "(-12.6, 0)"), r"standard deviation \(> 0\)"),
    "no normalisation": ("my_encoder:build", EXAMPLE.replace("normalisation", "norm"), "normalisation is None"),
    "shape": ("my_encoder:build", EXAMPLE.replace("return self.s1(images)", "return images"), r"returned \(1, 2, 96"),
    "raises": (
        "my_encoder:build", EXAMPLE.replace("return self.s1(images)", "return self.s3(images)"),
        r"encode_s1 failed: AttributeError: .*my_encoder.py, line \d+",
    ),
    "method": ("my_encoder:build", EXAMPLE.replace("def encode_s2", "def encode"), "but no method encode_s2"),
    "nan": (
        "my_encoder:build", EXAMPLE.replace("return self.s1(images)", "return self.s1(images) / (images.std() * 0)"),
        "NaN or infinity",
    ),
    "weights": ("my_encoder:build", EXAMPLE.replace("    size", '    weights = "gone.pt"\n    size'), "No such file"),
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(MISTAKES))
def test_a_mistake_is_one_line(
    tmp_path: Path, archives: dict[str, Archive], capsys: pytest.CaptureFixture[str], what: str
) -> None:
    spec, code, said = MISTAKES[what]
    path = yaml_file(tmp_path, archives["rico"], code, encoder=spec)
    assert retrieve_command(["--filepath", str(path)]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: my.yaml: encoder is "), line
    assert re.search(said, line), line


def test_an_archive_without_the_coarse_bands_is_one_line(tmp_path: Path, archives: dict[str, Archive]) -> None:
    (tmp_path / "my_encoder.py").write_text(RECORDER)
    extractor = configured_extractor(config_of(tmp_path, archives["rico"]), tmp_path / "none")
    data = BigEarthNetMM.from_lmdb(
        archives["rico"].s2, cbir.read_split(f"{archives['rico'].parquet}:train"), require_labels=False
    )
    batch = data.__getitems__([0])
    assert batch.s2_60m.shape == (1, 2, 20, 20)
    with pytest.raises(DataError, match="it needs B09, which the archive lacks"):
        extractor.compute(batch._replace(s2_60m=torch.empty(0)))


def test_what_needs_a_network_of_ours_refuses(tmp_path: Path, archives: dict[str, Archive]) -> None:
    path = yaml_file(tmp_path, archives["rico"], EXAMPLE)
    with pytest.raises(ConfigError, match="a network of another project; remove the key encoder to train"):
        cbir.train(path)
    with pytest.raises(ConfigError, match="use --baseline band_statistics"):
        cbir.retrieve(path, baseline="untrained")
    assert cbir.retrieve(path, baseline="band_statistics").is_file()
    (tmp_path / "logs/foreign/run/checkpoints_model_last.pth.tar").write_bytes(b"a trained network")
    with pytest.raises(ConfigError, match="holds a trained run"):
        cbir.retrieve(path)
    for wrong in ("my_encoder", "a b:c", "a:b:c", "os.path:", "../x:y", 3):
        with pytest.raises(ConfigError, match=r"give package\.module:function"):
            config_of(tmp_path, archives["rico"], encoder=wrong)
    with pytest.raises(CbirError, match="state_dict is given with encoder"):
        config_of(tmp_path, archives["rico"], state_dict="x.pth")


def test_an_index_and_a_patch_from_outside(
    tmp_path: Path, archives: dict[str, Archive], real_pairs: RealPairs, monkeypatch
) -> None:
    monkeypatch.setattr(index_sources, "is_installed", lambda: False)
    path = yaml_file(tmp_path, archives["rico"], EXAMPLE)
    run = cbir.retrieve(path).parent
    index = open_index(build_index(run))
    assert index.size == 5
    with h5py.File(run / "archive.h5") as file:
        names = file["patch_name"].asstr()[:, 1].tolist()
        stored = file["feature_s2"][:]
    for name, vector in zip(names, stored, strict=True):
        np.testing.assert_array_equal(index.vectors("s2")[index.position(name)], vector)
    folder = real_pairs.s2_root / names[0]
    answer = ask(index, Question(s2=folder, archive="s2"), run)
    assert answer.asked[0].name_s2 == names[0]
    one = yaml_file(tmp_path / "one", archives["rico"], EXAMPLE.replace('bands_s1 = ("VV", "VH")', "bands_s1 = ()"))
    index = open_index(build_index(cbir.retrieve(one).parent))
    assert len(ask(index, Question(patch=names[0], sensor="s2", archive="s2"), one.parent).hits) == 4
    with pytest.raises(QueryError, match="use the s2 vectors"):
        ask(index, Question(patch=names[0]), one.parent)
