"""A user's own selection: what it may read, how its weights draw, and what it may not give."""

from collections import Counter
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from openrpt.config.loading import load_config
from openrpt.config.prompt import SelectionConfig
from openrpt.data.positions import ScoredDocument, Window
from openrpt.data.selection import advice, eligible_positions, select_positions
from openrpt.errors import UserError
from tests.helpers.own_module import write_module

WORDS = ["A", " café", " is", " not", " a", " bar", "."]
MODULE = """
import math, sys
import numpy as np
import torch

seen = {}

def everything(**values):
    seen.update(values)
    return np.ones(len(values["index"]))

def surprise(nats): return nats
def tensor(nats): return torch.from_numpy(nats)
def alike(index): return [5] * len(index)
def some(index): return [i in (2, 5) for i in index]
def none(index): return index * 0
def uneven(index): return 2.0 ** index
def extreme(index): return [1e308 if i < 4 else 1e-320 for i in index]
def never(index): raise AssertionError("asked without a position")
def spoils(index): index[:] = 0; return np.ones(len(index))

def short(index): return [1.0]
def nothing(index): return None
def words(index): return ["much"] * len(index)
def negative(index): return [1.0, -1.0] + [1.0] * (len(index) - 2)
def nan(entropy): return entropy * math.nan
def infinite(entropy): return entropy / 0.0
def divides(index): return 1 / 0
def exits(index): sys.exit("enough\\nof it")
def asks(entropies): return entropies
"""
WINDOW = Window(start=1, end=7, first=2)


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(tmp_path, monkeypatch, MODULE)


def document(entropy: float = 1.5) -> ScoredDocument:
    count = len(WORDS)
    starts = np.cumsum([0, *(len(word.encode()) for word in WORDS)])[:-1]
    return ScoredDocument(
        document_id="d",
        key="k",
        split="train",
        source="test:1",
        text="".join(WORDS),
        token_ids=np.arange(count),
        byte_offsets=starts,
        negative_log_likelihood=np.arange(count, dtype=np.float32),
        entropy=np.full(count, entropy, np.float32),
        entropy_top16=np.full(count, entropy / 2, np.float32),
        ntp_token_id=np.full(count, -1),
        ntp_correct=np.arange(count) == 3,
    )


def strategy(name: str, where: str = "") -> SelectionConfig:
    return SelectionConfig(strategy=f"mine:{name}", where=where)


def eligible(name: str, where: str = "") -> list[int]:
    return eligible_positions(document(), strategy(name, where), window=WINDOW).tolist()


def draws(config: SelectionConfig, count: int, seed: int = 0, times: int = 1) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [
        select_positions(document(), config, window=WINDOW, count=count, rng=rng)
        for _ in range(times)
    ]


def test_it_reads_the_positions_of_the_window() -> None:
    found = eligible_positions(
        document(), strategy("everything"), window=WINDOW, pass_rates={3: 0.25, 99: 1.0}
    )
    assert found.tolist() == [2, 3, 4, 5, 6]
    import mine  # type: ignore[import-not-found]

    seen = dict(mine.seen)
    assert seen.pop("entropy").tolist() == [1.5] * 5
    assert seen.pop("entropy_top16").tolist() == [0.75] * 5
    assert seen.pop("nats").tolist() == [2, 3, 4, 5, 6]
    assert seen.pop("correct").tolist() == [False, True, False, False, False]
    assert np.array_equal(seen.pop("pass_rates"), [np.nan, 0.25, *[np.nan] * 3], equal_nan=True)
    assert seen.pop("index").tolist() == [2, 3, 4, 5, 6]
    assert seen.pop("tokens") == [word.encode() for word in WORDS[2:]]
    before = ["".join(WORDS[1:i]).encode() for i in range(2, 7)]
    assert seen.pop("prefixes") == before
    assert seen == {}


