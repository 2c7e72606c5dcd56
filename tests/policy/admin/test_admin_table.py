"""ANP, BANP, CNP: a case for every row of the semantics.

Sources: network-policy-api `apis/v1alpha1`, `apis/v1alpha2/clusternetworkpolicy_types.go`, `site-src/api-overview.md`.
"""

from __future__ import annotations

from typing import Any

import pytest
from policy_build import namespace, network_policy, node, obj, one, packet, pod, service

from mcdoctor.policy.path import ask
from mcdoctor.policy.question import Icmp, PodName, Question, ServiceName

WORLD = (
    namespace("shop", team="a"),
    namespace("data", team="b"),
    namespace("same", team="b"),
    node("n1", "172.16.0.1", zone="x"),
    node("n2", "172.16.0.2", zone="y"),
    pod("shop", "web", {"app": "web"}, ip="10.0.0.1", node="n2"),
    pod("data", "db", {"app": "db"}, ip="10.0.0.2", ports={"sql": 5432}, node="n1"),
    pod("same", "tool", {"app": "tool"}, ip="10.0.0.3", node="n2"),
    pod("shop", "agent", {"app": "agent"}, ip="172.16.0.2", node="n2", host_network=True),
    service("data", "db", {"app": "db"}, [{"port": 5432}]),
)
ALL: dict[str, Any] = {"namespaces": {}}
DATA = {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "data"}}}


def anp(name: str, priority: int, *ingress: Any, subject: Any = DATA, egress: Any = ()) -> dict[str, Any]:
    spec = {"priority": priority, "subject": subject, "ingress": list(ingress), "egress": list(egress)}
    return obj("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", None, name, spec)


def banp(*ingress: Any, subject: Any = DATA, name: str = "default") -> dict[str, Any]:
    return obj(
        "policy.networking.k8s.io/v1alpha1",
        "BaselineAdminNetworkPolicy",
        None,
        name,
        {"subject": subject, "ingress": list(ingress)},
    )


def cnp(name: str, tier: str, priority: int, *ingress: Any, subject: Any = DATA, egress: Any = ()) -> dict[str, Any]:
    spec = {"tier": tier, "priority": priority, "subject": subject, "ingress": list(ingress), "egress": list(egress)}
    return obj("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", None, name, spec)


def rule(action: str, *peers: Any, egress: bool = False, **rest: Any) -> dict[str, Any]:
    return {"action": action, "to" if egress else "from": list(peers or (ALL,)), **rest}


CLOSED = network_policy("data", "closed", {"podSelector": {}, "policyTypes": ["Ingress"]})
OPEN = network_policy("data", "open", {"podSelector": {}, "ingress": [{}]})


def ingress(*policies: Any, source: str = "shop/web", port: int = 5432, protocol: str = "TCP") -> str:
    engine = one(*WORLD, *policies, cni="kube-router")
    return str(engine.decide(packet(engine, "ingress", source, "data/db", port, protocol)).verdict)


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        # order: admin tier, then NP, then baseline, then allow
        ([anp("x", 1, rule("Deny")), OPEN], "denied"),
        ([anp("x", 1, rule("Allow")), CLOSED], "allowed"),
        ([anp("x", 1, rule("Pass")), CLOSED], "denied"),
        ([anp("x", 1, rule("Pass")), banp(rule("Deny"))], "denied"),
        ([banp(rule("Deny")), OPEN], "allowed"),  # NP between is final for the pods it isolates
        ([banp(rule("Allow")), CLOSED], "denied"),
        ([anp("x", 1, rule("Allow", {"namespaces": {"matchLabels": {"team": "z"}}}))], "allowed"),  # no isolation
        # inside a tier: lower priority first, then rule order
        ([anp("late", 9, rule("Deny")), anp("early", 1, rule("Allow"))], "allowed"),
        ([anp("x", 1, rule("Allow"), rule("Deny"))], "allowed"),
        ([anp("a", 5, rule("Allow")), anp("b", 5, rule("Deny"))], "unknown"),  # equal priority, undefined
        ([anp("a", 5, rule("Deny")), anp("b", 5, rule("Deny"))], "denied"),
        # Pass leaves the tier, later rules and policies of it are skipped
        ([anp("x", 1, rule("Pass"), rule("Deny"))], "allowed"),
        ([anp("x", 1, rule("Pass")), anp("y", 2, rule("Deny"))], "allowed"),
        # CNP: both tiers, many baselines, baseline may Pass
        ([cnp("x", "Admin", 1, rule("Accept")), CLOSED], "allowed"),
        ([cnp("x", "Baseline", 1, rule("Pass")), cnp("y", "Baseline", 2, rule("Deny"))], "allowed"),
        ([cnp("x", "Baseline", 3, rule("Accept")), cnp("y", "Baseline", 2, rule("Deny"))], "denied"),
        ([cnp("x", "Baseline", 1, rule("Deny")), OPEN], "allowed"),
        # peers with no field known here fail closed
        ([anp("x", 1, rule("Allow", {"future": {}})), CLOSED], "denied"),
        ([anp("x", 1, rule("Deny", {"future": {}})), OPEN], "denied"),
        ([anp("x", 1, rule("Pass", {"future": {}})), OPEN], "denied"),
    ],
)
def test_tiers(policies: list[Any], expected: str) -> None:
    assert ingress(*policies) == expected


