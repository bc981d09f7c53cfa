"""Every key of the configuration as people read it: its name, default, limits and choices.

Importing the sections takes longer than all else that `openrpt --help` does, so they are imported
where they are read.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from openrpt.config.as_typed import ESCAPED, escape
from openrpt.config.parts import PartName
from openrpt.config.paths import require_path, require_path_or_none

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from openrpt.config.section import Section

_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """One key of the configuration, as people read it."""

    name: str
    """The dotted name: `train.learning_rate`."""
    annotation: Any
    default: Any
    description: str
    limits: str
    """The bounds, `≥ 0, < 1`; empty where there are none."""
    path_check: Callable[[str], str] | None
    """The check of a path, which raises ValueError for what can be none; None for other keys."""
    part: PartName | None
    """The check of what names a part, or of each item where the key is a list; None for other
    keys."""

    @property
    def section(self) -> str:
        """The section's name."""
        return self.name.rpartition(".")[0]

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that a key, or each item of its list, may be; empty where anything goes. Of a
        part, which may be a user's own, those that are known."""
        if self.part is not None:
            return self.part.known
        inner = get_args(self.annotation)[0] if self.is_list else self.annotation
        if self.number is not None:
            inner = get_args(inner)[1]
        return get_args(inner) if get_origin(inner) is Literal else ()

    @property
    def number(self) -> Any:
        """The kind of number that a key may be in place of its words; None for other keys."""
        if get_origin(self.annotation) not in (UnionType, Union):
            return None
        return get_args(get_args(self.annotation)[0])[0]

    @property
    def is_list(self) -> bool:
        """Whether the key's value is a list."""
        return get_origin(self.annotation) is list

    @property
    def is_table(self) -> bool:
        """Whether the key's value is a table of names and numbers."""
        return get_origin(self.annotation) is dict

    @property
    def is_file(self) -> bool:
        """Whether the key's value is what a file holds, which is named in its place."""
        return get_origin(self.annotation) is tuple

    @property
    def shown_default(self) -> str:
        """The default as one types it after the option."""
        if self.is_table:
            return ",".join(f"{name}={value:g}" for name, value in self.default.items())
        if self.is_list:
            return ",".join(self.default) or "''"
        if self.is_file:
            return "''"
        if isinstance(self.default, str) and self.name in ESCAPED:
            return f"'{escape(self.default)}'"
        return json.dumps(self.default).strip('"') or "''"

    @property
    def help(self) -> str:
        """The option's help: the key's description with its default and limits."""
        facts = "; ".join(part for part in (f"default {self.shown_default}", self.limits) if part)
        return f"{self.description} [{facts}]"


def sections() -> "dict[str, type[Section]]":
    """Returns each section's class by its name, in the configuration's order."""
    from openrpt.config.section import Section
    from openrpt.config.sections import Config

    fields = Config.model_fields.items()
    return {
        name: field.annotation
        for name, field in fields
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    }


def described_keys() -> Iterator[Key]:
    """Yields all keys, in the configuration's order."""
    from openrpt.config.sections import Config

    found = sections()
    for name, field in Config.model_fields.items():
        if name not in found:
            yield _key(name, field)
            continue
        for key, inner in found[name].model_fields.items():
            yield _key(f"{name}.{key}", inner)


def _key(name: str, field: "FieldInfo") -> Key:
    from pydantic import AfterValidator

    # The metadata are annotated_types' bounds, Ge(ge=0) or Lt(lt=1), and validators.
    metadata = field.metadata
    if get_origin(field.annotation) in (UnionType, Union):  # a number, or words in its place
        (inner,) = get_args(field.annotation)[0].__metadata__
        metadata = inner.metadata
    bounds = [bound for constraint in metadata for bound in asdict(constraint).items()]
    limits = [f"{_SIGNS[name]} {value:,}" for name, value in bounds if name in _SIGNS]
    checks = [
        check
        for check in (require_path, require_path_or_none)
        if AfterValidator(check) in field.metadata
    ]
    return Key(
        name=name,
        annotation=field.annotation,
        default=field.default,
        description=field.description or "",
        limits=", ".join(limits),
        path_check=next(iter(checks), None),
        part=_part(field),
    )


def _part(field: "FieldInfo") -> PartName | None:
    """Returns the check of a part's name, of a field or of its list's items."""
    inner = get_args(field.annotation)[0] if get_origin(field.annotation) is list else None
    metadata = [*field.metadata, *getattr(inner, "__metadata__", ())]
    checks = [getattr(one, "func", None) for one in metadata]
    return next((check for check in checks if isinstance(check, PartName)), None)
