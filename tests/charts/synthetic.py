"""A plausible made-up history in DuckDB, filled through the real schema, for charts and the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import torch

import dynamics.store.database
from dynamics.files.layout import RunDirectory
from dynamics.files.saes import LATENTS, SaeRecord, write_sae

SITES = ["blocks.0.mlp", "blocks.1.mlp"]
STORE = Path(dynamics.store.database.__file__).parent
HOSTILE = [
    "</script><img src=x onerror=\"document.title='executed'\">",
    "<!-- <script>document.title='executed'</script>",
    "\u202egnissim\u202c",
    "\x1b[31mred\x07",
    "javascript:document.title='executed'",
    "{{7*7}} ${document.title='executed'}",
    "]]></style><svg onload=\"document.title='executed'\">",
]
WORDS = ["the", " house", "\n", " of", " been", " 1984", "ing", " Ω", " ", "\t", " return"]


class SyntheticRun:
    """Answers what charts ask of a run: ``sql``, ``sites`` and ``path``."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path) -> None:
        self.connection = connection
        self.path = path

    def sql(self, query: str) -> pa.Table:
        return self.connection.sql(query).to_arrow_table()

    def sites(self) -> list[str]:
        return [row[0] for row in self.connection.execute("select distinct site from snapshots order by 1").fetchall()]


def steps_of(count: int) -> list[int]:
    """Steps 0, 1, 2, … up to 143,000, log spaced; two checkpoints are 0 and 1000."""
    if count <= 2:
        return [0, 1000][:count]
    spaced = 0
    while len(steps := np.unique(np.geomspace(1, 143_000, count + spaced).astype(int))) < count - 1:
        spaced += 1
    return [0, *(int(step) for step in steps[-(count - 1) :])]


def empty_run(path: Path = Path("run")) -> SyntheticRun:
    """A history with the schema and no rows at all."""
    connection = duckdb.connect(":memory:")
    for script in ("schema.sql", "views.sql"):
        connection.execute((STORE / script).read_text())
    connection.execute("insert into raw.meta values ('branch', 'b0'), ('fdr', '0.1')")
    return SyntheticRun(connection, path)


def synthetic_run(
    checkpoints: int, *, sites: list[str] | None = None, quiet: bool = False, seed: int = 0
) -> SyntheticRun:
    """A history of that many checkpoints; ``quiet`` has links and features but no event and no transition."""
    run, steps = empty_run(), steps_of(checkpoints)
    for number, site in enumerate(SITES if sites is None else sites):
        _fill(run, _Site(site, steps, np.random.default_rng(seed + number), quiet=quiet))
    loss = [4.2 / (1 + (step / 900) ** 0.4) + 0.9 for step in steps]
    _insert(run, "checkpoints", [("b0", s, s / 1000, s * 64, x) for s, x in zip(steps, loss, strict=True)])
    _insert(run, "probe_rows", _probe_rows())
    return run


@dataclass
class _Site:
    """One site's simulation: who is alive, what happened, and every row that says so."""

    name: str
    steps: list[int]
    rng: np.random.Generator
    quiet: bool
    lineage: dict[int, int] = field(default_factory=dict)
    life: dict[int, list[int]] = field(default_factory=dict)
    slots: dict[int, int] = field(default_factory=dict)
    rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)

    def add(self, table: str, *values: Any) -> None:
        self.rows.setdefault(table, []).append(("b0", self.name, *values))

    def new_track(self, step: int, lineage: int | None = None) -> int:
        track = len(self.lineage)
        self.lineage[track] = track if lineage is None else lineage
        self.life[track] = []
        self.slots[track] = track
        return track

    def event(self, kind: str, before: int | None, step: int, parents: list[int], children: list[int]) -> None:
        q = float(self.rng.beta(0.5, 8) * 0.14)
        after = None if kind == "death" else step
        latents = [[self.slots[track] for track in side] for side in (parents, children)]
        self.add(
            "event_candidates", f"{kind}-{len(self.rows.get('event_candidates', []))}", kind, "chain", 0, step,
            before, after, *latents, parents, children, float(self.rng.normal(4, 1)), q / 4, q, None, None,
        )  # fmt: skip


def _fill(run: SyntheticRun, site: _Site) -> None:
    live = [site.new_track(site.steps[0]) for _ in range(90)]
    for index, step in enumerate(site.steps):
        if index:
            live = live if site.quiet else _advance(site, live, site.steps[index - 1], step)
        for track in live:
            site.life[track].append(step)
        _measure(site, index, step, live)
    _conclude(site)
    for table, rows in site.rows.items():
        _insert(run, table, rows)


def _busy(site: _Site, step: int) -> float:
    """How much goes on at a step: a burst around step 2,000."""
    return 1 + 5 * float(np.exp(-((np.log1p(step) - np.log(2000)) ** 2) / 0.6))