@pytest.mark.parametrize(
    ("item", "port", "protocol", "expected"),
    [
        ({"ports": [{"portNumber": {"port": 5432}}]}, 5432, "TCP", "denied"),  # TCP when missing
        ({"ports": [{"portNumber": {"port": 5432}}]}, 5432, "UDP", "allowed"),
        ({"ports": [{"portRange": {"protocol": "UDP", "start": 5000, "end": 6000}}]}, 6000, "UDP", "denied"),
        ({"ports": [{"namedPort": "sql"}]}, 5432, "TCP", "denied"),
        ({"ports": [{"namedPort": "nosql"}]}, 5432, "TCP", "allowed"),
        ({}, 1, "SCTP", "denied"),  # missing = all
    ],
)
def test_ports_of_v1alpha1(item: Any, port: int, protocol: str, expected: str) -> None:
    assert ingress(anp("x", 1, rule("Deny", **item)), port=port, protocol=protocol) == expected


@pytest.mark.parametrize(
    ("item", "port", "protocol", "expected"),
    [
        ([{"tcp": {"destinationPort": {"number": 5432}}}], 5432, "TCP", "denied"),
        ([{"tcp": {"destinationPort": {"range": {"start": 1, "end": 9}}}}], 5432, "TCP", "allowed"),
        ([{"udp": {}}], 1, "UDP", "denied"),
        ([{"sctp": {}}], 1, "TCP", "allowed"),
        ([{"destinationNamedPort": "sql"}], 5432, "TCP", "denied"),
    ],
)
def test_protocols_of_v1alpha2(item: Any, port: int, protocol: str, expected: str) -> None:
    assert ingress(cnp("x", "Admin", 1, rule("Deny", protocols=item)), port=port, protocol=protocol) == expected


def egress(peer: Any, destination: str, action: str = "Deny", **rest: Any) -> str:
    shop = {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}}
    engine = one(
        *WORLD, cnp("x", "Admin", 1, subject=shop, egress=[rule(action, peer, egress=True, **rest)]), cni="kube-router"
    )
    return str(engine.decide(packet(engine, "egress", "shop/web", destination, 443)).verdict)


