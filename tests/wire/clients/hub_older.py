"""huggingface_hub before 1.2: every task that needs no numpy, and conversations; prints what it parsed."""

import json
import os
from dataclasses import asdict, is_dataclass

import huggingface_hub
from huggingface_hub import InferenceClient

URL, KEY = os.environ["TOLLGATE_URL"] + "/models/", os.environ["TOLLGATE_KEY"]


def client(model: str) -> InferenceClient:
    return InferenceClient(model=URL + model, token=KEY)


def plain(found):
    if isinstance(found, list):
        return [plain(one) for one in found]
    return asdict(found) if is_dataclass(found) else found


text = client("tiny-gpt2")
stream = text.text_generation("hello", max_new_tokens=5, stream=True, details=True)
chat = client("tiny-gpt2-chat")
asked = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 6, "temperature": 0.0}
said = chat.chat_completion(**asked)
spoken = list(chat.chat_completion(**asked, stream=True, stream_options={"include_usage": True}))
context = "my name is clara and i live in berkeley"
print(
    json.dumps(
        {
            "version": huggingface_hub.__version__,
            "whole": text.text_generation("hello", max_new_tokens=5, return_full_text=False),
            "streamed": [plain(one) for one in stream],
            "said": plain(said),
            "spoken": plain(spoken),
            "labels": plain(client("tiny-bert-classifier").text_classification("hello world")),
            "zero_shot": plain(client("tiny-bert-nli").zero_shot_classification("hello", ["dog", "server"])),
            "translation": plain(client("tiny-marian").translation("hello world")),
            "answer": plain(client("tiny-bert-qa").question_answering(question="where?", context=context)),
            "masks": plain(client("tiny-bert-mask").fill_mask("hello [MASK]")),
            "entities": plain(client("tiny-bert-ner").token_classification(context)),
            "similar": client("tiny-bert-vectors").sentence_similarity("hello", other_sentences=["hello"]),
        }
    )
)
