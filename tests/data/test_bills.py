"""Bills, made at run time: every sum is right, found by the calculator, and the same every time."""

import re

import pytest

from openrpt.config.corpus import CorpusConfig
from openrpt.data.bills import read_bills
from openrpt.data.calculator.find import find_computed
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.documents import read_corpus
from openrpt.errors import UserError
from openrpt.types import Document

_SUM = re.compile(r"(\d(?: \+ \d)+) = (\d+) dollars")


def read(parameters: str = "") -> list[Document]:
    return list(read_corpus(CorpusConfig(path=f"bills{parameters}"), CorpusCounts()))


def test_each_bill_is_added_up_and_found_by_the_calculator() -> None:
    documents = read("?documents=200&bills=4&least=2&most=5")
    assert len(documents) == 200
    assert {document.split for document in documents} == {"train", "development", "heldout"}
    sizes = set()
    for document in documents:
        sums = _SUM.findall(document.text)
        assert len(sums) == 4
        for terms, total in sums:
            prices = [int(term) for term in terms.split(" + ")]
            assert sum(prices) == int(total)
            assert all(2 <= price <= 9 for price in prices)
            sizes.add(len(prices))
        assert [found.text for found in find_computed(document.text)] == [n for _, n in sums]
    assert sizes == {2, 3, 4, 5}


def test_a_document_depends_on_seed_and_number_alone() -> None:
    few, more = list(read_bills("bills?documents=5")), list(read_bills("bills?documents=9"))
    assert more[:5] == few
    other = list(read_bills("bills?documents=5&seed=1"))
    assert not {fields["text"] for _, fields in few} & {fields["text"] for _, fields in other}
    assert few[0] == ("bills:1", {"text": FIRST})


FIRST = (
    "On Monday Oscar bought jam for 4 dollars, oranges for 4 dollars, eggs for 7 dollars and "
    "stamps for 9 dollars at the fair. That was 4 + 4 + 7 + 9 = 24 dollars. Oscar went "
    "shopping on Wednesday: soap for 6 dollars, tea for 7 dollars and olives for 7 dollars. "
    "The bill came to 6 + 7 + 7 = 20 dollars. For potatoes for 7 dollars, plums for 7 "
    "dollars, stamps for 4 dollars, pears for 9 dollars and sugar for 4 dollars Oscar paid 7 "
    "+ 7 + 4 + 9 + 4 = 31 dollars at the market on Thursday."
)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("?documents=0", "documents = 0"),
        ("?most=2", "least = 3 is more than most = 2"),
        ("?item=3", "unknown parameter 'item'"),
        ("?bills=7", "bills = 7"),
    ],
)
def test_a_parameter_that_is_none_is_named(parameters: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read(parameters)