@pytest.mark.parametrize(
    ("peer", "destination", "expected"),
    [
        ({"nodes": {"matchLabels": {"zone": "x"}}}, "node:n1", "denied"),  # nodes by their addresses
        ({"nodes": {"matchLabels": {"zone": "x"}}}, "172.16.0.1", "denied"),
        ({"nodes": {"matchLabels": {"zone": "y"}}}, "shop/agent", "denied"),
        ({"nodes": {"matchLabels": {"zone": "x"}}}, "data/db", "allowed"),
        ({"networks": ["203.0.113.0/24"]}, "203.0.113.9", "denied"),
        ({"networks": ["10.0.0.0/8"]}, "data/db", "denied"),  # also in-cluster addresses
        ({"networks": ["203.0.113.0/24"]}, "dns:example.com", "conditional"),
        ({"namespaces": {}}, "shop/agent", "allowed"),  # host-network pods are no pod peers
        ({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "db"}}}}, "data/db", "denied"),
    ],
)
def test_peers_of_egress(peer: Any, destination: str, expected: str) -> None:
    assert egress(peer, destination) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("api.example.com", "allowed"),
        ("a.b.example.com", "allowed"),
        ("example.com", "denied"),
        ("exact.org", "allowed"),
    ],
)
def test_domain_names_cover_sub_domains_and_not_the_domain(name: str, expected: str) -> None:
    accept = rule("Accept", {"domainNames": ["*.example.com", "exact.org"]}, egress=True)
    deny = rule("Deny", {"networks": ["0.0.0.0/0"]}, egress=True)
    engine = one(*WORLD, cnp("x", "Admin", 1, subject=ALL, egress=[accept, deny]), cni="kube-router")
    assert engine.decide(packet(engine, "egress", "shop/web", f"dns:{name}", 443)).verdict == expected
    assert engine.decide(packet(engine, "egress", "shop/web", "198.51.100.1", 443)).verdict == "unknown"


def test_subjects_leave_out_host_network_pods() -> None:
    engine = one(*WORLD, anp("x", 1, rule("Deny"), subject=ALL), cni="kube-router")
    assert engine.decide(packet(engine, "ingress", "data/db", "shop/agent")).verdict == "allowed"


def test_a_pods_own_address_is_not_subject_but_its_own_service_is() -> None:
    engine = one(*WORLD, anp("x", 1, rule("Deny"), subject=ALL), cni="kube-router")
    me = PodName("data", "db")
    assert ask(engine, Question(me, me, 5432)).ingress == "allowed"
    assert ask(engine, Question(me, ServiceName("data", "db"), 5432)).ingress != "allowed"


def test_legacy_same_labels() -> None:
    same, other = (
        rule("Deny", {"namespaces": {"sameLabels": ["team"]}}),
        rule("Deny", {"namespaces": {"notSameLabels": ["team"]}}),
    )
    assert ingress(anp("x", 1, same), source="same/tool") == "denied"
    assert ingress(anp("x", 1, same), source="shop/web") == "allowed"
    assert ingress(anp("x", 1, other), source="shop/web") == "denied"


def test_the_rule_that_decides_is_named_and_a_pass_is_not() -> None:
    engine = one(
        *WORLD,
        anp("x", 1, rule("Pass")),
        banp(rule("Allow", {"namespaces": {"matchLabels": {"team": "z"}}}), rule("Deny", ALL)),
        cni="kube-router",
    )
    answer = ask(engine, Question(PodName("shop", "web"), PodName("data", "db"), 5432))
    assert [(d.ref.kind, d.pointer, d.effect) for d in answer.deciding] == [
        ("BaselineAdminNetworkPolicy", "/spec/ingress/1/from/0", "deny")
    ]


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (anp("x", 1001, rule("Deny")), "/spec/priority"),
        (banp(rule("Deny"), name="other"), "/metadata/name"),
        (banp(rule("Pass")), "/spec/ingress/0/action"),
        (anp("x", 1, rule("Accept")), "/spec/ingress/0/action"),
        (anp("x", 1, {"action": "Deny"}), "/spec/ingress/0/from"),
        (anp("x", 1, {"action": "Deny", "from": [{}]}), "/spec/ingress/0/from/0"),
        (anp("x", 1, {"action": "Deny", "from": [{"namespaces": {}, "pods": {}}]}), "/spec/ingress/0/from/0"),
        (
            anp("x", 1, {"action": "Deny", "from": [{"pods": {"podSelector": {}}}]}),
            "/spec/ingress/0/from/0/pods/namespaceSelector",
        ),
        (anp("x", 1, rule("Deny"), subject={}), "/spec/subject"),
        (anp("x", 1, rule("Deny", ports=[])), "/spec/ingress/0/ports"),
        (anp("x", 1, rule("Deny", ports=[{"portNumber": {"port": 0}}])), "/spec/ingress/0/ports/0/portNumber/port"),
        (cnp("x", "Top", 1), "/spec/tier"),
        (
            cnp("x", "Admin", 1, egress=[rule("Deny", {"domainNames": ["a.b"]}, egress=True)]),
            "/spec/egress/0/to/0/domainNames",
        ),
        (
            cnp("x", "Admin", 1, egress=[rule("Deny", {"networks": ["10.0.0.0"]}, egress=True)]),
            "/spec/egress/0/to/0/networks/0",
        ),
        (
            cnp(
                "x",
                "Admin",
                1,
                egress=[rule("Deny", {"nodes": {}}, egress=True, protocols=[{"destinationNamedPort": "x"}])],
            ),
            "/spec/egress/0/protocols/0",
        ),
    ],
)
def test_what_the_api_server_refuses_is_named(policy: Any, field: str) -> None:
    engine = one(*WORLD, policy, CLOSED, cni="kube-router")
    assert [r.field for r in engine.refusals] == [field]
    assert engine.decide(packet(engine, "ingress", "shop/web", "data/db")).verdict == "denied"


