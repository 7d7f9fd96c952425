"""Verbs as frames: who does what to what, where, when, why, how; every role can be asked for, actively or passively.

A frame made here fixes a verb, a tense and the roles that it names; its scenes then differ only in their fillers, so that
two of them in one passage make a contrast with two candidates of one kind.
"""

from __future__ import annotations

from dataclasses import dataclass

from frames import Frame
from lexicon import Lexicon


@dataclass(frozen=True, slots=True)
class Verb:
    """`others` are verbs that a question may use instead: (base, past, participle)."""

    forms: tuple[str, str, str]
    subject: str
    object: str
    roles: tuple[str, ...]
    others: tuple[tuple[str, str, str], ...] = ()


def verbs(text: str) -> list[Verb]:
    """One verb a line: base past participle; subject; object; roles; other verbs for questions."""
    entries: list[Verb] = []
    for line in text.strip().splitlines():
        fields = [field.strip() for field in line.split(";")]
        base, past, participle = fields[0].split()
        others = [tuple(other.split("/")) for other in fields[4].split()] if len(fields) > 4 else []
        entries.append(
            Verb((base, past, participle), fields[1], fields[2], tuple(fields[3].split()), tuple((o[0], o[1], o[2]) for o in others))
        )
    return entries


VERBS = verbs("""
build built built; agent; structure; place time span why; construct/constructed/constructed put/put/put
design designed designed; agent; structure; place time; plan/planned/planned
repair repaired repaired; agent; thing; place time why tool span; fix/fixed/fixed mend/mended/mended
find found found; agent; thing; place time; discover/discovered/discovered
lose lost lost; agent; thing; place time why
steal stole stolen; agent; thing; place time why; take/took/taken
buy bought bought; agent; newthing; place time why money; purchase/purchased/purchased acquire/acquired/acquired
sell sold sold; agent; thing; place time why money recipient
paint painted painted; agent; thing; place time tool span
write wrote written; person; work; place time span why; compose/composed/composed
read read read; agent; work; place time span
publish published published; org; work; place time; release/released/released
invent invented invented; person; newthing; place time; develop/developed/developed create/created/created
clean cleaned cleaned; agent; thing; place time tool why; wash/washed/washed
break broke broken; agent; thing; place time tool; damage/damaged/damaged
carry carried carried; agent; thing; place time why tool; bring/brought/brought
hide hid hidden; agent; thing; place time why; conceal/concealed/concealed
open opened opened; agent; structure; place time why tool
close closed closed; agent; structure; time span why; shut/shut/shut
visit visited visited; agent; structure; place time why; see/saw/seen
destroy destroyed destroyed; group; structure; place time why tool
give gave given; agent; thing; place time recipient why; hand/handed/handed present/presented/presented
send sent sent; agent; newthing; place time recipient why; post/posted/posted
show showed shown; agent; thing; place time recipient
lend lent lent; agent; thing; time recipient span why
promise promised promised; agent; thing; time recipient
cook cooked cooked; agent; food; place time span why; prepare/prepared/prepared make/made/made
eat ate eaten; agent; food; place time why
bring brought brought; agent; food; place time recipient why
order ordered ordered; agent; food; place time money recipient; request/requested/requested
plant planted planted; agent; plural; place time why; grow/grew/grown
count counted counted; agent; amount; place time span
catch caught caught; agent; animal; place time tool
feed fed fed; agent; animal; place time tool
watch watched watched; agent; animal; place time span; observe/observed/observed
rescue rescued rescued; agent; animal; place time tool why; save/saved/saved
chase chased chased; animal; agent; place time why; follow/followed/followed
meet met met; person; agent; place time why
help helped helped; person; agent; place time why; support/supported/supported
teach taught taught; person; field; place time span why
study studied studied; person; field; place time span why
call called called; person; agent; place time why; phone/phoned/phoned
arrest arrested arrested; group; person; place time why; detain/detained/detained
elect elected elected; group; person; place time why; choose/chose/chosen
hire hired hired; org; person; place time why; employ/employed/employed
dismiss dismissed dismissed; org; person; time why; fire/fired/fired
invite invited invited; agent; person; place time why
interview interviewed interviewed; agent; person; place time span
replace replaced replaced; person; role; time why; succeed/succeeded/succeeded
organise organised organised; agent; event; place time why; arrange/arranged/arranged
cancel cancelled cancelled; agent; event; place time why; call/called/called
attend attended attended; agent; event; place time why; visit/visited/visited
lead led led; person; event; place time; chair/chaired/chaired head/headed/headed
win won won; person; event; place time why
miss missed missed; agent; event; place time why
postpone postponed postponed; agent; event; time why; delay/delayed/delayed
found founded founded; person; org; place time why; establish/established/established start/started/started
leave left left; person; org; time why; quit/quit/quit
own owned owned; agent; structure; place span; possess/possessed/possessed
run ran run; agent; structure; place span; manage/managed/managed
rent rented rented; agent; structure; place time span money why
use used used; agent; tool0; place time why span; employ/employed/employed
move moved moved; agent; thing; place time why tool; transfer/transferred/transferred
store stored stored; agent; thing; place time span why; keep/kept/kept
check checked checked; agent; thing; place time tool; examine/examined/examined inspect/inspected/inspected
test tested tested; agent; thing; place time tool span; try/tried/tried
measure measured measured; agent; thing; place time tool
produce produced produced; org; amount; place time; make/made/made manufacture/manufactured/manufactured
export exported exported; org; food; place time money; ship/shipped/shipped
collect collected collected; agent; amount; place time why; gather/gathered/gathered
donate donated donated; agent; money; place time recipient why; give/gave/given
borrow borrowed borrowed; agent; money; place time why
refuse refused refused; agent; thing; time why; reject/rejected/rejected
approve approved approved; group; newthing; place time why; accept/accepted/accepted
release released released; program0; substance; place time why; emit/emitted/emitted
absorb absorbed absorbed; animal; substance; place time why; take/took/taken
contain contained contained; thing; substance; place time; hold/held/held
block blocked blocked; agent; structure; place time span why; obstruct/obstructed/obstructed
record recorded recorded; agent; work; place time span tool
translate translated translated; person; work; place time span why
perform performed performed; person; work; place time; sing/sang/sung
cross crossed crossed; person; structure; time tool why
climb climbed climbed; person; structure; time span why tool
guard guarded guarded; agent; structure; place time span; protect/protected/protected
burn burned burned; agent; thing; place time why
bury buried buried; agent; thing; place time tool why
drop dropped dropped; agent; thing; place time
throw threw thrown; agent; thing; place time why; toss/tossed/tossed
wear wore worn; person; newthing; place time why
compare compared compared; program0; thing; time why
monitor monitored monitored; program0; structure; place time span; watch/watched/watched
""")

