"""`mcdoctor lab`: the simulated clusters, to look at, to walk into, and to be diagnosed."""

from __future__ import annotations

import enum
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mcdoctor.cli.errors import FAILED, NOT_SETTLED, fail, say

if TYPE_CHECKING:
    from mcdoctor.cli.diagnose import Asked
    from mcdoctor.lab import RunningLab, Scenario

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Two small simulated clusters on this machine: real packets, DNS, TLS.",
)


class ListFormat(enum.StrEnum):
    TEXT = "text"
    JSON = "json"


class ReportFormat(enum.StrEnum):
    TEXT = "text"
    JSON = "json"
    YAML = "yaml"
    MARKDOWN = "markdown"


Name = Annotated[str, typer.Argument(metavar="[NAME]", help="a scenario of `mcdoctor lab list`, or a folder")]


@app.command("list")
def show(
    output: Annotated[ListFormat, typer.Option("-o", "--output", help="of the list")] = ListFormat.TEXT,
) -> None:
    """The scenarios: what is wrong in each, and the cause that a diagnosis should name."""
    from mcdoctor.lab import BadLab, scenarios
    from mcdoctor.lab.scenarios import BadScenario

    try:
        found = list(scenarios())
    except (BadLab, BadScenario) as error:
        fail(str(error), FAILED)
    if output is ListFormat.JSON:
        import json

        typer.echo(json.dumps([_as_json(s) for s in found], ensure_ascii=False, indent=2))
        return
    width = max(len(s.name) for s in found)
    for each in found:
        cause = each.expect.causes[0] if each.expect.causes else each.expect.verdict
        typer.echo(f"{each.name:<{width}}  {cause:<{_CAUSE}}  {each.about}")


_CAUSE = 34


def _as_json(scenario: Scenario) -> dict[str, object]:
    return {
        "name": scenario.name,
        "about": scenario.about,
        "source": scenario.source,
        "destination": scenario.destination,
        "verdict": scenario.expect.verdict,
        "symptom": scenario.expect.symptom,
        "causes": list(scenario.expect.causes),
        "recorded": scenario.recorded,
    }


@app.command()
def run(
    name: Name = "default",
    output: Annotated[ReportFormat, typer.Option("-o", "--output", help="of the report")] = ReportFormat.TEXT,
    lang: Annotated[str, typer.Option("--lang", help="of the report: en or ko")] = "en",
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="facts and passed checks too")] = False,
    save: Annotated[str | None, typer.Option("--save", help="keep a bundle of the run here")] = None,
    record: Annotated[bool, typer.Option("--record", help="make this run the scenario's recording")] = False,
) -> None:
    """Starts a scenario, diagnoses the pair that it was made for, and stops it."""
    from mcdoctor.cli.diagnose import Asked, diagnose_pair

    scenario = _scenario(name)
    if record and save is not None:
        fail("--record and --save exclude one another")
    if lang not in ("en", "ko"):
        fail(f"--lang {lang!r}: expected en or ko")
    asked = Asked(
        source=scenario.source,
        destination=scenario.destination,
        lab=name,
        output=output.value,
        language=lang,
        verbose=verbose,
        save=save,
    )
    raise typer.Exit(_record(scenario, asked) if record else diagnose_pair(asked))


def _record(scenario: Scenario, asked: Asked) -> int:
    """Diagnoses live, and keeps what was seen as the recording in the scenario's folder."""
    import dataclasses
    import tempfile

    from mcdoctor.cli.diagnose import diagnose_pair

    _check_available()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder, "bundle")
        code = diagnose_pair(dataclasses.replace(asked, save=str(bundle)))
        lines = "".join(path.read_text("utf-8") for path in sorted(bundle.glob("facts/*.jsonl")))
    if lines:
        place = scenario.folder / "facts" / "recording.jsonl"
        place.parent.mkdir(exist_ok=True)
        place.write_text(lines, "utf-8")
        say(f"recorded {lines.count(chr(10))} facts in {place}")
    return code


