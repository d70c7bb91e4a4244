"""What the charts of whole populations say, on histories small enough to count by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynamics import charts
from dynamics.capture.probe import ProbeRows
from dynamics.charts.theme import MARKS, counting
from dynamics.files.layout import RunDirectory
from dynamics.files.probes import write_probe
from dynamics.files.saes import LATENTS, SaeRecord, write_sae
from dynamics.files.snapshots import SnapshotRecord, write_snapshot
from tests.charts.synthetic import SyntheticRun, empty_run, synthetic_run
from tests.charts.test_charts import marks, subtitle, title

SITE = "a"


def lives(spans: list[tuple[int, int]], checkpoints: int, lineages: int | None = None) -> SyntheticRun:
    """A history in which feature i lives from its first to its last checkpoint; steps are 10 times their number."""
    run = empty_run()
    for step in range(0, 10 * checkpoints, 10):
        run.connection.execute(f"insert into raw.snapshots (branch, site, step) values ('b0', '{SITE}', {step})")
        run.connection.execute(f"insert into raw.population (branch, site, step) values ('b0', '{SITE}', {step})")
    rows = [
        ("b0", SITE, i, i % (lineages or len(spans)), 10 * a, 10 * b, b - a + 1, a == 0, b == checkpoints - 1)
        for i, (a, b) in enumerate(spans)
    ]
    run.connection.executemany("insert into raw.tracks values (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    return run


def data(chart: Any) -> list[dict[str, Any]]:
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]


def test_survival_counts_what_is_alive_as_censored() -> None:
    # Of four that begin at checkpoint 1, one is gone after 1 checkpoint, one after 2, two live on: 3/4, then 1/2.
    chart = charts.survival(lives([(1, 1), (1, 2), (1, 5), (1, 5), (0, 5)], 6), SITE)
    early = {row["age"]: row["share"] for row in data(chart) if row["group"].startswith("early")}
    assert early[1] == pytest.approx(0.75)
    assert early[2] == pytest.approx(0.5)
    assert title(chart) == "Of 4 features that began later, half are gone after 2 checkpoints"


def test_one_feature_is_no_plural() -> None:
    run = lives([(1, 1)], 4)
    run.connection.execute("insert into raw.onsets values ('b0', 'a', 0, 10, 10, 10, null)")
    assert title(charts.survival(run, SITE)) == "The only feature that began later is gone after 1 checkpoint"
    assert title(charts.onsets(run, SITE)).endswith("first checkpoint already, the other by step 10")
    alive = charts.survival(lives([(1, 3)], 4), SITE)
    assert title(alive) == "Every feature that began later lives on to the last checkpoint (1)"
    for draw in (charts.survival, charts.onsets, charts.flow):
        assert "1 features" not in title(draw(run, SITE))


@pytest.mark.parametrize(
    ("largest", "ticks"), [(0, [0]), (1, [0, 1]), (2, [0, 1, 2]), (13, [0, 5, 10, 15]), (90, [0, 50, 100])]
)
def test_counts_have_whole_ticks(largest: int, ticks: list[int]) -> None:
    assert counting([largest, 0], 3).to_dict()["values"] == ticks


def p_of(chart: Any) -> float:
    [p] = re.findall(r"early and late p = ([0-9e.-]*[0-9])", subtitle(chart))
    return float(p)


def test_survival_tells_groups_apart_by_log_rank() -> None:
    early = [(1, 1 + i % 3) for i in range(30)]
    assert p_of(charts.survival(lives([*early, *[(11, 11 + i % 3) for i in range(30)]], 16), SITE)) > 0.9
    assert p_of(charts.survival(lives([*early, *[(11, 13 + i % 2) for i in range(30)]], 16), SITE)) < 1e-6
    alike = charts.survival(lives([(1, 1)] * 5 + [(11, 11)] * 5, 16), SITE)
    assert "Too few groups with ends to compare" in subtitle(alike)


@pytest.mark.parametrize("tracks", [20, 200, 2_000])
def test_flow_leaves_no_track_out(tracks: int) -> None:
    rng = np.random.default_rng(tracks)
    first = rng.integers(0, 30, tracks) * (rng.random(tracks) < 0.6)
    spans = [(int(a), int(min(29, a + rng.integers(0, 30)))) for a in first]
    run = lives(spans, 30)
    chart = charts.flow(run, SITE)
    blocks = [row for row in data(chart) if "step" in row]
    for step in {row["step"] for row in blocks}:
        alive = sum(10 * a <= step <= 10 * b for a, b in spans)
        assert sum(row["tracks"] for row in blocks if row["step"] == step) == alive
    assert len({row["step"] for row in blocks}) == 8
    assert len({row["band"] for row in blocks}) <= 24
    assert marks(chart) <= MARKS
    seen = sum(any(10 * a <= step <= 10 * b for step in {row["step"] for row in blocks}) for a, b in spans)
    unseen = f"{tracks - seen} track"
    assert (unseen in title(chart)) == (seen < tracks)


def test_presence_is_the_share_of_the_final_features() -> None:
    run = lives([(0, 3), (2, 3), (3, 3), (3, 3), (0, 1)], 4)
    run.connection.execute(
        """
        insert into raw.feature_history (branch, site, track, step)
            select 'b0', t.site, t.track, s.step from raw.tracks t join raw.snapshots s
            on s.step between t.first_step and t.last_step;
        insert into raw.onsets select 'b0', site, track, 0, 0, 0, 'left' from raw.tracks;
        """
    )
    rows = data(charts.presence(run, SITE))
    assert [row["share"] for row in rows if row["clock"] == "in the dictionary"] == [0.25, 0.25, 0.5, 1]
    assert {row["share"] for row in rows if row["clock"].startswith("readable")} == {1}


def test_links_near_the_cut_off_are_counted() -> None:
    run = empty_run()
    run.connection.execute(
        """
        insert into raw.snapshots (branch, site, step) values ('b0', 'a', 0), ('b0', 'a', 1);
        insert into raw.links (branch, site, from_step, from_latent, to_step, to_latent, score, margin, reciprocal, gap)
            select 'b0', 'a', 0, i, 1, i, 0.5 + 0.05 * i, 0.3, true, 0 from range(10) t(i);
        """
    )
    chart = charts.scores(run, SITE)
    assert title(chart) == "100% of the links are clear of every other candidate; none scores below 0.50"
    assert "20.0% lie within 0.1 of the smallest accepted score" in subtitle(chart)
    run.connection.execute("insert into raw.pairs (branch, site, arm, threshold) values ('b0', 'a', 'chain', 0.45)")
    chart = charts.scores(run, SITE)
    assert "10.0% lie within 0.1 of the cut-off" in subtitle(chart)
    assert "cut-off 0.45" in str(chart.to_dict())
    gaps = {row["gap"]: row["links"] for row in data(chart) if "gap" in row}
    assert gaps == {0: 10, 1: 0, 2: 0, 3: 0}


@pytest.mark.parametrize(("early", "cut"), [(4, False), (90, True)])
def test_what_was_there_at_first_leaves_room_for_what_came(early: int, cut: bool) -> None:
    run = lives([(0, 3)] * early + [(1, 3), (2, 3), (2, 3)], 4)
    run.connection.execute(
        "insert into raw.onsets select 'b0', site, track, first_step, first_step, first_step, "
        "case when left_censored then 'left' end from raw.tracks"
    )
    chart = charts.onsets(run, SITE)
    assert ("The first bar is cut off" in subtitle(chart)) == cut
    assert sum(row["features"] for row in data(chart) if "when" in row) == early + 3
    assert [row["text"] for row in data(chart) if "text" in row] == ([str(early)] if cut else [])


def test_bubbles_have_the_area_of_their_number_and_room() -> None:
    chart = charts.events(synthetic_run(90))
    [area] = {str(panel["layer"][0]["encoding"]["size"]["scale"]) for panel in chart.to_dict()["vconcat"]}
    assert "'domain': [0, " in area
    assert "'range': [12.0, 12.0, " in area  # a single event beside hundreds is still seen
    assert len({row["step"] for row in data(chart)}) <= 60
    assert "90 checkpoints are drawn as" in subtitle(chart)


def test_a_concept_comes_when_a_latent_fires_on_its_rows(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run")
    rows, concept, long = 40, np.arange(40) < 8, "any other row of them all, " * 4
    write_probe(
        directory, "p", ProbeRows(np.arange(rows), np.zeros(rows, int), None, {"digit": concept, long: ~concept})
    )
    for step in range(5):
        x = 0.1 + torch.rand(rows, 3, generator=torch.Generator().manual_seed(step))
        x[:, 0] = torch.from_numpy(concept if step >= 3 else np.arange(rows) % 2 == 0) * 5.0
        write_snapshot(directory, SnapshotRecord(site=SITE, step=step, probe="p"), x)
        tensors = {
            "W_enc": torch.eye(3),
            "b_enc": -torch.tensor([1.0, 0, 0]),
            "W_dec": torch.eye(3),
            "b_dec": torch.zeros(3),
        }
        record = SaeRecord(
            site=SITE, arm="chain", step=step, architecture="relu", n_latents=3, fvu=0.0, l0=1.0, dead=0.0
        )
        write_sae(directory, record, tensors, LATENTS.empty_table())
    run = empty_run(tmp_path / "run")
    run.connection.execute("insert into raw.snapshots (branch, site, step) select 'b0', 'a', i from range(5) t(i)")
    run.connection.execute(
        "insert into raw.feature_history (branch, site, track, step, latent) values ('b0', 'a', 7, 4, 0)"
    )
    chart = charts.concepts(run, SITE)
    assert title(chart) == "1 of 2 concepts gets a better feature than at first: digit from step 3"
    scores = {row["step"]: row["f1"] for row in data(chart) if row.get("concept") == "digit"}
    assert scores[4] == 1
    panels = re.findall(r"'text': '(.*?: (?:from|no) .*?)'", str(chart.to_dict()["vconcat"]))
    assert panels[0] == "digit: from step 3, at last track 7"
    assert panels[1].startswith("any other row of them all")
    assert len(panels[1]) < 120
    assert panels[1].endswith("…: no better at last")


def test_without_concepts_it_says_how_to_give_some(tmp_path: Path) -> None:
    run = empty_run(RunDirectory.create(tmp_path / "run").path)
    run.connection.execute("insert into raw.snapshots (branch, site, step) values ('b0', 'a', 0)")
    assert "give concepts= to the Recorder" in str(charts.concepts(run, SITE).to_dict())
