"""`openrpt` until its first sampled token: run by startup.py, in its own process.

    python first_token.py FOUND.json COMMAND …

Writes the time then (seconds since the epoch) and the processor time that the process took until
then, which other work on the machine lengthens less, and leaves. What is imported here before the
command would import it is in both all the same.
"""

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from openrpt.cli.main import GARBAGE_THRESHOLD, main

gc.set_threshold(GARBAGE_THRESHOLD)  # as main does, before what is heavy is imported
from openrpt.engine import decoding  # noqa: E402

sample = decoding.sample


def watched(*args: Any, **kwargs: Any) -> Any:
    sample(*args, **kwargs)
    found.write_text(json.dumps({"at": time.time(), "processor": time.process_time()}))
    os._exit(0)


if __name__ == "__main__":
    found = Path(sys.argv[1])
    sys.argv = ["openrpt", *sys.argv[2:]]
    decoding.sample = watched
    main()