@app.command()
def up(name: Name = "default") -> None:
    """Starts a scenario and leaves it running until `mcdoctor lab down`."""
    from mcdoctor.lab import BadLab, Lab, LabFailed

    scenario = _scenario(name)
    state = _state()
    running = _running(state)
    if running is not None:
        fail(f"the lab {running.name} is running already", hint="End it first: mcdoctor lab down")
    _check_available()
    try:
        lab = Lab(scenario.folder).start(detached=True)
    except (BadLab, LabFailed, OSError) as error:
        fail(str(error), FAILED)
    try:
        lab.save(state)
    except OSError as error:
        lab.stop()
        fail(f"{state}: {error.strerror}")
    say(f"The lab {lab.name} runs: {scenario.about}")
    for cluster, pod in lab.pods():
        say(f"  {cluster}  {pod}")
    say(f"Look from inside: mcdoctor lab shell {_source_pod(lab)}. End it: mcdoctor lab down")


@app.command(context_settings={"ignore_unknown_options": True})
def shell(
    pod: Annotated[str, typer.Argument(metavar="POD", help="(part of) a pod's name, or a host of lab.yaml")],
    command: Annotated[list[str] | None, typer.Argument(metavar="[COMMAND]...", help="instead of a shell")] = None,
) -> None:
    """Runs a shell, or a command, inside a pod of the lab that is up, with its network, DNS and host name."""
    running = _running(_state())
    if running is None:
        fail("no lab is running", hint="Start one: mcdoctor lab up default")
    hosts = {name: host.pod or name for name, host in running.spec.hosts.items()}
    exact = [name for name, shown in hosts.items() if pod in (name, shown, shown.partition("/")[2])]
    found = exact or [name for name, shown in hosts.items() if pod in shown or pod in name]
    if not found:
        fail(f"no pod of the lab {running.name} is called {pod!r}", hint="Pods: " + ", ".join(sorted(hosts.values())))
    if len(found) > 1:
        fail(f"{pod!r} is several pods: {', '.join(sorted(hosts[name] for name in found))}")
    prefix = running.argv_of_host(found[0], all_capabilities=True)
    line = [*prefix, *(command or [os.environ.get("SHELL", "/bin/sh")])]
    sys.stdout.flush()
    os.execv(line[0], line)  # noqa: S606 - the shell takes over this terminal


@app.command()
def down() -> None:
    """Ends the lab that is up; nothing of it stays."""
    state = _state()
    running = _running(state)
    if running is not None:
        running.stop()
        say(f"The lab {running.name} has ended.")
    else:
        say("No lab is running.")
    state.unlink(missing_ok=True)


def _scenario(name: str) -> Scenario:
    from mcdoctor.lab import BadLab, scenario
    from mcdoctor.lab.scenarios import BadScenario

    try:
        return scenario(name)
    except LookupError as error:
        fail(str(error.args[0]), hint="See them all: mcdoctor lab list")
    except (BadLab, BadScenario) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")


def _check_available() -> None:
    from mcdoctor.lab import available

    reason = available()
    if reason is not None:
        fail(reason, NOT_SETTLED, "A recording of each scenario ships with mcdoctor: mcdoctor lab run NAME replays it.")


def _state() -> Path:
    """Where the lab that is up is noted: a folder that only this user can write."""
    home = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "mcdoctor" / "lab.json"


def _running(state: Path) -> RunningLab | None:
    from mcdoctor.lab.running import found

    return found(state)


def _source_pod(lab: RunningLab) -> str:
    """The pod that stands for the scenario's source, else any."""
    name = lab.spec.diagnose.source.partition(".")[0].rpartition("/")[2]
    pods = [pod.partition("/")[2] for _, pod in lab.pods()]
    return next((pod for pod in pods if pod.startswith(name)), pods[0])
