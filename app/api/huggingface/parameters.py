"""Bodies of the hub's task routes: inputs, and each task's parameters. Others than those named here are ignored."""

import math
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api.body import fault_of
from app.api.huggingface.envelope import LISTED_MAX, refuse_given
from app.errors import InvalidRequest, UnsupportedParameter
from app.registry.model import ScoreFunction
from app.tasks.answering import AnsweringRequest
from app.tasks.classification import ClassificationRequest
from app.tasks.embedding import EmbeddingRequest
from app.tasks.entities import Aggregation
from app.tasks.ranking import SimilarityRequest
from app.tasks.tagging import TaggingRequest
from app.tasks.translation import TranslationRequest
from app.tasks.unmasking import UnmaskingRequest
from app.tasks.zero_shot import TEMPLATE, ZeroShotRequest
from app.text.truncation import Truncate

B = TypeVar("B", bound=BaseModel)
TOP_K_MAX = 1000
Count = Annotated[int, Field(ge=1, le=TOP_K_MAX)]


class Lenient(BaseModel):
    """What is unknown is ignored, as the real services do."""

    model_config = ConfigDict(extra="ignore")


class Options(Lenient):
    """Options of the old inference API; caches and devices are the server's own affair."""

    wait_for_model: bool = False
    use_cache: bool = True
    use_gpu: bool = False


class TaskBody(BaseModel):
    """Any task's body. What else stands beside `parameters` are parameters too, as feature extraction sends them."""

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"examples": [{"inputs": "What a lovely evening!", "parameters": {}}]}
    )

    inputs: str | dict[str, Any] | Annotated[list[Any], Field(min_length=1, max_length=LISTED_MAX)] = Field(
        description="A text or a list of texts, {question, context}, or {source_sentence, sentences}: as the task is."
    )
    parameters: dict[str, Any] | None = Field(None, description="Depend on the task; unknown ones are ignored.")
    options: Options = Field(default_factory=Options)
    stream: bool = Field(False, description="Text generation only.")

    @property
    def asked(self) -> dict[str, Any]:
        """All parameters, wherever they stand."""
        return {**(self.model_extra or {}), **(self.parameters or {})}

    @property
    def is_list(self) -> bool:
        """Whether a list of answers is wanted."""
        return isinstance(self.inputs, list)

    @property
    def texts(self) -> tuple[str, ...]:
        """The inputs as texts. Raises InvalidRequest."""
        found = cast("list[Any]", self.inputs if isinstance(self.inputs, list) else [self.inputs])
        for index, text in enumerate(found):
            if not isinstance(text, str):
                raise InvalidRequest(f"inputs {index} is no text; this task takes texts", field="inputs")
        return tuple(cast("list[str]", found))


def read(model: type[B], found: dict[str, Any], place: str = "parameters") -> B:
    """A part of the body. Raises InvalidRequest naming the field."""
    try:
        return model.model_validate(found)
    except ValidationError as cause:
        fault = fault_of(cause)
        raise InvalidRequest(f"{place}.{fault.message}", field=f"{place}.{fault.field}") from cause


class ClassificationParameters(Lenient):
    """transformers' text classification."""

    function_to_apply: ScoreFunction | None = None
    top_k: Count | None = None
    truncation: bool | None = None


class ZeroShotParameters(Lenient):
    """transformers' zero-shot classification."""

    candidate_labels: str | list[str]
    multi_label: bool = False
    hypothesis_template: str = TEMPLATE


class TranslationParameters(Lenient):
    """The hub's translation."""

    src_lang: str | None = None
    tgt_lang: str | None = None
    clean_up_tokenization_spaces: bool | None = None
    truncation: str | None = None
    generate_parameters: dict[str, Any] | None = None


class GenerateParameters(Lenient):
    """What of `generate` a translation may choose."""

    num_beams: int = Field(4, ge=1, le=8)
    length_penalty: float = Field(1.0, ge=-5, le=5)
    do_sample: bool | None = None


class AnsweringParameters(Lenient):
    """transformers 4's question answering."""

    top_k: Annotated[int, Field(ge=1, le=20)] = 1
    doc_stride: int | None = Field(None, ge=0, le=10_000)
    max_answer_len: int = Field(15, ge=1, le=1000)
    max_question_len: int = Field(64, ge=1, le=1000)
    max_seq_len: int | None = Field(None, ge=8, le=100_000)
    handle_impossible_answer: bool = False
    align_to_words: bool = True


class AnsweringInputs(Lenient):
    """A question and the text that answers it."""

    question: str
    context: str


class UnmaskingParameters(Lenient):
    """transformers' fill-mask."""

    targets: str | list[str] | None = None
    top_k: Count = 5


class TaggingParameters(Lenient):
    """transformers' token classification."""

    aggregation_strategy: Aggregation | None = None
    ignore_labels: list[str] | None = None
    stride: int | None = Field(None, ge=0)


class EmbeddingParameters(Lenient):
    """The hub's feature extraction."""

    normalize: bool | None = None
    prompt_name: str | None = None
    truncate: bool | None = None
    truncation_direction: str = Field("right", pattern=r"^(?i:left|right)$")
    dimensions: int | None = None
    encoding_format: str | None = None


