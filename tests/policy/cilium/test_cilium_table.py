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
        # inside one rule AND, between rules OR
        ([cnp("x", ingress=[FROM_WEB | PORT])], WEB, "allowed"),
        ([cnp("x", ingress=[FROM_WEB | {"toPorts": [{"ports": [{"port": "9", "protocol": "TCP"}]}]}])], WEB, "denied"),
        ([cnp("x", ingress=[{"fromEndpoints": [{"matchLabels": {"app": "none"}}, {"matchLabels": {"app": "web"}}]}])], WEB, "allowed"),
        ([cnp("x", ingress=[FROM_WEB, {"fromEntities": ["world"]}])], OUTSIDE, "allowed"),
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


# --- the rest of the rows --------------------------------------------------------------------------------------------

FROM_BATCH = {"fromEndpoints": [{"matchLabels": {"app": "batch"}}]}
TO_API = {"toEndpoints": [{"matchLabels": {"app": "api"}}]}
TO_BATCH = {"toEndpoints": [{"matchLabels": {"app": "batch"}}]}
OTHER_PORT = {"toPorts": [{"ports": [{"port": "9", "protocol": "TCP"}]}]}


def out(*rules: Any, deny: Any = (), **spec: Any) -> dict[str, Any]:
    """A policy of pod shop/web for what leaves it."""
    sections = {k: list(v) for k, v in (("egress", rules), ("egressDeny", deny)) if v}
    return cnp("out", labels={"app": "web"}, **sections, **spec)


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ([out(TO_API)], "allowed"),
        ([out(TO_BATCH)], "denied"),  # default deny, egress as well as ingress
        ([out({})], "denied"),  # an empty rule allows nothing
        ([out(deny=[TO_BATCH])], "denied"),  # a deny section alone
        ([out(deny=[TO_BATCH], enableDefaultDeny={"egress": False})], "allowed"),
        ([out(TO_BATCH, enableDefaultDeny={"egress": False})], "allowed"),
        ([out(TO_BATCH, enableDefaultDeny={"egress": False}), out(TO_BATCH, enableDefaultDeny={"egress": True}) | {"metadata": {"namespace": "shop", "name": "y"}}], "denied"),
        ([out(TO_API, deny=[TO_API])], "denied"),  # in one object
        ([out(TO_API), ccnp("wide", endpointSelector={}, egressDeny=[TO_API])], "denied"),  # whatever the object
        ([out(TO_API), ccnp("wide", endpointSelector={}, egressDeny=[TO_API | OTHER_PORT])], "allowed"),  # deny of a port
        ([out(TO_API | PORT)], "allowed"),
        ([out(TO_API | OTHER_PORT)], "denied"),
        ([out(TO_BATCH, PORT)], "allowed"),  # between rules OR: that port to anyone
        ([out(TO_BATCH, OTHER_PORT)], "denied"),
        ([out({"toCIDR": ["10.0.0.0/8"]})], "denied"),  # never managed pods
        ([out({"toCIDRSet": [{"cidr": "0.0.0.0/0"}]})], "denied"),
        ([out({"toEntities": ["cluster"]})], "allowed"),
        ([network_policy("shop", "np", {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]})], "denied"),
        ([out(TO_BATCH), network_policy("shop", "np", {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": {}}]}]})], "allowed"),
        ([out(deny=[TO_API]), network_policy("shop", "np", {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]})], "denied"),
    ],
)  # fmt: skip
def test_egress(policies: list[Any], expected: str) -> None:
    assert egress(*policies, target=API) == expected


@pytest.mark.parametrize(
    ("rules", "source", "port", "expected"),
    [
        ([FROM_WEB, PORT], WEB, 9, "allowed"),  # any port from A
        ([FROM_WEB, PORT], BATCH, 8080, "allowed"),  # and that port from anyone
        ([FROM_WEB, PORT], BATCH, 9, "denied"),
        ([FROM_WEB | PORT, FROM_BATCH | OTHER_PORT], WEB, 9, "denied"),
    ],
)
def test_rules_are_joined_by_or_and_parts_of_one_by_and(
    rules: list[Any], source: Any, port: int, expected: str
) -> None:
    assert ingress(cnp("x", ingress=rules), source=source, port=port) == expected


@pytest.mark.parametrize(
    ("policy", "target", "expected"),
    [
        (cnp("x", home="data", labels={"app": "api"}, ingress=[{}]), API, "allowed"),  # a CNP selects in its namespace
        (ccnp("x", endpointSelector={"matchLabels": {"app": "api"}}, ingress=[{}]), API, "denied"),
        (ccnp("x", endpointSelector={}, ingress=[{}]), TOOL, "denied"),
        (ccnp("x", endpointSelector={"matchLabels": {"k8s:io.kubernetes.pod.namespace": "data"}}, ingress=[{}]), API, "allowed"),
        (ccnp("x", endpointSelector={}, ingress=[{}]), PodName("data", "agent"), "allowed"),  # managed endpoints only
    ],
)  # fmt: skip
def test_the_scope_of_endpoint_selectors(policy: Any, target: Any, expected: str) -> None:
    assert ingress(policy, target=target) == expected


# pkg/policy/api/rule_validation.go of 1.14.10, 1.16.6, 1.17.6, 1.18.5, 1.19.1, 1.20.2: "combining %s and %s is not
# supported yet"; since cilium#3015 (1.0). ingress.go: "Only one of these members may be present within an individual
# rule". Denying rules are looked at since 1.17.
@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"ingress": [FROM_WEB | {"fromEntities": ["world"]}]}, "/spec/ingress/0/fromEntities"),
        ({"ingress": [FROM_WEB | {"fromCIDR": ["10.0.0.0/8"]}]}, "/spec/ingress/0/fromCIDR"),
        ({"ingress": [{"fromCIDR": ["10.0.0.0/8"], "fromCIDRSet": [{"cidr": "10.0.0.0/8"}]}]}, "/spec/ingress/0/fromCIDRSet"),
        ({"ingressDeny": [FROM_WEB | {"fromEntities": ["world"]}]}, "/spec/ingressDeny/0/fromEntities"),
        ({"egress": [TO_API, TO_API | {"toCIDR": ["10.0.0.0/8"]}]}, "/spec/egress/1/toCIDR"),
        ({"egress": [{"toFQDNs": [{"matchName": "a.org"}], "toEntities": ["world"]}]}, "/spec/egress/0/toFQDNs"),
        ({"egress": [TO_API | {"toServices": [{"k8sService": {"serviceName": "api"}}]}]}, "/spec/egress/0/toServices"),
        ({"egressDeny": [TO_API | {"toCIDR": ["10.0.0.0/8"]}]}, "/spec/egressDeny/0/toCIDR"),
    ],
)  # fmt: skip
def test_kinds_of_peers_cannot_be_combined_in_one_rule(spec: Any, field: str) -> None:
    engine = one(*WORLD, cnp("mixed", **spec), cnp("closed", ingress=[{}]), cni="cilium")
    assert [(r.ref.name, r.field, r.fatal) for r in engine.refusals] == [("mixed", field, True)]
    found = ask(engine, Question(WEB, API, 8080))
    assert found.ingress == "denied"  # the rest stands
    assert "not counted: CiliumNetworkPolicy shop/mixed" in found.reason


