"""Configurations of any content: read, or one line that says what is wrong."""

import tomllib
from pathlib import Path

import pytest

from openrpt.config.loading import load_config, to_toml
from openrpt.config.toml_files import parse_toml, read_toml, toml_text
from openrpt.errors import UserError


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("seed = 3\n", encoding="utf-8-sig")
    assert load_config(tmp_path / "c.toml").seed == 3


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (f"a{'.a' * 50_000} = 1", "c.toml:1: more than 100 dots in a line"),
        (f"[model]\n[a{'.a' * 50_000}]", "c.toml:2: more than 100 dots in a line"),
        ('a = {x = """\n""""", b' + ".a" * 50_000 + " = 1}", "c.toml:2: more than 100 dots"),
        ("a = {x = '''\n\\\\''''', b" + ".a" * 50_000 + " = 1}", "c.toml:2: more than 100 dots"),
        ("a = '\"'" + ".a" * 50_000, "c.toml:1: more than 100 dots"),
        ('"\\\\' * 300_000, "Expected '=' after a key"),
        ('a = """' + '\\\\"' * 300_000, "Unterminated string"),
        (f"a = {'[' * 100_000}", "nested too deep"),
        (f"a = {'{b=' * 50_000}", "nested too deep"),
        (f"a = {'1' * 5000}", "c.toml: not valid TOML: Exceeds the limit"),
        (f"seed = 0x{'f' * 5000}", "seed = a number of thousands of digits: input should be"),
        (
            "a = 'x'" * 200_000,
            "c.toml: too large for a configuration, 1,400,000 of 1,048,576 bytes",
        ),
        ("seed = 1\nseed = 2\n", "Cannot overwrite a value (at line 2, column 9)"),
        (f"{'a' * 100_000} = 1", "unknown key 'aaa"),
        ("model = 3", "model = 3: a section, whose keys stand below [model]"),
        ("[trian]\nsteps = 3", "unknown key 'trian'; nearest: 'train'"),
        ("[prompt]\nexamples = [3]", "prompt.examples = 3: input should be"),
        ("[[run]]", "run = [{}]: input should be a valid string"),
        (f'[prompt]\nthought_start = "{"x" * 200_000}"', "at most 20000 characters"),
    ],
)
def test_what_is_no_configuration_is_one_line(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "c.toml").write_text(text, encoding="utf-8", newline="")
    with pytest.raises(UserError) as error:
        load_config(tmp_path / "c.toml")
    assert part in str(error.value) and "\n" not in str(error.value)


def test_dots_in_texts_and_comments_are_free(tmp_path: Path) -> None:
    dots = "." * 500
    config = load_config(overrides={"prompt.instruction": f"a '{dots}\\ \"{dots}"})
    assert tomllib.loads(to_toml(config)) == parse_toml(to_toml(config), source="c.toml")
    text = f'a = \'\'\'\n{dots}\n\'\'\'\nb = """x\n\\\\"{dots}""" # {dots}\nc.d = "{dots}" # \'\n'
    assert parse_toml(text, source="c.toml") == tomllib.loads(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"seed = 1 # \xff")
    with pytest.raises(UserError, match=r"c.toml: not valid TOML: not UTF-8 at byte 11"):
        read_toml(tmp_path / "c.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(UserError, match="no such configuration file"):
        read_toml(tmp_path / "folder.toml")
    with pytest.raises(UserError, match="not readable"):
        read_toml(tmp_path / ("x" * 300))


def test_hidden_characters_are_escaped_and_read_back() -> None:
    config = load_config(overrides={"prompt.thought_start": "a\x1b\u202e\n\x7f\x9bé😀\U000e0001"})
    text = to_toml(config)
    assert text.replace("\n", "").isprintable() and "é😀" in text
    assert tomllib.loads(text)["prompt"]["thought_start"] == config.prompt.thought_start
    assert tomllib.loads(toml_text({"\u202e": 1})) == {"\u202e": 1}
