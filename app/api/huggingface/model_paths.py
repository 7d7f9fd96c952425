"""/models/{id}/v1/…: OpenAI's routes under a model's own address, as InferenceClient's chat_completion calls them.

The path names the model, whatever the body says (the client writes "dummy"). Plain ASGI, before routing.
"""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

PATH = re.compile(r"/models/(?P<model>.+)/v1(?P<rest>/(?:chat/completions|completions|embeddings|models))")


class ModelPaths:
    """See the module."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the module."""
        if scope["type"] == "http" and (found := PATH.fullmatch(scope["path"])) is not None:
            path = "/v1" + found["rest"]
            scope.setdefault("state", {})["model_in_path"] = found["model"]
            scope = {**scope, "path": path, "raw_path": path.encode("ascii")}
        await self._app(scope, receive, send)
