"""The server that a newcomer writes: LitServe in front of transformers' generate, whole batches, whole answers."""

from pathlib import Path
from typing import Any

import litserve
import torch
import typer

from benchmarks.runners.transformers_generate import generate, load_model
from benchmarks.workloads import Ask

BATCH_TIMEOUT_S = 0.05


class NaiveApi(litserve.LitAPI):
    """Ids and a length in, the count of tokens out: the ids themselves would only cost both sides JSON."""

    folder = ""
    precision = "bf16"

    def setup(self, device: str) -> None:
        self.model = load_model(Path(self.folder), "gpt2", self.precision)
        self.model.generation_config.eos_token_id = None

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        return request

    def batch(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return inputs

    def predict(self, x: list[dict[str, Any]]) -> list[int]:
        with torch.inference_mode():
            return generate(self.model, "gpt2", [Ask(tuple(one["ids"]), one["output_tokens"]) for one in x])

    def unbatch(self, output: list[int]) -> list[int]:
        return output

    def encode_response(self, output: int) -> dict[str, int]:
        return {"output_tokens": output}


def main(folder: str, precision: str = "bf16", batch: int = 32, port: int = 0) -> None:
    """Serve until killed."""
    api = NaiveApi(max_batch_size=batch, batch_timeout=BATCH_TIMEOUT_S)
    api.folder, api.precision = folder, precision
    server = litserve.LitServer(api, accelerator="cpu", timeout=600)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, num_api_servers=1)


if __name__ == "__main__":
    typer.run(main)