LEADS = {"place": "place", "time": "time", "span": "span", "tool": "tool", "why": "reason", "money": "money"}
ROLE_TEXT = {"place": "{place}", "time": "{time}", "span": "{span}", "tool": "{tool}", "why": "{why}", "money": "for {money}", "recipient": "to {recipient}"}
PERSON_KINDS = {"agent", "person", "role", "group"}
TENSES = ("past", "past", "past", "will", "must", "may", "present")


def event_frame(lexicon: Lexicon) -> Frame:
    """A verb with a tense and up to three further roles, as a frame."""
    verb = lexicon.rng.choice(VERBS)
    tense = lexicon.rng.choice(TENSES)
    rng = lexicon.rng
    roles = rng.sample(verb.roles, min(len(verb.roles), rng.choice([0, 1, 1, 2, 2, 3])))
    roles.sort(key=lambda role: ("recipient", "money", "tool", "place", "span", "time", "why").index(role))
    kinds = {"recipient": "agent", "why": "purpose" if lexicon.chance(0.3) else "reason"}
    slots = {"who": _kind(verb.subject), "what": _kind(verb.object)}
    slots |= {role: kinds.get(role, LEADS.get(role, role)) for role in verb.roles}
    asked = verb.forms if lexicon.chance(0.7) or not verb.others else rng.choice(verb.others)
    if asked[0] in ("put", "call", "take"):
        asked = verb.forms
    return Frame(
        name=f"event-{verb.forms[0]}",
        slots=slots,
        says=_says(verb, tense, roles),
        asks=_asks(verb, tense, asked, set(roles)),
        pairs=_pairs(verb, tense, roles),
    )


def _kind(kind: str) -> str:
    return {"amount": "amount", "tool0": "newthing", "program0": "device", "plural": "amount"}.get(kind, kind)


def active(forms: tuple[str, str, str], tense: str) -> str:
    base, past, _ = forms
    return {"past": past, "present": f"usually {_third(base)}"}.get(tense, f"{tense} {base}")


def passive(participle: str, tense: str) -> str:
    return {"past": "was {}", "present": "is usually {}"}.get(tense, tense + " be {}").format(participle)


