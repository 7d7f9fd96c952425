"""Tensors of the Open Inference Protocol on the wire: in JSON, or as bytes behind it.

A binary body is the JSON object, `Inference-Header-Content-Length` bytes long, then each tensor's bytes in order, as
long as its `binary_data_size` says. An element of BYTES is its length (uint32, little-endian) and its bytes.
"""

import json
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from app.api.body import length_of, parsed, read_bytes
from app.errors import InvalidRequest, RequestTooLarge, UnsupportedParameter

HEADER_LENGTH = "inference-header-content-length"
FORMATS = {"FP32": "f", "INT64": "q"}


class TensorBody(BaseModel):
    """An input."""

    model_config = ConfigDict(extra="ignore")

    name: str
    shape: list[int] = Field(max_length=4)
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class WantedBody(BaseModel):
    """An output that is asked for."""

    model_config = ConfigDict(extra="ignore")

    name: str
    parameters: dict[str, Any] = {}


class InferBody(BaseModel):
    """A request."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["hello"]}]}]
        },
    )

    id: str | None = Field(default=None, max_length=200)
    inputs: list[TensorBody] = Field(min_length=1, max_length=16)
    outputs: list[WantedBody] = []
    parameters: dict[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An output: its elements row by row."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Any]

    def packed(self) -> bytes:
        """Its elements as bytes."""
        if self.datatype == "BYTES":
            return b"".join(struct.pack("<I", len(raw)) + raw for raw in (str(one).encode() for one in self.values))
        return struct.pack(f"<{len(self.values)}{FORMATS[self.datatype]}", *self.values)


async def read_parts(request: Request) -> tuple[dict[str, Any], bytes]:
    """The JSON object and the bytes behind it. Raises InvalidRequest or RequestTooLarge."""
    bytes_max = request.app.state.settings.api.body_bytes_max
    raw = await read_bytes(request, bytes_max)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("gzip", "deflate"):
        raw = inflated(raw, bytes_max)
    elif encoding != "identity":
        raise InvalidRequest("send the body as it is, or compressed with gzip or deflate", field="content-encoding")
    declared = request.headers.get(HEADER_LENGTH)
    if declared is None:
        return parsed(raw), b""
    length = length_of(declared)
    if length is None or length > len(raw):
        raise InvalidRequest(f"{HEADER_LENGTH} must be a number of bytes within the body", field=HEADER_LENGTH)
    return parsed(raw[:length]), raw[length:]


def inflated(raw: bytes, bytes_max: int) -> bytes:
    """The body behind gzip or deflate, no more than `bytes_max` of it. Raises InvalidRequest or RequestTooLarge."""
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        found = stream.decompress(raw, bytes_max + 1)
    except zlib.error as cause:
        raise InvalidRequest("the body cannot be decompressed", field="content-encoding") from cause
    if len(found) > bytes_max:
        raise RequestTooLarge(f"The body has more than {bytes_max:,} bytes, which is the most that is accepted.")
    return found


def texts_of(inputs: Sequence[TensorBody], names: Sequence[str], behind: bytes) -> dict[str, tuple[str, ...]]:
    """The texts of the inputs that a task wants, by name. Raises InvalidRequest naming the tensor.

    A task that wants one input takes whatever name it has.
    """
    found: dict[str, tuple[str, ...]] = {}
    for tensor in inputs:
        size = tensor.parameters.get("binary_data_size")
        raw: bytes | None = None
        if size is not None:
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(behind):
                raise InvalidRequest(
                    f"binary_data_size of {tensor.name[:60]} lies beyond the body", field=tensor.name[:60]
                )
            raw, behind = behind[:size], behind[size:]
        found[tensor.name] = elements_of(tensor, raw)
    if len(names) == 1 and len(found) == 1:
        return {names[0]: next(iter(found.values()))}
    if set(found) != set(names):
        raise InvalidRequest(f"this model's inputs are {', '.join(names)}", field="inputs")
    return found


def elements_of(tensor: TensorBody, raw: bytes | None) -> tuple[str, ...]:
    """A tensor of texts, whatever its shape. Raises InvalidRequest or UnsupportedParameter."""
    name = tensor.name[:60]
    if tensor.datatype != "BYTES":
        raise UnsupportedParameter(f"{name} is {tensor.datatype[:20]}; the inputs here are texts: BYTES", field=name)
    if raw is not None:
        try:
            texts = [part.decode("utf-8") for part in unpacked(raw)]
        except (struct.error, UnicodeDecodeError) as cause:
            raise InvalidRequest(f"{name} holds no texts in UTF-8, each behind its length", field=name) from cause
    else:
        texts = list(flat(tensor.data or []))
        if not all(isinstance(text, str) for text in texts):
            raise InvalidRequest(f"{name} must hold texts", field=name)
    if any(size < 0 for size in tensor.shape) or math.prod(tensor.shape) != len(texts):
        raise InvalidRequest(f"{name} has {len(texts)} elements, which is not its shape", field=name)
    return tuple(cast("list[str]", texts))


def unpacked(raw: bytes) -> Iterator[bytes]:
    """The elements of BYTES. Raises struct.error."""
    place = 0
    while place < len(raw):
        (length,) = struct.unpack_from("<I", raw, place)
        place += 4
        if place + length > len(raw):
            raise struct.error("an element lies beyond the tensor")
        yield raw[place : place + length]
        place += length


def flat(data: list[Any]) -> Iterator[Any]:
    """The elements of nested lists."""
    for one in data:
        if isinstance(one, list):
            yield from flat(cast("list[Any]", one))
        else:
            yield one


def wanted_of(body: InferBody, made: Sequence[Tensor]) -> list[tuple[Tensor, bool]]:
    """The outputs that are asked for, all of them by default, and whether as bytes. Raises InvalidRequest."""
    by_name = {tensor.name: tensor for tensor in made}
    is_binary = body.parameters.get("binary_data_output") is True
    if not body.outputs:
        return [(tensor, is_binary) for tensor in made]
    for wanted in body.outputs:
        if wanted.name not in by_name:
            raise InvalidRequest(f"this model's outputs are {', '.join(by_name)}", field="outputs")
    return [(by_name[one.name], one.parameters.get("binary_data", is_binary) is True) for one in body.outputs]


def answer_with(head: dict[str, Any], outputs: Sequence[tuple[Tensor, bool]], headers: dict[str, str]) -> Response:
    """The answer, with bytes behind it where they are wanted."""
    shown: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for tensor, is_binary in outputs:
        one: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if is_binary:
            parts.append(tensor.packed())
            one["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            one["data"] = list(tensor.values)
        shown.append(one)
    if not parts:
        return JSONResponse(head | {"outputs": shown}, headers=headers)
    text = json.dumps(head | {"outputs": shown}).encode()
    headers = headers | {HEADER_LENGTH: str(len(text))}
    return Response(b"".join((text, *parts)), media_type="application/octet-stream", headers=headers)
