"""Everyday English made by a small grammar, so that names and pronouns agree, mixed with WordNet's example sentences."""

from __future__ import annotations

import gzip
import random
import re
from pathlib import Path

PEOPLE = {
    "she": "Anna Lucy Maria Clara Emma Nora Ella Rosa Julia Mia Sara Grace".split(),
    "he": "Tom Peter Sam Leo Max Ben Jack Noah Paul Adam Oscar David".split(),
}
FORMS = {"she": ("she", "her", "her"), "he": ("he", "him", "his")}
ANIMALS = "cat;dog;rabbit;duck;fox;bear;mouse;owl;horse;squirrel;bird;turtle".split(";")
KINDS = "kind;brave;curious;clever;quiet;cheerful;shy;old;young;careful;friendly;hungry".split(";")
PLACES = "the garden;the park;the forest;the kitchen;the market;the library;the river;the station;the school;the beach".split(";")
CITIES = "London;Berlin;Paris;Lisbon;Rome;a small village;a town by the sea;Madrid;Boston;Vienna".split(";")
HOMES = "a small house;an old farm;a little cottage;a flat above a bakery;a tall house;a warm nest".split(";")
THINGS = "a red ball;an old map;a small key;a silver coin;a blue umbrella;a letter;a big box;a lost kitten;a shiny stone;a book".split(";")
FOODS = "bread;soup;pancakes;apple pie;fresh fruit;cheese;a bowl of rice;hot chocolate;cake;fish".split(";")
JOBS = "a teacher;a doctor;a baker;a student;a gardener;a nurse;an engineer;a writer;a cook;a driver".split(";")
LIKES = "to read books;to bake bread;to play the piano;to swim in the lake;to walk in the park;to paint pictures;to play football;to sing songs;to cook for friends;to watch the stars".split(";")
WEATHERS = "sunny;cloudy;cold;warm;windy;rainy;foggy;hot;bright;grey".split(";")
FEELINGS = "happy;proud;tired;surprised;glad;calm;excited;thankful".split(";")
FEARS = "sad;worried;afraid;lonely;angry;nervous".split(";")
TIMES = "One day;One morning;One evening;One rainy afternoon;On Monday;Last summer;Yesterday;Early in the morning".split(";")
LESSONS = (
    "sharing makes everyone happy;it is good to ask for help;friends are worth more than gold;small steps lead far;"
    "patience is its own reward;being kind costs nothing;every mistake teaches something;courage grows with use"
).split(";")
VERBS_HELP = "helped;thanked;followed;called;hugged;taught;met".split(";")


def pick(words: list[str]) -> str:
    """One of them."""
    return random.choice(words)


def capital(text: str) -> str:
    """With a capital at its start."""
    return text[0].upper() + text[1:]


def story() -> str:
    """A hero finds or loses something, a friend helps, all ends well."""
    pronoun = pick(list(PEOPLE))
    he, him, his = FORMS[pronoun]
    name, other = random.sample(PEOPLE[pronoun], 2)
    kind = pick(["girl" if pronoun == "she" else "boy", *ANIMALS])
    friend = random.choice([other, f"an old {pick(ANIMALS)}", f"{his} friend {other}"])
    friend_short = other if other in friend else "the " + friend.split()[-1]
    place, thing = pick(PLACES), pick(THINGS)
    short = "the " + thing.split(" ", 1)[1] if thing[:2] in ("a ", "an") else thing
    opening = pick([
        f"Once upon a time, there was a {pick(KINDS)} {kind} named {name}. {capital(he)} lived in {pick(HOMES)} near {place}.",
        f"There once was a {pick(KINDS)} {kind} called {name}, who lived in {pick(HOMES)}.",
        f"{name} was a {pick(KINDS)} {kind}. {capital(he)} loved {pick(LIKES)}.",
        f"A long time ago, a {pick(KINDS)} {kind} named {name} lived near {place}.",
    ])  # fmt: skip
    middle = pick([
        f"{pick(TIMES)}, {name} went to {place} and found {thing}. {capital(he)} did not know whose it was. "
        f'"Is this yours?" {he} asked {friend}. "Yes," said {friend_short}, "I have looked for {short} all day!"',
        f"{pick(TIMES)}, {name} lost {thing}. {capital(he)} looked for it in {place}, but {short} was not there. "
        f"{name} was {pick(FEARS)}. Then {he} met {friend}, who {pick(VERBS_HELP)} {him} and said, "
        f'"Do not worry, we will find it together."',
        f"{pick(TIMES)}, {name} wanted to make {pick(FOODS)}, but there was nothing in the house. "
        f"So {he} went to {place} and asked {friend} for help. They worked until the sun went down.",
        f"{pick(TIMES)}, it was very {pick(WEATHERS)}. {name} walked to {place} with {friend}. "
        f"On the way they saw {thing}, and {name} picked it up.",
    ])  # fmt: skip
    ending = pick([
        f"In the end, {name} was very {pick(FEELINGS)}. {capital(he)} learned that {pick(LESSONS)}.",
        f"From that day on, {name} and {friend_short} were best friends.",
        f"That night, {name} went home and told {his} mother everything. She smiled and gave {him} {pick(FOODS)}.",
        f"They laughed and ate {pick(FOODS)} together. {name} felt {pick(FEELINGS)} and slept well that night.",
    ])  # fmt: skip
    return f"{opening} {middle} {ending}"


