"""The styles and scripts that a page of the report brings with it, so that it needs no network."""

import base64
import hashlib
import html
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.resources import files

from openrpt.data.assets import cache_dir, write_atomically
from openrpt.errors import UserError

HEAD_SCRIPT = "theme.js"
_SCRIPTS = (
    "blocks.js",
    "text.js",
    "state.js",
    "model.js",
    "colors.js",
    "running.js",
    "rollouts.js",
    "panel.js",
    "inspector.js",
    "samples.js",
    "charts.js",
    "page.js",
)
"""The page's own scripts, in the order in which they stand there; they share one scope."""


def asset(name: str) -> str:
    """Returns the text of one of the report's own files."""
    return files("openrpt.report").joinpath(name).read_text(encoding="utf-8")


@cache
def scripts() -> str:
    """Returns all of ours as one script that others can read."""
    parts = [f"// ---- {name} ----\n{asset(name)}" for name in _SCRIPTS]
    return '"use strict";\n' + "\n".join(parts)


@cache
def vega() -> str:
    """Returns Vega, Vega-Lite and Vega-Embed as one script (BSD-3-Clause), which says when it is
    there.

    Putting them together takes two seconds, so the outcome is kept in the cache folder.
    """
    kept = cache_dir() / f"vega-{version('vl-convert-python')}.js"
    if kept.is_file():
        bundle = kept.read_text(encoding="utf-8")
    else:
        import vl_convert

        bundle = vl_convert.javascript_bundle()  # type: ignore[call-arg]
        with suppress(UserError):  # a report needs no cache
            write_atomically(kept, [bundle.encode()])
    bundle += '\nwindow.dispatchEvent(new Event("chart-library"));\n'
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def content_policy(*own: str) -> str:
    """Returns the browser's own guard: no network, and no script but these."""
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in own]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return html.escape(
        f"default-src 'none'; script-src {allowed} 'unsafe-eval';"  # Vega compiles expressions
        " style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'",
        quote=False,
    )
