"""NetworkPolicy v1: a case for every row of the semantics.

Sources: "types" = kubernetes/kubernetes `staging/src/k8s.io/api/networking/v1/types.go`; "concepts" = kubernetes.io, Network
Policies; "e2e" = `test/e2e/network/netpol`.
"""

from __future__ import annotations

from typing import Any

import pytest
from policy_build import namespace, network_policy, node, one, packet, pod, service

from mcdoctor.policy.addresses import parse_ip
from mcdoctor.policy.engine import load
from mcdoctor.policy.path import ask
from mcdoctor.policy.question import Address, Icmp, NodeName, PodName, Question, ServiceName
from mcdoctor.policy.world import ClusterInput

WORLD = (
    namespace("shop", team="a"),
    namespace("data", team="b"),
    node("n1", "172.16.0.1"),
    node("n2", "172.16.0.2"),
    pod("shop", "web", {"app": "web"}, ip="10.0.0.1", ports={"http": 8080}, node="n2"),
    pod("shop", "batch", {"app": "batch", "tier": "back"}, ip="10.0.0.3", node="n2"),
    pod("data", "db", {"app": "db"}, ip="10.0.0.2", ports={"sql": 5432, "gossip": "7000/UDP"}, node="n1"),
    pod("data", "near", {"app": "near"}, ip="10.0.0.4", node="n2"),
    pod("shop", "agent", {"app": "web"}, ip="172.16.0.2", node="n2", host_network=True),
)
WEB = {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {"matchLabels": {"app": "web"}}}
OPEN_TO_WEB = {"podSelector": {}, "ingress": [{"from": [WEB]}]}


def verdict(
    spec: Any, question: Question, *, cni: str = "kube-router", home: str = "data"
) -> tuple[str, str, list[str]]:
    answer = ask(one(*WORLD, network_policy(home, "p", spec), cni=cni), question)
    return str(answer.egress), str(answer.ingress), [d.pointer for d in answer.deciding]


def to_db(source: str = "shop/web", port: int | None = 5432, protocol: str = "TCP") -> Question:
    return Question(PodName(*source.split("/")), PodName("data", "db"), port, protocol)


def ingress(spec: Any, question: Question | None = None, **rest: Any) -> str:
    return verdict(spec, question or to_db(), **rest)[1]


def egress(spec: Any, question: Question | None = None, **rest: Any) -> str:
    return verdict(spec, question or to_db(), home="shop", **rest)[0]


@pytest.mark.parametrize("selector", [{"podSelector": {}}, {}])
def test_subject_missing_or_empty_selector_means_all_pods_of_the_namespace(selector: Any) -> None:  # types: PodSelector
    spec = {**selector, "policyTypes": ["Ingress"]}
    assert ingress(spec) == "denied"
    assert ingress(spec, Question(PodName("data", "db"), PodName("shop", "web"), 80)) == "allowed"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"podSelector": {}}, ("allowed", "denied")),
        ({"podSelector": {}, "egress": []}, ("allowed", "denied")),
        ({"podSelector": {}, "egress": [{"ports": [{"port": 1}]}]}, ("denied", "denied")),
        ({"podSelector": {}, "policyTypes": ["Egress"]}, ("denied", "allowed")),
        ({"podSelector": {}, "policyTypes": []}, ("allowed", "denied")),
    ],
)
def test_missing_policy_types_mean_ingress_and_egress_only_with_egress_rules(
    spec: Any, expected: tuple[str, str]
) -> None:
    """types: PolicyTypes."""
    answer = ask(
        one(*WORLD, network_policy("data", "p", spec), cni="kube-router"),
        Question(PodName("data", "db"), PodName("data", "near"), 80),
    )
    assert (str(answer.egress), str(answer.ingress)) == expected


