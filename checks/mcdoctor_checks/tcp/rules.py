"""Rules: state of nodes, tunnels, address ranges and load balancers that makes connects fail. No probe of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import pairwise
from typing import Any

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import (
    Capture,
    Conntrack,
    DnsAnswer,
    Fact,
    KubeObject,
    Listener,
    LogLine,
    Metric,
    NodeFact,
    ObservedSource,
    PacketFilter,
    Route,
    Sysctl,
    TcpConnect,
    UdpProbe,
)
from mcdoctor.models.ids import Hop, Severity, Symptom
from mcdoctor.models.outcome import Finding, Outcome, Skipped, settle
from mcdoctor.models.vantage import Vantage
from mcdoctor_checks.sight import (
    address_book,
    bypasses,
    clear,
    is_address,
    items,
    mapping,
    maps,
    name_addresses,
    number,
    on_path,
    place,
)
from mcdoctor_checks.tcp.reach import Reach, opens, reaches

Network = IPv4Network | IPv6Network
Args = dict[str, str | int | float]


def found(
    ident: str,
    hop: Hop,
    evidence: Iterable[Fact],
    severity: Severity = Severity.NOTE,
    symptom: Symptom | None = None,
    subject: str = "",
    args: Args | None = None,
    **more: str | int | float,
) -> Finding:
    facts = tuple(evidence)
    return Finding(
        id=ident,
        hop=hop,
        subject=subject or _subject(facts),
        severity=severity,
        symptom=symptom,
        args={**(args or {}), **more},
        evidence=facts,
    )


def _subject(facts: tuple[Fact, ...]) -> str:
    return (facts[0].subject or str(facts[0].vantage)) if facts else ""


def settled(problems: list[Finding], looked: Iterable[Fact], nothing: str) -> Outcome:
    """Skipped where there was nothing to look at: silence is no verdict."""
    evidence = tuple(looked)
    return settle(problems, evidence[:3]) if evidence or problems else Skipped(nothing)


def rise(metric: Metric) -> float:
    """By how much a counter rose over its samples, resets allowed for; for a gauge its last value."""
    values = [p.value for p in sorted(metric.samples, key=lambda p: p.at)]
    if metric.type == "gauge":
        return values[-1] if values else 0.0
    return sum(max(0.0, b - a) if b >= a else b for a, b in pairwise(values))


def logged(facts: Facts, pattern: re.Pattern[str], *components: str) -> list[LogLine]:
    """Log lines of these components (of any, when none is named) that say so."""
    return [
        line
        for line in on_path(facts.flow, facts.all(LogLine))
        if (not components or line.component in components) and pattern.search(line.text)
    ]


def metered(facts: Facts, pattern: re.Pattern[str]) -> list[Metric]:
    """Metrics of such a name that rose; a label may say what is counted, as in `snat_count{state="failed"}`."""
    told = [(m, " ".join((m.name, *m.labels.values()))) for m in on_path(facts.flow, facts.all(Metric))]
    return [m for m, text in told if pattern.search(text) and rise(m) > 0]


# --- conntrack -----------------------------------------------------------------------------------------------------

CONNTRACK_FINDINGS = (
    "conntrack-table-full", "conntrack-nearly-full", "conntrack-inserts-fail", "conntrack-invalid-dropped",
)  # fmt: skip
_TABLE_FULL = re.compile(
    r"nf_conntrack.*table full|conntrack table (is )?full|CT_?MAP_?INSERTION_?FAILED|CT: Map insertion failed", re.I
)
_INSERT_FAILED = re.compile(r"conntrack.*insert_?failed", re.I)
_INVALID = re.compile(r"conntrack.*invalid|invalid.*drop", re.I)
_INVALID_DROP = re.compile(r"(ctstate|state|ct state)\s+\"?invalid\b.*\b(drop|reject)\b", re.I)


def judge_conntrack(facts: Facts) -> Outcome:
    """Connection tracking has room on the nodes of the path, and takes in every new connection."""
    problems: list[Finding] = []
    tables = on_path(facts.flow, facts.all(Conntrack))
    for table in tables:
        share = table.count / table.max if table.max > 0 else 0.0
        args: Args = {"count": table.count, "max": table.max, "vantage": str(table.vantage)}
        if share >= 0.995:
            problems.append(
                found(
                    "conntrack-table-full",
                    Hop.SOURCE_NODE,
                    [table],
                    Severity.ERROR,
                    Symptom.CONNECTION_TIMEOUT,
                    args=args,
                )
            )
        elif share >= 0.9:
            problems.append(found("conntrack-nearly-full", Hop.SOURCE_NODE, [table], args=args))
        if (table.insert_failed or 0) > 0 and share < 0.995:
            problems.append(
                found(
                    "conntrack-inserts-fail",
                    Hop.SOURCE_NODE,
                    [table],
                    failed=table.insert_failed or 0,
                    vantage=str(table.vantage),
                )
            )
    if lines := logged(facts, _TABLE_FULL):
        problems.append(
            found(
                "conntrack-table-full",
                Hop.SOURCE_NODE,
                lines,
                Severity.ERROR,
                Symptom.CONNECTION_TIMEOUT,
                subject=str(lines[0].vantage),
                count="?",
                max="?",
                vantage=str(lines[0].vantage),
            )
        )
    if counters := metered(facts, _INSERT_FAILED):
        problems.append(
            found(
                "conntrack-inserts-fail",
                Hop.SOURCE_NODE,
                counters,
                failed=rise(counters[0]),
                vantage=str(counters[0].vantage),
            )
        )
    invalid: list[Fact] = [
        f for f in on_path(facts.flow, facts.all(PacketFilter)) if _INVALID_DROP.search(f.rule) and (f.packets or 0) > 0
    ]
    invalid += metered(facts, _INVALID)
    if invalid:
        problems.append(found("conntrack-invalid-dropped", Hop.SOURCE_NODE, invalid, vantage=str(invalid[0].vantage)))
    full = _full_by_metrics(facts)
    if full:
        problems.append(full)
    return settled(problems, tables, "connection tracking of the nodes was not read")


def _full_by_metrics(facts: Facts) -> Finding | None:
    """node_exporter gives the count and the limit as two gauges."""
    gauges = [m for m in on_path(facts.flow, facts.all(Metric)) if "conntrack_entries" in m.name and m.samples]
    for count in gauges:
        if count.name.endswith("_limit"):
            continue
        for limit in gauges:
            same = limit.vantage == count.vantage and limit.labels.get("instance") == count.labels.get("instance")
            if limit.name == f"{count.name}_limit" and same and rise(count) >= 0.995 * rise(limit) > 0:
                return found(
                    "conntrack-table-full",
                    Hop.SOURCE_NODE,
                    [count, limit],
                    Severity.ERROR,
                    Symptom.CONNECTION_TIMEOUT,
                    count=rise(count),
                    max=rise(limit),
                    vantage=str(count.vantage),
                )
    return None


# --- replies -------------------------------------------------------------------------------------------------------

REPLY_FINDINGS = ("rp-filter-strict", "rp-filter-loose", "rp-filter-drops", "reply-lost-on-node", "bad-checksum-sent")
_MARTIAN = re.compile(r"martian (source|destination)", re.I)
_REVERSE = re.compile(r"IPReversePathFilter|rp_?filter.*drop", re.I)
_CHECKSUM = re.compile(r"(bad|incorrect|wrong) (udp |tcp )?c(hec)?k?sum|cksum 0x\w+ \((incorrect|wrong)", re.I)
_SYN_ACK = re.compile(r"\[S\.\]|SYN[-,+ ]*ACK", re.I)


def judge_replies(facts: Facts) -> Outcome:
    """Replies are accepted on the node: strict reverse-path filtering drops them where paths differ."""
    problems: list[Finding] = []
    values: dict[str, int] = {}
    settings = [s for s in on_path(facts.flow, facts.all(Sysctl)) if s.name.endswith(".rp_filter")]
    for setting in settings:
        value = number(setting.value.strip())
        if value is not None:  # the kernel takes the higher of `all` and the interface
            key = str(setting.vantage)
            values[key] = max(values.get(key, 0), value)
    if any(v == 1 for v in values.values()):
        problems.append(found("rp-filter-strict", Hop.SOURCE_NODE, settings, vantage=str(settings[0].vantage)))
    elif values:
        problems.append(found("rp-filter-loose", Hop.SOURCE_NODE, settings, vantage=str(settings[0].vantage)))
    drops: list[Fact] = [*logged(facts, _MARTIAN), *metered(facts, _REVERSE)]
    if drops:
        problems.append(found("rp-filter-drops", Hop.SOURCE_NODE, drops, vantage=str(drops[0].vantage)))
    captures = list(facts.all(Capture))
    at_node = [c for c in captures if c.vantage.node and c.matched and _is_reply(c)]
    at_pod = [c for c in captures if c.vantage.pod and not c.matched and _is_reply(c)]
    if at_node and at_pod:
        problems.append(
            found("reply-lost-on-node", Hop.SOURCE_NODE, [*at_node, *at_pod], vantage=str(at_node[0].vantage))
        )
    if broken := [c for c in captures if any(_CHECKSUM.search(t) for t in (*(c.flags or ()), *(c.first or ())))]:
        problems.append(found("bad-checksum-sent", Hop.SOURCE_NODE, broken, vantage=str(broken[0].vantage)))
    return settled(problems, settings or drops, "settings and counters of the nodes were not read")


def _is_reply(capture: Capture) -> bool:
    text = " ".join((capture.filter, *(capture.flags or ()), *(capture.first or ())))
    return bool(_SYN_ACK.search(text)) or bool(re.search(r"\bsrc (host|port)\b", capture.filter))


# --- Service rules -------------------------------------------------------------------------------------------------

SERVICE_FINDINGS = (
    "service-rules-stale",
    "kube-proxy-sync-failing",
    "ipvs-mode",
    "ipvs-zero-weight-server",
    "ipvs-no-route",
)
_DNAT = re.compile(r"(?:--to-destination|dnat (?:ip )?to|->)\s*(?:[A-Za-z]+\s+)?(\d+\.\d+\.\d+\.\d+):(\d+)", re.I)
_NO_ENDPOINTS = re.compile(r"has no endpoints", re.I)
_IPVS_SERVER = re.compile(r"(\d+\.\d+\.\d+\.\d+:\d+)\s+(?:Masq|Route|Tunnel)\s+0\s+\d+\s+(\d+)|weight[ =]0", re.I)
_IPVS_ANY_SERVER = re.compile(r"->|\s-r\s|\b(Masq|Route|Tunnel)\b")
_SYNC = re.compile(
    r"fail(ed|ure)? (to )?(execute iptables-restore|sync|list|watch|ensure|delete|add)|"
    r"sync.{0,40}(fail|error|timed? ?out)|ipvs.{0,60}(fail|error)",
    re.I,
)
_NO_ROUTE = re.compile(r"no route to host", re.I)


def _without_servers(rules: Iterable[PacketFilter], addresses: Iterable[str]) -> list[PacketFilter]:
    """IPVS services of these addresses on nodes where nothing recorded of IPVS names a server, as ipvsadm prints it."""
    ipvs = [r for r in rules if r.backend == "ipvs"]
    serving = {str(r.vantage) for r in ipvs if _IPVS_ANY_SERVER.search(r.rule)}
    own = [re.compile(rf"(?<![\d.]){re.escape(a)}:\d+") for a in addresses]
    return [r for r in ipvs if str(r.vantage) not in serving and any(p.search(r.rule) for p in own)]


def judge_service_rules(facts: Facts) -> Outcome:
    """The node sends a Service's traffic to the endpoints that the API has now."""
    problems: list[Finding] = []
    service = facts.flow.local
    rules = [
        r
        for r in on_path(facts.flow, facts.all(PacketFilter))
        if place(facts.flow, r.vantage) != "far" or not facts.flow.crosses_clusters
    ]
    used = [r for r in rules if r.packets != 0]  # what no packet met is left over from another proxy, or not in use
    if service is not None and service.backends:
        known = {b.address for b in service.backends}
        about = [r for r in used if _concerns(r.rule, service.namespace, service.name, service.cluster_ips)]
        stale = [r for r in about or used if any(m.group(1) not in known for m in _DNAT.finditer(r.rule))]
        ready = any(b.ready for b in service.backends)
        refused = [r for r in about if ready and _NO_ENDPOINTS.search(r.rule)]
        if wrong := [*stale, *refused, *(_without_servers(rules, service.cluster_ips) if ready else ())]:
            listed = sorted({m.group(1) for r in stale for m in _DNAT.finditer(r.rule)} - known)
            problems.append(
                found(
                    "service-rules-stale",
                    Hop.SOURCE_NODE,
                    wrong,
                    Severity.ERROR,
                    Symptom.CONNECTION_TIMEOUT,
                    subject=f"Service {service}",
                    rules=", ".join(listed) or "none",
                    now=", ".join(sorted(known)),
                    vantage=str(wrong[0].vantage),
                )
            )
    if lines := logged(facts, _SYNC, "kube-proxy"):
        problems.append(
            found(
                "kube-proxy-sync-failing",
                Hop.SOURCE_NODE,
                lines,
                text=lines[0].text[:120],
                vantage=str(lines[0].vantage),
            )
        )
    modes = [n for n in on_path(facts.flow, facts.all(NodeFact)) if n.name == "kube_proxy_mode"]
    if ipvs := [*(n for n in modes if str(n.value).lower() == "ipvs"), *(r for r in rules if r.backend == "ipvs")]:
        problems.append(found("ipvs-mode", Hop.SOURCE_NODE, ipvs, vantage=str(ipvs[0].vantage)))
    if zero := [r for r in rules if r.backend == "ipvs" and _IPVS_SERVER.search(r.rule)]:
        problems.append(found("ipvs-zero-weight-server", Hop.SOURCE_NODE, zero, vantage=str(zero[0].vantage)))
    if lines := logged(facts, _NO_ROUTE, "app", "envoy"):
        problems.append(found("ipvs-no-route", Hop.SOURCE_NODE, lines, text=lines[0].text[:120]))
    return settled(problems, [*rules, *modes], "the Service rules of the nodes were not read")


