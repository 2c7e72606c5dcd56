"""The commands and their options. Bodies live in modules of their own and are imported when a command runs."""

from __future__ import annotations

import enum
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

import typer

from mcdoctor import __version__
from mcdoctor.cli import cleanup as cleanup_command
from mcdoctor.cli import explain as explain_command
from mcdoctor.cli import lab as lab_command
from mcdoctor.cli import policy as policy_command
from mcdoctor.cli import probe as probe_command
from mcdoctor.cli import rbac as rbac_command
from mcdoctor.cli.errors import FAILED, INTERRUPTED, USAGE, CommandError, plain

app = typer.Typer(
    name="mcdoctor",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: rich and its Markdown parser cost 0.15 s of CPU
    pretty_exceptions_enable=False,  # tracebacks would print locals, and locals hold tokens
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Finds out why traffic from a workload fails on its way to a service, often in another cluster.",
)


class Format(enum.StrEnum):
    TEXT = "text"
    JSON = "json"
    YAML = "yaml"
    MARKDOWN = "markdown"


class Language(enum.StrEnum):
    EN = "en"
    KO = "ko"


class ProbeMode(enum.StrEnum):
    AUTO = "auto"
    EPHEMERAL = "ephemeral"
    POD = "pod"
    EXEC = "exec"
    LOCAL = "local"
    NONE = "none"


class Profile(enum.StrEnum):
    RESTRICTED = "restricted"
    BASELINE = "baseline"
    GENERAL = "general"
    NETADMIN = "netadmin"
    SYSADMIN = "sysadmin"
    RAW = "raw"


class FailOn(enum.StrEnum):
    ERROR = "error"
    WARNING = "warning"


Source = Annotated[str, typer.Argument(metavar="SRC", help="[KIND/]NAME[.NAMESPACE][@CONTEXT]", show_default=False)]
Destination = Annotated[
    str,
    typer.Argument(
        metavar="DST", help="[KIND/]NAME[.NAMESPACE][:PORT][@CONTEXT], host name, URL or IP", show_default=False
    ),
]
Context = Annotated[str | None, typer.Option("--context", help="kubeconfig context of SRC")]
ToContext = Annotated[str | None, typer.Option("--to-context", help="context of DST")]
Namespace = Annotated[str | None, typer.Option("-n", "--namespace", help="of SRC")]
ToNamespace = Annotated[str | None, typer.Option("--to-namespace", help="of DST")]
Kubeconfig = Annotated[str | None, typer.Option("--kubeconfig", help="file to read")]
As = Annotated[str | None, typer.Option("--as", help="user to impersonate")]
AsGroup = Annotated[list[str] | None, typer.Option("--as-group", help="group, repeatable")]
RequestTimeout = Annotated[str, typer.Option("--request-timeout", help="of one API request: 5, 5s, 1m")]
Port = Annotated[str | None, typer.Option("--port", help="number or name, when DST does not say")]
BundlePath = Annotated[str | None, typer.Option("--bundle", help="recorded clusters")]
ToBundle = Annotated[str | None, typer.Option("--to-bundle", help="recorded DST cluster")]
Lab = Annotated[str | None, typer.Option("--lab", help="scenario of the embedded lab")]
SymptomOption = Annotated[str | None, typer.Option("--symptom", help="what is seen: a slug")]
Complete = Annotated[list[str] | None, typer.Option("--complete", help="kinds of which the files hold all")]
Probe = Annotated[ProbeMode, typer.Option("--probe", help="where to send from")]
Image = Annotated[str, typer.Option("--image", help="of the debug container, with Python 3.11")]
ProfileOption = Annotated[Profile, typer.Option("--profile", help="of the debug container; raw: NET_RAW only")]
Both = Annotated[bool, typer.Option("--both", help="a debug container at DST too")]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="create the debug container unasked")]
RequestText = Annotated[str | None, typer.Option("--request", help="'GET /path' to send instead")]
Header = Annotated[list[str] | None, typer.Option("--header", help="'Name: value', repeatable")]
Deadline = Annotated[float, typer.Option("--deadline", help="seconds for reading and probing", min=1)]
Output = Annotated[Format, typer.Option("-o", "--output", help="of the report")]
Lang = Annotated[Language | None, typer.Option("--lang", help="of the report (MCDOCTOR_LANG)")]
FailOnOption = Annotated[FailOn, typer.Option("--fail-on", help="exit 1 from here up")]
Save = Annotated[str | None, typer.Option("--save", help="keep a bundle of the run here")]
OutFile = Annotated[str | None, typer.Option("--out", help="write the report to a file")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="facts and passed checks too")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="no progress")]