def test_a_weight_of_0_is_not_taken() -> None:
    assert eligible("some") == [2, 5]
    assert eligible("none") == []
    assert draws(strategy("some"), 4) == [[2, 5]]
    assert draws(strategy("none"), 4) == [[]]
    assert eligible("tensor") == eligible("surprise") == eligible("spoils") == [2, 3, 4, 5, 6]


def test_only_what_the_rule_allows_is_offered() -> None:
    assert eligible("alike", r"before:\bis| a") == [3, 5]
    assert eligible("never", "before:nowhere") == []


def test_positions_without_a_score_are_offered_where_none_has_one() -> None:
    bare = document(entropy=np.nan)
    found = eligible_positions(bare, strategy("alike"), window=WINDOW)
    assert found.tolist() == [2, 3, 4, 5, 6]
    some = document()
    some.entropy[4] = np.nan
    found = eligible_positions(some, strategy("alike"), window=WINDOW)
    assert found.tolist() == [2, 3, 5, 6]


def test_equal_weights_draw_what_random_draws() -> None:
    for seed in range(20):
        at_random = draws(SelectionConfig(strategy="random"), 3, seed, times=3)
        assert draws(strategy("alike"), 3, seed, times=3) == at_random


def test_they_are_drawn_in_proportion_without_replacement() -> None:
    """Two of five: the probability of each pair by hand, within four standard errors."""
    weights = {i: 2.0**i for i in (2, 3, 4, 5, 6)}
    total, times = sum(weights.values()), 20_000
    expected: Counter[tuple[int, ...]] = Counter()
    for a, b in permutations(weights, 2):
        share = weights[a] / total * weights[b] / (total - weights[a])
        expected[tuple(sorted((a, b)))] += share  # type: ignore[assignment]
    found = Counter(tuple(pair) for pair in draws(strategy("uneven"), 2, times=times))
    assert sum(expected.values()) == pytest.approx(1)
    for pair, share in expected.items():
        error = (share * (1 - share) / times) ** 0.5
        assert found[pair] / times == pytest.approx(share, abs=4 * error), pair


def test_weights_of_any_size_draw() -> None:
    assert draws(strategy("extreme"), 2, times=50) == [[2, 3]] * 50
    assert draws(strategy("extreme"), 5) == [[2, 3, 4, 5, 6]]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("short", r"returned \[1.0\], which is no list of 5 weights, for tokens 2 to 7"),
        ("nothing", "returned None, which is no list of 5 weights, "),
        ("words", r"returned \['much', .*, which is no list of 5 weights, "),
        ("negative", "returned the weight -1, which is no .*, for document d, position 3 "),
        ("nan", "returned the weight nan, which is no .*, for document d, position 2 "),
        ("infinite", "returned the weight inf, which is no .*, for document d, position 2 "),
        ("divides", r"raised ZeroDivisionError \(.*\) for tokens 2 to 7 of document d "),
        ("exits", r"raised SystemExit \(enough of it\) for tokens 2 to 7 of document d "),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_what_can_not_be_used_is_one_line(name: str, said: str) -> None:
    with pytest.raises(UserError, match=f"^'mine:{name}' {said}") as error:
        eligible(name)
    assert "(selection.strategy)" in str(error.value) and "\n" not in str(error.value)


def test_what_can_not_be_called_is_refused() -> None:
    readable = "it may read entropy, entropy_top16, nats, correct, pass_rates, index, tokens, prefi"
    with pytest.raises(
        UserError, match=f"^selection.strategy: 'mine:asks' asks for 'entropies', .*{readable}"
    ):
        eligible("asks")
    with pytest.raises(UserError, match="unknown strategy 'entropie'; nearest: 'entropy', or pack"):
        load_config(overrides={"selection.strategy": "entropie"})


def test_the_advice_is_the_strategys() -> None:
    said = {name: advice(SelectionConfig(strategy=name)) for name in ("entropy", "pass_rate")}
    assert "min_entropy (0.5 nats)" in said["entropy"] and "0.05 to 0.95" in said["pass_rate"]
    assert "min_context" in advice(SelectionConfig(strategy="random"))
    assert advice(strategy("none")) == "give more positions a weight above 0"