def _concerns(rule: str, namespace: str, name: str, addresses: Iterable[str]) -> bool:
    return f"{namespace}/{name}" in rule or any(
        re.search(rf"(?<![\d.]){re.escape(a)}(?![\d.])", rule) for a in addresses
    )


# --- address ranges ------------------------------------------------------------------------------------------------

RANGE_FINDINGS = (
    "pod-ranges-overlap", "pod-ranges-overlap-apart", "same-pod-address-twice", "service-address-taken-here",
    "two-names-one-address",
)  # fmt: skip
_SUBNET = re.compile(r"(?:podSubnet|clusterCIDR):\s*\"?([\da-fA-F.:/,]+)")


def judge_ranges(facts: Facts) -> Outcome:
    """Pods and Services of the two clusters have addresses of their own."""
    flow = facts.flow
    if not flow.crosses_clusters:
        return settled([], [], "source and destination are in one cluster")
    problems: list[Finding] = []
    ranges = pod_ranges(facts)
    translated = _translated(facts)
    clash = _overlap(ranges)
    if clash is not None:
        (one, where, first), (other, there, second) = clash
        direct = not translated and _direct(facts)
        problems.append(
            found(
                "pod-ranges-overlap" if direct else "pod-ranges-overlap-apart",
                Hop.NETWORK,
                [first, second],
                Severity.WARNING if direct else Severity.NOTE,
                Symptom.CONNECTION_TIMEOUT if direct else None,
                subject=f"{one} and {other}",
                here=f"{one} ({where})",
                there=f"{other} ({there})",
            )
        )
    mine = {
        ip: p
        for p in facts.objects("Pod", flow.source_cluster)
        if not p.spec.get("hostNetwork") and p.status.get("phase") not in ("Succeeded", "Failed")
        for ip in _ips(p)
    }
    used = {b.address for b in flow.backends if b.cluster == flow.destination_cluster}
    twice = sorted(used & mine.keys())
    if twice and not translated and _direct(facts):
        problems.append(
            found(
                "same-pod-address-twice",
                Hop.NETWORK,
                [mine[twice[0]]],
                Severity.WARNING,
                Symptom.CONNECTION_TIMEOUT,
                subject=twice[0],
                address=twice[0],
                pod=mine[twice[0]].subject,
            )
        )
    problems += _service_addresses(facts)
    problems += _two_names(facts)
    looked: list[Fact] = [f for entries in ranges.values() for _, f in entries]
    return settled(problems, looked, "the address ranges of the clusters could not be seen")


