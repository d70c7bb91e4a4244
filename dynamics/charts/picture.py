"""What every chart is made of: panels that keep our look and their selections wherever ``|`` and ``&`` put them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

import altair as alt
from altair.utils import update_nested

from dynamics.charts.theme import LOOK, SOFT, WIDTH, harmless, values

_APART = 30
"""Pixels between charts that were put together."""
_OWN = ("color", "size", "opacity", "shape", "strokeWidth")
"""Channels that mean something else in each chart; Vega-Lite would merge their scales."""


class _Picture:
    """A chart that brings our look where it is shown, and leaves look and SQL to the whole where it is a part.

    Altair puts no chart together with one that has a look of its own.
    """

    def to_dict(
        self, validate: bool = True, *, format: str = "vega-lite", ignore: Any = None, context: Any = None
    ) -> dict[str, Any]:
        """The Vega-Lite; for ``format="vega"`` the Vega that it is compiled to."""
        asked = {**(context or {}), "pre_transform": False}
        made: dict[str, Any] = super().to_dict(validate, ignore=ignore, context=asked)  # type: ignore[misc]
        # The rows are harmless already; here are titles, domains, expressions, the SQL, and what is still to come.
        spec = {name: part if name == "datasets" else _harmless(part) for name, part in made.items()}
        if not asked.get("top_level", True):
            return {name: part for name, part in spec.items() if name != "usermeta"}
        own: Any = getattr(self, "config", alt.Undefined)
        # Lists, which Altair checks for where a widget reads the Vega-Lite again.
        spec["datasets"] = {name: list(rows) for name, rows in spec.get("datasets", {}).items()}
        spec["config"] = update_nested(LOOK, {} if own is alt.Undefined else own.to_dict(), copy=True)
        compiler = alt.vegalite_compilers.get()
        return spec if format == "vega-lite" or compiler is None else dict(compiler(spec))

    def __or__(self, other: Any) -> Any:
        return _together(Row, "hconcat", self, other)

    def __and__(self, other: Any) -> Any:
        return _together(Stack, "vconcat", self, other)


class Layers(_Picture, alt.LayerChart):
    """Marks over each other."""


class Stack(_Picture, alt.VConcatChart):
    """Panels below each other."""


class Row(_Picture, alt.HConcatChart):
    """Panels side by side."""


class _Selecting(alt.Chart):
    """A mark that keeps its selection, which Altair would lift to the top by a name that several charts may have."""

    def to_dict(self, *given: Any, **options: Any) -> dict[str, Any]:
        """The Vega-Lite."""
        spec = super().to_dict(*given, **options)
        return {"params": [spec.pop("usermeta")], **spec}


def selecting(rows: Any, name: str, **select: Any) -> Any:
    """A chart of one mark with a selection: those of one name are one selection, in all panels that are shown."""
    bind = {"bind": select.pop("bind")} if "bind" in select else {}
    return _Selecting(rows, usermeta={"name": name, "select": {"type": "point", **select}, **bind})


def layered(*layers: Any, **properties: Any) -> Any:
    """Layers over each other, taken as they are: ``alt.layer`` copies each of them five times and more."""
    chart = Layers(**properties)
    chart.layer = list(layers)
    return chart


def stacked(panels: list[Any], spacing: int = 14) -> Any:
    """Panels below each other, taken as they are."""
    chart = Stack(spacing=spacing)
    chart.vconcat = panels
    return chart


def finished(chart: Any, title: str, subtitle: str | Iterable[str], sql: str) -> Any:
    """The chart with its title, its wrapped subtitle, and the SQL behind it in ``usermeta``."""
    lines = [subtitle] if isinstance(subtitle, str) else [line for line in subtitle if line]
    heading = alt.TitleParams(
        text=textwrap.wrap(harmless(title), 80) or [""],
        subtitle=[part for line in lines for part in textwrap.wrap(harmless(line), 118)],
    )
    # Set in place, for every method of Altair's copies the whole chart first: most of the time a chart takes.
    chart.title, chart.usermeta = heading, {"sql": sql}
    return chart


def sentence(text: str, title: str, sql: str = "") -> Any:
    """A chart that is one sentence, where there is nothing to draw."""
    lines = textwrap.wrap(text, 88)
    base = alt.Chart(values([{"text": "\n".join(lines)}]))
    mark = base.mark_text(align="left", baseline="top", fontSize=13, color=SOFT, lineBreak="\n", lineHeight=19)
    said = mark.encode(x=alt.XValue(0), y=alt.YValue(0), text=alt.Text("text:N"))
    return finished(layered(said, width=WIDTH, height=19 * len(lines) + 4), title, [], sql)


def _harmless(part: Any) -> Any:
    if isinstance(part, dict):
        return {name: _harmless(value) for name, value in part.items()}
    return [_harmless(value) for value in part] if isinstance(part, list) else harmless(part)


def _together(kind: Any, place: str, first: Any, second: Any) -> Any:
    """Both, side by side or below each other; one that was put together so already goes on."""
    begun = isinstance(first, kind) and first.title is alt.Undefined
    chart = kind(spacing=_APART, resolve={"scale": dict.fromkeys(_OWN, "independent")})
    chart[place] = [*(first[place] if begun else [first]), second]
    told = [part["usermeta"]["sql"] for part in (first, second) if isinstance(part, (Layers, Stack, Row))]
    chart.usermeta = {"sql": ";\n\n".join(sql for sql in told if sql)}
    return chart