def test_isolation_is_per_direction_and_rules_of_all_policies_are_a_union() -> (
    None
):  # concepts: the two sorts of isolation
    engine = one(
        *WORLD,
        network_policy("data", "closed", {"podSelector": {}, "policyTypes": ["Ingress"]}),
        network_policy("data", "open", {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [WEB]}]}),
    )
    answer = ask(engine, to_db())
    assert answer.verdict == "allowed"
    assert [(d.ref.name, d.pointer, d.effect) for d in answer.deciding] == [("open", "/spec/ingress/0/from/0", "allow")]
    assert ask(engine, Question(PodName("data", "db"), PodName("shop", "web"), 80)).verdict == "allowed"


@pytest.mark.parametrize("rules", [{}, {"ingress": None}, {"ingress": []}])
def test_no_rules_with_the_type_present_allow_nothing(rules: Any) -> None:  # types: Ingress
    spec = {"podSelector": {}, "policyTypes": ["Ingress"], **rules}
    pointer = "/spec/ingress" if rules.get("ingress") is not None else "/spec/policyTypes/0"
    assert verdict(spec, to_db()) == ("allowed", "denied", [pointer])


@pytest.mark.parametrize("rule", [{}, {"from": []}, {"from": None}, {"ports": []}, {"from": [], "ports": []}])
@pytest.mark.parametrize(
    "question", [to_db(), Question(Address(parse_ip("198.51.100.9")), PodName("data", "db"), 1, "SCTP")]
)
def test_an_empty_rule_allows_everything_from_everywhere(rule: Any, question: Question) -> None:  # types: From, Ports
    assert verdict({"podSelector": {}, "ingress": [rule]}, question) == ("allowed", "allowed", ["/spec/ingress/0"])


@pytest.mark.parametrize(
    ("item", "port", "protocol", "expected"),
    [
        ({}, 9, "TCP", "allowed"),  # types: NetworkPolicyPort.Port, "if this field is not provided, all ports"
        ({}, 9, "UDP", "denied"),  # types: Protocol "defaults to TCP"
        ({"protocol": "UDP"}, 9, "UDP", "allowed"),
        ({"port": 80}, 80, "TCP", "allowed"),
        ({"port": 80}, 81, "TCP", "denied"),
        ({"port": 80, "endPort": 90}, 90, "TCP", "allowed"),  # types: EndPort
        ({"port": 80, "endPort": 90}, 91, "TCP", "denied"),
        ({"port": "sql"}, 5432, "TCP", "allowed"),  # types: Port, "either a numerical or named port on a pod"
        ({"port": "sql"}, 80, "TCP", "denied"),
        ({"port": "gossip"}, 7000, "TCP", "denied"),  # name and protocol both
        ({"port": "gossip", "protocol": "UDP"}, 7000, "UDP", "allowed"),
        ({"port": "gossip"}, 7000, "UDP", "denied"),
        ({"port": "nowhere"}, 5432, "TCP", "denied"),
        ({"port": 9, "protocol": "SCTP"}, 9, "SCTP", "allowed"),  # e2e: SCTP only if named
        ({"port": 9}, 9, "SCTP", "denied"),
    ],
)
def test_ports(item: Any, port: int, protocol: str, expected: str) -> None:
    assert ingress({"podSelector": {}, "ingress": [{"ports": [item]}]}, to_db(port=port, protocol=protocol)) == expected


def test_a_named_port_in_egress_is_looked_up_on_the_peer() -> None:  # concepts: named ports resolve on the destination
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": "sql"}]}]}
    assert egress(spec) == "allowed"
    assert egress(spec, Question(PodName("shop", "web"), PodName("data", "near"), 5432)) == "denied"
    assert egress(spec, Question(PodName("shop", "web"), Address(parse_ip("198.51.100.1")), 5432)) == "denied"


