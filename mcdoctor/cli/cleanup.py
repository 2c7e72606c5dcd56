"""`mcdoctor cleanup`: ends and deletes what earlier runs left in a cluster, and says what is left."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mcdoctor.cli.errors import NOT_SETTLED, USAGE, fail, say


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command()
    def cleanup(
        context: Annotated[str | None, typer.Option("--context", help="kubeconfig context")] = None,
        namespace: Annotated[
            str | None,
            typer.Option("-n", "--namespace", help="the context's unless given"),
        ] = None,
        all_namespaces: Annotated[bool, typer.Option("-A", "--all-namespaces", help="look everywhere")] = False,
        kubeconfig: Annotated[str | None, typer.Option("--kubeconfig", help="file to read")] = None,
        as_user: Annotated[str | None, typer.Option("--as", help="user to impersonate")] = None,
        as_group: Annotated[list[str] | None, typer.Option("--as-group", help="group, repeatable")] = None,
        run: Annotated[str | None, typer.Option("--run", help="only what this run created")] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="only show it")] = False,
        yes: Annotated[bool, typer.Option("-y", "--yes", help="do it unasked")] = False,
    ) -> None:
        """Ends and deletes what runs of mcdoctor left in a cluster.

        Nothing is left by a run that ended, also by Ctrl-C; this is for runs that were killed or lost their network.
        A run that is still going on elsewhere would lose its debug container too.
        """
        code = _clean(
            context,
            None if all_namespaces else namespace,
            all_namespaces,
            kubeconfig,
            as_user,
            as_group,
            run,
            dry_run,
            yes,
        )
        raise typer.Exit(code)


def _clean(
    context: str | None,
    namespace: str | None,
    everywhere: bool,
    kubeconfig: str | None,
    as_user: str | None,
    as_groups: list[str] | None,
    run: str | None,
    dry_run: bool,
    yes: bool,
) -> int:
    from mcdoctor.kube.cleanup import end, find
    from mcdoctor.kube.config import connect
    from mcdoctor.kube.errors import KubeConfigError
    from mcdoctor.kube.reader import ApiReader

    try:
        api = connect(context, kubeconfig=kubeconfig, as_user=as_user, as_groups=tuple(as_groups or ()))
    except KubeConfigError as error:
        fail(str(error), USAGE)
    try:
        ApiReader(api).check()
    except KubeConfigError as error:
        fail(str(error), NOT_SETTLED)
    place = None if everywhere else namespace or api.namespace
    found = find(api, place, run)
    for reason in found.unseen:
        say(f"could not look at {reason}")
    going = [one for one in found.leftovers if one.can_go]
    staying = [one for one in found.leftovers if not one.can_go]
    for one in going:
        say(f"found {one}")
    failed = bool(found.unseen)
    if going and not dry_run:
        if not yes and not _agreed():
            fail("nothing was removed: the answer was no, or there is no terminal to ask on (use --yes)", USAGE)
        for one in going:
            line = end(api, api.context, one)
            failed |= "could not" in line or "still" in line
            typer.echo(line)
    where = f"in namespace {place}" if place else "in all namespaces"
    if not found.leftovers and not found.unseen:
        say(f"nothing of mcdoctor was found {where} of {api.context}")
    if staying:
        say(f"{len(staying)} ephemeral container(s) of earlier runs have ended; their entries go with their pods:")
        for one in staying:
            say(f"  {one}")
    return NOT_SETTLED if failed else 0


def _agreed() -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print("Remove this? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
