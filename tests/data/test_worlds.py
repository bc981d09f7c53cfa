"""The laboratory's worlds: answers against slow oracles, styles, depths, sides of the split."""

from collections import Counter
from itertools import islice, permutations

import numpy as np
import pytest

from openrpt.config.sections import CorpusConfig, PromptConfig
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.documents import read_corpus
from openrpt.data.readers import read_records
from openrpt.data.worlds.catalog import WORLDS
from openrpt.data.worlds.reading import open_world
from openrpt.data.worlds.world import WorldText
from openrpt.errors import UserError

MIXED = "worked=0.2&filler=0.2&faulty=0.2"


MATRICES = [np.eye(5)[list(order)] for order in permutations(range(5))]
EVEN = [matrix for matrix in MATRICES if np.linalg.det(matrix) > 0]


def _sums(cells: str) -> str:
    return str(sum(map(int, cells)) % 5)


def _scan(cells: str) -> str:
    """One expression in whole numbers, reduced at its end."""
    spelled = {"x": "+1", "+": "+2", "*": "*2", "^": "*3"}
    expression = cells[0]
    for cell in cells[1:]:
        expression = f"({expression}{spelled[cell]})"
    return str(eval(expression) % 5)


def _permutations(cells: str) -> str:
    """Products of permutation matrices; even ones have the determinant 1."""
    named = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    moves = {"+": np.eye(5)[[1, 2, 3, 4, 0]], "*": np.eye(5)[[1, 2, 0, 3, 4]]}
    state = EVEN[named.index(cells[0])]
    for cell in cells[1:]:
        state = moves[cell] @ state
    return next(named[i] for i, matrix in enumerate(EVEN) if (matrix == state).all())


