"""The ends of a question and what lies between them: names that lead nowhere, workloads, Services of every type, gateways
by name, IP versions. Sources: kubernetes.io "Service", "DNS for Services and Pods", "Source IP"; linkerd.io
"Multi-cluster communication"; docs.cilium.io "Load-balancing & Service Discovery"; istio.io "Install Multicluster".
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from policy_build import namespace, network_policy, node, obj, pod, service

from mcdoctor.policy.batch import answers
from mcdoctor.policy.engine import load
from mcdoctor.policy.world import ClusterInput

Raw = dict[str, Any]
CLOSED = network_policy("shop", "closed", {"podSelector": {"matchLabels": {"app": "api"}}, "policyTypes": ["Ingress"]})


def meta(raw: Raw, labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None) -> Raw:
    raw["metadata"] |= {"labels": {**(raw["metadata"].get("labels") or {}), **(labels or {})}} | (
        {"annotations": annotations} if annotations else {}
    )
    return raw


def owned(raw: Raw, name: str) -> Raw:
    raw["metadata"]["ownerReferences"] = [{"controller": True, "kind": "StatefulSet", "name": name}]
    return raw


def near(*more: Raw, **extra: Any) -> list[Raw]:
    return [
        namespace("shop"), node("a1", "172.16.0.1"),
        pod("shop", "web", {"app": "web"}, ip="10.1.0.1", node="a1", **extra),
        pod("shop", "api", {"app": "api"}, ip="10.1.0.2", node="a1", ports={"http": 8080}, **extra),
        *more,
    ]  # fmt: skip


def far(*more: Raw, **extra: Any) -> list[Raw]:
    api = pod("shop", "api", {"app": "api"}, ip="10.2.0.2", node="b1", ports={"http": 8080}, **extra)
    return [namespace("shop"), node("b1", "172.17.0.1"), api, *more]


def asked(a: list[Raw], b: list[Raw] | None, question: Raw) -> Raw:
    clusters = [ClusterInput("a", a, "source", "kube-router")]
    if b is not None:
        clusters.append(ClusterInput("b", b, "destination", "kube-router"))
    [line] = answers(load(clusters), [json.dumps(question)])
    found: Raw = json.loads(line)
    return found


def q(destination: Any, port: Any = 8080, source: Any = None, **rest: Any) -> Raw:
    return {"source": source or {"pod": "shop/web"}, "destination": destination, "port": port, **rest}


API = {"pod": "shop/api"}
SVC = service(
    "shop", "api", {"app": "api"}, [{"name": "http", "port": 80, "targetPort": "http"}], clusterIP="10.96.0.9"
)


@pytest.mark.parametrize(
    ("question", "why"),
    [
        (q(API, source={"pod": "shop/gone"}), "no pod or workload shop/gone among the objects"),
        (q(API, source={"node": "gone"}), "no node gone among the objects"),
        (q(API, source={"pod": "shop/web", "cluster": "z"}), "no cluster z among a"),
        (q({"pod": "shop/gone"}), "no pod or workload shop/gone"),
        (q({"node": "gone"}), "no node gone"),
        (q({"node": "a1", "cluster": "z"}), "no cluster z"),
        (q({"service": "shop/gone"}), "no Service shop/gone"),
        (q({"service": "shop/api", "cluster": "z"}), "no cluster z"),
        (q({"service": "shop/api"}, 81), "has no port 81/TCP (it has 80/TCP)"),
        (q({"service": "shop/api"}, 80, protocol="UDP"), "has no port 80/UDP"),
        (q(API, "metrics"), "pod shop/api has no port named metrics"),
        (q(API, via="carrier pigeon"), "neither a pod, an address nor a known kind of path"),
        (q(API, via={"pod": "edge/gone"}), "no pod or workload edge/gone"),
        (q(API, via={"node": "gone"}), "no node gone"),
        (q(API, via={"service": "shop/gone"}), "no Service shop/gone"),
        (q(API, via={"service": "shop/hollow"}), "Service shop/hollow has no pods to go through"),
    ],
)
def test_what_leads_nowhere_is_unknown_and_says_why(question: Raw, why: str) -> None:
    answer = asked(near(SVC, service("shop", "hollow", {"app": "none"}, [{"port": 80}])), None, question)
    assert (answer["verdict"], answer["deciding"]) == ("unknown", [])
    assert why in answer["reason"]


LB_IP = service("shop", "outer", {"app": "api"}, [{"port": 80, "targetPort": 8080}], type="LoadBalancer", externalIPs=["203.0.113.7"])  # fmt: skip
OUT = service("shop", "out", {}, [], type="ExternalName", externalName="www.example.org")
ALIAS = service("shop", "alias", {}, [], type="ExternalName", externalName="api.shop.svc.cluster.local")
LOOP = service("shop", "loop", {}, [], type="ExternalName", externalName="loop.shop.svc.cluster.local")


@pytest.mark.parametrize(
    ("objects", "question", "verdict", "said"),
    [
        ([SVC, CLOSED], q({"service": "shop/api"}, 80), "denied", ""),
        ([SVC, CLOSED], q({"service": "shop/api"}, "http"), "denied", ""),
        ([SVC, CLOSED], q({"ip": "10.96.0.9"}, 80), "denied", "10.96.0.9 is an address of Service shop/api"),
        ([SVC, CLOSED], q({"ip": "10.1.0.2"}), "denied", "10.1.0.2 is pod shop/api"),
        ([CLOSED], q(API, "http"), "denied", ""),
        ([CLOSED], q({"node": "a1"}), "allowed", ""),
        ([CLOSED], q({"ip": "192.0.2.1"}), "allowed", ""),
        ([CLOSED], q({"ip": "192.0.2.1"}, source={"ip": "192.0.2.2"}), "allowed", "neither end is in a cluster at hand"),
        ([CLOSED], q(API, source={"ip": "192.0.2.2"}), "denied", ""),
        ([SVC, CLOSED], q(API, source={"ip": "10.96.0.9"}), "denied", ""),  # nobody sends from a cluster address
        ([CLOSED], q(API, source={"node": "a1"}), "allowed", "a node always reaches its own pods"),
        ([OUT, CLOSED], q({"service": "shop/out"}, 443), "allowed", ""),
        ([SVC, ALIAS, CLOSED], q({"service": "shop/alias"}, 80), "denied", "is an ExternalName for Service shop/api"),
        ([LOOP], q({"service": "shop/loop"}, 80), "allowed", ""),
        ([SVC, CLOSED], q({"fqdn": "API.shop.svc.cluster.local."}, 80), "denied", "is Service shop/api"),
        ([LB_IP, CLOSED], q({"service": "shop/outer"}, 80, source={"ip": "192.0.2.2"}), "denied", "the address of the node"),
    ],
)  # fmt: skip
def test_ends_in_one_cluster(objects: list[Raw], question: Raw, verdict: str, said: str) -> None:
    answer = asked(near(*objects), None, question)
    assert answer["verdict"] == verdict, answer["reason"]
    assert said in answer["reason"]


def test_pods_of_a_workload_that_differ_are_asked_one_by_one() -> None:
    pods = [owned(pod("shop", f"db-{n}", {"app": "db", "zone": str(n)}, ip=f"10.1.1.{n}"), "db") for n in (1, 2)]
    policy = network_policy(
        "shop", "p", {"podSelector": {"matchLabels": {"zone": "1"}}, "policyTypes": ["Ingress", "Egress"]}
    )
    into = asked(near(*pods, policy), None, q({"pod": "shop/db"}))
    assert (into["verdict"], into["ingress"]) == ("conditional", "conditional")
    assert "allowed to 1 of 2 endpoints" in into["reason"] and "shop/db is a workload of 2 pods" in into["reason"]
    out = asked(near(*pods, policy), None, q(API, source={"pod": "shop/db"}))
    assert (out["verdict"], out["egress"], out["ingress"]) == ("conditional", "conditional", "allowed")


# --- IP versions ----------------------------------------------------------------------------------------------------

DUAL = pod("shop", "dual", {"app": "dual"}, ip=["10.1.0.8", "fd00::8"])
TWO = pod("shop", "two", {"app": "two"}, ip=["10.1.0.9", "fd00::9"])
SIX = pod("shop", "six", {"app": "six"}, ip="fd00::6")
ONLY_4 = network_policy(
    "shop", "p", {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}
)  # fmt: skip


@pytest.mark.parametrize(
    ("source", "destination", "verdict"),
    [
        ({"pod": "shop/dual"}, {"pod": "shop/two"}, "conditional"),
        ({"pod": "shop/dual"}, {"ip": "10.1.0.9"}, "allowed"),
        ({"pod": "shop/dual"}, {"ip": "fd00::9"}, "denied"),
        ({"ip": "fd00::8"}, {"pod": "shop/two"}, "denied"),
        ({"pod": "shop/dual"}, {"pod": "shop/six"}, "denied"),
        ({"pod": "shop/web"}, {"pod": "shop/two"}, "allowed"),
    ],
)
def test_families_are_evaluated_separately(source: Raw, destination: Raw, verdict: str) -> None:
    assert asked(near(DUAL, TWO, SIX, ONLY_4), None, q(destination, source=source))["verdict"] == verdict


# --- Services across clusters ---------------------------------------------------------------------------------------

PLAIN_80 = [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "admin", "port": 9000, "targetPort": 9000}]


def joined(**annotations: str) -> Raw:
    names = {name.replace("__", "/").replace("_", "-"): value for name, value in annotations.items()}
    return meta(service("shop", "api", {"app": "api"}, PLAIN_80), annotations={f"service.cilium.io/{k}": v for k, v in names.items()})  # fmt: skip


@pytest.mark.parametrize(
    ("here", "there", "endpoints"),
    [
        (joined(**{"global": "true"}), joined(**{"global": "true"}), 2),
        (joined(**{"global": "true"}), joined(), 1),
        (joined(**{"global": "true"}), joined(**{"global": "true", "shared": "false"}), 1),
        (joined(**{"global": "true", "affinity": "local"}), joined(**{"global": "true"}), 1),
    ],
)
def test_a_global_service_of_cilium_has_the_endpoints_of_both_clusters(here: Raw, there: Raw, endpoints: int) -> None:
    """Evaluate each endpoint: a policy in b alone makes it "allowed to 1 of 2"."""
    answer = asked(near(here), far(there, CLOSED), q({"service": "shop/api"}, 80))
    assert answer["verdict"] == ("conditional" if endpoints == 2 else "allowed"), answer["reason"]


def eastwest() -> list[Raw]:
    labels = {"istio": "eastwestgateway"}
    outer = service("istio-system", "gw", labels, [{"name": "tls", "port": 15443, "targetPort": 15443}], type="LoadBalancer", externalIPs=["203.0.113.9"])  # fmt: skip
    return [meta(namespace("istio-system"), {"topology.istio.io/network": "n-b"}), outer]


def test_a_service_of_an_istio_mesh_with_several_ports_fails_over() -> None:
    proxy = {"containers": ("app", "istio-proxy")}
    own = service("shop", "api", {"app": "api"}, PLAIN_80)
    here = [meta(namespace("istio-system"), {"topology.istio.io/network": "n-a"}), own]
    answer = asked(near(*here, **proxy), far(*eastwest(), own, CLOSED, **proxy), q({"service": "shop/api"}, 80))
    assert answer["verdict"] == "conditional", answer["reason"]
    assert "allowed to 1 of 2 endpoints" in answer["reason"]


MIRROR = {"labels": {"mirror.linkerd.io/cluster-name": "b"}, "annotations": {"mirror.linkerd.io/remote-svc-fq-name": "api.shop.svc.cluster.local"}}  # fmt: skip
MESHED = {"containers": ("app", "linkerd-proxy")}
LINKERD_GW = [
    namespace("linkerd-multicluster"),
    pod("linkerd-multicluster", "gw", {"app": "linkerd-gateway"}, ip="10.2.8.1", node="b1", **MESHED),
    service("linkerd-multicluster", "linkerd-gateway", {"app": "linkerd-gateway"}, [{"port": 4143}], type="LoadBalancer"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "port", "verdict", "said"),
    [
        ({}, 80, "denied", "b: linkerd (Service shop/api-b is a mirror Service)"),
        ({"multicluster.linkerd.io/remote-discovery": "api"}, 80, "denied", "b: flat"),
        ({}, 81, "unknown", "has no port 81/TCP"),
    ],
)
def test_a_mirror_service_stands_for_the_one_of_the_other_cluster(
    mode: Raw, port: int, verdict: str, said: str
) -> None:
    mirror = meta(service("shop", "api-b", {}, [{"port": 80}]), MIRROR["labels"] | mode, MIRROR["annotations"])
    there = far(
        service("shop", "api", {"app": "api"}, [{"port": 80, "targetPort": 8080}]), *LINKERD_GW, CLOSED, **MESHED
    )
    answer = asked(near(mirror, **MESHED), there, q({"service": "shop/api-b"}, port))
    assert answer["verdict"] == verdict, answer["reason"]
    assert said in answer["reason"]


def test_a_mirror_of_a_cluster_that_is_not_at_hand_is_what_its_slices_say() -> None:
    mirror = meta(
        service("shop", "api-c", {}, [{"port": 80}]), {"mirror.linkerd.io/cluster-name": "c"}, MIRROR["annotations"]
    )
    answer = asked(near(mirror, **MESHED), far(**MESHED), q({"service": "shop/api-c"}, 80))
    assert answer["verdict"] == "unknown" and "no EndpointSlices were given" in answer["reason"]


@pytest.mark.parametrize(
    ("name", "verdict"), [("api.shop.svc.clusterset.local", "denied"), ("none.shop.svc.clusterset.local", "unknown")]
)
def test_a_name_of_the_cluster_set_is_the_service_where_it_is(name: str, verdict: str) -> None:
    """policy.md 4.1: the endpoint, as in the row of what carries it."""
    there = far(service("shop", "api", {"app": "api"}, [{"port": 80, "targetPort": 8080}]), CLOSED)
    only_web = [o for o in near() if o["metadata"]["name"] != "api"]
    assert asked(only_web, there, q({"fqdn": name}, 80))["verdict"] == verdict


NODE_PORT = service(
    "shop", "api", {"app": "api"}, [{"port": 80, "targetPort": 8080, "nodePort": 30080}], type="NodePort"
)
OUT_TO = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "172.17.0.0/24"}}]}]}


@pytest.mark.parametrize(("port", "verdict"), [(30080, "allowed"), (80, "denied")])
def test_a_node_port_of_the_other_cluster_is_reached_at_its_nodes(port: int, verdict: str) -> None:
    rule = {**OUT_TO, "egress": [{**OUT_TO["egress"][0], "ports": [{"port": port}]}]}
    answer = asked(
        near(network_policy("shop", "out", rule)), far(NODE_PORT), q({"service": "shop/api", "cluster": "b"}, 80)
    )
    assert answer["egress"] == verdict, answer["reason"]
    assert "NodePort" in answer["reason"]


# --- gateways by name -----------------------------------------------------------------------------------------------


def gateway(labels: dict[str, str], ports: dict[str, int] | None = None) -> list[Raw]:
    return [namespace("edge"), pod("edge", "gw", {"app": "gw", **labels}, ip="10.1.0.7", node="a1", ports=ports)]


def admits_at(port: int) -> Raw:
    rule = {"from": [{"podSelector": {}, "namespaceSelector": {}}], "ports": [{"port": port}]}
    return network_policy("edge", "in", {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [rule]})


@pytest.mark.parametrize(
    ("labels", "ports", "port"),
    [
        ({}, None, 8080),
        ({"istio": "eastwestgateway"}, None, 15443),
        ({}, {"tls": 15443}, 15443),
        ({"component": "linkerd-gateway"}, None, 4143),
        ({"gateway.istio.io/managed": "istio.io-mesh-controller"}, None, 15008),
        ({"gateway.istio.io/managed": "istio.io-eastwest-controller"}, None, 15008),
    ],
)
def test_gateways_take_traffic_in_on_their_own_ports(labels: Raw, ports: Any, port: int) -> None:
    for at, verdict in ((port, "allowed"), (port + 1, "denied")):
        answer = asked(near(*gateway(labels, ports), admits_at(at)), None, q(API, via={"pod": "edge/gw"}))
        assert answer["verdict"] == verdict, answer["reason"]


EDGE_ONLY = network_policy(
    "shop", "p", {"podSelector": {"matchLabels": {"app": "api"}}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "edge"}}}]}]}
)  # fmt: skip
FRONT = service("edge", "front", {"app": "gw"}, [{"port": 80}], clusterIP="10.96.0.7")


@pytest.mark.parametrize(
    ("via", "verdict"),
    [
        ("edge/gw", "allowed"),
        ("10.1.0.7", "allowed"),
        ({"service": "edge/front"}, "allowed"),
        ("edge/front", "allowed"),  # the name of a Service where no pod has it
        ("10.96.0.7", "denied"),  # a cluster address is no source
        ("198.51.100.7", "denied"),
        ({"node": "a1"}, "allowed"),  # its own node
        (None, "denied"),
    ],
)
def test_ways_to_name_a_gateway(via: Any, verdict: str) -> None:
    question = q(API) | ({"via": via} if via else {})
    answer = asked(near(*gateway({}), FRONT, EDGE_ONLY), None, question)
    assert answer["verdict"] == verdict, answer["reason"]


def test_what_does_not_count_is_said() -> None:
    bad = network_policy("shop", "bad", {"podSelector": {}, "ingress": [{"ports": [{"port": 99999}]}]})
    answer = asked(near(bad), None, q(API))
    assert answer["verdict"] == "allowed"
    assert "not counted: NetworkPolicy shop/bad, /spec/ingress/0/ports/0/port" in answer["reason"]


@pytest.mark.parametrize("junk", ["x", 7, [], [{}], None, {"name": 7}])
def test_junk_in_objects_of_the_path_is_no_traceback(junk: Any) -> None:
    objects = [
        obj("submariner.io/v1", "GlobalIngressIP", "shop", "i", {"serviceRef": junk, "podRef": junk}) | {"status": junk},
        obj("submariner.io/v1", "GlobalEgressIP", "shop", "e", {"podSelector": junk}) | {"status": {"allocatedIPs": junk}},
        obj("submariner.io/v1", "Cluster", "shop", "c", {"cluster_id": "a", "global_cidr": junk}),
        obj("crd.projectcalico.org/v1", "IPPool", None, "p", {"cidr": junk}),
        obj("multicluster.linkerd.io/v1alpha1", "Link", "shop", "l", {"gatewayAddress": junk}),
        obj("gateway.networking.k8s.io/v1", "Gateway", "shop", "g", junk),
    ]  # fmt: skip
    for via in ("globalnet", "flat", "linkerd", "istio", "istio-ambient", "load-balancer", "unknown", "relay"):
        answer = asked(near(*objects), far(*objects), q({"pod": "shop/api", "cluster": "b"}, via=via))
        assert answer["reason"]
