"""What each dialect is asked for the same work: every route that runs a model, with a body that is right."""

from dataclasses import dataclass
from typing import Any

import httpx

from tests.wire.live import Live

TEXT = "hello world"
QUESTION, CONTEXT = "where do i live?", "my name is clara and i live in berkeley"
LABELS = ["dog", "server"]
OUTPUT_TOKENS = 4
SAMPLING: dict[str, Any] = {"max_tokens": OUTPUT_TOKENS, "temperature": 0}
TGI: dict[str, Any] = {"inputs": TEXT, "parameters": {"max_new_tokens": OUTPUT_TOKENS}}
SPOKEN = f"user: {TEXT}\nassistant:"
PAIR = {"source_sentence": TEXT, "sentences": ["one two three"]}
CHAT: dict[str, Any] = {"model": "tiny-gpt2-chat", "messages": [{"role": "user", "content": TEXT}]} | SAMPLING
PROMPT: dict[str, Any] = {"model": "tiny-gpt2", "prompt": TEXT} | SAMPLING


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is asked for, and the texts that a model reads for it: one a pass, or two as a pair."""

    task: str
    model: str
    read: list[tuple[str, ...]]
    written: int | None = 0
    """Output tokens; None: as many as the first of the ways tells."""


WORKS = {
    "generation": Work(task="text-generation", model="tiny-gpt2", read=[(TEXT,)], written=OUTPUT_TOKENS),
    "chat": Work(task="text-generation", model="tiny-gpt2-chat", read=[(SPOKEN,)], written=OUTPUT_TOKENS),
    "labels": Work(task="text-classification", model="tiny-bert-classifier", read=[(TEXT,)]),
    "zero-shot": Work(
        task="zero-shot-classification", model="tiny-bert-nli", read=[(TEXT, f"This example is {x}.") for x in LABELS]
    ),
    "translation": Work(task="translation", model="tiny-marian", read=[(TEXT,)], written=None),
    "answer": Work(task="question-answering", model="tiny-bert-qa", read=[(QUESTION, CONTEXT)]),
    "vector": Work(task="feature-extraction", model="tiny-bert-vectors", read=[(TEXT,)]),
    "similarity": Work(task="sentence-similarity", model="tiny-bert-vectors", read=[(TEXT,), ("one two three",)]),
    "rank": Work(task="text-ranking", model="tiny-bert-ranker", read=[("hello", TEXT), ("hello", "one two three")]),
    "mask": Work(task="fill-mask", model="tiny-bert-mask", read=[("hello [MASK]",)]),
    "tags": Work(task="token-classification", model="tiny-bert-ner", read=[(TEXT,)]),
}


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a dialect asks for a work."""

    work: str
    route: str
    body: dict[str, Any]
    form: bool = False

    def sent(self, live: Live, key: str, scheme: str = "Bearer", **headers: str) -> httpx.Response:
        """The whole answer."""
        work = WORKS[self.work]
        path = self.route.replace("{model_id}", work.model).replace("{task}", work.task)
        header = headers | ({"x-api-key": key} if scheme == "x-api-key" else {"authorization": f"{scheme} {key}"})
        content: dict[str, Any] = {"data" if self.form else "json": self.body}
        return httpx.post(live.url + path, headers=header, timeout=30, **content)


def tensors(**texts: str) -> dict[str, Any]:
    inputs = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [text]} for name, text in texts.items()]
    return {"inputs": inputs, "parameters": SAMPLING}


HUB: dict[str, dict[str, Any]] = {
    "generation": TGI,
    "labels": {"inputs": TEXT},
    "zero-shot": {"inputs": TEXT, "parameters": {"candidate_labels": LABELS}},
    "translation": {"inputs": TEXT},
    "answer": {"inputs": {"question": QUESTION, "context": CONTEXT}},
    "vector": {"inputs": TEXT},
    "similarity": {"inputs": PAIR},
    "mask": {"inputs": "hello [MASK]"},
    "tags": {"inputs": TEXT},
}
TENSORS = {
    "generation": tensors(text=TEXT), "labels": tensors(text=TEXT), "translation": tensors(text=TEXT),
    "answer": tensors(question=QUESTION, context=CONTEXT), "vector": tensors(text=TEXT),
}  # fmt: skip
WAYS = [
    Way(work="generation", route="/v1/completions", body=PROMPT),
    Way(work="generation", route="/v1/completions", body=PROMPT | {"stream": True}),
    Way(work="chat", route="/v1/chat/completions", body=CHAT),
    Way(work="chat", route="/v1/chat/completions", body=CHAT | {"stream": True}),
    Way(work="generation", route="/", body=TGI),
    Way(work="generation", route="/", body=TGI | {"stream": True}),
    Way(work="generation", route="/generate", body=TGI),
    Way(work="generation", route="/generate_stream", body=TGI),
    Way(work="labels", route="/v1/classifications", body={"model": "tiny-bert-classifier", "input": TEXT}),
    Way(work="labels", route="/v1/decisions", body={
        "model": "tiny-bert-classifier", "input": TEXT,
        "questions": [{"type": "predicate", "name": "is_positive", "instructions": "POSITIVE"}],
    }),
    Way(work="labels", route="/predict", body={"inputs": TEXT, "model": "tiny-bert-classifier"}),
    Way(work="translation", route="/v1/translations", body={"model": "tiny-marian", "input": TEXT}),
    Way(work="translation", route="/v2/translate", body={"text": [TEXT], "target_lang": "DE"}),
    Way(work="translation", route="/translate", body={"q": TEXT, "source": "en", "target": "de"}),
    Way(work="translation", route="/translate", body={"q": TEXT, "source": "en", "target": "de"}, form=True),
    Way(work="answer", route="/v1/answers", body={
        "model": "tiny-bert-qa", "question": QUESTION, "context": CONTEXT,
    }),
    Way(work="vector", route="/v1/embeddings", body={"model": "tiny-bert-vectors", "input": TEXT}),
    Way(work="vector", route="/embed", body={"inputs": TEXT}),
    Way(work="similarity", route="/similarity", body={"inputs": PAIR}),
    Way(work="rank", route="/rerank", body={"query": "hello", "texts": [TEXT, "one two three"]}),
    *(Way(work=work, route="/models/{model_id}", body=body) for work, body in HUB.items()),
    *(Way(work=work, route="/models/{model_id}/pipeline/{task}", body=body) for work, body in HUB.items()),
    *(Way(work=work, route="/pipeline/{task}/{model_id}", body=body) for work, body in HUB.items()),
    *(Way(work=work, route="/v2/models/{model_id}/infer", body=body) for work, body in TENSORS.items()),
]  # fmt: skip
ROUTES = {way.route: way for way in reversed(WAYS)}
"""The first way of each route."""
