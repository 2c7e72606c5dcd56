"""What the source pod sees of DNS: every query as a look, and the names, servers and zones that the flow is about."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import DnsAnswer, DnsSeries, Fact, KubeObject, ResolvConf
from mcdoctor_checks.dns.corefile import Corefile, clean, forwards, parse, within
from mcdoctor_checks.endpoints.facts import SLICE, cluster_ips, pod_ips
from mcdoctor_checks.reading import canonical, family, fields, items, selected, strings, text, texts
from mcdoctor_checks.sight import Place, place

Kind = Literal[
    "address", "alias", "empty", "truncated", "nxdomain", "servfail", "declined", "other", "silent", "closed",
    "unreachable",
]  # fmt: skip
"""`alias`: a CNAME whose target gave no address; `declined`: rcode REFUSED; `closed`: nothing listens."""

Zone = Literal["cluster", "peer", "external"]
"""`peer`: a name of another cluster or of the cluster set; no public server knows it."""

SYSTEM = ("kube-system", "openshift-dns")
_DNS_LABELS = ("kube-dns", "coredns")
_DNS_NAMES = ("kube-dns", "coredns", "dns-default")
PEER_ZONES = ("clusterset.local", "supercluster.local")
ANSWERED: tuple[Kind, ...] = (
    "address", "alias", "empty", "truncated", "nxdomain", "servfail", "declined", "other",
)  # fmt: skip
DENIED: tuple[Kind, ...] = ("nxdomain", "empty", "alias")


@dataclass(frozen=True, slots=True)
class Look:
    """One query with what came of it. `server` is an address; `libc` names the resolver that searched, if any did."""

    name: str
    absolute: bool
    type: str
    server: str
    tcp: bool
    libc: str | None
    kind: Kind
    addresses: tuple[str, ...]
    owners: tuple[str, ...]
    alias: str | None
    denial_ttl: int | None
    at: datetime
    ms: float
    fixed_port: bool
    place: Place
    fact: Fact


@dataclass(frozen=True, slots=True)
class View:
    """The flow's name and the source's resolver. `servers` are those of its resolv.conf, in its order.

    `target` is the name that has to be known in the end: that of an alias where the host is one, else the host.
    """

    host: str
    domain: str
    zone: Zone
    target: str
    target_zone: Zone
    conf: ResolvConf | None
    servers: tuple[str, ...]
    looks: tuple[Look, ...]
    near: tuple[Look, ...]

    @property
    def control(self) -> str:
        """A name that every cluster's DNS must know."""
        return f"kubernetes.default.svc.{self.domain}"

    @property
    def search(self) -> tuple[str, ...]:
        return tuple(clean(s) for s in self.conf.search) if self.conf else ()

    @property
    def searches_first(self) -> bool:
        """True when the C library tries the search list before the name itself."""
        return self.conf is not None and self.host.count(".") < self.conf.ndots

    def of(
        self, name: str, *, type: str | None = None, server: str | None = None, tcp: bool | None = None
    ) -> list[Look]:
        """Direct looks at an absolute name."""
        wanted = clean(name)
        return [
            k
            for k in self.looks
            if k.libc is None
            and k.name == wanted
            and type in (None, k.type)
            and server in (None, k.server)
            and tcp in (None, k.tcp)
        ]

    def through_libc(self) -> list[Look]:
        """Looks at the flow's name, or a shorter form of it, through a resolver that searches."""
        short = {self.host, *(self.host.removesuffix(f".{s}") for s in self.search)}
        return [k for k in self.looks if k.libc is not None and not k.absolute and k.name in short]


def view(facts: Facts) -> View:
    """What there is to judge of a flow that has a host name."""
    seen = configured(facts)
    looks = tuple(_looks(facts))
    mine = tuple(k for k in looks if k.place == "source")
    asked_for = {k.name for k in mine}
    if seen.host not in asked_for and seen.target in asked_for:  # the client calls the alias's target by its own name
        seen = replace(seen, host=seen.target, zone=seen.target_zone)
    alias = next((k.alias for k in mine if k.alias and k.name == seen.host), None)
    if alias is not None and seen.target == seen.host:
        seen = replace(seen, target=alias, target_zone=zone_of(alias, seen.domain))
    servers = seen.servers
    if seen.conf is None:
        others = {*other_servers(facts, seen.target)}
        asked = (k.server for k in mine if k.libc is None and k.name in (seen.host, seen.control))
        servers = tuple(dict.fromkeys(s for s in asked if s not in others))
    return replace(seen, servers=servers, looks=mine, near=tuple(k for k in looks if k.place == "near"))


