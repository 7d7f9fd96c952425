"""Every family's forward pass equals transformers' own: tokens exactly in fp32, scores within rounding."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForTokenClassification,
)
from transformers import AutoModelForSequenceClassification as AutoModelForLabels

from app.engine.compute import families
from app.engine.compute.cache import Span, StepTokens
from app.engine.compute.families.bert import PREFIXES as BERT_PREFIXES
from app.engine.compute.families.bert import Bert
from app.engine.compute.families.gpt2 import PREFIXES as GPT2_PREFIXES
from app.engine.compute.families.gpt2 import Gpt2
from app.engine.compute.families.marian import PREFIXES as MARIAN_PREFIXES
from app.engine.compute.families.marian import Marian, sinusoids
from app.engine.compute.weights import Weights, read_config, read_tensors
from app.engine.jobs import Head, Precision

CPU = torch.device("cpu")
CASES = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def weights_of(folder: Path, prefixes: tuple[str, ...]) -> Weights:
    return Weights(read_tensors(folder), precision=Precision.FP32, device=CPU, prefixes=prefixes)


@pytest.fixture(scope="module")
def gpt2(checkpoints: dict[str, Path]) -> tuple[Gpt2, Any]:
    folder = checkpoints["tiny-gpt2"]
    ours = Gpt2(read_config(folder), weights_of(folder, GPT2_PREFIXES))
    return ours, AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module", params=["as stored", "reordered"])
def marian(checkpoints: dict[str, Path], request: pytest.FixtureRequest) -> tuple[Marian, Any]:
    folder = checkpoints["tiny-marian"]
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "reordered":  # as int8 models are, where products of neighbours are summed in 16 bits
            patch.setattr(families.marian, "IN_16_BITS", True)
            order = families.marian.stream_order
            patch.setattr(families.marian, "stream_order", lambda width, _: order(width, Precision.INT8))
        ours = Marian(read_config(folder), weights_of(folder, MARIAN_PREFIXES))
    is_moved = not torch.equal(ours.places, sinusoids(ours.positions_max, ours.width))
    assert is_moved == (request.param == "reordered")
    return ours, AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()


def rows_of_ids(vocabulary: int, length_max: int) -> st.SearchStrategy[list[list[int]]]:
    row = st.lists(st.integers(1, vocabulary - 2), min_size=1, max_size=length_max)
    return st.lists(row, min_size=1, max_size=4)


@given(data=st.data())
@CASES
@torch.inference_mode()
def test_gpt2_in_company_and_in_chunks_gives_the_tokens_of_transformers(
    gpt2: tuple[Gpt2, Any], data: st.DataObject
) -> None:
    ours, theirs = gpt2
    prompts = data.draw(rows_of_ids(ours.vocabulary, 30))
    chunk = data.draw(st.integers(1, 30))
    cache = ours.new_cache(len(prompts))
    tokens = [list(prompt) for prompt in prompts]
    done = [0] * len(prompts)
    while any(len(row) < len(prompt) + 8 for row, prompt in zip(tokens, prompts, strict=True)):
        spans = [
            Span(slot, done[slot], min(chunk, len(row) - done[slot]))
            for slot, row in enumerate(tokens)
            if len(row) < len(prompts[slot]) + 8
        ]
        ids = torch.tensor([i for s in spans for i in tokens[s.slot][s.start : s.start + s.count]])
        hidden = ours.forward(ids, StepTokens(spans, CPU), cache)
        last = torch.tensor([s.count for s in spans]).cumsum(0) - 1
        for span, best in zip(spans, ours.logits(hidden[last]).argmax(-1).tolist(), strict=True):
            done[span.slot] += span.count
            if done[span.slot] == len(tokens[span.slot]):
                tokens[span.slot].append(best)
    for prompt, row in zip(prompts, tokens, strict=True):
        expected = list(prompt)
        for _ in range(8):
            expected.append(int(theirs(torch.tensor([expected])).logits[0, -1].argmax()))
        assert row == expected


@given(data=st.data())
@CASES
@torch.inference_mode()
def test_marian_in_company_gives_the_tokens_of_transformers(marian: tuple[Marian, Any], data: st.DataObject) -> None:
    ours, theirs = marian
    sources = [[*row, 0] for row in data.draw(rows_of_ids(ours.vocabulary - 1, 20))]
    lengths = [len(source) for source in sources]
    cache, memory_cache = ours.new_cache(len(sources)), ours.new_cache(len(sources))
    memory = ours.encode(torch.tensor([i for source in sources for i in source]), lengths)
    ends = [Span(slot, length - 1, 1) for slot, length in enumerate(lengths)]
    ours.remember(memory, StepTokens([Span(slot, 0, n) for slot, n in enumerate(lengths)], CPU), memory_cache)
    tokens = [[ours.start_id] for _ in sources]
    for step in range(10):
        spans = [Span(slot, step, 1) for slot in range(len(sources))]
        ids = torch.tensor([row[-1] for row in tokens])
        hidden = ours.forward(ids, StepTokens(spans, CPU), cache, memory_cache, StepTokens(ends, CPU))
        for row, best in zip(tokens, ours.logits(hidden).argmax(-1).tolist(), strict=True):
            row.append(best)
    for source, row in zip(sources, tokens, strict=True):
        expected = [ours.start_id]
        for _ in range(10):
            out = theirs(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([expected]))
            expected.append(int(out.logits[0, -1].argmax()))
        assert row == expected


@pytest.mark.parametrize(
    ("name", "head", "auto"),
    [
        ("tiny-bert-classifier", Head.CLASSIFY, AutoModelForLabels),
        ("tiny-bert-qa", Head.ANSWER, AutoModelForQuestionAnswering),
        ("tiny-bert-ner", Head.TAG, AutoModelForTokenClassification),
        ("tiny-bert-mask", Head.UNMASK, AutoModelForMaskedLM),
        ("tiny-bert-vectors", Head.EMBED, AutoModel),
    ],
)
@torch.inference_mode()
def test_bert_packed_gives_the_scores_of_transformers(
    checkpoints: dict[str, Path], name: str, head: Head, auto: Any
) -> None:
    folder = checkpoints[name]
    ours = Bert(read_config(folder), weights_of(folder, BERT_PREFIXES), head)
    theirs = auto.from_pretrained(folder, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(1)
    lengths = [1, 7, 128, 7, 30]
    rows = [torch.randint(0, ours.vocabulary, (length,), generator=generator) for length in lengths]
    types = [torch.randint(0, 2, (length,), generator=generator) for length in lengths]
    places = [[0], [], [3, 127], [6, 0], [29]]
    scores = ours.forward(torch.cat(rows), torch.cat(types), lengths, places)
    for row, kind, hidden, found in zip(rows, types, places, scores, strict=True):
        out = theirs(input_ids=row[None], token_type_ids=kind[None])
        match head:
            case Head.CLASSIFY:
                expected = out.logits
            case Head.TAG:
                expected = out.logits[0]
            case Head.UNMASK:
                expected = out.logits[0, hidden]
            case Head.EMBED:
                expected = out.last_hidden_state.mean(1)
            case _:
                expected = torch.cat([out.start_logits, out.end_logits])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
