"""JSON over HTTP: a server is asked, and asked again while it is busy or silent."""

import json
import os
import time
import urllib.error
import urllib.request
from typing import Any

from openrpt.errors import UserError

KEY = "OPENAI_API_KEY"
"""The environment's variable with the server's key, if it wants one."""
_LONGEST_REPLY = 1 << 24
"""Largest reply that is read, in bytes."""


def ask(
    url: str, body: dict[str, Any] | None = None, *, tries: int, seconds: float, advice: str
) -> Any:
    """Returns the JSON that a server answers, None where it answers with nothing. `body` is posted
    as JSON; None: it is only read.

    A server that is busy (429, 5xx), silent for `seconds`, or can't be reached, is asked `tries`
    times in all, after 1, 2, 4 … seconds. Raises UserError, which ends with `advice`.
    """
    headers = {"Content-Type": "application/json"}
    if os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {os.environ[KEY]}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)
    problem = ""
    for attempt in range(tries):
        if attempt:
            time.sleep(2 ** (attempt - 1))
        try:
            with urllib.request.urlopen(request, timeout=seconds) as reply:
                read = reply.read(_LONGEST_REPLY)
                return json.loads(read) if read else None
        except urllib.error.HTTPError as error:
            said = " ".join(error.read(2000).decode(errors="replace").split())[:300]
            problem = f"{error.code} {error.reason}: {said}"
            if error.code != 429 and error.code < 500:
                break
        except OSError as error:  # URLError, a time that is over, a connection that broke
            problem = str(getattr(error, "reason", error))
        except ValueError:
            problem = "no JSON in the reply"
            break
    raise UserError(f"{url}: {problem}; {advice}")