def configured(facts: Facts) -> View:
    """The name and the resolver's configuration, without any query."""
    seen = named(facts)
    confs = [c for c in facts.all(ResolvConf) if place(facts.flow, c.vantage) == "source"]
    if not confs:
        return seen
    domain = seen.domain
    for entry in confs[-1].search:
        if clean(entry).startswith("svc."):
            domain = clean(entry).removeprefix("svc.")
    servers = tuple(dict.fromkeys(canonical(s) for s in confs[-1].nameservers))
    return replace(
        seen,
        domain=domain,
        zone=zone_of(seen.host, domain),
        target_zone=zone_of(seen.target, domain),
        conf=confs[-1],
        servers=servers,
    )


def named(facts: Facts) -> View:
    """The name alone, without what any prober saw: for checks that read objects only."""
    domain = clean(facts.flow.cluster_domain)
    host = clean(facts.flow.host or "")
    local = facts.flow.local
    target = host
    if local is not None and local.external_name and host.startswith(f"{local.name}.{local.namespace}."):
        target = clean(local.external_name)
    return View(host, domain, zone_of(host, domain), target, zone_of(target, domain), None, (), (), ())


def zone_of(name: str, domain: str) -> Zone:
    """Whose name it is: of the source's cluster, of its peers, or of the world."""
    if within(name, domain):
        return "cluster"
    if any(within(name, z) for z in PEER_ZONES) or ".svc." in f"{name}.":
        return "peer"
    return "external"


def _looks(facts: Facts) -> Iterator[Look]:
    for answer in facts.all(DnsAnswer):
        yield from _of_answer(facts, answer)
    for series in facts.all(DnsSeries):
        where = place(facts.flow, series.vantage)
        for sample in series.samples:
            kind = _kind(sample.result, sample.rcode, tuple(sample.answers or ()), None, series.transport, None)
            yield Look(
                clean(series.name),
                series.name.endswith("."),
                series.type.upper(),
                server_address(sample.server or series.server),
                series.transport != "udp",
                None if series.resolver in (None, "direct") else series.resolver,
                kind,
                tuple(canonical(a) for a in sample.answers or () if family(a)),
                (),
                None,
                None,
                sample.at,
                sample.ms,
                series.source_port is not None,
                where,
                series,
            )


def _of_answer(facts: Facts, answer: DnsAnswer) -> Iterator[Look]:
    records = answer.answers or ()
    wanted = answer.type.upper()
    owners = tuple(clean(r.name) for r in records if r.type == wanted)
    data = tuple(canonical(r.data) if family(r.data) else r.data for r in records if r.type == wanted)
    aliases = (*(clean(r.data) for r in records if r.type == "CNAME"), *(clean(c) for c in answer.chain or ()))
    kind = _kind(answer.result, answer.rcode, data, answer.tc, answer.transport, aliases[-1] if aliases else None)
    denial = next((r.ttl for r in answer.authority or () if r.type == "SOA"), None)
    first = clean(records[0].name) if records else ""
    look = Look(
        clean(answer.name),
        answer.name.endswith("."),
        wanted,
        server_address(answer.server),
        answer.transport != "udp",
        None if answer.resolver in (None, "direct") else answer.resolver,
        kind,
        data,
        (first, *owners) if first else owners,
        aliases[-1] if aliases else None,
        denial if kind in ("nxdomain", "empty") else None,
        answer.at,
        answer.ms,
        False,
        place(facts.flow, answer.vantage),
        answer,
    )
    tries, fine = answer.tries or 1, answer.successes
    if fine is None or fine >= tries:
        yield look
        return
    # Attempts folded into one record: what is written is the answer of those that succeeded, the rest went unanswered.
    lost = replace(look, kind="silent", addresses=(), owners=(), alias=None, denial_ttl=None)
    if kind in ANSWERED:
        yield from (look,) * min(max(fine, 1), 1000)
        yield from (lost,) * min(tries - fine, 1000)
    else:
        yield from (look,) * min(tries - fine, 1000)
        yield from (replace(look, kind="other"),) * min(max(fine, 0), 1000)


def _kind(
    result: str, rcode: str | None, data: tuple[str, ...], tc: bool | None, transport: str, alias: str | None
) -> Kind:
    match result:
        case "timeout":
            return "silent"
        case "refused":
            return "closed"
        case "unreachable":
            return "unreachable"
        case _:
            pass
    match rcode:
        case "NXDOMAIN":
            return "alias" if alias else "nxdomain"
        case "SERVFAIL":
            return "servfail"
        case "REFUSED":
            return "declined"
        case None | "NOERROR":
            if data:
                return "address"
            if tc and transport == "udp":
                return "truncated"
            if alias:
                return "alias"
            return "empty" if rcode else "other"
        case _:
            return "other"