class SimilarityInputs(Lenient):
    """A text and those it is compared with."""

    source_sentence: str
    sentences: Annotated[list[str], Field(min_length=1, max_length=LISTED_MAX)]


def classification(body: TaskBody) -> tuple[ClassificationRequest, ClassificationParameters]:
    """Raises InvalidRequest."""
    asked = read(ClassificationParameters, body.asked)
    truncate = Truncate.RIGHT if asked.truncation else Truncate.ERROR
    return ClassificationRequest(texts=body.texts, function=asked.function_to_apply, truncate=truncate), asked


def zero_shot(body: TaskBody) -> ZeroShotRequest:
    """Labels in one text are parted at commas. Raises InvalidRequest."""
    asked = read(ZeroShotParameters, body.asked)
    found = asked.candidate_labels
    labels = [label.strip() for label in found.split(",") if label.strip()] if isinstance(found, str) else found
    return ZeroShotRequest(
        texts=body.texts, labels=tuple(labels), is_multi_label=asked.multi_label, template=asked.hypothesis_template
    )


def translation(body: TaskBody) -> tuple[TranslationRequest, TranslationParameters]:
    """Raises InvalidRequest or UnsupportedParameter."""
    asked = read(TranslationParameters, body.asked)
    chosen = read(GenerateParameters, asked.generate_parameters or {}, "parameters.generate_parameters")
    refuse_given("translation", do_sample=chosen.do_sample)
    cuts = {None: Truncate.ERROR, "do_not_truncate": Truncate.ERROR, "longest_first": Truncate.RIGHT,
            "only_first": Truncate.RIGHT}  # fmt: skip
    if asked.truncation not in cuts:
        raise InvalidRequest(
            "truncation is do_not_truncate, longest_first or only_first", field="parameters.truncation"
        )
    request = TranslationRequest(
        texts=body.texts, beams=chosen.num_beams, length_penalty=chosen.length_penalty,
        truncate=cuts[asked.truncation],
    )  # fmt: skip
    return request, asked


def answering(body: TaskBody) -> tuple[AnsweringRequest, AnsweringParameters]:
    """Unless told otherwise, there is always an answer. Raises InvalidRequest."""
    asked = read(AnsweringParameters, body.asked)
    found = cast("list[Any]", body.inputs if isinstance(body.inputs, list) else [body.inputs])
    if not all(isinstance(one, dict) for one in found):
        raise InvalidRequest("inputs is {question, context}, or a list of such", field="inputs")
    pairs = [read(AnsweringInputs, one, "inputs") for one in found]
    request = AnsweringRequest(
        questions=tuple(pair.question for pair in pairs), contexts=tuple(pair.context for pair in pairs),
        answers_max=asked.top_k, no_answer_threshold=None if asked.handle_impossible_answer else math.inf,
        answer_tokens_max=asked.max_answer_len, question_tokens_max=asked.max_question_len,
        window_tokens_max=asked.max_seq_len, overlap_tokens=asked.doc_stride, aligns_words=asked.align_to_words,
    )  # fmt: skip
    return request, asked


def unmasking(body: TaskBody) -> UnmaskingRequest:
    """Raises InvalidRequest."""
    asked = read(UnmaskingParameters, body.asked)
    targets = (asked.targets,) if isinstance(asked.targets, str) else tuple(asked.targets or ())
    return UnmaskingRequest(texts=body.texts, guesses=asked.top_k, targets=targets)


def tagging(body: TaskBody) -> TaggingRequest:
    """The hub groups entities unless told otherwise; without a stride a long text is cut, and said to be."""
    asked = read(TaggingParameters, body.asked)
    return TaggingRequest(
        texts=body.texts, aggregation=asked.aggregation_strategy or Aggregation.SIMPLE, stride=asked.stride,
        ignored=("O",) if asked.ignore_labels is None else tuple(asked.ignore_labels), truncate=Truncate.RIGHT,
    )  # fmt: skip


def embedding(body: TaskBody) -> EmbeddingRequest:
    """A text that is too long is cut, and said to be, unless `truncate` is false. Raises InvalidRequest."""
    asked = read(EmbeddingParameters, body.asked)
    if asked.encoding_format not in (None, "float"):
        raise UnsupportedParameter("encoding_format is float here; POST /v1/embeddings knows base64", field="encoding")
    return EmbeddingRequest(
        texts=body.texts, dimensions=asked.dimensions, is_normalised=asked.normalize, prompt_name=asked.prompt_name,
        truncate=Truncate.ERROR if asked.truncate is False else Truncate(asked.truncation_direction.lower()),
    )  # fmt: skip


def similarity(body: TaskBody) -> SimilarityRequest:
    """Long texts are cut, and said to be. Raises InvalidRequest."""
    if not isinstance(body.inputs, dict):
        raise InvalidRequest("inputs is {source_sentence, sentences}", field="inputs")
    found = read(SimilarityInputs, body.inputs, "inputs")
    return SimilarityRequest(source=found.source_sentence, texts=tuple(found.sentences), truncate=Truncate.RIGHT)
