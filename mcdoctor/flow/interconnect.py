"""What carries the pair: naming, L7 and L3 layers, stacked, each with the objects that show it."""

from __future__ import annotations

from mcdoctor.flow import kinds
from mcdoctor.flow.objects import mapping, maps, sequence
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import KubeObject
from mcdoctor.models.flow import Flow, Layer

_MIRRORED = "mirror.linkerd.io/mirrored-service"
_GLOBAL = ("service.cilium.io/global", "io.cilium/global-service")


def is_global(service: KubeObject) -> bool:
    """A Cilium global Service; only the text true counts."""
    return any(str(service.annotations.get(key, "")).lower() == "true" for key in _GLOBAL)


def is_mirror(service: KubeObject) -> bool:
    """A Service that Linkerd's service mirror made."""
    return service.labels.get(_MIRRORED) == "true"


_GLOBALNET = ("GlobalIngressIP.submariner.io", "ClusterGlobalEgressIP.submariner.io", "GlobalEgressIP.submariner.io")


def globalnet(facts: Facts) -> bool:
    """Submariner's Globalnet translates between the clusters: by a cluster's global range, or by addresses of it."""
    ranges = any(sequence(c.spec.get("global_cidr")) for c in facts.objects(kinds.SUBMARINER_CLUSTER))
    return ranges or any(facts.objects(kind) for kind in _GLOBALNET)


def layers(facts: Facts, flow: Flow) -> tuple[Layer, ...]:
    """Every layer that the objects show for this flow, naming first; `plain` where nothing else names the service."""
    naming = list(_naming(facts, flow))
    if not naming:
        naming = [Layer(layer="naming", system="plain", evidence=_plain(flow))]
    return (*naming, *_l7(facts, flow), *_l3(facts, flow))


def _plain(flow: Flow) -> tuple[str, ...]:
    if flow.local is not None:
        return (f"Service {flow.local} in {flow.local.cluster}",)
    return (f"the name {flow.destination} as it stands",)


def _naming(facts: Facts, flow: Flow) -> list[Layer]:
    found: list[Layer] = []
    here = flow.source_cluster
    local = flow.local and facts.object(kinds.SERVICE, here, flow.local.namespace, flow.local.name)
    if local and is_mirror(local):
        mode = "remote-discovery" if "multicluster.linkerd.io/remote-discovery" in local.labels else "gateway"
        origin = local.annotations.get("mirror.linkerd.io/remote-svc-fq-name", "a remote Service")
        found.append(
            Layer(layer="naming", system="linkerd-mirror", mode=mode, evidence=(f"{local.subject} mirrors {origin}",))
        )
    if local and is_global(local):
        found.append(
            Layer(layer="naming", system="cilium-global-service", evidence=(f"{local.subject} is a global Service",))
        )
    if local and local.spec.get("type") == "ExternalName":
        to = local.spec.get("externalName")
        found.append(Layer(layer="naming", system="externalname", evidence=(f"{local.subject} stands for {to}",)))
    for kind, system in ((kinds.SERVICE_IMPORT, "mcs"), (kinds.LIGHTHOUSE_IMPORT, "submariner-lighthouse")):
        imported = [
            o
            for o in facts.objects(kind, here)
            if (o.name == flow.name and o.namespace == flow.namespace) or o.annotations.get("origin-name") == flow.name
        ]
        exported = [
            o
            for o in facts.objects(kind.replace("ServiceImport", "ServiceExport"), flow.destination_cluster)
            if o.name == flow.name and o.namespace == flow.namespace
        ]
        if imported or exported:
            shown = tuple(f"{o.subject} in {o.cluster}" for o in (*imported, *exported))
            found.append(Layer(layer="naming", system=system, evidence=shown))
    if flow.host:
        for entry in facts.objects(kinds.SERVICE_ENTRY, here):
            if flow.host in sequence(entry.spec.get("hosts")):
                mode = str(entry.spec.get("resolution") or "NONE").lower()
                evidence = (f"{entry.subject} has the host {flow.host}",)
                found.append(Layer(layer="naming", system="istio-serviceentry", mode=mode, evidence=evidence))
        for zone in stub_zones(facts, here):
            if zone not in (".", flow.cluster_domain) and (flow.host == zone or flow.host.endswith(f".{zone}")):
                evidence = (f"CoreDNS in {here} has a server block for {zone}",)
                found.append(Layer(layer="naming", system="coredns-stub", mode=zone, evidence=evidence))
    for federated in facts.objects(kinds.FEDERATED_SERVICE):
        if federated.name == flow.name and federated.namespace == flow.namespace:
            evidence = (f"{federated.subject} in {federated.cluster}",)
            found.append(Layer(layer="naming", system="kubefed", evidence=evidence))
    return found