def server_address(server: str) -> str:
    """The address of `10.96.0.10:53`, `[fd00::a]:53`, `udp://10.0.0.2`, or a bare address; other text as it stands."""
    server = server.partition("://")[2] or server
    if server.startswith("["):
        return canonical(server[1:].partition("]")[0])
    if server.count(":") == 1:
        server = server.partition(":")[0]
    return canonical(server)


def settled(looks: Iterable[Look]) -> Kind | None:
    """The kind that all looks share; None when there are none, or they differ."""
    kinds = {k.kind for k in looks}
    return kinds.pop() if len(kinds) == 1 else None


def expected_names(name: str, search: Iterable[str]) -> tuple[str, ...]:
    """The absolute names that a search list makes of a name, in order."""
    return tuple(clean(f"{name}.{s}") for s in search)


# --- the cluster's DNS as objects ----------------------------------------------------------------------------------


def config_maps(facts: Facts) -> dict[str, KubeObject]:
    """The ConfigMaps of the source's cluster that hold DNS configuration, by name."""
    return {
        o.name: o
        for o in facts.objects("ConfigMap", facts.flow.source_cluster or None)
        if o.namespace in SYSTEM and ("dns" in o.name)
    }


def corefile(facts: Facts, name: str = "coredns") -> Corefile | None:
    """The Corefile of CoreDNS (or `node-local-dns`), with the custom files that distributions let it import."""
    maps = config_maps(facts)
    found = maps.get(name)
    if found is None and name == "coredns":
        found = maps.get("dns-default") or next((o for o in maps.values() if "Corefile" in data_of(o)), None)
        if found is not None and found.name == "node-local-dns":
            found = None
    if found is None:
        return _legacy(maps.get("kube-dns")) if name == "coredns" else None
    own = data_of(found)
    files = {k: v for k, v in own.items() if k != "Corefile"}
    for extra in ("coredns-custom", "coredns-override"):
        if extra in maps and name == "coredns":
            files.update(data_of(maps[extra]))
    return parse(own["Corefile"], files) if "Corefile" in own else None


def config_object(facts: Facts, name: str = "coredns") -> KubeObject | None:
    maps = config_maps(facts)
    return maps.get(name) or (maps.get("dns-default") or maps.get("kube-dns") if name == "coredns" else None)


def data_of(config: KubeObject) -> dict[str, str]:
    return strings(config.body.get("data"))


def _legacy(config: KubeObject | None) -> Corefile | None:
    """kube-dns's stubDomains and upstreamNameservers as if they were server blocks."""
    if config is None:
        return None
    data = data_of(config)
    try:
        stubs = fields(json.loads(data.get("stubDomains") or "{}"))
        upstream = texts(json.loads(data.get("upstreamNameservers") or "[]"))
    except ValueError:
        return Corefile((), (), ("kube-dns: stubDomains or upstreamNameservers is not JSON",))
    blocks = [f"{zone} {{\n forward . {' '.join(texts(list(items(to))))}\n}}" for zone, to in stubs.items()]
    blocks.append(f". {{\n forward . {' '.join(upstream) or '/etc/resolv.conf'}\n}}")
    return parse("\n".join(blocks))


def dns_services(facts: Facts) -> tuple[KubeObject, ...]:
    """The Services of the source cluster's DNS."""
    return tuple(
        s
        for s in facts.objects("Service", facts.flow.source_cluster or None)
        if s.namespace in SYSTEM
        and (
            strings(s.labels).get("k8s-app") in ("kube-dns", "coredns")
            or s.name in ("kube-dns", "coredns", "dns-default")
        )
    )


def dns_pods(facts: Facts) -> tuple[KubeObject, ...]:
    """The pods behind those Services."""
    selectors = [(s.cluster, s.namespace, strings(s.spec.get("selector"))) for s in dns_services(facts)]
    found = []
    for pod in facts.objects("Pod", facts.flow.source_cluster or None):
        labels = strings(pod.labels)
        behind = any(c == pod.cluster and n == pod.namespace and w and selected(w, labels) for c, n, w in selectors)
        if behind or (pod.namespace in SYSTEM and labels.get("k8s-app") in _DNS_LABELS):
            found.append(pod)
    return tuple(found)


