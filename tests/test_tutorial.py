"""The tutorial notebook runs as it stands."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "tutorial.ipynb"


@pytest.mark.slow
def test_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the notebook makes its data
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    done = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) == 4
    assert any("chance" in output.get("text", "") for output in outputs)
    assert (tmp_path / "bigearthnet_cbir_tutorial" / "runs" / "first" / "report.html").exists()


def test_the_notebook_is_committed_with_its_outputs() -> None:
    assert NOTEBOOK.stat().st_size < 600_000
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) == 4
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
