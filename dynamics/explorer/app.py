"""The explorer's page, a marimo app: which cell shows what, and what follows when something is clicked."""

import marimo

app = marimo.App(width="medium", app_title="dynamics")

with app.setup:
    import os

    import marimo as mo

    from dynamics import charts
    from dynamics.explorer import page
    from dynamics.explorer.history import Published
    from dynamics.explorer.server import RUN
    from dynamics.run import open as open_run

    run = Published(open_run(os.environ[RUN]))


@app.cell
def _():
    # What is kept when cells run again; not reactive.
    kept = {"site": None, "window": None, "first": None}
    published, set_published = mo.state(0)
    focus, set_focus = mo.state(None, allow_self_loops=True)
    picked, set_picked = mo.state({})
    refresh = mo.ui.refresh(default_interval="5s", options=["2s", "5s", "30s"])
    return focus, kept, picked, published, refresh, set_focus, set_picked, set_published


@app.cell
def _(refresh, set_published):
    refresh.value
    if run.renew():
        set_published(lambda times: times + 1)
    mo.vstack(
        [
            mo.Html(page.heading(run.path.name, 1)),
            mo.hstack([run.published(), refresh], justify="start", gap=1),
        ],
        gap=0,
    )
    return


@app.cell
def _(kept, published, set_focus, set_picked):
    def _moved(name):
        kept["site"], kept["window"] = name, None
        set_picked({})
        set_focus(page.strongest(run, name))

    published()
    _sites = run.sites()
    mo.stop(not _sites, mo.md("The run has no snapshots yet. They are shown as they come."))
    kept["site"] = kept["site"] if kept["site"] in _sites else _sites[0]
    site = mo.ui.dropdown(_sites, value=kept["site"], label="site", on_change=_moved)
    return (site,)


@app.cell
def _(kept, published, site):
    published()
    steps = page.steps(run, site.value)

    def _moved(value):
        kept["window"] = None if value[0] == steps[0] and value[1] == steps[-1] else value

    _at = [step for step in kept["window"] or [] if step in steps]
    window = (
        mo.ui.range_slider(
            steps=steps, value=_at if len(_at) == 2 else None, label="steps", full_width=True,
            on_change=_moved, debounce=True, show_value=True,
        )
        if len(steps) > 1
        else None
    )  # fmt: skip
    mo.hstack([site, window] if window is not None else [site], widths=[1, 3], align="end", gap=2)
    return steps, window


@app.cell
def _(steps, window):
    within = tuple(window.value) if window is not None else (steps[0], steps[-1])
    return (within,)


@app.cell
def _(published, set_picked, site, within):
    published()
    _drawn = page.drawn(charts.events, run, site.value, within)
    # One that can be clicked never takes the place of one that cannot: the browser would look for its signals there.
    mo.stop(not page.clickable(_drawn), mo.md(page.quiet(run, site.value)))
    timeline = mo.ui.altair_chart(
        _drawn,
        chart_selection=False,
        legend_selection=False,
        on_change=lambda _: set_picked(timeline.selections),
    )
    timeline
    return


@app.cell
def _(picked, published, set_focus, site, within):
    published()
    found = page.events(run, site.value, within, picked())

    def _chosen(rows):
        if rows:
            event = next(row for row in found if row["event"] == rows[0]["event"])
            set_focus(next(iter(page.features_of(event, site.value).values()), None))

    table = mo.ui.table(
        page.listed(run, site.value, found), selection="single", page_size=6, on_change=_chosen, show_download=False,
        show_column_summaries=False, show_data_types=False,
        label=f"Events of steps {within[0]:,} to {within[1]:,}, by q. Click one to see its features."
        + (f" What they fire on is said of the first {page.TOLD}." if len(found) > page.TOLD else ""),
    )  # fmt: skip
    table if found else None
    return found, table


@app.cell
def _(site):
    site.value  # another site begins with an empty question
    sought = mo.ui.text(label="Find features that fire on", placeholder="a text, such as self", debounce=True)
    sought
    return (sought,)


@app.cell
def _(set_focus, site, sought):
    mo.stop(not sought.value)
    _rows, _total = page.that_fire_on(run, site.value, sought.value)
    _head = f"{_total:,} features fire on it" + (f"; the {len(_rows)} surest" if len(_rows) < _total else "")
    mo.stop(
        not _rows, mo.Html(f"<p>No feature fires on {page.escaped(sought.value)} in half of its strongest rows.</p>")
    )
    _table = mo.ui.table(
        _rows, selection="single", page_size=6, show_download=False, show_column_summaries=False, show_data_types=False,
        label=f"{_head} (in half of their strongest rows or more), since when and until when.",
        on_change=lambda rows: (
            set_focus(page.Focus(site.value, rows[0]["to step"], rows[0]["latent"])) if rows else None
        ),
    )  # fmt: skip
    _table
    return


