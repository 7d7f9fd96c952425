"""Judges starter-embeddings: against sentence-transformers over the same files, and by finding questions' passages.

The texts are the 20 passages and 60 questions of models/recipes/question-answering/questions.json, written by hand.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from app.clock import SystemClock
from app.engine.session import open_jobs
from app.engine.settings import EngineSettings
from app.engine.transports.inline import InlineEngine
from app.registry.catalogue import SHIPPED, load_catalogue
from app.registry.residency import Residency
from app.registry.settings import RegistrySettings
from app.tasks.embedding import Embedding, EmbeddingRequest
from app.tasks.task import Caller

MODEL = "starter-embeddings"
QUESTIONS = Path(__file__).parents[1] / "question-answering" / "questions.json"


async def ours(texts: list[str], home: Path) -> tuple[np.ndarray, Path]:
    """Vectors (texts, 384) through the task and the engine, and the folder that they were made from."""
    engine = InlineEngine(settings=EngineSettings(), clock=SystemClock())
    residency = Residency(
        catalogue=load_catalogue(SHIPPED), engine=engine, settings=RegistrySettings(), home=home, clock=SystemClock()
    )
    found: dict[int, tuple[float, ...]] = {}
    async with residency.lease(MODEL) as resident:
        for start in range(0, len(texts), resident.model.limits.batch_inputs_max):
            batch = tuple(texts[start : start + resident.model.limits.batch_inputs_max])
            prepared = await Embedding().prepare(EmbeddingRequest(texts=batch), resident, Caller(request_id=str(start)))
            async with open_jobs(engine, prepared.jobs) as session:
                async for one in Embedding().events(prepared, session):
                    found[start + one.index] = one.vector
        folder = resident.folder
    await engine.close()
    return np.array([found[index] for index in range(len(texts))]), folder


def main() -> None:
    passages = json.loads(QUESTIONS.read_text(encoding="utf-8"))["passages"]
    texts = [passage["text"] for passage in passages]
    owners = [place for place, passage in enumerate(passages) for _ in passage["questions"]]
    questions = [asked["question"] for passage in passages for asked in passage["questions"]]
    with tempfile.TemporaryDirectory() as home:
        vectors, folder = asyncio.run(ours(texts + questions, Path(home)))
        model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
        theirs = model.encode(texts + questions)
    near = vectors[len(texts) :] @ vectors[: len(texts)].T
    ranks = [int((row > row[owner]).sum()) for row, owner in zip(near, owners, strict=True)]
    metrics = {
        "texts": len(vectors), "dimensions": vectors.shape[1],
        "largest_difference_to_sentence_transformers": float(f"{np.abs(vectors - theirs).max():.2g}"),
        "questions": len(questions), "passages": len(texts),
        "own_passage_first": sum(rank == 0 for rank in ranks), "own_passage_in_three": sum(rank < 3 for rank in ranks),
    }  # fmt: skip
    target = SHIPPED.parent / "starter" / MODEL / "metrics.json"
    target.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
