"""What the catalogue says of a model, as frozen values. No files are touched here."""

from dataclasses import dataclass, field
from enum import StrEnum

from app.engine.jobs import Precision


class TaskName(StrEnum):
    """The tasks that a model may do."""

    GENERATION = "text-generation"
    CLASSIFICATION = "text-classification"
    TRANSLATION = "translation"
    ANSWERING = "question-answering"
    EMBEDDING = "feature-extraction"
    SIMILARITY = "sentence-similarity"
    RANKING = "text-ranking"
    ZERO_SHOT = "zero-shot-classification"
    UNMASKING = "fill-mask"
    TAGGING = "token-classification"


COMPANIONS = {
    TaskName.EMBEDDING: (TaskName.SIMILARITY, TaskName.RANKING),
    TaskName.RANKING: (TaskName.CLASSIFICATION,),
    TaskName.ZERO_SHOT: (TaskName.CLASSIFICATION,),
}
"""What a model that does one task does besides, with the same weights."""


class ScoreFunction(StrEnum):
    """What makes scores of a classifier's logits (transformers' `function_to_apply`)."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    NONE = "none"


class LoadPolicy(StrEnum):
    """When a model becomes resident."""

    START = "start"
    LAZY = "lazy"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """Files of a Hugging Face hub repository, at a pinned revision."""

    repo: str
    revision: str

    @property
    def is_pinned(self) -> bool:
        """A commit never changes; a branch may."""
        return len(self.revision) == 40 and set(self.revision) <= set("0123456789abcdef")


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSource:
    """A folder on this machine; relative paths start at the catalogue's own folder."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSource:
    """Data files of an installed Python package, completed by a committed delta."""

    package: str
    """The import name of the package."""
    distribution: str
    """The name to `pip install`."""
    assemble: str
    """Which assembler makes the folder: overlay or bergamot."""
    starter: str
    """The folder of the delta and the small files, relative to the catalogue's folder."""
    options: tuple[tuple[str, str], ...] = ()


Source = HubSource | FolderSource | PackageSource


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedFile:
    """A file whose content is fixed. Paths are relative to the source's own folder."""

    path: str
    sha256: str
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one request; None means what the model's positions allow."""

    input_tokens_max: int | None = None
    output_tokens_max: int | None = None
    batch_inputs_max: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Languages:
    """The direction of a translation model, ISO 639-1."""

    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One entry of models/catalog.yaml."""

    id: str
    tasks: tuple[TaskName, ...]
    family: str
    """The checkpoint's model_type: gpt2, bert, marian."""
    source: Source
    description: str = ""
    licence: str = ""
    precision: Precision = Precision.AUTO
    load: LoadPolicy = LoadPolicy.LAZY
    is_enabled: bool = True
    is_pinned: bool = False
    """A pinned model is never evicted to make room."""
    allow_pickle: bool = False
    """Accept pytorch_model.bin (read with weights_only) where there are no safetensors."""
    is_free: bool = False
    """It may be used although it has no price; a price that is set still holds."""
    files: tuple[PinnedFile, ...] = ()
    limits: Limits = field(default_factory=Limits)
    labels: tuple[str, ...] = ()
    """In the order of the logits; empty takes the checkpoint's id2label."""
    languages: Languages | None = None
    chat_template: str | None = None
    """Jinja that makes one text of a conversation; it goes before the checkpoint's own. None takes that."""
    no_answer_threshold: float = 0.0
    """Question answering: the empty answer wins when its score exceeds the best span's by more than this (SQuAD 2)."""
