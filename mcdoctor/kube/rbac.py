"""The smallest rights for a purpose, from the one table of what is read (`flow.kinds`) and what a vantage does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mcdoctor.flow import kinds
from mcdoctor.kube.resources import KNOWN, Resource

Purpose = Literal["diagnose", "probe", "collect"]
ProbeKind = Literal["ephemeral", "pod", "exec"]
NAME = "mcdoctor"
_SYSTEM = "kube-system"
_OPENSHIFT_DNS = "openshift-dns"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a Role: verbs on a resource of a group, perhaps on named objects only."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """Who gets the rights, as a binding names it."""

    kind: Literal["User", "Group", "ServiceAccount"]
    name: str
    namespace: str | None = None


VANTAGES: dict[ProbeKind, tuple[Rule, ...]] = {
    "ephemeral": (
        Rule("", "pods", ("get",)),
        Rule("", "pods/ephemeralcontainers", ("patch",)),
        Rule("", "pods/attach", ("create", "get")),
    ),
    "pod": (
        Rule("", "pods", ("create", "delete", "get")),
        Rule("", "configmaps", ("create", "delete")),
        Rule("", "pods/attach", ("create", "get")),
        Rule("", "services", ("list",)),
        Rule("networking.k8s.io", "networkpolicies", ("list",)),
        Rule("networking.istio.io", "serviceentries", ("list",)),
    ),
    "exec": (Rule("", "pods", ("get",)), Rule("", "pods/exec", ("create", "get"))),
}
"""What each vantage does in the source's namespace. A websocket is opened by `get`; since 1.35 `create` counts too."""


def pair_rules() -> Iterator[Rule]:
    """Reading in a namespace of the pair."""
    for kind in (*kinds.WORKLOADS, kinds.SERVICE):
        yield _rule(kind, ("get", "list"))
    yield _rule(kinds.SLICE, ("list",))
    for reading in kinds.READINGS:
        if reading.scope == "pair":
            yield _rule(reading.kind, ("list",))
        elif reading.scope == "account":
            yield _rule(reading.kind, ("get",))


def system_rules(extensions: bool = False) -> dict[str, list[Rule]]:
    """Reading single objects elsewhere, by namespace: the cluster's DNS and CNI; with `extensions` also the
    configuration of what has a namespace of its own, such as a mesh."""
    watched = (kinds.SLICE, kinds.POD, kinds.SERVICE)  # the DNS Service has many names: it is found by its label
    homes = (_SYSTEM, _OPENSHIFT_DNS) if extensions else (_SYSTEM,)
    rules: dict[str, list[Rule]] = {home: [_rule(kind, ("list",)) for kind in watched] for home in homes}
    for reading in (*kinds.READINGS, *kinds.ON_DEMAND):
        if reading.scope == "named" and reading.name and "/" in reading.name:
            namespace, _, name = reading.name.partition("/")
            if namespace != _SYSTEM and not extensions:
                continue  # the namespace is not there in most clusters, and applying would fail
            rules.setdefault(namespace, []).append(_rule(reading.kind, ("get",), (name,)))
        elif reading.scope == "root" and extensions:
            rules.setdefault(kinds.ISTIO_ROOT, []).append(_rule(reading.kind, ("list",)))
    return rules


def cluster_rules(namespaces: Sequence[str]) -> Iterator[Rule]:
    """Reading what has no namespace."""
    yield _rule(kinds.NAMESPACE, ("get",), tuple(dict.fromkeys((*namespaces, _SYSTEM))))
    yield _rule(kinds.NAMESPACE, ("list",))
    yield _rule(kinds.NODE, ("list",))
    for reading in kinds.READINGS:
        if reading.scope in ("cluster", "hosts"):
            yield _rule(reading.kind, ("list",))
        elif reading.scope == "named" and reading.name and "/" not in reading.name:
            yield _rule(reading.kind, ("get",), (reading.name,))


def manifests(
    purpose: Purpose,
    *,
    namespace: str,
    to_namespace: str | None = None,
    cluster_scope: bool = False,
    extensions: bool = False,
    probe: ProbeKind = "ephemeral",
    subject: Subject | None = None,
) -> list[dict[str, Any]]:
    """Roles and bindings, ready to apply.

    `diagnose` and `collect` read; `probe` also creates what `diagnose` probes from. `cluster_scope`: also what has no
    namespace (policies of a whole cluster, nodes, namespace labels), and looking for a name in all namespaces.
    Without a subject: a ServiceAccount `mcdoctor` in the namespace.
    """
    purpose_name = f"{NAME}-{purpose}" + (f"-{probe}" if purpose == "probe" else "")
    objects: list[dict[str, Any]] = []
    if subject is None:
        subject = Subject("ServiceAccount", NAME, namespace)
        objects.append(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": namespace}}
        )
    pair = tuple(dict.fromkeys(n for n in (namespace, to_namespace) if n))
    for place in pair:
        rules = [*pair_rules(), *(VANTAGES[probe] if purpose == "probe" and place == namespace else ())]
        objects += _bound(place, purpose_name if place == namespace else f"{NAME}-diagnose", rules, subject)
    for place, extra in system_rules(extensions).items():
        objects += _bound(place, f"{NAME}-system", extra, subject)
    if cluster_scope:
        everywhere = [*cluster_rules(pair)]
        everywhere += [_rule(kind, ("list",)) for kind in (*kinds.WORKLOADS, kinds.SERVICE, kinds.SERVICE_IMPORT)]
        objects += _bound(None, "-".join((NAME, *pair)), everywhere, subject)
    return objects


def _rule(kind: str, verbs: tuple[str, ...], names: tuple[str, ...] = ()) -> Rule:
    resource: Resource = KNOWN[kind]
    return Rule(resource.group, resource.plural, verbs, names)


def merged(rules: Iterable[Rule]) -> list[dict[str, Any]]:
    """Rules as a Role has them: verbs of one resource together, resources of one group with equal verbs in one line."""
    verbs: dict[tuple[str, str, tuple[str, ...]], set[str]] = {}
    for rule in rules:
        verbs.setdefault((rule.group, rule.resource, rule.names), set()).update(rule.verbs)
    lines: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (group, resource, names), wanted in verbs.items():
        lines.setdefault((group, names, tuple(sorted(wanted))), []).append(resource)
    return [
        {
            "apiGroups": [group],
            "resources": sorted(resources),
            **({"resourceNames": list(names)} if names else {}),
            "verbs": list(wanted),
        }
        for (group, names, wanted), resources in lines.items()
    ]


def _bound(namespace: str | None, name: str, rules: Iterable[Rule], subject: Subject) -> list[dict[str, Any]]:
    api = "rbac.authorization.k8s.io"
    prefix = "" if namespace else "Cluster"
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    # each subject has a binding of its own, so that granting to one takes nothing from another
    binding = {**metadata, "name": f"{name}:{subject.name}".replace("/", ":").replace("%", ":")}
    who: dict[str, Any] = {"kind": subject.kind, "name": subject.name}
    who |= {"namespace": subject.namespace} if subject.kind == "ServiceAccount" else {"apiGroup": api}
    return [
        {"apiVersion": f"{api}/v1", "kind": f"{prefix}Role", "metadata": metadata, "rules": merged(rules)},
        {
            "apiVersion": f"{api}/v1",
            "kind": f"{prefix}RoleBinding",
            "metadata": binding,
            "roleRef": {"apiGroup": api, "kind": f"{prefix}Role", "name": name},
            "subjects": [who],
        },
    ]
