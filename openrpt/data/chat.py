"""Chats as the tokenizer's chat template writes them.

A template is a program that comes with a model folder. Whether it writes the messages as they are
is checked each time, and it runs in a process of its own (`chat_worker.py`), so that it can
neither hang nor fill the memory.
"""

import atexit
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from openrpt.errors import UserError
from openrpt.worker import Worker

_SECONDS = 10.0
"""The most time that one chat may take."""
_MOST = 1 << 20
"""The most characters that a template may write beside the messages."""
_WAY_OUT = "mend the chat template in the model's folder, or run with --prompt.chat_template off"

_Messages = Sequence[dict[str, str]]
"""The role and the content of each message."""

_PROBE = (
    "A Text,  of <any> & every 'kind':\n\n\tit's {{ so }} \\ 1 % é 中 😀 \"THE END\"; " * 400 + "."
)
"""A text that comes out changed from whatever escapes, trims, cuts, wraps or re-spells one."""


def render_chat(
    tokenizer: Any,
    messages: _Messages,
    *,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
) -> str:
    """Returns the chat as one text, control tokens spelled out.

    Raises UserError where the template fails, takes too long or writes too much, and where it does
    not write each message exactly once and as it is (whitespace at a message's ends aside).
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError:  # several templates, and none of them is the default
        raise UserError(f"{_name(tokenizer)} names no default; {_WAY_OUT}") from None
    values = {
        "add_generation_prompt": add_generation_prompt,
        "continue_final_message": continue_final_message,
        **tokenizer.special_tokens_map,
    }
    marks = [f"OPENRPT-MESSAGE-{number}-GOES-HERE" for number in range(len(messages))]
    marked = [message | {"content": mark} for message, mark in zip(messages, marks, strict=True)]
    form, text = (
        _rendered(tokenizer, {"messages": list(chat), "template": template, "values": values})
        for chat in (marked, messages)
    )
    for message, mark in zip(messages, marks, strict=True):
        found = form.count(mark)
        if found != 1:
            what = (
                f"writes a {message['role']}'s message {found} times"
                if found
                else (f"leaves out or changes a {message['role']}'s message")
            )
            raise UserError(f"{_name(tokenizer)} {what}; {_WAY_OUT}")
    expected = re.escape(form)
    for message, mark in zip(messages, marks, strict=True):
        content = re.escape(message["content"].strip())
        expected = expected.replace(re.escape(mark), rf"\s*{content}\s*")
    if not re.fullmatch(expected, text):
        raise UserError(
            f"{_name(tokenizer)} changes, cuts or repeats what a message says; {_WAY_OUT}"
        )
    return text


def around_text(tokenizer: Any, before: str, after: str) -> tuple[str, str]:
    """Returns the texts before and behind a text that a user's message holds between `before` and
    `after`. Raises UserError as `render_chat`."""
    message = {"role": "user", "content": before + _PROBE + after}
    head, _, tail = render_chat(tokenizer, [message]).partition(_PROBE)
    return head, tail


def _name(tokenizer: Any) -> str:
    path = tokenizer.name_or_path
    return "the tokenizer's chat template" + (f" ({path})" if path else "")


# ---- the process --------------------------------------------------------------------------------


def _rendered(tokenizer: Any, chat: dict[str, Any]) -> str:
    most = _MOST + sum(len(message["content"]) for message in chat["messages"])
    reply = _renderer().ask(chat | {"most": most}, seconds=_SECONDS)
    if reply is None:
        reply = {"error": f"it takes more than {_SECONDS:g} seconds, or breaks its process"}
    if "error" in reply:
        raise UserError(f"{_name(tokenizer)} can't be used: {reply['error']}; {_WAY_OUT}")
    return reply["text"]


@cache
def _renderer() -> Worker:
    renderer = Worker(
        "openrpt.data.chat_worker",
        broken="chat templates can't be rendered: see what `python -c 'from"
        " transformers.utils.chat_template_utils import render_jinja_template'` says",
    )
    atexit.register(renderer.close)
    return renderer
