"""The command ``dynamics``."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

MISTAKE = 2
"""Exit code where the command could not be carried out as given."""
UNFINISHED = 1
"""Exit code where jobs were given up."""
INTERRUPTED = 130

FORMATS = "dynamics, saelens, dictionary_learning or sparsify"

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Mistakes are one sentence on stderr and an exit code, never a traceback."""
    given = parser().parse_args(arguments)
    _prepare(follow=getattr(given, "follow", False))
    command: Command = given.command
    try:
        return command(given)
    except KeyboardInterrupt:
        return _say("interrupted; what was finished is kept, the same command goes on from there", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has left: nothing to flush to
        return 0
    except Exception as error:
        logging.getLogger("dynamics").debug("%s", error, exc_info=True)
        return _say(_sentence(error), MISTAKE)


def parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    top = _Parser(prog="dynamics", description="Tracks what a network's features do while it trains.")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    everyday = (_import, _import_saes, _analyze, _work, _status, _sites, _sql, _report, _explore, _compare)
    for add in (*everyday, _export, _rebuild, _fsck, _prune):
        add(commands)
    return top


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one sentence instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISTAKE, f"{self.prog}: {message}; `{self.prog} --help` shows how\n")


def _prepare(*, follow: bool) -> None:
    def terminated(number: int, frame: Any) -> NoReturn:
        raise SystemExit(128 + number)  # so that a job in hand is not counted as one that killed its process

    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, terminated)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s" if follow else "%(message)s"))
    log = logging.getLogger("dynamics")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.DEBUG if follow or os.environ.get("DYNAMICS_DEBUG") else logging.WARNING)


def _say(sentence: str, code: int) -> int:
    print(f"dynamics: {sentence}", file=sys.stderr)
    return code