def auxiliary(tense: str) -> str:
    return {"past": "did", "present": "does"}.get(tense, tense)


def _third(base: str) -> str:
    if base.endswith(("s", "sh", "ch", "x")):
        return base + "es"
    return base[:-1] + "ies" if base.endswith("y") and base[-2] not in "aeou" else base + "s"


def _says(verb: Verb, tense: str, roles: list[str]) -> list[str]:
    tail = "".join(" " + ROLE_TEXT[role] for role in roles)
    does, done = active(verb.forms, tense), passive(verb.forms[2], tense)
    says = [f"{{who}} {does} {{what}}{tail}.", f"{{what}} {done} by {{who}}{tail}.", f"{{what}} {done}{tail}."]
    for front in ("time", "place", "why"):
        if front in roles:
            rest = "".join(" " + ROLE_TEXT[role] for role in roles if role != front)
            says.append(f"{ROLE_TEXT[front]}, {{who}} {does} {{what}}{rest}.")
            says.append(f"{ROLE_TEXT[front]} {{what}} {done} by {{who}}{rest}.")
    says.append(f"It was {{who}} who {does} {{what}}{tail}.")
    return says


def _pairs(verb: Verb, tense: str, roles: list[str]) -> list[str]:
    does, done = active(verb.forms, tense), passive(verb.forms[2], tense)
    pairs: list[str] = []
    for role in roles or [""]:
        one = f" {ROLE_TEXT[role]}".replace("}", "1}") if role else ""
        two = f" {ROLE_TEXT[role]}".replace("}", "2}") if role else ""
        pairs += [
            f"{{who1}} {does} {{what1}}{one}, and {{who2}} {{what2}}{two}.",
            f"{{who1}} {does} {{what1}}{one}, while {{who2}} {does} {{what2}}{two}.",
            f"{{what1}} {done} by {{who1}}{one}; {{what2}} {done} by {{who2}}{two}.",
            f"{{who1}} {does} {{what1}}{one}, but {{what2}} {done} by {{who2}}{two}.",
        ]
    return pairs


def _asks(verb: Verb, tense: str, asked: tuple[str, str, str], roles: set[str]) -> dict[str, list[str]]:
    """Questions for each role; where the verb is another one, only the plain forms are used."""
    base, _, participle = asked
    does, done, aux = active(asked, tense), passive(participle, tense), auxiliary(tense)
    who = "Who" if verb.subject in PERSON_KINDS else {"org": "Which company", "animal": "Which animal"}.get(verb.subject, "What")
    what = {"org": "Which company", "animal": "Which animal", "field": "Which subject", "money": "How much"}.get(verb.object, "What")
    what = "Whom" if verb.object in PERSON_KINDS else what
    be, _, part = done.partition(" ")
    asks = {
        "who": [f"{who} {does} {{what}}?", f"By whom {be} {{what}} {part}?", f"{who} {be} {{what}} {part} by?"],
        "what": [f"{what} {aux} {{who}} {base}?", f"{what.replace('Whom', 'Who')} {done} by {{who}}?"],
        "place": [f"Where {aux} {{who}} {base} {{what}}?", f"Where {be} {{what}} {part}?"],
        "time": [f"When {aux} {{who}} {base} {{what}}?", f"When {be} {{what}} {part}?"],
        "why": [f"Why {aux} {{who}} {base} {{what}}?", f"Why {be} {{what}} {part}?", f"For what reason {be} {{what}} {part}?"],
        "span": [f"How long {aux} {{who}} {base} {{what}}?", f"For how long {be} {{what}} {part}?"],
        "tool": [f"What {aux} {{who}} {base} {{what}} with?", f"With what {be} {{what}} {part}?", f"How {be} {{what}} {part}?"],
        "money": [f"For how much {be} {{what}} {part}?", f"How much was paid for {{what}}?"],
        "recipient": [f"To whom {aux} {{who}} {base} {{what}}?", f"Who {aux} {{who}} {base} {{what}} to?", "Who got {what}?"],
    }
    if verb.object in ("amount", "plural"):
        asks["what"] = [f"What {aux} {{who}} {base}?"]
    for role in ("place", "time"):
        if role in roles:
            asks["what"].append(f"{what} {aux} {{who}} {base} {{{role}}}?")
            asks["who"].append(f"{who} {does} {{what}} {{{role}}}?")
            asks["who"].append(f"{who} {does} something {{{role}}}?")
    return {slot: asks[slot] for slot in ("who", "what", *verb.roles)}