def stub_zones(facts: Facts, cluster: str) -> tuple[str, ...]:
    """Zones of the Corefile's server blocks."""
    config = facts.object(kinds.CONFIG_MAP, cluster, "kube-system", "coredns")
    text = str(mapping(config.body.get("data")).get("Corefile", "")) if config else ""
    zones: list[str] = []
    depth = 0
    for raw in text.splitlines():
        line = raw.partition("#")[0].strip()
        if depth == 0 and line.endswith("{") and not line.startswith("("):
            for word in line[:-1].replace(",", " ").split():
                zone = word.split("://")[-1]
                zone = zone.rpartition(":")[0] if ":" in zone and zone.rpartition(":")[2].isdigit() else zone
                zones.append(zone.rstrip(".") or ".")
        depth += line.count("{") - line.count("}")
    return tuple(dict.fromkeys(zones))


def _l7(facts: Facts, flow: Flow) -> list[Layer]:
    found: list[Layer] = []
    proxies = {p.proxy for p in (flow.source.pods if flow.source else ()) if p.proxy}
    if "istio" in proxies:
        found.append(Layer(layer="l7", system="istio", mode="sidecar", evidence=("istio-proxy in the source pod",)))
    if "ztunnel" in proxies:
        found.append(Layer(layer="l7", system="istio", mode="ambient", evidence=("the source pod is in ambient",)))
    if "linkerd" in proxies:
        links = facts.objects(kinds.LINK, flow.source_cluster)
        evidence = ("linkerd-proxy in the source pod", *(f"{link.subject}" for link in links))
        found.append(Layer(layer="l7", system="linkerd", mode="sidecar", evidence=evidence))
    for route in facts.objects(kinds.HTTP_ROUTE):
        backends = [b for rule in maps(route.spec.get("rules")) for b in maps(rule.get("backendRefs"))]
        hosts = sequence(route.spec.get("hostnames"))
        if (flow.host and flow.host in hosts) or any(b.get("name") == flow.name for b in backends):
            evidence = (f"{route.subject} in {route.cluster}",)
            found.append(Layer(layer="l7", system="gateway-api", evidence=evidence))
    return found


def _l3(facts: Facts, flow: Flow) -> list[Layer]:
    found: list[Layer] = []
    if not flow.crosses_clusters:
        return found
    gateways = [o for kind in (kinds.SUBMARINER_GATEWAY, kinds.SUBMARINER_ENDPOINT) for o in facts.objects(kind)]
    if gateways:
        backends = sorted({str(o.spec["backend"]) for o in gateways if o.spec.get("backend")})
        mode = "+".join([*backends, *(["globalnet"] if globalnet(facts) else [])]) or None
        evidence = tuple(f"{o.subject} in {o.cluster}" for o in gateways[:4])
        found.append(Layer(layer="l3", system="submariner", mode=mode, evidence=evidence))
    meshed = []
    for cluster in (flow.source_cluster, flow.destination_cluster):
        config = facts.object(kinds.CONFIG_MAP, cluster, "kube-system", "cilium-config")
        data = mapping(config.body.get("data")) if config else {}
        if str(data.get("cluster-id", "0")) != "0":
            meshed.append(f"cilium-config of {cluster}: cluster-name {data.get('cluster-name')}")
    if meshed:
        found.append(Layer(layer="l3", system="cilium-clustermesh", evidence=tuple(meshed)))
    return found
