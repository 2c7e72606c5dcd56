"""Calico: a case for every row of the semantics table and for every field of a rule.

Sources beside the cases, all in projectcalico/calico; the docs are docs.tigera.io/calico/latest.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from policy_build import namespace, network_policy, node, obj, one, packet, pod, service

from mcdoctor.policy.engine import Engine
from mcdoctor.policy.kubernetes import Kubernetes
from mcdoctor.policy.question import Http, Icmp
from mcdoctor.policy.verdict import Decision, Ref
from mcdoctor.policy.world import Object

WORLD = (
    namespace("shop", team="a"),
    namespace("data", team="b"),
    node("n1", "172.16.0.1"),
    node("n2", "172.16.0.2"),
    pod("shop", "web", {"app": "web", "env": "prod"}, ip="10.0.0.1", node="n1", account="front"),
    pod("shop", "tool", {"app": "tool"}, ip="10.0.0.3", node="n1"),
    pod("data", "db", {"app": "db"}, ip="10.0.0.2", ports={"sql": 5432, "metrics": 9090}, node="n2", account="store"),
    pod("data", "peer", {"app": "web"}, ip="10.0.0.4", node="n1"),
    pod("shop", "agent", {"app": "agent"}, ip="172.16.0.1", node="n1", host_network=True),
)


def cnp(name: str, namespace: str = "data", version: str = "projectcalico.org/v3", **spec: Any) -> dict[str, Any]:
    return obj(version, "NetworkPolicy", namespace, name, spec)


def gnp(name: str, version: str = "projectcalico.org/v3", **spec: Any) -> dict[str, Any]:
    return obj(version, "GlobalNetworkPolicy", None, name, spec)


def tier(name: str, **spec: Any) -> dict[str, Any]:
    return obj("projectcalico.org/v3", "Tier", None, name, spec)


def network_set(name: str, nets: list[str], namespace: str | None = None, **labels: str) -> dict[str, Any]:
    kind = "NetworkSet" if namespace else "GlobalNetworkSet"
    return obj("projectcalico.org/v3", kind, namespace, name, {"nets": nets}, labels=labels)


def rule(action: str = "Allow", **parts: Any) -> dict[str, Any]:
    return {"action": action, **parts}


ALLOW, DENY, PASS, LOG = rule("Allow"), rule("Deny"), rule("Pass"), rule("Log")
CLOSED = network_policy("data", "closed", {"podSelector": {}, "policyTypes": ["Ingress"]})
OPEN = network_policy("data", "open", {"podSelector": {}, "ingress": [{}]})


def engine(*objects: Any) -> Engine:
    found = one(*WORLD, *objects, cni="calico")
    assert not [r for r in found.refusals if r.fatal], found.refusals
    return found


def decide(
    objects: Any, direction: str = "ingress", ends: tuple[str, str] = ("shop/web", "data/db"), **rest: Any
) -> Decision:
    built = engine(*objects)
    port, protocol = rest.pop("port", 5432), rest.pop("protocol", "TCP")
    point = built.decide(packet(built, direction, *ends, port, protocol, **rest))
    return point.layers[0].decision


def verdict(*objects: Any, **rest: Any) -> str:
    return str(decide(objects, **rest).verdict)


def deciding(*objects: Any, **rest: Any) -> list[tuple[str, str, str, bool]]:
    return [(d.ref.name, d.pointer, d.effect, d.implicit) for d in decide(objects, **rest).by]


# `types` missing (api/…/v3/networkpolicy.go: "Ingress if there is no egress rule …"; clientv3 defaultPolicyTypesField)
@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ({}, "denied", "allowed"),
        ({"ingress": [rule(source={"nets": ["192.0.2.0/24"]})]}, "denied", "allowed"),
        ({"egress": [rule(destination={"nets": ["192.0.2.0/24"]})]}, "allowed", "denied"),  # Kubernetes: both
        ({"ingress": [DENY], "egress": [DENY]}, "denied", "denied"),
        ({"types": ["Egress"], "ingress": [DENY]}, "allowed", "denied"),
        ({"types": ["Ingress", "Egress"]}, "denied", "denied"),
    ],
)
def test_types_missing(spec: Any, ingress: str, egress: str) -> None:
    assert verdict(cnp("x", **spec)) == ingress
    assert verdict(cnp("x", **spec), direction="egress", ends=("data/db", "shop/web")) == egress


# felix/calc/policy_sorter.go ExtractPolicyMetadata: "no Types means Ingress and Egress" for what bypassed the API
def test_types_missing_in_the_stored_form() -> None:
    policy = cnp("default.x", version="crd.projectcalico.org/v1", ingress=[ALLOW])
    assert verdict(policy) == "allowed"
    assert verdict(policy, direction="egress", ends=("data/db", "shop/web")) == "unknown"


# tiers by order, missing = last, then name; built-in tiers (felix/calc/policy_sorter.go TierLess, api/…/v3/tier.go)
@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([tier("z", order=1), tier("a", order=2), gnp("p", tier="z", ingress=[ALLOW]), gnp("q", tier="a", ingress=[DENY])], "allowed"),
        ([tier("z", order=3), tier("a", order=2), gnp("p", tier="z", ingress=[ALLOW]), gnp("q", tier="a", ingress=[DENY])], "denied"),
        ([tier("z"), tier("a", order=9e9), gnp("p", tier="z", ingress=[ALLOW]), gnp("q", tier="a", ingress=[DENY])], "denied"),
        ([tier("z", order=2), tier("a", order=2), gnp("p", tier="z", ingress=[ALLOW]), gnp("q", tier="a", ingress=[DENY])], "denied"),
        ([tier("late", order=2e6), gnp("p", tier="late", ingress=[ALLOW]), gnp("q", ingress=[DENY])], "denied"),
        ([tier("early", order=2e5), gnp("p", tier="early", ingress=[ALLOW]), gnp("q", ingress=[DENY])], "allowed"),
    ],
)  # fmt: skip
def test_tiers_in_order(objects: list[Any], expected: str) -> None:
    assert verdict(*objects) == expected


def test_a_tier_that_was_not_given_leaves_the_answer_open_only_where_it_matters() -> None:
    assert verdict(gnp("p", tier="gone", ingress=[ALLOW]), gnp("q", ingress=[DENY])) == "unknown"
    assert verdict(gnp("p", tier="gone", ingress=[DENY]), gnp("q", ingress=[DENY])) == "denied"


# policies in a tier by order, missing = infinite, ties by name, namespace, kind (PolKVLess)
@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([gnp("z", order=1, ingress=[ALLOW]), cnp("a", order=2, ingress=[DENY])], "allowed"),
        ([gnp("z", order=3.5, ingress=[ALLOW]), cnp("a", order=2, ingress=[DENY])], "denied"),
        ([gnp("a", ingress=[ALLOW]), cnp("z", order=1e9, ingress=[DENY])], "denied"),
        ([gnp("a", ingress=[ALLOW]), cnp("b", ingress=[DENY])], "allowed"),
        ([gnp("c", order=7, ingress=[ALLOW]), cnp("b", order=7, ingress=[DENY])], "denied"),
        ([gnp("b", ingress=[ALLOW]), cnp("b", ingress=[DENY])], "allowed"),  # '' before "data"
    ],
)
def test_policies_in_order(objects: list[Any], expected: str) -> None:
    assert verdict(*objects) == expected


# Kubernetes NetworkPolicy: order 1000 in tier default, knp.default.NAME (libcalico-go/lib/backend/k8s/conversion)
@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([gnp("p", order=999, ingress=[ALLOW]), CLOSED], "allowed"),
        ([gnp("p", order=1001, ingress=[ALLOW]), CLOSED], "allowed"),  # its Deny comes at the end of the tier only
        ([gnp("p", order=1001, ingress=[DENY]), OPEN], "allowed"),
        ([gnp("p", order=999, ingress=[DENY]), OPEN], "denied"),
        ([gnp("p", ingress=[DENY]), OPEN], "allowed"),
        ([CLOSED], "denied"),
        ([OPEN], "allowed"),
        ([tier("sec", order=5), gnp("p", tier="sec", ingress=[PASS]), CLOSED], "denied"),
        ([tier("sec", order=5), gnp("p", tier="sec", ingress=[ALLOW]), CLOSED], "allowed"),
        ([gnp("p", order=1, ingress=[PASS]), CLOSED], "allowed"),  # Pass leaves tier default with all its policies
    ],
)
def test_kubernetes_policies_among_them(objects: list[Any], expected: str) -> None:
    assert verdict(*objects) == expected


def admin(kind: str, action: str, name: str = "adm", **spec: Any) -> dict[str, Any]:
    every = {"namespaces": {}}
    found = {"subject": every, "ingress": [{"action": action, "from": [every]}], **spec}
    return obj("policy.networking.k8s.io/v1alpha1", kind, None, name, found)


# AdminNetworkPolicy and its kin: tiers kube-admin (1,000, end Pass) and kube-baseline (10,000,000, end Pass)
@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([admin("AdminNetworkPolicy", "Deny", priority=1), gnp("p", ingress=[ALLOW])], "denied"),
        ([admin("AdminNetworkPolicy", "Allow", priority=1), gnp("p", ingress=[DENY])], "allowed"),
        ([admin("AdminNetworkPolicy", "Pass", priority=1), gnp("p", ingress=[DENY])], "denied"),
        ([tier("sec", order=1), gnp("p", tier="sec", ingress=[ALLOW]), admin("AdminNetworkPolicy", "Deny", priority=1)], "allowed"),
        ([admin("BaselineAdminNetworkPolicy", "Deny", "default")], "denied"),
        ([admin("BaselineAdminNetworkPolicy", "Deny", "default"), gnp("p", ingress=[ALLOW])], "allowed"),
        ([admin("BaselineAdminNetworkPolicy", "Deny", "default"), gnp("p", ingress=[PASS])], "denied"),
        ([tier("end", order=2e7), gnp("p", tier="end", ingress=[DENY]), admin("BaselineAdminNetworkPolicy", "Allow", "default")], "allowed"),
    ],
)  # fmt: skip
def test_admin_tiers(objects: list[Any], expected: str) -> None:
    assert verdict(*objects) == expected


def test_policies_of_calico_in_the_tier_of_the_admin_kinds_leave_their_order_open() -> None:
    own = gnp("p", tier="kube-admin", ingress=[ALLOW])
    assert verdict(own, gnp("q", ingress=[DENY])) == "allowed"
    assert verdict(own, admin("AdminNetworkPolicy", "Deny", priority=1)) == "unknown"
    assert verdict(own, admin("AdminNetworkPolicy", "Allow", priority=1)) == "allowed"


# rule walk: the first matching rule decides; Pass = next tier; Log = continue (app-policy/checker/check.go checkRules)
@pytest.mark.parametrize(
    ("objects", "expected", "by"),
    [
        ([gnp("p", ingress=[ALLOW, DENY])], "allowed", [("p", "/spec/ingress/0", "allow", False)]),
        ([gnp("p", ingress=[DENY, ALLOW])], "denied", [("p", "/spec/ingress/0", "deny", False)]),
        ([gnp("p", ingress=[LOG, rule("Allow", protocol="UDP"), ALLOW])], "allowed", [("p", "/spec/ingress/2", "allow", False)]),
        ([gnp("p", ingress=[LOG])], "denied", [("p", "/spec/ingress", "deny", True)]),
        ([gnp("p", ingress=[PASS, DENY]), gnp("q", ingress=[DENY])], "allowed", [("p", "/spec/ingress/0", "pass", False)]),
        ([tier("sec", order=1), gnp("p", tier="sec", ingress=[PASS]), gnp("q", types=["Ingress"])], "denied",
         [("p", "/spec/ingress/0", "pass", False), ("q", "/spec/types/0", "deny", True)]),
    ],
)  # fmt: skip
def test_rule_walk(objects: list[Any], expected: str, by: list[Any]) -> None:
    assert verdict(*objects) == expected
    assert deciding(*objects) == by


def test_log_is_told_in_the_trace() -> None:
    steps = decide([gnp("p", ingress=[LOG, ALLOW])]).trace
    assert [s.pointer for s in steps if "logs it" in s.text] == ["/spec/ingress/0"]


# end of tier: its default action, only if a policy of it selects the endpoint in that direction (checkTiers)
@pytest.mark.parametrize(
    ("objects", "expected", "by"),
    [
        ([gnp("p", selector="app == 'db'", types=["Ingress"])], "denied", [("p", "/spec/types/0", "deny", True)]),
        ([gnp("p", selector="app == 'web'", types=["Ingress"])], "allowed", []),
        ([gnp("p", types=["Egress"])], "allowed", []),
        ([gnp("p", types=["Egress", "Ingress"]), cnp("q", ingress=[]), CLOSED], "denied",
         [("closed", "/spec/policyTypes/0", "deny", True), ("p", "/spec/types/1", "deny", True), ("q", "/spec/ingress", "deny", True)]),
        ([tier("sec", order=1, defaultAction="Pass"), gnp("p", tier="sec", types=["Ingress"])], "allowed", []),
        ([tier("sec", order=1, defaultAction="Deny"), gnp("p", tier="sec", types=["Ingress"]), OPEN], "denied", [("p", "/spec/types/0", "deny", True)]),
        ([tier("sec", order=1), gnp("p", tier="sec", selector="app == 'x'", types=["Ingress"]), OPEN], "allowed", [("open", "/spec/ingress/0", "allow", False)]),
        ([gnp("p", )], "denied", [("p", "/spec", "deny", True)]),
    ],
)  # fmt: skip
def test_end_of_tier(objects: list[Any], expected: str, by: list[Any]) -> None:
    assert verdict(*objects) == expected
    assert deciding(*objects) == by


# profiles: kns.NAMESPACE allows (conversion NamespaceToProfile: ingress and egress Allow)
def test_profile_allows_what_no_tier_decides() -> None:
    found = decide([])
    assert (str(found.verdict), found.by) == ("allowed", ())
    assert "profile kns.data" in found.why


# staged: never enforced, told (api/…/v3/stagednetworkpolicy.go)
@pytest.mark.parametrize(
    ("kind", "namespace", "spec", "told"),
    [
        ("StagedNetworkPolicy", "data", {"ingress": [DENY]}, "it would deny it"),
        ("StagedNetworkPolicy", "data", {"types": ["Ingress"]}, "no rule of it matches"),
        ("StagedGlobalNetworkPolicy", None, {"ingress": [LOG, DENY]}, "it would deny it"),
        ("StagedGlobalNetworkPolicy", None, {"stagedAction": "Delete"}, "staged to delete: no effect"),
        ("StagedKubernetesNetworkPolicy", "data", {"podSelector": {}, "policyTypes": ["Ingress"]}, "isolate the pod"),
        ("StagedKubernetesNetworkPolicy", "data", {"podSelector": {}, "ingress": [{}]}, "it would allow it"),
    ],
)
def test_staged_policies_are_told_but_not_enforced(kind: str, namespace: str | None, spec: Any, told: str) -> None:
    found = decide([obj("projectcalico.org/v3", kind, namespace, "s", spec)])
    assert str(found.verdict) == "allowed"
    assert any(told in step.text for step in found.trace), found.trace


# selector language: `!=` and `not in` match a missing label (libcalico-go/lib/selector/parser/ast.go)
@pytest.mark.parametrize(
    ("selector", "selects"),
    [
        ("app == 'db'", True),
        ("app != 'web'", True),
        ("none != 'x'", True),
        ("none == 'x'", False),
        ("app in {'db', 'x'}", True),
        ("none not in {'x'}", True),
        ("has(app)", True),
        ("!has(none)", True),
        ("app contains 'b'", True),
        ("app starts with 'd'", True),
        ("app ends with 'd'", False),
        ("all()", True),
        ("", True),
        ("app == 'web' || app == 'db' && !has(app)", False),
        ("(app == 'web' || app == 'db') && has(app)", True),
        ("! app == 'web'", True),  # not (app == 'web')
        ("projectcalico.org/namespace == 'data'", True),
        ("projectcalico.org/orchestrator == 'k8s'", True),
        ("projectcalico.org/serviceaccount == 'store'", True),
        ("pcns.team == 'b'", True),
        ("pcns.projectcalico.org/name == 'shop'", False),
        ("pcsa.projectcalico.org/name == 'store'", True),
    ],
)
def test_selectors_of_policies(selector: str, selects: bool) -> None:
    assert verdict(gnp("p", selector=selector, ingress=[DENY])) == ("denied" if selects else "allowed")


# spec.namespaceSelector, spec.serviceAccountSelector (updateprocessors/globalnetworkpolicyprocessor.go)
@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"namespaceSelector": "team == 'b'"}, "denied"),
        ({"namespaceSelector": "team == 'a'"}, "allowed"),
        ({"namespaceSelector": "all()", "selector": "app == 'db'"}, "denied"),
        ({"namespaceSelector": "projectcalico.org/name == 'data'"}, "denied"),
        ({"namespaceSelector": "kubernetes.io/metadata.name in {'data'}"}, "denied"),
        ({"serviceAccountSelector": "role == 'storage'"}, "denied"),
        ({"serviceAccountSelector": "role == 'x'"}, "allowed"),
        ({"serviceAccountSelector": "projectcalico.org/name == 'store'"}, "denied"),
        ({"serviceAccountSelector": "all()"}, "denied"),
    ],
)
def test_subject_by_namespace_and_account(spec: Any, expected: str) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "data", "name": "store", "labels": {"role": "storage"}}}  # fmt: skip
    assert verdict(account, gnp("p", ingress=[DENY], **spec)) == expected


def test_labels_that_are_not_known_leave_it_open() -> None:
    assert verdict(gnp("p", serviceAccountSelector="role == 'x'", ingress=[DENY])) == "unknown"
    assert verdict(gnp("p", serviceAccountSelector="role == 'x'", ingress=[ALLOW])) == "unknown"  # or it isolates
    lost = pod("lost", "x", {"app": "x"}, ip="10.0.0.9")
    by_team = gnp("p", namespaceSelector="team == 'z'", ingress=[DENY])
    assert verdict(lost, by_team, ends=("shop/web", "lost/x")) == "unknown"
    assert verdict(lost, by_team) == "allowed"


# namespaced scope of rules (updateprocessors/rules.go getEndpointSelector; matchSource in app-policy/checker)
@pytest.mark.parametrize(
    ("source", "from_shop", "from_data", "from_outside"),
    [
        ({"selector": "app == 'web'"}, "denied", "allowed", "denied"),
        ({"selector": "all()"}, "denied", "allowed", "denied"),
        ({"notSelector": "app == 'db'"}, "denied", "allowed", "denied"),
        ({"serviceAccounts": {"names": ["front", "default"]}}, "denied", "allowed", "denied"),
        ({"serviceAccounts": {}}, "allowed", "allowed", "allowed"),
        ({"nets": ["10.0.0.0/24"]}, "allowed", "allowed", "denied"),  # nets match pods; no scope
        ({"notNets": ["192.0.2.0/24"]}, "allowed", "allowed", "denied"),
        ({"selector": "app == 'web'", "namespaceSelector": "team == 'a'"}, "allowed", "denied", "denied"),
        ({"selector": "app == 'web'", "namespaceSelector": "all()"}, "allowed", "allowed", "denied"),
        ({"namespaceSelector": "all()"}, "allowed", "allowed", "denied"),
        ({"namespaceSelector": "global()"}, "denied", "denied", "denied"),
        ({"serviceAccounts": {"names": ["front"]}, "namespaceSelector": "team == 'a'"}, "allowed", "denied", "denied"),
        ({}, "allowed", "allowed", "allowed"),
    ],
)
def test_entities_in_a_namespaced_policy(source: Any, from_shop: str, from_data: str, from_outside: str) -> None:
    policy = cnp("p", ingress=[rule(source=source)])
    assert verdict(policy) == from_shop
    assert verdict(policy, ends=("data/peer", "data/db")) == from_data
    assert verdict(policy, ends=("192.0.2.7", "data/db")) == from_outside


@pytest.mark.parametrize(
    ("source", "from_shop", "from_data", "from_outside"),
    [
        ({"selector": "app == 'web'"}, "allowed", "allowed", "denied"),
        ({"notSelector": "app == 'web'"}, "denied", "denied", "allowed"),  # what Calico knows nothing about, too
        ({"selector": "!has(x)"}, "allowed", "allowed", "denied"),  # endpoints only
        ({"notSelector": "has(x)"}, "allowed", "allowed", "allowed"),
        ({"namespaceSelector": "team == 'a'"}, "allowed", "denied", "denied"),
        ({"namespaceSelector": "team != 'a'"}, "denied", "allowed", "denied"),
        ({"serviceAccounts": {"names": ["front"]}}, "allowed", "denied", "denied"),
        ({"serviceAccounts": {"selector": "projectcalico.org/name == 'default'"}}, "denied", "allowed", "denied"),
        ({"serviceAccounts": {"names": ["front"], "selector": "projectcalico.org/name == 'x'"}}, "denied", "denied", "denied"),
    ],
)  # fmt: skip
def test_entities_in_a_global_policy(source: Any, from_shop: str, from_data: str, from_outside: str) -> None:
    policy = gnp("p", ingress=[rule(source=source)], selector="app == 'db'")
    assert verdict(policy) == from_shop
    assert verdict(policy, ends=("data/peer", "data/db")) == from_data
    assert verdict(policy, ends=("192.0.2.7", "data/db")) == from_outside


# one entity rule: its fields are AND'ed (policy_common.go Rule: "All the match criteria … must be satisfied")
@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"source": {"selector": "app == 'web'", "nets": ["10.0.0.1/32"]}}, "allowed"),
        ({"source": {"selector": "app == 'web'", "nets": ["10.0.0.9/32"]}}, "denied"),
        ({"source": {"nets": ["10.0.0.0/24"], "notNets": ["10.0.0.1/32"]}}, "denied"),
        ({"source": {"selector": "app == 'web'", "notSelector": "env == 'prod'"}}, "denied"),
        ({"source": {"selector": "app == 'web'"}, "destination": {"selector": "app == 'db'"}}, "allowed"),
        ({"source": {"selector": "app == 'web'"}, "destination": {"selector": "app == 'x'"}}, "denied"),
        ({"protocol": "TCP", "destination": {"nets": ["10.0.0.2/32"], "ports": [5432]}}, "allowed"),
        ({"protocol": "TCP", "destination": {"ports": ["5000:6000"], "notPorts": [5432]}}, "denied"),
    ],
)
def test_fields_of_a_rule_are_anded(parts: Any, expected: str) -> None:
    assert verdict(gnp("p", ingress=[rule(**parts)])) == expected


# protocol and ports (numorstring, policy_common.go)
@pytest.mark.parametrize(
    ("parts", "port", "protocol", "expected"),
    [
        ({"protocol": "TCP"}, 1, "TCP", "allowed"),
        ({"protocol": "TCP"}, 1, "UDP", "denied"),
        ({"protocol": 6}, 1, "TCP", "allowed"),
        ({"protocol": "132"}, 1, "SCTP", "allowed"),
        ({"notProtocol": "UDP"}, 1, "UDP", "denied"),
        ({"notProtocol": 17}, 1, "TCP", "allowed"),
        ({"protocol": "TCP", "destination": {"ports": [80, 443]}}, 443, "TCP", "allowed"),
        ({"protocol": "TCP", "destination": {"ports": ["80:100"]}}, 100, "TCP", "allowed"),
        ({"protocol": "TCP", "destination": {"ports": ["80:100"]}}, 101, "TCP", "denied"),
        ({"protocol": "TCP", "destination": {"ports": ["443"]}}, 443, "TCP", "allowed"),
        ({"protocol": "TCP", "destination": {"ports": ["sql"]}}, 5432, "TCP", "allowed"),
        ({"protocol": "TCP", "destination": {"ports": ["sql"]}}, 9090, "TCP", "denied"),
        ({"protocol": "UDP", "destination": {"ports": ["sql"]}}, 5432, "UDP", "denied"),
        ({"protocol": "TCP", "destination": {"notPorts": ["sql"]}}, 5432, "TCP", "denied"),
        ({"protocol": "TCP", "destination": {"notPorts": [80]}}, 81, "TCP", "allowed"),
        ({"protocol": "TCP", "source": {"ports": ["1:65535"]}}, 80, "TCP", "allowed"),
        ({"protocol": "TCP", "source": {"ports": ["1024:65535"]}}, 80, "TCP", "conditional"),
    ],
)
def test_protocols_and_ports(parts: Any, port: int, protocol: str, expected: str) -> None:
    assert verdict(gnp("p", ingress=[rule(**parts)]), port=port, protocol=protocol) == expected


def test_a_port_that_was_not_said() -> None:
    assert verdict(gnp("p", ingress=[rule(protocol="TCP", destination={"ports": [80]})]), port=None) == "conditional"


# ICMP, notICMP, ipVersion
@pytest.mark.parametrize(
    ("parts", "icmp", "expected"),
    [
        ({"protocol": "ICMP"}, Icmp(4, 8), "allowed"),
        ({"protocol": "ICMP"}, Icmp(6, 128), "denied"),
        ({"protocol": "ICMPv6"}, Icmp(6, 128), "allowed"),
        ({"protocol": 1, "icmp": {"type": 8}}, Icmp(4, 8), "allowed"),
        ({"protocol": "ICMP", "icmp": {"type": 8}}, Icmp(4, 0), "denied"),
        ({"protocol": "ICMP", "icmp": {"type": 8}}, Icmp(4), "conditional"),
        ({"protocol": "ICMP", "icmp": {"type": 8, "code": 0}}, Icmp(4, 8), "conditional"),
        ({"protocol": "ICMP", "notICMP": {"type": 8}}, Icmp(4, 8), "denied"),
        ({"protocol": "ICMP", "notICMP": {"type": 8}}, Icmp(4, 0), "allowed"),
        ({"ipVersion": 4}, Icmp(4, 8), "allowed"),
        ({"ipVersion": 6}, Icmp(4, 8), "denied"),
        ({"protocol": "TCP"}, Icmp(4, 8), "denied"),
    ],
)
def test_icmp(parts: Any, icmp: Icmp, expected: str) -> None:
    assert verdict(gnp("p", ingress=[rule(**parts)]), port=None, protocol="ICMP", icmp=icmp) == expected


# felix/rules/policy.go FilterRuleToIPVersion: a rule whose CIDRs are all of the other version is no rule
def test_cidrs_of_one_ip_version_keep_a_rule_from_the_other() -> None:
    dual = (pod("data", "six", {"app": "six"}, ip=["10.0.0.6", "fd00::6"]), pod("shop", "two", {}, ip=["10.0.0.7", "fd00::7"]))  # fmt: skip
    policy = gnp("p", selector="app == 'six'", ingress=[rule(source={"notNets": ["192.0.2.0/24"]})])
    ends = ("shop/two", "data/six")
    assert verdict(*dual, policy, ends=ends, version=4) == "allowed"
    assert verdict(*dual, policy, ends=ends, version=6) == "denied"
    assert verdict(*dual, policy, ends=ends) == "conditional"


# HTTP (app-policy/checker/match.go matchHTTP)
HTTP = {"methods": ["GET"], "paths": [{"exact": "/a"}, {"prefix": "/b/"}]}


@pytest.mark.parametrize(
    ("http", "expected"),
    [
        (Http("GET", "/a"), "allowed"),
        (Http("GET", "/a?x=1"), "allowed"),
        (Http("GET", "/b/c#d"), "allowed"),
        (Http("GET", "/c"), "denied"),
        (Http("POST", "/a"), "denied"),
        (Http("POST"), "denied"),
        (Http("GET"), "conditional"),
        (None, "conditional"),
    ],
)
def test_http(http: Http | None, expected: str) -> None:
    assert verdict(gnp("p", ingress=[rule(http=HTTP)]), http=http) == expected


# services (policy_common.go ServiceMatch: "only traffic … within the selected service(s), … to each endpoint's port")
SERVICE = service("data", "db", {"app": "db"}, [{"port": 80, "targetPort": "sql"}])
SLICE = {
    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
    "metadata": {"namespace": "data", "name": "ext-1", "labels": {"kubernetes.io/service-name": "ext"}},
    "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.7"]}], "ports": [{"port": 443, "protocol": "TCP"}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("services", "destination", "port", "expected"),
    [
        ({"name": "db", "namespace": "data"}, "data/db", 5432, "allowed"),
        ({"name": "db", "namespace": "data"}, "data/db", 80, "denied"),
        ({"name": "db", "namespace": "data"}, "data/peer", 5432, "denied"),
        ({"name": "ext", "namespace": "data"}, "192.0.2.7", 443, "allowed"),
        ({"name": "ext", "namespace": "data"}, "192.0.2.7", 80, "denied"),
        ({"name": "ext", "namespace": "data"}, "192.0.2.8", 443, "denied"),
        ({"name": "gone", "namespace": "data"}, "192.0.2.8", 443, "unknown"),
    ],
)
def test_services_as_destination(services: Any, destination: str, port: int, expected: str) -> None:
    policy = gnp("p", selector="app == 'tool'", egress=[rule(destination={"services": services})])
    assert verdict(SERVICE, SLICE, policy, direction="egress", ends=("shop/tool", destination), port=port) == expected


def test_services_as_source_whatever_the_port() -> None:
    policy = cnp("p", ingress=[rule(source={"services": {"name": "db"}})])  # the own namespace
    assert verdict(SERVICE, policy, ends=("data/db", "data/peer"), port=1) == "allowed"
    assert verdict(SERVICE, policy, port=1) == "denied"


# domains (Calico Enterprise, docs "DNS policy": exact, or * for one or more labels; egress rules that allow)
@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        ("dns:api.example.com", "allowed"),
        ("dns:a.b.example.org", "allowed"),
        ("dns:example.org", "denied"),
        ("dns:other.com", "denied"),
        ("192.0.2.7", "unknown"),
        ("data/db", "denied"),
    ],
)
def test_domains(destination: str, expected: str) -> None:
    rules = [rule(destination={"domains": ["api.example.com", "*.example.org"]})]
    policy = gnp("p", selector="app == 'tool'", egress=rules)
    assert verdict(policy, direction="egress", ends=("shop/tool", destination)) == expected


def test_nets_and_a_name_whose_addresses_are_not_known() -> None:
    for nets, expected in ((["0.0.0.0/0"], "allowed"), (["192.0.2.0/24"], "conditional"), (["fd00::/8"], "denied")):
        policy = gnp("p", selector="app == 'tool'", egress=[rule(destination={"nets": nets})])
        assert verdict(policy, direction="egress", ends=("shop/tool", "dns:x.example")) == expected


# NetworkSet, GlobalNetworkSet: selected by labels like endpoints, carry CIDRs, for egress domains (networkset.go)
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"selector": "kind == 'lan'"}, "allowed"),
        ({"selector": "kind == 'own'"}, "allowed"),
        ({"selector": "kind == 'wan'"}, "denied"),
        ({"selector": "kind == 'lan'", "namespaceSelector": "global()"}, "allowed"),
        ({"selector": "kind == 'own'", "namespaceSelector": "global()"}, "denied"),
        ({"selector": "kind == 'own'", "namespaceSelector": "team == 'b'"}, "allowed"),
        ({"selector": "kind == 'lan'", "namespaceSelector": "all()"}, "denied"),
        ({"notSelector": "kind == 'lan'"}, "denied"),
    ],
)
def test_network_sets_in_a_global_policy(source: Any, expected: str) -> None:
    sets = (
        network_set("lan", ["192.0.2.0/24"], kind="lan"),
        network_set("own", ["192.0.2.7"], "data", kind="own"),
        network_set("wan", ["198.51.100.0/24"], kind="wan"),
    )
    assert verdict(*sets, gnp("p", ingress=[rule(source=source)]), ends=("192.0.2.7", "data/db")) == expected


def test_network_sets_in_a_namespaced_policy_and_for_pods() -> None:
    own, lan = network_set("own", ["192.0.2.7"], "data", kind="own"), network_set("lan", ["10.0.0.1/32"], kind="lan")
    mine = cnp("p", ingress=[rule(source={"selector": "kind == 'own'"})])
    assert verdict(own, mine, ends=("192.0.2.7", "data/db")) == "allowed"
    foreign = cnp("p", "shop", ingress=[rule(source={"selector": "kind == 'own'"})])
    assert verdict(own, foreign, ends=("192.0.2.7", "shop/tool")) == "denied"
    global_ = cnp("p", ingress=[rule(source={"selector": "kind == 'lan'", "namespaceSelector": "global()"})])
    assert verdict(lan, global_) == "allowed"  # a pod's address in a set


def test_labels_of_a_stored_set_are_in_its_annotation() -> None:
    stored = obj(
        "crd.projectcalico.org/v1", "GlobalNetworkSet", None, "lan", {"nets": ["192.0.2.0/24"]},
        annotations={"projectcalico.org/metadata": json.dumps({"labels": {"kind": "lan"}})},
    )  # fmt: skip
    policy = gnp("p", ingress=[rule(source={"selector": "kind == 'lan'"})])
    assert verdict(stored, policy, ends=("192.0.2.7", "data/db")) == "allowed"


def test_domains_of_sets_count_for_egress_rules_that_allow() -> None:
    named = obj("projectcalico.org/v3", "GlobalNetworkSet", None, "s", {"allowedEgressDomains": ["*.example.com"]}, labels={"k": "v"})  # fmt: skip
    for action, expected in (("Allow", "allowed"), ("Deny", "allowed")):
        policy = gnp("p", selector="app == 'tool'", egress=[rule(action, destination={"selector": "k == 'v'"}), ALLOW])
        found = deciding(named, policy, direction="egress", ends=("shop/tool", "dns:www.example.com"))
        assert found == [("p", f"/spec/egress/{0 if action == 'Allow' else 1}", "allow", False)], expected


# HostEndpoint, applyOnForward, preDNAT, doNotTrack (docs "Host endpoints": forwarded, failsafe, pre-DNAT)
def host(interface: str = "*", **spec: Any) -> dict[str, Any]:
    body = {"node": "n2", "interfaceName": interface, "expectedIPs": ["172.16.0.2"], **spec}
    return obj("projectcalico.org/v3", "HostEndpoint", None, "n2-host", body, labels={"role": "host"})


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([gnp("p", selector="role == 'host'", ingress=[DENY])], "allowed"),  # host policies leave pods alone
        ([gnp("p", selector="role == 'host'", applyOnForward=True, ingress=[DENY])], "unknown"),
        ([gnp("p", selector="role == 'host'", applyOnForward=True, ingress=[ALLOW])], "allowed"),
        ([gnp("p", selector="role == 'host'", applyOnForward=True, egress=[DENY])], "allowed"),
        ([gnp("p", selector="role == 'host'", applyOnForward=True, preDNAT=True, ingress=[DENY])], "unknown"),
        ([gnp("p", selector="role == 'host'", applyOnForward=True, doNotTrack=True, ingress=[DENY])], "unknown"),
        ([gnp("p", selector="app == 'db'", applyOnForward=True, preDNAT=True, ingress=[DENY])], "allowed"),
        ([gnp("p", applyOnForward=True, ingress=[DENY])], "denied"),
    ],
)
def test_host_policies_and_pods(objects: list[Any], expected: str) -> None:
    assert verdict(host(), *objects) == expected


def test_pods_of_one_node_do_not_pass_its_host_endpoint() -> None:
    policy = gnp("p", selector="role == 'host'", applyOnForward=True, ingress=[DENY])
    here = pod("shop", "near", {}, ip="10.0.0.8", node="n2")
    assert verdict(host(), policy, here, ends=("shop/near", "data/db")) == "allowed"


@pytest.mark.parametrize(
    ("objects", "port", "expected"),
    [
        ([], 80, "allowed"),  # no host endpoint: Calico says nothing about the node
        ([host()], 80, "denied"),  # nothing allows
        ([host()], 22, "unknown"),  # failsafe
        ([host("eth0")], 80, "unknown"),  # does it take that interface?
        ([host(profiles=["projectcalico-default-allow"])], 80, "allowed"),
        ([host(profiles=["mine"])], 80, "unknown"),
        ([host(), gnp("p", selector="role == 'host'", ingress=[ALLOW])], 80, "allowed"),
        ([host("eth0"), gnp("p", selector="role == 'host'", ingress=[ALLOW])], 80, "allowed"),
        ([host(profiles=["projectcalico-default-allow"]), gnp("p", selector="role == 'host'", ingress=[DENY])], 80, "denied"),
        ([host(), cnp("p", ingress=[DENY]), gnp("q", ingress=[ALLOW])], 80, "allowed"),  # namespaced: never hosts
        ([host(), gnp("q", ingress=[ALLOW]), gnp("p", applyOnForward=True, doNotTrack=True, ingress=[DENY])], 80, "unknown"),
    ],
)  # fmt: skip
def test_nodes(objects: list[Any], port: int, expected: str) -> None:
    assert verdict(*objects, ends=("shop/web", "node:n2"), port=port) == expected


def test_pods_on_the_host_network_are_no_endpoints() -> None:
    assert verdict(gnp("p", ingress=[DENY]), ends=("shop/web", "shop/agent")) == "allowed"
    assert verdict(gnp("p", ingress=[rule(source={"selector": "app == 'agent'"})]), ends=("shop/agent", "data/db")) == "denied"  # fmt: skip
    assert verdict(gnp("p", ingress=[rule(source={"nets": ["172.16.0.1/32"]})]), ends=("shop/agent", "data/db")) == "allowed"  # fmt: skip


def test_addresses_of_host_endpoints_are_selected_by_their_labels() -> None:
    policy = gnp("p", selector="app == 'tool'", egress=[rule(destination={"selector": "role == 'host'"})])
    assert verdict(host(), policy, direction="egress", ends=("shop/tool", "node:n2")) == "allowed"
    assert verdict(host(), policy, direction="egress", ends=("shop/tool", "172.16.0.9")) == "denied"


# addresses: nets match pod IPs too (Felix renders them as plain CIDR matches)
def test_nets_match_pods() -> None:
    assert verdict(gnp("p", ingress=[rule("Deny", source={"nets": ["10.0.0.1/32"]}), ALLOW])) == "denied"


def test_a_pod_always_reaches_its_own_address() -> None:
    assert verdict(gnp("p", ingress=[DENY]), ends=("data/db", "data/db")) == "allowed"


# both API groups: the same object under both counts once, and Calico's own views of Kubernetes' policies do not
def test_one_object_seen_through_both_groups_counts_once() -> None:
    both = [gnp("p", ingress=[ALLOW]), gnp("default.p", version="crd.projectcalico.org/v1", ingress=[ALLOW])]
    assert deciding(*both) == [("p", "/spec/ingress/0", "allow", False)]
    only = gnp("default.p", version="crd.projectcalico.org/v1", ingress=[DENY])
    assert deciding(only) == [("default.p", "/spec/ingress/0", "deny", False)]


def test_views_of_kubernetes_policies_are_left_out() -> None:
    view = cnp("knp.default.closed", order=1000, types=["Ingress"])
    assert deciding(CLOSED, view) == [("closed", "/spec/policyTypes/0", "deny", True)]
    assert deciding(view) == [("knp.default.closed", "/spec/types/0", "deny", True)]


# both ends can be named in either direction; in a namespaced policy each is scoped
@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        ({"selector": "app == 'web'"}, {"namespaceSelector": "team == 'b'"}, "allowed"),
        ({"selector": "app == 'tool'"}, {"namespaceSelector": "team == 'b'"}, "denied"),
        ({}, {"namespaceSelector": "team == 'b'", "ports": ["sql"]}, "allowed"),
        ({}, {"namespaceSelector": "team == 'b'", "ports": ["metrics"]}, "denied"),
        ({}, {"selector": "app == 'db'"}, "denied"),
    ],
)
def test_egress_of_a_namespaced_policy(source: Any, destination: Any, expected: str) -> None:
    policy = cnp("p", "shop", egress=[rule(protocol="TCP", source=source, destination=destination)])
    assert verdict(policy, direction="egress") == expected


def test_a_changed_kubernetes_policy_is_seen_without_reading_calico_again() -> None:
    before = engine(CLOSED, gnp("p", order=2000, ingress=[DENY]))
    family = before.compiled["a"]["kubernetes"]
    assert isinstance(family, Kubernetes)
    asked = packet(before, "ingress", "shop/web", "data/db", 5432)
    assert before.decide(asked).verdict == "denied"
    opened = Object(Ref("a", "NetworkPolicy", "data", "closed"), {**OPEN, "metadata": CLOSED["metadata"]})
    after = before.replacing("a", "kubernetes", family.with_policy(opened))
    assert after.decide(asked).verdict == "allowed"
    assert before.decide(asked).verdict == "denied"


# `global()` = HostEndpoints and GlobalNetworkSets (docs "EntityRule": namespaceSelector)
@pytest.mark.parametrize(("namespaces", "expected"), [("global()", "allowed"), ("all()", "denied"), (None, "allowed")])
def test_global_selects_host_endpoints(namespaces: str | None, expected: str) -> None:
    entity = {"selector": "role == 'host'"} | ({"namespaceSelector": namespaces} if namespaces else {})
    policy = gnp("p", selector="app == 'tool'", egress=[rule(destination=entity)])
    assert verdict(host(), policy, direction="egress", ends=("shop/tool", "172.16.0.2")) == expected


# no profile = deny (app-policy/checker checkProfiles): a host endpoint has those it names, and none by default
@pytest.mark.parametrize(("profiles", "expected"), [(None, "denied"), (["projectcalico-default-allow"], "allowed")])
def test_an_endpoint_without_a_profile_is_closed(profiles: list[str] | None, expected: str) -> None:
    endpoint = host(**({"profiles": profiles} if profiles else {}))
    assert verdict(endpoint, ends=("192.0.2.7", "node:n2"), port=8080) == expected


# built-in tiers when their Tier objects are given (api/…/v3/tier.go: order and default action are fixed)
def test_the_built_in_tiers_as_objects() -> None:
    given = [tier("kube-admin", order=1000, defaultAction="Pass"), tier("default", order=1000000, defaultAction="Deny"), tier("kube-baseline", order=10000000, defaultAction="Pass")]  # fmt: skip
    assert verdict(*given, gnp("p", tier="kube-admin", types=["Ingress"]), OPEN) == "allowed"  # end action Pass
    assert verdict(*given, gnp("p", types=["Ingress"])) == "denied"
    assert verdict(*given, gnp("p", tier="kube-baseline", types=["Ingress"])) == "allowed"
