"""A child process that is kept alive: started again when it ends, ever more slowly. Its stdin's end is its end."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import app
from app.engine.settings import EngineSettings
from app.errors import SettingsError

log = logging.getLogger(__name__)
DELAY_MIN_S = 0.1
DELAY_MAX_S = 30.0
LIVED_S = 10.0
"""A process that lived this long starts anew with the shortest delay."""
STDERR = 2
SOCKET_NAME = "engine.sock"
ALLOCATION = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}
"""How glibc holds the engine's memory: huge pages where the kernel offers them (weights and caches are read whole,
step after step, and a miss in the page table costs more than one in the cache), and buffers kept for the next
step."""
WAITING = {"GOMP_SPINCOUNT": "3000"}
"""How long a thread that waits for the others spins before it sleeps, about 0.1 ms, in place of milliseconds: while it
spins, the thread that it waits for cannot have its core."""
SOCKET_PATH_BYTES_MAX = 100
"""Unix allows 104 (macOS) or 108 (Linux) bytes."""


class KeptProcess:
    """Runs `command` until it is closed. The child must end when its stdin does: then none outlives its parent."""

    def __init__(
        self, *, name: str, command: Sequence[str], environment: Mapping[str, str], first_line: bytes = b"",
        pass_fds: Sequence[int] = (), stdout: int | None = STDERR,
    ) -> None:  # fmt: skip
        self.name = name
        self._command = command
        self._environment = environment
        self._first_line = first_line
        self._pass_fds = pass_fds
        self._stdout = stdout
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._is_closing = False

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def start(self) -> None:
        """Start it, and again whenever it ends."""
        self._keeping = asyncio.create_task(self._keep())

    async def close(self, *, timeout_s: float) -> None:
        """End it: ask, wait at most `timeout_s`, kill. Idempotent."""
        self._is_closing = True
        if self._keeping is None:
            return
        process = self._process
        if process is not None and process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), timeout_s)
            if process.returncode is None:
                log.warning("%s did not end within %.0f s and is killed", self.name, timeout_s)
                process.kill()
                await process.wait()
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.pid is not None and self._process is not None:
            self._process.send_signal(number)

    async def _keep(self) -> None:
        clock = asyncio.get_running_loop().time
        delay_s = DELAY_MIN_S
        while not self._is_closing:
            began_s = clock()
            ending = await self._run_once()
            if self._is_closing:
                return
            if clock() - began_s >= LIVED_S:
                delay_s = DELAY_MIN_S
            log.error("%s ended %s; it starts again in %.1f s", self.name, ending, delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, DELAY_MAX_S)

    async def _run_once(self) -> str:
        """Start it and wait for its end, which is put into words."""
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *self._command, env=self._environment, stdin=asyncio.subprocess.PIPE, stdout=self._stdout,
                start_new_session=True, pass_fds=self._pass_fds,
            )  # fmt: skip
        except OSError as cause:
            return f"before it began ({cause})"
        assert process.stdin is not None, "it was asked for. This is a bug."
        if self._is_closing:
            process.stdin.close()
        else:
            process.stdin.write(self._first_line)
        return ending_of(await process.wait())


def ending_of(returncode: int) -> str:
    """How a process ended, in words."""
    if returncode >= 0:
        return f"with exit code {returncode}"
    try:
        return f"by signal {signal.Signals(-returncode).name}"
    except ValueError:
        return f"by signal {-returncode}"


class EngineProcess(KeptProcess):
    """The engine's process, and the private folder in which its socket is."""

    def __init__(self, *, settings: EngineSettings, log_level: str = "info", log_format: str = "text") -> None:
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="tollgate-"))
        except OSError as cause:
            raise no_room(cause) from cause
        self.socket = self.folder / SOCKET_NAME
        if len(os.fsencode(self.socket)) > SOCKET_PATH_BYTES_MAX:
            self.folder.rmdir()
            raise SettingsError(f"{self.socket} is too long for a socket; set TMPDIR to a folder with a short name")
        options = {"log_level": log_level, "is_json": log_format == "json"}
        super().__init__(
            name="the engine",
            command=(sys.executable, "-m", "app.engine.transports.worker", str(self.socket)),
            environment=child_environment(settings),
            first_line=json.dumps({"settings": settings.model_dump(mode="json")} | options).encode() + b"\n",
        )

    async def close(self, *, timeout_s: float) -> None:
        """See KeptProcess.close; the folder goes too."""
        await super().close(timeout_s=timeout_s)
        shutil.rmtree(self.folder, ignore_errors=True)


def no_room(cause: OSError) -> SettingsError:
    """The folder for what processes share cannot be made or filled."""
    return SettingsError(
        f"there is no room for temporary files: {cause.strerror or cause}; set TMPDIR to a folder that has 16 MiB"
    )


def child_environment(settings: EngineSettings) -> dict[str, str]:
    """The engine's variables: ours, and those that must stand before its libraries are loaded."""
    wanted = ALLOCATION if "OMP_WAIT_POLICY" in os.environ else ALLOCATION | WAITING
    chosen = {name: value for name, value in wanted.items() if name not in os.environ}
    if settings.threads:
        chosen["OMP_NUM_THREADS"] = str(settings.threads)
    return own_environment() | chosen


def own_environment() -> dict[str, str]:
    """Our variables, and a path on which a child finds this very package."""
    root = str(Path(next(iter(app.__path__))).parent)
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def await_stdin_end() -> None:
    """In a child: return when the parent closes this process's stdin, or is dead."""
    while os.read(0, 4096):
        pass
