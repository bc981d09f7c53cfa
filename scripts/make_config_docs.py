"""Writes docs/configuration.md from openrpt/config: python scripts/make_config_docs.py"""

import json
from pathlib import Path

from openrpt.config.as_typed import ESCAPED
from openrpt.config.binding import bindings
from openrpt.config.keys import Key, described_keys, sections

TARGET = Path(__file__).parent.parent / "docs" / "configuration.md"
HEAD = """\
# Configuration

<!-- Made from openrpt/config by scripts/make_config_docs.py: edit there, not here. -->

A configuration is a TOML file with a section for each concern. Every key has a default, so a file
names only what it changes, and every key is an option of the commands that read it:

```
openrpt train recipe:demo --train.learning_rate 5e-5
openrpt train recipe:demo --print-config
```

Booleans are switched by `--memory.gradient_checkpointing` and `--no-memory.gradient_checkpointing`,
lists are separated by commas (`--evaluate.modes ntp,reasoning`), and so are tables of numbers
(`--reward.terms prefix=1,dense=0.2`; a table given takes the place of the whole table before it).
In a few texts the command line reads `\\n`, `\\t` and `\\\\` as line break, tab and backslash, as
TOML does:
{escaped}.

Precedence: the command line, then the file, then the configuration that stands in the run folder,
then the defaults. So a file for a later stage need only name that stage's keys. An unknown key or a
value out of range is an error.

## What a key binds

A run folder belongs to one configuration, key by key: once a stage's results stand there, the keys
that they depend on may not change. The column *binds* has the stages that read a key. What binds
`score` also binds all that is made from the scores, and what binds `warmup` the training that
begins from it. So after `score` alone the keys of the warmup and of the training may still be
changed, on the command line or in the file, and after `warmup` those of the training: the folder's
`config.toml` then has the new value. Anything else is refused: the key is named, and the command
that begins another run with it from what holds (`--from RUN`).

- `evaluation`: once an evaluation is recorded in the folder the key may not change there, since its
  label names what differs from the run's own value; `label`: only that.
- ↻: a resumed run may change it all the same, since it helps where a step failed or a warning
  shows. From which step on another value holds stands in `metrics.jsonl`, and `openrpt status` says
  it.
- Empty: how long, where and in which portions a stage runs, and what it shows.
"""


def render() -> str:
    keys = list(described_keys())
    escaped = ", ".join(f"`{key.name}`" for key in keys if key.name in ESCAPED)
    lines = [HEAD.replace("{escaped}", escaped), "## Top level", "", *table(keys, "")]
    for name, section in sections().items():
        lines += ["", f"## `[{name}]`", "", str(section.__doc__), "", *table(keys, name)]
    return "\n".join(lines) + "\n"


def table(keys: list[Key], section: str) -> list[str]:
    rows = [row(key) for key in keys if key.section == section]
    return ["| key | default | values | what it is | binds |", "|---|---|---|---|---|", *rows]


def row(key: Key) -> str:
    name = key.name.rpartition(".")[2]
    default = json.dumps(key.default, ensure_ascii=False)
    if key.is_table:
        default = "{ " + ", ".join(f"{n} = {w}" for n, w in key.default.items()) + " }"
    cells = [f"`{name}`", f"`{default}`", values(key), key.description, binding(key)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def binding(key: Key) -> str:
    """What it binds, in words."""
    said = bindings()[key.name]
    stage, name, value = said.under or ("", "", "")
    where = {stage: f"{stage} (where {name} = {value or json.dumps(value)})"}
    return ", ".join(where.get(one, one) for one in said.what) + (" ↻" if said.recorded else "")


def values(key: Key) -> str:
    """Type and range, in words."""
    words = ", ".join(f"`{choice}`" for choice in key.choices)
    if key.part is not None:
        words += f", or `{key.part.path}`"
    if key.is_list:
        return f"list of {words or 'text'}"
    if key.is_table:
        return "table of numbers"
    if key.is_file:
        return "a file's name"
    kinds = {bool: "true, false", int: "integer", float: "number", str: "text"}
    if key.number is not None:
        return f"{kinds[key.number]} {key.limits}, or {words}"
    kind = words or kinds[key.annotation]
    return f"{kind} {key.limits}".strip()


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(render(), encoding="utf-8")
