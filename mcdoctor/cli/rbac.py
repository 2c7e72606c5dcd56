"""`mcdoctor rbac`: the smallest Role and bindings for a purpose, as YAML for whoever may grant them."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated

import typer

from mcdoctor.cli.errors import fail

if TYPE_CHECKING:
    from mcdoctor.kube.rbac import Subject


class Purpose(enum.StrEnum):
    DIAGNOSE = "diagnose"
    PROBE = "probe"
    COLLECT = "collect"


class ProbeKind(enum.StrEnum):
    EPHEMERAL = "ephemeral"
    POD = "pod"
    EXEC = "exec"


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command()
    def rbac(
        purpose: Annotated[
            Purpose, typer.Option("--for", help="diagnose and collect read; probe also creates the debug container")
        ] = Purpose.DIAGNOSE,
        namespace: Annotated[str, typer.Option("-n", "--namespace", help="of the source")] = "default",
        to_namespace: Annotated[
            str | None, typer.Option("--to-namespace", help="of the destination, when it is another")
        ] = None,
        cluster_scope: Annotated[
            bool,
            typer.Option("--cluster-scope", help="also what has no namespace, and names looked for in all namespaces"),
        ] = False,
        extensions: Annotated[
            bool, typer.Option("--extensions", help="also the configuration in istio-system and the like")
        ] = False,
        probe: Annotated[
            ProbeKind, typer.Option("--probe", help="where diagnose is to send from, with --for probe")
        ] = ProbeKind.EPHEMERAL,
        user: Annotated[str | None, typer.Option("--user", help="who gets the rights")] = None,
        group: Annotated[str | None, typer.Option("--group", help="who gets the rights")] = None,
        serviceaccount: Annotated[
            str | None, typer.Option("--serviceaccount", metavar="NAMESPACE:NAME", help="who gets the rights")
        ] = None,
    ) -> None:
        """Prints the smallest Role and bindings with which mcdoctor can do its work.

        mcdoctor rbac --for probe -n shop --user jane | kubectl apply --context cluster-a -f -

        Without --user, --group or --serviceaccount the rights go to a ServiceAccount mcdoctor in the namespace.
        """
        import yaml

        from mcdoctor.kube.rbac import manifests

        objects = manifests(
            purpose.value,
            namespace=namespace,
            to_namespace=to_namespace,
            cluster_scope=cluster_scope,
            extensions=extensions,
            probe=probe.value,
            subject=_subject(user, group, serviceaccount),
        )
        typer.echo("---\n".join(yaml.safe_dump(o, sort_keys=False, width=120) for o in objects), nl=False)


def _subject(user: str | None, group: str | None, account: str | None) -> Subject | None:
    from mcdoctor.kube.rbac import Subject

    if sum(x is not None for x in (user, group, account)) > 1:
        fail("--user, --group and --serviceaccount exclude one another")
    if user:
        return Subject("User", user)
    if group:
        return Subject("Group", group)
    if account:
        namespace, colon, name = account.partition(":")
        if not (colon and namespace and name):
            fail(f"--serviceaccount {account!r}: expected NAMESPACE:NAME")
        return Subject("ServiceAccount", name, namespace)
    return None
