"""What a model wrote becomes the program that it means: fences, indentation, prose around it."""

import textwrap
import warnings

import pytest

from openrpt.evaluation.end_tasks.programs import opening_of, program_of, split_blocks

DOC = {
    "prompt": 'import math\n\n\ndef half(x):\n    """x / 2"""\n',
    "entry_point": "half",
}
FUNCTION = "def half(x):\n    return x / 2"
BODY = "    return x / 2"
WRONG = "def half(x):\n    return -1"


def works(task: dict[str, str], text: str) -> bool:
    """These texts are ours, so they may run here."""
    names: dict = {"__name__": "__main__"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(program_of(task, text), "program.py", "exec", dont_inherit=True), names)
            return names[task["entry_point"]](3) == 1.5
    except Exception:
        return False


ANSWERS = {
    # ---- going on from the prompt
    "body": (BODY, True),
    "body with a fence behind": (f"{BODY}\n```", True),
    "body with a fence in its last line": (f"{BODY}```\nDone.", True),
    "body with prose behind": (f"{BODY}\n\nThis halves the number.", True),
    "body with a fence and an example": (
        f"{BODY}\n```\nUsage:\n```python\nprint(half(2))\n```",
        True,
    ),
    "body with a wrong alternative": (f"{BODY}\n```\nOr:\n```python\n{WRONG}\n```", True),
    "body with a nested function": ("    def f(y):\n        return y / 2\n    return f(x)\n", True),
    "body of two indentations": ("    if x:\n      return x / 2\n    return 0.0", True),
    "body with CRLF": ("    y = x\r\n    return y / 2\r\n", True),
    "body and helper": ("    return f(x)\n\ndef f(y):\n    return y / 2\n", True),
    "body without indentation": ("return x / 2", True),
    "first line without indentation": ("y = x\n    return y / 2", True),
    "wrong body": ("    return x", False),
    "nothing": ("", False),
    "prose": ("Sure, I can do that.", False),
    # ---- fences
    "python": (f"Sure:\n```python\n{FUNCTION}\n```\nThat is it.", True),
    "Python": (f"```Python\n{FUNCTION}\n```", True),
    "PYTHON": (f"```PYTHON\n{FUNCTION}\n```", True),
    "py": (f"```py\n{FUNCTION}\n```", True),
    "python3": (f"```python3\n{FUNCTION}\n```", True),
    "python with a title": (f'```python title="half.py"\n{FUNCTION}\n```', True),
    "braces": (f"```{{.python}}\n{FUNCTION}\n```", True),
    "space before the language": (f"``` python\n{FUNCTION}\n```", True),
    "space behind the language": (f"```python \t\n{FUNCTION}\n``` ", True),
    "no language": (f"```\n{FUNCTION}\n```", True),
    "another language": (f"```text\n{FUNCTION}\n```", True),
    "tildes": (f"~~~\n{FUNCTION}\n~~~", True),
    "tildes with a language": (f"~~~python\n{FUNCTION}\n~~~\nbye", True),
    "CRLF": (
        f"Sure:\r\n```python\r\n{FUNCTION}\r\n```\r\nbye\r\n".replace("\n    ", "\r\n    "),
        True,
    ),
    "four backticks": (f"````python\n{FUNCTION}\n````", True),
    "a longer fence closes": (f"```python\n{FUNCTION}\n````\nbye", True),
    "a block in a block": (f"````markdown\n```python\n{FUNCTION}\n```\n````", True),
    "unclosed": (f"```python\n{FUNCTION}", True),
    "unclosed and cut off": (f"```python\n{FUNCTION}\n\nfor x in (1,", True),
    "indented": ("1. So:\n   ```python\n" + textwrap.indent(FUNCTION, "   ") + "\n   ```", True),
    "indented by a tab": ("\t```python\n" + textwrap.indent(FUNCTION, "\t") + "\n\t```", True),
    "indented code only": ("```python\n" + textwrap.indent(FUNCTION, "    ") + "\n```", True),
    "behind a sentence": (f"Here it is: ```python\n{FUNCTION}\n```", True),
    "empty lines": (f"```python\n\n\n{FUNCTION}\n\n\n```", True),
    "tabs": ("```python\ndef half(x):\n\treturn x / 2\n```", True),
    "two spaces": ("```python\ndef half(x):\n  return x / 2\n```", True),
    "a fence in a docstring": (
        'Sure:\n```python\ndef half(x):\n    """x / 2\n\n    ```\n    half(2)\n    ```\n    """\n'
        "    return x / 2\n```\nbye",
        True,
    ),
    # ---- which block
    "the last of two": (f"```python\n{WRONG}\n```\nno:\n```python\n{FUNCTION}\n```", True),
    "the last of two is wrong": (
        f"```python\n{FUNCTION}\n```\nor:\n```python\n{WRONG}\n```",
        False,
    ),
    "usage behind": (f"```python\n{FUNCTION}\n```\nUse:\n```python\nprint(half(4))\n```", True),
    "shell behind": (f"```python\n{FUNCTION}\n```\n```bash\npython half.py\n```", True),
    "output before": (f"```\n>>> half(3)\n1.5\n```\n```python\n{FUNCTION}\n```", True),
    "a name that is no function": (f"```python\nhalf = 3\n```\nno:\n```py\n{FUNCTION}\n```", True),
    "helper in a block before": (
        "```python\ndef f(y):\n    return y / 2\n```\nso\n"
        "```python\ndef half(x):\n    return f(x)\n```",
        True,
    ),
    "a body alone": (f"```python\n{BODY}\n```", True),
    "a body alone, not indented": ("```python\ny = x\nreturn y / 2\n```", True),
    "a body alone, more indented": ("```python\n        return x / 2\n```", True),
    "a body alone, first line cut": ("```python\ny = x\n    return y / 2\n```", True),
    "a body alone, and usage": (
        "```python\nreturn x / 2\n```\n```python\nprint(half(1))\n```",
        True,
    ),
    "the prompt again": (f"```python\n{DOC['prompt']}{BODY}\n```", True),
    "imports before": (f"```python\nfrom math import ldexp\n\n{FUNCTION}\n```", True),
    "the prompt's import": ("```python\ndef half(x):\n    return math.ldexp(x, -1)\n```", True),
    "future import": (f"```python\nfrom __future__ import annotations\n{FUNCTION}\n```", True),
    "decorated": (f"```python\nimport functools\n@functools.cache\n{FUNCTION}\n```", True),
    "with types": ("```python\ndef half(x: float) -> float:\n    return x / 2\n```", True),
    "lambda": ("```python\nhalf = lambda x: x / 2\n```", True),
    "under an if": ("```python\nif True:\n    def half(x):\n        return x / 2\n```", True),
    "main behind it": (
        f"```python\n{FUNCTION}\n\nif __name__ == '__main__':\n    print(half(2))\n```",
        True,
    ),
    "in a class": ("```python\nclass S:\n    def half(self, x):\n        return x / 2\n```", False),
    "in a class, then alone": (
        f"```python\nclass S:\n    def half(self): ...\n\n{FUNCTION}\n```",
        True,
    ),
    "bad escape": ("```python\ndef half(x):\n    '\\d'\n    return x / 2\n```", True),
    "a stub behind it": (
        f"```python\n{FUNCTION}\n```\nIn short:\n```python\ndef half(x):\n    ...\n```",
        True,
    ),
    # ---- no block
    "function": (FUNCTION, True),
    "prose around a function": (f"Sure, here:\n{FUNCTION}\n\nIt halves.", True),
    "import and function": (f"Sure:\nfrom math import pi\n{FUNCTION}", True),
    "code in a sentence": (f"Use ```half``` so:\n{FUNCTION}", True),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(name):
    text, expected = ANSWERS[name]
    assert works(DOC, text) is expected


@pytest.mark.parametrize("indent", ["  ", "   ", "    ", "        ", "\t"])
@pytest.mark.parametrize("doc", ['{0}"""x / 2"""\n', "{0}# x / 2\n", ""])
@pytest.mark.parametrize("end", ["", "\n"])
def test_any_indentation(indent, doc, end):
    """Without a thought, behind one that was closed by force, and in a block of the model's own."""
    prompt = f"def half(x):\n{doc.format(indent)}"
    task = {"prompt": prompt, "entry_point": "half"}
    body = f"{indent}if x:\n{indent * 2}return x / 2\n{indent}return 0.0{end}"
    whole = f"def half(x):\n{body}"
    for text in (
        body,
        f"\n{opening_of(prompt)}{body}",
        f"\n{opening_of(prompt)}{body}\n```\nSo:\n```python\nprint(half(2))\n```",
        f"\n{opening_of(prompt)}{indent}pass\n```\nNo:\n```python\n{whole}\n```",
        f"\n{opening_of(prompt)}{textwrap.dedent(body)}",
        f"\n{opening_of(prompt)}{whole}",
        f"\n\n```\n{whole}\n```",
        f"```python\n{body}\n```",
        f"```python\n{textwrap.dedent(body)}\n```",
    ):
        assert works(task, text), text


@pytest.mark.parametrize(
    "prompt", ["def half(x):", 'def half(x):\n    """x / 2"""', "def half(x):\n    "]
)
def test_prompts_that_end_inside_a_line(prompt):
    task = {"prompt": prompt, "entry_point": "half"}
    rest = "return x / 2" if prompt.endswith(" ") else "\n    return x / 2"
    assert works(task, rest)
    assert works(task, f"```python\n{FUNCTION}\n```")


def test_a_prompt_with_a_fence_in_its_docstring():
    prompt = 'def half(x):\n    """x / 2\n\n    ```\n    half(2)\n    ```\n    """\n'
    task = {"prompt": prompt, "entry_point": "half"}
    for text in (BODY, f"\n{opening_of(prompt)}{BODY}\n```", f"```\n{prompt}{BODY}\n```"):
        assert works(task, text), text


def test_a_prompt_with_helpers_and_crlf():
    prompt = "def f(y):\r\n    return y / 2\r\n\r\n\r\ndef half(x):\r\n    '''x / 2'''\r\n"
    task = {"prompt": prompt, "entry_point": "half"}
    assert works(task, "    return f(x)\r\n")
    assert works(task, f"\n{opening_of(prompt)}    return f(x)\n```")
    assert works(task, "```python\ndef half(x):\n    return f(x)\n```")


@pytest.mark.parametrize("text", ["\0", "\ud800", "(" * 5000, "x = '" + "9" * 9999, "```" * 50])
def test_texts_that_are_no_programs(text):
    assert program_of(DOC, text).startswith(DOC["prompt"].rstrip())


def test_blocks():
    split = split_blocks("a\n```py\nb\n~~~\n```\nc\n~~~\nd\n```\n~~~\ne\n```\n")
    assert split.before == "a" and split.blocks == ("b\n~~~", "d\n```", "")
