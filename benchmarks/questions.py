"""Prompts that share nothing, answered once each: side by side, one after the other, and by
transformers.

    python benchmarks/questions.py

What an evaluation on questions does: every prompt is a text of its own and has one completion, so
there is no prefix to share, and a token of one prompt reads all weights. The three take turns in
one process, with the same prompts and as many new tokens; the first turn is not counted.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from case import add_arguments, make_case, read_text
from common import RESULTS, environment, exit_cleanly, parser_of, say, spread, write_result

SHORTEST, LONGEST = 48, 144
"""Tokens of a prompt; between these, evenly."""


def main() -> None:
    parser = parser_of(__doc__)
    add_arguments(parser)
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "questions.json")
    parser.set_defaults(new_tokens=48)
    given = parser.parse_args()
    facts = environment()
    case = make_case(given)
    found = measure(given, case.job())
    case_facts = {
        "model": case.facts()["model"],
        "dtype": "float32",
        "questions": given.questions,
        "prompt_tokens": [SHORTEST, LONGEST],
        "new_tokens": given.new_tokens,
        "threads": given.threads,
    }
    write_result(given.output, "questions", facts | {"case": case_facts} | found)


def measure(given: argparse.Namespace, job: dict[str, Any]) -> dict[str, Any]:
    """Seconds a question by each way, and the ratios to side by side, turn by turn."""
    ways = make_ways(given, job)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(1 + given.turns):
        for name, (run, questions) in ways.items():
            start = time.perf_counter()
            run()
            taken = (time.perf_counter() - start) / questions
            if turn:
                seconds[name].append(taken)
                say(f"{name}: {taken:.3f} s a question")
    own = seconds["side_by_side"]
    return {
        "seconds_a_question": {name: spread(values) for name, values in seconds.items()},
        "ratios": {
            name: spread([other / mine for other, mine in zip(values, own, strict=True)])
            for name, values in seconds.items()
            if name != "side_by_side"
        },
    }


def make_ways(
    given: argparse.Namespace, job: dict[str, Any]
) -> dict[str, tuple[Callable[[], Any], int]]:
    """Name → what runs it, and how many questions it answers."""
    import openrpt_step as own
    import peer_generate

    from openrpt.data.request import Request
    from openrpt.data.tokens import encode_document
    from openrpt.engine.cpu import use_cpu
    from openrpt.engine.decoding import Sampling
    from openrpt.engine.engine import bind
    from openrpt.engine.loading import load_model
    from openrpt.engine.tree.attention import NAME
    from openrpt.seeding import key_of

    config = own.config_of(job)
    use_cpu(config.model.threads)
    loaded = load_model(config.model)
    policy = own.EndlessModel(network=loaded.network, tokenizer=loaded.tokenizer, name=loaded.name)
    layout = own.endless_layout(policy, config)
    sampling = Sampling.plain(given.new_tokens, temperature=1.0)
    text, _ = encode_document(policy.tokenizer, read_text(given.corpus))
    prompts = []
    for number in range(given.questions):
        length = SHORTEST + number * (LONGEST - SHORTEST) // max(given.questions - 1, 1)
        prompts.append(tuple(text[number * LONGEST :][:length]))
    requests = [Request.at_end(ids, [key_of(0, number)]) for number, ids in enumerate(prompts)]
    engine = bind("tree", policy)

    def transformers_generate() -> None:
        policy.attention = "sdpa"
        rows = [[*ids, *layout.tail_ids] for ids in prompts]
        peer_generate.run(policy.network, rows, len(rows), new_tokens=given.new_tokens)
        policy.attention = NAME

    few = requests[:: max(1, given.questions // 8)]  # linear in them
    return {
        "side_by_side": (
            lambda: list(engine.generate_each(requests, layout, sampling)),
            len(requests),
        ),
        "one_after_the_other": (
            lambda: [list(engine.generate_each([request], layout, sampling)) for request in few],
            len(few),
        ),
        "transformers": (transformers_generate, len(requests)),
    }


if __name__ == "__main__":
    exit_cleanly(main)