def _ips(pod: KubeObject) -> list[str]:
    several = [str(e["ip"]) for e in maps(pod.status.get("podIPs")) if e.get("ip")]
    return several or ([str(pod.status["podIP"])] if pod.status.get("podIP") else [])


def _translated(facts: Facts) -> bool:
    """Gateways or Globalnet stand between: pod addresses of the other side are never used."""
    for layer in facts.flow.interconnect:
        if "globalnet" in (layer.mode or ""):
            return True
    return any(c.spec.get("global_cidr") for c in facts.objects("Cluster.submariner.io"))


def _direct(facts: Facts) -> bool:
    """Whether pods of the other cluster are spoken to by their own addresses on this flow."""
    flow = facts.flow
    far = {b.address for b in flow.backends if b.cluster == flow.destination_cluster}
    dialled = {r.address for r in reaches(facts)} | {r.address for r in flow.rungs if r.label == "endpoint"}
    return bool(far & dialled) or any(x.layer == "l3" for x in flow.interconnect)


def pod_ranges(facts: Facts) -> dict[str, list[tuple[Network, Fact]]]:
    """Pod CIDRs by cluster, from Nodes, CNI pools and configuration; Submariner's own view apart (`id:NAME`)."""
    ranges: dict[str, list[tuple[Network, Fact]]] = {}

    def add(cluster: str, text: Any, fact: Fact) -> None:
        for part in str(text or "").replace(",", " ").split():
            try:
                network = ip_network(part, strict=False)
            except ValueError:
                continue
            ranges.setdefault(cluster, []).append((network, fact))

    for cluster in (facts.flow.source_cluster, facts.flow.destination_cluster):
        for node in facts.objects("Node", cluster):
            for cidr in items(node.spec.get("podCIDRs")) or [node.spec.get("podCIDR")]:
                add(cluster, cidr, node)
        for node in facts.objects("CiliumNode.cilium.io", cluster):
            for cidr in items(mapping(node.spec.get("ipam")).get("podCIDRs")):
                add(cluster, cidr, node)
        for kind in ("IPPool.crd.projectcalico.org", "IPPool.projectcalico.org"):
            for pool in facts.objects(kind, cluster):
                if not pool.spec.get("disabled"):  # a disabled pool stands for somebody else's range
                    add(cluster, pool.spec.get("cidr"), pool)
        for config in facts.objects("ConfigMap", cluster, "kube-system"):
            for text in mapping(config.body.get("data")).values():
                for hit in _SUBNET.finditer(str(text)):
                    add(cluster, hit.group(1), config)
    for fact in facts.all(NodeFact):
        if fact.name in ("pod_cidr", "cluster_cidr") and fact.vantage.cluster:
            for value in items(fact.value) or [fact.value]:
                add(fact.vantage.cluster, value, fact)
    for cluster_object in facts.objects("Cluster.submariner.io"):
        ident = f"id:{cluster_object.spec.get('cluster_id') or cluster_object.name}"
        for cidr in items(cluster_object.spec.get("cluster_cidr")):
            add(ident, cidr, cluster_object)
    return ranges