def version(tag: str) -> dict[str, Any]:
    agent = pod("kube-system", "cilium-x", {"k8s-app": "cilium"}, containers=("cilium-agent",), host_network=True)
    agent["spec"]["containers"][0]["image"] = f"quay.io/cilium/cilium:{tag}"
    return agent


def test_denying_rules_with_several_kinds_of_peers_counted_before_1_17() -> None:
    mixed = cnp("x", ingressDeny=[FROM_WEB | {"fromEntities": ["world"]}], enableDefaultDeny={"ingress": False})
    assert [ingress(mixed, version("v1.16.6"), source=s) for s in (WEB, OUTSIDE, BATCH)] == ["denied", "denied", "allowed"]  # fmt: skip
    engine = one(*WORLD, mixed, version("v1.17.6"), cni="cilium")
    assert [r.field for r in engine.refusals] == ["/spec/ingressDeny/0/fromEntities"]


def test_services_beside_ports_and_services_with_a_selector_by_version() -> None:
    """rule_validation.go: l3DependentL4Support of ToServices is false in 1.14 to 1.16; cilium#20067, cilium#34208."""
    to_service = {"toServices": [{"k8sService": {"serviceName": "api", "namespace": "shop"}}]}
    both = out(to_service | PORT)
    engine = one(*WORLD, both, version("v1.16.6"), cni="cilium")
    assert [(r.field, r.fatal) for r in engine.refusals] == [("/spec/egress/0/toPorts", True)]
    for tag in ("v1.17.6", "v1.20.2"):
        assert egress(both, version(tag), target=API) == "allowed"
        assert egress(both, version(tag), target=BATCH) == "denied"
        assert egress(both, version(tag)) == "denied"
    assert egress(both, version("v1.11.20")) == "unknown"  # the port open to the world
    assert (
        egress(out(to_service), version("v1.16.6"), target=API) == "denied"
    )  # addresses of selectorless Services only
    assert egress(out(to_service), version("v1.17.6"), target=API) == "allowed"


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("host", NodeName("n1"), "allowed"),
        ("remote-node", WEB, "denied"),
        ("remote-node", PodName("data", "agent"), "allowed"),  # the host network has the node's identity
        ("kube-apiserver", WEB, "denied"),
        ("kube-apiserver", OUTSIDE, "denied"),
        ("ingress", WEB, "denied"),
        ("init", WEB, "denied"),
        ("unmanaged", WEB, "denied"),
        ("health", NodeName("n2"), "denied"),
        ("world", NodeName("n2"), "denied"),
        ("all", WEB, "allowed"),
        ("all", NodeName("n2"), "allowed"),
        ("none", WEB, "denied"),
        ("cluster-mesh", WEB, "allowed"),  # layer3.rst of 1.20
        ("cluster-mesh", OUTSIDE, "denied"),
    ],
)
def test_more_entities(name: str, source: Any, expected: str) -> None:
    assert ingress(cnp("x", ingress=[{"fromEntities": [name]}]), source=source) == expected