# --- the rest of the rows --------------------------------------------------------------------------------------------

CLOSED_EGRESS = network_policy("data", "closed", {"podSelector": {}, "policyTypes": ["Egress"]})


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        # a NetworkPolicy is final in the directions it isolates in; in the other one the baseline tier is asked
        ([CLOSED_EGRESS, banp(rule("Deny"))], "denied"),
        ([CLOSED_EGRESS, banp(rule("Allow"))], "allowed"),
        ([CLOSED_EGRESS, cnp("x", "Baseline", 1, rule("Deny"))], "denied"),
        # the order of rules and priorities, both ends of the range
        ([anp("x", 0, rule("Deny")), anp("y", 1000, rule("Allow"))], "denied"),
        ([anp("x", 1, rule("Deny", DATA), rule("Allow"))], "allowed"),  # the first rule that matches, not the first
        ([anp("x", 1, rule("Deny", DATA)), anp("y", 2, rule("Deny"))], "denied"),
        # both versions are one tier
        ([anp("x", 2, rule("Allow")), cnp("y", "Admin", 1, rule("Deny"))], "denied"),
        ([anp("x", 1, rule("Allow")), cnp("y", "Admin", 2, rule("Deny"))], "allowed"),
        ([anp("x", 1, rule("Allow")), cnp("y", "Admin", 1, rule("Deny"))], "unknown"),
        # equal priority where the subjects do not overlap, or only one has a rule that matches
        ([anp("x", 5, rule("Allow")), anp("y", 5, rule("Deny"), subject={"namespaces": {"matchLabels": {"team": "z"}}})], "allowed"),
        ([anp("x", 5, rule("Allow")), anp("y", 5, rule("Deny", DATA))], "allowed"),
        ([anp("x", 5, rule("Allow")), anp("y", 5, rule("Pass")), CLOSED], "unknown"),
        # Pass out of the baseline tier ends in the default, which allows
        ([cnp("x", "Baseline", 1, rule("Pass"))], "allowed"),
        # a baseline CNP and BANP: the CNPs have priorities, BANP comes last
        ([cnp("x", "Baseline", 1, rule("Accept")), banp(rule("Deny"))], "allowed"),
        # several peers of one rule are OR
        ([anp("x", 1, rule("Deny", DATA, {"namespaces": {"matchLabels": {"team": "a"}}}))], "denied"),
        # one peer that is not known closes the rule, beside a known one as well
        ([anp("x", 1, rule("Allow", ALL, {"future": {}})), CLOSED], "denied"),
        ([cnp("x", "Admin", 1, rule("Accept", {"future": {}})), CLOSED], "denied"),
        ([cnp("x", "Admin", 1, rule("Deny", {"future": {}}, protocols=[{"tcp": {"destinationPort": {"number": 1}}}]))], "denied"),
        ([cnp("x", "Baseline", 1, rule("Pass", {"future": {}}))], "denied"),
        ([anp("x", 1, rule("Allow", {"networks": ["0.0.0.0/0"]})), CLOSED], "denied"),  # no peer of ingress
        # subjects
        ([anp("x", 1, rule("Deny"), subject={"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "db"}}}})], "denied"),
        ([anp("x", 1, rule("Deny"), subject={"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "x"}}}})], "allowed"),
        ([anp("x", 1, rule("Deny"), subject={"pods": {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {}}})], "allowed"),
        ([cnp("x", "Admin", 1, rule("Deny"), subject={"pods": {"podSelector": {}}})], "denied"),  # v1alpha2: all namespaces
    ],
)  # fmt: skip
def test_more_tiers(policies: list[Any], expected: str) -> None:
    assert ingress(*policies) == expected


@pytest.mark.parametrize(
    ("ports", "port", "protocol", "expected"),
    [
        ([{"portNumber": {"protocol": "SCTP", "port": 5432}}], 5432, "SCTP", "denied"),
        ([{"portNumber": {"protocol": "SCTP", "port": 5432}}], 5432, "TCP", "allowed"),
        ([{"portRange": {"start": 5000, "end": 6000}}], 5432, "TCP", "denied"),  # TCP when missing
        ([{"portRange": {"start": 5000, "end": 6000}}], 5432, "UDP", "allowed"),
        ([{"portRange": {"start": 5000, "end": 6000}}], 6001, "TCP", "allowed"),
        ([{"namedPort": "sql"}], 5433, "TCP", "allowed"),
        ([{"namedPort": "sql"}], 5432, "UDP", "allowed"),  # the container port is TCP
        ([{"portNumber": {"port": 1}}, {"portNumber": {"port": 5432}}], 5432, "TCP", "denied"),
    ],
)
def test_more_ports_of_v1alpha1(ports: Any, port: int, protocol: str, expected: str) -> None:
    assert ingress(anp("x", 1, rule("Deny", ports=ports)), port=port, protocol=protocol) == expected


@pytest.mark.parametrize(
    ("protocols", "port", "protocol", "expected"),
    [
        ([{"sctp": {"destinationPort": {"number": 7}}}], 7, "SCTP", "denied"),
        ([{"udp": {"destinationPort": {"range": {"start": 5000, "end": 6000}}}}], 6000, "UDP", "denied"),
        ([{"udp": {"destinationPort": {"range": {"start": 5000, "end": 6000}}}}], 6000, "TCP", "allowed"),
        ([{"tcp": {}}, {"udp": {}}], 9, "SCTP", "allowed"),
        ([{"destinationNamedPort": "nosql"}], 5432, "TCP", "allowed"),
        ([{"tcp": {"destinationPort": {"number": 1}}}, {"destinationNamedPort": "sql"}], 5432, "TCP", "denied"),
    ],
)
def test_more_protocols_of_v1alpha2(protocols: Any, port: int, protocol: str, expected: str) -> None:
    assert ingress(cnp("x", "Admin", 1, rule("Deny", protocols=protocols)), port=port, protocol=protocol) == expected


def test_rules_with_protocols_leave_icmp_out_and_others_hold_it() -> None:
    """v1alpha2, Networks: "matches both regular IP traffic and ICMP traffic"."""
    for protocols, expected in ((None, "denied"), ([{"tcp": {}}], "allowed")):
        deny = rule("Deny", **({"protocols": protocols} if protocols else {}))
        engine = one(*WORLD, cnp("x", "Admin", 1, deny), cni="kube-router")
        question = Question(PodName("shop", "web"), PodName("data", "db"), icmp=Icmp(4, 8))
        assert ask(engine, question).ingress == expected


@pytest.mark.parametrize(
    ("peer", "destination", "expected"),
    [
        ({"nodes": {}}, "node:n1", "denied"),  # present but empty: all nodes
        ({"nodes": {}}, "203.0.113.9", "allowed"),
        ({"networks": ["172.16.0.1/32"]}, "node:n1", "denied"),
        ({"networks": ["10.0.0.2/32", "203.0.113.0/24"]}, "203.0.113.9", "denied"),
        ({"networks": ["fd00::/8"]}, "203.0.113.9", "allowed"),
        ({"networks": ["0.0.0.0/0"]}, "dns:example.com", "denied"),
        ({"namespaces": {}}, "203.0.113.9", "allowed"),
        ({"namespaces": {"matchLabels": {"team": "b"}}}, "data/db", "denied"),
        ({"pods": {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {}}}, "data/db", "allowed"),
    ],
)
def test_more_peers_of_egress(peer: Any, destination: str, expected: str) -> None:
    assert egress(peer, destination) == expected
    old = obj("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", None, "x", {"priority": 1, "subject": ALL, "egress": [rule("Deny", peer, egress=True)]})  # fmt: skip
    engine = one(*WORLD, old, cni="kube-router")
    assert engine.decide(packet(engine, "egress", "shop/web", destination, 443)).verdict == expected
    last = obj("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy", None, "default", {"subject": ALL, "egress": [rule("Deny", peer, egress=True)]})  # fmt: skip
    engine = one(*WORLD, last, cni="kube-router")
    assert engine.decide(packet(engine, "egress", "shop/web", destination, 443)).verdict == expected


def test_the_baseline_kind_knows_no_domain_names() -> None:
    """v1alpha1/baselineadminnetworkpolicy_types.go: no such field of its egress peers, so an Allow matches nothing."""
    rules = [rule("Allow", {"domainNames": ["a.org"]}, egress=True), rule("Deny", {"networks": ["0.0.0.0/0"]}, egress=True)]  # fmt: skip
    last = obj("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy", None, "default", {"subject": ALL, "egress": rules})  # fmt: skip
    engine = one(*WORLD, last, cni="kube-router")
    assert engine.decide(packet(engine, "egress", "shop/web", "dns:a.org", 443)).verdict == "denied"


@pytest.mark.parametrize(
    ("peer", "subject", "expected"),
    [
        ({"namespaces": {"matchLabels": {"team": "x"}}}, ALL, "unknown"),
        ({"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "ghost"}}}, ALL, "denied"),
        (ALL, {"namespaces": {"matchLabels": {"team": "x"}}}, "allowed"),  # data is known to be none of them
    ],
)
def test_a_namespace_whose_object_is_missing_leaves_its_labels_open(peer: Any, subject: Any, expected: str) -> None:
    ghost = pod("ghost", "job", {"app": "job"}, ip="10.0.0.5", node="n2")
    engine = one(*WORLD, ghost, anp("x", 1, rule("Deny", peer), subject=subject), cni="kube-router")
    assert engine.decide(packet(engine, "ingress", "ghost/job", "data/db", 5432)).verdict == expected


def test_what_one_priority_leaves_undefined_is_reported() -> None:
    engine = one(*WORLD, anp("a", 5, rule("Allow")), anp("b", 5, rule("Deny")), cni="kube-router")
    found = ask(engine, Question(PodName("shop", "web"), PodName("data", "db"), 5432))
    assert "AdminNetworkPolicy a, AdminNetworkPolicy b have one priority and differ" in found.reason
    assert {d.ref.name for d in found.deciding} == {"a", "b"}


def test_through_its_own_service_a_pod_is_subject_and_by_its_own_address_not() -> None:
    engine = one(*WORLD, cnp("x", "Admin", 1, rule("Deny"), subject=ALL), cni="kube-router")
    me = PodName("data", "db")
    assert ask(engine, Question(me, me, 5432)).verdict == "allowed"
    assert ask(engine, Question(me, ServiceName("data", "db"), 5432)).ingress == "denied"


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (anp("x", -1, rule("Deny")), "/spec/priority"),
        (anp("x", 1, rule("Deny"), subject={"namespaces": {}, "pods": {"namespaceSelector": {}, "podSelector": {}}}), "/spec/subject"),
        (anp("x", 1, rule("Deny"), subject={"pods": {"podSelector": {}}}), "/spec/subject/pods/namespaceSelector"),
        (anp("x", 1, rule("Deny"), subject={"pods": {"namespaceSelector": {}}}), "/spec/subject/pods/podSelector"),
        (cnp("x", "Admin", 1, rule("Deny"), subject={"pods": {"namespaceSelector": {}}}), "/spec/subject/pods/podSelector"),
        (anp("x", 1, rule("Log")), "/spec/ingress/0/action"),
        (cnp("x", "Admin", 1, rule("Allow")), "/spec/ingress/0/action"),
        (anp("x", 1, rule("Deny", ports=[{"portNumber": {"port": 1}, "namedPort": "x"}])), "/spec/ingress/0/ports/0"),
        (anp("x", 1, rule("Deny", ports=[{"portRange": {"start": 9, "end": 1}}])), "/spec/ingress/0/ports/0/portRange/end"),
        (cnp("x", "Admin", 1, rule("Deny", protocols=[{"tcp": {"destinationPort": {"range": {"start": 9, "end": 9}}}}])), "/spec/ingress/0/protocols/0/tcp/destinationPort/range/end"),
        (cnp("x", "Admin", 1, rule("Deny", protocols=[{"tcp": {}, "udp": {}}])), "/spec/ingress/0/protocols/0"),
        (cnp("x", "Admin", 1, egress=[rule("Accept", {"domainNames": ["localhost"]}, egress=True)]), "/spec/egress/0/to/0/domainNames/0"),
        (cnp("x", "Admin", 1, egress=[rule("Accept", {"domainNames": ["a.*.org"]}, egress=True)]), "/spec/egress/0/to/0/domainNames/0"),
        (cnp("x", "Admin", 1, egress=[rule("Pass", {"domainNames": ["a.org"]}, egress=True)]), "/spec/egress/0/to/0/domainNames"),
        (cnp("x", "Admin", 1, *[rule("Deny")] * 26), "/spec/ingress"),
    ],
)  # fmt: skip
def test_more_of_what_the_api_server_refuses(policy: Any, field: str) -> None:
    engine = one(*WORLD, policy, CLOSED, cni="kube-router")
    assert [r.field for r in engine.refusals] == [field]
    assert engine.decide(packet(engine, "ingress", "shop/web", "data/db")).verdict == "denied"


# --- plugins that are known not to enforce these kinds ------------------------------------------------------------------


def cilium(version: str, **data: str) -> list[dict[str, Any]]:
    agent = pod("kube-system", "cilium-x", {"k8s-app": "cilium"}, containers=("cilium-agent",), host_network=True)
    agent["spec"]["containers"][0]["image"] = f"quay.io/cilium/cilium:{version}"
    meta = {"namespace": "kube-system", "name": "cilium-config"}
    settings = {k.replace("_", "-"): v for k, v in data.items()}
    return [agent, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": settings}]


@pytest.mark.parametrize(
    ("more", "cni", "old", "new"),
    [
        ([], "", "denied", "denied"),
        ([], "flannel", "allowed", "allowed"),  # nothing enforces policies
        (cilium("v1.18.5"), "", "allowed", "allowed"),
        (cilium("v1.20.2", enable_k8s_cluster_network_policy="true"), "", "allowed", "denied"),  # v1alpha1 never
        (cilium("v1.20.2"), "", "allowed", "allowed"),  # off by default
        (cilium("v1.20.2")[:1], "cilium", "allowed", "denied"),  # the setting is not known
        (cilium("latest"), "", "denied", "denied"),
    ],
)
def test_plugins_that_do_not_know_the_kinds(more: list[Any], cni: str, old: str, new: str) -> None:
    """cilium/cilium 1.17.6 to 1.20.2: `pkg/policy/k8s/cluster_network_policy.go` comes with 1.20."""
    for policy, expected in ((anp("x", 1, rule("Deny")), old), (cnp("x", "Admin", 1, rule("Deny")), new)):
        engine = one(*WORLD, *more, policy, cni=cni)
        found = ask(engine, Question(PodName("shop", "web"), PodName("data", "db"), 5432))
        assert found.ingress == expected
        assert ("not counted" in found.reason) is (expected == "allowed")
