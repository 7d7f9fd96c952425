"""Every error of the tree can be shown to somebody: it has a code, a kind and words."""

import app.errors as errors
from app.errors import TollgateError


def every_class(root: type[TollgateError] = TollgateError) -> list[type[TollgateError]]:
    return [root, *(found for child in root.__subclasses__() for found in every_class(child))]


def test_every_error_is_drawn_in_the_tree_and_has_a_message() -> None:
    for found in every_class():
        assert found.__name__ in (errors.__doc__ or ""), found.__name__
        assert found().message, found.__name__


def test_codes_are_shared_only_along_the_tree() -> None:
    by_code: dict[str, type[TollgateError]] = {}
    for found in every_class():
        other = by_code.setdefault(found.code, found)
        assert issubclass(found, other), f"{found.__name__} and {other.__name__} share {found.code}"
