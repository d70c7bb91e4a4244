from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from scipy.optimize import linear_sum_assignment
from scipy.stats import ortho_group

from dynamics.tracking import Checkpoint, History, Series, track
from dynamics.tracking.calibration import p_values, q_values
from dynamics.tracking.claims import CORE
from tests.tracking import gallery

TYPES: dict[str, pa.DataType] = {
    "bigint": pa.int64(),
    "double": pa.float64(),
    "varchar": pa.string(),
    "boolean": pa.bool_(),
    "bigint[]": pa.list_(pa.int64()),
    "map(varchar, double)": pa.map_(pa.string(), pa.float64()),
}
TABLES = {
    "pairs", "links", "event_candidates", "feature_history", "tracks", "onsets", "transitions", "change", "population",
    "resolution",
}  # fmt: skip
WITH_NULLS = [n for n in gallery.NAMES if n not in ("one_checkpoint", "two_checkpoints", "no_live_latents")]


@pytest.mark.parametrize("name", gallery.NAMES)
def test_the_gallery_is_published_as_it_was_planted(name: str) -> None:
    found = gallery.published(gallery.tracked(name).tables["event_candidates"])
    expected = gallery.case(name).expected
    assert Counter(kind for kind, _ in found) == Counter(kind for kind, _ in expected)
    for kind in {kind for kind, _ in expected}:
        a, b = (np.array([step for k, step in events if k == kind]) for events in (found, expected))
        apart = np.abs(a[:, None] - b)
        assert apart[linear_sum_assignment(apart)].max() <= 100


def columns() -> dict[str, dict[str, pa.DataType]]:
    """Every raw table of the schema with its columns, those that the tracking stage leaves to others taken out."""
    text = re.sub(r"--.*", "", files("dynamics.store").joinpath("schema.sql").read_text(encoding="utf-8"))
    tables = {}
    for name, body in re.findall(r"create table raw\.(\w+) \((.*?)\);", text, flags=re.DOTALL):
        declared = re.findall(r"(\w+) (map\(.*?\)|\w+(?:\[\])?)[^,]*(?:,|$)", " ".join(body.split()))
        tables[name] = {c: TYPES[t] for c, t in declared if c not in ("branch", "site")}
    return tables


def values(table: pa.Table) -> Iterator[object]:
    """Everything in a table, in its lists and maps too."""
    waiting: list[object] = [table.to_pylist()]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
        else:
            yield item


def check(history: History) -> dict[str, pa.Table]:
    """Tracks a history, and holds its tables against the schema."""
    return checked(track(history).tables)