@pytest.mark.parametrize(
    ("peer", "source", "expected"),
    [
        (WEB, "shop/web", "allowed"),
        (WEB, "shop/batch", "denied"),  # concepts: both selectors in one item are AND
        (WEB, "data/near", "denied"),
        ({"podSelector": {}}, "data/near", "allowed"),  # types: podSelector alone, the policy's namespace
        ({"podSelector": {}}, "shop/web", "denied"),
        ({"namespaceSelector": {}}, "shop/batch", "allowed"),  # types: empty selects all namespaces
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}, "shop/web", "allowed"),
        ({"namespaceSelector": {"matchLabels": {"name": "shop"}}}, "shop/web", "denied"),
        (
            {"namespaceSelector": {"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["y"]}]}},
            "shop/web",
            "allowed",
        ),
        (
            {"namespaceSelector": {"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}},
            "shop/web",
            "allowed",
        ),
        ({"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}}, "shop/web", "allowed"),
        (
            {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["b"]}]}},
            "shop/web",
            "denied",
        ),
    ],
)
def test_peers(peer: Any, source: str, expected: str) -> None:
    assert ingress({"podSelector": {}, "ingress": [{"from": [peer]}]}, to_db(source)) == expected


def test_two_items_are_or_where_one_item_is_and() -> None:  # concepts: behaviour of to and from selectors
    peers = [{"namespaceSelector": {"matchLabels": {"team": "a"}}}, {"podSelector": {"matchLabels": {"app": "web"}}}]
    assert verdict({"podSelector": {}, "ingress": [{"from": peers}]}, to_db("shop/batch"))[1:] == (
        "allowed",
        ["/spec/ingress/0/from/0"],
    )


@pytest.mark.parametrize(
    ("cni", "source", "expected"),
    [
        ("calico", "10.0.0.1", "allowed"),
        ("kube-router", "10.0.0.1", "allowed"),
        ("kube-network-policies", "10.0.0.1", "allowed"),
        ("ovn-kubernetes", "10.0.0.1", "allowed"),
        ("", "10.0.0.1", "unknown"),
        ("", "198.51.100.1", "denied"),
        ("kube-router", "10.0.0.3", "denied"),  # the except
        ("", "10.0.0.3", "denied"),
    ],
)
def test_ip_block_with_except_and_whether_it_covers_pods(cni: str, source: str, expected: str) -> None:
    spec = {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.0.3/32"]}}]}]}
    question = Question(Address(parse_ip(source)), PodName("data", "db"), 80)
    if cni == "calico":  # its own family enforces; the kubernetes layer is what this table is about
        engine = one(*WORLD, network_policy("data", "p", spec), cni="kube-router")
        assert str(ask(engine, question).ingress) == expected
    else:
        assert ingress(spec, question, cni=cni) == expected


def test_both_sides_must_allow_and_both_refusals_are_named() -> None:
    engine = one(
        *WORLD,
        network_policy("data", "in", {"podSelector": {}, "policyTypes": ["Ingress"]}),
        network_policy("shop", "out", {"podSelector": {}, "policyTypes": ["Egress"]}),
    )
    answer = ask(engine, to_db())
    assert (answer.egress, answer.ingress, answer.verdict) == ("denied", "denied", "denied")
    assert [(d.ref.name, d.direction) for d in answer.deciding] == [("out", "egress"), ("in", "ingress")]


def test_replies_are_never_evaluated() -> None:  # concepts: "reply traffic ... implicitly allowed"
    assert verdict(
        {"podSelector": {}, "policyTypes": ["Ingress"]}, Question(PodName("data", "db"), PodName("shop", "web"), 80)
    )[:2] == ("allowed", "allowed")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("n1", "allowed"), ("n2", "denied")],  # concepts: traffic from the node a pod runs on is always allowed
)
def test_a_node_reaches_its_own_pods_only(name: str, expected: str) -> None:
    question = Question(NodeName(name), PodName("data", "db"), 5432)
    assert ingress({"podSelector": {}, "policyTypes": ["Ingress"]}, question) == expected


def test_another_nodes_address_is_matched_by_ip_block() -> None:
    spec = {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "172.16.0.0/24"}}]}]}
    assert ingress(spec, Question(NodeName("n2"), PodName("data", "db"), 5432)) == "allowed"
    assert ingress(spec, Question(PodName("shop", "agent"), PodName("data", "db"), 5432)) == "allowed"