def _overlap(
    ranges: dict[str, list[tuple[Network, Fact]]],
) -> tuple[tuple[str, str, Fact], tuple[str, str, Fact]] | None:
    """The first two ranges of two clusters that share addresses; names are compared within one naming only."""
    names = sorted(ranges)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            if one.startswith("id:") != other.startswith("id:"):
                continue
            for first, where in ranges[one]:
                for second, there in ranges[other]:
                    if first.version == second.version and first.overlaps(second):
                        return (str(first), one.removeprefix("id:"), where), (
                            str(second),
                            other.removeprefix("id:"),
                            there,
                        )
    return None


def _service_addresses(facts: Facts) -> list[Finding]:
    """The address that the client dials belongs to another Service here."""
    flow = facts.flow
    theirs = set(flow.remote.cluster_ips) if flow.remote else set()
    dialled = set(name_addresses(facts)) | ({flow.address} if flow.address else set())
    for service in facts.objects("Service", flow.source_cluster):
        taken = {str(a) for a in (*items(service.spec.get("clusterIPs")), service.spec.get("clusterIP")) if a}
        if (service.namespace, service.name) == (flow.namespace, flow.name) or service.name == (
            flow.local.name if flow.local else ""
        ):
            continue
        if both := sorted(taken & theirs & dialled):
            return [
                found(
                    "service-address-taken-here",
                    Hop.NETWORK,
                    [service],
                    Severity.ERROR,
                    Symptom.WRONG_DESTINATION,
                    subject=both[0],
                    address=both[0],
                    service=service.subject,
                )
            ]
    return []


def _two_names(facts: Facts) -> list[Finding]:
    """Two names, of which one is the destination's, lead to one address."""
    flow = facts.flow
    host = (flow.host or "").rstrip(".").lower()
    mine = set(name_addresses(facts))
    for answer in facts.all(DnsAnswer):
        name = answer.name.rstrip(".").lower()
        first, _, rest = name.partition(".")
        same = not host or name == host or host.startswith(f"{name}.") or (first == host.partition(".")[0] and rest)
        aliases = {t.rstrip(".").lower() for t in answer.chain or ()}
        if not same and host not in aliases and mine & set(answer.addresses):
            shared = sorted(mine & set(answer.addresses))[0]
            return [
                found(
                    "two-names-one-address", Hop.NETWORK, [answer], subject=shared, address=shared, one=host, other=name
                )
            ]
    return []


# --- tunnels -------------------------------------------------------------------------------------------------------

TUNNEL_FINDINGS = (
    "tunnel-port-silent",
    "overlay-port-silent",
    "tunnel-not-connected",
    "tunnel-negotiation-times-out",
    "tunnel-driver-refuses",
)
_TUNNEL_PORTS = frozenset({500, 4500, 4490, 51820, 51871})
_OVERLAY_PORTS = frozenset({4800, 8472, 4789, 6081})
_NEGOTIATION = re.compile(
    r"IKE_SA_INIT.*(retransmi|time)|retransmi.*IKE_SA_INIT|NAT[- ]?(T )?discovery.*(time|fail|no resp)|"
    r"handshake.*(did not complete|timed? ?out)|no response to our first IKE",
    re.I,
)
_DRIVER = re.compile(
    r"(error|fail(ed)?|refus|unable|could not).{0,80}(cable|driver|install.*(route|connection)|"
    r"add.*(connection|peer)|vxlan.*exists|port.*in use)",
    re.I,
)