def checked(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    assert set(tables) == TABLES
    for name, table in tables.items():
        assert {f.name: f.type for f in table.schema} == columns()[name], name
        bad = [v for v in values(table) if isinstance(v, float) and not math.isfinite(v)]
        assert not bad, name
    return tables


@pytest.mark.parametrize("name", gallery.NAMES)
def test_tables_are_the_databases_and_hold_numbers(name: str) -> None:
    checked(gallery.tracked(name).tables)


def odd(alter: Callable[[gallery.World], None], own: int = 1) -> History:
    w = gallery.world(own)
    alter(w)
    return gallery.history("odd", w, copies=1)


def alone(w: gallery.World) -> None:
    w.amplitude[:, 1:] = 0


def identical(w: gallery.World) -> None:
    w.codes[:, 1] = w.codes[:, 0]
    w.directions[:, 1] = w.directions[:, 0]


def constant(w: gallery.World) -> None:
    w.codes[:, 0] = 1.5


def silent_model(w: gallery.World) -> None:
    w.imagined[:] = 1
    w.amplitude[:] = 0


@pytest.mark.parametrize("alter", [alone, identical, constant])
def test_odd_dictionaries_give_whole_tables_and_no_event(alter: Callable[[gallery.World], None]) -> None:
    tables = check(odd(alter, own=2))
    assert gallery.published(tables["event_candidates"]) == ()


def test_a_model_that_is_noise_alone_gives_whole_tables() -> None:
    check(odd(silent_model))


def test_the_same_history_gives_the_same_tables() -> None:
    history, once = gallery.case("split").history, gallery.tracked("split")
    again = track(history)
    assert again.notes == once.notes
    for name, table in once.tables.items():
        assert table.equals(again.tables[name]), name


class Clothes:
    """The same history in other clothes: latents in another order, the space turned, the rows in another order."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(4)
        self.rows = self.rng.permutation(gallery.ROWS)

    def of(self, history: History) -> History:
        nulls = {seed: self.series(series) for seed, series in history.nulls.items()}
        return replace(history, chain=self.series(history.chain), nulls=nulls, sequence=history.sequence[self.rows])

    def series(self, series: Series) -> Series:
        turn = ortho_group.rvs(series[0].activations.shape[1], random_state=self.rng).astype(np.float32)
        dressed = [self.checkpoint(c, turn) for c in series]
        return Series(series.steps, dressed.__getitem__)

    def checkpoint(self, c: Checkpoint, turn: np.ndarray) -> Checkpoint:
        order = self.rng.permutation(c.n_live)
        return replace(
            c,
            activations=np.ascontiguousarray(c.activations[self.rows] @ turn),
            codes=sp.csc_array(c.codes.tocsr()[self.rows][:, order]),
            decoder=np.ascontiguousarray(c.decoder[order] @ turn),
            latents=c.latents[order],
        )


@pytest.mark.parametrize("name", ["split"])
def test_events_do_not_depend_on_the_order_of_latents_or_rows_nor_on_the_basis(name: str) -> None:
    plain = gallery.tracked(name).tables["event_candidates"]
    dressed = track(Clothes().of(gallery.case(name).history)).tables["event_candidates"]
    assert gallery.published(dressed) == gallery.published(plain)
    assert whom(dressed) == whom(plain)


def whom(table: pa.Table) -> list[tuple[object, ...]]:
    """Kind, date and latents of the published events."""
    rows = [r for r in table.to_pylist() if r["arm"] == "chain" and r["reason"] is None and (r["q_value"] or 0) <= 0.1]
    return sorted((r["kind"], r["step"], tuple(sorted(r["parents"])), tuple(sorted(r["children"]))) for r in rows)


@pytest.mark.parametrize(
    ("name", "events"),
    [
        ("birth", [("birth", 300, (), (0,))]),
        ("death", [("death", 400, (0,), ())]),
        ("gap", [("dormancy", 300, (0,), (0,))]),
        ("split", [("split", 300, (0,), (1, 2))]),
        ("merge", [("merge", 300, (1, 2), (0,))]),
        ("rotation", [("rotation", 300, (0,), (0,))]),
        ("transient", [("birth", 200, (), (0,)), ("death", 500, (0,), ())]),
    ],
)
def test_events_name_the_latents(name: str, events: list[tuple[object, ...]]) -> None:
    assert whom(gallery.tracked(name).tables["event_candidates"]) == events


def test_a_bud_names_the_feature_that_it_grew_in() -> None:
    assert ("birth", 300, (0,), (1,)) in whom(gallery.tracked("bud").tables["event_candidates"])


@pytest.mark.parametrize(
    ("name", "kind", "sides"),
    [
        ("birth", "birth", (None, 300)),
        ("death", "death", (300, None)),
        ("split", "split", (200, 300)),
    ],
)
def test_events_name_the_checkpoints_between_which_they_were_seen(
    name: str, kind: str, sides: tuple[int | None, int | None]
) -> None:
    [row] = [
        r
        for r in gallery.tracked(name).tables["event_candidates"].to_pylist()
        if (r["arm"], r["kind"], r["reason"]) == ("chain", kind, None) and r["q_value"] <= 0.1
    ]
    assert (row["from_step"], row["to_step"]) == sides


@pytest.mark.parametrize("name", WITH_NULLS)
def test_p_and_q_values_can_be_recomputed_from_the_tables(name: str) -> None:
    tables = gallery.tracked(name).tables
    sizes = {r["kind"]: r for r in tables["resolution"].to_pylist()}
    rows = tables["event_candidates"].to_pylist()
    above = {k: np.array([r["score"] for r in rows if r["kind"] == k and r["arm"] == "null"]) for k in sizes}
    for kind, size in sizes.items():
        chain = [r for r in rows if r["kind"] == kind and r["arm"] == "chain"]
        null = np.concatenate([above[kind], np.zeros(size["null_candidates"] - len(above[kind]))])
        kindred = np.concatenate([above[k] for k in CORE]) if kind in CORE else None
        p = p_values(np.array([r["score"] for r in chain], dtype=float), null, kindred)
        np.testing.assert_allclose([r["p_value"] for r in chain], p)
        tested = [n for n, r in enumerate(chain) if r["reason"] is None]
        q = q_values(p[tested], size["tests"])
        np.testing.assert_allclose([chain[n]["q_value"] for n in tested], q)


@pytest.mark.parametrize("name", WITH_NULLS)
def test_no_q_value_is_below_what_the_resolution_says(name: str) -> None:
    tables = gallery.tracked(name).tables
    published = Counter(kind for kind, _ in gallery.published(tables["event_candidates"]))
    for row in tables["resolution"].to_pylist():
        of_kind = [
            r for r in tables["event_candidates"].to_pylist() if r["arm"] == "chain" and r["kind"] == row["kind"]
        ]
        least = min((r["q_value"] for r in of_kind), default=1.0)
        assert least >= row["smallest_p"] * row["tests"] / max(published[row["kind"]], 1) - 1e-12


@pytest.mark.parametrize("name", WITH_NULLS)
def test_event_names_are_unique(name: str) -> None:
    names = gallery.tracked(name).tables["event_candidates"]["event"].to_pylist()
    assert len(set(names)) == len(names)
    assert all(n.startswith(f"{name}:") for n in names)


@pytest.mark.parametrize("name", WITH_NULLS)
def test_links_histories_and_tracks_tell_the_same_story(name: str) -> None:
    tables = gallery.tracked(name).tables
    of = {(r["step"], r["latent"]): r["track"] for r in tables["feature_history"].to_pylist()}
    assert len(of) == len(tables["feature_history"])
    for r in tables["links"].to_pylist():
        assert of[r["from_step"], r["from_latent"]] == of[r["to_step"], r["to_latent"]]
        assert r["to_step"] - r["from_step"] == 100 * (r["gap"] + 1)
    seen = Counter(of.values())
    assert sum(n - 1 for n in seen.values()) == len(tables["links"])
    for r in tables["tracks"].to_pylist():
        steps = [step for (step, _), t in of.items() if t == r["track"]]
        assert (r["first_step"], r["last_step"], r["checkpoints"]) == (min(steps), max(steps), len(steps))
        assert (r["left_censored"], r["right_censored"]) == (min(steps) == 0, max(steps) == 600)
    live = Counter(step for step, _ in of)
    for r in tables["population"].to_pylist():
        assert r["live"] == live[r["step"]]
        assert r["live"] + r["dead"] == gallery.case(name).history.n_latents


@pytest.mark.parametrize(("name", "joined"), [("split", 3), ("merge", 3), ("birth", 1), ("noise", 1)])
def test_splits_and_merges_join_lineages(name: str, joined: int) -> None:
    lineage = Counter(r["lineage"] for r in gallery.tracked(name).tables["tracks"].to_pylist())
    assert max(lineage.values()) == joined


@pytest.mark.parametrize("name", ["split", "merge"])
def test_a_division_cuts_the_tracks_that_it_joins(name: str) -> None:
    tracks = gallery.tracked(name).tables["tracks"].to_pylist()
    spans = sorted((r["first_step"], r["last_step"]) for r in tracks if r["checkpoints"] < gallery.CHECKPOINTS)
    expected = [(0, 200), (300, 600), (300, 600)] if name == "split" else [(0, 200), (0, 200), (300, 600)]
    assert spans == expected


def test_the_pairs_of_every_arm_are_listed() -> None:
    rows = gallery.tracked("gap").tables["pairs"].to_pylist()
    arms = Counter((r["arm"], r["seed"]) for r in rows)
    nulls = {("null", seed): gallery.CHECKPOINTS - 1 for seed in range(gallery.NULLS)}
    assert arms == Counter({("chain", 0): gallery.CHECKPOINTS, **nulls})  # six neighbours and one gap
    assert sum(r["links"] for r in rows if r["arm"] == "chain") == len(gallery.tracked("gap").tables["links"])
    [threshold] = {r["threshold"] for r in rows}
    assert 0 < threshold < min(r["score"] for r in gallery.tracked("gap").tables["links"].to_pylist())


def test_activations_are_told_in_the_models_own_units() -> None:
    rows = gallery.tracked("rescaled").tables["feature_history"].to_pylist()
    early, late = (np.mean([r["mean_activation"] for r in rows if r["step"] == step]) for step in (0, 600))
    assert early == pytest.approx(1.5, abs=0.05)
    assert late == pytest.approx(7.5, abs=0.25)


def test_what_cannot_be_told_is_said() -> None:
    assert any("nothing to compare it with" in n for n in gallery.tracked("one_checkpoint").notes)
    assert any(
        "cannot be told from 2 checkpoints" in n and "birth" in n for n in gallery.tracked("two_checkpoints").notes
    )
    assert any("transition cannot be told from 7 checkpoints" in n for n in gallery.tracked("birth").notes)


def test_without_a_null_nothing_is_published_but_dormancies() -> None:
    without = {name: replace(gallery.case(name).history, nulls={}) for name in ("birth", "gap")}
    birth, gap = (track(h) for h in without.values())
    assert gallery.published(birth.tables["event_candidates"]) == ()
    assert gallery.published(gap.tables["event_candidates"]) == (("dormancy", 300),)
    assert any(n.startswith("no null series yet") for n in birth.notes)