def test_the_entity_cluster_mesh_holds_meshed_pods_and_older_agents_refuse_it() -> None:
    everywhere = cnp("x", ingress=[{"fromEntities": ["cluster-mesh"]}])
    assert mesh(everywhere) == "allowed"
    engine = one(*WORLD, everywhere, version("v1.19.1"), cni="cilium")
    assert [r.field for r in engine.refusals] == ["/spec/ingress/0/fromEntities/0"]


@pytest.mark.parametrize(
    ("setting", "source", "expected"),
    [
        ({}, NodeName("n1"), "allowed"),
        ({"allow_localhost": "auto"}, NodeName("n1"), "allowed"),
        ({"allow_localhost": "policy"}, NodeName("n1"), "denied"),  # layer3.rst: "to disable this behavior"
        ({"allow_localhost": "policy"}, NodeName("n2"), "denied"),
    ],
)
def test_a_node_and_its_own_pods(setting: dict[str, str], source: Any, expected: str) -> None:
    assert ingress(cnp("x", ingress=[FROM_WEB]), config(**setting), source=source) == expected
    assert (
        ingress(cnp("x", ingress=[{"fromEntities": ["host"]}]), config(**setting), source=NodeName("n1")) == "allowed"
    )


@pytest.mark.parametrize(
    ("items", "asked", "expected"),
    [
        ([{"port": "8080", "protocol": "ANY"}], (8080, "SCTP"), "allowed"),
        ([{"port": "8080", "protocol": "SCTP"}], (8080, "SCTP"), "allowed"),
        ([{"port": "8080", "protocol": "SCTP"}], (8080, "TCP"), "denied"),
        ([{"port": "0"}], (65535, "UDP"), "allowed"),
        ([{"port": "0", "protocol": "UDP"}], (1, "TCP"), "denied"),
        ([{"port": "9"}, {"port": "8080", "protocol": "TCP"}], (8080, "TCP"), "allowed"),
        ([{"port": "dns", "protocol": "UDP"}], (53, "UDP"), "allowed"),
        ([{"port": "dns"}], (53, "UDP"), "allowed"),  # ANY: whatever the container port's protocol is
        ([{"port": "dns"}], (53, "TCP"), "denied"),
        ([{"port": "nosuch"}], (8080, "TCP"), "denied"),
    ],
)
def test_more_ports(items: list[Any], asked: tuple[int, str], expected: str) -> None:
    rule = cnp("x", ingress=[FROM_WEB | {"toPorts": [{"ports": items}]}])
    assert ingress(rule, port=asked[0], protocol=asked[1]) == expected


