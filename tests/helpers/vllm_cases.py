"""The ways in which a completion can go, decoded greedily: for another sampler than the tree."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Engine, Sampler
from openrpt.engine.generation import Generated
from openrpt.seeding import keys_of
from openrpt.types import Completion

CASES = [
    "plain",
    "no thought",
    "no candidates",
    "own openings",
    "an end of one token",
    "an end of two tokens",
    "a long way behind its end",
    "a stop in the thought",
    "a stop in the prediction",
    "a text that ends it",
]
_IDS = (7, 40, 9, 77, 301, 12, 55, 201, 33, 18, 64, 90)
_THINK, _PREDICTION, _CLOSE = 8, 5, (93, 94, 95, 96)
_LAYOUT = Layout(
    head_ids=(),
    tail_ids=(90, 91),
    plain_head_ids=(),
    separator_ids=(92,),
    close_ids=_CLOSE,
    answer_start_ids=(95, 96),
    answer_end_ids=(89,),
    thought_end_ids=(93, 94),
    thought_end=b"</think>",
    literal={},
)
_SAMPLING = Sampling(
    temperature=0.0, think_budget=_THINK, prediction_budget=_PREDICTION, candidates=2
)
_REQUEST = Request(
    prefix_ids=_IDS,
    prefix_lengths=(4, 9, 12),
    keys=tuple(keys_of(2, "vllm", n) for n in range(3)),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """What a sampler is asked for."""

    layout: Layout = _LAYOUT
    sampling: Sampling = _SAMPLING
    request: Request = _REQUEST
    stop: int = 1

    @classmethod
    def of(cls, name: str, engine: Engine) -> "Case":
        """Returns the case, made of what the engine says in the plain one."""
        plain = cls()
        drawn = drawn_ids(plain.generate(engine, engine)[0].completions[0])
        table = engine.model.table.bytes
        match name:
            case "no thought":
                return replace(plain, sampling=replace(plain.sampling, think_budget=0))
            case "no candidates":
                return replace(plain, sampling=replace(plain.sampling, candidates=0))
            case "own openings":
                openings = ((3,), (), (5, 6))
                return replace(plain, request=replace(plain.request, openings=openings))
            case "an end of one token":
                return plain.ending(drawn[2:3])
            case "an end of two tokens":
                return plain.ending(drawn[3:5])
            case "a long way behind its end":
                short = replace(plain.ending(drawn[:2]).sampling, prediction_budget=2)
                return replace(plain.ending(drawn[:2]), sampling=short)
            case "a stop in the thought":
                return replace(plain, stop=drawn[4])
            case "a stop in the prediction":
                return replace(plain, stop=drawn[_THINK + 2])
            case "a text that ends it":
                text = table[drawn[_THINK + 1]] + table[drawn[_THINK + 2]]
                return replace(plain, sampling=replace(plain.sampling, until=(text,)))
        return plain

    def ending(self, ids: Sequence[int]) -> "Case":
        """Returns the case in which these tokens end a thought."""
        return replace(self, layout=replace(self.layout, thought_end_ids=tuple(ids)))

    def generate(self, sampler: Sampler, engine: Engine) -> list[Generated]:
        """Returns the outcomes by the sampler of the engine's model."""
        model = engine.model
        model.causal_lm.generation_config.eos_token_id = self.stop
        (found,) = sampler.generate_each([self.request], self.layout, self.sampling)
        return found


def drawn_ids(completion: Completion) -> list[int]:
    """Returns the tokens that were not forced."""
    pairs = zip(completion.token_ids, completion.loss_mask, strict=True)
    return [token for token, free in pairs if free]


def require_covered(name: str, outcomes: Sequence[Generated]) -> None:
    """Checks that the case is what its name says."""
    one = outcomes[0].completions[0]
    drawn, closed = len(drawn_ids(one)), one.token_ids[-_PREDICTION - 4 : -_PREDICTION] == _CLOSE
    whole = _THINK + _PREDICTION
    expected = {
        "no thought": (_PREDICTION, True, "length"),
        "an end of one token": (3 + 2 + _PREDICTION, False, "length"),
        "an end of two tokens": (5 + 2 + _PREDICTION, False, "length"),
        "a long way behind its end": (2 + 2 + 2, False, "length"),
        "a stop in the thought": (5, False, "stop"),
        "a stop in the prediction": (_THINK + 3, False, "stop"),
        "a text that ends it": (_THINK + 3, False, "stop"),
    }.get(name, (whole, True, "length"))
    assert (drawn, closed, one.finish_reason) == expected


def assert_same(
    found: Sequence[Generated], expected: Sequence[Generated], *, tolerance: float
) -> None:
    """Checks that all is the same but for the rounding of the drawn tokens' log-probabilities."""

    def without(outcome: Generated) -> Generated:
        bare = [replace(one, sampler_logprobs=()) for one in outcome.completions]
        return replace(outcome, completions=tuple(bare), near_boundary=0)

    for one, other in zip(found, expected, strict=True):
        assert without(one) == without(other)
        for mine, theirs in zip(one.completions, other.completions, strict=True):
            pairs = zip(mine.sampler_logprobs, theirs.sampler_logprobs, strict=True)
            assert max(abs(a - b) for a, b in pairs) < tolerance