def test_a_pod_to_its_own_address_is_undefined_but_loopback_is_not() -> None:  # kubernetes#95879
    closed = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert verdict(closed, Question(PodName("data", "db"), PodName("data", "db"), 5432))[:2] == ("unknown", "unknown")
    answer = ask(
        one(*WORLD, network_policy("data", "p", closed)),
        Question(PodName("data", "db"), Address(parse_ip("127.0.0.1")), 5432),
    )
    assert answer.verdict == "allowed"


def test_host_network_pods_are_no_subjects_and_selectors_do_not_match_them() -> None:
    assert ingress({"podSelector": {}, "policyTypes": ["Ingress"]}, Question(PodName("data", "db"), PodName("shop", "agent"), 9), home="shop") == "allowed"  # fmt: skip
    assert ingress(OPEN_TO_WEB, Question(PodName("shop", "agent"), PodName("data", "db"), 9)) == "denied"


def test_a_service_is_evaluated_on_its_endpoints_with_the_target_port() -> None:
    web = service("data", "db", {"app": "db"}, [{"port": 80, "targetPort": "sql"}], clusterIP="10.96.0.9")
    spec = {"podSelector": {}, "ingress": [{"from": [WEB], "ports": [{"port": 5432}]}]}
    engine = one(*WORLD, web, network_policy("data", "p", spec))
    by_name = Question(PodName("shop", "web"), ServiceName("data", "db"), 80)
    by_address = Question(PodName("shop", "web"), Address(parse_ip("10.96.0.9")), 80)
    assert ask(engine, by_name).verdict == ask(engine, by_address).verdict == "allowed"
    spec = {"podSelector": {}, "ingress": [{"from": [WEB], "ports": [{"port": 80}]}]}
    answer = ask(one(*WORLD, web, network_policy("data", "p", spec)), by_name)
    assert answer.verdict == "denied"
    assert "names the Service's port 80; policies see the pod's port 5432" in answer.reason


@pytest.mark.parametrize(("cni", "expected"), [("", "unknown"), ("kube-router", "unknown"), ("calico", "denied")])
def test_icmp_cannot_be_expressed(cni: str, expected: str) -> None:
    engine = one(
        *WORLD, network_policy("data", "p", {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}), cni=cni
    )
    if cni != "calico":
        question = Question(PodName("shop", "web"), PodName("data", "db"), icmp=Icmp(4, 8))
        assert ask(engine, question).verdict == expected
    unrestricted = one(
        *WORLD, network_policy("data", "p", {"podSelector": {}, "ingress": [{"from": [WEB]}]}), cni="kindnet"
    )
    assert (
        ask(unrestricted, Question(PodName("shop", "web"), PodName("data", "db"), icmp=Icmp(4, 8))).verdict == "allowed"
    )


def test_families_of_dual_stack_pods_are_evaluated_separately() -> None:
    both = pod("data", "dual", {"app": "dual"}, ip=["10.0.0.9", "fd00::9"])
    caller = pod("shop", "caller", {"app": "caller"}, ip=["10.0.0.8", "fd00::8"])
    spec = {
        "podSelector": {"matchLabels": {"app": "dual"}},
        "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
    }
    engine = one(*WORLD, both, caller, network_policy("data", "p", spec), cni="kube-router")
    answer = ask(engine, Question(PodName("shop", "caller"), PodName("data", "dual"), 80))
    assert answer.verdict == "conditional"
    assert ask(engine, Question(Address(parse_ip("fd00::8")), PodName("data", "dual"), 80)).verdict == "denied"


