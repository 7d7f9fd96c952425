"""The compose stack as plain processes on loopback, from the same configuration files: `make stack`.

nginx → two Tollgate replicas → PostgreSQL and Redis, and Prometheus beside them. tests/stack drives it too.
"""

import argparse
import json
import os
import re
import secrets
import shutil
import signal
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.processes import (
    DoesNotRun,
    Program,
    answers,
    free_ports,
    listens,
    not_as_root,
    postgres_folder,
    program_path,
)

DEPLOY = Path(__file__).parent
ROOT = DEPLOY.parent
PEPPER_BYTES = 32


@dataclass
class Stack:
    """The programs, in the order in which they start. `settings` are TOLLGATE_ variables for every replica."""

    folder: Path
    replica_count: int = 2
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    ports: list[int] = field(default_factory=list[int])
    has_prometheus: bool = True

    def __post_init__(self) -> None:
        chosen = self.ports or free_ports(5 + 2 * self.replica_count)
        self.port, self.admin_port, self.postgres_port, self.redis_port, self.prometheus_port, *rest = chosen
        self.replica_ports, self.replica_admin_ports = rest[: self.replica_count], rest[self.replica_count :]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)  # PostgreSQL's account passes through
        self.postgres = self._postgres()
        self.redis = self._redis()
        self.replicas = [self._replica(number) for number in range(1, self.replica_count + 1)]
        self.nginx = self._nginx()
        self.prometheus = self._prometheus()

    @property
    def url(self) -> str:
        """Where customers connect."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def programs(self) -> list[Program]:
        """In the order of their start."""
        started = [self.postgres, self.redis, *self.replicas, self.nginx]
        return [*started, self.prometheus] if self.has_prometheus else started

    @property
    def admin_url(self) -> str:
        """Where operators do."""
        return f"http://127.0.0.1:{self.admin_port}"

    def start(self) -> None:
        """Start all; replicas load side by side. Raises DoesNotRun."""
        self._make_cluster()
        self.postgres.start()
        self._make_database()
        self.redis.start()
        for replica in self.replicas:
            replica.start(is_waiting=False)
        for replica in self.replicas:
            replica.wait_ready()
        self.nginx.start()
        if self.has_prometheus:
            self.prometheus.start()

    def stop(self) -> None:
        """End all, in reverse, each as its operator would."""
        for program in reversed(self.programs):
            program.end(signal.SIGINT if program is self.postgres else signal.SIGTERM)

    def replica_url(self, index: int) -> str:
        """A replica's own address."""
        return f"http://127.0.0.1:{self.replica_ports[index]}"

    def command(self, *words: str, index: int = 0) -> str:
        """Run `tollgate …` with a replica's settings; returns what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "app", *words], cwd=ROOT, env={**os.environ, **self.replicas[index].environment},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise DoesNotRun(f"tollgate {' '.join(words)}: {done.stdout}{done.stderr}".strip())
        return done.stdout

    def new_key(self, *, tenant: str = "me", name: str | None = None) -> str:
        """A fresh key of a tenant, which is made if need be."""
        words = ("keys", "create", "--tenant", tenant, "--name", name or secrets.token_hex(4), "--json")
        return str(json.loads(self.command(*words))["key"])

    def reload_nginx(self) -> None:
        """As `nginx -s reload`: new workers take over, old ones finish what they have."""
        os.kill(self.nginx.pid, signal.SIGHUP)

    @property
    def database_url(self) -> str:
        """PostgreSQL's."""
        return f"postgresql://postgres@127.0.0.1:{self.postgres_port}/tollgate"

    def _postgres(self) -> Program:
        folder = self.folder / "postgres"
        folder.mkdir(exist_ok=True)
        as_user = not_as_root(folder)
        programs, port = postgres_folder(), self.postgres_port
        argv = [*as_user, str(programs / "postgres"), "-D", "data", "-h", "127.0.0.1", "-k", str(folder)]

        def is_ready() -> bool:
            asked = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            return subprocess.run(asked, check=False).returncode == 0

        return Program("postgres", [*argv, "-p", str(port)], folder, is_ready=is_ready)

    def _make_cluster(self) -> None:
        folder = self.folder / "postgres"
        if not (folder / "data").exists():
            made = [str(postgres_folder() / "initdb"), "-D", "data", "-A", "trust", "-U", "postgres", "--no-sync"]
            subprocess.run([*not_as_root(folder), *made], check=True, stdout=subprocess.DEVNULL, cwd=folder)

    def _make_database(self) -> None:
        tool = [str(postgres_folder() / "psql"), "-h", "127.0.0.1", "-p", str(self.postgres_port), "-U", "postgres"]
        there = subprocess.run([*tool, "-lqt"], check=True, capture_output=True, text=True).stdout
        if " tollgate " not in there:
            subprocess.run([*tool, "-qc", "CREATE DATABASE tollgate"], check=True)

    def _redis(self) -> Program:
        words = [str(DEPLOY / "redis/redis.conf"), "--port", str(self.redis_port), "--bind", "127.0.0.1"]
        argv = [program_path("redis-server", "redis-server"), *words]
        return Program("redis", argv, self.folder / "redis", is_ready=lambda: listens(self.redis_port))

    def _replica(self, number: int) -> Program:
        home, port = self.folder / f"replica-{number}", self.replica_ports[number - 1]
        home.mkdir(exist_ok=True)
        first = self.folder / "replica-1" / "pepper"
        if number == 1 and not first.exists():
            first.write_bytes(secrets.token_bytes(PEPPER_BYTES))
            first.chmod(0o600)
        elif number > 1:
            shutil.copy(first, home / "pepper")
        environment = {
            "TOLLGATE_CONFIG": str(DEPLOY / "tollgate.yaml"),
            "TOLLGATE_HOME": str(home),
            "TOLLGATE_API__HOST": "127.0.0.1",
            "TOLLGATE_API__PORT": str(port),
            "TOLLGATE_API__ADMIN_PORT": str(self.replica_admin_ports[number - 1]),
            "TOLLGATE_METERING__DATABASE_URL_FILE": self._secret("database-url", self.database_url),
            "TOLLGATE_LIMITS__REDIS_URL_FILE": self._secret("redis-url", f"redis://127.0.0.1:{self.redis_port}/0"),
            "TOLLGATE_ENGINE__THREADS": str(max(1, (os.cpu_count() or 1) // self.replica_count)),
            "PYTHONPATH": str(ROOT),
            **self.settings,
        }
        return Program(
            f"replica-{number}", [sys.executable, "-m", "app", "serve"], home, environment,
            is_ready=lambda: answers(f"http://127.0.0.1:{port}/readyz"),
        )  # fmt: skip

    def _secret(self, name: str, value: str) -> str:
        path = self.folder / "secrets" / name
        path.parent.mkdir(exist_ok=True, mode=0o700)
        path.write_text(value, encoding="utf-8")
        return str(path)

    def _nginx(self) -> Program:
        folder = self.folder / "nginx"
        (folder / "conf.d").mkdir(parents=True, exist_ok=True)
        temporary = folder / "temporary"
        temporary.mkdir(exist_ok=True)
        shutil.copy(DEPLOY / "nginx/nginx.conf", folder / "nginx.conf")
        path = program_path("nginx", "nginx")
        values = {
            "LISTEN": f"127.0.0.1:{self.port}", "UPSTREAM_SERVERS": servers(self.replica_ports),
            "ADMIN_LISTEN": f"127.0.0.1:{self.admin_port}", "ADMIN_SERVERS": servers(self.replica_admin_ports),
            "TEMPORARY": str(temporary),
            "ON_RELOAD": "keepalive_min_timeout 10s;" if is_waiting_on_reload(path) else "",
        }  # fmt: skip
        template = (DEPLOY / "nginx/tollgate.conf.template").read_text(encoding="utf-8")
        (folder / "conf.d/tollgate.conf").write_text(filled(template, values), encoding="utf-8")
        words = ["-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
        user = "user root; " if os.geteuid() == 0 else ""
        argv = [path, *words, "-g", f"{user}pid {folder}/nginx.pid; daemon off;"]
        return Program("nginx", argv, folder, is_ready=lambda: answers(self.url + "/balancer/livez"))

    def _prometheus(self) -> Program:
        folder = self.folder / "prometheus"
        (folder / "targets").mkdir(parents=True, exist_ok=True)
        for name in ("prometheus.yml", "alerts.yml"):
            shutil.copy(DEPLOY / "prometheus" / name, folder / name)
        targets = [f"127.0.0.1:{port}" for port in self.replica_admin_ports]
        (folder / "targets/tollgate.yml").write_text(json.dumps([{"targets": targets}]), encoding="utf-8")
        address = f"127.0.0.1:{self.prometheus_port}"
        words = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}"]
        path = program_path("prometheus", "prometheus") if self.has_prometheus else "prometheus"
        return Program("prometheus", [path, *words], folder, is_ready=lambda: answers(f"http://{address}/-/ready"))


def servers(ports: Sequence[int]) -> str:
    """The lines of an upstream, as docker-compose.yml has them."""
    return " ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in ports)


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template with ${NAME} replaced, as envsubst does in nginx' image: names that are not given stay."""

    class Braced(string.Template):
        pattern = r"(?P<escaped>(?!))|(?P<named>(?!))|\$\{(?P<braced>[A-Z_]+)\}|(?P<invalid>(?!))"  # pyright: ignore

    return Braced(template).safe_substitute(values)


def is_waiting_on_reload(nginx: str) -> bool:
    """Whether this nginx knows `keepalive_min_timeout`."""
    told = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(int(part) for part in re.findall(r"\d+", told)[:3]) >= (1, 27, 4)


def greeting(stack: Stack, key: str) -> str:
    """What to do with a stack that runs."""
    rows = [
        ("customers", stack.url), ("operators", stack.admin_url),
        *((f"replica {n}", stack.replica_url(n - 1)) for n in range(1, stack.replica_count + 1)),
        ("Prometheus", f"http://127.0.0.1:{stack.prometheus_port}/"), ("PostgreSQL", stack.database_url),
        ("Redis", f"redis://127.0.0.1:{stack.redis_port}/0"), ("logs", f"{stack.folder}/*/*.log"),
    ]  # fmt: skip
    lines = [f"  {name:<11} {place}" for name, place in rows]
    call = (
        f"curl {stack.url}/v1/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\\n"
        """    -d '{"model": "starter-stories", "prompt": "Once upon a time", "max_tokens": 40}'"""
    )
    return "\n".join(["", "The stack runs:", "", *lines, "", call, "", "Ctrl-C ends it.", ""])


def main() -> int:
    parser = argparse.ArgumentParser(prog="make stack", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where its data is kept; default: a temporary folder, removed")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--port", type=int, default=8000, help="of the balancer, for customers")
    parser.add_argument("--admin-port", type=int, default=8001, help="of the balancer, for operators")
    chosen = parser.parse_args()
    kept: Path | None = chosen.folder
    folder = kept.resolve() if kept else Path(tempfile.mkdtemp(prefix="tollgate-stack-"))
    ports = [chosen.port, chosen.admin_port, *free_ports(3 + 2 * chosen.replicas)]
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked.append(number))
    stack: Stack | None = None
    try:
        stack = Stack(folder, replica_count=chosen.replicas, ports=ports)
        print("starting PostgreSQL, Redis, the replicas, nginx and Prometheus", flush=True)
        stack.start()
        print(greeting(stack, stack.new_key()), flush=True)
        while not asked:
            time.sleep(0.2)
            for program in stack.programs:
                if not program.is_running:
                    raise DoesNotRun(f"{program.name} has ended; its last words are in {program.log}")
        print("ending: running answers are finished first", flush=True)
    except DoesNotRun as error:
        print(f"make stack: {error}", file=sys.stderr)
        return 1
    finally:
        if stack is not None:
            stack.stop()
        if kept is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
