"""Money as integers: amounts in nano-units of the currency, prices in pico-units per unit sold. Nothing is a float."""

from collections.abc import Mapping
from enum import StrEnum

PICO_PER_NANO = 1000


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
