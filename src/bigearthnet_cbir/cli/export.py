"""The command project/export_model.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from bigearthnet_cbir.cli import find_file, run
from bigearthnet_cbir.config import load_config
from bigearthnet_cbir.config.reading import repository_root
from bigearthnet_cbir.storage.run_folder import PARAMETERS, RunFolder


def main(argv: list[str] | None = None) -> int:
    """Export a run's encoder; return the exit code."""
    parser = argparse.ArgumentParser(prog="export_model.py", description="Export a trained encoder for other programs.")
    parser.add_argument("--filepath", required=True, help="the run's parameters.yaml")
    parser.add_argument("--output", type=Path, help="folder to write (default: export/ in the run folder)")
    arguments = parser.parse_args(argv)

    def command() -> None:
        path = find_file(arguments.filepath, repository_root())
        config = load_config(path)
        from bigearthnet_cbir.pipelines.export import export_model  # torch: only once the YAML is known to be right

        folder = RunFolder(path.parent if path.name == PARAMETERS else config.run_folder)
        checkpoint = Path(config.state_dict) if config.state_dict else folder.best
        output = arguments.output or folder.root / "export"
        print(f"exported to {output}: {', '.join(export_model(config, checkpoint, output))}")

    return run(command)
