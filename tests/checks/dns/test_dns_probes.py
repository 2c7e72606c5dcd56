"""What the probes of rooms dns and endpoints ask for, and when they keep still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from worlds import NOW, Case, cases

from mcdoctor.check import Options, World
from mcdoctor.flow import resolve
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import (
    Absent,
    DnsAnswer,
    DnsRecord,
    DnsSample,
    DnsSeries,
    Fact,
    KubeObject,
    Listed,
    ResolvConf,
)
from mcdoctor.models.ids import Symptom
from mcdoctor.models.requests import AskDns, ProbeRequest, ReadResolvConf, SampleDns
from mcdoctor.models.vantage import Vantage
from mcdoctor_checks.dns.probe import probe_configuration, probe_name, probe_other_servers, probe_resolver
from mcdoctor_checks.endpoints.probe import probe_objects

HERE = Vantage(cluster="a", namespace="shop", pod="frontend-1")
CONF = ResolvConf(
    at=NOW, vantage=HERE, nameservers=("10.96.0.10", "192.0.2.54"),
    search=("shop.svc.cluster.local", "svc.cluster.local", "cluster.local"), options=("ndots:5",),
)  # fmt: skip


@dataclass
class FakeProber:
    """Answers DNS: `silent` servers never, the rest with one address; `varying` samples alternate."""

    silent: frozenset[str] = frozenset()
    varying: bool = False
    asked: list[ProbeRequest] = field(default_factory=list)
    vantage: Vantage = HERE

    def run(self, request: ProbeRequest, *, budget: float) -> tuple[Fact, ...]:
        self.asked.append(request)
        if isinstance(request, ReadResolvConf):
            return (CONF,)
        assert isinstance(request, (AskDns, SampleDns))
        server = request.server or "10.96.0.10"
        common = {
            "at": NOW,
            "vantage": HERE,
            "name": request.name,
            "type": request.type,
            "server": f"{server}:53",
            "transport": request.transport,
        }
        if isinstance(request, SampleDns):
            samples = tuple(
                DnsSample(at=NOW, result="answered", rcode="NXDOMAIN" if self.varying and i % 2 else "NOERROR", ms=1)
                for i in range(request.samples)
            )
            return (DnsSeries(**common, interval_ms=50, samples=samples),)
        if server in self.silent:
            return (DnsAnswer(**common, result="timeout", ms=2000),)
        record = DnsRecord(name=request.name, type=request.type, ttl=5, data="10.96.7.80")
        resolver = None if request.server else "glibc"
        return (DnsAnswer(**common, resolver=resolver, result="answered", rcode="NOERROR", answers=(record,), ms=1),)

    def close(self) -> None:
        return


@dataclass
class FakeReader:
    """A cluster that holds the objects of a case."""

    facts: Facts
    cluster: str = "a"
    calls: list[tuple[str, str | None, str | None]] = field(default_factory=list)

    def get(self, kind: str, namespace: str | None, name: str) -> Fact:
        self.calls.append((kind, namespace, name))
        found = self.facts.object(kind, self.cluster, namespace, name)
        return found or Absent(
            at=NOW,
            vantage=Vantage(cluster=self.cluster),
            cluster=self.cluster,
            wanted=kind,
            namespace=namespace,
            name=name,
        )

    def list(
        self, kind: str, namespace: str | None = None, *, labels: str | None = None, fields: str | None = None
    ) -> Sequence[Fact]:
        self.calls.append((kind, namespace, labels))
        wanted = dict(p.split("=", 1) for p in labels.split(",")) if labels else {}
        found = [
            o
            for o in self.facts.objects(kind, self.cluster, namespace)
            if all(o.labels.get(k) == v for k, v in wanted.items())
        ]
        end = Listed(at=NOW, vantage=Vantage(cluster=self.cluster), cluster=self.cluster, wanted=kind, namespace=namespace,
                     selector=labels, field_selector=fields, count=len(found))  # fmt: skip
        return [*found, end]

    def ask(self, namespace: str, pod: str, port: int, path: str) -> Fact:
        raise AssertionError("these rooms read no debug endpoints")


def case(name: str, room: str = "dns") -> Case:
    return next(c for c in cases(room) if c.name == name)


def a_world(
    name: str,
    prober: FakeProber | None,
    *,
    seen: Sequence[Fact] = (CONF,),
    symptom: Symptom | None = None,
    room: str = "dns",
) -> World:
    of = case(name, room)
    objects = [f for f in of.facts if isinstance(f, (KubeObject, Listed))]
    flow = resolve(of.request, Facts(objects, None))
    reader = FakeReader(Facts(objects, flow))
    known = [f for f in objects if room == "dns"]
    return World(
        flow=flow,
        facts=Facts([*known, *seen], flow),
        prober=prober,
        readers=(reader,),
        options=Options(symptom=symptom),
    )


def asked(prober: FakeProber, kind: type[ProbeRequest] = AskDns) -> list[tuple[str, str, str | None, str]]:
    return [
        (r.name, r.type, r.server, r.transport)
        for r in prober.asked
        if isinstance(r, (AskDns, SampleDns)) and isinstance(r, kind)
    ]


def test_each_server_is_asked_alone_over_both_transports_and_families() -> None:
    prober = FakeProber()
    list(probe_name(a_world("healthy-local", prober)))
    name, seen = "backend.shop.svc.cluster.local.", asked(prober)
    for server in CONF.nameservers:
        assert (name, "A", server, "udp") in seen and (name, "AAAA", server, "udp") in seen
        assert (name, "A", server, "tcp") in seen
        assert ("kubernetes.default.svc.cluster.local.", "A", server, "udp") in seen
    assert (name.rstrip("."), "A", None, "udp") in seen, "the C library gets the name without a dot"
    assert (f"{name}svc.cluster.local.", "A", "10.96.0.10", "udp") in seen, "the search list is followed"
    assert [r.samples for r in prober.asked if isinstance(r, SampleDns)] == [5, 5]


def test_more_samples_follow_only_what_varies_or_a_wish() -> None:
    for varying, symptom, most in ((False, None, 5), (True, None, 30), (False, Symptom.DNS_FLAPPING, 40)):
        prober = FakeProber(varying=varying)
        list(probe_name(a_world("healthy-local", prober, symptom=symptom)))
        assert max(r.samples for r in prober.asked if isinstance(r, SampleDns)) == most


def test_silent_servers_cost_no_search_and_no_samples() -> None:
    prober = FakeProber(silent=frozenset(CONF.nameservers))
    facts = [f for f in probe_name(a_world("healthy-local", prober)) if isinstance(f, DnsAnswer)]
    assert not asked(prober, SampleDns)
    assert ("kubernetes.default.svc.cluster.local.", "A", "10.96.0.10", "tcp") in asked(prober)
    assert len(facts) == len(asked(prober)) and {f.result for f in facts} == {"timeout"}


def test_facts_come_in_the_order_of_the_questions() -> None:
    one, other = FakeProber(), FakeProber()
    first = [f.subject for f in probe_name(a_world("healthy-local", one))]
    assert first == [f.subject for f in probe_name(a_world("healthy-local", other))]


def test_nothing_is_asked_without_a_prober_or_a_name() -> None:
    assert not list(probe_name(a_world("healthy-local", None)))
    assert not list(probe_resolver(a_world("healthy-local", None)))
    assert not list(probe_other_servers(a_world("healthy-local", None)))
    prober = FakeProber()
    by_address = a_world("address-destination", prober)
    assert not list(probe_name(by_address)) and not list(probe_other_servers(by_address))
    assert not list(probe_configuration(by_address)) and not prober.asked


def test_resolv_conf_is_read() -> None:
    assert list(probe_resolver(a_world("healthy-local", FakeProber()))) == [CONF]


def test_other_servers_are_asked_for_what_they_may_know() -> None:
    prober = FakeProber()
    list(probe_other_servers(a_world("healthy-clusterset", prober)))
    assert {(n, s) for n, _, s, _ in asked(prober)} == {
        ("backend.shop.svc.clusterset.local.", "10.10.0.10"), ("backend.shop.svc.clusterset.local.", "10.96.0.53"),
    }  # fmt: skip
    prober = FakeProber()
    list(probe_other_servers(a_world("upstreams-disagree", prober)))
    assert {s for _, _, s, _ in asked(prober)} == {"10.10.0.10", "192.0.2.53"}, "192.0.2.54 is the pod's own"


def test_the_objects_of_dns_are_read_once() -> None:
    world = a_world("healthy-local", None)
    found = list(probe_configuration(world))
    kinds = {(f.kind, f.name) for f in found if isinstance(f, KubeObject)}
    assert {("EndpointSlice.discovery.k8s.io", "kube-dns-x7k2p"), ("Pod", "coredns-1")} <= kinds
    assert ("ConfigMap", "coredns") not in kinds, "it was read with the pair"
    assert {f.name for f in found if isinstance(f, Absent)} == {"coredns-custom", "node-local-dns", "kube-dns"}


def test_without_what_the_pair_read_everything_of_dns_is_read() -> None:
    world = a_world("healthy-local", None)
    bare = World(flow=world.flow, facts=Facts((), world.flow), readers=world.readers)
    kinds = {(f.kind, f.name) for f in probe_configuration(bare) if isinstance(f, KubeObject)}
    assert {("ConfigMap", "coredns"), ("Service", "kube-dns"), ("Pod", "coredns-1")} <= kinds
    assert not list(probe_configuration(World(flow=world.flow, facts=world.facts)))


def test_pods_and_workloads_are_listed_where_the_selector_matches_none() -> None:
    world = a_world("selector-no-match", None, room="endpoints")
    of = case("selector-no-match", "endpoints")
    service = [f for f in of.facts if isinstance(f, KubeObject) and f.kind == "Service"]
    seen = World(flow=world.flow, facts=Facts(service, world.flow), readers=world.readers)
    found = {(f.kind, f.name) for f in probe_objects(seen) if isinstance(f, KubeObject)}
    assert {
        ("Pod", "backend-1"),
        ("Deployment.apps", "backend"),
        ("EndpointSlice.discovery.k8s.io", "backend-x7k2p"),
    } <= found
    assert not list(probe_objects(World(flow=world.flow, facts=Facts(service, world.flow))))


def test_nothing_is_listed_where_all_was_seen() -> None:
    of = case("healthy-local", "endpoints")
    facts = Facts(of.facts, resolve(of.request, Facts(of.facts, None)))
    reader = FakeReader(facts)
    assert not list(probe_objects(World(flow=facts.flow, facts=facts, readers=(reader,)))) and not reader.calls
