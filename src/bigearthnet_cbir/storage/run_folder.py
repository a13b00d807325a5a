"""Paths in a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PARAMETERS = "parameters.yaml"
RETRIEVAL = "retrieval.h5"
BASELINE_PREFIX = "baseline_"


def parameters_file(path: Path) -> Path:
    """Return the parameters.yaml of a run folder, or another path, which is a YAML file, as given."""
    return path / PARAMETERS if path.is_dir() else path


@dataclass(frozen=True)
class RunFolder:
    """Paths inside logs/<name>/<run>/."""

    root: Path

    @classmethod
    def of(cls, path: Path, configured: Path) -> RunFolder:
        """Return the run folder of a YAML file or folder.

        That is the folder itself, or the folder of a parameters.yaml, which may have been moved since it was written.

        Args:
            path: a run folder, its parameters.yaml, or another YAML file.
            configured: the run folder that the configuration names, for another YAML file.
        """
        if path.is_dir():
            return cls(path)
        return cls(path.parent if path.name == PARAMETERS else configured)

    @property
    def parameters(self) -> Path:
        """The resolved configuration."""
        return self.root / PARAMETERS

    @property
    def best(self) -> Path:
        """Checkpoint of the lowest validation loss."""
        return self.root / "checkpoints_model_best.pth.tar"

    @property
    def last(self) -> Path:
        """Checkpoint after the latest epoch."""
        return self.root / "checkpoints_model_last.pth.tar"

    @property
    def curves(self) -> Path:
        """Folder of the TensorBoard files."""
        return self.root / "training"

    @property
    def query(self) -> Path:
        """Features of the query split."""
        return self.root / "query.h5"

    @property
    def archive(self) -> Path:
        """Features of the archive split."""
        return self.root / "archive.h5"

    @property
    def codes(self) -> Path:
        """What turns its vectors into binary codes."""
        return self.root / "codes.h5"

    @property
    def train_features(self) -> Path:
        """Features of the training split, which hash heads are trained on."""
        return self.root / "train.h5"

    def hash_heads(self, loss: str, bits: int) -> Path:
        """Checkpoint of the hash heads that a loss trained for codes of so many bits."""
        return self.root / f"hash_heads_{loss}_{bits}.pth.tar"

    @property
    def retrieval(self) -> Path:
        """Neighbours and metrics."""
        return self.root / RETRIEVAL

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.root / "report.html"

    @property
    def index(self) -> Path:
        """Folder of what queries search (project/index.py)."""
        return self.root / "index"

    def baselines(self) -> dict[str, RunFolder]:
        """Folders of the baselines that have results, by name, in the order of their names."""
        folders = {
            path.name.removeprefix(BASELINE_PREFIX): RunFolder(path) for path in self.root.glob(f"{BASELINE_PREFIX}*")
        }
        return {name: folders[name] for name in sorted(folders) if folders[name].retrieval.exists()}

    def baseline(self, name: str) -> RunFolder:
        """Folder of a baseline, with the layout of a run folder."""
        return RunFolder(self.root / f"{BASELINE_PREFIX}{name}")
