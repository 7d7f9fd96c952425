"""Money as integers: amounts in nano-units of the currency, prices in pico-units per unit sold. Nothing is a float."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum

PICO_PER_NANO = 1000
NANO = 10**9
PICO = 10**12
MILLION = 10**6


class Meter(StrEnum):
    """What can be sold."""

    INPUT_TOKEN = "input_token"
    OUTPUT_TOKEN = "output_token"
    CHARACTER = "character"
    REQUEST = "request"


def cost_nano(prices: Mapping[str, int], units: Mapping[str, int]) -> int:
    """Price (pico-units) times units of each meter, summed, then rounded once: to the even nano-unit at a tie."""
    pico = sum(prices.get(meter, 0) * count for meter, count in units.items())
    whole, rest = divmod(pico, PICO_PER_NANO)
    return whole + (2 * rest > PICO_PER_NANO or (2 * rest == PICO_PER_NANO and whole % 2 == 1))


def shown(amount_nano: int, currency: str = "USD") -> str:
    """An amount for people: an exact decimal number and its currency."""
    return f"{decimal_text(amount_nano)} {currency}"


def decimal_text(amount_nano: int) -> str:
    """An amount as an exact decimal number: 1500000000 is 1.5."""
    whole, rest = divmod(abs(amount_nano), NANO)
    digits = f"{rest:09}".rstrip("0")
    return f"{'-' if amount_nano < 0 else ''}{whole}{'.' + digits if digits else ''}"


def nano_of(text: str) -> int:
    """An exact decimal number as an amount. Raises ValueError for anything that has more than nine decimal places."""
    try:
        nano = Decimal(text) * NANO
    except InvalidOperation as cause:
        raise ValueError(f"{text!r} is no number") from cause
    if not nano.is_finite() or nano != int(nano) or abs(nano) >= 2**63:
        raise ValueError("an amount has at most nine decimal places")
    return int(nano)


def pico_of(per_million: str) -> int:
    """A price per million units, as a decimal number of the currency, in pico-units per unit. Raises ValueError."""
    try:
        pico = Decimal(per_million) * PICO / MILLION
    except InvalidOperation as cause:
        raise ValueError(f"{per_million!r} is no number") from cause
    if not pico.is_finite() or pico < 0 or pico != int(pico) or pico >= 2**63:
        raise ValueError("a price is at least 0 and has at most six decimal places")
    return int(pico)


def per_million_text(pico_per_unit: int) -> str:
    """A price per million units as an exact decimal number: 150000 is 0.15."""
    return decimal_text(pico_per_unit * (MILLION // PICO_PER_NANO))
