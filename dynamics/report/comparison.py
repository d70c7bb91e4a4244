"""One self-contained HTML page about two runs: what they share, which had it first, and how both changed."""

from __future__ import annotations

from pathlib import Path

from dynamics.answers import counted
from dynamics.charts.comparison import matches, onset_pairs, side_by_side
from dynamics.charts.rows import Row, Source
from dynamics.comparison import ALIKE, Compared, compare, comparison_text
from dynamics.files.atomic import write_bytes
from dynamics.report.page import Page
from dynamics.report.text import escaped, in_context
from dynamics.report.writing import LIMIT, writable
from dynamics.run import Run

STEPS = "select step from snapshots where site = $site order by step"
CONTEXTS = """
select latent, rank, row, text, before, after, activation
from contexts where site = $site and step = $step and rank < 3 and latent in ($wanted) order by latent, rank
"""
SHOWN = 6
"""Most features of a kind whose contexts are shown in both runs."""
_DOUBTS = (
    "Features are matched at the last checkpoint that both runs have, by the probe rows they fire on (at least "
    f"{ALIKE:.0%} in common). Two features that fire on the same rows of this probe may differ on other text.",
    "No q-value stands behind a match or an order of onsets: the number that chance would match is beside it. An order "
    "is no surer than the match, and onsets far apart are often those of features that are little alike.",
    "Two runs are one comparison. That two seeds differ says what a seed does, not what differs between others.",
    "A feature that both carried at their first checkpoint came before it: which run had it first is not known.",
)


def report_on_two(first: Run, second: Run, path: str | Path) -> list[Compared]:
    """Write the page; what it says, as rows.

    Raises:
        ValueError: if the runs cannot be compared (see ``compare``).
        OSError: if the page cannot be written, or its name is a folder's.
    """
    target = writable(path)
    found = compare(first, second)
    write_bytes(target, html(first, second, found).encode())
    return found


def html(first: Run, second: Run, found: list[Compared]) -> str:
    """The page as a string."""
    page = Page(LIMIT)
    page.add("<h1>Two runs side by side</h1>")
    page.add(f'<p class="facts">first run: {escaped(first.path)}<br>second run: {escaped(second.path)}</p>')
    told = [line.strip() for line in comparison_text(found).splitlines() if line.strip()]
    page.add('<div class="findings">' + "".join(f"<p>{escaped(line)}</p>" for line in told) + "</div>")
    doubts = "".join(f"<li>{escaped(text)}</li>" for text in _DOUBTS)
    page.add(f'<div class="doubts"><h3>What this cannot tell</h3><ul>{doubts}</ul></div>')
    room = page.left // max(1, len(found)) - 200
    for site in found:
        _site(page, (first, second), site, room)
    return page.html("Two runs side by side")


def _site(page: Page, runs: tuple[Run, Run], c: Compared, room: int) -> None:
    page.add(f"<h2>{escaped(c.site)}</h2>")
    place = f"{c.site}, step {c.step:,}"
    sources = [Source(run) for run in runs]
    steps = [row["step"] for source in sources for row in source.rows(STEPS, site=c.site)]
    drawn = {
        "dynamics.charts.comparison.matches(…)": matches(c.shared, c.chance, c.features, place),
        "dynamics.charts.comparison.onset_pairs(…)": onset_pairs(c.shared, steps, place),
        f"dynamics.charts.side_by_side(first, second, {c.site!r})": side_by_side(*runs, c.site),
    }
    for name, chart in drawn.items():
        room -= page.chart(chart, name, room)
    page.add(_examples(sources, c))
    page.query(sources[0].text)


def _examples(sources: list[Source], c: Compared) -> str:
    """What shared features fire on in either run: the most alike, and those whose onsets lie furthest apart."""
    alike = c.shared[:SHOWN]
    apart = sorted((row for row in c.shared[SHOWN:] if _apart(row) > 0), key=_apart, reverse=True)[:SHOWN]
    sides = [_contexts(source, c, [row["latents"][k] for row in (*alike, *apart)]) for k, source in enumerate(sources)]
    parts = []
    for name, rows in (("the most alike", alike), ("onsets furthest apart", apart)):
        if rows:
            many = f"{len(rows)} of {counted(len(c.shared), 'shared feature')}"
            parts.append(f"<h3>What shared features fire on: {name}</h3>")
            parts.append(f'<p class="none">{many}. Strongest rows at step {c.step:,}, the firing token marked.</p>')
            parts += [_pair(row, sides) for row in rows]
    return "".join(parts) + "".join(_alone(source, c, k) for k, source in enumerate(sources))


def _alone(source: Source, c: Compared, run: int) -> str:
    """What the strongest of the features fire on that only one of the runs has."""
    shown = c.alone[run][:SHOWN]
    if not shown:
        return ""
    name = ("first", "second")[run]
    told = _contexts(source, c, [row["latent"] for row in shown])
    many = f"{len(shown)} of {counted(len(c.alone[run]), 'feature')}"
    head = (
        f"<h3>What features of the {name} run alone fire on</h3>"
        f'<p class="none">{many} that share fewer than {ALIKE:.0%} of their rows with any of the other run, those '
        f"that fire most first. Strongest rows at step {c.step:,}, the firing token marked.</p>"
    )
    sides = [
        _side(f"track {row['track']}, {row['overlap']:.0%} in common with the nearest", told.get(row["latent"], []))
        for row in shown
    ]
    return head + f'<div class="event"><div class="two">{"".join(sides)}</div></div>'


def _apart(row: Row) -> float:
    """How far the onsets lie apart, as a share of the later one; 0 where one is not known."""
    if None in row["onsets"]:
        return 0.0
    first, second = row["onsets"]
    return float(abs(first - second) / max(1, first, second))


def _pair(row: Row, sides: list[dict[int, list[Row]]]) -> str:
    both = "".join(
        _side(f"track {row[name]} of the {name} run", sides[k].get(row["latents"][k], []))
        for k, name in enumerate(("first", "second"))
    )
    return f'<div class="event"><h4>{_words(row)}</h4><div class="two">{both}</div></div>'


def _words(row: Row) -> str:
    when = [f"step {step:,}" if step is not None else "not known" for step in row["onsets"]]
    said = "there at the first checkpoint of both" if all(row["early"]) else f"onsets {when[0]} and {when[1]}"
    return f"{row['overlap']:.0%} of rows in common <small>{said}</small>"


def _contexts(source: Source, c: Compared, latents: list[int]) -> dict[int, list[Row]]:
    wanted = ", ".join(str(latent) for latent in sorted(set(latents))) or "null"
    found: dict[int, list[Row]] = {}
    for row in source.rows(CONTEXTS.replace("$wanted", wanted), site=c.site, step=c.step):
        found.setdefault(row["latent"], []).append(row)
    return found


def _side(name: str, rows: list[Row]) -> str:
    head = f'<p class="feature">{name}</p>'
    if not rows:
        return f'<div>{head}<p class="none">No contexts were kept.</p></div>'
    lines = "".join(
        f'<li><span class="act">{row["activation"]:.3g}</span>'
        f'<span class="ctx">{in_context(row["before"], row["text"], row["after"], row["row"])}</span></li>'
        for row in rows
    )
    return f"<div>{head}<ul>{lines}</ul></div>"
