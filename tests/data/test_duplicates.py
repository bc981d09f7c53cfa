"""Near-duplicates: which documents share words, in which scripts, and what is only a header."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from openrpt.config.corpus import CorpusConfig
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.documents import read_corpus
from openrpt.data.duplicates import GRAM_WORDS, _grams_of, folded_words, open_index
from openrpt.data.splits import split_shares
from openrpt.types import Document

RANDOM = random.Random(1)
HEADER = (
    "Licensed under the Example License you may not use this file except in compliance with it\n"
)
ENGLISH = (
    "the theorem states how differentiation and integration are related to each other and it is"
    " used in most of analysis "
)
SENTENCES = {
    "english": ENGLISH,
    "chinese": "微积分基本定理说明了微分与积分之间的关系，它是数学分析中最重要的定理之一，",
    "japanese": "微分積分学の基本定理は、微分と積分が互いに逆の操作であることを主張する。",
    "thai": "ทฤษฎีบทมูลฐานของแคลคูลัสกล่าวถึงความสัมพันธ์ระหว่างอนุพันธ์และปริพันธ์ซึ่งเป็นการดำเนินการหลัก",
    "khmer": "ទ្រឹស្តីបទគ្រឹះនៃគណិតវិទ្យាគណនាបង្ហាញពីទំនាក់ទំនងរវាងដេរីវេនិងអាំងតេក្រាលជាគោលការណ៍សំខាន់",
    "burmese": "ကဲကုလပ်၏အခြေခံသီအိုရမ်သည်ကွဲပြားခြင်းနှင့်ပေါင်းစည်းခြင်းတို့၏ဆက်စပ်မှုကိုဖော်ပြသည်သင်္ချာ",
    "korean": "미적분학의 기본 정리는 미분과 적분이 서로 어떤 관계에 있는지를 밝히는"
    " 정리로 해석학의 거의 모든 분야에서 쓰인다 ",
    "mixed": "用 Python 写一个 function 来计算积分，然后 plot 出来，并"
    " compare 误差和 runtime，最后 export 成表格 ",
}


def read(tmp_path: Path, texts: list[str]) -> tuple[list[Document], CorpusCounts]:
    path, counts = tmp_path / "c.jsonl", CorpusCounts()
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return list(read_corpus(CorpusConfig(path=str(path)), counts)), counts


def sides(documents: list[Document]) -> Counter[str]:
    return Counter(document.split for document in documents)


def free(words: int = 60) -> str:
    """Words in an order that no other document has."""
    return " ".join(f"w{number}" for number in RANDOM.choices(range(5000), k=words))


def edited(text: str, share: float) -> str:
    words = (f"e{RANDOM.random()}" if RANDOM.random() < share else w for w in text.split())
    return " ".join(words)


# Scripts


@pytest.mark.parametrize("language", SENTENCES)
def test_documents_that_share_long_sentences_stand_on_one_side(
    tmp_path: Path, language: str
) -> None:
    shared = SENTENCES[language] * 3
    documents, _ = read(tmp_path, [f"{i} {shared}{i * 7919}" for i in range(40)])
    assert len(documents) == 40
    assert len(sides(documents)) == 1


def gram_hashes(text: str) -> set[int]:
    return {gram.hash for gram in _grams_of(folded_words(text))}


def words(seed: str, n: int) -> str:
    return " ".join(f"{seed}{number}" for number in range(n))


def test_grams() -> None:
    assert len(gram_hashes(words("a", 20))) == 8
    assert len(gram_hashes(words("a", 5))) == len(gram_hashes(words("a", 13))) == 1
    assert gram_hashes("not five words here") == set()
    assert gram_hashes("A_b, c; D\nÉ f") == gram_hashes("a b c d é f")


@pytest.mark.parametrize(
    ("language", "characters"), [("chinese", 2), ("japanese", 2), ("thai", 4), ("khmer", 4)]
)
def test_characters_of_scripts_without_spaces_count_as_part_of_a_word(
    language: str, characters: int
) -> None:
    letters = folded_words(SENTENCES[language] * 2)
    assert {len(letter) for letter in letters} == {1}
    needed = GRAM_WORDS * characters
    assert len(gram_hashes("".join(letters[:needed]))) == 1
    assert len(gram_hashes("".join(letters[: needed + 3]))) == 4
    # Too little to say anything: as four words.
    assert gram_hashes("".join(letters[: 5 * characters - 1])) == set()


def test_words_that_differ_in_width_and_composition_are_the_same() -> None:
    assert folded_words("Ｃａｆｅ\u0301 ﬁn ㌔ｶﾞ") == folded_words("CAFÉ fin キロガ")
    assert folded_words("inte\u00adgral") == folded_words("integral")
    assert folded_words("数学 is fun, 微分2回") == ["数", "学", "is", "fun", "微", "分", "2", "回"]


# Headers and templates


@pytest.mark.parametrize(
    "made",
    [
        lambda: HEADER + free(),
        lambda: free() + "\n" + HEADER,
        lambda: f"{HEADER}{free()}\n{HEADER.upper()} {ENGLISH}",
        lambda: RANDOM.choice([HEADER, ENGLISH, f"{HEADER} {ENGLISH}", ""]) + free(),
        lambda: " ".join(f"licence{number}" for number in range(100)) + free(),
        lambda: (
            SENTENCES["chinese"] + "".join(chr(RANDOM.randrange(0x4E00, 0x8000)) for _ in "x" * 99)
        ),
        lambda: f"{HEADER} word{RANDOM.randrange(60)} {free()}",
        lambda: (
            SENTENCES["japanese"] + "".join(chr(RANDOM.randrange(0x3041, 0x3090)) for _ in "x" * 99)
        ),
    ],
    ids=[
        "header",
        "footer",
        "both",
        "some have one",
        "longer than the text",
        "chinese",
        "few words behind it",
        "few kana behind it",
    ],
)
def test_words_that_many_different_documents_share_do_not_join_them(tmp_path: Path, made) -> None:
    documents, counts = read(tmp_path, [made() for _ in range(300)])
    assert len(documents) >= 290  # some overlap with two sides before their words are common
    for split, share in split_shares(CorpusConfig()).items():
        assert abs(sides(documents)[split] / len(documents) - share) < 0.12
    # Those that came before the words were known as common.
    assert counts.near_duplicates_moved <= 30


def test_copies_of_one_text_stay_together_however_many_there_are(tmp_path: Path) -> None:
    base = free(400)
    others = [HEADER + free() for _ in range(200)]
    for share in (0.01, 0.03, 0.05):
        copies = [HEADER + edited(base, share) for _ in range(150)]
        texts = [text for pair in zip(copies, others, strict=False) for text in pair]
        documents, _ = read(tmp_path, texts)
        words = set(base.split()[:200])
        found = [d for d in documents if len(words & set(d.text.split())) > 100]
        assert len(found) >= 145  # few meet the header and the text on two sides
        assert len(sides(found)) == 1
        assert len(sides(documents)) == 3


def test_quotation_of_a_long_passage_draws_the_document_that_quotes_it(tmp_path: Path) -> None:
    headed = [HEADER + free() for _ in range(100)]
    passage = free(40)
    first = HEADER + free() + passage + free()
    quotes = [HEADER + free(300) + " " + passage + " " + free(300) for _ in range(9)]
    documents, _ = read(tmp_path, [*headed, first, *headed[:3], *quotes])
    found = [document for document in documents if passage in document.text]
    assert len(found) == 10
    assert len(sides(found)) == 1


def test_documents_of_one_key_make_nothing_common(tmp_path: Path) -> None:
    """A problem with many solutions is one problem, also for another key that quotes it."""
    problem = free(30)
    with open_index(tmp_path / "index") as index:
        for _ in range(50):
            assert index.place(f"{problem} {free()}", "problem", "heldout").side == "heldout"
        assert index.place(f"{free()} {problem} {free()}", "another", "train").side == "heldout"


def test_common_words_stay_common_when_they_get_rare(tmp_path: Path) -> None:
    with open_index(tmp_path / "index") as index:
        for number in range(20):
            index.place(HEADER + free(), f"h{number}", "train")
        for number in range(2000):
            index.place(free(20), f"f{number}", "train")
        placement = index.place(HEADER + free(), "last", "heldout")
    assert (placement.side, placement.shared) == ("heldout", "")


def test_the_words_that_decided_are_named(tmp_path: Path) -> None:
    _, counts = read(tmp_path, [free(8) + " " + ENGLISH + free(8) for _ in range(9)])
    assert counts.near_duplicates_moved > 0
    assert counts.shared_words == " ".join(ENGLISH.split()[:13])
    assert len(counts.first["near_duplicates_moved"]) == min(3, counts.near_duplicates_moved)