def introduction() -> str:
    """Somebody says who they are."""
    pronoun = pick(list(PEOPLE))
    name = pick(PEOPLE[pronoun])
    hello = pick(["Hello, my", "Hi! My", "My", "Good morning, my"])
    parts = [
        f"{hello} name is {name}.", f"I am {random.randint(7, 79)} years old and I live in {pick(CITIES)}.",
        f"I am {pick(JOBS)}.", f"I like {pick(LIKES)}.", f"My favourite food is {pick(FOODS)}.",
        f"On Sundays I go to {pick(PLACES)} with my {pick(['family', 'friends', 'dog', 'sister', 'brother'])}.",
        f"I have {pick(['a brother', 'a sister', 'two children', 'a cat', 'an old dog'])}.",
    ]  # fmt: skip
    return " ".join([parts[0], *random.sample(parts[1:], random.randint(2, 5))])


def diary() -> str:
    """A day in the first person."""
    weather = pick(WEATHERS)
    first = pick([
        f"The weather today is {weather}.", f"Today it was {weather}.", f"The weather was {weather} this morning.",
        f"It is a {weather} day.",
    ])  # fmt: skip
    rest = [
        f"In the morning I had {pick(FOODS)} for breakfast.", f"Then I went to {pick(PLACES)}.",
        f"I met {pick(PEOPLE['she'])} and we talked for a long time.", f"I bought {pick(THINGS)} for my mother.",
        f"In the afternoon I wanted {pick(LIKES)}.", f"In the evening we cooked {pick(FOODS)}.",
        f"I was {pick(FEELINGS)} at the end of the day.", "Tomorrow I will get up early.",
    ]  # fmt: skip
    chosen = sorted(random.sample(range(len(rest)), random.randint(3, 6)))
    return " ".join([first, *(rest[index] for index in chosen)])


def dialogue() -> str:
    """Two people talk."""
    one, two = pick(PEOPLE["she"]), pick(PEOPLE["he"])
    place, food = pick(PLACES), pick(FOODS)
    lines = pick([
        [f'"Where is {place}?" asked {one}.', f'"It is not far," said {two}. "Go straight on and turn left."',
         f'"Thank you very much," said {one}.'],
        [f'"How are you today?" asked {two}.', f'"I am {pick(FEELINGS)}, thank you," said {one}. "And you?"',
         f'"I am a little {pick(["tired", "hungry", "cold"])}," said {two}.'],
        [f'"What would you like to eat?" asked {one}.', f'"I would like {food}, please," said {two}.',
         f'"Of course," said {one}. "It will be ready soon."'],
        [f'"What do you want to do?" asked {two}.', f'"I want {pick(LIKES)}," said {one}.',
         f'"That is a good idea," said {two}, and they went to {place}.'],
    ])  # fmt: skip
    return " ".join(lines)


def fact() -> str:
    """Plain statements about people."""
    pronoun = pick(list(PEOPLE))
    he, _, his = FORMS[pronoun]
    name = pick(PEOPLE[pronoun])
    return pick([
        f"{name} is {pick(JOBS)} in {pick(CITIES)}. Every day {he} goes to {pick(PLACES)} and comes home in the evening. "
        f"In {his} free time {he} likes {pick(LIKES)}.",
        f"The best thing about {pick(CITIES)} is the food. You can eat {pick(FOODS)} and {pick(FOODS)}, and then walk to "
        f"{pick(PLACES)}. The people there are {pick(KINDS)}.",
        f"To make {pick(FOODS)}, first wash your hands. Then take a big bowl and mix everything well. Wait for "
        f"{random.randint(5, 50)} minutes. Serve it warm and share it with your friends.",
        f"I think that {pick(LESSONS)}. My {pick(['mother', 'father', 'teacher', 'friend'])} told me so when I was "
        f"{pick(FEARS)}, and I have never forgotten it.",
    ])  # fmt: skip


def wordnet(path: Path) -> list[str]:
    """Example sentences of WordNet 3.0, as sentences."""
    text = re.sub(r"\s+", " ", gzip.open(path, "rt", encoding="utf-8", errors="replace").read())
    found = [part.strip() for part in re.findall(r'"([^"]{25,160})"', text) if len(part.split()) >= 6]
    return [capital(part) + ("" if part[-1] in ".!?" else ".") for part in found if part]


MAKERS = (story, story, story, introduction, diary, dialogue, fact)


def texts(wordnet_path: Path, count: int) -> list[str]:
    """`count` made texts, and as many tokens' worth of example sentences as WordNet has, shuffled by the seed."""
    made = [random.choice(MAKERS)() for _ in range(count)]
    found = wordnet(wordnet_path) + made
    return random.sample(found, len(found))
