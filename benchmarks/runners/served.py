"""A server as a child process on a free loopback port: started, awaited, ended."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from benchmarks.runners.runner import NotHosted

START_S = 120.0
END_S = 20.0
PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """In a child, before its program: ask the system for SIGTERM when the parent ends, however it does (Linux)."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Served:
    """`python -m` some module with `--port`, until `close`; what it prints is kept for when it fails."""

    def __init__(self, arguments: Sequence[str], *, env: Mapping[str, str], ready: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (close() closes it)
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments, "--port", str(port)], env=os.environ | dict(env), stdout=self._log,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=end_with_parent,
        )  # fmt: skip
        give_up_s = time.monotonic() + START_S
        while not self._is_ready(ready):
            if self._process.poll() is not None or time.monotonic() > give_up_s:
                said = self.said()
                self.close()
                raise NotHosted(f"the server does not start; it said: …{said[-300:]}")
            time.sleep(0.1)

    def _is_ready(self, path: str) -> bool:
        try:
            return httpx.get(self.url + path, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def said(self) -> str:
        """What it has printed, in one line."""
        self._log.seek(0)
        return " ".join(self._log.read().split())

    def memory_bytes(self) -> int:
        """Resident memory of the server's process and its children."""
        return sum(resident_bytes(process) for process in family(self._process.pid))

    def close(self) -> None:
        """End it and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=END_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()


def family(process: int) -> list[int]:
    """A process and all that descend from it."""
    found = [process]
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            if parent == process:
                found += family(int(status.parent.name))
    return found


def resident_bytes(process: int) -> int:
    """Resident memory of one process; 0 when it has ended or the system does not tell."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)
