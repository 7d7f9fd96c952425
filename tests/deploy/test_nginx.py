"""The balancer's configuration: nginx takes it, and it repeats nothing that leaves a trace."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.main import build_app
from app.settings import load_settings
from deploy.processes import DoesNotRun
from deploy.stack import Stack, filled

ROOT = Path(__file__).parents[2]
TEMPLATE = (ROOT / "deploy/nginx/tollgate.conf.template").read_text(encoding="utf-8")


def test_nginx_takes_the_configuration(tmp_path: Path) -> None:
    try:
        nginx = Stack(tmp_path, has_prometheus=False).nginx
    except DoesNotRun as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(f"NOT TESTED: {error}")
    done = subprocess.run([*nginx.argv, "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr, done.stderr


def test_the_template_is_filled_as_nginx_image_does() -> None:
    assert filled("a ${ONE} $uri ${OTHER}", {"ONE": "1"}) == "a 1 $uri ${OTHER}"
    given = set(yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]["nginx"]["environment"])
    assert set(re.findall(r"\$\{(\w+)\}", TEMPLATE)) == given


def locations() -> list[tuple[str, str, str]]:
    """Kind (`=`, `~` or nothing), pattern and body of each location for customers, in order."""
    customers = TEMPLATE.split("\nserver {")[1]
    return re.findall(r"location (=|~)? ?(\S+) \{\n(.*?)\n    \}", customers, re.DOTALL)


def location_of(path: str) -> str:
    """The body of the location that nginx picks: exact, then the first expression, then the longest prefix."""
    found = locations()
    for kind, pattern, body in found:
        if kind == "=" and pattern == path:
            return body
    for kind, pattern, body in found:
        if kind == "~" and re.search(pattern, path):
            return body
    return max((pattern, body) for kind, pattern, body in found if not kind and path.startswith(pattern))[1]


def routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Every route that changes or computes something, with its tags."""
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    paths: dict[str, dict[str, Any]] = build_app(load_settings()).openapi()["paths"]
    writes = ("post", "put", "patch", "delete")
    return {
        path: [tag for method in found if method in writes for tag in found[method].get("tags", [])]
        for path, found in paths.items()
        if any(method in writes for method in found)
    }


def test_no_act_of_an_operator_is_ever_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acts = 0
    for path, tags in routes(tmp_path, monkeypatch).items():
        repeated = "non_idempotent" in location_of(path)
        if any(tag.startswith(("admin", "organization")) for tag in tags):
            acts += 1
            assert not repeated, path
        elif "tasks" in tags:
            assert repeated, path
    assert acts > 10
    for closed in ("/metrics", "/admin", "/admin/keys"):
        assert "return 404" in location_of(closed)
    operators = TEMPLATE.split("\nserver {")[2]
    assert "deny all" in operators and "non_idempotent" not in operators and "tollgate_admin" in operators


def test_only_failures_are_repeated_never_what_may_still_run() -> None:
    repeats = re.findall(r"proxy_next_upstream ([^;]*);", TEMPLATE)
    assert len(repeats) == 3, repeats
    assert not any("timeout" in words for words in repeats)
