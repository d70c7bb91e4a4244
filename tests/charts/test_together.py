"""Charts put together by ``|`` and ``&``: each looks as it does alone, and they share no more than the pointer."""

from __future__ import annotations

import functools
import json
import operator
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair as alt
import pytest
import vl_convert

from dynamics import charts
from dynamics.charts.comparison import matches, onset_pairs
from dynamics.charts.theme import FONT
from tests.charts.synthetic import SyntheticRun, empty_run, synthetic_run
from tests.charts.test_charts import EVERY, SITE, each_mark, marks, png_size

TOGETHER = {"|": operator.or_, "&": operator.and_}


@pytest.fixture(scope="module")
def gallery(history: SyntheticRun) -> list[Any]:
    """Every chart there is, a sentence among them."""
    shared = [{"overlap": 0.5, "onsets": [0, 8], "early": [False, False]}]
    of_two = [matches(shared, [0.3], (2, 2), SITE), onset_pairs(shared, [0, 8], SITE)]
    two = charts.side_by_side(history, history, SITE)
    few, none = charts.events(synthetic_run(3), SITE), charts.events(empty_run())
    return [*(draw(history, SITE) for draw in EVERY), charts.events(history), few, none, two, *of_two]


def inside(spec: Any) -> Iterator[dict[str, Any]]:
    """Every object of a spec but its data."""
    for part in spec if isinstance(spec, list) else [spec]:
        if isinstance(part, dict):
            yield part
            for name, below in part.items():
                if name != "datasets":
                    yield from inside(below)


def colours(chart: Any) -> set[str]:
    return set(re.findall(r'(?:fill|stroke)="(#[0-9a-f]{6}|rgb[^"]*)"', vl_convert.vegalite_to_svg(chart.to_dict())))


def test_any_number_of_charts(gallery: list[Any], capfd: pytest.CaptureFixture[str]) -> None:
    half = len(gallery) // 2
    whole = functools.reduce(operator.or_, gallery[:half]) & functools.reduce(operator.and_, gallery[half:])
    vl_convert.vegalite_to_svg(whole.to_dict(), show_warnings=True)
    assert "WARN" not in "".join(capfd.readouterr())
    assert marks(whole) == sum(marks(chart) for chart in gallery)
    selections = defaultdict(set)
    for part in inside(whole.to_dict()):
        for param in part.get("params", []):
            selections[param["name"]].add(str(param))
    assert {"pointer", "picked_event", "picked_bubble", "picked_track", "band", "began"} <= selections.keys()
    assert all(len(meant) == 1 for meant in selections.values())  # one name, one selection: whichever two are together


@pytest.mark.parametrize(("sign", "apart"), [("|", 3), ("&", 7)])
def test_two_charts_look_as_they_do_alone(sign: str, apart: int, gallery: list[Any]) -> None:
    alone = [colours(chart) for chart in gallery]
    for number, chart in enumerate(gallery):
        other = (number + apart) % len(gallery)
        assert colours(TOGETHER[sign](chart, gallery[other])) == alone[number] | alone[other]


def test_a_chart_beside_itself(gallery: list[Any]) -> None:
    for chart in gallery[:4]:
        assert colours(chart | chart) == colours(chart)


def test_the_whole_has_our_look_and_the_sql_of_its_parts(gallery: list[Any], tmp_path: Path) -> None:
    first, second, third = gallery[:3]
    whole = (first | second) & third
    spec = whole.to_dict()
    assert spec["config"]["font"] == FONT
    assert all("config" not in part for part in inside(spec["vconcat"]))
    assert all(part.usermeta["sql"] in spec["usermeta"]["sql"] for part in (first, second, third))
    assert png_size(whole, tmp_path / "whole.png")[0] > 1_300
    assert first.to_dict()["usermeta"] == first.usermeta  # a part is what it was


def test_a_chart_of_ones_own_beside_ours(gallery: list[Any]) -> None:
    own = alt.Chart(alt.Data(values=[{"a": 1}])).mark_point().encode(x="a:Q")
    for whole in (gallery[0] | own, own | gallery[0], own & gallery[0], alt.vconcat(*gallery[:3])):
        assert all(each_mark(whole))
        vl_convert.vegalite_to_svg(whole.to_dict())


def test_what_a_user_configures_is_added_to_our_look(gallery: list[Any]) -> None:
    config = gallery[0].configure_axis(labelFontSize=20).to_dict()["config"]
    assert (config["axis"]["labelFontSize"], config["font"]) == (20, FONT)
    with alt.theme.enable("dark"):
        assert gallery[0].to_dict()["config"]["background"] == "white"


def test_every_frontend_gets_it_and_no_text_ends_a_script(gallery: list[Any]) -> None:
    run, evil = synthetic_run(25), "</script><!--<script>"
    run.connection.execute(f"update raw.change set series = '{evil}'; update raw.notes set note = 'transition {evil}'")
    run.connection.execute(f"update raw.transitions set series = '{evil}'")
    run.connection.execute(f"update raw.event_candidates set kind = '{evil}' where kind = 'rotation'")
    few = synthetic_run(3)
    few.connection.execute(f"update raw.event_candidates set kind = '{evil}' where kind = 'split'")
    drawn = [draw(run, SITE) for draw in EVERY] + [charts.events(few, SITE), charts.events(run)]
    for chart in [*drawn, drawn[0] | drawn[1], alt.vconcat(*drawn[:2])]:
        assert not re.search("</|<!", json.dumps(chart.to_dict()))
    for renderer, kind in (("html", "text/html"), ("mimetype", "vegalite.v6"), ("svg", "image/svg+xml")):
        with alt.renderers.enable(renderer):
            assert kind in str(gallery[0]._repr_mimebundle_())
    for chart in gallery:  # as Jupyter's widget reads it
        assert alt.Chart.from_dict(chart.to_dict()).to_dict()["config"]["font"] == FONT


def test_vega_has_our_look_too(gallery: list[Any]) -> None:
    assert gallery[0].to_dict(format="vega")["background"] == "white"
