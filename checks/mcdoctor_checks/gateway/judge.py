"""Conditions of routes, and the state of the Services behind which gateways stand.

Reasons are those of the Gateway API: https://gateway-api.sigs.k8s.io/reference/spec/ (RouteConditionReason).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from mcdoctor.flow import kinds
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Fact, KubeObject, LogLine, TcpConnect
from mcdoctor.models.ids import Hop
from mcdoctor.models.outcome import Finding, Outcome
from mcdoctor_checks.sight import GATEWAY_PORTS, items, mapping, maps, number
from mcdoctor_checks.tcp.rules import found, settled

_ROUTES = tuple(f"{k}.gateway.networking.k8s.io" for k in ("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"))
_REASONS: Mapping[str, str] = {
    "NoMatchingListenerHostname": "route-hostname-unmatched",
    "NotAllowedByListeners": "route-namespace-refused",
    "NoMatchingParent": "route-parent-unmatched",
    "RefNotPermitted": "route-backend-not-permitted",
    "BackendNotFound": "route-backend-absent",
}
ROUTE_FINDINGS = tuple(_REASONS.values())
ENTRANCE_FINDINGS = ("gateway-without-address", "health-check-port-closed")


# --- routes --------------------------------------------------------------------------------------------------------


def judge_routes(facts: Facts) -> Outcome:
    """What the gateway's controller says against the routes to the destination; one that is taken excuses the rest."""
    routes = [r for kind in _ROUTES for r in facts.objects(kind) if _leads_there(facts, r)]
    problems: list[Finding] = []
    for route in routes:
        parents = maps(route.status.get("parents"))
        bad = [(p, c) for p in parents for c in _against(p)]
        if len({id(p) for p, _ in bad}) < len(parents):
            return settled([], routes, "")
        for parent, state in bad:
            reference = mapping(parent.get("parentRef"))
            section = reference.get("sectionName") or reference.get("port")
            problems.append(
                found(
                    _REASONS[str(state["reason"])],
                    Hop.DEST_GATEWAY,
                    [route, *_gateways(facts, route, reference)],
                    cluster=route.cluster,
                    gateway=f"{reference.get('namespace') or route.namespace}/{reference.get('name')}",
                    section=str(section or "-"),
                    hosts=", ".join(map(str, items(route.spec.get("hostnames")))) or "-",
                    why=str(state.get("message") or state.get("reason")),
                )
            )
    return settled(problems, routes, "no Gateway API route leads to the destination")


def _against(parent: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [
        c
        for c in maps(parent.get("conditions"))
        if c.get("type") in ("Accepted", "ResolvedRefs") and c.get("status") == "False" and c.get("reason") in _REASONS
    ]


def _leads_there(facts: Facts, route: KubeObject) -> bool:
    flow = facts.flow
    if route.cluster not in (flow.source_cluster, flow.destination_cluster):
        return False
    ends = [e for e in (flow.local, flow.remote) if e is not None]
    names = {flow.host, *(e.external_name for e in ends)} - {None}
    if names & set(items(route.spec.get("hostnames"))):
        return True
    own = {(e.namespace, e.name) for e in ends} | {(flow.namespace, flow.name)}
    return any(
        (str(ref.get("namespace") or route.namespace), str(ref.get("name"))) in own
        for rule in maps(route.spec.get("rules"))
        for ref in maps(rule.get("backendRefs"))
    )


def _gateways(facts: Facts, route: KubeObject, reference: Mapping[str, Any]) -> list[KubeObject]:
    namespace = str(reference.get("namespace") or route.namespace)
    seen = facts.object(kinds.GATEWAY, route.cluster, namespace, str(reference.get("name")))
    return [seen] if seen else []


# --- entrances -----------------------------------------------------------------------------------------------------


def judge_entrance(facts: Facts) -> Outcome:
    """Load balancers in front of the destination or of its cluster's gateways."""
    entrances = [s for s in facts.objects(kinds.SERVICE, facts.flow.destination_cluster) if _is_entrance(facts, s)]
    problems = [*_without_address(entrances), *_unhealthy(facts, entrances)]
    return settled(problems, entrances, "no load balancer stands before the destination")


def _is_entrance(facts: Facts, service: KubeObject) -> bool:
    flow = facts.flow
    if service.spec.get("type") != "LoadBalancer" or not flow.crosses_clusters:
        return False
    ports = {number(p.get("port")) for p in maps(service.spec.get("ports"))}
    meshed = any(layer.layer == "l7" or layer.system == "linkerd-mirror" for layer in flow.interconnect)
    return (service.namespace, service.name) == (flow.namespace, flow.name) or (meshed and bool(ports & GATEWAY_PORTS))


def _without_address(entrances: Iterable[KubeObject]) -> Iterable[Finding]:
    for service in entrances:
        given = maps(mapping(service.status.get("loadBalancer")).get("ingress"))
        if not given and not items(service.spec.get("externalIPs")) and "status" in service.body:
            yield found("gateway-without-address", Hop.DEST_GATEWAY, [service], cluster=service.cluster)


_UNHEALTHY = re.compile(r"\bunhealthy\b|health.?check.{0,20}fail", re.I)


def _unhealthy(facts: Facts, entrances: Iterable[KubeObject]) -> Iterable[Finding]:
    for service in entrances:
        port = number(service.spec.get("healthCheckNodePort"))
        probes = [t for t in facts.all(TcpConnect) if port and t.port == port]
        told = [
            x
            for x in facts.all(LogLine)
            if _UNHEALTHY.search(x.text) and (str(port) in x.text or service.name in x.text)
        ]
        closed: list[Fact] = [t for t in probes if t.result != "open"]
        if (probes and len(closed) == len(probes)) or (port and told and not probes):
            yield found(
                "health-check-port-closed",
                Hop.DEST_GATEWAY,
                [service, *closed, *told],
                cluster=service.cluster,
                port=port or 0,
            )