@pytest.mark.parametrize(
    ("rules", "asked", "expected"),
    [
        ([FROM_WEB | http({"method": "GET|HEAD"})], GET, "allowed"),
        ([FROM_WEB | http({"method": "GE"})], GET, "denied"),  # anchored
        ([FROM_WEB | http({"path": "/api/x"})], GET, "allowed"),
        ([FROM_WEB | http({"method": "GET", "path": "/none"})], GET, "denied"),  # both
        ([FROM_WEB | http({"headers": ["X"]})], GET, "allowed"),
        ([FROM_WEB | http({"headerMatches": [{"name": "X", "value": "2"}]})], GET, "denied"),
        ([FROM_WEB | http({"headerMatches": [{"name": "X", "value": "1"}]})], GET, "allowed"),
        *[([FROM_WEB | http({"headerMatches": [{"name": "X", "value": "2", "mismatch": action}]})], GET, "allowed")
          for action in ("ADD", "DELETE", "REPLACE")],  # changed or logged, not refused
        ([FROM_WEB | http({"method": "POST"}), FROM_BATCH | PORT], GET, "denied"),  # another peer widens nothing
        ([FROM_WEB | http({"method": "POST"}), PORT], GET, "allowed"),  # L4 alone, for the same peer too
        ([FROM_WEB | http({"method": "POST"}), {"fromEntities": ["cluster"]}], GET, "allowed"),
        ([FROM_WEB | http({}), FROM_WEB | http({"method": "POST"})], None, "allowed"),  # a rule for all requests
    ],
)  # fmt: skip
def test_more_l7(rules: list[Any], asked: Http | None, expected: str) -> None:
    assert ingress(cnp("x", ingress=rules), http=asked) == expected


def test_a_refused_request_is_answered_and_not_dropped() -> None:
    found = answer(cnp("x", ingress=[FROM_WEB | http({"method": "POST"})]), http=GET)
    assert found.ingress == "denied" and "answers the request with 403" in found.reason
    found = answer(cnp("x", ingress=[FROM_WEB | http({"method": "POST"})]), source=BATCH, http=GET)
    assert found.ingress == "denied" and "403" not in found.reason


def test_protocols_whose_rules_are_gone_since_1_20() -> None:
    """l4.go: kafka, l7 and l7proto are no fields any more, and the CRD prunes what it does not know."""
    rule = cnp("x", ingress=[{"toPorts": [{"ports": [{"port": "9092", "protocol": "TCP"}], "rules": {"kafka": [{"role": "produce"}]}}]}])  # fmt: skip
    assert ingress(rule, version("v1.19.1"), port=9092) == "conditional"
    assert ingress(rule, version("v1.20.2"), port=9092) == "allowed"
    assert [(r.field, r.fatal) for r in one(*WORLD, rule, version("v1.20.2"), cni="cilium").refusals] == [("/spec/ingress/0/toPorts/0/rules", False)]  # fmt: skip