def test_selectors_never_match_pods_of_another_cluster() -> None:
    remote = [namespace("shop", team="a"), pod("shop", "web", {"app": "web"}, ip="10.9.0.1")]
    here = [*WORLD[:1], namespace("data", team="b"), pod("data", "db", {"app": "db"}, ip="10.0.0.2")]
    engine = load([ClusterInput("a", remote), ClusterInput("b", [*here, network_policy("data", "p", OPEN_TO_WEB)])])
    answer = ask(engine, Question(PodName("shop", "web", "a"), PodName("data", "db", "b"), 80, via="flat"))
    assert answer.verdict == "denied"
    assert "selectors never match remote pods" in answer.reason


def test_a_namespace_whose_object_is_missing_leaves_its_labels_open() -> None:
    objects = [pod("shop", "web", {"app": "web"}, ip="10.0.0.1"), pod("data", "db", {"app": "db"}, ip="10.0.0.2")]
    engine = one(*objects, network_policy("data", "p", OPEN_TO_WEB))
    assert engine.decide(packet(engine, "ingress", "shop/web", "data/db")).verdict == "unknown"
    by_name = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}
    engine = one(*objects, network_policy("data", "p", {"podSelector": {}, "ingress": [{"from": [by_name]}]}))
    assert engine.decide(packet(engine, "ingress", "shop/web", "data/db")).verdict == "allowed"


def test_a_plugin_that_enforces_nothing_lets_everything_pass() -> None:
    assert ingress({"podSelector": {}, "policyTypes": ["Ingress"]}, cni="flannel") == "allowed"


# --- the rest of the rows --------------------------------------------------------------------------------------------

TO_DB = {"namespaceSelector": {"matchLabels": {"team": "b"}}, "podSelector": {"matchLabels": {"app": "db"}}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"podSelector": {}, "policyTypes": ["Egress"]}, "denied"),  # no rules with the type present
        ({"podSelector": {}, "policyTypes": ["Egress"], "egress": []}, "denied"),
        ({"podSelector": {}, "policyTypes": ["Egress"], "egress": None}, "denied"),
        ({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}, "allowed"),
        ({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": []}]}, "allowed"),
        ({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": None, "ports": []}]}, "allowed"),
        ({"podSelector": {}, "egress": [{"to": [TO_DB]}]}, "allowed"),  # types default to both
        ({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{"ports": [{"port": 1}]}]}, "allowed"),  # not its type
        ({"podSelector": {"matchLabels": {"app": "batch"}}, "policyTypes": ["Egress"]}, "allowed"),  # not its subject
        ({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [TO_DB], "ports": [{"port": 1}]}]}, "denied"),
        ({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]}, "denied"),
        ({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [TO_DB], "ports": [{"port": 5000, "endPort": 6000}]}]}, "allowed"),
    ],
)  # fmt: skip
def test_egress(spec: Any, expected: str) -> None:  # types: Egress, To, PolicyTypes
    assert egress(spec) == expected


@pytest.mark.parametrize(
    ("expression", "source", "expected"),
    [
        ({"key": "tier", "operator": "NotIn", "values": ["back"]}, "shop/web", "allowed"),  # the key is missing
        ({"key": "tier", "operator": "NotIn", "values": ["back"]}, "shop/batch", "denied"),
        ({"key": "tier", "operator": "DoesNotExist"}, "shop/web", "allowed"),
        ({"key": "tier", "operator": "DoesNotExist"}, "shop/batch", "denied"),
        ({"key": "tier", "operator": "Exists"}, "shop/web", "denied"),
        ({"key": "tier", "operator": "In", "values": ["front", "back"]}, "shop/batch", "allowed"),
        ({"key": "tier", "operator": "In", "values": ["front", "back"]}, "shop/web", "denied"),
    ],
)
def test_match_expressions_over_pods(expression: Any, source: str, expected: str) -> None:  # types: LabelSelector
    peer = {"namespaceSelector": {}, "podSelector": {"matchExpressions": [expression]}}
    assert ingress({"podSelector": {}, "ingress": [{"from": [peer]}]}, to_db(source)) == expected


