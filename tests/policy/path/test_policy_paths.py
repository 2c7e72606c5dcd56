"""Across clusters: what each side sees, a case for every kind of path; Services, gateways, several endpoints."""

from __future__ import annotations

from typing import Any

import pytest
from policy_build import namespace, network_policy, node, obj, one, pod, service

from mcdoctor.policy.addresses import parse_ip
from mcdoctor.policy.engine import Engine, load
from mcdoctor.policy.path import Answer, ask
from mcdoctor.policy.question import Address, Fqdn, PodName, Question, ServiceName
from mcdoctor.policy.world import ClusterInput

WEB, API = PodName("shop", "web", "a"), PodName("shop", "api", "b")
TCP_80 = [{"port": 80, "targetPort": 8080}]


def labelled(raw: dict[str, Any], **labels: str) -> dict[str, Any]:
    raw["metadata"]["labels"] = {k.replace("__", "/").replace("_", "-"): v for k, v in labels.items()}
    return raw


def ingress(*peers: Any, port: int | None = 8080, name: str = "in", home: str = "shop") -> dict[str, Any]:
    rule = {"from": list(peers), **({"ports": [{"port": port}]} if port else {})}
    return network_policy(home, name, {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [rule]})


def egress(*peers: Any, port: int | None = 8080) -> dict[str, Any]:
    rule = {"to": list(peers), **({"ports": [{"port": port}]} if port else {})}
    return network_policy("shop", "out", {"podSelector": {}, "policyTypes": ["Egress"], "egress": [rule]})


def block(cidr: str) -> dict[str, Any]:
    return {"ipBlock": {"cidr": cidr}}


def a_side(*more: dict[str, Any], **extra: Any) -> list[dict[str, Any]]:
    return [
        namespace("shop"),
        node("a1", "172.16.0.1"),
        pod("shop", "web", {"app": "web"}, ip="10.1.0.1", node="a1", **extra),
        *more,
    ]


def b_side(*more: dict[str, Any], **extra: Any) -> list[dict[str, Any]]:
    api = pod("shop", "api", {"app": "api"}, ip="10.2.0.1", node="b1", ports={"http": 8080}, **extra)
    return [namespace("shop"), node("b1", "172.17.0.1"), node("b2", "172.17.0.2"), api, *more]


def pair(a: list[dict[str, Any]], b: list[dict[str, Any]], **cni: str) -> Engine:
    return load(
        [ClusterInput("a", a, "source", cni.get("a", "")), ClusterInput("b", b, "destination", cni.get("b", ""))]
    )


def sides(answer: Answer) -> tuple[str, str]:
    return str(answer.egress), str(answer.ingress)


def test_flat_only_addresses_match_on_both_sides() -> None:
    question = Question(WEB, API, 8080, via="flat")
    by_cidr = pair(a_side(egress(block("10.2.0.0/16"))), b_side(ingress(block("10.1.0.0/16"))))
    assert sides(ask(by_cidr, question)) == ("allowed", "allowed")
    by_selector = pair(a_side(egress({"namespaceSelector": {}})), b_side(ingress({"namespaceSelector": {}})))
    answer = ask(by_selector, question)
    assert sides(answer) == ("denied", "denied")
    assert {(d.ref.cluster, d.direction) for d in answer.deciding} == {("a", "egress"), ("b", "ingress")}


def test_globalnet_shows_the_global_address_and_never_the_pod_address() -> None:
    egress_ip = obj("submariner.io/v1", "ClusterGlobalEgressIP", None, "default", {}) | {
        "status": {"allocatedIPs": ["242.1.0.5"]}
    }
    ingress_ip = obj(
        "submariner.io/v1",
        "GlobalIngressIP",
        "shop",
        "api",
        {"target": "HeadlessServicePod", "podRef": {"name": "api"}},
    )
    ingress_ip |= {"status": {"allocatedIP": "242.2.0.9"}}
    question = Question(WEB, API, 8080)
    good = pair(a_side(egress_ip, egress(block("242.2.0.0/16"))), b_side(ingress_ip, ingress(block("242.1.0.0/16"))))
    assert sides(ask(good, question)) == ("allowed", "allowed")
    by_pod_cidr = pair(a_side(egress_ip), b_side(ingress(block("10.1.0.0/16"))))
    answer = ask(by_pod_cidr, question)
    assert sides(answer) == ("allowed", "denied")
    assert "globalnet" in answer.reason


