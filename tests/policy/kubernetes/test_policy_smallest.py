"""The smallest change: it lets the traffic through, takes nothing away, and opens what it says it opens."""

from __future__ import annotations

import copy
import json
import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_build import namespace, network_policy, node, obj, one, pod
from policy_worlds import small

from mcdoctor.policy.addresses import parse_ip
from mcdoctor.policy.engine import load
from mcdoctor.policy.matrix import all_pairs
from mcdoctor.policy.path import ask
from mcdoctor.policy.question import Address, PodName, Question
from mcdoctor.policy.smallest import suggest
from mcdoctor.policy.verdict import Verdict
from mcdoctor.policy.world import ClusterInput

WORLD = (
    namespace("shop"),
    namespace("data"),
    pod("shop", "web", {"app": "web", "pod-template-hash": "1"}, ip="10.0.0.1"),
    pod("shop", "batch", {"app": "batch"}, ip="10.0.0.3"),
    pod("data", "db", {"app": "db"}, ip="10.0.0.2", ports={"sql": 5432}),
    pod("data", "cache", {"app": "cache"}, ip="10.0.0.4"),
)
CLOSED = network_policy("data", "closed", {"podSelector": {}, "policyTypes": ["Ingress"]})
TO_DB = Question(PodName("shop", "web"), PodName("data", "db"), 5432)


def applied(objects, suggestion):
    """The world with the proposed objects applied, built anew."""
    changed = copy.deepcopy(list(objects))
    for raw in suggestion.objects:
        same = (raw["kind"], raw["metadata"]["namespace"], raw["metadata"]["name"])
        changed = [o for o in changed if (o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) != same]
        changed.append(json.loads(json.dumps(raw)))
    return changed


def test_a_policy_of_its_own_beats_widening_the_default_deny() -> None:
    engine = one(*WORLD, CLOSED)
    suggestion = suggest(engine, ask(engine, TO_DB))
    assert suggestion is not None and suggestion.verdict is Verdict.ALLOWED
    best = suggestion.sides[0].options[0]
    assert best.new and best.opens == 0
    assert best.object["spec"] == {
        "podSelector": {"matchLabels": {"app": "db"}},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "from": [
                    {
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}},
                        "podSelector": {"matchLabels": {"app": "web"}},
                    }
                ],
                "ports": [{"protocol": "TCP", "port": 5432}],
            }
        ],
    }
    widened = next(o for o in suggestion.sides[0].options if not o.new)
    assert widened.opens == 1  # the cache in the same namespace


def test_the_peer_joins_a_rule_that_already_has_the_port() -> None:
    spec = {
        "podSelector": {"matchLabels": {"app": "db"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "cache"}}}], "ports": [{"port": 5432}]}],
    }
    engine = one(*WORLD, network_policy("data", "db", spec))
    suggestion = suggest(engine, ask(engine, TO_DB))
    assert suggestion is not None
    best = suggestion.sides[0].options[0]
    assert (best.new, best.opens, len(best.object["spec"]["ingress"][0]["from"])) == (False, 0, 2)


def test_every_side_that_refuses_gets_its_own_change() -> None:
    out = network_policy("shop", "out", {"podSelector": {}, "policyTypes": ["Egress"]})
    engine = one(*WORLD, CLOSED, out)
    suggestion = suggest(engine, ask(engine, TO_DB))
    assert suggestion is not None and suggestion.verdict is Verdict.ALLOWED
    assert [side.direction for side in suggestion.sides] == ["egress", "ingress"]
    assert ask(one(*applied([*WORLD, CLOSED, out], suggestion)), TO_DB).verdict is Verdict.ALLOWED


def test_an_outside_address_is_named_exactly_and_other_pods_are_counted() -> None:
    engine = one(*WORLD, CLOSED)
    question = Question(Address(parse_ip("198.51.100.7")), PodName("data", "db"), 5432)
    suggestion = suggest(engine, ask(engine, question))
    assert suggestion is not None and suggestion.verdict is Verdict.ALLOWED
    best, *others = suggestion.sides[0].options
    assert best.object["spec"]["ingress"][0]["from"] == [{"ipBlock": {"cidr": "198.51.100.7/32"}}]
    assert (best.opens, best.addresses, others[0].opens) == (0, 0, 1)


