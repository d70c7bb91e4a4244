"""One self-contained page: headings, sentences, charts with the SQL behind them, and nothing from outside."""

from __future__ import annotations

import functools
import hashlib
import json
from importlib.resources import files
from string import Template
from typing import Any

import vl_convert

from dynamics.report.text import escaped


class Page:
    """Blocks of HTML in order, kept within a size."""

    def __init__(self, limit: int) -> None:
        self.blocks: list[str] = []
        self.left = limit
        self.charts = 0

    def add(self, html: str) -> None:
        """HTML, of text that was escaped already."""
        self.blocks.append(html)
        self.left -= len(html.encode())

    def chart(self, chart: Any, name: str, room: int) -> int:
        """The chart, or where it needs more than ``room`` bytes the sentence how to draw it; returns the bytes used."""
        before = self.left
        spec = chart.to_dict(validate=False)  # the schema was checked while the chart was built; again takes seconds
        sql = spec.pop("usermeta", {}).get("sql", "")
        spec.get("config", {})["padding"] = 4
        data = json.dumps(spec, separators=(",", ":"), ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
        if len(data) > min(room, self.left):
            self.add(f'<p class="none">Left out to keep the page small; draw it with <code>{escaped(name)}</code>.</p>')
            return before - self.left
        self.charts += 1
        key = f"spec-{self.charts}"
        words = escaped(_title(spec))
        self.add(
            f'<figure><div class="chart" data-chart="{key}" role="img" aria-label="{words}"></div>'
            f'<script type="application/json" id="{key}">{data}</script>{_sql(sql)}</figure>'
        )
        return before - self.left

    def query(self, sql: str) -> None:
        """SQL to unfold."""
        self.add(_sql(sql))

    def html(self, title: str) -> str:
        """The whole document."""
        body = "\n".join(self.blocks)
        # Only scripts that carry this word run: text that broke out of its place would still do nothing.
        nonce = hashlib.sha256(body.encode()).hexdigest()[:24]
        here = files("dynamics.report")
        template = Template((here / "page.html").read_text(encoding="utf-8"))
        css = (here / "page.css").read_text(encoding="utf-8")
        return template.substitute(title=escaped(title), css=css, body=body, bundle=_bundle(), nonce=nonce)


def _title(spec: dict[str, Any]) -> str:
    text = spec.get("title", {}).get("text", "")
    return text if isinstance(text, str) else " ".join(text)


def _sql(sql: str) -> str:
    if not sql:
        return ""
    # Line breaks are layout here; any other control character comes from a name and is made visible.
    lines = "\n".join(escaped(line) for line in sql.split("\n"))
    return f"<details><summary>SQL</summary><pre>{lines}</pre></details>"


@functools.cache
def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed in one script that puts ``vegaEmbed`` on the window."""
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
