"""The command cbir-export, also project/export_model.py."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

from bigearthnet_cbir.checkout import repository_root
from bigearthnet_cbir.cli import find_file, run
from bigearthnet_cbir.config import load_config
from bigearthnet_cbir.files import folder_lock
from bigearthnet_cbir.storage.run_folder import RunFolder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Export a trained encoder for other programs.")
    parser.add_argument("--filepath", required=True, help="the run's parameters.yaml")
    parser.add_argument("--output", type=Path, help="folder to write (default: export/ in the run folder)")
    parser.add_argument(
        "--allow-different", action="store_true",
        help="continue if the settings of the checkpoint differ from the YAML file; both are recorded",
    )  # fmt: skip
    return parser


def main(argv: list[str] | None = None) -> int:
    """Export a run's encoder; return the exit code."""
    arguments = _parser().parse_args(argv)

    def command() -> None:
        path = find_file(arguments.filepath, repository_root())
        config = load_config(path)
        from bigearthnet_cbir.pipelines.export import export_model  # imports torch: only after the YAML is validated

        folder = RunFolder.of(path, config.run_folder)
        checkpoint = Path(config.state_dict) if config.state_dict else folder.best
        output = arguments.output or folder.root / "export"
        # A checkpoint from elsewhere may have no run folder; then there is nothing to lock.
        with folder_lock(folder.root, "export") if folder.root.is_dir() else nullcontext():
            written = export_model(config, checkpoint, output, allow_different=arguments.allow_different)
        print(f"exported to {output}: {', '.join(written)}")

    return run(command)
