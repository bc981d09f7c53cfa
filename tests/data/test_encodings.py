"""Encodings: UTF-16, UTF-32 and binary files are refused by name, and no text in UTF-8 is."""

import base64
import random
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from openrpt.config.corpus import CorpusConfig
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.documents import read_corpus
from openrpt.data.encodings import foreign_encoding
from openrpt.errors import UserError

TEXTS = {
    "english": "the quick brown fox jumps over the lazy dog and so on\n",
    "accents": "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich, naïve façade",
    "russian": "Математика — наука об отношениях между объектами, о которых ничего не известно",
    "greek": "Τα μαθηματικά είναι η επιστήμη που μελετά θέματα",
    "hebrew": "מתמטיקה היא תחום דעת העוסק במושגים",
    "arabic": "الرياضيات هي علم يدرس مواضيع مثل الكمية والبنية والفضاء",
    "hindi": "गणित ऐसी विद्याओं का समूह है जो संख्याओं, मात्राओं, परिमाणों",
    "thai": "คณิตศาสตร์เป็นศาสตร์ที่ศึกษาเกี่ยวกับปริมาณโครงสร้างพื้นที่และการเปลี่ยนแปลง",
    "khmer": "គណិតវិទ្យាជាការសិក្សាអំពីបរិមាណ",
    "burmese": "နိုင်ငံ" * 30,
    "chinese": "数学，是研究数量、结构以及空间等概念的一门学科。人们都会数学的上下左右一二三",
    "chinese, no signs": "微积分基本定理说明了微分与积分之间的关系它是数学分析中最重要的定理之一",
    "chinese, as ASCII": "数学" * 800,
    "traditional": "數學是研究數量結構以及空間等概念的一門學科數學家研究抽象的概念並且使用邏輯",
    "japanese": "数学は、数量、構造、空間、変化について研究する学問である。かなとカナがまざる。",
    "kana, as ASCII": "かな" * 800,
    "korean": "수학은 수, 양, 구조, 공간, 변화 등의 개념을 다루는 학문이다. 널리 받아들여지는",
    "emoji": "hi 🙂 there 🙂🙂 ok",
}
ENCODINGS = ["UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"]


def error_of(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        list(read_corpus(CorpusConfig(path=str(path)), CorpusCounts()))
    return str(caught.value)


@pytest.mark.parametrize("language", TEXTS)
def test_foreign_encodings_are_known_without_a_mark(language: str) -> None:
    text = TEXTS[language]
    assert [foreign_encoding(text.encode(encoding)) for encoding in ENCODINGS] == ENCODINGS
    marked = [foreign_encoding(("\ufeff" + text).encode(encoding)) for encoding in ENCODINGS]
    assert marked == ENCODINGS
    assert foreign_encoding(text.encode()) is None
    assert foreign_encoding(text.encode("utf-8-sig")) is None


@pytest.mark.parametrize("encoding", ["cp1252", "cp1251", "gb2312", "shift_jis", "euc_kr", "big5"])
def test_other_encodings_are_invalid_utf8_as_before(encoding: str) -> None:
    for language, text in TEXTS.items():
        if "ASCII" not in language:  # two characters over and over can be anything
            assert foreign_encoding(text.encode(encoding, "ignore") * 9) is None


def test_ascii_without_spaces_is_text() -> None:
    sources = random.Random(0)
    patterns = ["1", "ab", "word", "[", "[[]]", "-", "=-", "{}();", "x^2+y^2=z^2;", r"\frac{a}{b}"]
    for pattern in [*patterns, "http://foo.bar/baz?x=y&z", "0123456789", "ACGT", "acgt"]:
        assert foreign_encoding((pattern * 99).encode()) is None
    for _ in range(2000):
        made = sources.randbytes(sources.randrange(20, 60))
        assert foreign_encoding(base64.b64encode(made)) is None
        assert foreign_encoding(base64.b85encode(made)) is None
        assert foreign_encoding(made.hex().encode()) is None
        assert foreign_encoding(bytes(sources.choices(range(33, 127), k=64))) is None


def test_source_files_are_text() -> None:
    root = Path(__file__).parents[2]
    for file in [*root.glob("openrpt/**/*.*"), *root.glob("tests/*.py"), *root.glob("docs/*.md")]:
        if file.suffix in (".py", ".md", ".html", ".js", ".jsonl", ".css"):
            assert foreign_encoding(file.read_bytes()) is None, file


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_the_advice_works(tmp_path: Path, encoding: str, suffix: str) -> None:
    if not shutil.which("iconv"):
        pytest.skip("no iconv here")
    text = f'{{"text": "{TEXTS["chinese"]}"}}\n'
    path = tmp_path / f"a file{suffix}"
    path.write_bytes(text.encode(encoding))
    message = error_of(path)
    assert f"{path}: a binary file, or not in UTF-8: it looks like {encoding}; " in message
    command = shlex.split(message.partition("convert it: ")[2])
    assert command[-2:] == [">", f"NEW{suffix}"]
    assert subprocess.run(command[:-2], capture_output=True, check=True).stdout == text.encode()


def test_what_is_no_text_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_bytes(b"plain text\n" * 200_000 + b"and a \0 far behind")
    assert "not in UTF-8 (byte 2,200,006 is NUL)" in error_of(path)
    path.write_bytes(b"plain text\n" * 6000 + b"\1\2\3\4" * 9000)
    assert "(36,000 of 102,000 bytes are control characters)" in error_of(path)
    path.write_bytes(b"\1\2\3\4" * 90)
    assert "a binary file" in error_of(path)
    path.write_bytes(b"\x1b[1mbold\x1b[0m\tn\bno\x0c\r\n" * 99)  # what terminals are sent
    assert list(read_corpus(CorpusConfig(path=str(path)), CorpusCounts()))