def test_globalnet_without_allocated_addresses_reads_the_whole_global_cidr() -> None:
    clusters = [
        obj("submariner.io/v1", "Cluster", "submariner-operator", name, {"cluster_id": name, "global_cidr": [cidr]})
        for name, cidr in (("a", "242.1.0.0/16"), ("b", "242.2.0.0/16"))
    ]
    question = Question(WEB, API, 8080, via="globalnet")
    whole = pair(a_side(*clusters), b_side(*clusters, ingress(block("242.1.0.0/16"))))
    assert ask(whole, question).ingress == "allowed"
    half = pair(a_side(*clusters), b_side(*clusters, ingress(block("242.1.0.0/17"))))
    assert ask(half, question).ingress == "unknown"


def test_clustermesh_keeps_the_identity_of_pods() -> None:
    def config(name: str, number: str) -> dict[str, Any]:
        raw = obj("v1", "ConfigMap", "kube-system", "cilium-config", None)
        return raw | {"data": {"cluster-name": name, "cluster-id": number}}

    engine = pair(a_side(config("a", "1")), b_side(config("b", "2")))
    answer = ask(engine, Question(WEB, API, 8080))
    assert answer.paths[0].carrier == "clustermesh"
    packet = answer.paths[0].points[1].points[0].packet
    assert str(packet.source) == "pod shop/web" and packet.source.cluster == "a"  # type: ignore[union-attr]


EAST_WEST = [
    namespace("istio-system", topology_istio_io__network="net-b"),
    pod("istio-system", "gw-1", {"istio": "eastwestgateway"}, ip="10.2.9.1", node="b2", containers=("istio-proxy",)),
    service(
        "istio-system", "istio-eastwestgateway", {"istio": "eastwestgateway"}, [{"name": "tls", "port": 15443, "targetPort": 15443}],
        type="LoadBalancer", externalIPs=["203.0.113.9"],
    ),
]  # fmt: skip
NET_A = [namespace("istio-system", topology_istio_io__network="net-a")]
GATEWAY = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "istio-system"}},
    "podSelector": {"matchLabels": {"istio": "eastwestgateway"}},
}


def istio(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> Engine:
    for raw in NET_A + EAST_WEST[:1]:
        labels = raw["metadata"]["labels"]
        raw["metadata"]["labels"] = {k.replace("topology-istio-io", "topology.istio.io"): v for k, v in labels.items()}
    return pair(
        [*a_side(containers=("app", "istio-proxy")), *NET_A, *a],
        [*b_side(containers=("app", "istio-proxy")), *EAST_WEST, *b],
    )


def test_istio_multi_network_egress_names_the_gateway_and_ingress_admits_its_pod() -> None:
    question = Question(WEB, API, 8080)
    engine = istio([egress(block("203.0.113.9/32"), port=15443)], [ingress(GATEWAY)])
    answer = ask(engine, question)
    assert answer.paths[0].carrier == "istio"
    assert sides(answer) == ("allowed", "allowed")
    assert [(p.label, str(p.direction)) for p in answer.paths[0].points] == [
        ("source", "egress"), ("gateway", "ingress"), ("gateway", "egress"), ("destination", "ingress"),
    ]  # fmt: skip
    remote_cidr = istio([egress(block("10.2.0.0/16"))], [ingress(block("10.1.0.0/16"))])
    assert sides(ask(remote_cidr, question)) == ("denied", "denied")


def test_the_gateways_own_policies_count() -> None:
    closed = network_policy("istio-system", "closed", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
    answer = ask(istio([], [closed]), Question(WEB, API, 8080))
    assert sides(answer) == ("denied", "denied")
    assert {d.ref.name for d in answer.deciding} == {"closed"}


def test_linkerd_gateway_is_reached_on_4143_and_its_pod_is_what_arrives() -> None:
    gateway = [
        namespace("linkerd-multicluster"),
        pod(
            "linkerd-multicluster",
            "gw",
            {"app": "linkerd-gateway"},
            ip="10.2.8.1",
            node="b2",
            containers=("linkerd-proxy",),
        ),
        service(
            "linkerd-multicluster", "linkerd-gateway", {"app": "linkerd-gateway"}, [{"port": 4143}], type="LoadBalancer"
        ),
    ]
    link = obj(
        "multicluster.linkerd.io/v1alpha1", "Link", "linkerd-multicluster", "b", {"gatewayAddress": "203.0.113.4"}
    )
    meshed = {"containers": ("app", "linkerd-proxy")}
    admits = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "linkerd-multicluster"}}}
    engine = pair(
        a_side(link, egress(block("203.0.113.4/32"), port=4143), **meshed),
        b_side(*gateway, ingress(admits, port=4143), **meshed),
    )
    answer = ask(engine, Question(WEB, API, 8080))
    assert (answer.paths[0].carrier, *sides(answer)) == ("linkerd", "allowed", "allowed")
    client = answer.paths[0].points[-1].points[0].packet.client
    assert client is not None and client.name == "gw"


