"""A notebook as a page of the site: its cells in markdown, with the results that it holds."""

import json
from collections.abc import Iterator, Mapping
from typing import Any


def notebook_page(text: str) -> str:
    """Returns a notebook's markdown, code and results, one after another."""
    return "\n\n".join(part for cell in json.loads(text)["cells"] for part in _parts(cell)) + "\n"


def _parts(cell: Mapping[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            image = "".join(data["image/png"]).replace("\n", "")
            yield f"![Chart](data:image/png;base64,{image})"
        elif "text/markdown" in data:
            yield "".join(data["text/markdown"])
        elif said := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
            yield f"```text\n{said}\n```"