def judge_tunnels(facts: Facts) -> Outcome:
    """Tunnel ports answer between the clusters, overlay ports between the nodes of one."""
    problems: list[Finding] = []
    probes = [p for p in facts.all(UdpProbe) if place(facts.flow, p.vantage) != "outside" or p.vantage.host]
    bad = [p for p in probes if p.result not in ("reply", "arrived") and not p.successes]
    if silent := [p for p in bad if p.port in _TUNNEL_PORTS]:
        problems.append(
            found(
                "tunnel-port-silent",
                Hop.NETWORK,
                silent,
                port=silent[0].port,
                address=silent[0].address,
                vantage=str(silent[0].vantage),
            )
        )
    if silent := [p for p in bad if p.port in _OVERLAY_PORTS]:
        problems.append(
            found(
                "overlay-port-silent",
                Hop.SOURCE_NODE,
                silent,
                port=silent[0].port,
                address=silent[0].address,
                vantage=str(silent[0].vantage),
            )
        )
    for gateway in facts.objects("Gateway.submariner.io"):
        if gateway.status.get("haStatus") == "passive":
            continue
        connections = list(maps(gateway.status.get("connections")))
        # A link to a third cluster is none of this flow's: left out where the flow's other cluster is among the peers.
        ends = {facts.flow.source_cluster, facts.flow.destination_cluster} - {gateway.cluster, ""}
        theirs = [c for c in connections if mapping(c.get("endpoint")).get("cluster_id") in ends]
        down = [c for c in theirs or connections if c.get("status") not in (None, "connected")]
        if down:
            peer = mapping(down[0].get("endpoint")).get("cluster_id") or "?"
            problems.append(
                found(
                    "tunnel-not-connected",
                    Hop.NETWORK,
                    [gateway],
                    Severity.ERROR,
                    Symptom.CONNECTION_TIMEOUT,
                    status=str(down[0].get("status")),
                    peer=str(peer),
                    message=str(down[0].get("statusMessage") or "-")[:120],
                )
            )
            break
    if lines := logged(facts, _NEGOTIATION):
        problems.append(found("tunnel-negotiation-times-out", Hop.NETWORK, lines, text=lines[0].text[:120]))
    if lines := logged(facts, _DRIVER, "submariner-gateway", "submariner", "libreswan", "cable-driver"):
        problems.append(found("tunnel-driver-refuses", Hop.NETWORK, lines, text=lines[0].text[:120]))
    looked: list[Fact] = [*probes, *facts.objects("Gateway.submariner.io")]
    return settled(problems, looked, "no tunnel was probed or read")


# --- load balancers and sources ------------------------------------------------------------------------------------

ADMISSION_FINDINGS = (
    "load-balancer-limits-sources", "load-balancer-refuses-source", "egress-address-changed",
    "local-traffic-policy-without-pod", "node-port-differs-by-node",
)  # fmt: skip


def judge_admission(facts: Facts) -> Outcome:
    """The load balancer on the way admits the source, and has a pod on every node it may choose."""
    problems: list[Finding] = []
    services = _entrances(facts)
    observed = [o for o in facts.all(ObservedSource) if is_address(o.ip)]
    for service in services:
        allowed = _ranges(service)
        if allowed:
            problems += _admits(service, allowed, observed)
        if service.spec.get("externalTrafficPolicy") == "Local":
            problems += _local_policy(facts, service)
    return settled(problems, services, "no load balancer stands on the way, or none could be read")


def _entrances(facts: Facts) -> list[KubeObject]:
    """Services of type LoadBalancer or NodePort in the destination's cluster that this flow enters by."""
    flow = facts.flow
    dialled = {c.address for c in facts.all(TcpConnect)} | set(name_addresses(facts))
    dialled |= {r.address for r in flow.rungs if r.address}
    found_services = []
    for service in facts.objects("Service", flow.destination_cluster or None):
        if service.spec.get("type") not in ("LoadBalancer", "NodePort"):
            continue
        addresses = {
            str(e.get("ip") or e.get("hostname"))
            for e in maps(mapping(service.status.get("loadBalancer")).get("ingress"))
        }
        addresses |= {str(ip) for ip in items(service.spec.get("externalIPs"))}
        itself = (service.namespace, service.name) == (flow.namespace, flow.name)
        if addresses & dialled or (itself and (flow.crosses_clusters or not dialled)):
            found_services.append(service)
    return found_services


def _ranges(service: KubeObject) -> list[Network]:
    texts = [str(t) for t in items(service.spec.get("loadBalancerSourceRanges"))]
    texts += str(service.annotations.get("service.beta.kubernetes.io/load-balancer-source-ranges") or "").split(",")
    networks: list[Network] = []
    for text in texts:
        try:
            networks.append(ip_network(text.strip(), strict=False))
        except ValueError:
            continue
    return networks


def _admits(service: KubeObject, allowed: list[Network], observed: list[ObservedSource]) -> list[Finding]:
    shown = ", ".join(map(str, allowed))
    seen = sorted(observed, key=lambda o: o.at)
    outside = [o for o in seen if not _within(o.ip, allowed)]
    if not seen or not outside:
        if any(n.prefixlen == 0 for n in allowed) or seen:
            return []
        return [found("load-balancer-limits-sources", Hop.DEST_GATEWAY, [service], ranges=shown)]
    problems = [
        found(
            "load-balancer-refuses-source",
            Hop.DEST_GATEWAY,
            [service, *outside],
            Severity.ERROR,
            Symptom.CONNECTION_TIMEOUT,
            ranges=shown,
            source=outside[-1].ip,
        )
    ]
    before = [o for o in seen if _within(o.ip, allowed) and o.at < outside[-1].at]
    if before:
        problems.append(
            found(
                "egress-address-changed",
                Hop.SOURCE_NODE,
                [before[-1], outside[-1]],
                Severity.ERROR,
                Symptom.EGRESS_BLOCKED,
                subject=outside[-1].ip,
                before=before[-1].ip,
                now=outside[-1].ip,
            )
        )
    return problems


def _within(address: str, networks: Iterable[Network]) -> bool:
    parsed = ip_address(address)
    return any(parsed.version == n.version and parsed in n for n in networks)


