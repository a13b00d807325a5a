"""A warm process that runs the package's commands in forked children: a case costs no imports.

python -m tests.faults.server reads one JSON request per line and answers with one JSON line. Where the system allows
it, the process has a mount namespace of its own: file systems that it mounts end with it, however it ends.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import pickle
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 32, 16384, 1 << 18

COMMANDS = ("encode", "train", "retrieve", "report", "index")
PHASES = {
    "bigearthnet_cbir.pipelines.retrieve": {
        "extract": "extract",
        "search_and_score": "search",
        "evaluate_direction": "score",
        "write_results": "score",
    },
}
"""Module -> function -> what a write inside it belongs to."""

Request = dict[str, Any]


def check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    check(libc.mount(*(word.encode() for word in (source, target, kind)), flags, data.encode()), f"mount {target}")


def own_mounts() -> bool:
    """Enter a mount namespace, in a user namespace where root is not at hand; return whether that was allowed."""
    uid, gid = os.getuid(), os.getgid()
    try:
        if libc.unshare(CLONE_NEWNS) != 0:
            check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare")
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        mount("none", "/", "none", MS_REC | MS_PRIVATE, "")
    except OSError:
        return False
    return True


def shrink() -> None:
    """Make blocks so small that a small run has several of each kind."""
    from bigearthnet_cbir.search import partition as plan

    plan.QUERY_TILE = 4
    from bigearthnet_cbir.data.patch_store import PatchWriter
    from bigearthnet_cbir.pipelines import code_comparison, extract, index_sources
    from bigearthnet_cbir.query import index_writing
    from bigearthnet_cbir.search import knn

    assert knn.QUERY_TILE == 4
    knn.BLOCKS_PER_THREAD = 1
    extract.EXTRACTION_BATCH = 8
    extract.BLOCK_BATCHES = 1
    code_comparison.LENGTHS = (16,)
    index_sources.is_installed = lambda: False  # the official lists do not have these pairs, and take 8 s to read
    index_writing.RECORD_ROWS = 16
    PatchWriter.__init__.__kwdefaults__.update(batch=8, map_size=1 << 20)


def narrow() -> None:
    """Make resnet10 an eighth as wide, so that a checkpoint is written and copied in no time."""
    import torch

    from bigearthnet_cbir.config import schema as keys
    from bigearthnet_cbir.models import resnet

    resnets = resnet.import_resnet_module()

    class Narrow(resnets.ResNet):
        def _make_layer(self, block: Any, planes: int, *rest: Any, **options: Any) -> Any:
            return super()._make_layer(block, planes // 8, *rest, **options)

        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **options)
            self.fc = torch.nn.Linear(512 // 8, 1)

    resnets.ResNet = Narrow
    keys.BACKBONE_WIDTHS["resnet10"] = 512 // 8


def warm_up() -> None:
    import torch

    torch.set_num_threads(1)
    shrink()
    narrow()
    for name in COMMANDS:
        importlib.import_module(f"bigearthnet_cbir.cli.{name}")
    for name in ("train", "retrieve", "report", "index"):
        importlib.import_module(f"bigearthnet_cbir.pipelines.{name}")


def kernels() -> dict[str, Any]:
    """Return the compiled functions of the package by name."""
    from numba.core.registry import CPUDispatcher

    return {
        f"{module}.{name}": value
        for module, content in list(sys.modules.items())
        if module.startswith("bigearthnet_cbir")
        for name, value in vars(content).items()
        if isinstance(value, CPUDispatcher)
    }


def note_what_was_loaded(path: str) -> None:
    """Write which modules and compiled functions a command needed, for `load`."""
    signatures = {name: kernel.signatures for name, kernel in kernels().items()}
    with open(path, "wb") as stream:
        pickle.dump((list(sys.modules), signatures), stream)


def load(path: str) -> None:
    """Load what another child had to; nothing is run, so that no thread and no file is there at the next fork."""
    with open(path, "rb") as stream:
        modules, signatures = pickle.load(stream)
    for name in modules:
        if not name.startswith(("ray", "__")):
            with suppress(Exception):
                importlib.import_module(name)
    for name, kernel in kernels().items():
        for signature in signatures.get(name, ()):
            kernel.compile(signature)
    gc.freeze()  # the children's collections leave what is here alone


def name_phases(note: str | None) -> None:
    """Have the preloaded library, and a file that outlives the process, know which part of a command is under way."""
    descriptor = -1 if note is None else os.open(note, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    under_way = [""]

    def tell() -> None:
        if descriptor >= 0:
            os.pwrite(descriptor, under_way[-1].ljust(16).encode(), 0)
        if hasattr(libc, "faults_phase"):
            libc.faults_phase(under_way[-1].encode())

    def in_phase(function: Any, phase: str) -> Any:
        def inside(*args: Any, **options: Any) -> Any:
            under_way.append(phase)
            tell()
            try:
                return function(*args, **options)
            finally:
                under_way.pop()
                tell()

        return inside

    for module_name, functions in PHASES.items():
        module = importlib.import_module(module_name)
        for name, phase in functions.items():
            if hasattr(module, name):  # test_harness.py tells where one has another name by now
                setattr(module, name, in_phase(getattr(module, name), phase))


def obey_permissions() -> None:
    """Give up root's right to pass over permission bits."""
    if os.geteuid() == 0:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def become(request: Request) -> int:
    """Turn a forked child into the command that was asked for; return its exit code."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for path, descriptor in ((os.devnull, 0), (request["out"], 1), (request["err"], 2)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.update(request.get("environment", {}))
    if request.get("largest_file") is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"], request["largest_file"]))
    if request.get("obey_permissions"):
        obey_permissions()
    main = importlib.import_module(f"bigearthnet_cbir.cli.{request['command']}").main
    name_phases(request.get("phase"))
    if request.get("watch"):
        watch = request["watch"]
        log = os.open(watch["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if watch.get("log") else -1
        libc.faults_arm(watch["folder"].encode(), watch["at"], watch["mode"], watch["error"], log)
    for place, value in request.get("constants", {}).items():
        module, name = place.rsplit(".", 1)
        setattr(importlib.import_module(f"bigearthnet_cbir.{module}"), name, value)
    code = int(main(request["arguments"]))
    if request.get("learn"):
        note_what_was_loaded(request["learn"])
    if not request.get("thorough_exit"):
        leave(code)
    return code


def leave(code: int) -> None:
    """Exit as the interpreter does, handlers of Python and of C libraries included, without taking modules apart.

    That would take a second of every case in a process as large as this one.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    threading._shutdown()
    atexit._run_exitfuncs()
    libc.exit(code)


