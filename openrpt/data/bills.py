"""Shopping bills as a corpus, made at run time: `bills?documents=500` in the place of a path.

Each document tells of a few purchases in sentences and adds each of them up:

    On Monday Nora bought apples for 7 dollars, tea for 4 dollars and salt for 9 dollars at the
    market. That was 7 + 4 + 9 = 20 dollars.

The sum is the only thing in it that takes several steps, and each step is an easy one. So it is a
text on which a small model can be seen to win by thinking, within minutes; it is no text that
people wrote.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from openrpt.config.queries import Parameters, read_parameters, split_query
from openrpt.seeding import generator

BILLS = "bills"


def _words(text: str) -> list[str]:
    return text.split(",")


_NAMES = _words("Anna,Ben,Carla,David,Elena,Felix,Grace,Hugo,Irene,Jonas,Karin,Leo,Mara,Nora,Oscar")
_DAYS = _words("Monday,Tuesday,Wednesday,Thursday,Friday,Saturday")
_PLACES = _words("at the market,in the corner shop,in town,at the fair,in the village store")
_GOODS = _words(
    "apples,bread,butter,candles,cheese,chocolate,coffee,eggs,envelopes,flour,grapes,honey,jam,"
    "lemons,milk,noodles,nuts,olives,onions,oranges,paper,pears,pencils,plums,potatoes,rice,salt,"
    "soap,stamps,sugar,tea,tomatoes,vinegar,yoghurt"
)
_SENTENCES = (
    "On {day} {name} bought {goods} {place}. That was {terms} = {total} dollars.",
    "{name} went shopping on {day}: {goods}. The bill came to {terms} = {total} dollars.",
    "For {goods} {name} paid {terms} = {total} dollars {place} on {day}.",
)
_PRICES = (2, 9)
"""The least and the greatest price, in dollars: one digit, so that each step is easy."""


class _Settings(Parameters):
    """The parameters that may follow a `?`."""

    documents: int = Field(500, ge=1, le=1_000_000)
    seed: int = Field(0, ge=0, le=2**63 - 1)
    bills: int = Field(3, ge=1, le=len(_DAYS))
    """The number of bills of a document, each of another day."""
    least: int = Field(3, ge=2)
    most: int = Field(6, le=len(_GOODS))
    """The least and the greatest number of things on a bill."""

    @model_validator(mode="after")
    def _at_least_as_many(self) -> "_Settings":
        if self.least > self.most:
            raise ValueError(f"least = {self.least} is more than most = {self.most}")
        return self


def is_bills(path: str) -> bool:
    """Returns whether a corpus path names the bills, with or without parameters."""
    return path.partition("?")[0] == BILLS


def bills_documents(path: str) -> int:
    """Returns the number of documents. Raises UserError as `read_bills`."""
    return _settings(path).documents


def read_bills(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (source, fields): text. A document depends on the parameters and its number alone.

    Raises UserError for an unknown parameter and a bad value.
    """
    settings = _settings(path)
    for number in range(1, settings.documents + 1):
        rng = generator(settings.seed, BILLS, number)
        (name,) = _drawn(rng, _NAMES)
        days = sorted(_drawn(rng, _DAYS, settings.bills), key=_DAYS.index)
        bills = [_bill(rng, settings, name, day) for day in days]
        yield f"{BILLS}:{number}", {"text": " ".join(bills)}


def _settings(path: str) -> _Settings:
    return read_parameters(_Settings, split_query(path)[1], where=path)


def _bill(rng: np.random.Generator, settings: _Settings, name: str, day: str) -> str:
    number = int(rng.integers(settings.least, settings.most, endpoint=True))
    prices = rng.integers(*_PRICES, size=number, endpoint=True)
    goods = [
        f"{thing} for {price} dollars"
        for thing, price in zip(_drawn(rng, _GOODS, number), prices, strict=True)
    ]
    (place,) = _drawn(rng, _PLACES)
    return _SENTENCES[rng.integers(len(_SENTENCES))].format(
        day=day,
        name=name,
        place=place,
        goods=f"{', '.join(goods[:-1])} and {goods[-1]}",
        terms=" + ".join(map(str, prices)),
        total=prices.sum(),
    )


def _drawn(rng: np.random.Generator, words: Sequence[str], number: int = 1) -> list[str]:
    """Draws so many of the words, none twice."""
    return [words[n] for n in rng.choice(len(words), number, replace=False)]
