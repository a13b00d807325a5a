"""Opening the runs and running the server until it is interrupted."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import uvicorn

from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.pipelines.index_state import open_current_index
from bigearthnet_cbir.query.find import Nearest
from bigearthnet_cbir.query.index import Index
from bigearthnet_cbir.search.parallel_session import ray_session
from bigearthnet_cbir.serve.app import create_app
from bigearthnet_cbir.serve.on_ray import on_ray
from bigearthnet_cbir.serve.security import is_loopback
from bigearthnet_cbir.serve.served_run import ServedRun
from bigearthnet_cbir.serve.thumbnails import Thumbnails
from bigearthnet_cbir.serve.uploads import Encoders

logger = logging.getLogger(__name__)


MOST_CONNECTIONS: Final = 256
_SECONDS_TO_END: Final = 3

OPEN_TO_OTHERS: Final = (
    "warning: other machines can connect to {host}. Everyone who can connect can search, see thumbnails and upload "
    "files; there is no password and no encryption. Use a reverse proxy that adds both, or --host 127.0.0.1 with an "
    "SSH tunnel (ssh -L)."
)


def open_runs(folders: Sequence[Path], nearest_of: Callable[[Index], Nearest] | None = None) -> list[ServedRun]:
    """Open the indexes of run folders.

    Args:
        folders: of the runs; the map shows the patches of the first.
        nearest_of: returns the search function of an index; None to search in this process.

    Raises:
        QueryError: a run has no index, or its index is out of date.
    """
    runs: list[ServedRun] = []
    for folder, name in zip(folders, _names(folders), strict=True):
        index = open_current_index(folder)
        first = runs[0].index if runs else None
        nearest = None if nearest_of is None else nearest_of(index)
        runs.append(ServedRun(name, index, open_thumbnails(index), first=first, nearest=nearest))
    return runs


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the display names of runs: the folder name, with the name of its parent if two are equal."""
    last = [folder.resolve().name for folder in folders]
    return [f"{folder.resolve().parent.name}/{name}" if last.count(name) > 1 else name
            for folder, name in zip(folders, last, strict=True)]  # fmt: skip


def open_thumbnails(index: Index) -> Thumbnails:
    """Return the thumbnails of an index. They are unavailable if its patch stores are missing."""
    configuration: dict[str, Any] = index.manifest.get("configuration", {})
    paths = [configuration.get(f"bigEarthPthLMDB_{sensor}") for sensor in ("S1", "S2")]
    s1, s2 = (Path(path) if path and Path(path).is_dir() else None for path in paths)
    if s1 is None or s2 is None:
        logger.warning("the patch stores of this index are not on this machine: the page shows no thumbnails")
    return Thumbnails(index, s1, s2)


def serve(
    folders: Sequence[Path], host: str, port: int, ray_address: str | None = None, say: Callable[[str], None] = print
) -> None:
    """Serve runs until Ctrl-C.

    Args:
        folders: of the runs.
        host: address or name to bind to.
        port: 0 for any free one.
        ray_address: auto or host:port of the Ray cluster that holds the index; None for this process.
        say: prints a line.

    Raises:
        ConfigError: the server cannot bind to the address.
        QueryError: see `open_runs`.
        SearchError: there is no such cluster.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(host, port))
        if ray_address is not None:
            stack.enter_context(ray_session(0, 0, ray_address))
        runs = open_runs(folders, None if ray_address is None else on_ray)
        app = create_app(runs, encoders=Encoders(folders), only_loopback=is_loopback(host))
        if not is_loopback(host):
            say(OPEN_TO_OTHERS.format(host=host))
        shown, names = f"[{host}]" if ":" in host else host, ", ".join(run.name for run in runs)
        say(f"serving {names}: http://{shown}:{listener.getsockname()[1]}  (Ctrl-C stops it)")
        with suppress(KeyboardInterrupt):  # uvicorn has closed the connections and raises the interrupt again
            uvicorn.Server(uvicorn.Config(
                app, log_level="warning", access_log=False, server_header=False, limit_concurrency=MOST_CONNECTIONS,
                timeout_graceful_shutdown=_SECONDS_TO_END,
            )).run(sockets=[listener])  # fmt: skip
        say("the server has stopped")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()  # from here on, requests wait for the server instead of being refused
        except OSError:
            listener.close()
            raise
        return listener
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"--host {host} --port {port}: {reason}; choose another address or port") from error