def test_labels_and_expressions_of_one_selector_are_and() -> None:  # types: LabelSelector, "the requirements are ANDed"
    both = {"matchLabels": {"app": "batch"}, "matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}
    peer = {"namespaceSelector": {}, "podSelector": both}
    assert ingress({"podSelector": {}, "ingress": [{"from": [peer]}]}, to_db("shop/batch")) == "denied"


@pytest.mark.parametrize(
    ("ports", "port", "protocol", "expected"),
    [
        ([{"port": 1}, {"port": 5432}], 5432, "TCP", "allowed"),  # items are OR
        ([{"port": 5432, "protocol": "UDP"}], 5432, "TCP", "denied"),
        ([{"protocol": "SCTP"}], 9, "SCTP", "allowed"),
        ([{"protocol": "TCP"}, {"protocol": "UDP"}], 9, "SCTP", "denied"),  # not named: refused once isolated
        ([{"port": 80, "endPort": 80}], 80, "TCP", "allowed"),
        ([{"port": 1, "endPort": 65535, "protocol": "UDP"}], 53, "TCP", "denied"),
    ],
)
def test_more_ports(ports: Any, port: int, protocol: str, expected: str) -> None:
    spec = {"podSelector": {}, "ingress": [{"from": [WEB], "ports": ports}]}
    assert ingress(spec, to_db(port=port, protocol=protocol)) == expected


def test_a_named_port_in_ingress_is_the_subjects_whichever_pod_it_is() -> None:  # types: Port
    many = pod("data", "other", {"app": "other"}, ip="10.0.0.7", ports={"sql": 6432})
    spec = {"podSelector": {}, "ingress": [{"ports": [{"port": "sql"}]}]}
    engine = one(*WORLD, many, network_policy("data", "p", spec), cni="kube-router")
    for target, port, expected in (("db", 5432, "allowed"), ("db", 6432, "denied"), ("other", 6432, "allowed")):
        assert ask(engine, Question(PodName("shop", "web"), PodName("data", target), port)).ingress == expected


def test_a_rule_with_a_port_name_beside_a_number_falls_back_on_the_number() -> None:
    spec = {"podSelector": {}, "ingress": [{"ports": [{"port": "nowhere"}, {"port": 5432}]}]}
    assert ingress(spec) == "allowed"


@pytest.mark.parametrize(
    ("cni", "expected"),
    [("calico", "allowed"), ("kube-router", "allowed"), ("cilium", "denied"), ("antrea", "unknown"), ("", "unknown")],
)
def test_whether_ip_block_covers_pods_is_up_to_the_plugin(cni: str, expected: str) -> None:
    """concepts: ipBlock; the calico and cilium families enforce their own reading of the same object."""
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}
    assert egress(spec, cni=cni) == expected


def test_the_holes_of_one_block_may_be_filled_by_another_item() -> None:  # types: from, "combined using a logical OR"
    blocks = [{"ipBlock": {"cidr": "198.51.100.0/24", "except": ["198.51.100.7/32"]}}, {"ipBlock": {"cidr": "198.51.100.7/32"}}]  # fmt: skip
    question = Question(Address(parse_ip("198.51.100.7")), PodName("data", "db"), 80)
    assert ingress({"podSelector": {}, "ingress": [{"from": blocks}]}, question) == "allowed"
    assert ingress({"podSelector": {}, "ingress": [{"from": blocks[:1]}]}, question) == "denied"


@pytest.mark.parametrize(
    ("cni", "expected"),
    [("kube-router", "denied"), ("ovn-kubernetes", "denied"), ("cilium", "denied"), ("", "unknown"), ("antrea", "unknown")],
)  # fmt: skip
def test_a_services_address_in_an_ip_block_is_undefined(cni: str, expected: str) -> None:
    """concepts: ipBlock, "connections from pods to Service IPs ... may or may not be subject to ipBlock-based policies";
    the plugins known here translate before.
    """
    db = service("data", "db", {"app": "db"}, [{"port": 5432}], clusterIP="10.96.0.9")
    rule = {"to": [{"ipBlock": {"cidr": "10.96.0.0/16"}}]}
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [rule]}
    engine = one(*WORLD, db, network_policy("shop", "p", spec), cni=cni)
    for target in (ServiceName("data", "db"), Address(parse_ip("10.96.0.9"))):
        assert ask(engine, Question(PodName("shop", "web"), target, 5432)).egress == expected


