"""Worlds as a corpus: `lab:WORLD?KEY=VALUE&…` in the place of a path."""

from collections.abc import Iterator
from typing import Any

from openrpt.config.queries import read_parameters, split_query
from openrpt.data.worlds.catalog import WORLDS
from openrpt.data.worlds.world import World
from openrpt.errors import UserError, nearest

IS_WORLD = "lab:"
KEY, KIND, OFFSETS = "problem", "depth", "answer_offsets"
"""Fields of a record: what the split is a hash of, what accuracy is broken down by, and the byte of
the text at which its answer begins."""


def open_world(path: str) -> World:
    """Opens the world that a path names. Raises UserError for an unknown world or parameter (the
    nearest is named) and a bad value.

    >>> open_world("lab:scan?depth=12").width
    14
    """
    head, values = split_query(path)
    name = head.removeprefix(IS_WORLD)
    if name not in WORLDS:
        hint = nearest(name, WORLDS, otherwise=f"there are: {', '.join(WORLDS)}")
        raise UserError(f"{path}: no world is called '{name}'{hint}")
    return read_parameters(WORLDS[name], values, where=path)


def read_world(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (source, fields) of every document. Raises UserError as `open_world`."""
    world = open_world(path)
    name, _ = split_query(path)
    for number, made in enumerate(world.texts(), start=1):
        yield (
            f"{name}:{number}",
            {
                "text": made.text,
                "world": name.removeprefix(IS_WORLD),
                "style": made.style,
                "answer": made.answer,
                OFFSETS: [made.answer_offset],
                KEY: made.problem,
                KIND: made.depth,
            },
        )