def _local_policy(facts: Facts, service: KubeObject) -> list[Finding]:
    """externalTrafficPolicy Local: nodes without a ready pod drop what the load balancer sends them."""
    cluster = service.cluster
    nodes = {n.name: n for n in facts.objects("Node", cluster)}
    holding: set[str] = set()
    for piece in facts.objects("EndpointSlice.discovery.k8s.io", cluster, service.namespace):
        if piece.labels.get("kubernetes.io/service-name") != service.name:
            continue
        for endpoint in maps(piece.body.get("endpoints")):
            if mapping(endpoint.get("conditions")).get("ready") is not False and endpoint.get("nodeName"):
                holding.add(str(endpoint["nodeName"]))
    known = bool(facts.objects("EndpointSlice.discovery.k8s.io", cluster, service.namespace))
    empty = sorted(set(nodes) - holding)
    if not nodes or not known or not empty:
        return []
    problems = [
        found(
            "local-traffic-policy-without-pod",
            Hop.DEST_GATEWAY,
            [service],
            Severity.NOTE if holding else Severity.WARNING,
            None if holding else Symptom.CONNECTION_TIMEOUT,
            empty=", ".join(empty[:5]),
            holding=", ".join(sorted(holding)) or "none",
        )
    ]
    addresses = {str(a.get("address")): name for name, n in nodes.items() for a in maps(n.status.get("addresses"))}
    results = [(addresses[c.address], opens(c) > 0, c) for c in facts.all(TcpConnect) if c.address in addresses]
    dead = [c for name, opened, c in results if not opened and name in empty]
    alive = [c for name, opened, c in results if opened and name in holding]
    if dead and alive:
        problems.append(
            found(
                "node-port-differs-by-node",
                Hop.DEST_GATEWAY,
                [*dead, *alive],
                Severity.ERROR,
                Symptom.CONNECTION_TIMEOUT,
                dead=dead[0].subject,
                alive=alive[0].subject,
            )
        )
    return problems


# --- nodes ---------------------------------------------------------------------------------------------------------

NODE_FINDINGS = (
    "cni-node-address-differs", "network-route-missing", "snat-ports-used-up", "tcp-segments-repeated",
    "bgp-session-down", "encryption-peer-absent", "source-on-host-network", "tcp-fails-by-source-port",
)  # fmt: skip
_BGP_DOWN = re.compile(
    r"state changed to (connect|active|idle|opensent)|"
    r"bgp.{0,60}(not established|connection refused|hold timer expired)",
    re.I,
)
_BGP_PEER = re.compile(r"\|\s*(?P<peer>[0-9a-f.:]+)\s*\|[^|]*\|\s*(?P<state>start|down|up)\s*\|", re.I)
_CNI_ANNOTATIONS = ("projectcalico.org/IPv4Address", "flannel.alpha.coreos.com/public-ip")
_SNAT = re.compile(
    r"snat.*(fail|exhaust|drop|error)|ErrorPortAllocation|port_?allocation_?(error|fail)|"
    r"nat.*(allocation_failed|out_of_resources|dropped_sent_packets)",
    re.I,
)
_SNAT_LOG = re.compile(
    r"snat.{0,40}(exhaust|fail|no (free|available))|port exhaustion|cannot assign requested address|"
    r"no (free|available|mapping).{0,20}(snat|nat).{0,10}(port|entry|mapping)",
    re.I,
)


def judge_nodes(facts: Facts) -> Outcome:
    """The CNI uses the nodes' own addresses, routes exist, source ports are left."""
    problems: list[Finding] = []
    nodes = [n for c in (facts.flow.source_cluster, facts.flow.destination_cluster) for n in facts.objects("Node", c)]
    problems += _node_addresses(facts, nodes)
    problems += _routes(facts)
    drained: list[Fact] = [*metered(facts, _SNAT), *logged(facts, _SNAT_LOG)]
    drained += _all_snat_ports(facts)
    if drained:
        problems.append(found("snat-ports-used-up", Hop.SOURCE_NODE, drained, vantage=str(drained[0].vantage)))
    if repeated := metered(facts, re.compile(r"RetransSegs|retransmit", re.I)):
        problems.append(
            found(
                "tcp-segments-repeated",
                Hop.NETWORK,
                repeated,
                count=rise(repeated[0]),
                vantage=str(repeated[0].vantage),
            )
        )
    problems += [*_bgp(facts), *_encryption_peers(facts), *_host_network(facts), *_by_source_port(facts)]
    looked: list[Fact] = [*nodes, *facts.all(Route)]
    return settled(problems, looked, "no node could be read")


def _bgp(facts: Facts) -> list[Finding]:
    """A BGP session of the CNI that is not up: by its log, or by a status that somebody recorded."""
    told: list[Fact] = [x for x in on_path(facts.flow, facts.all(LogLine)) if _BGP_DOWN.search(x.text)]
    told += [
        n
        for n in on_path(facts.flow, facts.all(NodeFact))
        if isinstance(n.value, str) and any(m["state"].lower() != "up" for m in _BGP_PEER.finditer(n.value))
    ]
    return [found("bgp-session-down", Hop.SOURCE_NODE, told, vantage=str(told[0].vantage))] if told else []


def _encryption_peers(facts: Facts) -> list[Finding]:
    """The peers of a WireGuard device on the source's node, against the addresses of the destination's pods."""
    flow = facts.flow
    home = {p.node for p in (flow.source.pods if flow.source else ()) if p.node}
    for fact in facts.all(NodeFact):
        if "wg" not in fact.name.lower() and "wireguard" not in fact.name.lower():
            continue
        if not isinstance(fact.value, str) or (fact.vantage.node and home and fact.vantage.node not in home):
            continue
        allowed = [
            block.strip() for line in re.findall(r"allowed ips:\s*(.+)", fact.value) for block in line.split(",")
        ]
        others = [b for b in flow.backends if b.ready and b.node not in home]
        missing = [b for b in others if not any(_holds(block, b.address) for block in allowed)]
        if allowed and others and len(missing) == len(others):
            where = {"pod": missing[0].address, "node": missing[0].node or "?"}
            return [found("encryption-peer-absent", Hop.SOURCE_NODE, [fact], vantage=str(fact.vantage), args={**where})]
    return []


