"""Asks the source pod's resolvers, each alone, and reads the objects of the cluster's DNS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from mcdoctor.check import World
from mcdoctor.models.facts import DnsAnswer, DnsSeries, Fact, KubeObject, Listed
from mcdoctor.models.ids import Symptom
from mcdoctor.models.requests import AskDns, ProbeRequest, ReadResolvConf, SampleDns
from mcdoctor_checks.dns.facts import (
    SYSTEM,
    View,
    dns_services,
    expected_names,
    multicluster_servers,
    other_servers,
    server_address,
    sockets,
    upstreams,
    view,
)
from mcdoctor_checks.endpoints.facts import SLICE

_TOGETHER = 8
_SERVERS = 3  # the C library asks no more
_SEARCH = 6
_OTHERS = 6


def probe_configuration(world: World) -> Iterator[Fact]:
    """The ConfigMaps, Service, endpoints and pods of the source cluster's DNS, and the node's cache."""
    flow = world.flow
    reader = world.reader(flow.source_cluster)
    if reader is None or flow.host is None:
        return
    known = {(o.namespace, o.name) for o in world.facts.objects("ConfigMap", flow.source_cluster)}
    found: list[Fact] = []
    for name in ("coredns", "coredns-custom", "node-local-dns", "kube-dns"):
        if ("kube-system", name) not in known:
            found.append(reader.get("ConfigMap", "kube-system", name))
    if not any(isinstance(f, KubeObject) for f in found) and not known:
        found.append(reader.get("ConfigMap", "openshift-dns", "dns-default"))
    services = dns_services(world.facts)
    if not services:
        listed = [f for namespace in SYSTEM for f in reader.list("Service", namespace, labels="k8s-app=kube-dns")]
        found += listed
        services = tuple(f for f in listed if isinstance(f, KubeObject))
    for service in services:
        found += reader.list(SLICE, service.namespace, labels=f"kubernetes.io/service-name={service.name}")
    namespaces = {s.namespace or "kube-system" for s in services} or {"kube-system"}
    for namespace in sorted(namespaces):
        found += reader.list("Pod", namespace, labels="k8s-app=kube-dns")
    node = flow.source_pod.node if flow.source_pod else None
    if node:
        found += reader.list("Pod", "kube-system", labels="k8s-app=node-local-dns", fields=f"spec.nodeName={node}")
    yield from (f for f in found if not (isinstance(f, Listed) and f.count == 0 and f.wanted == "Service"))


def probe_resolver(world: World) -> Iterable[Fact]:
    """The pod's resolv.conf."""
    return world.ask(ReadResolvConf())


def probe_name(world: World) -> Iterator[Fact]:
    """Each server alone, over UDP and TCP, A and AAAA; the C library; the search list; quick samples."""
    if world.flow.host is None or world.prober is None:
        return
    seen = view(world.facts)
    servers = seen.servers[:_SERVERS]
    name, control = f"{seen.host}.", f"{seen.control}."
    first: list[ProbeRequest] = []
    for server in servers:
        first += [
            AskDns(name=name, type="A", server=server),
            AskDns(name=name, type="AAAA", server=server),
            AskDns(name=name, type="A", server=server, transport="tcp"),
            AskDns(name=control, type="A", server=server),
        ]
    first += [AskDns(name=seen.host, type=kind, timeout=6.0) for kind in ("A", "AAAA")]
    facts = list(_together(world, first))
    yield from facts
    alive = [f for f in facts if isinstance(f, DnsAnswer) and f.result == "answered" and f.resolver in (None, "direct")]
    if not alive:
        yield from _together(world, [AskDns(name=control, server=s, transport="tcp") for s in servers])
        return
    answering = next(s for s in servers if any(_is(f.server, s) for f in alive))
    second: list[ProbeRequest] = [
        AskDns(name=f"{expanded}.", type=kind, server=answering)
        for expanded in expected_names(seen.host, seen.search)[:_SEARCH]
        for kind in ("A", "AAAA")
    ]
    wanted = 40 if world.options.symptom is Symptom.DNS_FLAPPING else 5
    second += [SampleDns(name=name, server=server, samples=wanted) for server in servers]
    # One lost packet must not look like a server that mishandles a family.
    failed = {(f.server, f.type) for f in facts if isinstance(f, DnsAnswer) and f.resolver == "direct" and _failed(f)}
    second += [
        AskDns(name=name, type=kind, server=server)
        for server in servers
        for kind in ("A", "AAAA")
        for at, type in failed
        if type == kind and _is(at, server)
        for _ in range(2)
    ]
    facts = list(_together(world, second))
    yield from facts
    if wanted == 5 and any(_varies(f) for f in facts if isinstance(f, DnsSeries)):
        yield from _more_samples(world, seen, servers)


def _more_samples(world: World, seen: View, servers: Iterable[str]) -> Iterator[Fact]:
    """Once something varies: more of the same, the control name and TCP beside it."""
    name, control = f"{seen.host}.", f"{seen.control}."
    requests: list[ProbeRequest] = []
    for server in servers:
        requests += [
            SampleDns(name=name, server=server, samples=30),
            SampleDns(name=name, server=server, transport="tcp", samples=10),
            SampleDns(name=control, server=server, samples=10),
        ]
    yield from _together(world, requests)


def probe_other_servers(world: World) -> Iterator[Fact]:
    """The same question to servers beside the pod's own: each DNS pod, multi-cluster servers, upstreams."""
    if world.flow.host is None or world.prober is None:
        return
    seen = view(world.facts)
    upstream = set(upstreams(world.facts, seen.target)) - set(multicluster_servers(world.facts))
    servers = [s for s in other_servers(world.facts, seen.target) if s not in seen.servers][:_OTHERS]
    at = sockets(world.facts, seen.target)
    # An upstream knows nothing of the cluster's own names: it is asked for what it would be forwarded.
    yield from _together(
        world,
        [
            AskDns(name=f"{seen.target}.", server=at.get(s, s), tries=2)
            if s in upstream
            else AskDns(name=f"{seen.host}.", server=s, tries=2)
            for s in servers
        ],
    )


def _together(world: World, requests: list[ProbeRequest]) -> Iterator[Fact]:
    """The facts of all requests, asked side by side, in the order of the requests."""
    if not requests:
        return
    with ThreadPoolExecutor(max_workers=_TOGETHER, thread_name_prefix="dns") as pool:
        for facts in pool.map(world.ask, requests):
            yield from facts


def _failed(answer: DnsAnswer) -> bool:
    return answer.transport == "udp" and (answer.result != "answered" or answer.rcode == "SERVFAIL")


def _varies(series: DnsSeries) -> bool:
    """Something other than the same good answer every time."""
    outcomes = {(s.result, s.rcode) for s in series.samples}
    return len(outcomes) > 1 or any(s.ms > 1000 for s in series.samples)


def _is(server: str, address: str) -> bool:

    return server_address(server) == address
