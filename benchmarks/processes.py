"""The parent's side of a worker: start it, ask it for a round, stop it while others run, end it."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.measure import Sample
from benchmarks.runners.runner import SERVERS, NotHosted, split_name

ANSWER_S = 1800.0
END_S = 30.0


class Worker:
    """An engine in its own process. Between rounds it is stopped, so that its threads take nothing from others."""

    def __init__(self, engine: str, *, model: str, size: str) -> None:
        self.engine = engine
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (close() closes it)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", engine, model, size], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._log, text=True, start_new_session=True,
            env=os.environ | {"TRANSFORMERS_VERBOSITY": "error", "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self._may_stop = split_name(engine)[0] not in SERVERS
        try:
            self.held = str(self._read()["ready"])
        except BaseException:
            self.close()
            raise
        self._signal(signal.SIGSTOP)

    def warm_up(self, work: str, scale: str) -> None:
        """Run as much as is in progress at once, untimed. Raises NotHosted."""
        self._ask({"work": work, "scale": scale, "rate": None, "is_warm_up": True})

    def round(self, work: str, scale: str, rate: float | None) -> Sample:
        """One timed round. Raises NotHosted: also when the engine failed or gave the wrong count of tokens."""
        found = self._ask({"work": work, "scale": scale, "rate": rate, "is_warm_up": False})["sample"]
        return sample_from(found)

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None, "opened as a pipe. This is a bug."
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            return self._read()
        except BrokenPipeError as cause:
            raise NotHosted(f"its process has died; it said: …{self._said()}") from cause
        finally:
            self._signal(signal.SIGSTOP)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "opened as a pipe. This is a bug."
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_S)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            state = "does not answer" if not ready else "has died"
            raise NotHosted(f"its process {state}; it said: …{self._said()}")
        found = json.loads(line)
        if "not_hosted" in found:
            raise NotHosted(found["not_hosted"])
        if "fault" in found:
            raise NotHosted(f"it failed: {found['fault']}")
        return found

    def _said(self) -> str:
        self._log.seek(0)
        return " ".join(self._log.read().split())[-300:]

    def _signal(self, number: int) -> None:
        if self._may_stop:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def close(self) -> None:
        """End it; its servers end with it."""
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None, "opened as a pipe. This is a bug."
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()


def sample_from(found: dict[str, Any]) -> Sample:
    """A sample as JSON carried it."""
    return Sample(**(found | {name: tuple(found[name]) for name in ("ttft_s", "gaps_s")}))