def test_ambient_is_seen_on_port_15008() -> None:
    ambient = namespace("shop")
    ambient["metadata"]["labels"] = {"istio.io/dataplane-mode": "ambient"}
    pods = [pod("shop", "web", {"app": "web"}, ip="10.0.0.1"), pod("shop", "api", {"app": "api"}, ip="10.0.0.2")]
    question = Question(PodName("shop", "web"), PodName("shop", "api"), 8080)
    plain = one(ambient, *pods, ingress({"podSelector": {}}, port=8080))
    hbone = one(ambient, *pods, ingress({"podSelector": {}}, port=15008))
    assert ask(plain, question).verdict == "denied"
    assert ask(hbone, question).verdict == "allowed"


def test_unknown_interconnect_is_certain_only_where_every_reading_agrees() -> None:
    question = Question(WEB, API, 8080)
    assert ask(pair(a_side(), b_side()), question).verdict == "allowed"
    closed = pair(a_side(), b_side(network_policy("shop", "in", {"podSelector": {}})))
    assert ask(closed, question).verdict == "denied"
    by_cidr = pair(a_side(), b_side(ingress(block("10.1.0.0/16"))))
    assert ask(by_cidr, question).verdict == "unknown"


@pytest.mark.parametrize(("policy", "cidr", "expected"), [("Local", "198.51.100.0/24", "allowed"), ("Cluster", "198.51.100.0/24", "denied"), ("Cluster", "172.17.0.0/24", "allowed")])  # fmt: skip
def test_load_balancers_hide_the_client_unless_the_traffic_policy_is_local(
    policy: str, cidr: str, expected: str
) -> None:
    lb = service("shop", "api", {"app": "api"}, TCP_80, type="LoadBalancer", externalTrafficPolicy=policy)
    api = pod("shop", "api", {"app": "api"}, ip="10.2.0.1", node="b9")
    engine = one(namespace("shop"), node("b1", "172.17.0.1"), node("b2", "172.17.0.2"), api, lb, ingress(block(cidr)))
    question = Question(Address(parse_ip("198.51.100.7")), ServiceName("shop", "api"), 80)
    assert ask(engine, question).ingress == expected


def test_a_destination_missing_here_but_present_there_is_said() -> None:
    engine = pair(a_side(), b_side(service("shop", "api", {"app": "api"}, TCP_80)))
    answer = ask(engine, Question(PodName("shop", "web"), ServiceName("shop", "api"), 80))
    assert "is not in cluster a but in b" in answer.reason


def test_via_a_gateway_pod_evaluates_both_hops() -> None:
    proxy = pod("edge", "proxy", {"app": "proxy"}, ip="10.0.0.9", node="n2")
    pods = [pod("shop", "web", {"app": "web"}, ip="10.0.0.1"), pod("shop", "api", {"app": "api"}, ip="10.0.0.2")]
    from_edge = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "edge"}}}
    engine = one(namespace("shop"), namespace("edge"), proxy, *pods, ingress(from_edge))
    question = Question(PodName("shop", "web"), PodName("shop", "api"), 8080)
    assert ask(engine, question).verdict == "denied"
    through = Question(PodName("shop", "web"), PodName("shop", "api"), 8080, via=PodName("edge", "proxy"))
    assert ask(engine, through).verdict == "allowed"


