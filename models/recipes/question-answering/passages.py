"""Training passages: scenes of several frames in random order, and one question, whose answer is a span or is absent.

Others are made of WordNet's sentences (natural.py); both kinds are company for each other.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from events import event_frame
from frame_table import PEOPLE, PLACES, TRADE
from frame_table_daily import CONTEST, HEALTH_AND_RULES, KITCHEN, SOFTWARE, TRAVEL
from frames import Frame, Marked, ask, asks_of, fill, mark, unsaid_asks_of
from lexicon import Lexicon, Value
from natural import STARTS, Natural, Parsed, in_other_words, is_person, questions, with_subject

TABLES = (PEOPLE, PLACES, TRADE, SOFTWARE, KITCHEN, TRAVEL, CONTEST, HEALTH_AND_RULES)
EVENT_SHARE = 0.4
PAIR_SHARE = 0.45
UNANSWERABLE_SHARE = 0.12
NATURAL_SHARE = 0.5
COMPANY_SHARE = 0.5
SYNONYM_SHARE = 0.5
LIST_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class Example:
    """`start` and `end` are characters in `context`; both 0 when it does not say."""

    question: str
    context: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Scene:
    """A sentence of a frame, the values in it, and which suffix ("", "1", "2") they bear."""

    frame: Frame
    said: Marked
    values: dict[str, Value]
    suffixes: tuple[str, ...]

    def facts(self, suffix: str) -> tuple[dict[str, Value], set[str]]:
        """The values under the frame's own slot names, and which of them the sentence says."""
        values = {name: self.values[name + suffix] for name in self.frame.slots if name + suffix in self.values}
        return values, {name for name in values if name + suffix in self.said.spans}


def draw_frame(lexicon: Lexicon) -> Frame:
    rng = lexicon.rng
    return event_frame(lexicon) if rng.random() < EVENT_SHARE else rng.choice(rng.choice(TABLES))


def draw_scene(frame: Frame, lexicon: Lexicon) -> Scene:
    """One fact, or two of a kind in one sentence."""
    rng = lexicon.rng
    if frame.pairs and rng.random() < PAIR_SHARE:
        one, two = fill(frame.slots, lexicon), fill(frame.slots, lexicon)
        values = {name + "1": value for name, value in one.items()} | {name + "2": value for name, value in two.items()}
        return Scene(frame, mark(rng.choice(frame.pairs), values), values, ("1", "2"))
    values = fill(frame.slots, lexicon)
    return Scene(frame, mark(rng.choice(frame.says), values), values, ("",))


def example(rng: random.Random, natural: Natural) -> Example:
    """One passage and question. Half of the passages say two facts of the asked kind."""
    while True:
        lexicon = Lexicon(rng, {"clauses": natural.clauses})
        made = natural_example(lexicon, natural) if rng.random() < NATURAL_SHARE else frame_example(lexicon, natural)
        if made is not None:
            return made


def frame_example(lexicon: Lexicon, natural: Natural) -> Example | None:
    rng = lexicon.rng
    frame = draw_frame(lexicon)
    scenes = [draw_scene(frame, lexicon) for _ in range(rng.choice([1, 1, 2, 2, 3]))]
    asked = scenes[0]
    scenes += [draw_scene(draw_frame(lexicon), lexicon) for _ in range(rng.choice([0, 1, 1, 2, 3]))]
    return assembled(asked, scenes, company(lexicon, natural), lexicon)


def company(lexicon: Lexicon, natural: Natural) -> list[str]:
    """Sentences that people wrote, beside which a made one has to be found."""
    rng = lexicon.rng
    return rng.sample(natural.sentences, rng.choice([1, 1, 2, 3])) if rng.random() < COMPANY_SHARE else []


