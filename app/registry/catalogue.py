"""Reads models/catalog.yaml: pydantic at the edge, frozen Model values inside. No model file is touched here."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.engine.jobs import Head, Precision
from app.errors import CatalogueError, ModelNotFound
from app.registry.model import (
    COMPANIONS,
    FolderSource,
    HubSource,
    Languages,
    Limits,
    LoadPolicy,
    Model,
    PackageSource,
    PinnedFile,
    TaskName,
)  # fmt: skip

SHIPPED = Path(__file__).parents[2] / "models" / "catalog.yaml"
HEADS = {
    TaskName.GENERATION: Head.GENERATE,
    TaskName.CLASSIFICATION: Head.CLASSIFY,
    TaskName.TRANSLATION: Head.TRANSLATE,
    TaskName.ANSWERING: Head.ANSWER,
    TaskName.EMBEDDING: Head.EMBED,
    TaskName.SIMILARITY: Head.EMBED,
    TaskName.RANKING: Head.CLASSIFY,
    TaskName.ZERO_SHOT: Head.CLASSIFY,
    TaskName.UNMASKING: Head.UNMASK,
    TaskName.TAGGING: Head.TAG,
}
FAMILIES = {Head.GENERATE: "gpt2", Head.TRANSLATE: "marian"}
"""Every other head stands on a BERT."""
INPUTS_MAX = 64
VECTORS_MAX = 2048


class Strict(BaseModel):
    """Unknown keys are refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HubBody(Strict):
    hub: str = Field(pattern=r"^[\w.-]+(/[\w.-]+)?$", description="Repository on the hub, owner/name.")
    revision: str = Field(description="Commit of 40 hexadecimal digits; a branch is no pin.")


class FolderBody(Strict):
    folder: str = Field(min_length=1, description="A folder; relative to the catalogue's own.")


class PackageBody(Strict):
    package: str = Field(pattern=r"^\w+$", description="Import name of the installed package.")
    distribution: str = Field(description="What to pip install, with its exact version.")
    assemble: Literal["overlay", "bergamot"]
    starter: str = Field(description="Folder of the delta; relative to the catalogue's own.")
    options: dict[str, str] = {}


class FileBody(Strict):
    path: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int | None = Field(default=None, ge=0, description="Bytes.")


class LimitsBody(Strict):
    input_tokens_max: int | None = Field(default=None, ge=1)
    output_tokens_max: int | None = Field(default=None, ge=1)
    batch_inputs_max: int | None = Field(
        default=None, ge=1, description=f"Texts of one request; null: {VECTORS_MAX} for vectors, what OpenAI's clients "
        f"may send, else {INPUTS_MAX}."
    )  # fmt: skip

    def limits_of(self, task: TaskName) -> Limits:
        """With what holds for a model of that task where nothing is said."""
        most = VECTORS_MAX if task is TaskName.EMBEDDING else INPUTS_MAX
        return Limits(**self.model_dump() | {"batch_inputs_max": self.batch_inputs_max or most})


class LanguagesBody(Strict):
    source: str = Field(pattern=r"^[a-z]{2,3}$")
    target: str = Field(pattern=r"^[a-z]{2,3}$")


class ModelBody(Strict):
    """One model. Which file it is made of, and what it may be used for."""

    id: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$", max_length=200)
    task: TaskName
    family: Literal["gpt2", "bert", "marian"]
    source: HubBody | FolderBody | PackageBody
    description: str = ""
    licence: str = Field(description="SPDX identifier, or a sentence.")
    precision: Precision = Precision.AUTO
    load: LoadPolicy = LoadPolicy.LAZY
    enabled: bool = True
    pinned: bool = Field(default=False, description="Never evicted to make room.")
    allow_pickle: bool = Field(default=False, description="Accept pytorch_model.bin where there are no safetensors.")
    allow_unpinned: bool = Field(
        default=False, description="Accept a branch as the hub revision: what it holds may change."
    )
    free: bool = Field(default=False, description="May be used without a price; one that is set still holds.")
    files: tuple[FileBody, ...] = ()
    limits: LimitsBody = Field(default_factory=lambda: LimitsBody.model_validate({}))
    labels: tuple[str, ...] = ()
    languages: LanguagesBody | None = None
    chat_template: str | None = Field(
        default=None, description="Jinja that makes one text of a conversation; null takes the checkpoint's own."
    )
    no_answer_threshold: float = 0.0

    @model_validator(mode="after")
    def check_together(self) -> "ModelBody":
        """What no single field can tell."""
        if FAMILIES.get(HEADS[self.task], "bert") != self.family:
            raise ValueError(f"a {self.family} checkpoint does not do {self.task.value}")
        if (self.languages is not None) != (self.task is TaskName.TRANSLATION):
            raise ValueError("languages belong to translation models, and to all of them")
        return self

    def to_model(self) -> Model:
        """The same as a frozen value of our own."""
        match self.source:
            case HubBody():
                source = HubSource(repo=self.source.hub, revision=self.source.revision)
            case FolderBody():
                source = FolderSource(path=self.source.folder)
            case PackageBody():
                body = self.source
                source = PackageSource(
                    package=body.package, distribution=body.distribution, assemble=body.assemble,
                    starter=body.starter, options=tuple(sorted(body.options.items())),
                )  # fmt: skip
        languages = self.languages
        return Model(
            id=self.id, tasks=(self.task, *COMPANIONS.get(self.task, ())), family=self.family, source=source,
            description=self.description,
            licence=self.licence, precision=self.precision, load=self.load, is_enabled=self.enabled,
            is_pinned=self.pinned, allow_pickle=self.allow_pickle, is_free=self.free,
            files=tuple(PinnedFile(path=f.path, sha256=f.sha256, size=f.size) for f in self.files),
            limits=self.limits.limits_of(self.task), labels=self.labels,
            languages=None if languages is None else Languages(source=languages.source, target=languages.target),
            no_answer_threshold=self.no_answer_threshold, chat_template=self.chat_template,
        )  # fmt: skip