def _holds(block: str, address: str) -> bool:
    try:
        return ip_address(address) in ip_network(block, strict=False)
    except ValueError:
        return False


def _host_network(facts: Facts) -> list[Finding]:
    """The source uses its node's network, so the CNI's handling of pods does not reach it."""
    flow = facts.flow
    pods = flow.source.pods if flow.source else ()
    bodies = [facts.object("Pod", p.cluster, p.namespace, p.name) for p in pods]
    hosts = [b for b in bodies if b is not None and b.spec.get("hostNetwork") is True]
    return [found("source-on-host-network", Hop.SOURCE_NODE, hosts, pod=hosts[0].name)] if hosts else []


def _by_source_port(facts: Facts) -> list[Finding]:
    """Connects that depend on their source port alone: some ports always fail, the others never do."""
    by_target: dict[str, list[TcpConnect]] = {}
    for connect in clear(facts, TcpConnect):
        if connect.source and (connect.tries or 1) >= 3 and connect.source.rpartition(":")[2].isdigit():
            by_target.setdefault(connect.subject, []).append(connect)
    for subject, connects in by_target.items():
        won = [(c.successes if c.successes is not None else 0) / (c.tries or 1) for c in connects]
        always, never = won.count(1.0), won.count(0.0)
        if always >= 2 and never >= 2 and always + never == len(won):
            failed = [c for c, share in zip(connects, won, strict=True) if share == 0.0]
            args: Args = {"failed": never, "tries": len(won), "ports": ", ".join(c.source or "" for c in failed[:4])}
            return [found("tcp-fails-by-source-port", Hop.NETWORK, failed, subject=subject, args=args)]
    return []


def _node_addresses(facts: Facts, nodes: list[KubeObject]) -> list[Finding]:
    taken: dict[str, str] = {}
    for node in nodes:
        own = {
            str(a.get("address"))
            for a in maps(node.status.get("addresses"))
            if a.get("type") in ("InternalIP", "ExternalIP")
        }
        used = [str(node.annotations[k]).partition("/")[0] for k in _CNI_ANNOTATIONS if node.annotations.get(k)]
        for kind in ("Node.crd.projectcalico.org", "Node.projectcalico.org", "CiliumNode.cilium.io"):
            twin = facts.object(kind, node.cluster, None, node.name)
            if twin is None:
                continue
            used += [str(mapping(twin.spec.get("bgp")).get("ipv4Address") or "").partition("/")[0]]
            used += [str(a.get("ip")) for a in maps(twin.spec.get("addresses")) if a.get("type") == "InternalIP"]
        wrong = [u for u in used if u and own and u not in own and is_address(u)]
        if not wrong:
            continue
        shared = taken.get(wrong[0])
        taken[wrong[0]] = node.name
        bridge = ip_address(wrong[0]) in ip_network("172.17.0.0/16")
        severity = Severity.WARNING if shared or bridge else Severity.NOTE
        return [
            found(
                "cni-node-address-differs",
                Hop.SOURCE_NODE,
                [node],
                severity,
                Symptom.CONNECTION_TIMEOUT if severity is Severity.WARNING else None,
                node=node.name,
                used=wrong[0],
                own=", ".join(sorted(own)),
            )
        ]
    for fact in facts.all(NodeFact):
        if fact.name in ("cni_node_ip", "cni_address") and isinstance(fact.value, str):
            for node in nodes:
                own = {str(a.get("address")) for a in maps(node.status.get("addresses"))}
                if node.name == fact.vantage.node and own and fact.value.partition("/")[0] not in own:
                    return [
                        found(
                            "cni-node-address-differs",
                            Hop.SOURCE_NODE,
                            [node, fact],
                            node=node.name,
                            used=fact.value,
                            own=", ".join(sorted(own)),
                        )
                    ]
    return []


def _routes(facts: Facts) -> list[Finding]:
    """No way to an address of the destination: the kernel's own answer, or a routing table of the network."""
    wanted = {a for a, label in address_book(facts).items() if label != "neighbour" and is_address(a)}
    for route in facts.all(Route):
        if route.lookup in wanted and route.type in ("unreachable", "blackhole", "prohibit"):
            return [_no_route(route, str(route.lookup), str(route.type))]
    if not facts.flow.crosses_clusters:
        return []
    far = {b.address for b in facts.flow.backends if b.cluster == facts.flow.destination_cluster} | {
        r.address for r in reaches(facts) if r.label in ("gateway", "endpoint", "name") and r.state != "open"
    }
    for fact in facts.all(NodeFact):
        if "route" not in fact.name or place(facts.flow, fact.vantage) == "far":
            continue
        table = _networks(fact.value)
        missing = sorted(a for a in far if is_address(a) and not _within(a, table))
        if table and missing:
            return [_no_route(fact, missing[0], fact.name)]
    return []


def _no_route(fact: Fact, address: str, how: str) -> Finding:
    return found(
        "network-route-missing",
        Hop.NETWORK,
        [fact],
        Severity.WARNING,
        Symptom.CONNECTION_TIMEOUT,
        subject=address,
        address=address,
        how=how,
        vantage=str(fact.vantage),
    )


def _networks(value: Any) -> list[Network]:
    """Every CIDR in a value of any shape; default routes lead to the internet, not to a peer."""
    found_networks: list[Network] = []
    for text in re.findall(r"\d+\.\d+\.\d+\.\d+/\d+", str(value)):
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            continue
        if network.prefixlen:
            found_networks.append(network)
    return found_networks