def _advance(site: _Site, live: list[int], before: int, step: int) -> list[int]:
    rng, rate = site.rng, _busy(site, step) * min(1.0, 60 / len(site.steps))
    for kind in ("death", "split", "merge", "rotation", "dormancy"):
        for _ in range(
            rng.poisson({"death": 0.7, "split": 0.5, "merge": 0.3, "rotation": 0.4, "dormancy": 0.05}[kind] * rate)
        ):
            live = _happen(site, kind, live, before, step)
    for _ in range(rng.poisson(2.2 * rate)):
        parent = [int(rng.choice(live))] if rng.random() < 0.15 else []
        track = site.new_track(step, site.lineage[parent[0]] if parent else None)
        site.event("birth", before if parent else None, step, parent, [track])
        live = [*live, track]
    if rng.random() < 0.1 * rate:
        track = int(rng.choice(live))
        site.event("drift", site.life[track][0] if site.life[track] else before, step, [track], [track])
    return live


def _happen(site: _Site, kind: str, live: list[int], before: int, step: int) -> list[int]:
    track, other = (int(t) for t in site.rng.choice(live[: max(40, len(live) // 2)], 2, replace=False))
    if not site.life[track] or not site.life[other]:
        return live
    if kind == "death":
        site.event("death", before, step, [track], [])
        return [t for t in live if t != track]
    if kind == "split":
        children = [site.new_track(step, site.lineage[track]) for _ in range(2)]
        site.event("split", before, step, [track], children)
        return [t for t in live if t != track] + children
    if kind == "merge":
        child, old = site.new_track(step, site.lineage[track]), site.lineage[other]
        site.lineage.update({t: site.lineage[track] for t, name in site.lineage.items() if name == old})
        site.event("merge", before, step, [track, other], [child])
        return [t for t in live if t not in (track, other)] + [child]
    site.event(kind, before, step, [track], [track])
    return live


def _measure(site: _Site, index: int, step: int, live: list[int]) -> None:
    rng, busy = site.rng, _busy(site, step)
    progress = (index + 1) / len(site.steps)
    site.add("snapshots", step, 4096, 64, "float32", "probe", "f", f"snapshots/{step}")
    site.add("geometry", step, 1 + progress, 20.0, 0.2, 0.1)
    for arm, seed in [("chain", 0)] + ([("seed", 1), ("seed", 2)] if index % 4 == 0 else []) + [("null", 0)]:
        fvu = 0.4 - 0.25 * progress + float(rng.normal(0, 0.01)) - 0.02 * (arm == "seed")
        site.add(
            "saes", step, arm, seed, "topk", 512, 16, fvu, 16.0 + float(rng.normal(0, 0.2)), 0.3 * (1 - progress),
            int(rng.integers(5)), arm == "chain" and index == len(site.steps) // 2 and index > 1, f"saes/{arm}/{step}",
        )  # fmt: skip
    if index:
        site.add("population", step, len(live), 512 - len(live), 3 + 4 * busy + rng.normal(0, 0.5), 5.0, 8.0)
        site.add("pairs", site.steps[index - 1], step, "chain", 0, len(live), len(live), 900, len(live) - 5, 0.4)
        site.add("pairs", site.steps[index - 1], step, "null", 0, len(live), len(live), 900, len(live) - 3, 0.4)
    else:
        site.add("population", step, len(live), 512 - len(live), None, None, None)
    if index:
        going = [track for track in live if len(site.life[track]) > 1]
        pair, chance = (site.steps[index - 1], step), np.random.default_rng(index)
        for track, score in zip(going, chance.beta(12, 1.5, len(going)).tolist(), strict=True):
            slot, margin = site.slots[track], score - float(chance.beta(3, 4))
            site.add(
                "links", pair[0], slot, pair[1], slot, score, score, score, score, score, score, margin, margin > 0,
                0.01, 0.02, 0,
            )  # fmt: skip
    for track in live:
        density, activation = float(rng.beta(1, 30)), float(rng.gamma(2, 1) * (1 + progress))
        turned = float(abs(rng.normal(3 + 4 * busy, 3)))
        first = len(site.life[track]) == 1
        site.add("latents", step, "chain", 0, site.slots[track], density, activation, 4 * activation)
        site.add(
            "feature_history", track, -1, step, site.slots[track], density, activation, None if first else 0.9,
            0.0 if first else 2.0 * turned, None if first else turned, 5.0, 1.0, activation * density,
        )  # fmt: skip
        for rank in range(3 if index in (0, len(site.steps) - 1) or track % 3 == 0 else 0):
            site.add(
                "contexts",
                step,
                site.slots[track],
                rank,
                int(rng.integers(len(_probe_rows()))),
                activation * 4 / (1 + rank),
            )


def _conclude(site: _Site) -> None:
    rng, (first, last) = site.rng, (site.steps[0], site.steps[-1])
    site.rows["feature_history"] = [(*r[:3], site.lineage[r[2]], *r[4:]) for r in site.rows["feature_history"]]
    for track, life in site.life.items():
        if life:
            site.add(
                "tracks", track, site.lineage[track], life[0], life[-1], len(life), life[0] == first, life[-1] == last
            )
            site.add("onsets", track, life[0], life[0], life[0], "left" if life[0] == first else None)
    for kind in ("birth", "death", "split", "merge", "rotation"):
        p = rng.random(300)
        for number, value in enumerate(p):
            site.add("event_candidates", f"null-{kind}-{number}", kind, "null", 0, last, first, last, [], [], [], [], 0.0, float(value), None, None, None)  # fmt: skip  # noqa: E501
        site.add("resolution", kind, 200, 300, 2e-5 if kind != "merge" else 7e-4)
    if site.quiet:
        site.rows["event_candidates"] = [r for r in site.rows["event_candidates"] if r[4] != "chain"]
    if len(site.steps) < 8:
        site.add(
            "notes",
            "transitions",
            f"{len(site.steps)} checkpoints: cannot tell whether there is a transition (needs 8)",
        )
        return
    for step in site.steps[1:]:
        for number, series in enumerate(("births", "deaths", "drift", "matched share", "representation change")):
            site.add(
                "change",
                step,
                series,
                (_busy(site, step) - 1) * 10.0**-number + abs(float(rng.normal(0, 0.3 * 10.0**-number))),
            )
    if not site.quiet:
        window = [min(site.steps, key=lambda s, at=at: abs(s - at)) for at in (900, 4000, 2000)]
        site.add("transitions", *window, 0.93, 0.002, "births, deaths, drift")
    site.add("notes", "transitions", "the shift null has 999 shifts: no p-value below 0.001 can be seen")


def _probe_rows() -> list[tuple[Any, ...]]:
    words = HOSTILE + WORDS
    return [("probe", i, i // 8, i % 8, words[i % len(words)], *_around(words, i)) for i in range(90)]


def _around(words: list[str], row: int) -> tuple[str, str]:
    before = "".join(words[(row * 5 + j) % len(words)] for j in range(6))
    return before, " and so on" + words[(row * 3) % len(words)]


def _insert(run: SyntheticRun, table: str, rows: list[tuple[Any, ...]]) -> None:
    columns = run.connection.execute(
        "select column_name, data_type from duckdb_columns() where schema_name = 'raw' and table_name = ? "
        "order by column_index",
        [table],
    ).fetchall()
    kinds = {
        "VARCHAR": pa.string(),
        "BIGINT": pa.int64(),
        "DOUBLE": pa.float64(),
        "BOOLEAN": pa.bool_(),
        "BIGINT[]": pa.list_(pa.int64()),
    }
    arrays = {
        name: pa.array([row[i] for row in rows], kinds.get(kind, pa.map_(pa.string(), pa.float64())))
        for i, (name, kind) in enumerate(columns)
    }
    incoming = pa.table(arrays)  # noqa: F841 (DuckDB reads it by name)
    run.connection.execute(f"insert into raw.{table} select * from incoming")


def write_dictionaries(run: SyntheticRun, folder: Path, site: str, steps: list[int], d_in: int = 24) -> SyntheticRun:
    """The run with its chain's dictionaries on disk: each track keeps its direction, with some noise at every step."""
    run.path = folder
    directory = RunDirectory.create(folder)
    start = np.random.default_rng(0).normal(size=(512, d_in))
    statistics = pa.table({name: [] for name in LATENTS.names}, schema=LATENTS)
    for step in steps:
        decoder = torch.from_numpy(start + np.random.default_rng(step + 1).normal(size=start.shape) * 0.6).float()
        decoder /= decoder.norm(dim=1, keepdim=True)
        tensors = {
            "W_enc": decoder.T.contiguous(),
            "b_enc": torch.zeros(512),
            "W_dec": decoder,
            "b_dec": torch.zeros(d_in),
        }
        record = SaeRecord(
            site=site, arm="chain", step=step, architecture="topk", n_latents=512, fvu=0.1, l0=8.0, dead=0.0, k=8
        )
        write_sae(directory, record, tensors, statistics)
    return run


def publish(run: SyntheticRun, folder: Path) -> Path:
    """The history as the database of a run directory, renamed into place as the library does it."""
    private = folder / "private.duckdb"
    dynamics.store.database.create(private)
    run.connection.execute(f"attach '{private}' as history")
    tables = run.connection.execute("select table_name from duckdb_tables() where database_name = 'memory'").fetchall()
    for (table,) in tables:
        run.connection.execute(f"insert into history.raw.{table} select * from memory.raw.{table}")
    run.connection.execute("detach history")
    return private.replace(folder / "history.duckdb")