def dns_endpoints(facts: Facts) -> tuple[str, ...]:
    """Addresses of the DNS pods, from their endpoints and themselves."""
    found: list[str] = []
    for service in dns_services(facts):
        for part in facts.objects(SLICE, service.cluster, service.namespace):
            if strings(part.labels).get("kubernetes.io/service-name") == service.name:
                for entry in map(fields, items(part.body.get("endpoints"))):
                    found += [canonical(a) for a in texts(entry.get("addresses"))]
    for pod in dns_pods(facts):
        found += pod_ips(pod)
    return tuple(dict.fromkeys(found))


def dns_addresses(facts: Facts) -> tuple[str, ...]:
    """ClusterIPs of the DNS Services."""
    return tuple(dict.fromkeys(a for s in dns_services(facts) for a in cluster_ips(s)))


def multicluster_servers(facts: Facts) -> tuple[str, ...]:
    """Addresses of servers made for names of the cluster set: Submariner's Lighthouse."""
    return tuple(
        dict.fromkeys(
            a
            for s in facts.objects("Service", facts.flow.source_cluster or None)
            if "lighthouse-coredns" in s.name
            for a in cluster_ips(s)
        )
    )


def upstreams(facts: Facts, name: str) -> tuple[str, ...]:
    """Addresses to which the cluster's DNS forwards a name."""
    config = corefile(facts)
    server = config.server_for(name) if config else None
    if server is None:
        return ()
    return tuple(dict.fromkeys(a for to in forwards(server, name) if family(a := server_address(to))))


def sockets(facts: Facts, name: str) -> dict[str, str]:
    """Upstream address to what to ask for it: the address with its port where the Corefile gives one."""
    config = corefile(facts)
    server = config.server_for(name) if config else None
    targets = forwards(server, name) if server else ()
    return {server_address(to): to.partition("://")[2] or to for to in targets if family(server_address(to))}


def stub_zone(facts: Facts, name: str) -> str | None:
    """The zone that the cluster's DNS forwards for this name alone; None where the name goes the common way."""
    config = corefile(facts)
    server, zone = (config.server_for(name), config.zone_of(name)) if config else (None, None)
    if server is None or zone is None:
        return None
    own = [p.args[0] for p in server.all("forward", "proxy") if p.args and p.args[0] != "." and within(name, p.args[0])]
    zones = [*own, *([zone] if zone != "." and server.all("forward", "proxy") else [])]
    return max(zones, key=len, default=None)


def served_there(facts: Facts, name: str) -> str | None:
    """The zone of this name that the destination cluster's own DNS serves, beside the usual cluster domain."""
    there, domain = facts.flow.destination_cluster, clean(facts.flow.cluster_domain)
    if not there or there == facts.flow.source_cluster:
        return None
    found = facts.object("ConfigMap", there, "kube-system", "coredns")
    if found is None or "Corefile" not in data_of(found):
        return None
    zones = (
        clean(zone)
        for server in parse(data_of(found)["Corefile"], {}).servers
        for plugin in server.all("kubernetes")
        for zone in plugin.args
    )
    return next((z for z in zones if z not in ("", ".", domain) and within(name, z) and not z.endswith(".arpa")), None)


def other_servers(facts: Facts, name: str) -> tuple[str, ...]:
    """Servers that are not the pod's own but know more: DNS pods, multi-cluster servers, upstreams."""
    return tuple(dict.fromkeys((*dns_endpoints(facts), *multicluster_servers(facts), *upstreams(facts, name))))


def link_local(address: str) -> bool:
    """True for the address of a DNS cache on the node."""
    return address.startswith("169.254.") or address.lower().startswith("fe80:")


def service_of(facts: Facts, view: View) -> KubeObject | None:
    """The Service in the source's cluster whose name the host is."""
    local = facts.flow.local
    if local is None or view.zone != "cluster":
        return None
    if view.host != f"{local.name}.{local.namespace}.svc.{view.domain}":
        return None
    return facts.object("Service", local.cluster, local.namespace, local.name)


def source_pods(facts: Facts) -> tuple[KubeObject, ...]:
    """The source's pods as objects."""
    source = facts.flow.source
    if source is None:
        return ()
    found = (facts.object("Pod", p.cluster, p.namespace, p.name) for p in source.pods)
    return tuple(p for p in found if p is not None)


def external_name(service: KubeObject) -> str:
    return clean(text(service.spec.get("externalName"))) if service.spec.get("type") == "ExternalName" else ""


_ADDRESS = re.compile(r"(?<![\w.:])(\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7})(?![\w.])")


def addresses_in(line: str) -> list[str]:
    found = (m.group(1) for m in _ADDRESS.finditer(line))
    return [canonical(a) for a in found if family(a)]
