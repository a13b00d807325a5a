"""The command cbir-export-embeddings, also project/export_embeddings.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from bigearthnet_cbir.checkout import repository_root
from bigearthnet_cbir.cli import find_file, run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Export the embeddings and codes of a run as GeoParquet and .npz.")
    parser.add_argument("--filepath", required=True, help="run folder, or its parameters.yaml or retrieval.h5")
    parser.add_argument("--output", type=Path, help="folder to write (default: embeddings/ in the run folder)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Export a run's embeddings; return the exit code."""
    arguments = _parser().parse_args(argv)

    def command() -> None:
        path = find_file(arguments.filepath, repository_root())
        from bigearthnet_cbir.pipelines.export_embeddings import export_embeddings

        for written in export_embeddings(path if path.is_dir() else path.parent, arguments.output):
            print(f"exported: {written}, {written.stat().st_size / 1e6:.1f} MB")

    return run(command)
