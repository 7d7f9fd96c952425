"""The words that fill the frames: names, things, numbers, times, reasons. No sentence is made here."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Value:
    """What fills a slot. `lead` ("on ", "because ") is written in front of it, but is no part of the answer."""

    core: str
    lead: str = ""
    asked_as: str = ""
    """How a question names it, where that differs from the passage: a pronoun's person."""

    @property
    def text(self) -> str:
        return self.lead + self.core

    @property
    def in_question(self) -> str:
        return self.asked_as or self.text


def words(text: str) -> list[str]:
    return text.split()


def phrases(text: str) -> list[str]:
    return [phrase.strip() for phrase in text.split(",")]


WOMEN = words(
    "Anna Maria Clara Sofia Emma Elena Julia Nina Grace Alice Yuki Fatima Hannah Priya Ingrid Amara Beatrice Carmen Dora "
    "Edith Farah Gloria Helga Irene Jane Karin Laura Mei Nadia Olga Paula Rosa Sarah Teresa Ursula Vera Wanda Zoe Leila"
)
MEN = words(
    "Peter John Ahmed Lucas Tom Ravi Omar Paul Leo Marcus Carlos David Viktor Samuel Anton Bruno Chen Daniel Erik Felix "
    "George Henry Ivan Jakob Kofi Louis Mateo Noah Oscar Pedro Quentin Robert Simon Tariq Ulrich Walter Yusuf Hugo Adam"
)
SURNAMES = words(
    "Smith Garcia Müller Rossi Novak Jensen Kumar Silva Brown Tanaka Dubois Kowalski Haddad Larsen Moreau Bianchi Ivanova "
    "Walker Adeyemi Berg Castillo Dimitrov Evans Fischer Greene Hoffman Ito Johansson Keller Lindqvist Mbeki Nakamura "
    "O'Brien Petrov Quinn Ramirez Schmidt Taylor Ueda Vargas Weber Xu Young Zhang Abbott Barlow Crane Dalton Finch Hale"
)
CITIES = phrases(
    "Munich, Lyon, Boston, Kyoto, Seville, Milan, Glasgow, Toronto, Mumbai, Krakow, Austin, Porto Alegre, Bergen, Turin, "
    "Hamburg, Bristol, Cape Town, Chicago, Naples, Utrecht, Antwerp, Marseille, Basel, Graz, Aarhus, Cork, Denver, Osaka, "
    "Pune, Shanghai, Lagos, Recife, Quito, Izmir, Odessa, Tampere, Bath, York, San Diego, New Orleans, St. Louis, Vienna"
)
COUNTRIES = phrases("France, Brazil, Japan, Kenya, Norway, Chile, Poland, Vietnam, Canada, Egypt, Italy, New Zealand, Peru")
SYLLABLES = words("ba ren tol mi ka sor vel an dru hel mar ti os gra lin po wen tha ri du bel cor fa lun ster ham na vi")
ROLES = words(
    "mayor teacher doctor nurse manager director farmer baker secretary captain cook gardener librarian judge editor "
    "coach driver owner guide professor chairman builder painter inspector technician lawyer clerk minister architect"
)
GROUPS = phrases(
    "the workers, the students, the villagers, the police, the engineers, the children, the researchers, the guests, "
    "the soldiers, the volunteers, the committee, the neighbours, the crew, the firefighters, the parents, the tourists"
)
STRUCTURES = phrases(
    "bridge, tower, library, school, hospital, church, castle, tunnel, dam, theatre, museum, factory, harbour, stadium, "
    "station, canal, lighthouse, monastery, market hall, town hall, observatory, mill, warehouse, swimming pool, garage"
)
THINGS = phrases(
    "bicycle, letter, painting, car, lamp, umbrella, piano, map, chair, book, clock, camera, boat, telescope, engine, bag, "
    "kettle, radio, violin, desk, carpet, window, roof, statue, ring, knife, blanket, computer, phone, parcel, report, plan, "
    "machine, photograph, key, coat, ladder, basket, mirror, tent, table, wagon, sword, vase, fence, printer, suitcase, door"
)
FOODS = phrases(
    "rice, bread, soup, apples, cheese, tomatoes, potatoes, fish, honey, beans, onions, milk, butter, chicken, mushrooms, "
    "carrots, noodles, salad, pancakes, porridge, dumplings, olives, garlic, cream, sugar, salt, pepper, yeast, oil, cocoa"
)
ANIMALS = words("dog cat horse parrot rabbit goat cow sheep fox bear otter deer eagle owl heron beaver badger seal turtle")
MATERIALS = words("wood steel glass stone concrete copper leather paper cotton clay brick marble silk plastic iron wool")
COLOURS = words("red blue green yellow black white brown grey orange purple pink silver golden")
ADJECTIVES = words(
    "old new small large heavy broken wooden expensive famous strange rusty beautiful empty narrow long second first main "
    "early local public private modern former huge light dark round cheap rare northern southern eastern western upper lower"
)
FIELDS = phrases("medicine, law, physics, music, biology, history, mathematics, philosophy, engineering, economics, art")
TITLE_STARTS = words("Silent Golden Broken Hidden Last Blue Winter Distant Lost Burning Quiet Endless Crimson Iron Sleeping")
TITLE_ENDS = words("River Mountain Garden Letter Star Forest Mirror Road Island Clock Summer Kingdom Bird House Voyage Queen")
ORG_STARTS = words("Acme Nova Orion Vertex Lumen Delta Polar Atlas Quanta Helio Borealis Kestrel Maple Summit Pioneer Tern")
ORG_ENDS = words("Corporation Labs Systems University Institute Motors Foods Bank Airlines Press Energy Group Steel Textiles")
SUBSTANCES = phrases("carbon dioxide, oxygen, water, salt, lead, nitrogen, heat, light, starch, iron, acid, methane, sulphur")
PLURALS = phrases(
    "books, tickets, houses, ships, horses, trees, workers, students, pages, rooms, islands, letters, bottles, chairs, "
    "paintings, visitors, soldiers, machines, members, passengers, schools, lakes, songs, coins, boxes, villages, patients"
)
SPOTS = phrases(
    "in the kitchen, at the station, on the roof, in the garden, at the market, near the harbour, in the cellar, "
    "behind the church, under the bridge, at the office, on the second floor, in the library, at the town hall, "
    "in the mountains, on the beach, next to the school, at the airport, in the forest, on the table, in the drawer"
)
CAUSES = phrases(
    "heavy rain, a strike, a lack of money, an injury, the bad weather, a fire in the factory, poor sales, a power failure, "
    "a technical fault, the high costs, a misunderstanding, the snow, an illness, a shortage of parts, strong winds"
)
CLAUSES = phrases(
    "the road was blocked, the engine had failed, it was too expensive, the water was too cold, nobody had paid the bill, "
    "the old one was broken, the harvest had been poor, her train was late, the building was unsafe, he had lost the key, "
    "the law had changed, there was not enough light, the prices had doubled, the owner had died, the paint was still wet, "
    "the roof leaked, the children were hungry, it reflects more light, they are easier to clean, it contains less fat"
)
PURPOSES = phrases(
    "to save energy, to visit his sister, to protect the town, to earn more money, to attract tourists, to avoid the traffic, "
    "to escape the heat, to cut costs, to learn the language, to celebrate the victory, to keep out the cold, to store grain"
)
TOOLS = phrases("a knife, a hammer, a rope, a damp cloth, a needle, a ladder, a brush, a lens, a shovel, a net, glue, hot water")
VEHICLES = words("train bus car ship bicycle plane ferry tram horse sledge taxi")
EVENTS = phrases(
    "meeting, concert, exam, workshop, exhibition, wedding, race, lecture, election, conference, interview, festival, dinner, "
    "excursion, auction, inspection, film, class, trial, parade, tournament, hearing, opening, reception, rehearsal"
)
STATES = words("ready open closed locked empty broken active hot finished overloaded busy switched-off")
KEYS = words("left right upper lower start menu power enter reset square round")
ACTIONS = words("open close lock start stop move raise lower clean reset test heat")
SKIES = words("sunny cloudy rainy windy foggy stormy snowy dry mild")
PLACE_KINDS = words("lake island planet mountain city castle school park forest museum village desert moon club")
LANGUAGES = words("Spanish Arabic Greek Turkish Polish Korean Hindi Swedish Latin Hebrew Python Rust Java Haskell Ruby Go")
PROGRAMS = words("scheduler cache server parser indexer proxy compiler monitor worker router database editor backup client")
ILLNESSES = words("fever cough nausea dizziness fatigue rash cramps insomnia")
MONTHS = words("January February March April May June July August September October November December")
WEEKDAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
NUMBERS = words("two three four five six seven eight nine ten eleven twelve fifteen twenty thirty forty fifty sixty hundred")
UNITS = {
    "length": words("metres kilometres miles centimetres feet"),
    "weight": words("kilograms grams tonnes pounds"),
    "speed": phrases("kilometres per hour, metres per second, miles per hour, knots"),
    "heat": phrases("degrees, degrees Celsius, degrees Fahrenheit"),
    "volume": words("litres millilitres cups gallons"),
    "span": words("minutes hours days weeks months years seconds"),
    "area": phrases("square kilometres, hectares, square metres"),
}

