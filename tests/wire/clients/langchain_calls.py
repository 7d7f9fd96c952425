"""langchain-openai: texts, streams, conversations and vectors, as its users write them."""

import json
import os

from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

place = {"base_url": os.environ["TOLLGATE_URL"] + "/v1", "api_key": os.environ["TOLLGATE_KEY"], "max_retries": 0}
texts = OpenAI(model="tiny-gpt2", temperature=0, max_tokens=8, **place)
chat = ChatOpenAI(model="tiny-gpt2-chat", temperature=0, max_tokens=6, **place)
vectors = OpenAIEmbeddings(model="tiny-bert-vectors", check_embedding_ctx_length=False, **place)
said = chat.invoke([("system", "good morning"), ("user", "hello")])
try:
    chat.bind_tools([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]).invoke("hello")
    refused = None
except Exception as error:
    refused = [type(error).__name__, str(error)]
try:
    plain = ChatOpenAI(model="tiny-gpt2", **place).invoke("hello").content
except Exception as error:
    plain = [type(error).__name__, str(error)]
many = vectors.embed_documents([f"hello {number}" for number in range(1100)])
print(
    json.dumps(
        {
            "many": len(many),
            "text": texts.invoke("hello world"),
            "streamed": list(texts.stream("hello world")),
            "batch": texts.batch(["hello world", "one two"]),
            "said": said.content,
            "spoken": "".join(str(chunk.content) for chunk in chat.stream([("user", "hello")])),
            "again": chat.invoke([("user", "hello")]).content,
            "usage": said.usage_metadata,
            "vectors": [len(one) for one in vectors.embed_documents(["hello world", "good morning", "nine"])],
            "query": len(vectors.embed_query("hello")),
            "tools": refused,
            "no_template": plain,
        }
    )
)
