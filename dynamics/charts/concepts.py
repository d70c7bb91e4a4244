"""From when on a feature stands for a concept that the user named by a mask over the probe's rows."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

from dynamics.answers import counted
from dynamics.charts.picture import finished, layered, sentence, stacked
from dynamics.charts.rows import History, Row, Source
from dynamics.charts.steps import StepAxis
from dynamics.charts.theme import FAINT, INK, KINDS, MARKS, WIDTH, harmless, listed, values
from dynamics.files.layout import RunDirectory
from dynamics.files.probes import load_probe
from dynamics.files.saes import SaeRecord, load_sae, sae_records
from dynamics.files.snapshots import SnapshotRecord, load_activations, snapshots

TRACKS = "select step, latent, track from feature_history where site = $site"
MOST = 40
"""Most checkpoints that are read from files; of more, evenly many are."""
BETTER = 0.1
"""How much F1 has to rise from the first to the last checkpoint."""
NAME = 32
"""Characters of a concept's name in the headline; tooltips have all of it."""
LETTER = 5.6
"""Pixels of a letter above a panel, about."""


def concepts(run: History, site: str) -> Any:
    """For each concept of the probe, how well its best feature marks it at each checkpoint: a panel a concept.

    F1 in [0, 1] between the rows where a latent fires and the rows of the concept, of the latent that is best at that
    checkpoint; dashed: the best at the first checkpoint, which is what an untrained network gives. A dot names the
    track. The onset, a triangle, is the first checkpoint from which on F1 stays above the middle between the first
    and the last. Reads activations and dictionaries from the run's files.

    Raises:
        ValueError: if the run has no such site.
        OSError: if its files are gone.
    """
    source = Source(run)
    source.site(site)
    found = _scores(RunDirectory.open(run.path), site)
    if not found:
        return sentence(
            "The probe has no named row masks, or no checkpoint has activations and a dictionary: give concepts= to "
            "the Recorder.", f"Concepts at {site}", source.text,
        )  # fmt: skip
    track = {(row["step"], row["latent"]): row["track"] for row in source.rows(TRACKS, site=site)}
    rows = [{**row, "track": track.get((row["step"], row["latent"]), "none")} for row in found]
    told = [
        _onset([row for row in rows if row["concept"] == name]) for name in dict.fromkeys(r["concept"] for r in rows)
    ]
    told.sort(key=lambda row: (row["step"] is None, row["step"], -row["last"]))
    most = MARKS // (3 * len({row["step"] for row in rows}))
    drawn = _panels(StepAxis.over(row["step"] for row in rows), rows, told[:most])
    left = f" The first {most} by onset are drawn, {len(told) - most} more are not." if len(told) > most else ""
    subtitle = [
        f"{site}. F1 between where the best latent fires and the concept's rows; dashed: at the first checkpoint. "
        f"Triangle: stays above the middle between first and last from there on.{left}"
    ]
    return finished(drawn, _message(told), subtitle, source.text)


def _scores(run: RunDirectory, site: str) -> list[Row]:
    """The best latent for each concept at each checkpoint that has both files."""
    saes = {record.step: record for record in sae_records(run, site, arm="chain")}
    shots = [shot for shot in snapshots(run, site) if shot.step in saes]
    kept = [shots[i] for i in sorted({round(i) for i in np.linspace(0, len(shots) - 1, min(MOST, len(shots)))})]
    return [row for shot in kept for row in _at(run, shot, saes[shot.step])]


def _at(run: RunDirectory, shot: SnapshotRecord, record: SaeRecord) -> list[Row]:
    masks = {name: mask for name, mask in load_probe(run, shot.probe).masks.items() if mask.any()}
    if not masks:
        return []
    fires = (load_sae(run, record).encode_sparse(load_activations(run, shot)) > 0).astype(np.float64)
    f1 = _f1(fires, np.stack(list(masks.values()), axis=1).astype(np.float64))
    best = f1.argmax(axis=0)
    return [
        {"concept": name, "step": shot.step, "latent": int(best[i]), "f1": float(f1[best[i], i])}
        for i, name in enumerate(masks)
    ]