@app.cell
def _(focus, found, kept, published, set_focus, site, table):
    published()
    event = next((row for row in found if table.value and row["event"] == table.value[0]["event"]), None)
    _names = page.features_of(event, site.value) if event else {}
    # What is looked at stays, also where another feature has become the strongest meanwhile.
    here = kept["first"] = focus() or kept["first"] or page.strongest(run, site.value)
    mo.stop(here is None, mo.md("Nothing has been tracked at this site yet."))
    track = here.track(run)
    features = mo.ui.radio(
        _names, value=f"track {track}" if f"track {track}" in _names else None, inline=True,
        on_change=lambda chosen: set_focus(chosen) if chosen else None,
    )  # fmt: skip

    def _go(number):
        asked = page.focus_of(run, site.value, int(number or 0))
        if asked is None:
            mo.status.toast(f"There is no track {int(number or 0)} at this site.", kind="danger")
        set_focus(asked or here)

    by_number = mo.ui.number(value=track, start=0, step=1, label="go to track", on_change=_go)
    mo.vstack(
        [
            mo.Html(page.heading(f"Track {track} of {site.value}", 2)),
            mo.hstack([by_number, features] if _names else [by_number], justify="start", gap=2),
            mo.Html(page.evidence(event)) if event else mo.md(""),
        ]
    )
    return here, track


@app.cell
def _(here, track):
    mo.stop(track is None, mo.md("This latent belongs to no track any more."))
    life = page.life(run, here.site, track)
    mo.ui.altair_chart(page.drawn(charts.feature, run, here.site, track), chart_selection=False, legend_selection=False)
    return (life,)


@app.cell
def _(here, set_focus, track):
    mo.stop(track is None)

    def _clicked(_):
        tracks = family.selections.get("picked_track", {}).get("track")
        if tracks:
            set_focus(page.focus_of(run, here.site, int(tracks[0])) or here)

    family = mo.ui.altair_chart(
        page.drawn(charts.lineage, run, here.site, track),
        chart_selection=False,
        legend_selection=False,
        on_change=_clicked,
    )
    family
    return


@app.cell
def _(life):
    at = mo.ui.slider(
        steps=[row["step"] for row in life], value=life[-1]["step"], label="contexts at step", show_value=True,
        full_width=True,
    )  # fmt: skip
    return (at,)


@app.cell
def _(at, here, life):
    _peak = page.peak(run, here.site, life)
    _rows = [row for row in life if row["step"] in (life[0]["step"], at.value)]
    _sides = [mo.Html(page.contexts(run, here.site, row, _peak)) for row in _rows]
    mo.vstack(
        [
            mo.Html(page.heading("What it fires on, at first and at a step of your choice", 3)),
            at,
            mo.hstack(_sides, widths="equal", gap=2),
        ]
    )
    return


@app.cell
def _(at, here, life, set_focus):
    _now = page.Focus(here.site, at.value, next(row["latent"] for row in life if row["step"] == at.value))
    try:
        _near = page.neighbours(run, _now)
    except (ValueError, OSError) as _error:
        _near = []
        mo.output.append(mo.Html(f"<p>No neighbours: {page.escaped(_error)}</p>"))
    _table = mo.ui.table(
        _near, selection="single", pagination=False, show_download=False, show_column_summaries=False,
        show_data_types=False, show_search=False,
        label="Nearest directions in the dictionary of that step; click one to go there.",
        on_change=lambda rows: set_focus(page.Focus(here.site, rows[0]["step"], rows[0]["latent"])) if rows else None,
    )  # fmt: skip
    mo.vstack([mo.Html(page.heading("Its neighbours", 3)), _table]) if _near else None
    return


@app.cell
def _():
    gallery = {
        "How many live, come and go": charts.population,
        "How the population flows": charts.flow,
        "How long features live": charts.survival,
        "When features become readable": charts.onsets,
        "What of the end is there when": charts.presence,
        "How far features turn": charts.drift,
        "Phase transitions": charts.transition,
        "Concepts": charts.concepts,
        "How clear the links are": charts.scores,
        "How good the dictionaries are": charts.quality,
    }
    # What is ticked stays so at another site, and while a run goes on.
    wanted = mo.ui.dictionary({name: mo.ui.checkbox(label=name) for name in gallery})
    mo.vstack(
        [
            mo.Html(page.heading("The whole population", 2)),
            mo.hstack(wanted.values(), justify="start", wrap=True, gap=1),
        ]
    )
    return gallery, wanted


@app.cell
def _(gallery, published, site, wanted):
    published()
    mo.vstack([page.picture(name, draw, run, site.value) for name, draw in gallery.items() if wanted.value[name]])
    return


@app.cell
def _():
    query = mo.ui.text_area(
        "select site, kind, count(*) as events, min(q_value) as smallest_q from events group by all order by all",
        label="One SELECT on the views; it can change nothing and reach no file.", full_width=True, rows=4,
    ).form(submit_button_label="Ask")  # fmt: skip
    mo.vstack([mo.Html(page.heading("SQL", 2)), query])
    return (query,)


@app.cell
def _(query):
    mo.Html(page.answer(run, query.value)) if query.value else None
    return


if __name__ == "__main__":
    app.run()