_IMAGE = "python:3-slim"


def _language(chosen: Language | None) -> str:
    if chosen is not None:
        return chosen.value
    return "ko" if os.environ.get("MCDOCTOR_LANG", "").lower().startswith("ko") else "en"


@app.command(short_help="Why does traffic from SRC to DST fail?")
def diagnose(
    source: Source,
    destination: Destination,
    context: Context = None,
    to_context: ToContext = None,
    namespace: Namespace = None,
    to_namespace: ToNamespace = None,
    kubeconfig: Kubeconfig = None,
    as_user: As = None,
    as_group: AsGroup = None,
    request_timeout: RequestTimeout = "10s",
    bundle: BundlePath = None,
    to_bundle: ToBundle = None,
    lab: Lab = None,
    complete: Complete = None,
    port: Port = None,
    symptom: SymptomOption = None,
    probe: Probe = ProbeMode.AUTO,
    image: Image = _IMAGE,
    profile: ProfileOption = Profile.RESTRICTED,
    both: Both = False,
    yes: Yes = False,
    request: RequestText = None,
    header: Header = None,
    deadline: Deadline = 120.0,
    output: Output = Format.TEXT,
    lang: Lang = None,
    fail_on: FailOnOption = FailOn.ERROR,
    save: Save = None,
    out: OutFile = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Why does traffic from SRC fail on the way to DST?

    mcdoctor diagnose frontend backend --context cluster-a --to-context cluster-b

    mcdoctor diagnose frontend backend --lab default      (no cluster needed)

    Exit codes: 0 healthy or warnings only, 1 something wrong, 2 usage, 3 not settled, 4 mcdoctor failed,
    130 interrupted.
    """
    from mcdoctor.cli.diagnose import Asked, diagnose_pair

    raise typer.Exit(
        diagnose_pair(
            Asked(
                source=source,
                destination=destination,
                context=context,
                to_context=to_context,
                namespace=namespace,
                to_namespace=to_namespace,
                kubeconfig=kubeconfig,
                as_user=as_user,
                as_groups=tuple(as_group or ()),
                request_timeout=request_timeout,
                bundle=bundle,
                to_bundle=to_bundle,
                lab=lab,
                complete=tuple(complete or ()),
                port=port,
                symptom=symptom,
                probe=probe.value,
                image=image,
                profile=profile.value,
                both=both,
                yes=yes,
                request=request,
                headers=tuple(header or ()),
                deadline=deadline,
                output=output.value,
                language=_language(lang),
                fail_on=fail_on.value,
                save=save,
                out=out,
                verbose=verbose,
                quiet=quiet,
            )
        )
    )


@app.command(short_help="Records what a diagnosis looks at.")
def collect(
    source: Source,
    destination: Destination,
    file: Annotated[str, typer.Option("-f", "--file", help="folder or .tar.gz to write")],
    context: Context = None,
    to_context: ToContext = None,
    namespace: Namespace = None,
    to_namespace: ToNamespace = None,
    kubeconfig: Kubeconfig = None,
    as_user: As = None,
    as_group: AsGroup = None,
    request_timeout: RequestTimeout = "10s",
    port: Port = None,
    probe: Probe = ProbeMode.AUTO,
    image: Image = _IMAGE,
    profile: ProfileOption = Profile.RESTRICTED,
    yes: Yes = False,
    lab: Lab = None,
    deadline: Deadline = 120.0,
    quiet: Quiet = False,
) -> None:
    """Records what a diagnosis would look at, without a verdict: for another team, or for later."""
    from mcdoctor.cli.diagnose import Asked, collect_pair

    raise typer.Exit(
        collect_pair(
            Asked(
                source=source,
                destination=destination,
                context=context,
                to_context=to_context,
                namespace=namespace,
                to_namespace=to_namespace,
                kubeconfig=kubeconfig,
                as_user=as_user,
                as_groups=tuple(as_group or ()),
                request_timeout=request_timeout,
                port=port,
                probe=probe.value,
                image=image,
                profile=profile.value,
                yes=yes,
                lab=lab,
                deadline=deadline,
                quiet=quiet,
            ),
            file,
        )
    )


@app.command(short_help="Diagnoses a recording, sends nothing.")
def replay(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="folder, .tar.gz or file", show_default=False)],
    source: Annotated[str | None, typer.Argument(metavar="[SRC", help="when not recorded", show_default=False)] = None,
    destination: Annotated[str | None, typer.Argument(metavar="DST]", show_default=False)] = None,
    namespace: Namespace = None,
    to_namespace: ToNamespace = None,
    complete: Complete = None,
    port: Port = None,
    symptom: SymptomOption = None,
    output: Output = Format.TEXT,
    lang: Lang = None,
    fail_on: FailOnOption = FailOn.ERROR,
    out: OutFile = None,
    verbose: Verbose = False,
) -> None:
    """Diagnoses a recording: the same judges, not a packet sent."""
    from mcdoctor.cli.diagnose import Asked, replay_bundle

    raise typer.Exit(
        replay_bundle(
            Asked(
                source=source or "",
                destination=destination or "",
                namespace=namespace,
                to_namespace=to_namespace,
                bundle=bundle,
                complete=tuple(complete or ()),
                port=port,
                symptom=symptom,
                output=output.value,
                language=_language(lang),
                fail_on=fail_on.value,
                out=out,
                verbose=verbose,
                quiet=True,
            )
        )
    )


@app.command()
def version() -> None:
    """Prints the version."""
    typer.echo(f"mcdoctor {__version__}")


explain_command.register(app)
rbac_command.register(app)
cleanup_command.register(app)
app.add_typer(lab_command.app, name="lab", short_help="Two simulated clusters on this machine.")
app.add_typer(policy_command.app, name="policy", short_help="Do policies let traffic through?")
app.add_typer(probe_command.app, name="probe", short_help="One kind of probe, from here.")


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(arguments: Sequence[str]) -> int:
    """Runs a command line; every way to end has its exit code, and none is a traceback."""
    for name in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(name) is signal.SIG_DFL:  # nohup's wish stays
            signal.signal(name, _terminate)
    try:
        command = typer.main.get_command(app)
        # Not by calling it: that takes a KeyboardInterrupt for an exit, and nobody would say so.
        with command.make_context(_called(), list(arguments)) as context:
            command.invoke(context)
        return 0
    except CommandError as error:
        _complain(str(error), error.hint)
        return error.code
    except typer.Exit as ended:
        return ended.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(str(error), file=sys.stderr)
            return USAGE
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # a usage error of the parser
            _complain(error.format_message(), f"See '{_called()} --help'.")
            return int(error.exit_code)
        if os.environ.get("MCDOCTOR_DEBUG"):
            raise
        _complain(
            f"mcdoctor failed: {type(error).__name__}: {error}",
            "This is a defect of mcdoctor; MCDOCTOR_DEBUG=1 shows where.",
        )
        return FAILED


def _called() -> str:
    return "kubectl mcdoctor" if os.path.basename(sys.argv[0]).startswith("kubectl") else "mcdoctor"  # noqa: PTH119


def _complain(message: str, hint: str = "") -> None:
    print(f"error: {plain(message)}", file=sys.stderr)
    if hint:
        print(plain(hint), file=sys.stderr)
