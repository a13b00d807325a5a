"""Two runs on the six real pairs, served: in this process for the API, on a port for the browser."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Archive
from tests.query.conftest import make_run

from bigearthnet_cbir.pipelines.index import build_index
from bigearthnet_cbir.query.index import Index
from bigearthnet_cbir.storage.run_folder import RunFolder

fastapi = pytest.importorskip("fastapi", reason="the server's packages are not installed (pip install '.[dev]')")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("httpx")
pytest.importorskip("python_multipart")
from fastapi.testclient import TestClient  # noqa: E402

from bigearthnet_cbir.serve.app import create_app  # noqa: E402
from bigearthnet_cbir.serve.served_run import ServedRun  # noqa: E402
from bigearthnet_cbir.serve.server import open_runs  # noqa: E402
from bigearthnet_cbir.serve.uploads import Encoders  # noqa: E402

LOCAL = "http://127.0.0.1:8000"


@pytest.fixture(scope="session")
def run_folders(tmp_path_factory: pytest.TempPathFactory, archives: dict[str, Archive]) -> list[Path]:
    folders = []
    for number in range(2):
        made: RunFolder = make_run(
            tmp_path_factory.mktemp("served"), archives["rico"], seed=number,
            logging_params={"save_dir": str(tmp_path_factory.mktemp("logs")), "name": f"encoder{number}"},
        )  # fmt: skip
        build_index(made.root)
        folders.append(made.root)
    return folders


@pytest.fixture(scope="session")
def encoders(run_folders: list[Path]) -> Iterator[Encoders]:
    found = Encoders(run_folders)
    yield found
    found.close()


@pytest.fixture(scope="session")
def runs(run_folders: list[Path]) -> list[ServedRun]:
    return open_runs(run_folders)


@pytest.fixture(scope="session")
def index(runs: list[ServedRun]) -> Index:
    return runs[0].index


@pytest.fixture(scope="session")
def client(runs: list[ServedRun], encoders: Encoders) -> TestClient:
    return TestClient(create_app(runs, encoders=encoders, warm=False), base_url=LOCAL, raise_server_exceptions=False)


@pytest.fixture(scope="session")
def address(runs: list[ServedRun], encoders: Encoders) -> Iterator[str]:
    """The server on a free port of the loopback interface."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        app = create_app(runs, encoders=None, warm=False)
        app.state.cbir.encoders = encoders  # ends with its own fixture, not with this server
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)
