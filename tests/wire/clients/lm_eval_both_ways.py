"""lm-evaluation-harness on small tasks: over HTTP with the server's tokenizer, and in process on one checkpoint."""

import json
import os

import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer, GPT2LMHeadModel

os.environ["OPENAI_API_KEY"] = os.environ["TOLLGATE_KEY"]
torch.set_num_threads(1)
FOLDER = os.environ["CHECKPOINT"]
TASKS = ["tiny_choice", "tiny_perplexity", "tiny_writing"]


def samples_of(model) -> dict:
    found = simple_evaluate(
        model=model,
        tasks=TASKS,
        task_manager=TaskManager(include_path=os.environ["TASKS"], include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    return {
        "results": {
            task: {name: value for name, value in shown.items() if isinstance(value, float)}
            for task, shown in found["results"].items()
        },
        "answers": {task: [one["filtered_resps"] for one in found["samples"][task]] for task in TASKS},
    }


api = LocalCompletionsAPI(
    base_url=os.environ["TOLLGATE_URL"] + "/v1/completions",
    model="tiny-gpt2",
    auth_token=os.environ["TOLLGATE_KEY"],
    max_length=64,
    num_concurrent=4,
    batch_size=int(os.environ.get("BATCH", "1")),
    max_gen_toks=8,
)
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
local = HFLM(
    pretrained=GPT2LMHeadModel.from_pretrained(FOLDER),
    tokenizer=tokenizer,
    max_length=64,
    batch_size=1,
    device="cpu",
    dtype="float32",
)
found = {"backend": api.tokenizer_backend, "http": samples_of(api), "local": samples_of(local)}
print(json.dumps(found, default=str))
