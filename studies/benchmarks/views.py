"""How long questions and pictures take on a large history, made up in SQL: 100 checkpoints, 4 sites, 16,384 latents."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

from dynamics import charts, report
from dynamics.explorer import page
from dynamics.explorer.history import Published
from dynamics.files.layout import RunDirectory
from dynamics.run import Run
from dynamics.store import database

SIZES = """
create temp table size as select $sites as sites, $checkpoints as checkpoints, $latents as latents;
create temp table place as select 'blocks.' || i || '.mlp' as site, i as number from size, range(size.sites) t(i);
create temp table moment as
    select i as number, case when i = 0 then 0 else round(exp(i * ln(143000) / (checkpoints - 1)))::bigint + i end as step
    from size, range(size.checkpoints) t(i);
-- Nine in ten latents live; a track keeps its latent, lives for a while, and another takes its place.
create temp table life as
    select site, (latent * 3 + part)::bigint as track, latent, part,
        case when part = 0 then 0 else round(checkpoints * (0.1 + 0.8 * hash(latent, part) % 1000 / 1000))::bigint end as first,
        case when part = 2 or hash(latent) % 3 = 0 then checkpoints - 1
            else round(checkpoints * (0.2 + 0.7 * hash(latent, part, 1) % 1000 / 1000))::bigint end as last
    from place, size, range(size.latents) t(latent), range(2) p(part)
    where latent % 10 < 9 and (part = 0 or hash(latent) % 3 > 0);
"""  # noqa: E501
ROWS = """
insert into raw.meta values ('branch', 'b0'), ('fdr', '0.1');
insert into raw.checkpoints select 'b0', step, number / 10, step * 64, 4.0 / (1 + number) from moment;
insert into raw.snapshots
    select 'b0', site, step, 8192, 768, 'float16', 'p', 'f', 'snapshots/' || step from place, moment order by site, step;
insert into raw.probe_rows select 'p', i, i // 64, i % 64, ' word', 'what comes before', 'what comes after' from range(8192) t(i);
insert into raw.saes select 'b0', site, step, 'chain', 0, 'topk', latents, 32, 0.2, 32, 0.1, 0, false, 'saes/' || step
    from place, moment, size;
insert into raw.latents select 'b0', site, step, 'chain', 0, latent, 0.01 + hash(latent) % 100 / 1000, 1.5, 4.0
    from place, moment, size, range(size.latents) t(latent) order by site, step, latent;
insert into raw.contexts select 'b0', site, step, latent, rank, hash(latent, rank, step) % 8192, 4.0 / (1 + rank)
    from place, moment, size, range(size.latents) t(latent), range(8) r(rank) order by site, step, latent, rank;
insert into raw.tracks select 'b0', l.site, l.track, l.track // 2, a.step, b.step, l.last - l.first + 1, l.first = 0, l.last = checkpoints - 1
    from life l join moment a on a.number = l.first join moment b on b.number = l.last, size where l.last > l.first;
insert into raw.feature_history
    select 'b0', l.site, l.track, l.track // 2, m.step, l.latent, 0.01 + hash(l.latent) % 100 / 1000,
        1 + hash(l.latent, m.number) % 100 / 100, 0.98, m.number, 2.0, 1.5, 1, 1
    from life l join moment m on m.number between l.first and l.last where l.last > l.first order by l.site, l.track, m.step;
insert into raw.onsets select 'b0', site, track, first_step, first_step, first_step, case when left_censored then 'left' end from raw.tracks;
insert into raw.links
    select 'b0', site, lag(step) over w, lag(latent) over w, step, latent, 0.9, 0.8, 0.9, 0.9, 0.9,
        0.6 + hash(track, step) % 400 / 1000, 0.3, true, 0.01, 0.02, 0
    from raw.feature_history window w as (partition by site, track order by step) qualify lag(step) over w is not null;
insert into raw.pairs
    select 'b0', site, lag(step) over w, step, unnest(['chain', 'null']), 0, 14000, 14000, 90000, 13000, 0.5
    from place, moment window w as (partition by site order by step) qualify lag(step) over w is not null;
