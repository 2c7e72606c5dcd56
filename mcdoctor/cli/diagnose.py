"""`diagnose`, `collect` and `replay`: from what was asked to a report on stdout and an exit code."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mcdoctor.cli.errors import INTERRUPTED, NOT_SETTLED, USAGE, fail, say
from mcdoctor.flow import Ambiguous, FlowError, NotFound, TargetError, resolve
from mcdoctor.flow.gather import Unreachable
from mcdoctor.flow.resolve import Unseen
from mcdoctor.models.facts import Fact
from mcdoctor.models.ids import Severity, Symptom
from mcdoctor.runner.bundle import Bundle, BundleError, ClusterEntry, read_bundle, write_bundle
from mcdoctor.runner.replay import NoFlow, request_of

if TYPE_CHECKING:
    from mcdoctor.check import Options
    from mcdoctor.cli.wiring import Session
    from mcdoctor.models.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The command line of a diagnosis, as the user gave it."""

    source: str
    destination: str
    context: str | None = None
    to_context: str | None = None
    namespace: str | None = None
    to_namespace: str | None = None
    kubeconfig: str | None = None
    as_user: str | None = None
    as_groups: tuple[str, ...] = ()
    request_timeout: str = "10s"
    bundle: str | None = None
    to_bundle: str | None = None
    lab: str | None = None
    complete: tuple[str, ...] = ()
    port: str | None = None
    symptom: str | None = None
    probe: str = "auto"
    image: str = "python:3-slim"
    profile: str = "restricted"
    both: bool = False
    yes: bool = False
    request: str | None = None
    headers: tuple[str, ...] = ()
    deadline: float = 120.0
    output: str = "text"
    language: str = "en"
    fail_on: str = "error"
    save: str | None = None
    out: str | None = None
    verbose: bool = False
    quiet: bool = False


def diagnose_pair(asked: Asked) -> int:
    """Live, in the lab, or from a bundle; the exit code."""
    if sum(x is not None for x in (asked.bundle, asked.lab, asked.context or asked.to_context)) > 1:
        fail("--bundle, --lab and --context/--to-context exclude one another")
    if asked.to_bundle and (asked.to_context or asked.bundle or asked.lab):
        fail("--to-bundle is a recorded destination beside a live source: leave out --to-context, --bundle, --lab")
    options_of(asked)
    check_writable(asked.out, asked.save)
    if asked.bundle is not None:
        if asked.save:
            fail("--save keeps what a live run saw; with --bundle there is nothing new to keep")
        return replay_bundle(asked)
    with early_ends(), session(asked) as opened:
        report = run_session(opened, asked)
        if asked.save:
            keep(asked.save, opened, report.facts)
        return finish(report, asked)


def collect_pair(asked: Asked, file: str) -> int:
    """Reads and probes as a diagnosis would, and writes the bundle; 0 when it was written."""
    check_writable(None, file)
    with early_ends(), session(asked) as opened:
        try:
            report = run_session(opened, asked)
        except NotFound as error:
            # The other team records its cluster, in which one end of the flow is missing by nature.
            say(f"{error}: only objects are recorded")
            keep(file, opened, tuple(opened.all_facts()))
            say(f"wrote {file}; use it beside the other cluster: mcdoctor diagnose … --to-bundle {file}")
            return 0
        keep(file, opened, report.facts)
        partial = "interrupted: the recording is partial; " if report.interrupted else ""
        say(f"{partial}wrote {file}; diagnose it with: mcdoctor replay {file}")
        return INTERRUPTED if report.interrupted else 0


def replay_bundle(asked: Asked) -> int:
    """The report of a recording."""
    from mcdoctor.cli.wiring import library
    from mcdoctor.runner.registry import load
    from mcdoctor.runner.replay import replay

    check_writable(asked.out, None)
    with early_ends():
        bundle = read_bundle(asked.bundle or "")
        tell_problems(bundle)
        request = request_of(
            bundle,
            asked.source or None,
            asked.destination or None,
            namespace=asked.namespace,
            to_namespace=asked.to_namespace,
            port=asked.port,
        )
        registry = load()
        for problem in registry.problems:
            say(f"warning: {problem}")
        report = replay(bundle, registry.checks, library(), request, complete=asked.complete, symptom=symptom_of(asked))
        return finish(report, asked)


def tell_problems(bundle: Bundle, most: int = 8) -> None:
    """What could not be read of a bundle, a line each."""
    for problem in bundle.problems[:most]:
        say(f"warning: {problem}")
    if len(bundle.problems) > most:
        say(f"warning: and {len(bundle.problems) - most} more parts of {bundle.path} could not be read")


@contextmanager
def early_ends() -> Iterator[None]:
    """Turns the known ways in which nothing can be diagnosed into one line and an exit code."""
    try:
        yield
    except Ambiguous as error:
        fail(str(error), USAGE, "Say which one: " + " or ".join(error.candidates))
    except NotFound as error:
        fail(str(error), USAGE, f"Did you mean {' or '.join(error.nearest)}?" if error.nearest else "")
    except Unseen as error:
        fail(str(error), NOT_SETTLED, f"Whoever may can run: {error.command}" if error.command else "")
    except Unreachable as error:
        fail(str(error), NOT_SETTLED)
    except (TargetError, FlowError, NoFlow, BundleError) as error:
        fail(str(error), USAGE)


def symptom_of(asked: Asked) -> Symptom | None:
    """The symptom that the user named; fails with the list of slugs when there is none such."""
    if asked.symptom is None:
        return None
    try:
        return Symptom(asked.symptom)
    except ValueError:
        fail(f"{asked.symptom!r} is not a symptom", USAGE, "Symptoms: " + " ".join(s.value for s in Symptom))