def _sentence(error: Exception) -> str:
    """The message where it was written for the user, with the kind of error where it was not."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, ValueError | OSError | RuntimeError):
        return text or type(error).__name__
    return f"unexpected {type(error).__name__}: {text} (DYNAMICS_DEBUG=1 shows where)"


def _command(commands: Any, name: str, function: Command, help: str) -> argparse.ArgumentParser:
    found: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    found.set_defaults(command=function)
    return found


def _import(commands: Any) -> None:
    p = _command(commands, "import", import_, "take snapshots made elsewhere into a run")
    p.add_argument("directory", metavar="DIR", help="holds step_<n>.safetensors, each with `activations` [rows, d_in]")
    p.add_argument("run", metavar="RUN", help="run directory; made if it is not there")
    p.add_argument("--site", required=True, metavar="NAME", help="whose output they are, e.g. blocks.3.mlp")
    p.add_argument(
        "--text",
        metavar="FILE",
        help="text of each row: a line a row, or JSON: strings, or lists of tokens, one list a sequence",
    )
    p.add_argument("--loss", metavar="FILE", help="loss at each step: CSV lines step,loss, or a JSON object")


def import_(given: argparse.Namespace) -> int:
    """Snapshots of others into a run; says what came in and what was left aside."""
    from tqdm import tqdm

    from dynamics.answers import counted
    from dynamics.files.importing import import_snapshots, step_files
    from dynamics.files.layout import RunDirectory

    wanted = step_files(Path(given.directory)).values()  # before a run is made for nothing
    others = sorted(path.name for path in Path(given.directory).glob("*.safetensors") if path not in wanted)
    run = RunDirectory.create(given.run)
    with tqdm(desc="import", unit="file", dynamic_ncols=True, disable=None) as bar:
        found = import_snapshots(given.directory, run, given.site, given.text, given.loss, _shown_on(bar))
    first, last = found[0], found[-1]
    print(
        f"{counted(len(found), 'snapshot')} of {given.site}, steps {first.step} to {last.step}, "
        f"{counted(first.rows, 'row')} of width {first.d_in} ({last.dtype}), now in {run.path}. "
        f"Next: dynamics analyze {given.run}"
    )
    if others:
        print(
            f"Note: not named step_<n>.safetensors, so left aside: {', '.join(others[:4])}{', …' * (len(others) > 4)}"
        )
    return 0


def _import_saes(commands: Any) -> None:
    p = _command(commands, "import-saes", import_saes_, "take SAEs made elsewhere into a run, as a site's chain")
    p.add_argument("directory", metavar="DIR", help="holds an SAE a step: step_<n>.safetensors, or folders step_<n>")
    p.add_argument("run", metavar="RUN", help="run directory that has the snapshots at these steps")
    p.add_argument("--site", required=True, metavar="NAME", help="whose activations they explain")
    p.add_argument("--format", default="dynamics", help=f"{FORMATS} (default: dynamics)")


def import_saes_(given: argparse.Namespace) -> int:
    """SAEs of others into a run; says what they cannot be used for."""
    from tqdm import tqdm

    from dynamics.answers import counted
    from dynamics.files.importing_saes import import_saes, notes_on_imported
    from dynamics.files.layout import RunDirectory
    from dynamics.files.saes import sae_records
    from dynamics.files.snapshots import snapshots

    run = RunDirectory.open(given.run)
    with tqdm(desc="import", unit="file", dynamic_ncols=True, disable=None) as bar:
        found = import_saes(given.directory, run, given.site, given.format, _shown_on(bar))
    imported = [record for record in sae_records(run, given.site, "chain") if record.imported]
    gaps = {record.step for record in snapshots(run, given.site)} - {record.step for record in imported}
    print(f"{counted(len(found), 'SAE')} of {given.site}, now in {run.path}. Next: dynamics analyze {given.run}")
    for note in notes_on_imported(imported, sorted(gaps)):
        print(f"Note: {note}")
    return 0


def _shown_on(bar: Any) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return show


def _analyze(commands: Any) -> None:
    p = _command(commands, "analyze", analyze, "do whatever is still missing: fits, links, events, transitions")
    _run_argument(p)
    p.add_argument(
        "--architecture", metavar="A", help="of the SAEs: topk (default), batch_topk, matryoshka, jump_relu or relu"
    )
    p.add_argument("--n-latents", type=int, metavar="N", help="latents of each SAE (default: 8 x width)")
    p.add_argument("--k", type=int, metavar="K", help="latents that may fire on a row (default: min(32, width / 4))")
    p.add_argument("--seed", type=int, metavar="S", help="of everything random (default: 0)")
    p.add_argument("--fdr", type=float, metavar="Q", help="publish events with q up to this (default: 0.1)")
    p.add_argument("--retry", action="store_true", help="try jobs again that were given up")


def analyze(given: argparse.Namespace) -> int:
    """Whatever is still missing, then a summary; exit code 1 where jobs were given up."""
    from dynamics.run import open as open_run
    from dynamics.summary import summary, unusable

    run = open_run(given.run)
    _retry(given, run)
    run.analyze(given.architecture, given.n_latents, given.k, given.seed, given.fdr)
    if reason := unusable(run, given.run):
        return _say(reason, MISTAKE)
    print(summary(run, given.run))
    return _unfinished(run)


def _work(commands: Any) -> None:
    p = _command(commands, "work", work, "do what is missing, without a summary: for job arrays and beside training")
    _run_argument(p)
    p.add_argument("--follow", action="store_true", help="go on with new snapshots until the recording is closed")
    p.add_argument("--retry", action="store_true", help="try jobs again that were given up")


def work(given: argparse.Namespace) -> int:
    """Whatever is still missing, or with ``--follow`` until the recording is closed."""
    from dynamics.answers import counted
    from dynamics.engines.following import follow
    from dynamics.engines.inline import work_off
    from dynamics.run import open as open_run

    run = open_run(given.run)
    _retry(given, run)
    if given.follow:
        follow(run.directory)
    else:
        tally = work_off(run.directory, progress=sys.stderr.isatty())
        print(f"{counted(tally.done, 'job')} done, {tally.failed} failed")
    return _unfinished(run)


def _retry(given: argparse.Namespace, run: Any) -> None:
    from dynamics.answers import counted

    if given.retry:
        print(f"trying again: {counted(run.retry(), 'job')} given up before")


def _unfinished(run: Any) -> int:
    return UNFINISHED if any(not failure.final for site in run.status() for failure in site.left) else 0


def _status(commands: Any) -> None:
    _run_argument(_command(commands, "status", status, "show how far a run is"))


def status(given: argparse.Namespace) -> int:
    """How far each site is."""
    from dynamics.run import open as open_run
    from dynamics.summary import status_text

    print(status_text(open_run(given.run)))
    return 0


def _sites(commands: Any) -> None:
    p = _command(commands, "sites", sites, "list the sites of a run (those of a model: dynamics.capture.sites)")
    _run_argument(p)


def sites(given: argparse.Namespace) -> int:
    """One site a line."""
    from dynamics.run import open as open_run

    for name in open_run(given.run).sites():
        print(name)
    return 0


def _sql(commands: Any) -> None:
    p = _command(commands, "sql", sql, "ask the run's views with SQL")
    _run_argument(p)
    p.add_argument("query", metavar="QUERY", help='e.g. "select kind, count(*) from events group by kind"')
    p.add_argument(
        "--format", choices=("table", "csv", "json"), default="table",
        help="default: table; csv has each cell as it is: a spreadsheet takes a text that begins with = for a formula",
    )  # fmt: skip


def sql(given: argparse.Namespace) -> int:
    """The answer to a query, in the format asked for."""
    from dynamics.answers import rendered
    from dynamics.run import open as open_run

    sys.stdout.write(rendered(open_run(given.run).sql(given.query), given.format))
    sys.stdout.flush()
    return 0


def _report(commands: Any) -> None:
    p = _command(commands, "report", report, "write one self-contained HTML page about a run")
    _run_argument(p)
    p.add_argument("-o", "--output", required=True, metavar="FILE", help="the page, e.g. report.html")


def report(given: argparse.Namespace) -> int:
    """One page about the run."""
    from dynamics.run import open as open_run

    run = open_run(given.run)
    from dynamics.report import report as write_report

    write_report(run, given.output)
    print(f"wrote {given.output}")
    return 0


def _explore(commands: Any) -> None:
    p = _command(commands, "explore", explore, "look around in a run, in a browser on this machine")
    _run_argument(p)
    p.add_argument("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (default: a free one)")
    p.add_argument("--no-browser", action="store_true", help="only print the address")


def explore(given: argparse.Namespace) -> int:
    """The explorer, until Ctrl-C."""
    from dynamics.run import open as open_run

    run = open_run(given.run)
    from dynamics.explorer.server import serve

    serve(run, given.port, browser=not given.no_browser)
    return 0


def _compare(commands: Any) -> None:
    p = _command(commands, "compare", compare, "say what two runs on the same probe have in common")
    _run_argument(p)
    p.add_argument("other", metavar="RUN", help="another run, e.g. of another seed")
    p.add_argument("-o", "--output", metavar="FILE", help="a page with pictures besides, e.g. compared.html")


def compare(given: argparse.Namespace) -> int:
    """Shared features, their onsets and transitions, site by site."""
    from dynamics.comparison import compare as compared
    from dynamics.comparison import comparison_text
    from dynamics.run import open as open_run

    runs = open_run(given.run), open_run(given.other)
    if given.output is None:
        print(comparison_text(compared(*runs)))
        return 0
    from dynamics.report.comparison import report_on_two

    print(comparison_text(report_on_two(*runs, given.output)))
    print(f"\nwrote {given.output}")
    return 0


def _export(commands: Any) -> None:
    p = _command(commands, "export", export, "write the SAEs of a site for other programs")
    _run_argument(p)
    p.add_argument("directory", metavar="DIR", help="gets a folder step_<n> for each SAE (dynamics: a file)")
    p.add_argument("--site", required=True, metavar="NAME", help="whose SAEs")
    p.add_argument("--format", required=True, help=FORMATS)
    p.add_argument("--step", type=int, action="append", default=[], metavar="N", help="only this; may be given again")


def export(given: argparse.Namespace) -> int:
    """SAEs of the run as another library's files."""
    from tqdm import tqdm

    from dynamics.answers import counted
    from dynamics.files.exporting_saes import export_saes
    from dynamics.files.layout import RunDirectory

    run = RunDirectory.open(given.run)
    with tqdm(desc="export", unit="SAE", dynamic_ncols=True, disable=None) as bar:
        made = export_saes(run, given.site, given.directory, given.format, given.step, _shown_on(bar))
    print(f"{counted(len(made), 'SAE')} of {given.site} in {given.directory}, {made[0].name} to {made[-1].name}")
    return 0


