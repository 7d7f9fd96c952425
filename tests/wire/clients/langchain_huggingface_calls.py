"""langchain-huggingface: texts, streams, conversations and vectors, as its users write them."""

import json
import os

from huggingface_hub import InferenceClient
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_huggingface import ChatHuggingFace, HuggingFaceEndpoint, HuggingFaceEndpointEmbeddings

URL, KEY = os.environ["TOLLGATE_URL"] + "/models/", os.environ["TOLLGATE_KEY"]


def endpoint(model: str, **more) -> HuggingFaceEndpoint:
    return HuggingFaceEndpoint(model=URL + model, huggingfacehub_api_token=KEY, task="text-generation", **more)


texts = endpoint("tiny-gpt2", max_new_tokens=8, seed=7)
# temperature=0 would count as unset here, and the endpoint's 0.8 be sent
chat = ChatHuggingFace(llm=endpoint("tiny-gpt2-chat"), max_tokens=6, model_kwargs={"temperature": 0.0})
said = chat.invoke([SystemMessage("good morning"), HumanMessage("hello")])
spoken = list(chat.stream([HumanMessage("hello")], stream_usage=True))
vectors = HuggingFaceEndpointEmbeddings(model="tiny-bert-vectors", huggingfacehub_api_token=KEY)
vectors.client = InferenceClient(model=URL + "tiny-bert-vectors", token=KEY, provider="hf-inference")
try:
    refused = ChatHuggingFace(llm=endpoint("tiny-gpt2"), max_tokens=6).invoke([HumanMessage("hello")]).content
except Exception as error:
    refused = [type(error).__name__, str(error)]
print(
    json.dumps(
        {
            "text": texts.invoke("hello world"),
            "streamed": list(texts.stream("hello world")),
            "batch": texts.batch(["hello world", "one two"]),
            "said": said.content,
            "usage": said.usage_metadata,
            "spoken": "".join(str(chunk.content) for chunk in spoken),
            "spoken_usage": [chunk.usage_metadata for chunk in spoken if chunk.usage_metadata],
            "again": chat.invoke([HumanMessage("hello")]).content,
            "vectors": [len(one) for one in vectors.embed_documents(["hello world", "good morning", "nine"])],
            "query": len(vectors.embed_query("hello")),
            "no_template": refused,
        }
    )
)
