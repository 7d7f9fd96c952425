"""The OpenAPI document's words for bodies that the routes read themselves."""

from typing import Any, cast

from pydantic import BaseModel


def body_schema(body: type[BaseModel]) -> dict[str, Any]:
    """For `openapi_extra`: the body with its examples, whole where it stands: a reference would lead out of it."""
    schema = body.model_json_schema()
    found = inlined(schema, schema.pop("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": found}}}}


def inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema with its references written out."""
    if isinstance(schema, list):
        return [inlined(value, definitions) for value in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    found = dict(cast("dict[str, Any]", schema))
    found.pop("discriminator", None)  # it maps values to references; each choice names its own value as well
    target = found.pop("$ref", None)
    whole: dict[str, Any] = {} if target is None else inlined(definitions[target.rsplit("/", 1)[-1]], definitions)
    return whole | {name: inlined(value, definitions) for name, value in found.items()}