def test_a_deny_rule_cannot_look_into_requests() -> None:
    """The CRD has no `rules` there: all requests on the port are denied, and that is said."""
    deny = cnp("x", ingress=[{"fromEntities": ["all"]}], ingressDeny=[FROM_WEB | http({"method": "POST"})])
    engine = one(*WORLD, deny, cni="cilium")
    assert [(r.field, r.fatal) for r in engine.refusals] == [("/spec/ingressDeny/0/toPorts/0/rules", False)]
    assert ask(engine, Question(WEB, API, 8080, http=GET)).ingress == "denied"
    assert ask(engine, Question(WEB, API, 9)).ingress == "allowed"


@pytest.mark.parametrize(
    ("item", "name", "tag", "expected"),
    [
        ({"matchPattern": "part*ial.com"}, "part-extra-ial.com", "v1.20.2", "allowed"),  # layer3.rst
        ({"matchPattern": "**.example.com"}, "a.b.example.com", "v1.19.1", "allowed"),  # `**.` since 1.19
        ({"matchPattern": "**.example.com"}, "a.b.example.com", "v1.18.5", "denied"),
        ({"matchPattern": "**.example.com"}, "a.example.com", "v1.18.5", "allowed"),
        ({"matchPattern": "**.example.com"}, "example.com", "v1.20.2", "denied"),
        ({"matchName": "EXAMPLE.com."}, "example.com", "v1.20.2", "allowed"),
        ({"matchName": "example.com"}, "www.example.com", "v1.20.2", "denied"),
    ],
)
def test_more_names(item: Any, name: str, tag: str, expected: str) -> None:
    rules = cnp("x", labels={"app": "web"}, egress=[{"toFQDNs": [item]}, DNS])
    assert egress(rules, version(tag), target=Fqdn(name), port=443) == expected


def test_names_of_one_pod_are_learnt_by_its_own_dns_rule() -> None:
    """fqdn rules hold what the proxy saw; only look-ups of other pods are proxied here."""
    names = out({"toFQDNs": [{"matchName": "a.org"}]}, {"toEntities": ["cluster"]})
    others = cnp("dns", labels={"app": "batch"}, egress=[DNS])
    assert egress(names, others, target=Fqdn("a.org"), port=443) == "unknown"
    narrow = {"toPorts": [{"ports": [{"port": "53"}], "rules": {"dns": [{"matchName": "b.org"}]}}], "toEndpoints": [{}]}
    assert egress(out({"toFQDNs": [{"matchName": "a.org"}]}, narrow), target=Fqdn("a.org"), port=443) == "denied"


@pytest.mark.parametrize(
    ("policy_", "rule", "expected"),
    [
        ("Local", {"fromEntities": ["world"]}, "allowed"),  # the client's address is kept
        ("Local", {"fromEntities": ["remote-node"]}, "denied"),
        ("Cluster", {"fromEntities": ["world"]}, "unknown"),  # a node's, or with DSR the client's
        ("Cluster", {"fromEntities": ["remote-node"]}, "unknown"),
        ("Cluster", {"fromEntities": ["all"]}, "allowed"),
        ("Cluster", FROM_BATCH, "denied"),
    ],
)
def test_north_south_the_identity_hangs_on_how_traffic_comes_in(policy_: str, rule: Any, expected: str) -> None:
    entry = service("shop", "entry", {"app": "api"}, [{"port": 80, "targetPort": 8080}], type="LoadBalancer", externalTrafficPolicy=policy_)  # fmt: skip
    target = ServiceName("shop", "entry")
    assert ingress(cnp("x", ingress=[rule]), entry, source=OUTSIDE, target=target, port=80) == expected


