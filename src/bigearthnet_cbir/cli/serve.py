"""The command cbir-serve, also project/serve.py."""

from __future__ import annotations

import argparse
import importlib.util

from bigearthnet_cbir.checkout import repository_root
from bigearthnet_cbir.cli import find_file, run
from bigearthnet_cbir.errors import ConfigError

NEEDS = ("fastapi", "uvicorn", "python_multipart")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Serve a web page and a JSON API for similarity search. Build the index with project/index.py.",
        epilog="docs/serve.md describes the page, the API, and security if other machines can connect.",
    )
    parser.add_argument("--filepath", required=True, nargs="+", action="extend", metavar="RUN",
                        help="run folder, or its parameters.yaml; several runs are shown side by side")  # fmt: skip
    parser.add_argument(
        "--host", default="127.0.0.1", help="address of the server (default 127.0.0.1: this machine only)"
    )
    parser.add_argument("--port", type=int, default=8000, help="(default 8000; 0: any free port)")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="hold the index in the memory of a Ray cluster: auto or host:port"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Serve until Ctrl-C; return the exit code."""
    arguments = _parser().parse_args(argv)

    def command() -> None:
        if not 0 <= arguments.port <= 65535:
            raise ConfigError(f"--port is {arguments.port}; give a number from 0 to 65535")
        missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
        if missing:
            raise ConfigError(f"{', '.join(missing)} is not installed; pip install '.[serve]'")
        paths = [find_file(given, repository_root()) for given in arguments.filepath]
        folders = [path if path.is_dir() else path.parent for path in paths]
        from bigearthnet_cbir.serve.server import serve

        serve(folders, arguments.host, arguments.port, arguments.ray)

    return run(command)
