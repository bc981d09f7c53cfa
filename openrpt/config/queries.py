"""Names with parameters, as `lab:scan?depth=20` and `new:llama?layers=2`: read and validated."""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from openrpt.errors import UserError, nearest


class Parameters(BaseModel):
    """The parameters that may stand behind the question mark of a name, a field each."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_Found = TypeVar("_Found", bound=Parameters)


def split_query(name: str) -> tuple[str, dict[str, str]]:
    """Returns the part of a name before the first `?`, and the parameters behind it.

    >>> split_query("scan?depth=20&seed=1")
    ('scan', {'depth': '20', 'seed': '1'})

    Raises UserError for a part that is not KEY=VALUE and for a key that stands twice.
    """
    head, _, query = name.partition("?")
    values: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        key, sign, value = part.partition("=")
        if not sign or not key:
            raise UserError(f"{name}: '{part}' is no parameter; write KEY=VALUE, joined by '&'")
        if key in values:
            raise UserError(f"{name}: parameter '{key}' stands twice")
        values[key] = value
    return head, values


def read_parameters(kind: type[_Found], values: dict[str, str], *, where: str) -> _Found:
    """Reads parameters. Raises UserError for an unknown parameter (the nearest is named) and a bad
    value."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = kind.model_fields
        hint = nearest(key, known, otherwise=f"there are: {', '.join(known)}")
        raise UserError(f"{where}: unknown parameter '{key}'{hint}")
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    given = f"{key} = {values[key]}: " if key in values else ""
    raise UserError(f"{where}: {given}{message}")
