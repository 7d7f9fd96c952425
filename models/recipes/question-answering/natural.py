"""Sentences that people wrote: WordNet's examples of verbs, taken apart into who, what and the rest, and asked about.

There is no parser: the dictionary says which verb an example is for, so what stands before it is the subject. Sentences
that do not fit the pattern are kept as company for other passages.
"""

from __future__ import annotations

import gzip
import random
import re
from dataclasses import dataclass, replace
from pathlib import Path

from lexicon import MEN, WOMEN, Lexicon, words

IRREGULAR = dict(
    entry.strip().split(" ", 1)
    for entry in (
        "be was been; bear bore borne; beat beat beaten; become became become; begin began begun; bend bent bent; "
        "bind bound bound; bite bit bitten; blow blew blown; break broke broken; bring brought brought; "
        "build built built; burst burst burst; buy bought bought; cast cast cast; catch caught caught; "
        "choose chose chosen; come came come; cost cost cost; cut cut cut; deal dealt dealt; dig dug dug; "
        "do did done; draw drew drawn; drink drank drunk; drive drove driven; eat ate eaten; fall fell fallen; "
        "feed fed fed; feel felt felt; fight fought fought; find found found; fly flew flown; "
        "forget forgot forgotten; freeze froze frozen; get got gotten; give gave given; go went gone; "
        "grind ground ground; grow grew grown; hang hung hung; have had had; hear heard heard; hide hid hidden; "
        "hit hit hit; hold held held; hurt hurt hurt; keep kept kept; know knew known; lay laid laid; lead led led; "
        "leave left left; lend lent lent; let let let; lie lay lain; lose lost lost; make made made; "
        "mean meant meant; meet met met; pay paid paid; put put put; read read read; ride rode ridden; "
        "ring rang rung; rise rose risen; run ran run; say said said; see saw seen; seek sought sought; "
        "sell sold sold; send sent sent; set set set; shake shook shaken; shed shed shed; shine shone shone; "
        "shoot shot shot; show showed shown; shut shut shut; sing sang sung; sink sank sunk; sit sat sat; "
        "sleep slept slept; speak spoke spoken; spend spent spent; spin spun spun; split split split; "
        "spread spread spread; stand stood stood; steal stole stolen; stick stuck stuck; strike struck struck; "
        "sweep swept swept; swim swam swum; swing swung swung; take took taken; teach taught taught; tear tore torn; "
        "tell told told; think thought thought; throw threw thrown; understand understood understood; "
        "wear wore worn; weave wove woven; win won won; wind wound wound; write wrote written"
    ).split(";")
)
MODALS = set(words("will would can could must should may might shall"))
BE = set(words("is are was were"))
HAVE = set(words("has have had"))
BE_VERBS = set(words("be have do"))
PREPOSITIONS = set(
    words(
        "in on at from to with for by into onto over under through across around near against about after before during "
        "between behind beside inside outside toward towards within without upon along among until since despite"
    )
)
ENDS_OBJECT = PREPOSITIONS | set(words("due when while because that if so as and but or who which where how what like"))
STARTS = set(
    words(
        "the a an my his her their our this that these those he she they we i every each some many several two three no "
        "most all it you"
    )
)
NEVER_IN_SUBJECT = ENDS_OBJECT | MODALS | BE | HAVE
NEVER_IN_SUBJECT |= set(words("not never don't doesn't didn't to be been being do does did there"))
PERSON = re.compile(
    r"\b(man|woman|boys?|girls?|child|children|teacher|doctor|president|mother|father|king|queen|people|students?|police|"
    r"soldiers?|company|team|government|judge|actor|writer|author|workers?|men|women|professor|tourists?|candidate|lawyer)\b",
    re.IGNORECASE,
)
TELLS_WHY = re.compile(r"\b(because|since|so that|in order to|due to|to|for|by|from)\b")
"""A phrase that may tell a reason: then why is not asked as a question without an answer."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """`subject aux form object tail`; `lemma` is the verb's base form, `kind` how it stands there."""

    subject: str
    aux: str
    form: str
    lemma: str
    kind: str
    object: str
    tail: str
    synonyms: tuple[str, ...] = ()
    """Other verbs that the dictionary gives for this sense."""

    @property
    def text(self) -> str:
        return (
            capital(" ".join(part for part in (self.subject, self.aux, self.form, self.object, self.tail) if part))
            + "."
        )


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def forms_of(lemma: str) -> dict[str, str]:
    """Inflected forms of a verb, each with its kind: past, third, base, participle, ing."""
    third = lemma + ("es" if lemma.endswith(("s", "sh", "ch", "x", "z", "o")) else "s")
    if lemma.endswith("y") and lemma[-2:-1] not in "aeiou":
        third = lemma[:-1] + "ies"
    if lemma in IRREGULAR:
        past, participle = IRREGULAR[lemma].split()
        return {participle: "past", past: "past", third: "third", lemma: "base"} | (
            {participle: "participle"} if past != participle else {}
        )
    pasts = [lemma + "ed", lemma + lemma[-1] + "ed"]
    if lemma.endswith("e"):
        pasts = [lemma + "d"]
    elif lemma.endswith("y") and lemma[-2:-1] not in "aeiou":
        pasts = [lemma[:-1] + "ied"]
    return dict.fromkeys(pasts, "past") | {third: "third", lemma: "base"}