def test_icmp_is_of_one_family_and_leaves_too() -> None:
    echo = out({"icmps": [{"fields": [{"family": "IPv6", "type": 128}]}]})
    assert egress(echo, icmp=Icmp(6, 128), port=None, target=Address(parse_ip("2001:db8::1"))) == "allowed"
    assert egress(echo, icmp=Icmp(4, 8), port=None) == "denied"
    assert egress(echo, port=443) == "denied"


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ([config(enable_policy="always"), cnp("x", ingress=[FROM_WEB]), out(TO_API)], "allowed"),
        ([config(enable_policy="always"), cnp("x", ingress=[FROM_WEB], enableDefaultDeny={"ingress": False})], "denied"),  # egress
        ([config(enable_policy="never"), cnp("x", ingressDeny=[FROM_WEB])], "allowed"),
        ([config(enable_policy="default"), cnp("x", ingress=[FROM_BATCH])], "denied"),
    ],
)  # fmt: skip
def test_enforcement_modes(policies: list[Any], expected: str) -> None:
    assert answer(*policies).verdict == expected


@pytest.mark.parametrize(
    ("mode", "tag", "expected"),
    [
        ("", "v1.20.2", ("denied", "denied")),
        ("nodes", "v1.20.2", ("denied", "allowed")),
        ("pods", "v1.20.2", ("allowed", "denied")),  # layer3.rst, "Selecting pods or nodes with CIDR / ipBlock"
        ("pods,nodes", "v1.20.2", ("allowed", "allowed")),
        ("pods", "v1.19.1", ("denied", "denied")),  # not known before
    ],
)
def test_cidrs_match_pods_and_nodes_by_setting(mode: str, tag: str, expected: tuple[str, str]) -> None:
    told = [config(policy_cidr_match_mode=mode), version(tag)]
    rule = cnp("x", ingress=[{"fromCIDR": ["10.0.0.0/24", "172.16.0.0/24"]}])
    np = network_policy(
        "shop", "np", {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/24"}}]}]}
    )
    assert (ingress(rule, *told), ingress(rule, *told, source=NodeName("n2"))) == expected
    assert ingress(np, *told) == expected[0]
    assert mesh(rule, policy_cidr_match_mode=mode) == "denied"  # 10.1.0.1 is not in the range
    wide = cnp("x", ingress=[{"fromCIDR": ["10.0.0.0/8"]}])
    assert mesh(wide, policy_cidr_match_mode=mode) == ("unknown" if "pods" in mode else "denied")


def test_network_policies_count_unless_the_agent_is_told_otherwise() -> None:
    """config.go: enable-k8s-networkpolicy."""
    closed = network_policy("shop", "np", {"podSelector": {}, "policyTypes": ["Ingress"]})
    assert ingress(closed, config()) == "denied"
    assert ingress(closed, config(enable_k8s_networkpolicy="false")) == "allowed"
    assert ingress(closed, config(enable_k8s_networkpolicy="false"), cnp("x", ingress=[{}])) == "denied"


def test_the_host_firewall_needs_its_own_allowances() -> None:
    """ "Then health, kube-apiserver and the like must be allowed"; host.rst."""
    wall = ccnp("wall", nodeSelector={}, ingress=[{"fromEntities": ["health"]}])
    on = config(enable_host_firewall="true")
    assert ingress(wall, on, source=NodeName("n2"), target=NodeName("n1"), port=10250) == "denied"
    opened = ccnp("wall", nodeSelector={}, ingress=[{"fromEntities": ["health", "kube-apiserver", "remote-node"]}])
    assert ingress(opened, on, source=NodeName("n2"), target=NodeName("n1"), port=10250) == "allowed"
    assert egress(ccnp("wall", nodeSelector={}, egress=[{"toEntities": ["world"]}]), on, source=NodeName("n1")) == "allowed"  # fmt: skip
    assert egress(ccnp("wall", nodeSelector={}, egress=[{"toEntities": ["world"]}]), on, source=NodeName("n1"), target=TOOL) == "denied"  # fmt: skip
