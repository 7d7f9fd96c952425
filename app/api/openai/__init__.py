"""OpenAI's dialect: a route a file, as its clients and vLLM's send and read them.

Bodies and answers only; what is asked for goes to the tasks. Unknown fields are ignored, as those clients expect.
"""

from fastapi import APIRouter

from app.api.openai import chat, completions, decisions, embeddings, tokenizer

router = APIRouter()
for part in (completions, chat, embeddings, decisions, tokenizer):
    router.include_router(part.router)
