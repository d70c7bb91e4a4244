"""How every chart looks: fonts, colours that colour-blind readers can tell apart, titles, and the empty chart."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

import altair as alt

WIDTH = 640
"""Width of a plot area in pixels."""
MARKS = 4000
"""Most marks that one chart may hold."""

INK, SOFT, FAINT, GRID = "#1b1f24", "#57606a", "#8c959f", "#e7eaee"
BAND = "#c9ced6"
"""The null band, everywhere: what retraining alone would give."""
WINDOW = "#f0e442"
"""A transition's window."""
CHAIN, SEED = "#1b1f24", "#56b4e9"
KINDS = {
    "birth": "#009e73",
    "death": "#d55e00",
    "split": "#0072b2",
    "merge": "#cc79a7",
    "rotation": "#e69f00",
    "drift": "#56b4e9",
    "dormancy": "#8c959f",
}
"""One colour per kind of event, the same in every chart (the palette of Okabe and Ito)."""

FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"
LOOK: dict[str, Any] = {
    "font": FONT,
    "background": "white",
    "padding": 12,
    "view": {"stroke": None},
    "title": {
        "anchor": "start",
        "frame": "bounds",
        "fontSize": 15,
        "fontWeight": 600,
        "color": INK,
        "subtitleColor": SOFT,
        "subtitleFontSize": 11.5,
        "subtitlePadding": 5,
        "subtitleLineHeight": 15,
        "offset": 12,
    },
    "axis": {
        "labelColor": SOFT,
        "titleColor": SOFT,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "gridColor": GRID,
        "domainColor": FAINT,
        "tickColor": FAINT,
        "tickSize": 4,
        "labelPadding": 4,
        "titlePadding": 8,
    },
    "axisX": {"grid": False},
    "axisY": {"domain": False, "ticks": False},
    "legend": {
        "orient": "top",
        "labelColor": SOFT,
        "titleColor": SOFT,
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleOrient": "left",
        "labelLimit": 0,
        "offset": 6,
    },
    "concat": {"spacing": 14},
    "line": {"strokeJoin": "round", "strokeCap": "round"},
}


def kinds_of(rows: list[dict[str, Any]]) -> list[str]:
    """The kinds of event among the rows, in the order of the palette."""
    present = {row["kind"] for row in rows}
    return [kind for kind in KINDS if kind in present] + sorted(present - KINDS.keys())


def values(rows: list[dict[str, Any]]) -> Any:
    """Rows as inline data; no column types are guessed, so every encoding names its own.

    A tuple, since Altair copies a list row by row at every step of building a chart.
    """
    return {"values": tuple({name: harmless(value) for name, value in row.items()} for row in rows)}


def harmless(value: Any) -> Any:
    """The same to the eye, but no text that ends a script.

    Altair's own HTML, which ``save`` and some notebooks use, writes data into a script as it is: a word joiner, which
    has no width, keeps ``</script>`` and ``<!--`` from being any.
    """
    return re.sub("<(?=[/!])", "<\u2060", value) if isinstance(value, str) else value


def note(
    text: str,
    *,
    x: int | float,
    y: int | float,
    colour: str = SOFT,
    align: Literal["left", "center", "right"] = "left",
    bold: bool = False,
) -> Any:
    """A word written into a plot at a place in pixels."""
    base = alt.Chart(values([{"text": text}]))
    mark = base.mark_text(align=align, baseline="middle", fontSize=11, color=colour, fontWeight=600 if bold else 400)
    return mark.encode(x=alt.XValue(x), y=alt.YValue(y), text=alt.Text("text:N"))


def counting(numbers: Iterable[int | float], most: int = 4) -> alt.Axis:
    """An axis of counts from 0: whole numbers alone, which Vega's least step does not promise where they are small."""
    largest = int(max(numbers, default=0))
    steps = (factor * 10**power for power in range(19) for factor in (1, 2, 5))
    step = next(step for step in steps if step * most >= largest)
    return alt.Axis(values=list(range(0, largest + step, step)), format=",d")


def listed(items: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    words = list(items)
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0] if words else "none"


def bracketed(numbers: Iterable[int], limit: int = 6) -> str:
    """Track numbers for a tooltip; what does not fit is counted."""
    listed = list(numbers)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(str(number) for number in listed[:limit]) + more
