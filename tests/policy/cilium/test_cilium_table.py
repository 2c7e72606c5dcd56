"""Cilium: a case for every row of the semantics.

Sources: docs.cilium.io (security/policy, network/clustermesh/policy), cilium/cilium `pkg/policy/api` and connectivity tests.
"""

from __future__ import annotations

from typing import Any

import pytest
from policy_build import namespace, network_policy, node, obj, one, pod, service

from mcdoctor.policy.addresses import parse_ip
from mcdoctor.policy.engine import load
from mcdoctor.policy.path import Answer, ask
from mcdoctor.policy.question import Address, Fqdn, Http, Icmp, NodeName, PodName, Question, ServiceName
from mcdoctor.policy.world import ClusterInput

WEB, BATCH, API, TOOL = (
    PodName("shop", "web"),
    PodName("shop", "batch"),
    PodName("shop", "api"),
    PodName("data", "tool"),
)
WORLD = (
    namespace("shop", team="a"),
    namespace("data", team="b"),
    node("n1", "172.16.0.1"),
    node("n2", "172.16.0.2", **{"node-role.kubernetes.io/control-plane": ""}),
    pod("shop", "web", {"app": "web"}, ip="10.0.0.1", account="web-sa", node="n2"),
    pod("shop", "batch", {"app": "batch"}, ip="10.0.0.3", node="n2"),
    pod("shop", "api", {"app": "api"}, ip="10.0.0.2", ports={"http": 8080, "dns": "53/UDP"}, node="n1"),
    pod("data", "tool", {"app": "tool"}, ip="10.0.0.4", node="n2"),
    pod("data", "agent", {"app": "web"}, ip="172.16.0.2", node="n2", host_network=True),
    service("shop", "api", {"app": "api"}, [{"port": 80, "targetPort": 8080}]),
)
OUTSIDE = Address(parse_ip("198.51.100.7"))
FROM_WEB = {"fromEndpoints": [{"matchLabels": {"app": "web"}}]}
PORT = {"toPorts": [{"ports": [{"port": "8080", "protocol": "TCP"}]}]}
GET = Http("GET", "/api/x", "api", {"x": "1"})


def cnp(name: str, *, labels: dict[str, str] | None = None, home: str = "shop", **spec: Any) -> dict[str, Any]:
    return obj(
        "cilium.io/v2",
        "CiliumNetworkPolicy",
        home,
        name,
        {"endpointSelector": {"matchLabels": labels or {"app": "api"}}, **spec},
    )


def ccnp(name: str, **spec: Any) -> dict[str, Any]:
    return obj("cilium.io/v2", "CiliumClusterwideNetworkPolicy", None, name, spec)


def config(**data: str) -> dict[str, Any]:
    raw = obj("v1", "ConfigMap", "kube-system", "cilium-config", None)
    return {k: v for k, v in raw.items() if k != "spec"} | {"data": {k.replace("_", "-"): v for k, v in data.items()}}


# Refused by some versions, without effect in others: the verdict is the same.
_WITHOUT_EFFECT = {
    "must have at least one of ingress, ingressDeny, egress and egressDeny",
}


def answer(
    *objects: dict[str, Any], source: Any = WEB, target: Any = API, port: int | None = 8080, **rest: Any
) -> Answer:
    engine = one(*WORLD, *objects, cni="cilium")
    assert {r.why for r in engine.refusals if r.fatal} <= _WITHOUT_EFFECT, engine.refusals
    return ask(engine, Question(source, target, port, **rest))


def ingress(*objects: dict[str, Any], **rest: Any) -> str:
    return str(answer(*objects, **rest).ingress)


def egress(*objects: dict[str, Any], target: Any = OUTSIDE, **rest: Any) -> str:
    return str(answer(*objects, target=target, **rest).egress)


