"""A process that only compares answers: started by `openrpt.answers.MathChecker`, one JSON object
a line in, one verdict a line out.

It is a process of its own because symbolic algebra can hang where no signal reaches it
(`9^{9^{9^9}}` is one long call into C), uses signals that belong to the main thread, and writes
warnings. A check that takes too long or too much memory ends the process; whoever asked counts it
as wrong and starts another. Imports nothing of OpenRPT: it runs by its path.
"""

import faulthandler
import json
import os
import re
import signal
import sys

MEMORY = 4 << 30
"""Bytes of address space."""
_WORDS = re.compile(r"\\text\b|\\mathrm\b|(?<![\\A-Za-z])[A-Za-z]{3,}")


def agrees(answer: str, truth: str) -> bool:
    """Do two answers mean the same number, expression, set or relation, by math-verify?

    Words are no mathematics (it would take them for products of letters, and so `blue` for
    `lube`): where the truth has any, only equal characters count, and those were compared before.
    """
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    if _WORDS.search(truth):
        return False
    kinds = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
    # Its own timeouts are off: the watchdog below also reaches into C.
    parsed = [
        parse(
            f"\\boxed{{{text}}}",
            extraction_config=kinds,
            fallback_mode="no_fallback",
            parsing_timeout=None,  # type: ignore[arg-type]  # as its documentation has it
        )
        for text in (truth, answer)
    ]
    return all(parsed) and verify(*parsed, timeout_seconds=None)


def main(seconds: float) -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # for the process that asks, which ends this one
        if name in signal.Signals.__members__:  # Windows has no SIGHUP
            signal.signal(signal.Signals[name], signal.SIG_IGN)
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    replies, sys.stdout = sys.stdout, sys.stderr
    agrees("1/2", "0.5")  # imports and compiles what every check needs
    print("ready", file=replies, flush=True)
    with open(os.devnull, "w") as nowhere:
        for line in sys.stdin:
            asked = json.loads(line)
            faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
            verdict = agrees(asked["answer"], asked["truth"])
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps(verdict), file=replies, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
