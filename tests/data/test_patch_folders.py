"""The JSONs of version 1: what is wrong in one is told in one line."""

from __future__ import annotations

import pytest

from bigearthnet_cbir.data.patch_folders import read_notes
from bigearthnet_cbir.errors import DataError


@pytest.mark.parametrize("content", [b"", b"[", b"3", b"{}", b"[" * 100_000, b'{"labels": 9}', b"\xff\xfe{"])
def test_json_that_is_none_is_refused(tmp_path, content):
    folder = tmp_path / "S2A_x"
    folder.mkdir()
    (folder / "S2A_x_labels_metadata.json").write_bytes(content)
    with pytest.raises(DataError, match=r"S2A_x_labels_metadata\.json: "):
        read_notes(folder)