def parsed(lemma: str, sentence: str, synonyms: tuple[str, ...] = ()) -> Parsed | None:
    """The sentence taken apart, or None when it is of another shape."""
    said = sentence.strip().rstrip(".!;").split()
    forms = forms_of(lemma)
    place = next((index for index, word in enumerate(said) if index and word.lower() in forms), 0)
    if (
        not 4 <= len(said) <= 22
        or not place
        or any(mark in sentence for mark in '?()":;')
        or "," in " ".join(said[:place])
    ):
        return None
    subject, aux = said[:place], ""
    kind = forms[said[place].lower()]
    if subject[-1].lower() in MODALS | BE | HAVE:
        aux = subject.pop().lower()
    expected = {"base"} if aux in MODALS else {"past", "participle"} if aux else {"past", "third"}
    if not subject or kind not in expected or not 1 <= len(subject) <= 6:
        return None
    first = subject[0]
    if not (first.lower() in STARTS or first[0].isupper()) or any(word.lower() in NEVER_IN_SUBJECT for word in subject):
        return None
    if first.lower() in ("i", "you", "we", "it", "this", "that") and len(subject) == 1:
        return None
    rest = said[place + 1 :]
    cut = next((index for index, word in enumerate(rest) if word.lower().rstrip(",") in ENDS_OBJECT), len(rest))
    found = " ".join(rest[:cut]).rstrip(",")
    has_object = aux not in BE and cut and rest[0].lower() in STARTS - {"i", "he", "she", "we", "they", "that"}
    if cut and not has_object and aux not in BE:
        return None
    return Parsed(
        " ".join(subject), aux, said[place], lemma, "passive" if aux in BE else kind, found, " ".join(rest[cut:])
    )


def inflected(lemma: str, kind: str) -> str:
    """Another verb in the same form."""
    if kind in ("participle", "passive") and lemma in IRREGULAR:
        return IRREGULAR[lemma].split()[1]
    wanted = "past" if kind in ("participle", "passive") else kind
    found = [form for form, name in forms_of(lemma).items() if name == wanted]
    return found[-1] if lemma in IRREGULAR else found[0]


def in_other_words(one: Parsed, rng: random.Random) -> Parsed:
    """With a synonym for its verb, as a question may have it."""
    lemma = rng.choice(one.synonyms)
    kind = "base" if one.aux in MODALS else "participle" if one.aux in HAVE else one.kind
    return replace(one, lemma=lemma, form=inflected(lemma, kind))


def questions(one: Parsed, rng: random.Random, *, is_human: bool) -> list[tuple[str, str]]:
    """(question, answer) about a sentence; an empty answer: it does not say."""
    who = "Who" if is_human else rng.choice(["What", "Who or what"])
    rest = " ".join(part for part in (one.object, one.tail) if part)
    found: list[tuple[str, str]] = []
    predicate = " ".join(part for part in (one.aux, one.form) if part)
    found.append((f"{who} {predicate} {rest}".rstrip() + "?", one.subject))
    if one.object and one.tail:
        found.append((f"{who} {predicate} {one.object}?", one.subject))
    if one.object and one.kind == "past" and not one.aux:
        be = (
            "were"
            if one.object.split()[-1].endswith("s") and one.object.split()[0].lower() not in ("a", "an", "this")
            else "was"
        )
        question = f"By whom {be} {one.object} {participle_of(one)}?"
        found.append((question if is_human else f"What {be} {one.object} {participle_of(one)} by?", one.subject))
    subject = one.subject if one.subject[:2] != "I " else "the speaker"
    opening, verb = opened(one, subject)
    object_ = f" {one.object}" if one.object else ""
    if one.object and one.kind != "passive":
        what = "What" if rng.random() < 0.9 else "Which thing"
        found.append(
            (f"{what} {opening} {verb}{' ' + one.tail if one.tail and rng.random() < 0.5 else ''}?", one.object)
        )
    preposition, _, place = one.tail.partition(" ")
    asked = asked_of(preposition, place)
    if asked and 1 <= len(place.split()) <= 6 and not any(word in ENDS_OBJECT for word in place.lower().split()):
        question, is_stranded = asked
        found.append((f"{question} {opening} {verb}{object_}{' ' + preposition if is_stranded else ''}?", place))
    lead = next((lead for lead in ("because ", "due to ") if one.tail.startswith(lead)), "")
    if lead:
        found.append((f"Why {opening} {verb}{object_}?", one.tail.removeprefix(lead)))
    for missing, absent in (
        ("Why", bool(TELLS_WHY.search(one.tail))),
        ("When", bool(one.tail)),
        ("How long", bool(one.tail)),
        ("Where", bool(one.tail)),
    ):
        if not absent:
            found.append((f"{missing} {opening} {verb}{object_}?", ""))
    return found


