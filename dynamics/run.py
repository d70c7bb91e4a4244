"""A run directory, opened to be asked and worked on."""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from dynamics.answers import counted, visible
from dynamics.engines.inline import Tally, work_off
from dynamics.files.layout import RunDirectory
from dynamics.files.settings import load_settings, require_level, write_level, write_settings
from dynamics.files.snapshots import snapshots
from dynamics.pipeline import failures
from dynamics.pipeline.status import SiteStatus, site_statuses
from dynamics.sae.config import SaeConfig
from dynamics.store.store import bring_up_to_date
from dynamics.store.store import query as ask


def open(path: str | Path) -> Run:
    """The run in a directory.

    Raises:
        FileNotFoundError: if there is none.
        RuntimeError: if a newer version made it.
    """
    return Run(RunDirectory.open(path))


class Run:
    """One training history: ask it with SQL, work off what is missing, read what an event rests on.

    Made by :func:`dynamics.open`.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory
        self._asked = False

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.directory.path

    def __repr__(self) -> str:
        return f"dynamics.open({str(self.path)!r})"

    def sites(self) -> list[str]:
        """The sites that were recorded or imported."""
        return self.directory.sites()

    def sql(self, query: str, format: str = "arrow") -> Any:
        """The answer to a query on the run's views; ``show tables`` and ``describe events`` say what there is.

        Args:
            query: SQL as DuckDB reads it. It can change nothing and reach no file.
            format: ``arrow``: a ``pyarrow.Table``; ``df``: a pandas DataFrame; ``rows``: a list of tuples.

        Raises:
            SqlError: a ValueError; if the query is wrong, with DuckDB's reason.
        """
        if format not in ("arrow", "df", "rows"):
            raise ValueError(f'format must be "arrow", "df" or "rows", got {format!r}')
        if not self._asked or not self.directory.history.exists():
            bring_up_to_date(self.directory)
            self._asked = True
        table = ask(self.directory, query)
        if format == "df":
            return table.to_pandas()
        if format == "rows":
            return list(zip(*(column.to_pylist() for column in table.columns), strict=True))
        return table

    def analyze(
        self,
        architecture: str | None = None,
        n_latents: int | None = None,
        k: int | None = None,
        seed: int | None = None,
        fdr: float | None = None,
        progress: bool = True,
    ) -> Tally:
        """Does whatever is still missing: fits, links, events, transitions. It can be interrupted and run again.

        Args:
            architecture: of the SAEs; of this and the next three, None means what the run has, else the default of
                :class:`SaeConfig`.
            n_latents: latents of each SAE.
            k: latents that may fire on a row.
            seed: of everything random.
            fdr: false-discovery rate up to which events are published; changes nothing else.
            progress: show a progress bar.

        Returns:
            How many jobs were done and failed.

        Raises:
            ValueError: if the settings are out of range or not the run's, or there is nothing to analyse.
        """
        if not self.sites():
            raise ValueError(f"{self.path} has no snapshots; `dynamics import` or a Recorder brings some")
        if fdr is not None:
            require_level(fdr)  # before settings are written, which is for good
        given = {"architecture": architecture, "n_latents": n_latents, "k": k, "seed": seed}
        self._settle({name: value for name, value in given.items() if value is not None})
        if fdr is not None:
            write_level(self.directory, fdr)
        return work_off(self.directory, progress=progress)

    def _settle(self, given: dict[str, Any]) -> None:
        """Settings stand once an SAE was trained; what is given later must agree with them."""
        known = load_settings(self.directory)
        config = replace(known or SaeConfig(), **given)
        widths = sorted({record.d_in for site in self.sites() for record in snapshots(self.directory, site)[:1]})
        meant = [config.resolved(width) for width in widths]
        if known is None or meant != [known.resolved(width) for width in widths]:
            write_settings(self.directory, config)
            if known is not None:  # what was given up was given up under the old ones
                failures.forgive(self.directory)

    def retry(self) -> int:
        """Forgets which jobs were given up, so that the next analysis tries them again. Returns how many."""
        return failures.forgive(self.directory)

    def status(self) -> list[SiteStatus]:
        """How far each site is."""
        return site_statuses(self.directory)

    def published(self) -> str:
        """Up to which step the database goes, and how old it is: one line."""
        if not self.directory.history.exists():
            return "database: not made yet"
        [(step,)] = self.sql("select max(step) from checkpoints", "rows")
        age = max(0, round(time.time() - self.directory.history.stat().st_mtime))
        return f"database: as of step {step} ({age} s ago)" if step is not None else "database: no checkpoints yet"

    def explain(self, event: str) -> Explanation:
        """What an event rests on: its evidence, the null it was held against, and rows that show it.

        Args:
            event: its name, column ``event`` of the views ``events`` and ``event_candidates``.

        Raises:
            ValueError: if there is no such event, naming near ones.
        """
        found = self.sql(f"select * from event_candidates where event = {_literal(event)}").to_pylist()
        if not found:
            known = [name for (name,) in self.sql("select event from event_candidates", "rows")]
            near = difflib.get_close_matches(event, known, n=3, cutoff=0.4)
            hint = f"; near ones: {', '.join(near)}" if near else ""
            raise ValueError(f"the run has no event {event!r}{hint}. `select event from events` lists them")
        return Explanation(
            event=found[0],
            null_scores=self._null_scores(found[0]["site"], found[0]["kind"]),
            before=self._shown(found[0]["site"], found[0]["from_step"], found[0]["parents"]),
            after=self._shown(found[0]["site"], found[0]["to_step"], found[0]["children"]),
        )

    def _null_scores(self, site: str, kind: str) -> list[float]:
        where = f"site = {_literal(site)} and kind = {_literal(kind)}"
        pooled = f"select score from event_candidates where arm = 'null' and {where} and score > 0 order by score"
        scores = [float(row[0]) for row in self.sql(pooled, "rows")]
        count = self.sql(f"select null_candidates from resolution where {where}", "rows")
        return [0.0] * (sum(int(row[0]) for row in count) - len(scores)) + scores  # those that score 0 have no rows

    def _shown(self, site: str, step: int | None, latents: list[int] | None) -> pa.Table:
        chosen = ", ".join(map(str, latents or [])) or "null"
        return self.sql(
            "select latent, rank, row, text, activation, before, after from contexts "
            f"where site = {_literal(site)} and step = {'null' if step is None else step} and latent in ({chosen}) "
            "order by latent, rank"
        )


@dataclass(frozen=True)
class Explanation:
    """What one event rests on; ``print`` shows it."""

    event: dict[str, Any]
    """Its row of the view ``event_candidates``, with the map ``evidence``."""
    null_scores: list[float]
    """Scores of the null arm's candidates of the same kind at the site, ascending."""
    before: pa.Table
    """Strongest probe rows of its parents: latent, rank, row, text, activation, before, after."""
    after: pa.Table
    """Those of its children."""

    def __str__(self) -> str:
        lines = [self._headline(), self._verdict(), "evidence:", *self._evidence(), self._null()]
        for name, table in (("parents", self.before), ("children", self.after)):
            lines += [f"{name}, before the event:" if name == "parents" else f"{name}, after it:", *_rows(table)]
        return "\n".join(lines)

    def _headline(self) -> str:
        e = self.event
        ends = f"latents {e['parents'] or []} at step {e['from_step']} -> {e['children'] or []} at step {e['to_step']}"
        return f"{e['kind']} {e['event']} at {e['site']}, step {e['step']}: {ends}"

    def _verdict(self) -> str:
        e = self.event
        shown = "published" if e["published"] else f"not published ({e['reason']})"
        return f"{shown}; score {_number(e['score'])}, p {_number(e['p_value'])}, q {_number(e['q_value'])}"

    def _evidence(self) -> list[str]:
        evidence = dict(self.event["evidence"] or [])
        return [f"  {name}: {_number(value)}" for name, value in sorted(evidence.items())] or ["  none on record"]

    def _null(self) -> str:
        count = len(self.null_scores)
        if not count:
            return "null: no candidates of this kind at this site, so nothing to hold it against"
        at = {share: self.null_scores[min(count - 1, int(share * count))] for share in (0.5, 0.9, 0.99)}
        quantiles = ", ".join(f"{share:.0%} below {_number(value)}" for share, value in at.items())
        largest = _number(self.null_scores[-1])
        return f"null: {counted(count, 'candidate')} where nothing happened; scores {quantiles}, largest {largest}"


def _rows(table: pa.Table) -> list[str]:
    return [visible(f"  {_row(**row)}") for row in table.to_pylist()] or ["  none"]


def _row(latent: int, row: int, activation: float, text: str | None, **around: Any) -> str:
    shown = f"row {row}" if text is None else f"{around['before'] or ''}[{text}]{around['after'] or ''}"
    return f"{latent}: {_number(activation)}  {shown}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