class CatalogueBody(Strict):
    """The catalogue's file."""

    models: Annotated[tuple[ModelBody, ...], Field(description="In the order in which they are shown.")]


def schema_text() -> str:
    """models/catalog.schema.json: what editors complete and check by."""
    return json.dumps(CatalogueBody.model_json_schema(), indent=2) + "\n"


class Catalogue:
    """The models that this installation knows, by id."""

    def __init__(self, models: Iterable[Model], *, folder: Path) -> None:
        self.folder = folder
        self._models = {model.id: model for model in models}

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def find(self, model_id: str) -> Model:
        """The enabled model of that id. Raises ModelNotFound."""
        model = self._models.get(model_id)
        if model is None or not model.is_enabled:
            raise ModelNotFound(f"There is no model {model_id[:200]!r}; GET /v1/models lists them.", field="model")
        return model


def load_catalogue(
    path: Path = SHIPPED, *, enable: Iterable[str] = (), disable: Iterable[str] = (), needs_pins: bool = True
) -> Catalogue:
    """Read and check a catalogue. Raises CatalogueError: one line with the file, the entry and the field.

    `needs_pins` is false where a model is fetched in order to learn its commit.
    """
    found: Any = None
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        bodies = CatalogueBody.model_validate(found).models
    except ValidationError as cause:
        raise CatalogueError(f"{path}: {first_fault(cause, found)}") from cause
    except (OSError, ValueError, yaml.YAMLError) as cause:  # ValueError: no UTF-8, the 13th month, 5,000 digits
        raise CatalogueError(f"{path} cannot be read: {' '.join(str(cause).split())}") from cause
    switched = {**dict.fromkeys(enable, True), **dict.fromkeys(disable, False)}
    unknown = switched.keys() - {body.id for body in bodies}
    if unknown:
        raise CatalogueError(f"{path} has no model {sorted(unknown)[0]!r} to enable or disable")
    bodies = tuple(body.model_copy(update={"enabled": switched.get(body.id, body.enabled)}) for body in bodies)
    seen: set[str] = set()
    for body in bodies:
        if body.id in seen:
            raise CatalogueError(f"{path}: the id {body.id} stands twice")
        seen.add(body.id)
        if needs_pins:
            refuse_unpinned(path, body)
    return Catalogue((body.to_model() for body in bodies), folder=path.parent)


def refuse_unpinned(path: Path, body: ModelBody) -> None:
    """Raises CatalogueError when an enabled model's hub revision may change under it."""
    source = body.to_model().source
    if body.enabled and isinstance(source, HubSource) and not source.is_pinned and not body.allow_unpinned:
        raise CatalogueError(
            f"{path}: {body.id}: source.revision is {source.revision}, no commit, so its files may change; "
            f"`tollgate models pull {body.id}` prints the commit to write there, or set allow_unpinned: true"
        )


def first_fault(error: ValidationError, found: Any) -> str:
    """The first fault in one line: which entry, which field, what is wrong."""
    fault = error.errors(include_url=False, include_context=False)[0]
    place = list(fault["loc"])
    if place[:1] == ["models"] and len(place) > 1 and isinstance(place[1], int):
        entry: Any = found["models"][place[1]]
        name: object = cast("dict[str, Any]", entry).get("id") if isinstance(entry, dict) else None
        name = name or f"entry {place[1]}"
        place = [str(name), *place[2:]]
    return f"{': '.join(str(part) for part in place)}: {fault['msg']}"
