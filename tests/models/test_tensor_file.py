"""Files of torch.save: damage that a checksum tells is refused, as is what no network can hold."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import pytest
import torch

from bigearthnet_cbir.errors import CheckpointError
from bigearthnet_cbir.models.safe_load import check_weights, read_tensor_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.save({"state_dict": {"weight": torch.arange(4000.0)}}, tmp_path / "file.pth")
    return tmp_path / "file.pth"


def test_bit_that_flips_in_a_weight_is_noticed(path):
    """PyTorch writes checksums and looks at none of them when it reads."""
    content = bytearray(path.read_bytes())
    place = content.index(torch.arange(100.0, 200.0).numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["state_dict"]["weight"][100] != 100, "or the test shows nothing"
    with pytest.raises(CheckpointError, match=r"file\.pth: not a readable file of tensors"):
        read_tensor_file(path, "train first")


def test_compressed_parts_are_refused_before_they_are_unpacked(path, tmp_path):
    """A megabyte of them could be a terabyte of weights."""
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(CheckpointError, match=r"packed\.pth: not a readable file of tensors"):
        read_tensor_file(packed, "train first")


@pytest.mark.parametrize("length", [0, 1, 4, 100, 8000, -1])
@pytest.mark.parametrize("is_new", [True, False])
def test_file_that_is_cut_short_is_refused(tmp_path, length, is_new, recwarn):
    path = tmp_path / "file.pth"
    torch.save({"weight": torch.arange(4000.0)}, path, _use_new_zipfile_serialization=is_new)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError):
        read_tensor_file(path, "train first")
    assert not recwarn.list


@pytest.mark.parametrize(
    "tensor",
    [torch.eye(3).to_sparse(), torch.ones(3, dtype=torch.complex64), torch.empty(3, device="meta")],
    ids=["sparse", "complex", "meta"],
)
def test_tensors_that_are_not_dense_and_real_are_refused(tmp_path, tensor):
    torch.save({"state_dict": {"a": [{"weight": tensor}]}}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="refused"):
        read_tensor_file(tmp_path / "file.pth", "train first")


def test_containers_that_hold_one_another_twice_are_looked_at_once(tmp_path):
    nested: list[object] = [torch.ones(1)]
    for _ in range(60):
        nested = [nested, nested]
    torch.save(nested, tmp_path / "file.pth")
    assert read_tensor_file(tmp_path / "file.pth", "train first")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("weight", torch.tensor([1.0, math.nan]), "weight: NaN, infinite"),
        ("weight", torch.tensor([1.0, -math.inf]), "weight: NaN, infinite"),
        ("weight", torch.tensor([math.inf, -math.inf]), "weight: NaN, infinite"),
        ("bn.running_var", torch.tensor([1.0, -1e-9]), "running_var: .* a variance below 0"),
        ("weight", torch.tensor([1, 2]), "weight: the data type differs"),
        ("number", torch.tensor([1.0, 2.0]), "number: the data type differs"),
    ],
)
def test_weights_that_no_network_can_have_are_refused(name, tensor, message):
    own = {"weight": torch.zeros(2), "bn.running_var": torch.ones(2), "number": torch.zeros(2, dtype=torch.long)}
    check_weights(own, own, "file.pth")
    check_weights({"weight": torch.full((2,), 3e38)}, own, "file.pth")  # whose sum is infinite
    check_weights({"weight": torch.ones(2, dtype=torch.float16), "fc": torch.tensor(math.nan)}, own, "file.pth")
    with pytest.raises(CheckpointError, match=message):
        check_weights({**own, name: tensor}, own, "file.pth")