@pytest.mark.parametrize(
    ("policies", "source", "expected"),
    [
        ([], WEB, "allowed"),
        ([cnp("x", ingress=[FROM_WEB])], WEB, "allowed"),
        ([cnp("x", ingress=[FROM_WEB])], BATCH, "denied"),  # default deny as soon as one rule has the section
        ([cnp("x", egress=[{}])], BATCH, "allowed"),  # per direction
        ([cnp("x", ingress=[{}])], WEB, "denied"),  # an empty rule allows nothing and turns on default deny
        ([cnp("x", ingress=[])], WEB, "allowed"),
        ([cnp("x", ingress=[FROM_WEB], enableDefaultDeny={"ingress": False})], BATCH, "allowed"),
        ([cnp("x", ingress=[FROM_WEB], enableDefaultDeny={"ingress": False}), cnp("y", ingress=[{}])], BATCH, "denied"),
        # deny beats every allow, and a deny-only policy default-denies the rest
        ([cnp("x", ingress=[FROM_WEB]), cnp("y", ingressDeny=[FROM_WEB])], WEB, "denied"),
        ([cnp("y", ingressDeny=[FROM_WEB])], BATCH, "denied"),
        ([cnp("y", ingressDeny=[FROM_WEB], ingress=[{"fromEntities": ["all"]}])], BATCH, "allowed"),
        # inside one rule AND, several peer fields OR, between rules OR
        ([cnp("x", ingress=[FROM_WEB | PORT])], WEB, "allowed"),
        ([cnp("x", ingress=[FROM_WEB | {"toPorts": [{"ports": [{"port": "9", "protocol": "TCP"}]}]}])], WEB, "denied"),
        ([cnp("x", ingress=[FROM_WEB | {"fromEntities": ["world"]}])], OUTSIDE, "allowed"),
        ([cnp("x", ingress=[{"fromEndpoints": [{"matchLabels": {"app": "none"}}]}, PORT])], BATCH, "allowed"),
        ([cnp("x", ingress=[{"fromEndpoints": []} | PORT])], BATCH, "denied"),
        # scopes: own namespace unless one is named; {} = all endpoints of the own namespace
        ([cnp("x", ingress=[{"fromEndpoints": [{}]}])], BATCH, "allowed"),
        ([cnp("x", ingress=[{"fromEndpoints": [{}]}])], TOOL, "denied"),
        ([cnp("x", ingress=[{"fromEndpoints": [{}]}])], OUTSIDE, "denied"),
        ([cnp("x", ingress=[{"fromEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "data"}}]}])], TOOL, "allowed"),
        ([cnp("x", ingress=[{"fromEndpoints": [{"matchLabels": {"io.cilium.k8s.namespace.labels.team": "b"}}]}])], TOOL, "allowed"),
        ([ccnp("x", endpointSelector={"matchLabels": {"app": "api"}}, ingress=[{"fromEndpoints": [{}]}])], TOOL, "allowed"),
        ([ccnp("x", endpointSelector={"matchLabels": {"app": "api"}}, ingress=[{"fromEndpoints": [{}]}])], OUTSIDE, "denied"),
        # labels: prefixes, service account, cluster
        ([cnp("x", ingress=[{"fromEndpoints": [{"matchLabels": {"k8s:app": "web"}}]}])], WEB, "allowed"),
        ([cnp("x", ingress=[{"fromEndpoints": [{"matchLabels": {"any:app": "web"}}]}])], WEB, "allowed"),
        ([cnp("x", ingress=[{"fromEndpoints": [{"matchLabels": {"io.cilium.k8s.policy.serviceaccount": "web-sa"}}]}])], WEB, "allowed"),
        ([cnp("x", ingress=[{"fromEndpoints": [{"matchLabels": {"io.cilium.k8s.policy.serviceaccount": "x"}}]}])], WEB, "denied"),
        ([cnp("x", ingress=[{"fromEndpoints": [{"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}]}])], BATCH, "allowed"),
        # CIDR never matches managed pods; nodes only by mode
        ([cnp("x", ingress=[{"fromCIDR": ["10.0.0.0/8"]}])], WEB, "denied"),
        ([cnp("x", ingress=[{"fromCIDR": ["198.51.100.0/24"]}])], OUTSIDE, "allowed"),
        ([cnp("x", ingress=[{"fromCIDRSet": [{"cidr": "198.51.0.0/16", "except": ["198.51.100.0/24"]}]}])], OUTSIDE, "denied"),
        ([cnp("x", ingress=[{"fromCIDR": ["172.16.0.0/24"]}])], NodeName("n2"), "denied"),
        ([cnp("x", ingress=[{"fromCIDR": ["172.16.0.0/24"]}]), config(policy_cidr_match_mode="nodes")], NodeName("n2"), "allowed"),
        # node to local pod is allowed by default
        ([cnp("x", ingress=[{}])], NodeName("n1"), "allowed"),
        ([cnp("x", ingress=[{}])], NodeName("n2"), "denied"),
        ([cnp("x", ingress=[FROM_WEB])], PodName("data", "agent"), "denied"),  # the host network has the node's identity
        # enforcement modes, audit
        ([config(enable_policy="always")], WEB, "denied"),
        ([cnp("x", ingress=[{}]), config(enable_policy="never")], WEB, "allowed"),
        ([cnp("x", ingress=[{}]), config(policy_audit_mode="true")], WEB, "allowed"),
        # NP and CNP together: union of allows, denies win
        ([cnp("x", ingress=[FROM_WEB]), network_policy("shop", "np", {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "batch"}}}]}]})], BATCH, "allowed"),
        ([cnp("x", ingressDeny=[FROM_WEB]), network_policy("shop", "np", {"podSelector": {}, "ingress": [{}]})], WEB, "denied"),
        ([cnp("x", ingress=[FROM_WEB]), network_policy("shop", "np", {"podSelector": {}})], WEB, "allowed"),
        ([network_policy("shop", "np", {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]})], WEB, "denied"),
    ],
)  # fmt: skip
def test_rules_and_peers(policies: list[Any], source: Any, expected: str) -> None:
    assert ingress(*policies, source=source) == expected


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("world", OUTSIDE, "allowed"),
        ("world", WEB, "denied"),
        ("cluster", WEB, "allowed"),
        ("cluster", NodeName("n2"), "allowed"),
        ("cluster", OUTSIDE, "denied"),
        ("remote-node", NodeName("n2"), "allowed"),
        ("host", NodeName("n2"), "denied"),
        ("kube-apiserver", NodeName("n2"), "allowed"),
        ("all", OUTSIDE, "allowed"),
        ("none", OUTSIDE, "denied"),
        ("world-ipv6", OUTSIDE, "denied"),
        ("health", WEB, "denied"),
    ],
)
def test_entities(name: str, source: Any, expected: str) -> None:
    assert ingress(cnp("x", ingress=[{"fromEntities": [name]}]), source=source) == expected


@pytest.mark.parametrize(
    ("ports", "port", "protocol", "expected"),
    [
        ([{"port": "8080"}], 8080, "UDP", "allowed"),  # protocol ANY when missing
        ([{"port": "8080", "protocol": "TCP"}], 8080, "UDP", "denied"),
        ([{"port": "0", "protocol": "TCP"}], 1, "TCP", "allowed"),
        ([{"port": "8000", "endPort": 8100, "protocol": "TCP"}], 8100, "TCP", "allowed"),
        ([{"port": "8000", "endPort": 8100, "protocol": "TCP"}], 8101, "TCP", "denied"),
        ([{"port": "http", "protocol": "TCP"}], 8080, "TCP", "allowed"),  # names on the destination
        ([{"port": "dns", "protocol": "TCP"}], 53, "TCP", "denied"),
    ],
)
def test_ports(ports: list[Any], port: int, protocol: str, expected: str) -> None:
    assert (
        ingress(cnp("x", ingress=[FROM_WEB | {"toPorts": [{"ports": ports}]}]), port=port, protocol=protocol)
        == expected
    )


def test_icmp_only_by_icmps_or_rules_without_ports() -> None:
    echo = cnp("x", ingress=[FROM_WEB | {"icmps": [{"fields": [{"family": "IPv4", "type": 8}]}]}])
    assert ingress(echo, icmp=Icmp(4, 8), port=None) == "allowed"
    assert ingress(echo, icmp=Icmp(4, 0), port=None) == "denied"
    assert ingress(echo) == "denied"
    assert ingress(cnp("x", ingress=[FROM_WEB | PORT]), icmp=Icmp(4, 8), port=None) == "denied"
    assert ingress(cnp("x", ingress=[FROM_WEB]), icmp=Icmp(4, 8), port=None) == "allowed"


def http(*rules: Any) -> dict[str, Any]:
    return {"toPorts": [{"ports": [{"port": "8080", "protocol": "TCP"}], "rules": {"http": list(rules)}}]}


@pytest.mark.parametrize(
    ("rules", "request_", "expected"),
    [
        ([FROM_WEB | http({"method": "GET"})], GET, "allowed"),
        ([FROM_WEB | http({"method": "POST"})], GET, "denied"),
        ([FROM_WEB | http({"path": "/api"})], GET, "denied"),  # anchored regular expressions
        ([FROM_WEB | http({"path": "/api/.*"})], GET, "allowed"),
        ([FROM_WEB | http({"path": "/api/.*"})], Http("GET", "/api"), "denied"),
        ([FROM_WEB | http({"headers": ["X: 1"]})], GET, "allowed"),
        ([FROM_WEB | http({"headers": ["X: 2"]})], GET, "denied"),
        ([FROM_WEB | http({"headerMatches": [{"name": "X", "value": "2", "mismatch": "LOG"}]})], GET, "allowed"),
        ([FROM_WEB | http({"method": "POST"}, {"method": "GET"})], GET, "allowed"),  # a union
        ([FROM_WEB | http({"method": "POST"}), FROM_WEB], GET, "allowed"),  # L3-only widens L7
        ([FROM_WEB | http({"method": "POST"}), FROM_WEB | PORT], GET, "allowed"),
        ([FROM_WEB | http({"method": "GET"})], None, "conditional"),
    ],
)
def test_l7(rules: list[Any], request_: Http | None, expected: str) -> None:
    assert ingress(cnp("x", ingress=rules), http=request_) == expected


def to(**rule: Any) -> dict[str, Any]:
    return cnp("x", labels={"app": "web"}, egress=[rule])


DNS = {"toPorts": [{"ports": [{"port": "53"}], "rules": {"dns": [{"matchPattern": "*"}]}}], "toEndpoints": [{}]}


@pytest.mark.parametrize(
    ("item", "name", "expected"),
    [
        ({"matchName": "api.example.com"}, "api.example.com", "allowed"),
        ({"matchPattern": "*.example.com"}, "api.example.com", "allowed"),
        ({"matchPattern": "*.example.com"}, "a.b.example.com", "denied"),  # * does not cross dots
        ({"matchPattern": "**.example.com"}, "a.b.example.com", "allowed"),
        ({"matchPattern": "*.example.com"}, "example.com", "denied"),
        ({"matchPattern": "*"}, "anything.org", "allowed"),  # alone it means any name
    ],
)
def test_fqdns_need_a_dns_rule(item: Any, name: str, expected: str) -> None:
    with_dns = cnp("x", labels={"app": "web"}, egress=[{"toFQDNs": [item]}, DNS])
    assert egress(with_dns, target=Fqdn(name), port=443) == expected
    assert egress(to(toFQDNs=[item]), target=Fqdn(name), port=443) == "denied"
    assert egress(with_dns, port=443) == "unknown"  # an address may have been learnt


def test_cidr_groups_services_and_nodes() -> None:
    group = obj(
        "cilium.io/v2", "CiliumCIDRGroup", None, "partners", {"externalCIDRs": ["198.51.100.0/24"]}, labels={"k": "v"}
    )
    assert egress(to(toCIDRSet=[{"cidrGroupRef": "partners"}]), group) == "allowed"
    assert egress(to(toCIDRSet=[{"cidrGroupRef": "nobody"}]), group) == "denied"
    assert egress(to(toCIDRSet=[{"cidrGroupSelector": {"matchLabels": {"k": "v"}}}]), group) == "allowed"
    by_name = to(toServices=[{"k8sService": {"serviceName": "api", "namespace": "shop"}}])
    assert egress(by_name, target=ServiceName("shop", "api"), port=80) == "allowed"
    assert egress(by_name, target=TOOL) == "denied"
    assert egress(to(toNodes=[{"matchLabels": {"x": "y"}}]), target=NodeName("n1")) == "denied"


def test_authentication_adds_a_condition() -> None:
    assert ingress(cnp("x", ingress=[FROM_WEB | {"authentication": {"mode": "required"}}])) == "conditional"
    assert ingress(cnp("x", ingress=[FROM_WEB | {"authentication": {"mode": "disabled"}}])) == "allowed"


def test_the_host_firewall() -> None:
    closed = ccnp("x", nodeSelector={}, ingress=[{"fromEntities": ["health"]}])
    assert ingress(closed, config(enable_host_firewall="true"), target=NodeName("n1")) == "denied"
    assert ingress(closed, config(), target=NodeName("n1")) == "allowed"
    assert ingress(closed, target=NodeName("n1")) == "unknown"
    assert ingress(closed, config(enable_host_firewall="true")) == "allowed"  # it selects no pods


def test_the_label_filter_decides_what_identities_hold() -> None:
    by_tier = ccnp("x", endpointSelector={}, ingress=[{"fromEndpoints": [{"matchLabels": {"app": "web"}}]}])
    assert ingress(by_tier, config(labels="k8s:!app")) == "denied"
    assert ingress(by_tier, config(labels="k8s:app k8s:tier")) == "allowed"
    assert ingress(by_tier, config(labels="k8s:tier")) == "denied"


def mesh(*policies: dict[str, Any], **settings: str) -> str:
    a = [namespace("shop"), pod("shop", "web", {"app": "web"}, ip="10.1.0.1"), config(cluster_name="a", cluster_id="1")]
    api = pod("shop", "api", {"app": "api"}, ip="10.2.0.1", node="n9")
    b = [namespace("shop"), api, config(cluster_name="b", cluster_id="2", **settings), *policies]
    engine = load([ClusterInput("a", a), ClusterInput("b", b)])
    return str(ask(engine, Question(PodName("shop", "web", "a"), PodName("shop", "api", "b"), 8080)).ingress)


def test_clustermesh() -> None:
    plain = cnp("x", ingress=[FROM_WEB])
    labelled = cnp(
        "x", ingress=[{"fromEndpoints": [{"matchLabels": {"app": "web", "io.cilium.k8s.policy.cluster": "a"}}]}]
    )
    other = cnp(
        "x", ingress=[{"fromEndpoints": [{"matchLabels": {"app": "web", "io.cilium.k8s.policy.cluster": "z"}}]}]
    )
    assert mesh(plain, policy_default_local_cluster="true") == "denied"
    assert mesh(plain, policy_default_local_cluster="false") == "allowed"
    assert mesh(plain) == "unknown"  # both readings while the version is not known
    assert mesh(labelled, policy_default_local_cluster="true") == "allowed"
    assert mesh(other) == "denied"
    assert mesh(cnp("x", ingress=[{"fromEntities": ["cluster"]}])) == "denied"  # the local cluster
    assert mesh(cnp("x", ingress=[{"fromCIDR": ["10.1.0.0/16"]}])) == "denied"  # never managed pods of a meshed cluster
    np = network_policy(
        "shop", "np", {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]}
    )
    assert mesh(np, policy_default_local_cluster="false") == "allowed"
    assert mesh(np, policy_default_local_cluster="true") == "denied"


def test_what_decides() -> None:
    found = answer(
        cnp("x", ingress=[{"fromEndpoints": [{"matchLabels": {"a": "b"}}, {"matchLabels": {"app": "web"}}]}])
    )
    assert [(d.ref.name, d.pointer, d.effect) for d in found.deciding] == [
        ("x", "/spec/ingress/0/fromEndpoints/1", "allow")
    ]
    found = answer(cnp("x", ingressDeny=[FROM_WEB]))
    assert [(d.pointer, d.effect, d.implicit) for d in found.deciding] == [
        ("/spec/ingressDeny/0/fromEndpoints/0", "deny", False)
    ]
    found = answer(cnp("x", ingress=[{}]))
    assert [(d.pointer, d.effect, d.implicit) for d in found.deciding] == [("/spec/ingress", "deny", True)]


def test_specs_are_rules_of_their_own() -> None:
    both = obj("cilium.io/v2", "CiliumNetworkPolicy", "shop", "x", None)
    del both["spec"]
    both["specs"] = [{"endpointSelector": {}, "ingress": [{}]}, {"endpointSelector": {}, "ingress": [FROM_WEB]}]
    found = answer(both)
    assert [(d.pointer, d.effect) for d in found.deciding] == [("/specs/1/ingress/0/fromEndpoints/0", "allow")]


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (obj("cilium.io/v2", "CiliumNetworkPolicy", "shop", "x", {}), "/spec"),
        (obj("cilium.io/v2", "CiliumNetworkPolicy", "shop", "x", {"nodeSelector": {}}), "/spec/nodeSelector"),
        (cnp("x", ingress=[{"fromCIDR": ["10.0.0.0/40"]}]), "/spec/ingress/0/fromCIDR/0"),
        (cnp("x", ingress=[{"fromEntities": ["internet"]}]), "/spec/ingress/0/fromEntities/0"),
        (cnp("x", ingress=[{"toPorts": [{"ports": [{"port": 80}]}]}]), "/spec/ingress/0/toPorts/0/ports/0/port"),
        (cnp("x", ingress=[{"toPorts": [{"ports": [{"port": "70000"}]}]}]), "/spec/ingress/0/toPorts/0/ports/0/port"),
        (
            cnp("x", ingress=[{"toPorts": [{"ports": [{"port": "1"}]}], "icmps": [{"fields": [{"type": 8}]}]}]),
            "/spec/ingress/0/icmps",
        ),
        (
            cnp("x", ingressDeny=[{"toPorts": [{"ports": [{"port": "1"}], "rules": {"http": []}}]}]),
            "/spec/ingressDeny/0/toPorts/0/rules",
        ),
        (
            cnp(
                "x",
                egress=[
                    {"toServices": [{"k8sService": {"serviceName": "a"}}], "toPorts": [{"ports": [{"port": "1"}]}]}
                ],
            ),
            "/spec/egress/0/toServices",
        ),
        (cnp("x", egress=[{"toFQDNs": [{}]}]), "/spec/egress/0/toFQDNs/0"),
        (cnp("x", ingress=[http({"path": "("})]), "/spec/ingress/0/toPorts/0/rules/http/0/path"),
    ],
)
def test_what_would_be_refused_is_named_and_the_rest_stands(policy: Any, field: str) -> None:
    engine = one(*WORLD, policy, cnp("closed", ingress=[{}]), cni="cilium")
    assert [r.field for r in engine.refusals] == [field]
    assert ask(engine, Question(WEB, API, 8080)).ingress == "denied"
