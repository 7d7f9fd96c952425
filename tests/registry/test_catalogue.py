"""The catalogue is read as it is written, or refused in one line that names the place."""

from pathlib import Path

import pytest

from app.errors import CatalogueError, ModelNotFound
from app.registry.catalogue import SHIPPED, load_catalogue, schema_text
from app.registry.model import FolderSource, HubSource, PackageSource

ENTRY = """
models:
  - id: reader
    task: question-answering
    family: bert
    licence: MIT
    source: {folder: here}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "catalog.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_catalogue_is_sound_and_its_folders_exist() -> None:
    catalogue = load_catalogue()
    for model in catalogue:
        if isinstance(model.source, PackageSource):
            assert (SHIPPED.parent / model.source.starter / "CARD.md").is_file()
            assert model.files, "what comes out of a package is pinned by hash"


def test_the_schema_beside_the_catalogue_is_the_one_of_the_code() -> None:
    path = SHIPPED.with_name("catalog.schema.json")
    assert path.read_text(encoding="utf-8") == schema_text(), "run: tollgate models schema > models/catalog.schema.json"


def test_an_entry_becomes_a_model(tmp_path: Path) -> None:
    model = load_catalogue(written(tmp_path, ENTRY)).find("reader")
    assert model.source == FolderSource(path="here")
    with pytest.raises(ModelNotFound, match="'other'"):
        load_catalogue(written(tmp_path, ENTRY)).find("other")
    with pytest.raises(ModelNotFound):
        load_catalogue(written(tmp_path, ENTRY), disable=["reader"]).find("reader")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("family: bert", "family: gpt2"), "reader: Value error, a gpt2 checkpoint does not do question-answering"),
        (("licence: MIT", "licence: MIT\n    colour: red"), "reader: colour: Extra inputs"),
        (("    task: question-answering\n", ""), "reader: task: Field required"),
        (("id: reader", "id: ../reader"), "id"),
        (("{folder: here}", "{folder: here, hub: a/b, revision: main}"), "source"),
        (("licence: MIT", "licence: MIT\n    languages: {source: en, target: pt}"), "languages belong"),
        (("models:", "models: ["), "cannot be read"),
        (("models:", "modles:"), "models: Field required"),
    ],
)
def test_a_fault_is_one_line_with_its_place(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = written(tmp_path, ENTRY.replace(*change))
    with pytest.raises(CatalogueError) as refused:
        load_catalogue(path)
    assert said in refused.value.message
    assert str(path) in refused.value.message
    assert "\n" not in refused.value.message


def test_an_id_stands_once(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="reader stands twice"):
        load_catalogue(written(tmp_path, ENTRY + ENTRY.partition("models:\n")[2]))


def test_a_hub_model_is_enabled_only_at_a_commit(tmp_path: Path) -> None:
    text = ENTRY.replace("{folder: here}", "{hub: owner/name, revision: main}")
    with pytest.raises(CatalogueError, match="tollgate models pull reader"):
        load_catalogue(written(tmp_path, text))
    assert not next(iter(load_catalogue(written(tmp_path, text), disable=["reader"]))).is_enabled
    commit = "0123456789" * 4
    model = load_catalogue(written(tmp_path, text.replace("main", f'"{commit}"'))).find("reader")
    assert model.source == HubSource(repo="owner/name", revision=commit)


def test_a_model_is_found_without_its_pin_where_it_is_fetched_to_be_pinned(tmp_path: Path) -> None:
    text = ENTRY.replace("{folder: here}", "{hub: owner/name, revision: main}")
    found = load_catalogue(written(tmp_path, text), needs_pins=False).find("reader").source
    assert isinstance(found, HubSource)
    assert not found.is_pinned
    allowed = text.replace("licence: MIT", "licence: MIT\n    allow_unpinned: true")
    assert load_catalogue(written(tmp_path, allowed)).find("reader").source == found


def test_only_known_models_are_switched(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="no model 'writer'"):
        load_catalogue(written(tmp_path, ENTRY), enable=["writer"])
