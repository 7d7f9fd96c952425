"""The hub's source against a stand-in of its HTTP API: whole, resumed, refused, offline."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.clock import SystemClock
from app.engine.settings import EngineSettings
from app.engine.transports.inline import InlineEngine
from app.errors import SourceError
from app.registry.catalogue import load_catalogue
from app.registry.model import HubSource, Model, TaskName
from app.registry.residency import Residency
from app.registry.settings import RegistrySettings
from app.registry.sources.hub import commit_of, locate
from app.registry.verify import verify
from tests.fixtures.hub import COMMIT, Hub


def model(revision: str = COMMIT, repo: str = "owner/name") -> Model:
    return Model(
        id="remote", tasks=(TaskName.GENERATION,), family="gpt2", source=HubSource(repo=repo, revision=revision)
    )


def fetched(hub: Hub, cache: Path, revision: str = COMMIT, repo: str = "owner/name") -> Path:
    made = model(revision, repo)
    assert isinstance(made.source, HubSource)
    return locate(made, made.source, cache=cache, endpoint=hub.url)


def test_a_snapshot_is_whole_and_holds_no_pickle(hub: Hub, tmp_path: Path) -> None:
    folder = fetched(hub, tmp_path, "main")
    assert commit_of(folder) == COMMIT
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert not (folder / "pytorch_model.bin").exists()
    verify(model(), folder)
    served = list(hub.served)
    assert fetched(hub, tmp_path) == folder
    assert hub.served == served, "what is in the cache is not fetched again"


def test_a_broken_transfer_is_resumed_where_it_ended(hub: Hub, tmp_path: Path) -> None:
    large = "model-00001-of-00001.safetensors"
    hub.files[large] = os.urandom(24 * 2**20)
    hub.breaks.add(large)
    try:
        folder = fetched(hub, tmp_path)
    except SourceError as error:
        assert "resume" in error.message
        folder = fetched(hub, tmp_path)
    assert (folder / large).read_bytes() == hub.files[large]
    (resumed,) = hub.ranges
    assert int(resumed.removeprefix("bytes=").rstrip("-")) >= 10 * 2**20, "whole chunks of 10 MiB are kept"


@pytest.mark.parametrize(
    ("revision", "repo", "said"),
    [("f" * 40, "owner/name", "has no revision"), (COMMIT, "owner/other", "no repository owner/other")],
)
def test_what_is_not_there_is_said(hub: Hub, tmp_path: Path, revision: str, repo: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        fetched(hub, tmp_path, revision, repo)


def test_without_a_network_the_cached_copy_serves_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    folder = fetched(hub, tmp_path)
    hub.stop()
    assert fetched(hub, tmp_path) == folder
    with pytest.raises(SourceError, match="not in the cache"):
        fetched(hub, tmp_path / "other")


CATALOGUE = """
models:
  - {id: remote, task: text-generation, family: gpt2, licence: MIT, enabled: false,
     source: {hub: owner/name, revision: main}}
"""


def test_the_command_pulls_prints_the_commit_and_obeys_offline(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text(CATALOGUE, encoding="utf-8")
    environment = os.environ | {
        "TOLLGATE_HOME": str(tmp_path), "TOLLGATE_REGISTRY__CATALOGUE": str(tmp_path / "catalog.yaml"),
        "TOLLGATE_REGISTRY__HUB_ENDPOINT": hub.url,
    }  # fmt: skip
    command = [sys.executable, "-m", "app", "models", "pull", "remote"]

    def pull(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=environment | more, capture_output=True, text=True, check=False)

    refused = pull(HF_HUB_OFFLINE="1")
    assert refused.returncode == 1
    assert "HF_HUB_OFFLINE" in refused.stderr
    assert not hub.served
    pulled = pull()
    assert pulled.returncode == 0, pulled.stderr
    assert f"revision: {COMMIT}" in pulled.stderr
    assert pull(HF_HUB_OFFLINE="1").returncode == 0
    (tmp_path / "catalog.yaml").write_text(CATALOGUE.replace("false", "true"), encoding="utf-8")
    enabled = pull()
    assert f"revision: {COMMIT}" in enabled.stderr, "who enabled it too early still learns the commit"


async def test_a_model_that_follows_a_branch_is_loaded_with_a_warning(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOGUE.replace("enabled: false", "allow_unpinned: true"), encoding="utf-8")
    engine = InlineEngine(settings=EngineSettings(threads=1, slots=1), clock=SystemClock())
    residency = Residency(
        catalogue=load_catalogue(path), engine=engine, settings=RegistrySettings(hub_endpoint=hub.url), home=tmp_path,
        clock=SystemClock(),
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        await residency.load("remote")
    assert "follows main of owner/name" in caplog.text
    assert "tollgate models pull remote" in caplog.text
    await engine.close()
