"""How the dialects of translation find a model: by the languages that it reads and writes, and that a text is in."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from app.admission.authenticate import Principal
from app.api.models import may_use
from app.errors import InvalidRequest, TaskMismatch
from app.registry.model import Languages
from app.registry.residency import Residency
from app.text.languages import Guess, detect, name_of

SURE = 0.9
LETTERS_MIN = 20
"""A text of so many letters, of which the detector is so sure, is believed to be in a language that no model reads."""


@dataclass(frozen=True, slots=True)
class Direction:
    """A model and what it translates from and to."""

    model: str
    languages: Languages


@dataclass(frozen=True, slots=True)
class Chosen:
    """The model for a request, and of each text the language that it was taken to be in."""

    model: str
    source: str
    guesses: tuple[Guess, ...]


def directions(residency: Residency, principal: Principal) -> list[Direction]:
    """What this key may translate, in the catalogue's order; of two models for a pair the first counts."""
    found: dict[Languages, Direction] = {}
    for place in residency.places:
        languages = place.model.languages
        if languages is not None and may_use(principal, place):
            found.setdefault(languages, Direction(place.model.id, languages))
    return list(found.values())


async def choose(
    residency: Residency, principal: Principal, texts: Sequence[str], *, source: str | None, target: str, names: str
) -> Chosen:
    """The model for these texts; `source` None detects the language of each. Codes are ISO 639-1.

    Raises TaskMismatch for a pair that nothing translates, and InvalidRequest for texts that no model reads or that are
    in several languages. `names` is what the dialect calls its source field.
    """
    known = directions(residency, principal)
    fitting = {one.languages.source: one for one in known if one.languages.target == target}
    if not fitting or (source is not None and source not in fitting):
        pairs = ", ".join(f"{one.languages.source}-{one.languages.target}" for one in known) or "none"
        wanted = f"{source or 'any language'} to {target}"
        raise TaskMismatch(f"There is no model from {wanted[:60]}; the pairs are: {pairs}.", field="target")
    if source is not None:
        return Chosen(fitting[source].model, source, tuple(Guess(source, 1.0) for _ in texts))
    guesses = tuple(await asyncio.to_thread(lambda: [among(text, fitting, names) for text in texts]))
    languages = sorted({guess.language for guess in guesses})
    if len(languages) > 1:
        raise InvalidRequest(
            f"the texts are in several languages ({', '.join(languages)}), which different models read; send a request "
            f"for each language, or {names}",
            field=names,
        )
    return Chosen(fitting[languages[0]].model, languages[0], guesses)


def among(text: str, sources: dict[str, Direction], names: str) -> Guess:
    """Its language among those that can be read. Raises InvalidRequest when it plainly is another one."""
    best = detect(text)[0]
    letters = sum(letter.isalpha() for letter in text)
    if best.language not in sources and best.confidence >= SURE and letters >= LETTERS_MIN:
        raise InvalidRequest(
            f"a text seems to be in {name_of(best.language)} and the models read {', '.join(sorted(sources))}; send "
            f"{names} if that is wrong",
            field=names,
        )
    return detect(text, sources)[0]
