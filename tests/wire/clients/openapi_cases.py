"""Asks the server what its OpenAPI document allows, and what it does not, by schemathesis; prints what it found.

Cases from the document alone would seldom get past "no such model" and "too long", so two of three get names that are
there (the route's own model, and in an operator's route a tenant, a key and a budget made for it; what they end is
theirs alone), and where a model runs, a body that is right but for at most two fields, which stay as they came.
"""

import io
import json
import os
import sys
import tempfile
import urllib.error
import urllib.request
import zlib
from collections import Counter
from contextlib import chdir, redirect_stdout, suppress
from functools import cache
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.cli import schemathesis as command

URL = os.environ["TOLLGATE_URL"]
KEY, ADMIN = os.environ["TOLLGATE_KEY"], os.environ["ADMIN"]
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance"
GENERATOR, LABELLER, TRANSLATOR = "tiny-gpt2", "tiny-bert-classifier", "tiny-marian"
VECTORS = "tiny-bert-vectors"
TASK_OF = {
    GENERATOR: "text-generation", LABELLER: "text-classification", TRANSLATOR: "translation",
    VECTORS: "feature-extraction", "tiny-bert-qa": "question-answering", "tiny-bert-ranker": "text-ranking",
    "tiny-bert-nli": "zero-shot-classification", "tiny-bert-ner": "token-classification", "tiny-bert-mask": "fill-mask",
}  # fmt: skip
WAYS: dict[str, list[dict[str, Any]]] = json.loads(os.environ["WAYS"])
"""By route, what it can be asked: `model`, `task`, and the `body`."""
FIELDS_KEPT = 3
"""From none to one less than so many fields of a case stay, over a body that is right."""
USAGE = ("completions", "embeddings", "classifications", "translations", "answers")
LANGUAGES = {"source": "en", "target": "de", "target_lang": "DE"}
SHOWN_MAX = 20_000
TRIED: Counter[str] = Counter()
"""Cases by route."""
READS = ("GET", "HEAD", "OPTIONS")


def ask(method: str, path: str, body: dict[str, Any], key: str = ADMIN) -> dict[str, Any]:
    """An answer's body. Raises HTTPError."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


@cache
def victim(label: str) -> dict[str, str]:
    """An account for one operation: path parameters of it by name."""
    name = f"fuzzed-{os.getpid()}-{zlib.crc32(label.encode())}"
    tenant = ask("POST", "/admin/tenants", {"name": name})["id"]
    key = ask("POST", "/admin/keys", {"name": name, "tenant": name})["id"]
    budget = ask("PUT", "/admin/budgets", {"tenant": name, "monthly": "1"})["id"]
    return {"tenant": tenant, "project_id": tenant, "key": key, "key_id": key, "budget_id": str(budget)}


@cache
def answered() -> str:
    """The id of a request that was answered."""
    return ask("POST", "/v1/completions", {"model": GENERATOR, "prompt": "x", "max_tokens": 1}, KEY)["id"][5:]


def named(label: str, path: str, chance: int) -> dict[str, str]:
    """Names that are there, for what an operation calls by name."""
    model = list(TASK_OF)[chance % len(TASK_OF)]
    found = LANGUAGES | {
        "model": WAYS[path][0]["model"] if path in WAYS else model, "model_id": model, "task": TASK_OF[model],
        "limit_id": f"rl-{model}",
        "kind": USAGE[chance % len(USAGE)], "month": f"20{chance % 90 + 10}-{chance % 12 + 1:02}",
    }  # fmt: skip
    if "{request_id}" in path:
        found["request_id"] = answered()
    return found | (victim(label) if path.startswith(("/admin", "/v1/organization")) else {})


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Put names that are there into two cases of three; and never let the third end what was not made for it."""
    path, method = case.operation.path, case.operation.method.upper()
    TRIED[path] += 1
    chance = zlib.crc32(repr((case.path_parameters, case.query, case.body)).encode())
    there = named(f"{method} {path}", path, chance // 3)
    if path in WAYS and chance % 3 > 0 and isinstance(case.body, dict):
        way = WAYS[path][chance // 3 % len(WAYS[path])]
        there |= {"model": way["model"], "model_id": way["model"], "task": way["task"]}
        kept = sorted(case.body.keys() - {"model"}, key=lambda name: zlib.crc32(f"{chance}{name}".encode()))
        kept = kept[: chance // 9 % FIELDS_KEPT]
        came = {name: case.body[name] for name in kept}
        case.body.clear()
        case.body.update(way["body"] | came)
    for sent in (case.path_parameters, case.query, case.body):
        if not isinstance(sent, dict):
            continue
        for name in sent.keys() & there.keys():
            if chance % 3 > 0:
                sent[name] = there[name]
            elif method not in READS and name in ("tenant", "project_id", "key", "key_id"):
                sent[name] = f"none-{sent[name]}"


def report_of(folder: str) -> tuple[dict[str, Any], str]:
    """Run the command; its own report, and what it would have shown of failures."""
    path = Path(folder) / "report.json"
    arguments = [
        "run", f"{URL}/openapi.json", "-H", f"Authorization: Bearer {KEY}", "-c", CHECKS, "--workers", "1",
        "--phases", os.environ["PHASE"], "-n", os.environ["EXAMPLES"], "--seed", os.environ["SEED"], "--no-shrink",
        "--continue-on-failure", "--generation-database", "none", "--suppress-health-check", "all",
        "--request-timeout", "20", "--warnings", "off", "--no-color",
        "--report", "json", "--report-json-path", str(path),
    ]  # fmt: skip
    shown = io.StringIO()
    with chdir(folder), redirect_stdout(shown), suppress(SystemExit):  # it leaves with 1 when it found something
        command(arguments, standalone_mode=False)
    return json.loads(path.read_text(encoding="utf-8")), shown.getvalue().partition("= FAILURES =")[2][:SHOWN_MAX]


def is_open(key: str) -> bool:
    """Whether a key was left able to ask, or what follows its end would be 401 alone."""
    try:
        return bool(ask("POST", "/v1/estimate", {"model": GENERATOR, "input": "x"}, key))
    except urllib.error.HTTPError as error:
        print(error.read(), file=sys.stderr)
        return False


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        report, shown = report_of(folder)
    found = {
        "cases": report["test_cases"]["generated"], "failures": report["failures"], "errors": report["errors"],
        "tried": TRIED, "is_open": is_open(KEY) and is_open(ADMIN), "shown": shown,
    }  # fmt: skip
    print(json.dumps(found))