def participle_of(one: Parsed) -> str:
    return IRREGULAR[one.lemma].split()[1] if one.lemma in IRREGULAR else one.form


def opened(one: Parsed, subject: str) -> tuple[str, str]:
    """What stands before and after a question's inversion: ("did the man", "see")."""
    subject = (
        subject
        if subject.split()[0][0].isupper() and subject.split()[0].lower() not in STARTS
        else subject[0].lower() + subject[1:]
    )
    if one.aux:
        return f"{one.aux} {subject}", one.form
    return ("did " if one.kind == "past" else "does ") + subject, one.lemma


def asked_of(preposition: str, place: str) -> tuple[str, bool] | None:
    """The question word for a phrase, and whether the preposition stays at the question's end."""
    if re.search(
        r"\b(year|day|month|week|night|morning|evening|hour|time|century|summer|winter|Monday|Friday|Sunday|18|19)\b",
        place,
    ):
        return {
            "in": ("When", False),
            "on": ("When", False),
            "at": ("When", False),
            "for": ("How long", False),
            "after": ("When", False),
        }.get(preposition)
    if preposition in (
        "in",
        "on",
        "at",
        "near",
        "under",
        "behind",
        "across",
        "into",
        "over",
        "around",
        "through",
        "inside",
        "between",
    ):
        return "Where", False
    if preposition in ("with", "from", "to", "for", "about", "against"):
        return ("What", True)
    return None


def dictionary(path: Path) -> tuple[list[tuple[str, str, tuple[str, ...]]], list[str]]:
    """(verb, example of its use, synonyms), and sentences of all kinds, out of WordNet 3.0 in dictd's form."""
    text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
    verbs: list[tuple[str, str, tuple[str, ...]]] = []
    sentences: set[str] = set()
    for entry in re.split(r"\n(?=\S)", text):
        head, _, body = entry.partition("\n")
        part = ""
        for sense in re.split(r"\s(?=(?:(?:n|v|adj|adv) )?\d+: )", re.sub(r"\s+", " ", body)):
            part = sense if sense in ("n", "v", "adj", "adv") else part
            found = re.findall(r'"([^"]{15,160})"', sense)
            sentences.update(example for example in found if len(example.split()) >= 5)
            if part == "v" and head.isalpha() and head.islower():
                same = tuple(word for word in re.findall(r"{([a-z]+)}", sense) if word != head and word not in BE_VERBS)
                verbs += [(head, example, same) for example in found]
    return verbs, sorted(sentences)


class Natural:
    """Parsed examples by verb, and other sentences."""

    def __init__(self, path: Path) -> None:
        verbs, sentences = dictionary(path)
        found = {parsed(lemma, example, synonyms) for lemma, example, synonyms in verbs}
        self.parsed = sorted((one for one in found if one is not None), key=lambda one: (one.text, one.lemma))
        self.by_verb: dict[str, list[Parsed]] = {}
        for one in self.parsed:
            self.by_verb.setdefault(one.lemma, []).append(one)
        self.sentences = [capital(text) + ("" if text[-1] in ".!?" else ".") for text in sentences]
        self.clauses = [one.text[:-1] for one in self.parsed if len(one.text) < 60]
        self.clauses = [
            text[0].lower() + text[1:] if text.split()[0].lower() in STARTS else text for text in self.clauses
        ]

    def person(self, one: Parsed, lexicon: Lexicon) -> str:
        """Somebody in place of the sentence's pronoun, or its own subject."""
        pronoun = one.subject.lower()
        if pronoun == "they":
            return lexicon.draw("group").core
        if pronoun not in ("he", "she"):
            return one.subject
        first = lexicon.pick(MEN if pronoun == "he" else WOMEN)
        return first if lexicon.chance(0.5) else f"{first} {lexicon.person().split()[-1]}"


def with_subject(one: Parsed, subject: str) -> Parsed:
    return replace(one, subject=subject)


def is_person(one: Parsed) -> bool:
    return one.subject.lower() in ("he", "she", "they") or bool(PERSON.search(one.subject))