def _registers(cells: str) -> str:
    """Affine maps of (p, q, 1) over the field of three elements."""
    moves = {
        "+": [[1, 0, 1], [0, 1, 0], [0, 0, 1]],
        "&": [[1, 1, 0], [0, 1, 0], [0, 0, 1]],
        "~": [[0, 1, 0], [1, 0, 0], [0, 0, 1]],
    }
    whole = np.eye(3, dtype=int)
    for cell in cells[1:]:
        whole = np.array(moves[cell]) @ whole % 3
    p, q, _ = whole @ [int(cells[0]) // 3, int(cells[0]) % 3, 1] % 3
    return str(3 * p + q)


def _nested(cells: str) -> str:
    return str(eval(cells) % 5)


def _find(cells: str) -> str:
    (letter,) = (cell for cell in cells if cell.isalpha())
    return str("abcde".index(letter))


ORACLES = {
    "sums": _sums,
    "scan": _scan,
    "permutations": _permutations,
    "registers": _registers,
    "nested": _nested,
    "find": _find,
}


def texts(world: str, query: str = MIXED, documents: int = 600) -> list[WorldText]:
    return list(open_world(f"lab:{world}?{query}&documents={documents}").texts())


def test_every_world_has_an_oracle() -> None:
    assert ORACLES.keys() == WORLDS.keys()


@pytest.mark.parametrize("name", WORLDS)
def test_answers_are_the_oracles(name: str) -> None:
    made = [text for text in texts(name) if text.style != "faulty"]
    for text in made:
        assert text.answer == ORACLES[name](text.problem.strip("_=")), text
    commonest = Counter(text.answer for text in made if text.depth > 2).most_common(1)[0][1]
    assert commonest / len(made) < 0.35  # no answer is right by itself


@pytest.mark.parametrize("name", ["sums", "scan", "permutations", "registers"])
def test_a_worked_thought_is_the_state_cell_by_cell(name: str) -> None:
    for text in [text for text in texts(name) if text.style == "worked"][:40]:
        cells = text.problem.removesuffix("=")
        thought = text.text.partition("<think>")[2].partition("</think>")[0]
        blanks = len(cells) - len(cells.lstrip("_"))
        steps = range(blanks + 1, len(cells) + 1)
        assert thought == "_" * blanks + "".join(ORACLES[name](cells[blanks:n]) for n in steps)


def test_a_nested_thought_has_every_bracket_s_value() -> None:
    for text in [text for text in texts("nested") if text.style == "worked"][:40]:
        cells = text.problem.removesuffix("=")
        thought = text.text.partition("<think>")[2].partition("</think>")[0]
        for end, cell in enumerate(cells):
            if cell == ")":
                opened = cells[: end + 1].strip("_")
                whole = opened[opened.count("(") - opened.count(")") :]
                assert thought[end] == _nested(whole)


@pytest.mark.parametrize("name", WORLDS)
def test_styles_have_the_prompts_form_and_are_shown_at_small_depths_only(name: str) -> None:
    world = open_world(f"lab:{name}")
    form = PromptConfig()
    made = texts(name)
    for text in made:
        assert len(text.problem) == world.answer_index
        assert text.text[text.answer_offset] == text.answer  # all characters are ASCII
        before = f"{text.problem}{form.thought_start}"
        if text.style == "plain":
            assert text.text == text.problem + text.answer
            continue
        assert text.depth <= world.shown
        assert text.text.startswith(before)
        thought, _, rest = text.text.removeprefix(before).partition(form.thought_end)
        assert len(thought) == world.width
        assert thought[0] == "_"
        assert rest == f"{form.answer_start}{text.answer}{form.answer_end}"
        assert (thought == "_" * world.width) == (text.style == "filler")
        if text.style != "filler":
            assert thought[-1] == text.answer
    shares = Counter(text.style for text in made)
    assert all(80 < shares[style] < 160 for style in ("worked", "filler", "faulty"))
    plain = {text.depth for text in made if text.style == "plain"}
    assert plain == set(range(1, world.depth + 1))


@pytest.mark.parametrize("name", WORLDS)
def test_slips_go_on_and_come_as_often_as_asked(name: str) -> None:
    sure = texts(name, "worked=0&filler=0&faulty=1&slip=1", 200)
    never = texts(name, "worked=0&filler=0&faulty=1&slip=0", 200)
    right = [text.answer == ORACLES[name](text.problem.strip("_=")) for text in sure]
    assert 0 < np.mean(right) < 0.5 or name == "find"
    assert all(text.answer == ORACLES[name](text.problem.strip("_=")) for text in never)


def test_a_document_is_a_function_of_its_number() -> None:
    few, many = texts("scan", documents=5), texts("scan", documents=50)
    assert few == many[:5]
    assert texts("scan", "seed=1", 5) != few


def test_the_worlds_need_their_order_but_the_negative_control_does_not() -> None:
    """A single linear look at the cells, wherever they stand: certain in `find`, chance elsewhere.

    It is least squares on how often each character occurs, tested on other problems.
    """

    def accuracy(name: str) -> float:
        made = texts(name, "worked=0&filler=0&faulty=0", 4000)
        made = [text for text in made if text.depth > 3]
        letters = sorted({cell for text in made for cell in text.problem})
        counts = np.array([[text.problem.count(one) for one in letters] for text in made])
        answers = np.array([ord(text.answer) for text in made])
        wanted = (answers[:, None] == np.unique(answers)).astype(float)
        half = len(made) // 2
        weights = np.linalg.lstsq(counts[:half], wanted[:half], rcond=None)[0]
        said = np.unique(answers)[(counts[half:] @ weights).argmax(1)]
        return float(np.mean(said == answers[half:]))

    assert accuracy("find") == 1.0
    chance = {"sums": 0.2, "scan": 0.2, "permutations": 1 / 60, "registers": 1 / 9, "nested": 0.2}
    for name, share in chance.items():
        assert accuracy(name) < share + 0.15, name


def test_as_a_corpus_each_problem_is_on_one_side() -> None:
    path = "lab:scan?documents=3000&depth=4&shown=4"
    counts = CorpusCounts()
    documents = list(read_corpus(CorpusConfig(path=path), counts))
    sides: dict[str, set[str]] = {}
    for document in documents:
        sides.setdefault(document.key, set()).add(document.split)
        assert document.text.startswith(document.key)
        assert document.kind in {"1", "2", "3", "4"}
    assert all(len(side) == 1 for side in sides.values())
    assert counts.heldout > 100
    assert counts.exact_duplicates > 100  # of depth 1 there are 20 problems
    assert counts.near_duplicates_moved == counts.near_duplicates_dropped == 0
    # A corpus of other shares and another seed holds the same problems out.
    others = read_corpus(CorpusConfig(path=f"{path}&seed=3&worked=0&filler=0"), CorpusCounts())
    shared = [other for other in others if other.key in sides]
    assert len(shared) > 100
    assert all(sides[other.key] == {other.split} for other in shared)


def test_fields_of_a_record() -> None:
    (record,) = islice(read_records(CorpusConfig(path="lab:find?documents=1"), None), 1)
    assert record.source == "lab:find:1"
    assert record.fields["world"] == "find"
    (offset,) = record.fields["answer_offsets"]
    assert record.fields["text"][offset] == record.fields["answer"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("lab:scn", "no world is called 'scn'; nearest: 'scan'"),
        ("lab:", "no world is called ''; there are: sums, "),
        ("lab:scan?dept=3", "unknown parameter 'dept'; nearest: 'depth'"),
        ("lab:scan?depth", "'depth' is no parameter; write KEY=VALUE"),
        ("lab:scan?depth=3&depth=4", "parameter 'depth' stands twice"),
        ("lab:scan?depth=deep", "depth = deep: input should be a valid integer"),
        ("lab:scan?depth=0", "depth = 0: input should be greater than or equal to 1"),
        ("lab:scan?modulus=6", "modulus must be 5 or 7"),
        ("lab:find?modulus=5", "unknown parameter 'modulus'"),
        ("lab:scan?depth=3", "shown = 8 must be at most depth = 3"),
        ("lab:scan?worked=0.9", "must not be above 1"),
    ],
)
def test_what_is_wrong_is_one_line(path: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        next(read_corpus(CorpusConfig(path=path), CorpusCounts()))
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
