"""The judge is judged: a perfect report scores 1, each kind of mistake costs what the rules say."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch

from dynamics.sae.autoencoder import SparseAutoencoder
from studies.planted import baselines
from studies.planted.clothes import Clothes, DressedWorld, clothes
from studies.planted.config import PRESETS, Shares, preset
from studies.planted.matching import Assignments, assign, correlation, oracle_assignments
from studies.planted.oracle import fit_sae
from studies.planted.plan import NEAR, zipf_densities
from studies.planted.report import Report
from studies.planted.scoring import Scores, ceiling, score
from studies.planted.table import figures, table
from studies.planted.truth import KINDS, Truth
from studies.planted.worlds import World

SMALL = {"d": 32, "features": 100, "rows": 2000, "rarest": 0.01}


@cache
def small(name: str, seed: int = 0) -> World:
    return World(preset(name, **SMALL), seed)


@cache
def known(name: str) -> Assignments:
    return oracle_assignments(small(name))


def perfect(truth: Truth, assignments: Assignments) -> Report:
    """What a tracker that knows everything would say."""
    steps, events = truth.steps, []
    for event in truth.events:
        before = steps[0] if event.kind == "drift" else steps[event.checkpoint - 1]
        after = steps[event.until or event.checkpoint]
        parents = [assignments[before].principal[feature] for feature in event.parents]
        children = [assignments[after].principal[feature] for feature in event.children]
        times = {"step": steps[event.checkpoint], "from_step": before, "to_step": after}
        events.append({"kind": event.kind, **times, "parents": parents, "children": children})
    links = [
        {"from_step": a, "from_latent": assignments[a].principal[f], "to_step": b, "to_latent": latent}
        for a, b in pairwise(steps)
        for f, latent in assignments[b].principal.items()
        if f in assignments[a].principal
    ]
    history = [
        {"track": feature, "step": step, "latent": latent}
        for step in steps
        for feature, latent in assignments[step].principal.items()
    ]
    windows = [{"from_step": window.from_step, "to_step": window.to_step} for window in truth.transitions]
    return Report(events, links, history, windows)


def scored(name: str, **changes: object) -> Scores:
    report = perfect(small(name).truth, known(name))
    return score(small(name).truth, known(name), replace(report, **changes))  # type: ignore[arg-type]


# --- worlds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_generated(name: str) -> None:
    world = small(name)
    x, oracle = world.activations(6), world.oracle(6)
    assert x.shape == (2000, 32)
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    np.testing.assert_allclose(np.linalg.norm(oracle.directions, axis=1), 1, atol=1e-6)
    assert oracle.codes.shape == (2000, len(oracle.features))
    assert sum(feature.alive[0] for feature in world.truth.features) == 100


def test_a_world_is_its_seed() -> None:
    again = World(preset("hard", **SMALL), 0)
    np.testing.assert_array_equal(small("hard").activations(4), again.activations(4))
    assert small("hard").truth == again.truth
    assert small("hard").truth != small("hard", 1).truth


def test_shares_are_kept() -> None:
    truth = World(preset("hard", rows=100), 0).truth
    counts = {kind: len(truth.of_kind(kind)) for kind in KINDS}
    born_near, died_near = 5 + 5, 5  # siblings and replacements are births, replacements are deaths
    assert counts == {
        "birth": 16 + born_near, "death": 16 + died_near, "split": 10, "merge": 8, "rotation": 10, "drift": 19,
        "dormancy": 10,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_events_leave_time_to_be_seen(seed: int) -> None:
    truth = World(preset("confounds", rows=100), seed).truth
    for event in truth.events:
        if event.kind in ("birth", "death", "split", "merge"):
            assert all(sum(truth.features[f].alive[event.checkpoint :]) >= 3 for f in event.children)
            assert all(
                sum(truth.features[f].alive[: event.checkpoint]) >= 3 for f in event.parents if event.plan != "bud"
            )
    assert len({event.checkpoint for event in truth.of_kind("birth")}) > 5


def test_children_are_near_their_parent_and_part_its_rows() -> None:
    world = World(preset("clean", d=64, features=100, rows=4000), 0)
    for event in world.truth.of_kind("split"):
        before, after = world.oracle(event.checkpoint - 1), world.oracle(event.checkpoint)
        parent = before.where(event.parents[0])
        children = [after.where(child) for child in event.children]
        cosines = after.directions[children] @ before.directions[parent]
        assert ((cosines > NEAR[0] - 1e-3) & (cosines < NEAR[1] + 1e-3)).all()
        fires = after.codes[:, children].toarray() > 0
        assert fires.sum(axis=1).max() == 1
        np.testing.assert_array_equal(fires.any(axis=1), before.codes[:, [parent]].toarray().ravel() > 0)


@pytest.mark.parametrize("rare_tail", [False, True])
def test_densities_add_up_and_stay_in_range(rare_tail: bool) -> None:
    config = preset("harsh", rare_tail=rare_tail)
    densities = zipf_densities(config, 160)
    assert densities.sum() == pytest.approx(8, rel=1e-3)
    assert densities.min() >= 0.002
    assert densities.max() <= 0.3
    assert (densities.min() == pytest.approx(0.002)) == rare_tail


def test_still_rows_are_the_same_and_nothing_has_fresh_noise_only() -> None:
    still, nothing = small("still"), small("nothing")
    np.testing.assert_array_equal(still.activations(0), still.activations(11))
    assert not np.array_equal(nothing.activations(0), nothing.activations(11))
    assert abs(nothing.codes(0) - nothing.codes(11)).max() == 0
    np.testing.assert_array_equal(nothing.directions(0), nothing.directions(11))
    assert still.truth.events == nothing.truth.events == ()


def test_hard_is_as_hard_as_it_says() -> None:
    config = preset("hard", shares=Shares(), growth=1.0, jump=1.0)
    world = World(config, 0)
    noise, background = world._noise(3), world._background(3)
    assert np.sqrt((noise**2).sum(1).mean()) == pytest.approx(0.9, rel=0.05)
    assert (noise * world._noise(4)).sum() / (noise**2).sum() == pytest.approx(0.5, abs=0.05)
    assert np.sqrt((np.asarray(background) ** 2).sum(1).mean()) == pytest.approx(0.8 * 2, rel=0.2)
    one, other = world.oracle(3), world.oracle(4)
    kept = ((one.codes > 0).multiply(other.codes > 0)).sum() / (one.codes > 0).sum()
    assert kept == pytest.approx(0.9**2, abs=0.05)  # a little more: fresh rows may have been there by chance
    assert (one.codes > 0).sum() / config.rows == pytest.approx(10, rel=0.1)
    angles = np.degrees(np.arccos(np.clip((one.directions * other.directions).sum(1), -1, 1)))
    assert np.median(angles) == pytest.approx(np.hypot(0.7, 0.7), rel=0.15)


def test_scale_grows_with_one_jump() -> None:
    world = small("hard")
    scales = np.array([world.scale(i) for i in range(12)])
    assert scales[-1] / scales[0] == pytest.approx(6)
    assert (scales[1:] / scales[:-1] > 1.5).sum() == 1


def test_buds_and_subsets_fire_inside_their_host() -> None:
    world = small("confounds")
    bud = next(event for event in world.truth.events if event.plan == "bud")
    oracle = world.oracle(bud.checkpoint)
    child, host = (oracle.codes[:, [oracle.where(f)]].toarray() > 0 for f in (bud.children[0], bud.parents[0]))
    assert child.any()
    assert not (child & ~host).any()


def test_planted_artefacts_are_in_the_oracle_and_not_in_the_truth() -> None:
    world = small("confounds")
    (at, parent, child), (since, twice) = world.plan.absorbed[0], world.plan.duplicated[0]
    before, after = world.oracle(at - 1), world.oracle(at)
    both = before.codes[:, [before.where(parent)]].multiply(before.codes[:, [before.where(child)]]).nnz
    assert both > 0
    assert after.codes[:, [after.where(parent)]].multiply(after.codes[:, [after.where(child)]]).nnz == 0
    assert (world.oracle(since).features == twice).sum() == 2
    named = {feature for event in world.truth.events for feature in event.parents + event.children}
    assert not named & {parent, child, twice}


def test_uneven_steps_grow_and_truth_survives_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    world = World(preset("transition", **{**SMALL, "rows": 100}, uneven=True), 0)
    assert (np.diff(world.steps) > 0).all()
    assert len(set(np.diff(world.steps))) > 3
    world.write(tmp_path)
    assert len(list(tmp_path.glob("step_*.safetensors"))) == 12
    assert Truth.read(tmp_path / "truth.json") == world.truth


def test_mistakes_in_the_settings_name_the_nearest_and_the_field() -> None:
    with pytest.raises(ValueError, match=r"no preset 'hrad'; did you mean 'hard'\?"):
        preset("hrad")
    with pytest.raises(ValueError, match=r"no clothes 'rotate'; did you mean 'rotated'\?"):
        clothes("rotate")
    with pytest.raises(ValueError, match="events need at least 7 checkpoints, got 4"):
        preset("hard", checkpoints=4)
    with pytest.raises(ValueError, match="the shares ask for more than 160 features"):
        World(preset("hard", shares=Shares(deaths=0.7, drifts=0.7)), 0)


def test_clothes_change_nothing_but_the_clothes() -> None:
    world, worn = small("hard"), Clothes(factor=1e3, rotated=True, permuted=True, missing=5)
    dressed = DressedWorld(world, worn)
    assert len(dressed.steps) == 11
    assert world.steps[5] not in dressed.steps
    x, y = world.activations(6), dressed.activations(5)
    np.testing.assert_allclose(sorted((x**2).sum(1)), np.sort((y**2).sum(1)) / 1e6, rtol=1e-3)
    true, worn_true = world.oracle(6), dressed.oracle(5)
    np.testing.assert_allclose(
        np.sort((x @ true.directions.T).sum(1)), np.sort((y @ worn_true.directions.T).sum(1)) / 1e3, atol=1e-2
    )
    assignments = oracle_assignments(dressed)
    assert score(dressed.truth, assignments, perfect(dressed.truth, assignments)).core.f1 == 1


# --- matching -------------------------------------------------------------------------------------------------


def test_latents_are_found_through_order_noise_and_duplicates() -> None:
    truth = small("hard").oracle(3)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(truth.features))
    decoder = truth.directions[order] + 0.03 * rng.standard_normal(truth.directions.shape)
    decoder = np.vstack([decoder, decoder[:1], rng.standard_normal((5, 32))])
    codes = np.hstack([truth.codes.toarray()[:, order], truth.codes.toarray()[:, order[:1]], np.zeros((2000, 5))])
    found = assign(truth, decoder, codes)
    assert [found.feature[i] for i in range(len(order))] == list(truth.features[order])
    assert found.feature[len(order)] == truth.features[order[0]]
    assert max(found.feature) == len(order)
    assert sorted(found.principal) == sorted(truth.features)


def test_a_near_direction_on_other_rows_is_another_feature() -> None:
    truth = small("hard").oracle(3)
    codes = np.roll(truth.codes.toarray(), 777, axis=0)
    assert assign(truth, truth.directions, codes).feature == {}


def test_correlation_is_pearsons() -> None:
    codes = small("hard").codes(3)[:, :20]
    expected = np.corrcoef(codes.toarray().T)
    np.testing.assert_allclose(correlation(codes, codes), expected, atol=1e-8)


# --- scores ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hard", "transition", "gradual", "confounds", "drift_only"])
def test_a_perfect_report_scores_one(name: str) -> None:
    found = scored(name)
    assert found.wrong == []
    assert found.missed == []
    assert found.links.f1 == found.idf1 == 1
    assert found.events.false_share == 0
    if name != "drift_only":
        assert found.core.f1 == found.dormancy_kept == 1
    assert found.transitions.right == (name == "transition")


@pytest.mark.parametrize("off", [1, 2])
def test_dates_may_be_one_checkpoint_off(off: int) -> None:
    truth = small("hard").truth
    events = []
    for row in perfect(truth, known("hard")).events:
        late = truth.steps[min(11, truth.steps.index(row["step"]) + off)]
        events.append({**row, "step": late} if row["kind"] == "birth" else row)
    births = scored("hard", events=events).kinds["birth"]
    assert births.f1 == (1 if off == 1 else 0)


def test_an_invented_a_doubled_and_a_forgotten_event_cost() -> None:
    events = list(perfect(small("hard").truth, known("hard")).events)
    births = [row for row in events if row["kind"] == "birth"]
    total = len(births)
    assert scored("hard", events=events + births[:1]).kinds["birth"].false == 1
    assert scored("hard", events=[row for row in events if row is not births[0]]).kinds["birth"].missing == 1
    junk = {**births[0], "children": [10_000]}
    found = scored("hard", events=[*events, junk])
    assert (found.kinds["birth"].right, found.kinds["birth"].false) == (total, 1)
    assert found.wrong[0]["features"] == {"parents": [], "children": []}
    assert found.events.false_share == pytest.approx(1 / (found.events.right + 1))


def test_a_split_needs_two_of_its_children() -> None:
    events = [
        {**row, "children": row["children"][:1]} if row["kind"] == "split" else row
        for row in perfect(small("hard").truth, known("hard")).events
    ]
    assert scored("hard", events=events).kinds["split"].f1 == 0


def test_reports_of_transients_and_duplicates_are_false() -> None:
    world, assignments = small("confounds"), known("confounds")
    flash = next(feature for feature in world.truth.features if feature.plan == "transient")
    step = world.steps[flash.checkpoints[0]]
    seen = {"kind": "birth", "step": step, "from_step": None, "to_step": step, "parents": []}
    born = {**seen, "children": [assignments[step].principal[flash.id]]}
    since, twice = world.plan.duplicated[0]
    step, before = world.steps[since], world.steps[since - 1]
    parts = [latent for latent, feature in assignments[step].feature.items() if feature == twice]
    split = {"kind": "split", "step": step, "from_step": before, "to_step": step, "children": parts}
    events = [born, {**split, "parents": [assignments[before].principal[twice]]}]
    found = score(world.truth, assignments, Report(events))
    assert (found.core.right, found.core.false) == (0, 2)


def test_a_latent_that_is_no_feature_yet_stands_for_its_track() -> None:
    world, assignments = small("hard"), known("hard")
    event = world.truth.of_kind("birth")[0]
    at = event.checkpoint
    step, later = world.steps[at], world.steps[at + 1]
    row = {"kind": "birth", "step": step, "to_step": step, "parents": [], "children": [9999], "child_tracks": [7]}
    history = [
        {"track": 7, "step": step, "latent": 9999},
        {"track": 7, "step": later, "latent": assignments[later].principal[event.children[0]]},
    ]
    assert score(world.truth, assignments, Report([row])).core.right == 0
    assert score(world.truth, assignments, Report([row], history=history)).core.right == 1


def test_a_broken_track_costs_identity_and_a_gap() -> None:
    history = []
    for row in perfect(small("hard").truth, known("hard")).history:
        late = row["step"] >= small("hard").steps[6]
        history.append({**row, "track": row["track"] + 1000 * late})
    found = scored("hard", history=history)
    assert found.idf1 < 0.75
    assert found.dormancy_kept < 1


def test_wrong_and_missing_links_cost_and_links_of_no_feature_do_not() -> None:
    links = list(perfect(small("hard").truth, known("hard")).links)
    swapped = [{**links[0], "to_latent": links[1]["to_latent"]}, {**links[1], "to_latent": links[0]["to_latent"]}]
    found = scored("hard", links=swapped + links[2:]).links
    assert (found.false, found.missing) == (2, 2)
    unknown = {**links[0], "to_latent": 9999}
    assert scored("hard", links=[*links, unknown]).links.f1 == 1


def test_transitions_are_windows() -> None:
    steps = small("transition").steps
    found = scored("transition", transitions=[{"from_step": steps[1], "to_step": steps[2]}]).transitions
    assert (found.right, found.false, found.missing) == (0, 1, 1)
    wide = scored("transition", transitions=[{"from_step": steps[4], "to_step": steps[8]}]).transitions
    assert (wide.right, wide.false) == (1, 0)


def test_the_ceiling_is_what_the_dictionaries_show() -> None:
    truth, assignments = small("hard").truth, known("hard")
    assert ceiling(truth, assignments)["core"].f1 == 1
    event = truth.of_kind("birth")[0]
    hidden = dict(assignments)
    for i in range(event.checkpoint, event.checkpoint + 2):
        step = truth.steps[i]
        shown = {f: latent for f, latent in assignments[step].principal.items() if f not in event.children}
        hidden[step] = replace(assignments[step], principal=shown)
    assert ceiling(truth, hidden)["birth"].missing == 1
    assert ceiling(truth, hidden, within=None)["birth"].missing == 0


# --- baselines, oracle files, table ---------------------------------------------------------------------------


def test_rules_find_births_and_invent_nothing_where_nothing_moves() -> None:
    for name in ("still", "hard"):
        world = small(name)
        shown = {step: baselines.Shown(world.directions(i), world.codes(i)) for i, step in enumerate(world.steps)}
        for rule in (baselines.hungarian, baselines.mutual, baselines.feature_genesis):
            found = score(world.truth, known(name), baselines.report(rule, shown))
            if name == "still":
                assert found.events.false == 0
                assert found.idf1 == 1
            else:
                assert found.kinds["birth"].recall > 0.7
                assert found.kinds["dormancy"].right == 0
                assert found.core.f1 < 0.8


def test_same_index_follows_the_index() -> None:
    world = small("still")
    codes = world.codes(0)
    fewer = codes.copy().tolil()
    fewer[:, 3] = 0
    shown = {0: baselines.Shown(world.directions(0), codes), 1: baselines.Shown(world.directions(0), fewer.tocsc())}
    found = baselines.report(baselines.same_index, shown)
    assert [(row["kind"], row["parents"]) for row in found.events] == [("death", [3])]


def test_oracle_saes_read_the_true_codes() -> None:
    world = small("clean")
    truth, x = world.oracle(4), world.activations(4)
    sae = SparseAutoencoder.from_tensors(fit_sae(truth, x), "topk", k=10)
    alike = np.diag(correlation(sae.encode_sparse(torch.from_numpy(x)), truth.codes))
    assert np.median(alike) > 0.7
    assert len(assign(truth, sae.W_dec.numpy()).principal) == len(truth.features)


def test_the_table_has_a_row_for_each_figure() -> None:
    one = figures(scored("hard"), 12)
    text = table({"ours": [one, one], "ceiling": [{"core F1": 0.9}]})
    assert "| core F1 | 1.000 ± 0.000 | 0.900 |" in text
    assert "| transitions |  |  |" in text