insert into raw.population select 'b0', site, step, 14000, 2384, 3, 2, 4 from place, moment order by site, step;
insert into raw.resolution select 'b0', site, kind, 1400000, 100000, 0.001 from place, (select unnest(['birth', 'death', 'split', 'merge', 'rotation']) as kind);
insert into raw.event_candidates
    select 'b0', site, arm || track, kind, arm, 0, step, null, step, [], [latent], [], [track], 3.0, 0.001 * (hash(track) % 1000), 0.05,
        case when hash(track, 7) % 20 > 0 then 'q' end, map {'presence_before': 0.1, 'presence_after': 0.9}
    from (select t.*, l.latent, a.step from raw.tracks t join life l using (site, track) join moment a on a.number = l.first),
        (select unnest(['birth', 'death']) as kind), (select unnest(['chain', 'null']) as arm);
insert into raw.change select 'b0', site, step, series, 1.0 from place, moment, (select unnest(['births', 'drift']) as series);
"""  # noqa: E501


def main() -> None:
    """Makes the history unless it is there, asks it, and prints the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("out/benchmarks/views"))
    parser.add_argument("--checkpoints", type=int, default=100)
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument("--latents", type=int, default=16_384)
    given = parser.parse_args()
    run = made(given.run, {"sites": given.sites, "checkpoints": given.checkpoints, "latents": given.latents})
    size = run.directory.history.stat().st_size
    [(rows,)] = run.sql("select count(*) from raw.latents", "rows")
    print(f"{rows:,} latent rows, {size / 1e6:,.0f} MB\n")
    for name, seconds in timed(run):
        print(f"{name:<44} {1000 * seconds:>8,.0f} ms")


def made(folder: Path, size: dict[str, int]) -> Run:
    """A run directory with a history of that size."""
    directory = RunDirectory.create(folder)
    if not directory.history.exists():
        private = folder / "private.duckdb"
        private.unlink(missing_ok=True)
        database.create(private)
        with database.writer(private) as connection:
            _fill(connection, size)
        private.rename(directory.history)
    for number in range(size["sites"]):
        (folder / "snapshots" / "b0" / "step_00000000" / f"blocks.{number}.mlp").mkdir(parents=True, exist_ok=True)
        (folder / "snapshots" / "b0" / "step_00000000" / f"blocks.{number}.mlp" / "commit.json").write_text("{}")
    return Run(directory)


def _fill(connection: duckdb.DuckDBPyConnection, size: dict[str, int]) -> None:
    script = SIZES
    for name, number in size.items():
        script = script.replace(f"${name}", str(number))
    for statement in (script + ROWS).split(";\n"):
        connection.execute(statement)
    connection.execute("checkpoint history")


def timed(run: Run) -> list[tuple[str, float]]:
    """Names and seconds, medians of three where a question is quick."""
    shown = Published(run)
    site = shown.sites()[0]
    focus = page.strongest(shown, site)
    assert focus is not None
    track = focus.track(shown)
    assert track is not None
    window = (0, 2**60)
    life = page.life(shown, site, track)
    asked: dict[str, Callable[[], object]] = {
        "sites and checkpoints": lambda: (shown.sites(), page.steps(shown, site)),
        "the strongest feature": lambda: page.strongest(shown, site),
        "events of a site": lambda: page.events(shown, site, window, {}),
        "first picture: events": lambda: page.drawn(charts.events, shown, site).to_dict(validate=False),
        "click: a feature's life": lambda: page.drawn(charts.feature, shown, site, track).to_dict(validate=False),
        "click: its family": lambda: page.drawn(charts.lineage, shown, site, track).to_dict(validate=False),
        "click: its contexts": lambda: [page.contexts(shown, site, r, 1.0) for r in (life[0], life[-1])],
        "click: its rows": lambda: (page.life(shown, site, track), focus.track(shown)),
    }  # fmt: skip
    slow = (
        charts.population,
        charts.drift,
        charts.flow,
        charts.survival,
        charts.onsets,
        charts.presence,
        charts.scores,
    )
    asked |= {f"chart: {draw.__name__}": (lambda draw=draw: draw(shown, site).to_dict(validate=False)) for draw in slow}
    asked |= {
        "sql: a view in full, counted": lambda: run.sql("select count(*), max(density) from latents"),
        "sql: contexts of a latent": lambda: run.sql(
            f"select * from contexts where site = '{site}' and step = {focus.step} and latent = {focus.latent}"
        ),
        "sql: contexts of a track": lambda: run.sql(
            f"select * from contexts where site = '{site}' and track = {track}"
        ),
        "the report": lambda: report(shown, run.path / "report.html"),
    }
    return [(name, _seconds(ask)) for name, ask in asked.items()]


def _seconds(ask: Callable[[], object]) -> float:
    taken = []
    while len(taken) < 3 and sum(taken) < 3:
        begun = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
