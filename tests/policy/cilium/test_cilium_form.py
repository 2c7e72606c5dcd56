"""What the API server or Cilium's agent would refuse is named with object and field; the rest stands; nothing raises.

Sources: `pkg/policy/api/rule_validation.go`, `pkg/k8s/apis/cilium.io/v2/cnp_types.go` and the CRD schemas
(`client/crds/v2`) of cilium/cilium 1.18 to 1.20.
"""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_build import namespace, node, obj, one, packet, pod, service

WORLD = (
    namespace("shop"),
    node("n1", "172.16.0.1"),
    pod("shop", "web", {"app": "web"}, ip="10.0.0.1"),
    pod("shop", "api", {"app": "api"}, ip="10.0.0.2", ports={"http": 8080}),
    service("shop", "api", {"app": "api"}, [{"port": 80, "targetPort": 8080}]),
)
Raw = dict[str, Any]


def cnp(name: str, spec: Any, kind: str = "CiliumNetworkPolicy") -> Raw:
    home = "shop" if kind == "CiliumNetworkPolicy" else None
    return obj("cilium.io/v2", kind, home, name, spec)


CLOSED = cnp("closed", {"endpointSelector": {}, "ingress": [{}]})


def rule(**parts: Any) -> Raw:
    return {"endpointSelector": {}, "ingress": [parts]}


def out(**parts: Any) -> Raw:
    return {"endpointSelector": {}, "egress": [parts]}


def ports(item: Raw, **rest: Any) -> Raw:
    return rule(toPorts=[{"ports": [item], **rest}])


