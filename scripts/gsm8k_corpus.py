"""Makes the corpus of `recipe:gsm8k`: worked word problems without calculator marks, split by hand.

Usage: python scripts/gsm8k_corpus.py TRAIN TEST OUT

TRAIN and TEST are GSM8K's two files (https://github.com/openai/grade-school-math, JSON lines with
`question` and `answer`). The marks (`<<48/2=24>>`) are taken out, so that a text looks as people
write it and a thought learns no foreign spelling. Training problems are for training, the next ones
for development; held-out problems come from GSM8K's own test.
"""

import json
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from openrpt.files import write_text

MARK = re.compile(r"<<[^>]*>>")
TRAIN, DEVELOPMENT = slice(0, 1400), slice(1400, 1500)
HELDOUT = slice(300, 700)
"""The first 300 were looked at when the form of a thought was chosen."""


def rows(path: Path, chosen: slice, split: str) -> Iterator[dict[str, str]]:
    """Yields a file's chosen problems with their side of the split."""
    with path.open(encoding="utf-8") as lines:
        for number, line in islice(enumerate(lines), chosen.start, chosen.stop):
            problem = json.loads(line)
            answer = MARK.sub("", problem["answer"])
            yield {
                "id": f"{path.stem}-{number}",
                "question": problem["question"],
                "answer": answer,
                "split": split,
            }


def main(train: str, test: str, out: str) -> None:
    made = [
        *rows(Path(train), TRAIN, "train"),
        *rows(Path(train), DEVELOPMENT, "development"),
        *rows(Path(test), HELDOUT, "heldout"),
    ]
    write_text(Path(out), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made))
    print(f"{len(made)} problems: {out}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
