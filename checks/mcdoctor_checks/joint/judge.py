"""Exports against imports, labels against selectors, ids against ids: objects of both clusters side by side."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from mcdoctor.flow import kinds
from mcdoctor.flow.interconnect import globalnet, is_global, is_mirror
from mcdoctor.flow.objects import matches
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Fact, KubeObject, Listed, LogLine, Metric, TcpConnect
from mcdoctor.models.ids import Hop, Severity, Symptom
from mcdoctor.models.outcome import Finding, Outcome
from mcdoctor_checks.sight import items, mapping, maps, number
from mcdoctor_checks.tcp.rules import found, settled

IMPORT_FINDINGS = (
    "export-in-conflict", "import-slices-unlabelled", "import-ports-differ", "import-pod-port-differs",
    "mirror-label-unselected",
    "mirror-gateway-dead", "mirror-probe-port-closed",
)  # fmt: skip
CONNECTION_FINDINGS = ("gateway-node-unlabelled", "global-address-missing", "announced-ranges-miss-pods",
                       "cluster-ids-clash")  # fmt: skip

_SERVICE_NAME = "multicluster.kubernetes.io/service-name"
_SOURCE_CLUSTER = "multicluster.kubernetes.io/source-cluster"
_GATEWAY_LABEL = "submariner.io/gateway"


# --- exports, imports and mirrors ----------------------------------------------------------------------------------


def judge_imports(facts: Facts) -> Outcome:
    """Failed never by itself: what does not fit is noted, and is a cause where the flow fails for it."""
    facts.all(Listed)
    exports, imports = _exports(facts), _imports(facts)
    links = facts.objects(kinds.LINK, facts.flow.source_cluster or None)
    problems = [*_conflicts(exports), *_slices(facts, imports), *_mirrors(facts, links)]
    return settled(problems, [*exports, *imports, *links], "no export, import or mirror of the destination was seen")


def _exports(facts: Facts) -> list[KubeObject]:
    flow = facts.flow
    return [
        o
        for kind in (kinds.SERVICE_EXPORT, kinds.LIGHTHOUSE_EXPORT)
        for o in facts.objects(kind, None, flow.namespace or None)
        if o.name == flow.name
    ]


def _imports(facts: Facts) -> list[KubeObject]:
    flow = facts.flow
    return [o for o in facts.objects(kinds.SERVICE_IMPORT, flow.source_cluster, flow.namespace) if o.name == flow.name]


def _conflicts(exports: Iterable[KubeObject]) -> Iterable[Finding]:
    for export in exports:
        for state in maps(export.status.get("conditions")):
            if state.get("type") == "Conflict" and state.get("status") == "True":
                why = str(state.get("message") or state.get("reason") or "-")
                yield found(
                    "export-in-conflict",
                    Hop.CONTROL_PLANE,
                    [export],
                    Severity.WARNING,
                    Symptom.REMOTE_SERVICE_NOT_IMPORTED,
                    cluster=export.cluster,
                    why=why,
                )


def _slices(facts: Facts, imports: Iterable[KubeObject]) -> Iterable[Finding]:
    """Slices of an import are found by one label, and their ports by name."""
    for imported in imports:
        every = facts.objects(kinds.SLICE, imported.cluster, imported.namespace)
        labelled = [s for s in every if s.labels.get(_SERVICE_NAME) == imported.name]
        strays = [
            s
            for s in every
            if _SOURCE_CLUSTER in s.labels and _SERVICE_NAME not in s.labels and s.name.startswith(imported.name)
        ]
        common: dict[str, str | int | float] = {"cluster": imported.cluster, "label": _SERVICE_NAME}
        if strays and not labelled:
            yield found("import-slices-unlabelled", Hop.CONTROL_PLANE, [imported, *strays], args=common)
        wanted = {str(p.get("name") or "") for p in maps(imported.spec.get("ports"))}
        given = {str(p.get("name") or "") for s in labelled for p in maps(s.body.get("ports"))}
        if wanted and given and not wanted & given:
            yield found(
                "import-ports-differ",
                Hop.CONTROL_PLANE,
                [imported, *labelled],
                args=common,
                wanted=", ".join(sorted(wanted)),
                given=", ".join(sorted(given)),
            )
        yield from _pod_ports(facts, imported, labelled)


def _pod_ports(facts: Facts, imported: KubeObject, labelled: Sequence[KubeObject]) -> Iterable[Finding]:
    """A pod that an import lists is reached on the port on which its own cluster lists it."""
    home = [
        s
        for s in facts.objects(kinds.SLICE, facts.flow.destination_cluster or None, imported.namespace)
        if s.cluster != imported.cluster and s.labels.get("kubernetes.io/service-name") == imported.name
    ]
    served = {(a, name): port for s in home for a, name, port in _listed(s)}
    wrong = [
        (a, name, port, s) for s in labelled for a, name, port in _listed(s) if port != served.get((a, name), port)
    ]
    if wrong:
        yield found(
            "import-pod-port-differs",
            Hop.CONTROL_PLANE,
            [imported, *{s.subject: s for *_, s in wrong}.values(), *home],
            cluster=imported.cluster,
            label=_SERVICE_NAME,
            given=", ".join(sorted({str(port) for _, _, port, _ in wrong})),
            wanted=", ".join(sorted({str(served[a, name]) for a, name, _, _ in wrong})),
        )


def _listed(part: KubeObject) -> Iterator[tuple[str, str, int | None]]:
    """(address, port name, port number) of a slice."""
    for endpoint in maps(part.body.get("endpoints")):
        for address in items(endpoint.get("addresses")):
            for port in maps(part.body.get("ports")):
                yield str(address), str(port.get("name") or ""), number(port.get("port"))


def _mirrors(facts: Facts, links: Iterable[KubeObject]) -> Iterable[Finding]:
    flow = facts.flow
    far = facts.object(kinds.SERVICE, flow.destination_cluster, flow.namespace, flow.name)
    near = [s for s in facts.objects(kinds.SERVICE, flow.source_cluster, flow.namespace or None) if is_mirror(s)]
    own = [s for s in near if s.name == flow.name or s.name.startswith(f"{flow.name}-")]
    for link in links:
        selectors = [s for key in ("selector", "remoteDiscoverySelector") if (s := mapping(link.spec.get(key)))]
        about: dict[str, str | int | float] = {
            "link": link.name,
            "cluster": flow.destination_cluster,
            "selector": " or ".join(_written(s) for s in selectors) or "nothing",
        }
        unknown_here = flow.local is None and not own and flow.crosses_clusters
        if far is not None and unknown_here and not any(matches(s, far.labels) for s in selectors):
            labels = ", ".join(f"{k}={v}" for k, v in far.labels.items()) or "none"
            yield found("mirror-label-unselected", Hop.CONTROL_PLANE, [far, link], args=about, labels=labels)
        if own:
            yield from _gateway(facts, link, about)


def _written(selector: Mapping[str, Any]) -> str:
    parts = [f"{k}={v}" for k, v in mapping(selector.get("matchLabels")).items()]
    parts += [f"{e.get('key')} {e.get('operator')}" for e in maps(selector.get("matchExpressions"))]
    return ",".join(parts) or "{}"


_PROBE_FAILS = re.compile(r"gateway.{0,80}(not alive|dead|marking)|probe.{0,120}(fail|timeout|deadline|refused)", re.I)


def _gateway(facts: Facts, link: KubeObject, about: dict[str, str | int | float]) -> Iterable[Finding]:
    """A mirror keeps endpoints only while the probe of its gateway is answered."""
    target = str(link.spec.get("targetClusterName") or link.name)
    dead: list[Fact] = [
        m
        for m in facts.all(Metric)
        if m.name == "gateway_alive"
        and m.labels.get("target_cluster_name", target) == target
        and m.samples
        and max(m.samples, key=lambda p: p.at).value == 0
    ]
    dead += [x for x in facts.all(LogLine) if "mirror" in x.component and _PROBE_FAILS.search(x.text)]
    if dead:
        yield found("mirror-gateway-dead", Hop.DEST_GATEWAY, [link, *dead], args=about)
    port = number(mapping(link.spec.get("probeSpec")).get("port"))
    addresses = {a.strip() for a in str(link.spec.get("gatewayAddress") or "").split(",")}
    probes = [t for t in facts.all(TcpConnect) if t.address in addresses and t.port == port]
    if probes and all(t.result != "open" for t in probes):
        yield found("mirror-probe-port-closed", Hop.DEST_GATEWAY, [link, *probes], args=about, port=port or 0)


# --- tunnels and meshes --------------------------------------------------------------------------------------------


def judge_connection(facts: Facts) -> Outcome:
    """What Submariner and Cilium say of themselves in the two clusters."""
    facts.all(Listed)
    if not facts.flow.crosses_clusters:
        return settled([], [], "the flow stays in one cluster")
    looked: list[Fact] = [
        *facts.objects(kinds.SUBMARINER_GATEWAY),
        *facts.objects(kinds.SUBMARINER_ENDPOINT),
        *_settings(facts).values(),
    ]
    problems = list(_clash(facts))
    if any(layer.system in ("mcs", "submariner-lighthouse", "submariner") for layer in facts.flow.interconnect):
        problems += [*_unlabelled(facts), *_global_address(facts), *_announced(facts)]
    return settled(problems, looked, "neither Submariner nor a Cilium cluster mesh was seen")


def _unlabelled(facts: Facts) -> Iterable[Finding]:
    """Clusters in which Submariner has neither a gateway nor a node that may become one."""
    for cluster in dict.fromkeys((facts.flow.source_cluster, facts.flow.destination_cluster)):
        own = [
            o for o in (*facts.objects("Submariner.submariner.io", cluster), *facts.objects(kinds.POD, cluster))
            if o.kind != kinds.POD or o.namespace == "submariner-operator"
        ]  # fmt: skip
        nodes = facts.objects(kinds.NODE, cluster)
        if not own or not nodes or facts.objects(kinds.SUBMARINER_GATEWAY, cluster):
            continue
        if facts.complete(kinds.NODE, cluster) and not any(n.labels.get(_GATEWAY_LABEL) == "true" for n in nodes):
            yield found("gateway-node-unlabelled", Hop.CONTROL_PLANE, [*own[:1], *nodes[:2]], cluster=cluster)


def _global_address(facts: Facts) -> Iterable[Finding]:
    flow = facts.flow
    for ingress in facts.objects("GlobalIngressIP.submariner.io", flow.destination_cluster, flow.namespace):
        if mapping(ingress.spec.get("serviceRef")).get("name") != flow.name:
            continue
        state = next((c for c in maps(ingress.status.get("conditions")) if c.get("type") == "Allocated"), {})
        address = str(ingress.status.get("allocatedIP") or "")
        others = [
            e
            for kind in ("ClusterGlobalEgressIP.submariner.io", "GlobalEgressIP.submariner.io")
            for e in facts.objects(kind)
            if address and address in items(e.status.get("allocatedIPs"))
        ]
        if not address or state.get("status") == "False" or others:
            why = str(state.get("message") or (f"{address} belongs to {others[0].subject}" if others else "-"))
            yield found(
                "global-address-missing", Hop.CONTROL_PLANE, [ingress, *others], cluster=ingress.cluster, why=why
            )


def _announced(facts: Facts) -> Iterable[Finding]:
    """The ranges that a cluster announces, against the addresses of its pods."""
    flow = facts.flow
    pods = [b.address for b in flow.backends if b.cluster == flow.destination_cluster and b.pod]
    for endpoint in facts.objects(kinds.SUBMARINER_ENDPOINT):
        if str(endpoint.spec.get("cluster_id")) != flow.destination_cluster or not pods:
            continue
        ranges = [str(r) for r in items(endpoint.spec.get("subnets"))]
        if ranges and not any(_inside(p, r) for p in pods for r in ranges) and not globalnet(facts):
            yield found(
                "announced-ranges-miss-pods",
                Hop.CONTROL_PLANE,
                [endpoint],
                cluster=flow.destination_cluster,
                ranges=", ".join(ranges),
                pod=pods[0],
            )
            return


def _inside(address: str, block: str) -> bool:
    try:
        return ip_address(address) in ip_network(block, strict=False)
    except ValueError:
        return False


def _settings(facts: Facts) -> dict[str, KubeObject]:
    clusters = dict.fromkeys((facts.flow.source_cluster, facts.flow.destination_cluster))
    read = {c: facts.object(kinds.CONFIG_MAP, c, "kube-system", "cilium-config") for c in clusters}
    return {c: o for c, o in read.items() if o is not None}


def _clash(facts: Facts) -> Iterable[Finding]:
    """Two clusters with the same id or name; the defaults count only where a global Service wants a mesh."""
    settings = _settings(facts)
    if len(settings) != 2:
        return
    one, other = (mapping(o.body.get("data")) for o in settings.values())
    ids = str(one.get("cluster-id", "0")), str(other.get("cluster-id", "0"))
    names = str(one.get("cluster-name", "default")), str(other.get("cluster-name", "default"))
    flow = facts.flow
    meshed = "0" not in ids or any(
        is_global(s) for s in facts.objects(kinds.SERVICE, None, flow.namespace or None) if s.name == flow.name
    )
    if meshed and (ids[0] == ids[1] or names[0] == names[1]):
        yield found(
            "cluster-ids-clash",
            Hop.CONTROL_PLANE,
            list(settings.values()),
            ids=" and ".join(ids),
            names=" and ".join(names),
        )
