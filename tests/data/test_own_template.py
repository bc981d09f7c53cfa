"""A user's own template: laid out as OpenRPT's are, and refused where it is no pair of texts."""

from pathlib import Path

import pytest

from openrpt.config.loading import load_config
from openrpt.config.prompt import PromptConfig
from openrpt.data.prompt_texts import (
    TEMPLATES,
    message_text,
    prompt_settings,
    prompt_text,
    template_of,
)
from openrpt.data.prompts import build_layout
from openrpt.errors import UserError
from tests.helpers.own_module import write_module
from tests.helpers.tiny import byte_level_tokenizer

MODULE = f"""
import sys

V0 = {TEMPLATES["v0"]!r}
ASKED = ["{{instruction}} A text: ", " Again: {{instruction}}"]

def made(): return V0
def of_default(kind="v0"): return V0
class Made:
    def __new__(cls): return V0

ONE = "a text"
THREE = ("a", "b", "c")
BYTES = (b"a", "b")
NONE = None
HALF = ("a \\ud800", "")
def takes(text): return V0
def raises(): return 1 / 0
def exits(): sys.exit(1)
def gives_none(): return None
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(tmp_path, monkeypatch, MODULE)


@pytest.mark.parametrize("chat_template", ["auto", "on", "off"])
@pytest.mark.parametrize("name", ["V0", "made", "of_default", "Made"])
def test_the_texts_of_v0_make_its_layout(name: str, chat_template: str) -> None:
    tokenizer = byte_level_tokenizer()
    own, named = (
        PromptConfig(template=template, chat_template=chat_template)  # type: ignore[arg-type]
        for template in (f"mine:{name}", "v0")
    )
    assert build_layout(tokenizer, own) == build_layout(tokenizer, named)
    assert prompt_text(own, "3 + 4 =") == prompt_text(named, "3 + 4 =")
    assert message_text(own, "3 + 4 =") == message_text(named, "3 + 4 =")


def test_the_instruction_stands_where_it_is_named() -> None:
    found = template_of(PromptConfig(template="mine:ASKED", instruction="Go on."))
    assert found == ("Go on. A text: ", " Again: Go on.")
    assert template_of(PromptConfig(template="mine:ASKED", instruction="")) == (
        " A text: ",
        " Again: ",
    )


def test_a_result_depends_on_the_words_and_not_on_their_path_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, own = PromptConfig(template="v0"), PromptConfig(template="mine:V0")
    assert prompt_settings(named) == named.model_dump(mode="json")
    before = prompt_settings(own)
    assert before == prompt_settings(own)
    write_module(tmp_path, monkeypatch, "V0 = ('Go on: ', '')\n")
    assert prompt_settings(own) != before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ONE", "is 'a text'; it must be two texts in UTF-8"),
        ("THREE", r"is \('a', 'b', 'c'\); it must be two texts"),
        ("BYTES", r"is \(b'a', 'b'\); it must be two texts"),
        ("NONE", "is None; it must be two texts"),
        ("HALF", r"is .*; it must be two texts in UTF-8"),
        ("gives_none", "is None; it must be two texts .* or a function without arguments"),
        ("absent", "module 'mine' has no value 'absent'"),
        ("takes", r"raised TypeError \(.*missing 1 required positional argument"),
        ("raises", r"raised ZeroDivisionError \(division by zero\)"),
        ("exits", r"raised SystemExit \(1\)"),
    ],
)
def test_anything_else_is_refused_in_one_line(name: str, said: str) -> None:
    with pytest.raises(UserError, match=f"'mine:{name}'.*{said}") as error:
        template_of(PromptConfig(template=f"mine:{name}"))
    assert "prompt.template" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("key", "value"), [("prompt.template", "v1"), ("evaluate.templates", "v")])
def test_a_misspelled_name_is_answered_with_the_known(key: str, value: str) -> None:
    given = [value] if key == "evaluate.templates" else value
    with pytest.raises(UserError, match=f"{key}.*unknown template '{value}'; .*package.module:TEM"):
        load_config(overrides={key: given})