@pytest.mark.parametrize(
    ("target", "spec", "expected"),
    [
        ("shop/agent", {"to": [{"podSelector": {}}]}, "denied"),  # a peer on the host network is its node's address
        ("shop/agent", {"to": [{"ipBlock": {"cidr": "172.16.0.0/16"}}]}, "allowed"),
        ("node", {"to": [{"namespaceSelector": {}}]}, "denied"),
        ("node", {"to": [{"ipBlock": {"cidr": "172.16.0.1/32"}}]}, "allowed"),
    ],
)
def test_host_network_and_nodes_as_destinations(target: str, spec: Any, expected: str) -> None:
    """concepts: hostNetwork pods. From a pod on another node, where the plugins agree."""
    closed = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [spec]}
    far = pod("shop", "far", {"app": "far"}, ip="10.0.0.8", node="n3")
    end: Any = NodeName("n1") if target == "node" else PodName(*target.split("/"))
    engine = one(*WORLD, far, network_policy("shop", "p", closed), cni="kube-router")
    assert ask(engine, Question(PodName("shop", "far"), end, 10250)).egress == expected


@pytest.mark.parametrize(
    ("node_name", "expected"),
    [("n1", "allowed"), ("n3", "denied")],  # concepts: only the node that the pod runs on
)
def test_host_network_pods_count_as_their_node(node_name: str, expected: str) -> None:
    probe = pod("shop", "probe", {"app": "probe"}, ip="172.16.0.9", node=node_name, host_network=True)
    closed = network_policy("data", "p", {"podSelector": {}, "policyTypes": ["Ingress"]})
    engine = one(*WORLD, probe, closed, cni="kube-router")
    assert ask(engine, Question(PodName("shop", "probe"), PodName("data", "db"), 5432)).ingress == expected


def test_terminating_pods_are_subjects_and_peers_and_pending_ones_have_no_address() -> None:
    leaving = pod("shop", "leaving", {"app": "web"}, ip="10.0.0.21")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    waiting = pod("shop", "waiting", {"app": "waiting"})
    waiting["status"] = {"phase": "Pending"}
    question = Question(PodName("shop", "leaving"), PodName("data", "db"), 5432)
    engine = one(*WORLD, leaving, waiting, network_policy("data", "p", OPEN_TO_WEB), cni="kube-router")
    assert ask(engine, question).ingress == "allowed"
    block = network_policy("data", "p", {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]})  # fmt: skip
    engine = one(*WORLD, leaving, waiting, block, cni="kube-router")
    assert ask(engine, Question(PodName("shop", "waiting"), PodName("data", "db"), 5432)).ingress == "unknown"
    assert ask(engine, question).ingress == "allowed"


def test_every_address_of_a_pod_counts() -> None:  # types: PodIPs
    both = pod("shop", "dual", {"app": "dual"}, ip=["10.0.0.30", "fd00::30"])
    block = {"ipBlock": {"cidr": "fd00::/64"}}
    spec = {"podSelector": {}, "ingress": [{"from": [block]}]}
    engine = one(*WORLD, both, network_policy("data", "p", spec), cni="kube-router")
    assert ask(engine, Question(PodName("shop", "dual"), PodName("data", "db"), 80)).ingress == "denied"  # db has IPv4 only  # fmt: skip


def test_policies_of_another_namespace_and_of_another_cluster_isolate_nobody_here() -> None:
    closed = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert verdict(closed, to_db(), home="elsewhere")[:2] == ("allowed", "allowed")
