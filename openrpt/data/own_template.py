"""A user's own template: `prompt.template` by import path, the words around a text."""

from openrpt.errors import UserError
from openrpt.user_code import UserFunction, load_value, shown

_KEY = "prompt.template"


def own_template(path: str) -> tuple[str, str]:
    """Returns the words before the text and those behind it: the pair of that path, or what the
    function there gives, which is called without arguments.

    Raises UserError for what can't be had, and for anything else than two texts.
    """
    found = load_value(path, key=_KEY)
    if callable(found):
        found = UserFunction(path=path, function=found, reads=()).result({}, where=f"({_KEY})")
    match found:
        case (str(before), str(after)) if _is_text(before + after):
            return before, after
    raise UserError(
        f"{_KEY}: '{path}' is {shown(found)}; it must be two texts in UTF-8, (before, after), or a"
        " function without arguments that gives them"
    )


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
