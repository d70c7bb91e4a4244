"""One chart, one function, one file: each takes a run and gives an Altair chart with its SQL in ``usermeta``."""

from dynamics.charts.comparison import side_by_side
from dynamics.charts.concepts import concepts
from dynamics.charts.drift import drift
from dynamics.charts.feature import feature
from dynamics.charts.flow import flow
from dynamics.charts.lineage import lineage
from dynamics.charts.onset import onsets, presence
from dynamics.charts.population import population
from dynamics.charts.quality import quality
from dynamics.charts.rows import History
from dynamics.charts.scores import scores
from dynamics.charts.similarity import similarity
from dynamics.charts.survival import survival
from dynamics.charts.timeline import events
from dynamics.charts.transition import transition

__all__ = [
    "History",
    "concepts",
    "drift",
    "events",
    "feature",
    "flow",
    "lineage",
    "onsets",
    "population",
    "presence",
    "quality",
    "scores",
    "side_by_side",
    "similarity",
    "survival",
    "transition",
]