def _all_snat_ports(facts: Facts) -> list[Fact]:
    """Used and allocated SNAT ports as two gauges of one NAT."""
    gauges = [
        m for m in on_path(facts.flow, facts.all(Metric)) if re.search(r"snat_?ports?", m.name, re.I) and m.samples
    ]
    used = [m for m in gauges if re.search(r"used", m.name, re.I)]
    given = [m for m in gauges if re.search(r"allocated|limit|max", m.name, re.I)]
    return [u for u in used for g in given if 0 < rise(g) <= rise(u)]


# --- listeners -----------------------------------------------------------------------------------------------------

LISTENER_FINDINGS = ("app-listens-on-loopback-only", "app-listens-on-one-family", "app-listens-elsewhere")
_WILDCARDS = frozenset({"0.0.0.0", "::", "*", "[::]", ""})


def judge_listeners(facts: Facts) -> Outcome:
    """The application listens on the endpoint's address and port."""
    flow = facts.flow
    ports = {b.port for b in flow.backends} | {
        p for s in (flow.remote, flow.local) if s and (p := number(s.target)) is not None
    }
    pods = {b.pod for b in flow.backends if b.pod}
    problems: list[Finding] = []
    looked: list[Fact] = []
    for listener in facts.all(Listener):
        vantage = listener.vantage
        if not vantage.pod or (pods and f"{vantage.namespace}/{vantage.pod}" not in pods):
            continue
        if not pods and place(flow, vantage) != "far":
            continue
        looked.append(listener)
        sockets = [s for s in listener.sockets if s.protocol == "tcp"]
        here = [s for s in sockets if s.port in ports]
        loopback = [s for s in here if s.address.startswith("127.") or s.address in ("::1", "[::1]")]
        if here and len(loopback) == len(here):
            problems.append(_loopback([listener], here[0].port, here[0].address))
        elif here and all("." in s.address for s in here) and (mute := _refuses_ipv6(facts, vantage)):
            problems.append(
                found(
                    "app-listens-on-one-family",
                    Hop.DEST_POD,
                    [listener, *mute[0].facts],
                    Severity.ERROR,
                    Symptom.CONNECTION_REFUSED_OR_RESET,
                    subject=str(vantage),
                    port=here[0].port,
                    bound=here[0].address,
                    address=mute[0].where,
                )
            )
        elif not here and ports and sockets:
            others = ", ".join(sorted({str(s.port) for s in sockets if not s.address.startswith("127.")})[:6])
            problems.append(
                found(
                    "app-listens-elsewhere",
                    Hop.DEST_POD,
                    [listener],
                    Severity.ERROR,
                    Symptom.CONNECTION_REFUSED_OR_RESET,
                    subject=str(vantage),
                    port=sorted(ports)[0],
                    others=others or "-",
                )
            )
    inner = [
        c
        for c in facts.all(TcpConnect)
        if c.address in ("127.0.0.1", "::1")
        and opens(c)
        and c.port in ports
        and place(flow, c.vantage) == "far"
        and not bypasses(c)
    ]
    outer = [r for r in reaches(facts, "source", "near", "far") if r.label == "endpoint" and r.state == "refused"]
    if inner and outer and not problems:
        looked += inner
        problems.append(_loopback([*inner, *outer[0].facts], inner[0].port, inner[0].address))
    return settled(problems, looked, "the sockets of the destination's pod were not read")


def _refuses_ipv6(facts: Facts, vantage: Vantage) -> list[Reach]:
    """Refusals of the IPv6 addresses of a backend's pod."""
    own = {b.address for b in facts.flow.backends if b.pod == f"{vantage.namespace}/{vantage.pod}" and ":" in b.address}
    rungs = reaches(facts, "source", "near", "far")
    return [r for r in rungs if r.label == "endpoint" and r.state == "refused" and r.address in own]


def _loopback(evidence: list[Fact], port: int, address: str) -> Finding:
    return found(
        "app-listens-on-loopback-only",
        Hop.DEST_POD,
        evidence,
        Severity.ERROR,
        Symptom.CONNECTION_REFUSED_OR_RESET,
        subject=str(evidence[0].vantage),
        port=port,
        bound=address,
    )


# --- policy --------------------------------------------------------------------------------------------------------

POLICY_FINDINGS = ("tcp-no-policy-in-path",)
_POLICIES = (
    "NetworkPolicy.networking.k8s.io", "CiliumNetworkPolicy.cilium.io", "CiliumClusterwideNetworkPolicy.cilium.io",
    "NetworkPolicy.projectcalico.org", "NetworkPolicy.crd.projectcalico.org",
    "GlobalNetworkPolicy.projectcalico.org", "GlobalNetworkPolicy.crd.projectcalico.org",
    "AdminNetworkPolicy.policy.networking.k8s.io", "BaselineAdminNetworkPolicy.policy.networking.k8s.io",
    "ClusterNetworkPolicy.policy.networking.k8s.io",
)  # fmt: skip


def judge_policy_free(facts: Facts) -> Outcome:
    """Whether any network policy could stand on the way at all; what policies mean is the policy engine's affair."""
    flow = facts.flow
    ends = [
        (flow.source_cluster, flow.source.namespace if flow.source else None),
        (flow.destination_cluster, flow.namespace),
    ]
    for cluster, namespace in ends:
        if not cluster or not namespace:
            return Skipped("the two ends are not known")
        for kind in _POLICIES:
            clusterwide = kind.startswith(("CiliumClusterwide", "Global", "Admin", "Baseline", "Cluster"))
            if facts.objects(kind, cluster, None if clusterwide else namespace):
                return Skipped(f"there are {kind} objects; the policy checks say what they mean")
            if not facts.complete(kind, cluster, None if clusterwide else namespace):
                return Skipped(f"{kind} of {cluster} could not be seen whole")
    return settle([found("tcp-no-policy-in-path", Hop.NETWORK, (), subject=flow.destination)])