def natural_example(lexicon: Lexicon, natural: Natural) -> Example | None:
    """A sentence of WordNet's with others of the same verb or person, and a question about it."""
    rng = lexicon.rng
    one = rng.choice(natural.parsed)
    person = natural.person(one, lexicon)
    asked = with_subject(one, person)
    if one.object and rng.random() < LIST_SHARE:
        asked = replace(asked, object=lexicon.listed("newthing"))
    others = rng.sample(natural.by_verb[one.lemma], min(2, len(natural.by_verb[one.lemma])))
    others += rng.sample(natural.parsed, rng.choice([0, 1, 2]))
    texts = [with_subject(other, natural.person(other, lexicon)).text for other in others if other is not one]
    if rng.random() < 0.4:
        texts.append(draw_scene(draw_frame(lexicon), lexicon).said.text)
    texts = rng.sample(texts, len(texts)) + company(lexicon, natural)
    in_question = in_other_words(asked, rng) if one.synonyms and rng.random() < SYNONYM_SHARE else asked
    found = questions(in_question, rng, is_human=is_person(one))
    front, when = fronted(lexicon)
    if when:
        found = [pair for pair in found if pair[1] or not pair[0].startswith("When")]
        found += [(question.replace("Why", "When", 1), when) for question, _ in found if question.startswith("Why ")] * 2
    is_answerable = rng.random() >= UNANSWERABLE_SHARE
    found = [pair for pair in found if bool(pair[1]) == is_answerable]
    if not found:
        return None
    question, answer = rng.choice(found)
    if one.subject.lower() in ("he", "she") and answer not in (person, when) and rng.random() < 0.4:
        told = replace(one, object=asked.object).text
        first = told_of(person, one, natural, rng)
        before, after = " ".join([*texts, first]), ""
    else:
        told = joined(front, asked.text)
        place = rng.randint(0, len(texts))
        before, after = " ".join(texts[:place]), " ".join(texts[place:])
    context = f"{before} {told} {after}".strip()
    start = context.lower().find(answer.lower(), len(before)) if answer else 0
    if start < 0 or start + len(answer) > len(before) + 1 + len(told):
        return None
    return Example(capital(question), context, start, start + len(answer))


def fronted(lexicon: Lexicon) -> tuple[str, str]:
    """What may stand before a sentence, and the time that it tells."""
    rng = lexicon.rng
    if rng.random() < 0.15:
        time = lexicon.draw("time")
        return f"{capital(time.text)}, ", time.core
    if rng.random() < 0.3:
        person, other = lexicon.person(), lexicon.clause()
        options = [f"{person} said that ", f"According to {person}, ", f"Although {other}, ", f"{capital(other)}, but "]
        return rng.choice([*options, f"{capital(other)}, and "]), ""
    return "", ""


def joined(front: str, text: str) -> str:
    if not front or text.split()[0].lower() not in STARTS:
        return front + text
    return front + text[0].lower() + text[1:]


def told_of(person: str, one: Parsed, natural: Natural, rng: random.Random) -> str:
    """A sentence that names the person, before the asked one with its pronoun."""
    first = rng.choice([other for other in rng.sample(natural.parsed, 60) if other.subject == one.subject] or [one])
    return with_subject(first, person).text


def assembled(asked: Scene, scenes: list[Scene], others: list[str], lexicon: Lexicon) -> Example | None:
    """The passage with a question about `asked`; None when it cannot be asked about."""
    rng = lexicon.rng
    suffix = rng.choice(asked.suffixes)
    values, said = asked.facts(suffix)
    is_answerable = rng.random() >= UNANSWERABLE_SHARE
    asks = asks_of(asked.frame, said=said) if is_answerable else unsaid_asks_of(asked.frame, said=said)
    if not asks:
        if is_answerable or rng.random() < 0.5:
            return None
        other = draw_scene(draw_frame(lexicon), lexicon)
        suffix = rng.choice(other.suffixes)
        values, said = other.facts(suffix)
        asks = asks_of(other.frame, said=said)
        if not asks or other.frame.name in {scene.frame.name for scene in scenes}:
            return None
    slots = sorted({slot for _, slot in asks})
    chosen = rng.choice(slots)
    template = rng.choice([question for question, slot in asks if slot == chosen])
    order = rng.sample([*scenes, *others], len(scenes) + len(others))
    context, start, end = "", 0, 0
    for scene in order:
        if isinstance(scene, str):
            context += scene + " "
            continue
        if scene is asked and is_answerable:
            first, last = scene.said.spans[chosen + suffix]
            start, end = len(context) + first, len(context) + last
        context += scene.said.text + " "
    question = ask(template, values)
    if rng.random() < 0.1:
        question = question.rstrip("?")
    return Example(question, context.rstrip(), start, end)


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def examples(count: int, natural: Natural, *, seed: int) -> list[Example]:
    """`count` of them; the same for the same seed."""
    rng = random.Random(seed)
    return [example(rng, natural) for _ in range(count)]
