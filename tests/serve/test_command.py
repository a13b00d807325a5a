"""The command cbir-serve: what it says, where it listens, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from bigearthnet_cbir.cli import serve as command
from bigearthnet_cbir.serve.security import is_loopback

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def start(*arguments: str) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "project" / "serve.py"), *arguments], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def address_in(process: "subprocess.Popen[str]") -> str:
    for line in process.stdout:
        if "http://" in line:
            return line.split("http://")[1].split()[0]
    raise AssertionError(process.stderr.read())


def test_it_serves_on_loopback_and_ends_cleanly_with_ctrl_c(run_folders: list[Path]) -> None:
    with start("--filepath", *map(str, run_folders), "--port", "0") as process:
        address = address_in(process)
        assert address.startswith("127.0.0.1:")
        assert httpx.get(f"http://{address}/api/health").json()["status"] == "ok"
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said.strip() == "the server has stopped"
    assert "Traceback" not in errors


def test_another_host_is_told_what_it_means(run_folders: list[Path]) -> None:
    with start("--filepath", str(run_folders[0]), "--port", "0", "--host", "0.0.0.0") as process:
        first = process.stdout.readline()
        port = address_in(process).rpartition(":")[2]
        assert httpx.get(f"http://127.0.0.1:{port}/api/health").json()["status"] == "ok"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert first.startswith("warning: other machines can connect to 0.0.0.0.")


@pytest.mark.parametrize(("host", "own"), [
    ("127.0.0.1", True), ("127.8.8.8", True), ("localhost", True), ("::1", True), ("[::1]", True), ("0.0.0.0", False),
    ("::", False), ("192.168.1.1", False), ("localhost.example.org", False), ("", False),
])  # fmt: skip
def test_which_hosts_are_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) == own


def test_without_its_packages_it_names_the_extra(run_folders: list[Path], monkeypatch, capsys) -> None:
    monkeypatch.setattr(command, "NEEDS", ("fastapi", "no_such_package"))
    assert command.main(["--filepath", str(run_folders[0])]) == 2
    assert capsys.readouterr().err == "error: no_such_package is not installed; pip install '.[serve]'\n"


def test_a_port_in_use_is_told_in_one_line(run_folders: list[Path], capsys) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert command.main(["--filepath", str(run_folders[0]), "--port", port]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --host 127.0.0.1 --port {port}: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--port", "70000"], ["--port", "-1"]])
def test_a_wrong_port_is_told_in_one_line(run_folders: list[Path], arguments: list[str], capsys) -> None:
    assert command.main(["--filepath", str(run_folders[0]), *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: --port is ")


def test_a_run_without_an_index_is_told_in_one_line(tmp_path: Path, capsys) -> None:
    assert command.main(["--filepath", str(tmp_path), "--port", "0"]) == 2
    assert "there is no index" in capsys.readouterr().err


def test_the_search_path_loads_no_torch(run_folders: list[Path]) -> None:
    """Only the worker that embeds uploads does, in a process of its own."""
    code = (
        "import sys; from pathlib import Path; from bigearthnet_cbir.serve.server import open_runs; "
        "from bigearthnet_cbir.serve.app import create_app; "
        "from bigearthnet_cbir.serve.requests import SearchQuestion; "
        "runs = open_runs([Path(sys.argv[1])]); create_app(runs); "
        "found = runs[0].answer(SearchQuestion(patch=runs[0].index.names_s2[0])); runs[0].thumbnails.jpeg('s2', 0); "
        "print(len(found.results), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run_folders[0])], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["5", "False"]


def test_a_server_whose_index_lies_on_ray_answers_the_same(run_folders: list[Path], client) -> None:
    import ray

    from bigearthnet_cbir.search.parallel_session import ray_session
    from bigearthnet_cbir.serve.on_ray import on_ray
    from bigearthnet_cbir.serve.requests import SearchQuestion
    from bigearthnet_cbir.serve.server import open_runs

    with ray_session(2, 1 << 20):
        assert ray.is_initialized()
        run = open_runs(run_folders[:1], on_ray)[0]
        run.warm()
        for question in ({}, {"direction": "s1_s2"}, {"distance": "hamming"}, {"filters": {"box": (-20, 30, 40, 70)}}):
            asked = {"patch": run.index.names_s2[1], **question}
            alone = client.post("/api/search", json=asked).json()["results"]
            assert [result.model_dump(mode="json") for result in run.answer(SearchQuestion(**asked)).results] == alone