def test_several_endpoints_that_differ_are_conditional() -> None:
    pods = [pod("shop", f"api{n}", {"app": "api", "zone": str(n)}, ip=f"10.0.0.{n + 2}") for n in range(3)]
    policy = network_policy("shop", "in", {"podSelector": {"matchLabels": {"zone": "0"}}, "policyTypes": ["Ingress"]})
    api = service("shop", "api", {"app": "api"}, TCP_80)
    engine = one(namespace("shop"), pod("shop", "web", {"app": "web"}, ip="10.0.0.1"), *pods, api, policy)
    answer = ask(engine, Question(PodName("shop", "web"), ServiceName("shop", "api"), 80))
    assert answer.verdict == "conditional"
    assert "allowed to 2 of 3 endpoints" in answer.reason
    by_name = ask(engine, Question(PodName("shop", "web"), Fqdn("api.shop.svc.cluster.local"), 80))
    assert by_name.verdict == "conditional"


def test_endpoint_slices_come_before_the_selector_and_unready_endpoints_do_not_count() -> None:
    api = service("shop", "api", {"app": "api"}, [{"name": "http", "port": 80, "targetPort": "http"}])
    listed = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"namespace": "shop", "name": "api-1", "labels": {"kubernetes.io/service-name": "api"}},
        "ports": [{"name": "http", "port": 9090, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.0.0.2"], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": "api", "namespace": "shop"}},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": False}},
        ],
    }  # fmt: skip
    pods = [
        pod("shop", "web", {"app": "web"}, ip="10.0.0.1"),
        pod("shop", "api", {"app": "api"}, ip="10.0.0.2", ports={"http": 1}),
    ]
    answer = ask(
        one(namespace("shop"), *pods, api, listed), Question(PodName("shop", "web"), ServiceName("shop", "api"), 80)
    )
    assert [(str(p.destination), p.port) for p in answer.paths] == [("pod shop/api", 9090)]


@pytest.mark.parametrize(
    ("port", "why"), [(81, "has no port 81/TCP (it has 80/TCP)"), (80, "its selector matches no pod")]
)
def test_a_service_that_leads_nowhere_is_unknown_with_the_reason(port: int, why: str) -> None:
    engine = one(namespace("shop"), pod("shop", "web", ip="10.0.0.1"), service("shop", "api", {"app": "none"}, TCP_80))
    answer = ask(engine, Question(PodName("shop", "web"), ServiceName("shop", "api"), port))
    assert answer.verdict == "unknown" and why in answer.reason


def test_a_workload_without_pods_is_read_from_its_template() -> None:
    template = {
        "metadata": {"labels": {"app": "api"}},
        "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 8080}]}]},
    }
    deployment = obj("apps/v1", "Deployment", "shop", "api", {"template": template})
    engine = one(
        namespace("shop"), pod("shop", "web", {"app": "web"}, ip="10.0.0.1"), deployment, ingress({"podSelector": {}})
    )
    assert ask(engine, Question(PodName("shop", "web"), PodName("shop", "api"), 8080)).verdict == "allowed"
    assert ask(engine, Question(PodName("shop", "web"), PodName("shop", "api"), 8081)).verdict == "denied"


def test_a_refused_name_lookup_is_said_before_the_data_port() -> None:
    dns = [
        namespace("kube-system"),
        pod("kube-system", "coredns", {"k8s-app": "kube-dns"}, ip="10.0.0.53", node="n9"),
        service("kube-system", "kube-dns", {"k8s-app": "kube-dns"}, [{"port": 53, "protocol": "UDP"}]),
    ]
    pods = [pod("shop", "web", {"app": "web"}, ip="10.0.0.1"), pod("shop", "api", {"app": "api"}, ip="10.0.0.2")]
    engine = one(
        namespace("shop"), *dns, *pods, service("shop", "api", {"app": "api"}, TCP_80), egress({"podSelector": {}})
    )
    answer = ask(engine, Question(PodName("shop", "web"), ServiceName("shop", "api"), 80))
    assert answer.verdict == "allowed"
    assert "the name look-up itself is refused" in answer.reason


def test_policies_that_could_not_be_read_leave_nothing_allowed_for_certain() -> None:
    unseen = ("NetworkPolicy could not be seen: 403",)
    engine = load([ClusterInput("a", a_side(pod("shop", "api", ip="10.1.0.2")), unseen=unseen)])
    answer = ask(engine, Question(PodName("shop", "web"), PodName("shop", "api"), 80))
    assert answer.verdict == "unknown" and "403" in answer.reason
