"""A program of the stack as a plain process: started into a log, waited for, ended or killed."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

START_S = 60.0
END_S = 90.0
PLACES = ("usr/lib/postgresql/*/bin", "usr/local/pgsql/bin", "opt/homebrew/opt/postgresql*/bin")


class DoesNotRun(Exception):
    """A program is missing, or ended when it should run; the message says what to do."""


@dataclass
class Program:
    """One program and how it is started again."""

    name: str
    argv: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    is_ready: Callable[[], bool] = lambda: True
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """All that it has said."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self.process is not None, f"{self.name} was not started"
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def start(self, *, is_waiting: bool = True) -> None:
        """Start it, and wait until it is ready. Raises DoesNotRun with its last words."""
        assert not self.is_running, f"{self.name} runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv, cwd=self.folder, env={**os.environ, **self.environment}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        if is_waiting:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until it is ready. Raises DoesNotRun with its last words."""
        give_up_s = time.monotonic() + START_S
        while not self.is_ready():
            if not self.is_running or time.monotonic() > give_up_s:
                said = self.log.read_text(errors="replace").strip().splitlines()[-5:]
                raise DoesNotRun(f"{self.name} does not come up; {self.log} ends:\n" + "\n".join(said))
            time.sleep(0.05)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask for its end and wait for it; returns the exit code. Killed when it takes too long."""
        if self.process is None:
            return 0
        if self.is_running:
            self.process.send_signal(how)
        try:
            return self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """kill -9, as a crash."""
        assert self.process is not None
        self.process.kill()
        return self.process.wait()


def program_path(name: str, package: str) -> str:
    """Where a program lies, also where only root looks. Raises DoesNotRun: which package to install."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise DoesNotRun(f"{name} is not on this machine: apt-get install {package}")
    return found


def postgres_folder() -> Path:
    """Where initdb lies. Raises DoesNotRun."""
    if (found := shutil.which("pg_ctl")) is not None:
        return Path(found).resolve().parent
    folders = [folder for place in PLACES for folder in Path("/").glob(place) if (folder / "initdb").exists()]
    if not folders:
        raise DoesNotRun("PostgreSQL's programs are not on this machine: apt-get install postgresql")
    return max(folders)


def not_as_root(folder: Path) -> list[str]:
    """What to put before a PostgreSQL command, which refuses root; the folder is given to its own account."""
    if os.geteuid() != 0:
        return []
    account = pwd.getpwnam("postgres")
    os.chown(folder, account.pw_uid, account.pw_gid)
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on, all different."""
    listeners = [socket.socket() for _ in range(count)]
    try:
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def listens(port: int) -> bool:
    """Whether somebody accepts connections on a port of loopback."""
    with socket.socket() as tried:
        tried.settimeout(1)
        return tried.connect_ex(("127.0.0.1", port)) == 0
