"""lm-evaluation-harness, `local-completions`: over HTTP the same scores as in process on the same checkpoint."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.checkpoints import SENTENCES
from tests.wire.live import Live

CHOICE = """
task: tiny_choice
output_type: multiple_choice
doc_to_text: "{{start}}"
doc_to_target: "{{label}}"
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
PERPLEXITY = """
task: tiny_perplexity
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""
WRITING = """
task: tiny_writing
output_type: generate_until
doc_to_text: "{{start}}"
doc_to_target: "{{text}}"
generation_kwargs: {until: ["\\n", "zz"], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match}]
"""


def write_tasks(folder: Path) -> None:
    """Three tasks over one local file: choosing, scoring whole texts, and writing."""
    texts = sorted(set(SENTENCES))
    lines: list[str] = []
    for place, text in enumerate(texts):
        start, _, rest = text.partition(" ")
        other = texts[place - 1].partition(" ")[2]
        lines.append(json.dumps({"start": start, "text": text, "choices": [" " + rest, " " + other], "label": 0}))
    (folder / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    source = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder / 'texts.jsonl'}}}}}\n"
    for name, task in {"choice": CHOICE, "perplexity": PERPLEXITY, "writing": WRITING}.items():
        (folder / f"{name}.yaml").write_text(f"{task.strip()}\n{source}test_split: test\n", encoding="utf-8")


def test_the_harness_scores_over_http_as_in_process(live: Live, key: str, tmp_path: Path) -> None:
    write_tasks(tmp_path)
    found: Any = live.run_client(
        "lm_eval_both_ways", key=key, environment="lm-eval", tasks=str(tmp_path), batch="2",
        checkpoint=str(live.checkpoints["tiny-gpt2"]), hf_home=str(tmp_path / "hf"),
    )  # fmt: skip
    assert found["backend"] == "remote"
    http, local = found["http"], found["local"]
    assert http["results"].keys() == local["results"].keys() == {"tiny_choice", "tiny_perplexity", "tiny_writing"}
    for task, values in local["results"].items():
        assert values and http["results"][task] == pytest.approx(values, abs=1e-3, rel=1e-3)
    assert http["answers"]["tiny_writing"] == local["answers"]["tiny_writing"]
    for mine, theirs in zip(http["answers"]["tiny_choice"], local["answers"]["tiny_choice"], strict=True):
        for one, other in zip(mine, theirs, strict=True):
            assert float(one[0]) == pytest.approx(float(other[0]), abs=1e-3)
            assert one[1] == other[1], "whether greedy decoding would have written it"
    assert all(entry["output_tokens"] >= 1 for entry in live.entries(key, count=1))


def test_the_tokenizer_can_be_used_from_afar(live: Live, key: str) -> None:
    with httpx.Client(base_url=live.url, headers={"authorization": f"Bearer {key}"}) as client:
        info = client.get("/tokenizer_info").json()
        assert (info["eos_token"], info["chat_template"]) == ("<|endoftext|>", None)
        made = client.post("/tokenize", json={"prompt": "hello world", "add_special_tokens": False}).json()
        assert made["count"] == len(made["tokens"]) > 0 and made["max_model_len"] == 64
        assert client.post("/detokenize", json={"tokens": made["tokens"]}).json() == {"prompt": "hello world"}
        chat = {"model": "tiny-gpt2-chat", "messages": [{"role": "user", "content": "hello"}]}
        spoken = client.post("/tokenize", json=chat).json()["tokens"]
        text = client.post("/detokenize", json={"model": "tiny-gpt2-chat", "tokens": spoken}).json()["prompt"]
        assert text == "user: hello\nassistant:"
        assert client.post("/detokenize", json={"tokens": [10**6]}).status_code == 400
        assert client.post("/tokenize", json={"prompt": "x"}, headers={"authorization": ""}).status_code == 401
    assert live.entries(key) == []