TITLES = words("Dr Mr Mrs Ms Professor King Queen Captain President Princess Uncle Aunt Lord Sir Judge Bishop General")
LISTED = {"food", "newthing", "illness", "amount", "plural", "material"}
LIST_SHARE = 0.2
"""How often a thing of these kinds is two or three of them: "rice, beans and salt"."""


class Lexicon:
    """Draws values by kind. `extra` adds words from real sources to a kind: capitals, WordNet nouns."""

    def __init__(self, rng: random.Random, extra: dict[str, list[str]] | None = None) -> None:
        self.rng = rng
        self.extra = extra or {}
        self._kinds: dict[str, Callable[[], Value]] = {
            "person": lambda: Value(self.person()),
            "role": lambda: Value("the " + self.pick(ROLES)),
            "agent": self.agent,
            "org": lambda: Value(self.org()),
            "city": lambda: Value(self.city()),
            "country": lambda: Value(self.pick(COUNTRIES + self.extra.get("countries", []))),
            "place": self.place,
            "structure": lambda: Value(self.noun(STRUCTURES)),
            "thing": lambda: Value(self.noun(THINGS)),
            "newthing": lambda: Value(self.noun(THINGS, article="a")),
            "food": lambda: Value(self.pick(FOODS)),
            "animal": lambda: Value("the " + self.pick(ANIMALS)),
            "work": lambda: Value(f"The {self.pick(TITLE_STARTS)} {self.pick(TITLE_ENDS)}"),
            "time": self.time,
            "weekday": lambda: Value(self.pick(WEEKDAYS), "on "),
            "clock": lambda: Value(self.clock(), "at "),
            "year": lambda: Value(str(self.rng.randint(1400, 2030)), "in "),
            "span": lambda: Value(self.quantity("span"), "for "),
            "money": lambda: Value(self.money()),
            "count": lambda: Value(self.number()),
            "plural": lambda: Value(self.pick(PLURALS)),
            "percent": lambda: Value(f"{self.rng.randint(1, 95)} {self.pick(['percent', 'per cent'])}"),
            "reason": self.reason,
            "tool": lambda: Value(self.pick(TOOLS), "with "),
            "port": lambda: Value(str(self.rng.randint(20, 9999))),
            "file": lambda: Value(self.name().lower() + self.pick([".conf", ".yaml", ".log", ".json", ".txt", ".ini", ".db"])),
            "option": lambda: Value("--" + self.name().lower() + self.pick(["", "-size", "-mode", "-dir", "-limit"])),
            "event": lambda: Value("the " + self.pick(EVENTS)),
            "name": lambda: Value(self.name()),
            "dayname": lambda: Value(self.pick(WEEKDAYS)),
            "version": lambda: Value(f"{self.rng.randint(0, 9)}.{self.rng.randint(0, 20)}"),
            "licence": lambda: Value(self.pick(["MIT", "BSD", "GPL", "Apache", "Artistic"])),
            "state": lambda: Value(self.pick(STATES)),
            "keyname": lambda: Value(self.pick(KEYS)),
            "verbing": lambda: Value(self.pick(ACTIONS)),
            "score": lambda: Value(f"{self.rng.randint(1, 9)}{self.pick(['-', '–', ':'])}{self.rng.randint(0, 8)}"),
            "windspeed": lambda: Value(f"{self.rng.randint(10, 180)} {self.pick(UNITS['speed'])}"),
            "sky": lambda: Value(self.pick(SKIES)),
            "place_kind": lambda: Value(self.pick(PLACE_KINDS)),
            "amount": lambda: Value(f"{self.number()} {self.pick(PLURALS)}"),
            "device": lambda: Value("the " + self.pick(PROGRAMS)),
            "rolename": lambda: Value(self.pick(ROLES)),
            "span0": lambda: Value(self.quantity("span")),
            "day": lambda: Value(f"{self.rng.randint(1, 28)} {self.pick(MONTHS)}" if self.chance(0.7) else self.pick(WEEKDAYS)),
            "clause": lambda: Value(self.clause()),
            "profession": lambda: Value(self.article(self.pick(ROLES))),
        }
        lists = {
            "field": FIELDS, "material": MATERIALS, "colour": COLOURS, "illness": ILLNESSES, "language": LANGUAGES,
            "vehicle": VEHICLES, "group": GROUPS, "cause": CAUSES, "purpose": PURPOSES,
            "substance": SUBSTANCES, "program": PROGRAMS, "month": MONTHS, "adjective": ADJECTIVES, "beast": ANIMALS,
        }  # fmt: skip
        for kind, entries in lists.items():
            self._kinds[kind] = lambda entries=entries: Value(self.pick(entries))
        for kind in UNITS:
            self._kinds.setdefault(kind, lambda kind=kind: Value(self.quantity(kind)))

    def draw(self, kind: str) -> Value:
        is_list = kind in LISTED and self.chance(LIST_SHARE)
        return Value(self.listed(kind)) if is_list else self._kinds[kind]()

    def listed(self, kind: str) -> str:
        """Two or three of a kind: "rice, beans and salt"."""
        parts = [self._kinds[kind]().core for _ in range(self.rng.choice([2, 2, 3]))]
        return ", ".join(parts[:-1]) + f" {self.pick(['and', 'and', 'or'])} {parts[-1]}"

    def pick(self, entries: list[str]) -> str:
        return self.rng.choice(entries)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def name(self) -> str:
        """An invented word, so that names are copied from the passage, not recalled."""
        return "".join(self.pick(SYLLABLES) for _ in range(self.rng.choice([2, 2, 3]))).capitalize()

    def person(self) -> str:
        first = self.pick(self.rng.choice([WOMEN, MEN]))
        last = self.pick(SURNAMES) if self.chance(0.75) else self.name()
        shape = self.rng.random()
        if shape < 0.3:
            return first
        if shape < 0.38:
            return f"{self.pick(TITLES)} {last}"
        return f"{first} {last}"

    def agent(self) -> Value:
        shape = self.rng.random()
        if shape < 0.6:
            return Value(self.person())
        if shape < 0.72:
            return Value("the " + self.pick(ROLES))
        if shape < 0.82:
            return Value(self.pick(GROUPS))
        if shape < 0.92:
            return Value(self.person(), lead=self.pick(ROLES) + " ")
        return Value(f"{self.pick(['her', 'his', 'their', 'my'])} {self.pick(['aunt', 'brother', 'friend', 'boss', 'mother'])}")

    def org(self) -> str:
        return f"{self.pick(ORG_STARTS) if self.chance(0.6) else self.name()} {self.pick(ORG_ENDS)}"

    def city(self) -> str:
        return self.name() if self.chance(0.3) else self.pick(CITIES + self.extra.get("cities", []))

    def place(self) -> Value:
        if self.chance(0.55):
            return Value(self.city(), "in ")
        lead, _, core = self.pick(SPOTS).partition(" the ")
        return Value("the " + core, lead + " ") if core else Value(lead)

    def article(self, noun: str) -> str:
        return ("an " if noun[0] in "aeiou" else "a ") + noun

    def noun(self, entries: list[str], article: str = "the") -> str:
        noun = self.pick(self.extra["nouns"]) if self.extra.get("nouns") and self.chance(0.2) else self.pick(entries)
        if self.chance(0.35):
            noun = f"{self.pick(ADJECTIVES)} {noun}"
        return f"the {noun}" if article == "the" else self.article(noun)

    def number(self) -> str:
        shape = self.rng.random()
        if shape < 0.45:
            return self.pick(NUMBERS)
        if shape < 0.85:
            return str(self.rng.randint(2, 999))
        return f"{self.rng.randint(1, 99)},{self.rng.randint(0, 999):03d}"

    def quantity(self, kind: str) -> str:
        amount = self.number() if self.chance(0.85) else f"{self.rng.randint(1, 99)}.{self.rng.randint(1, 9)}"
        return f"{amount} {self.pick(UNITS[kind])}"

    def money(self) -> str:
        amount = self.pick([str(self.rng.randint(2, 990)), f"{self.rng.randint(1, 99)},000", f"{self.rng.randint(2, 90)} million"])
        if self.chance(0.35) and "million" not in amount:
            return self.pick(["$", "€", "£"]) + amount
        return f"{amount} {self.pick(['euros', 'dollars', 'pounds', 'francs', 'crowns', 'rupees'])}"

    def clock(self) -> str:
        minute = f"{self.rng.choice([0, 5, 10, 15, 20, 25, 30, 40, 45, 50]):02d}"
        shape = self.rng.random()
        if shape < 0.5:
            return f"{self.rng.randint(0, 23)}:{minute}"
        if shape < 0.8:
            return f"{self.rng.randint(1, 12)}{self.pick(['', ':' + minute])} {self.pick(['am', 'pm', 'a.m.', 'p.m.'])}"
        return self.pick(["noon", "midnight", "half past six", "nine o'clock", "dawn", "sunset", "a quarter to four"])

    def time(self) -> Value:
        day, month, year = self.rng.randint(1, 28), self.pick(MONTHS), str(self.rng.randint(1400, 2030))
        return self.rng.choice(
            [
                Value(year, "in "),
                Value(f"{month} {year}", "in "),
                Value(month, "in "),
                Value(f"{day} {month}", "on "),
                Value(f"{day} {month} {year}", "on "),
                Value(f"{month} {day}, {year}", "on "),
                Value(self.pick(WEEKDAYS), "on "),
                Value(self.pick(["last", "that"]) + " " + self.pick(["summer", "winter", "week", "month", "night"])),
                Value(self.pick(["yesterday", "two days ago", "in the morning", "after the war", "at night", "ten years ago"])),
                Value(f"the {self.pick(['spring', 'autumn', 'summer'])} of {year}", "in "),
                Value(self.clock(), "at "),
            ]
        )

    def clause(self) -> str:
        """A short sentence without its capital."""
        return self.pick(self.extra["clauses"]) if self.extra.get("clauses") and self.chance(0.7) else self.pick(CLAUSES)

    def reason(self) -> Value:
        if self.chance(0.4):
            return Value(self.pick(CAUSES), self.pick(["because of ", "due to ", "owing to "]))
        return Value(self.clause(), self.pick(["because ", "because ", "since ", "as "]))


def pronoun_of(person: str) -> str | None:
    """The pronoun of a person whose first name tells it, else None."""
    first = person.split()[0]
    return "She" if first in WOMEN else "He" if first in MEN else None