TCP = {"port": "80", "protocol": "TCP"}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (None, "/spec"),
        ([], "/spec"),
        ({}, "/spec"),
        ({"endpointSelector": {}}, "/spec"),  # "must have at least one of Ingress, IngressDeny, Egress, EgressDeny"
        ({"ingress": [{}]}, "/spec/endpointSelector"),
        ({"endpointSelector": {}, "nodeSelector": {}, "ingress": [{}]}, "/spec/nodeSelector"),
        ({"nodeSelector": {}, "ingress": [{}]}, "/spec/nodeSelector"),  # only clusterwide policies select nodes
        ({"endpointSelector": [], "ingress": [{}]}, "/spec/endpointSelector"),
        ({"endpointSelector": {"matchLabels": {"app": 1}}, "ingress": [{}]}, "/spec/endpointSelector/matchLabels/app"),
        ({"endpointSelector": {"matchLabels": {"app": "a b"}}, "ingress": [{}]}, "/spec/endpointSelector/matchLabels/app"),
        ({"endpointSelector": {"matchLabels": {"k8s:a b": "c"}}, "ingress": [{}]}, "/spec/endpointSelector/matchLabels/k8s:a b"),
        ({"endpointSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}, "ingress": [{}]}, "/spec/endpointSelector/matchExpressions/0/values"),
        ({"endpointSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}, "ingress": [{}]}, "/spec/endpointSelector/matchExpressions/0/values"),
        ({"endpointSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}, "ingress": [{}]}, "/spec/endpointSelector/matchExpressions/0/operator"),
        ({"endpointSelector": {}, "ingress": {}}, "/spec/ingress"),
        ({"endpointSelector": {}, "ingress": ["all"]}, "/spec/ingress/0"),
        ({"endpointSelector": {}, "ingress": [{}], "enableDefaultDeny": {"ingress": "no"}}, "/spec/enableDefaultDeny/ingress"),
        (rule(fromEndpoints="all"), "/spec/ingress/0/fromEndpoints"),
        (rule(fromEntities=["internet"]), "/spec/ingress/0/fromEntities/0"),
        (rule(fromCIDR=["10.0.0.0/33"]), "/spec/ingress/0/fromCIDR/0"),
        (rule(fromCIDR=[""]), "/spec/ingress/0/fromCIDR/0"),
        (rule(fromCIDRSet=[{}]), "/spec/ingress/0/fromCIDRSet/0"),
        (rule(fromCIDRSet=[{"cidr": "10.0.0.0/8", "cidrGroupRef": "g"}]), "/spec/ingress/0/fromCIDRSet/0"),
        (rule(fromCIDRSet=[{"cidr": "10.0.0.1"}]), "/spec/ingress/0/fromCIDRSet/0/cidr"),  # here a prefix is required
        (rule(fromCIDRSet=[{"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}]), "/spec/ingress/0/fromCIDRSet/0/except/0"),
        (rule(fromCIDRSet=[{"cidr": "10.0.0.0/8", "except": ["x"]}]), "/spec/ingress/0/fromCIDRSet/0/except/0"),
        (ports({"protocol": "TCP"}), "/spec/ingress/0/toPorts/0/ports/0/port"),
        (ports({"port": 80}), "/spec/ingress/0/toPorts/0/ports/0/port"),
        (ports({"port": "70000"}), "/spec/ingress/0/toPorts/0/ports/0/port"),
        (ports({"port": "-1"}), "/spec/ingress/0/toPorts/0/ports/0/port"),
        (ports({"port": "a--b"}), "/spec/ingress/0/toPorts/0/ports/0/port"),
        (ports({"port": "80", "protocol": "QUIC"}), "/spec/ingress/0/toPorts/0/ports/0/protocol"),
        (ports({"port": "80", "endPort": 70000}), "/spec/ingress/0/toPorts/0/ports/0/endPort"),
        (ports({"port": "80", "endPort": "90"}), "/spec/ingress/0/toPorts/0/ports/0/endPort"),
        (rule(toPorts=[{"ports": [TCP] * 41}]), "/spec/ingress/0/toPorts/0/ports"),
        (rule(toPorts=[{"ports": [TCP]}], icmps=[{"fields": [{"type": 8}]}]), "/spec/ingress/0/icmps"),
        (rule(icmps=[{"fields": [{"type": "Hello"}]}]), "/spec/ingress/0/icmps/0/fields/0/type"),
        (rule(icmps=[{"fields": [{"type": "PacketTooBig"}]}]), "/spec/ingress/0/icmps/0/fields/0/type"),  # IPv6 only
        (rule(icmps=[{"fields": [{"type": 8, "family": "IPX"}]}]), "/spec/ingress/0/icmps/0/fields/0/family"),
        (rule(icmps=[{"fields": [{}]}]), "/spec/ingress/0/icmps/0/fields/0/type"),
        (ports({"port": "80", "protocol": "UDP"}, rules={"http": [{}]}), "/spec/ingress/0/toPorts/0/ports/0/protocol"),
        (ports({"port": "80"}, rules={"http": [{}]}), "/spec/ingress/0/toPorts/0/ports/0/protocol"),  # ANY is not TCP
        (ports({"port": "0", "protocol": "TCP"}, rules={"http": [{}]}), "/spec/ingress/0/toPorts/0/ports/0/port"),
        (ports(TCP, rules={"http": [{"path": "("}]}), "/spec/ingress/0/toPorts/0/rules/http/0/path"),
        (ports(TCP, rules={"http": [{"path": "(?!a)b"}]}), "/spec/ingress/0/toPorts/0/rules/http/0/path"),  # not in RE2
        (ports(TCP, rules={"http": [{"headerMatches": [{"name": ""}]}]}), "/spec/ingress/0/toPorts/0/rules/http/0/headerMatches/0/name"),
        (ports(TCP, rules={"http": [{"headerMatches": [{"name": "a", "mismatch": "DROP"}]}]}), "/spec/ingress/0/toPorts/0/rules/http/0/headerMatches/0/mismatch"),
        (ports(TCP, rules={"http": [{}], "kafka": [{}]}), "/spec/ingress/0/toPorts/0/rules"),
        (ports(TCP, rules={"l7": [{}]}), "/spec/ingress/0/toPorts/0/rules/l7"),
        (ports({"port": "53"}, rules={"dns": [{"matchPattern": "*"}]}), "/spec/ingress/0/toPorts/0/rules/dns"),
        (ports(TCP, listener={"name": "x"}), "/spec/ingress/0/toPorts/0/listener"),
        (ports(TCP, serverNames=[""]), "/spec/ingress/0/toPorts/0/serverNames"),
        (ports(TCP, serverNames=["a"], rules={"http": [{}]}), "/spec/ingress/0/toPorts/0/serverNames"),
        (rule(fromEndpoints=[{}], authentication={"mode": "always"}), "/spec/ingress/0/authentication/mode"),
        (rule(fromEndpoints=[{}], authentication={}), "/spec/ingress/0/authentication/mode"),
        (out(toFQDNs=[{}]), "/spec/egress/0/toFQDNs/0"),
        (out(toFQDNs=[{"matchName": "a.b", "matchPattern": "*.b"}]), "/spec/egress/0/toFQDNs/0"),
        (out(toFQDNs=[{"matchName": "*.b"}]), "/spec/egress/0/toFQDNs/0/matchName"),
        (out(toFQDNs=[{"matchPattern": "a b"}]), "/spec/egress/0/toFQDNs/0/matchPattern"),
        (out(toPorts=[{"ports": [{"port": "53", "endPort": 60}], "rules": {"dns": [{"matchPattern": "*"}]}}]), "/spec/egress/0/toPorts/0/ports/0/endPort"),
        (out(toPorts=[{"rules": {"dns": [{"matchPattern": "*"}]}}]), "/spec/egress/0/toPorts/0/rules/dns"),
    ],
)  # fmt: skip
def test_what_would_be_refused_is_named_and_the_rest_stands(spec: Any, field: str) -> None:
    engine = one(*WORLD, CLOSED, cnp("broken", spec), cni="cilium")
    assert [(r.ref.name, r.field) for r in engine.refusals if r.fatal] == [("broken", field)]
    assert engine.decide(packet(engine, "ingress", "shop/web", "shop/api")).verdict == "denied"


def test_one_bad_rule_takes_its_whole_object_with_it() -> None:
    bad = cnp("bad", None)
    bad["specs"] = [{"endpointSelector": {}, "ingress": [{"fromEntities": ["all"]}]}, {"endpointSelector": {}}]
    engine = one(*WORLD, CLOSED, bad, cni="cilium")
    assert [(r.ref.name, r.field) for r in engine.refusals] == [("bad", "/specs/1")]
    assert engine.decide(packet(engine, "ingress", "shop/web", "shop/api")).verdict == "denied"


def test_versions_and_settings_that_refuse() -> None:
    nodes = cnp("nodes", out(toNodes=[{}]))
    setting = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": "kube-system", "name": "cilium-config"},
    }
    off = one(*WORLD, nodes, setting | {"data": {}}, cni="cilium")
    assert [r.field for r in off.refusals] == ["/spec/egress/0/toNodes"]
    on = one(*WORLD, nodes, setting | {"data": {"enable-node-selector-labels": "true"}}, cni="cilium")
    assert on.refusals == ()
    old = cnp("old", rule(fromEndpoints=[{}], fromRequires=[{"matchLabels": {"app": "web"}}]))
    agent = pod("kube-system", "cilium-x", {"k8s-app": "cilium"}, containers=("cilium-agent",))
    agent["spec"]["containers"][0]["image"] = "quay.io/cilium/cilium:v1.19.1@sha256:0"
    assert [r.field for r in one(*WORLD, old, agent, cni="cilium").refusals] == ["/spec/ingress/0/fromRequires/0"]
    assert one(*WORLD, old, cni="cilium").refusals == ()


@pytest.mark.parametrize(
    ("setting", "spec", "kind", "field"),
    [
        ("enable-l7-proxy", ports(TCP, rules={"http": [{}]}), "CiliumNetworkPolicy", "/spec/ingress/0/toPorts/0/rules"),
        ("enable-icmp-rules", rule(icmps=[{"fields": [{"type": 8}]}]), "CiliumNetworkPolicy", "/spec/ingress/0/icmps"),
        ("enable-cilium-network-policy", rule(fromEndpoints=[{}]), "CiliumNetworkPolicy", "/kind"),
        (
            "enable-cilium-clusterwide-network-policy",
            rule(fromEndpoints=[{}]),
            "CiliumClusterwideNetworkPolicy",
            "/kind",
        ),
    ],
)
def test_what_the_agents_are_told_not_to_do(setting: str, spec: Any, kind: str, field: str) -> None:
    """rule_validation.go, config.go of 1.18 to 1.20."""
    meta = {"namespace": "kube-system", "name": "cilium-config"}
    for value, expected in (("false", [field]), ("true", [])):
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {setting: value}}
        engine = one(*WORLD, cnp("x", spec, kind), config, cni="cilium")
        assert [r.field for r in engine.refusals] == expected


def test_an_older_version_of_the_kind_and_a_broken_group_are_named() -> None:
    old = CLOSED | {"apiVersion": "cilium.io/v1"}
    group = obj("cilium.io/v2", "CiliumCIDRGroup", None, "g", {"externalCIDRs": ["10.0.0.0/8", "home"]})
    refusals = one(*WORLD, old, group, cni="cilium").refusals
    assert {(r.ref.kind, r.field) for r in refusals} == {
        ("CiliumNetworkPolicy", "/apiVersion"),
        ("CiliumCIDRGroup", "/spec/externalCIDRs/1"),
    }


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (cnp("x", {"endpointSelector": {}, "ingressDeny": [{"toPorts": [{"ports": [TCP], "rules": {"http": [{"method": "GET"}]}}]}]}), "/spec/ingressDeny/0/toPorts/0/rules"),
        (cnp("x", out(toServices=[{"k8sService": {"serviceName": "api"}}], toPorts=[{"ports": [TCP]}])), "/spec/egress/0/toServices"),
        (cnp("x", out(toCIDRSet=[{"cidrGroupRef": "gone"}])), "/spec/egress/0/toCIDRSet/0/cidrGroupRef"),
    ],
)  # fmt: skip
def test_what_is_taken_but_worth_saying(policy: Raw, field: str) -> None:
    refusals = one(*WORLD, policy, cni="cilium").refusals
    assert [(r.field, r.fatal) for r in refusals] == [(field, False)]


FULL = [
    cnp("a", {
        "endpointSelector": {"matchLabels": {"k8s:app": "api"}},
        "enableDefaultDeny": {"ingress": True, "egress": False},
        "ingress": [
            {"fromEndpoints": [{"matchExpressions": [{"key": "any:app", "operator": "In", "values": ["web"]}]}],
             "toPorts": [{"ports": [{"port": "8080", "protocol": "TCP"}, {"port": "http", "protocol": "TCP"}],
                          "rules": {"http": [{"method": "GET", "path": "/a.*", "headers": ["X: 1"],
                                              "headerMatches": [{"name": "a", "value": "b"}]}]}}]},
            {"fromEntities": ["host", "remote-node", "cluster", "kube-apiserver"], "icmps": [{"fields": [{"type": 8, "family": "IPv4"}]}]},
            {"fromCIDRSet": [{"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}, {"cidrGroupRef": "g"}]},
            {"fromRequires": [{"matchLabels": {"app": "web"}}]},
        ],
        "ingressDeny": [{"fromCIDR": ["203.0.113.0/24"], "toPorts": [{"ports": [{"port": "1", "endPort": 9}]}]}],
        "egress": [
            {"toFQDNs": [{"matchPattern": "*.example.com"}], "authentication": {"mode": "required"}},
            {"toPorts": [{"ports": [{"port": "53"}], "rules": {"dns": [{"matchName": "a.example.com"}]}}]},
            {"toServices": [{"k8sService": {"serviceName": "api", "namespace": "shop"}}, {"k8sServiceSelector": {"selector": {}}}]},
            {"toGroups": [{"aws": {"securityGroupsIds": ["sg-1"]}}]},
            {"toPorts": [{"ports": [{"port": "443", "protocol": "TCP"}], "serverNames": ["x.org"]}]},
        ],
        "egressDeny": [{"toEntities": ["world"]}],
    }),
    cnp("b", {"nodeSelector": {"matchLabels": {"zone": "a"}}, "ingress": [{"fromEntities": ["health"]}]}, "CiliumClusterwideNetworkPolicy"),
    obj("cilium.io/v2", "CiliumCIDRGroup", None, "g", {"externalCIDRs": ["198.51.100.0/24"]}, labels={"a": "b"}),
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "kube-system", "name": "cilium-config"},
     "data": {"cluster-name": "a", "labels": "k8s:app !k8s:(", "enable-host-firewall": "true", "policy-audit-mode": "no"}},
]  # fmt: skip

JUNK = st.sampled_from(
    [None, True, 0, -1, 2**70, 1.5, "", "*", "x", "10.0.0.0/33", "\u0000", "(", [], {}, [{}], [None], {"": ""}, [[]], "a" * 300]
)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += _places(inner, (*path, key))
    return found


PLACES = [place for place in _places(FULL) if len(place) > 1]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(pick=st.integers(0, len(PLACES) - 1), junk=JUNK, seed=st.integers(0, 99))
def test_junk_anywhere_never_raises(pick: int, junk: Any, seed: int) -> None:
    objects = copy.deepcopy(FULL)
    holder: Any = objects
    for step in PLACES[pick][:-1]:
        holder = holder[step]
    holder[PLACES[pick][-1]] = junk
    engine = one(*WORLD, *objects, cni="cilium")
    ends = ["shop/web", "shop/api", "node:n1", "192.0.2.7", "dns:a.example.com"]
    rng = random.Random(seed)
    for _ in range(8):
        source, destination, direction = rng.choice(ends[:4]), rng.choice(ends), rng.choice(("ingress", "egress"))
        engine.decide(packet(engine, direction, source, destination, rng.choice((None, 53, 443, 8080))))


def test_the_full_object_is_taken() -> None:
    engine = one(*WORLD, *FULL, cni="cilium")
    assert [r for r in engine.refusals if r.fatal] == []