def _f1(fires: csr_array, masks: Float[np.ndarray, "rows concepts"]) -> Float[np.ndarray, "latents concepts"]:
    """2 |both| / (|fires| + |concept|)."""
    both = fires.T @ masks
    sizes = np.asarray(fires.sum(axis=0)).reshape(-1, 1) + masks.sum(axis=0)
    return np.asarray(2 * both / np.maximum(sizes, 1))


def _onset(rows: list[Row]) -> Row:
    """When a concept came, in the order of steps; no step where it did not come, or was there at first."""
    first, last = rows[0]["f1"], rows[-1]["f1"]
    above = [row["f1"] >= (first + last) / 2 for row in rows]
    start = len(above) - next((i for i, up in enumerate(reversed(above)) if not up), len(above))
    came = last > first + BETTER
    shared = {"concept": rows[0]["concept"], "first": first, "last": last, "f1": rows[start]["f1"] if came else None}
    return {**shared, "step": rows[start]["step"] if came else None, "track": rows[-1]["track"]}


def _message(told: list[Row]) -> str:
    came = [row for row in told if row["step"] is not None]
    if not came:
        return f"None of {counted(len(told), 'concept')} ends with a better feature than at first"
    first = listed(f"{_cut(row['concept'], NAME)} from step {row['step']:,}" for row in came[:3])
    more = f", {len(came) - 3} more later" if len(came) > 3 else ""
    gets = "gets" if len(came) == 1 else "get"
    who = f"{len(came)} of {counted(len(told), 'concept')} {gets} a better feature than at first"
    return f"{who}: {first}{more}"


def _panels(axis: StepAxis, rows: list[Row], told: list[Row]) -> Any:
    across = 2 if len(told) > 3 else 1
    narrow = StepAxis(axis.steps, WIDTH // across - 34 * (across - 1)) if across > 1 else axis
    panels = [
        _panel(narrow, [r for r in rows if r["concept"] == one["concept"]], one, lowest=i >= len(told) - across)
        for i, one in enumerate(told)
    ]
    lines = [alt.hconcat(*panels[i : i + across], spacing=24) for i in range(0, len(panels), across)]
    return stacked(lines, spacing=10)


def _panel(axis: StepAxis, rows: list[Row], told: Row, *, lowest: bool) -> Any:
    y = alt.Y("f1:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(values=[0, 0.5, 1], format=".1f"))
    tooltip = [
        alt.Tooltip("concept:N"), alt.Tooltip("step:Q", format=",d"), alt.Tooltip("f1:Q", title="F1", format=".2f"),
        alt.Tooltip("track:N"), alt.Tooltip("latent:Q", format="d"),
    ]  # fmt: skip
    base = alt.Chart(values(rows)).encode(x=axis.x(labels=lowest), y=y, tooltip=tooltip)
    layers = [
        alt.Chart(values([{"f1": told["first"]}])).mark_rule(color=FAINT, strokeDash=[4, 3]).encode(y=y),
        base.mark_line(color=FAINT, strokeWidth=1.4),
        base.mark_point(filled=True, opacity=1, color=INK, size=18),
    ]
    if told["step"] is not None:
        mark = alt.Chart(values([told])).mark_point(
            shape="triangle-up", filled=True, size=130, opacity=1, color=KINDS["birth"]
        )
        layers.append(mark.encode(x=axis.x(labels=lowest), y=y, tooltip=tooltip[:3]))
    carried = "" if told["track"] == "none" else f", at last track {told['track']}"
    when = f"from step {told['step']:,}{carried}" if told["step"] is not None else "no better at last"
    named = f"{_cut(told['concept'], max(int(axis.width / LETTER) - len(when), NAME // 2))}: {when}"
    title = alt.TitleParams(
        harmless(named), limit=axis.width + 24, fontSize=11, fontWeight="normal", offset=7, anchor="start"
    )
    return layered(*layers, width=axis.width, height=70, title=title)


def _cut(name: str, room: int) -> str:
    """At most ``room`` characters of it."""
    return name if len(name) <= room else f"{name[: room - 1].rstrip()}…"
