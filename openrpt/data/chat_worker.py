"""A process that only renders chat templates (`openrpt.worker`, asked by `chat.py`): a chat in,
`text` out, or the template's `error`.

A template comes with a model folder and is a program: it can ask for more memory or time than there
is, inside one call into C.
"""

import random
from datetime import datetime
from typing import Any

from openrpt.worker import serve

_MEMORY = 2 << 30
"""Most address space, in bytes."""


class _Clock(datetime):
    """A fixed date for a template that asks for one: a run that goes on tomorrow has the same
    prompts."""

    @classmethod
    def now(cls, tz: Any = None) -> "_Clock":
        """Returns the fixed date, whatever the time is."""
        return cls(2026, 1, 1, tzinfo=tz)


def _render(asked: dict[str, Any]) -> dict[str, str]:
    """Returns the chat as transformers itself renders it, the same each time; at most `most`
    characters of it."""
    from transformers.utils import chat_template_utils

    setattr(chat_template_utils, "datetime", _Clock)  # noqa: B010 (mypy knows it as the class)
    random.seed(0)
    try:
        rendered: Any = chat_template_utils.render_jinja_template(
            conversations=[asked["messages"]],
            chat_template=asked["template"],
            **asked["values"],
        )
        text = rendered[0][0]
        text.encode()  # refuses half a surrogate pair
    except Exception as error:  # a template is a program: it may raise anything
        message = " ".join(str(error).split()).encode("unicode_escape").decode()[:200]
        return {"error": f"{type(error).__name__}: {message}" if message else type(error).__name__}
    if len(text) > asked["most"]:
        return {"error": f"it writes {len(text):,} characters"}
    return {"text": text}


def _renders() -> bool:
    """Returns whether a template can be rendered: imports what every one needs."""
    plain = {"messages": [{"role": "user", "content": ""}], "template": "", "values": {}}
    return _render(plain | {"most": 1}) == {"text": ""}


if __name__ == "__main__":
    serve(_render, ready=_renders, memory=_MEMORY)