def test_a_remote_pod_is_named_by_address_never_by_a_selector() -> None:
    remote_node = node("r1", "172.17.0.1")
    remote_node["spec"] = {"podCIDRs": ["10.9.0.0/24"]}
    remote = [namespace("shop"), remote_node, pod("shop", "web", {"app": "web"}, ip="10.9.0.1", node="r1")]
    here = [o for o in WORLD if o["metadata"].get("namespace") != "shop"] + [CLOSED]
    engine = load([ClusterInput("a", remote), ClusterInput("b", here)])
    question = Question(PodName("shop", "web", "a"), PodName("data", "db", "b"), 5432, via="flat")
    suggestion = suggest(engine, ask(engine, question))
    assert suggestion is not None and suggestion.verdict is Verdict.ALLOWED
    peers = [o.object["spec"]["ingress"][-1]["from"] for o in suggestion.sides[0].options]
    assert peers[0] == [{"ipBlock": {"cidr": "10.9.0.1/32"}}]
    assert all("podSelector" not in peer for listed in peers for peer in listed)


def test_allowed_traffic_needs_no_change() -> None:
    engine = one(*WORLD)
    assert suggest(engine, ask(engine, TO_DB)) is None


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9), pick=st.integers(0, 10**6))
def test_a_change_lets_the_traffic_through_and_takes_nothing_away(seed: int, pick: int) -> None:
    objects = small(random.Random(seed))
    engine = one(*objects, cni="kube-router")
    before = all_pairs(engine, "a", 80)
    denied = [(s, d) for s in before.pods for d in before.pods if s is not d and before.verdict(s, d) is Verdict.DENIED]
    if not denied:
        return
    source, destination = denied[pick % len(denied)]
    question = Question(PodName(source.namespace, source.name), PodName(destination.namespace, destination.name), 80)
    suggestion = suggest(engine, ask(engine, question))
    assert suggestion is not None and suggestion.verdict is Verdict.ALLOWED, suggestion
    rebuilt = one(*applied(objects, suggestion), cni="kube-router")
    assert not [r for r in rebuilt.refusals if r.fatal]
    assert ask(rebuilt, question).verdict is Verdict.ALLOWED
    after = all_pairs(rebuilt, "a", 80)
    names = {(p.namespace, p.name): p for p in after.pods}
    opened = 0
    for s in before.pods:
        for d in before.pods:
            if s is not d:
                was = before.verdict(s, d)
                now = after.verdict(names[s.namespace, s.name], names[d.namespace, d.name])
                assert not (was is Verdict.ALLOWED and now is not Verdict.ALLOWED)
                opened += was is not Verdict.ALLOWED and now is Verdict.ALLOWED
    assert opened - 1 <= sum(side.options[0].opens for side in suggestion.sides) + (len(suggestion.sides) > 1) * opened


def test_a_mesh_that_refuses_gets_a_policy_of_its_own_kind() -> None:
    captured = {"containers": ("app", "istio-proxy")}
    objects = [
        namespace("shop"),
        pod("shop", "web", {"app": "web"}, ip="10.0.0.1", account="web-sa", **captured),
        pod("shop", "api", {"app": "api"}, ip="10.0.0.2", **captured),
        obj("security.istio.io/v1", "AuthorizationPolicy", "shop", "nothing", {}),
    ]
    engine = one(*objects)
    suggestion = suggest(engine, ask(engine, Question(PodName("shop", "web"), PodName("shop", "api"), 8080)))
    assert suggestion is not None and suggestion.verdict is Verdict.ALLOWED
    rule = suggestion.objects[0]["spec"]["rules"][0]
    assert rule["from"] == [{"source": {"principals": ["cluster.local/ns/shop/sa/web-sa"]}}]
    assert rule["to"] == [{"operation": {"ports": ["8080"]}}]


def test_a_deliberate_deny_is_named_and_not_edited_away() -> None:
    rule = {"action": "Deny", "from": [{"namespaces": {}}]}
    deny = {"priority": 1, "subject": {"namespaces": {}}, "ingress": [rule]}
    engine = one(*WORLD, obj("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", None, "no", deny))
    suggestion = suggest(engine, ask(engine, TO_DB))
    assert suggestion is not None and suggestion.verdict is Verdict.DENIED
    assert [d.ref.name for d in suggestion.sides[0].deliberate] == ["no"]
    assert "on purpose" in suggestion.sides[0].why and not suggestion.objects
