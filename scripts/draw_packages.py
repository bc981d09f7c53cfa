"""Draws which package imports which into docs/architecture.md: python scripts/draw_packages.py

An arrow that follows from others is left out: what is drawn is the least that implies all imports.
"""

from pathlib import Path

import grimp
from marked import replaced

TARGET = Path(__file__).parent.parent / "docs" / "architecture.md"
PACKAGES = (
    "config",
    "data",
    "engine",
    "costs",
    "rl",
    "runs",
    "evaluation",
    "stages",
    "report",
    "experiments",
    "cli",
    "integrations",
)


def imports() -> dict[str, set[str]]:
    """Package → packages that any of its modules imports."""
    graph = grimp.build_graph("openrpt", cache_dir=None)
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        own = f"openrpt.{package}"
        modules = {own, *graph.find_descendants(own)}
        named = {
            imported.split(".")[1]
            for module in modules
            for imported in graph.find_modules_directly_imported_by(module)
            if imported.count(".")
        }
        found[package] = (named & set(PACKAGES)) - {package}
    return found


def reduced(edges: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The edges that no longer way implies."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(edges[start])
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += edges[node]
        return seen

    return [
        (package, below)
        for package in PACKAGES
        for below in sorted(edges[package], key=PACKAGES.index)
        if not any(below in reachable(other) for other in edges[package] - {below})
    ]


def render() -> str:
    arrows = "\n".join(f"  {package} --> {below}" for package, below in reduced(imports()))
    return f"\n```mermaid\ngraph TD\n{arrows}\n```\n"


def updated(text: str) -> str:
    return replaced(text, "packages", render())


if __name__ == "__main__":
    TARGET.write_text(updated(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