def _rebuild(commands: Any) -> None:
    _run_argument(_command(commands, "rebuild", rebuild, "make the database anew from the files of the run"))


def rebuild(given: argparse.Namespace) -> int:
    """The database anew, from the files."""
    from dynamics.run import open as open_run
    from dynamics.store.store import build

    run = open_run(given.run)
    build(run.directory)
    print(f"{run.directory.history} is made anew; {run.published()}")
    return 0


def _fsck(commands: Any) -> None:
    p = _command(commands, "fsck", fsck, "check every file of a run, and every row of its database; changes nothing")
    _run_argument(p)
    p.add_argument("--repair", action="store_true", help="put aside what is damaged, so that it can be made again")


def fsck(given: argparse.Namespace) -> int:
    """One line for each thing that is wrong; exit code 1 where one is, or could not be put right."""
    from dynamics.answers import counted, visible
    from dynamics.maintenance import check, repair
    from dynamics.run import open as open_run

    run = open_run(given.run).directory
    findings = list((repair if given.repair else check)(run))
    for finding in findings:
        print(visible(f"{finding.fact} -> {finding.remedy}"))
    left = [finding for finding in findings if not finding.settled]
    if not findings:
        print(f"{given.run} is whole")
    elif left and not given.repair:
        print(f"{counted(len(left), 'finding')}; `dynamics fsck {given.run} --repair` puts aside what is damaged")
    else:
        print(f"{counted(len(findings) - len(left), 'finding')} settled; Next: dynamics analyze {given.run}")
    return UNFINISHED if left else 0


def _prune(commands: Any) -> None:
    p = _command(commands, "prune", prune, "drop the raw activations of a finished run, for good; results stay")
    _run_argument(p)


def prune(given: argparse.Namespace) -> int:
    """Without raw activations a run takes less room; it can be asked as before, and not analysed anew."""
    from dynamics.maintenance import prune as prune_run
    from dynamics.run import open as open_run

    freed = prune_run(open_run(given.run).directory)
    print(f"{freed / 1e6:,.1f} MB freed; {given.run} can be asked as before, and neither recorded nor analysed further")
    return 0


def _run_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run directory")
