"""A process that only renders chat templates: started by `chat.py`, one JSON object a line in,
one a line out (`text`, or the template's `error`).

A template comes with a model folder and is a program: it can ask for more memory or time than there
is, inside one call into C. So this process has a limit of memory, and ends itself where a rendering
takes too long. Imports nothing of OpenRPT: it runs by its path.
"""

import faulthandler
import json
import os
import random
import signal
import sys
from datetime import datetime
from typing import Any

MEMORY = 2 << 30
"""Bytes of address space."""


class Clock(datetime):
    """What a template that asks for the date reads: a run that goes on tomorrow has the same
    prompts."""

    @classmethod
    def now(cls, tz: Any = None) -> "Clock":
        return cls(2026, 1, 1, tzinfo=tz)


def render(asked: dict[str, Any], most: int) -> dict[str, str]:
    """The chat as transformers itself renders it, the same each time; at most so many characters
    of it."""
    from transformers.utils import chat_template_utils

    setattr(chat_template_utils, "datetime", Clock)  # noqa: B010 (mypy knows it as the class)
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
    if len(text) > most:
        return {"error": f"it writes {len(text):,} characters"}
    return {"text": text}


def main(seconds: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    replies, sys.stdout = sys.stdout, sys.stderr
    plain = {"messages": [{"role": "user", "content": ""}], "template": "", "values": {}}
    print(json.dumps(render(plain, 1)), file=replies, flush=True)  # imports what is needed
    with open(os.devnull, "w") as nowhere:
        for line in sys.stdin:
            asked = json.loads(line)
            faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
            reply = render(asked, asked["most"])
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