class Server:
    """Answers requests; `child` is what a forked child is to become."""

    def __init__(self) -> None:
        self.child: Request | None = None
        self.children: set[int] = set()

    def start(self, request: Request) -> Any:
        sys.stdout.flush()
        process = os.fork()
        if process == 0:
            self.child = request
            return None
        self.children.add(process)
        return process

    def wait(self, request: Request) -> Any:
        """Return a child's status (its exit code, or minus the signal), or None after the timeout."""
        deadline = time.monotonic() + request["timeout"]
        while True:
            process, status = os.waitpid(request["process"], os.WNOHANG)
            if process:
                self.children.discard(process)
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                return None
            time.sleep(0.002)

    def load(self, request: Request) -> Any:
        load(request["path"])

    def mount(self, request: Request) -> Any:
        """Mount a small file system, or change one: its size, or whether it can be written to."""
        flags = (MS_REMOUNT if request["again"] else 0) | (MS_RDONLY if request["read_only"] else 0)
        mount("tmpfs", request["folder"], "tmpfs", flags, f"size={request['size']}")

    def unmount(self, request: Request) -> Any:
        check(libc.umount2(request["folder"].encode(), 2), f"umount {request['folder']}")  # 2: lazily, always works

    def serve(self, requests: Any, answers: Any) -> None:
        for line in iter(requests.readline, ""):
            request = json.loads(line)
            try:
                answer = {"answer": getattr(self, request["do"])(request)}
            except OSError as error:
                answer = {"error": str(error)}
            if self.child is not None:
                return
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
        for process in self.children:
            with suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to whoever asks; this process ends with its requests
    requests, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    mounts = own_mounts()
    warm_up()
    answers.write(json.dumps({"answer": {"mounts": mounts, "watching": hasattr(libc, "faults_arm")}}) + "\n")
    answers.flush()
    server = Server()
    server.serve(requests, answers)
    if server.child is None:
        return 0
    requests.close()
    answers.close()
    return become(server.child)


if __name__ == "__main__":
    sys.exit(main())