def check_writable(out: str | None, bundle: str | None) -> None:
    """Fails before anything is done when the output cannot be written."""
    for name in (out, bundle):
        if name is None:
            continue
        path = Path(name)
        parent = path.parent
        if not parent.is_dir():
            fail(f"{name}: the folder {parent} does not exist")
        if path.is_dir() and name == out:
            fail(f"{name} is a folder")
        folder = name == bundle and not name.endswith((".tar.gz", ".tgz", ".tar"))
        if folder and path.exists() and (not path.is_dir() or any(path.iterdir())):
            fail(f"{name} exists and is not an empty folder")
        if path.exists():
            if not os.access(path, os.W_OK):
                fail(f"{name}: Permission denied")
            continue
        try:
            probe = parent / f".mcdoctor-{id(path):x}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            fail(f"{name}: {error.strerror}")


def options_of(asked: Asked) -> Options:
    """The user's request options, checked."""
    from mcdoctor.check import Options

    method, path = "GET", None
    if asked.request is not None:
        words = asked.request.split()
        if not 1 <= len(words) <= 2 or not words[0].isalpha():
            fail(f"--request {asked.request!r}: expected 'METHOD /path', such as 'GET /healthz'")
        method = words[0].upper()
        path = words[1] if len(words) == 2 else None
        if path is not None and not path.startswith("/"):
            fail(f"--request {asked.request!r}: the path starts with '/'")
    headers = []
    for header in asked.headers:
        name, colon, value = header.partition(":")
        if not colon or not name.strip() or any(c in header for c in "\r\n"):
            fail(f"--header {name!r}: expected 'Name: value'")
        headers.append((name.strip(), value.strip()))
    return Options(symptom=symptom_of(asked), request_method=method, request_path=path, request_headers=tuple(headers))


def session(asked: Asked) -> Session:
    """The lab, or live clusters."""
    from mcdoctor.cli import wiring

    if asked.lab is not None:
        return wiring.lab_session(asked)
    return wiring.live_session(asked)


def run_session(opened: Session, asked: Asked) -> Report:
    """Resolves the pair and runs all checks; Ctrl-C ends early with what is there."""
    from mcdoctor.check import World
    from mcdoctor.cli.wiring import library
    from mcdoctor.models.collection import Facts
    from mcdoctor.reports.progress import Progress
    from mcdoctor.runner.registry import load
    from mcdoctor.runner.run import Run

    registry = load()
    for problem in registry.problems:
        say(f"warning: {problem}")
    flow = resolve(opened.request, Facts(opened.facts, None, opened.complete))
    stopped = False
    prober = None
    try:
        prober = opened.open_prober(flow)
    except KeyboardInterrupt:  # what was read is still worth a report
        stopped, opened.why_no_prober = True, "interrupted before anything was sent"
    world = World(
        flow=flow,
        facts=Facts(opened.facts, flow, opened.complete),
        prober=prober,
        bypass=opened.bypass,
        far=opened.far,
        readers=opened.readers,
        options=options_of(asked),
        deadline=opened.deadline,
    )
    books = library()
    with Progress(language=asked.language, quiet=asked.quiet) as progress:
        run = Run(
            checks=registry.checks,
            library=books,
            world=world,
            facts=list(opened.all_facts()),
            complete=opened.complete,
            means=opened.means,
            why_no_prober=opened.why_no_prober,
            watch=progress.tell,
        )
        try:
            run.interrupted = stopped
            report = run.report() if stopped else run.execute()
        except KeyboardInterrupt:
            world.stopped.set()
            run.interrupted = True
            report = run.report()
    try:
        opened.close()
    except KeyboardInterrupt:
        report = dataclasses.replace(report, interrupted=True)
    return report


def keep(path: str, opened: Session, facts: tuple[Fact, ...]) -> None:
    """Writes the bundle of a run; the question goes with it, so that `replay PATH` needs no more words."""
    asked = opened.request
    question = {
        "source": asked.source.text.partition("@")[0],
        "destination": asked.destination.text.partition("@")[0],
        "namespace": asked.namespace,
        "toNamespace": asked.to_namespace,
        "port": asked.port,
    }
    clusters = [
        ClusterEntry(name=asked.source_cluster, context=opened.contexts.get(asked.source_cluster), role="source")
    ]
    if asked.destination_cluster and asked.destination_cluster != asked.source_cluster:
        name = asked.destination_cluster
        clusters.append(ClusterEntry(name=name, context=opened.contexts.get(name), role="destination"))
    write_bundle(
        path,
        facts,
        clusters,
        request={k: v for k, v in question.items() if v},
        complete=opened.complete,
        collected_at=datetime.now(UTC),
    )


def finish(report: Report, asked: Asked) -> int:
    """Prints the report, or writes it, and gives the exit code, the same for every format."""
    from mcdoctor.cli.wiring import library
    from mcdoctor.diagnosis import exit_code
    from mcdoctor.reports import render

    text = render(
        report,
        asked.output,
        asked.language,
        library=library(),
        width=80 if asked.out else None,
        color=False if asked.out else None,
        verbose=asked.verbose,
    )
    _emit(text, asked)
    if report.interrupted:
        return INTERRUPTED
    return exit_code(report, Severity(asked.fail_on))


def _emit(text: str, asked: Asked) -> None:
    if asked.out:
        try:
            Path(asked.out).write_text(text, "utf-8")
        except OSError as error:
            fail(f"{asked.out}: {error.strerror}")
        return
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough; the exit code still tells the verdict
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
