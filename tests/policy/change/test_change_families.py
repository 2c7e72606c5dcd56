"""The smallest change of every family, case by case: what is offered first, what it opens, and what is left alone."""

from __future__ import annotations

import json
from typing import Any

from change_worlds import Raw, key
from policy_build import namespace, network_policy, node, obj, one, pod, service

from mcdoctor.policy.addresses import parse_ip
from mcdoctor.policy.engine import Engine, load
from mcdoctor.policy.path import ask
from mcdoctor.policy.question import Address, Fqdn, Http, NodeName, PodName, Question, ServiceName
from mcdoctor.policy.smallest import Side, Suggestion, suggest
from mcdoctor.policy.verdict import Verdict
from mcdoctor.policy.world import ClusterInput

PODS = (
    namespace("shop"),
    namespace("data"),
    pod("shop", "web", {"app": "web"}, ip="10.0.0.1"),
    pod("shop", "batch", {"app": "batch"}, ip="10.0.0.3"),
    pod("data", "db", {"app": "db"}, ip="10.0.0.2", ports={"sql": 5432}),
    pod("data", "cache", {"app": "cache"}, ip="10.0.0.4"),
)
WEB, DB = PodName("shop", "web"), PodName("data", "db")
TO_DB = Question(WEB, DB, 5432)


def proposed(engine: Engine, question: Question = TO_DB) -> Suggestion:
    found = suggest(engine, ask(engine, question))
    assert found is not None
    return found


def applied(objects: list[Raw], suggestion: Suggestion) -> list[Raw]:
    names = {key(raw) for raw in suggestion.objects}
    return [o for o in objects if key(o) not in names] + [json.loads(json.dumps(raw)) for raw in suggestion.objects]


def only(suggestion: Suggestion) -> Side:
    assert len(suggestion.sides) == 1
    return suggestion.sides[0]


def holds(objects: list[Raw], question: Question = TO_DB, cni: str = "") -> Side:
    """The one side that refuses, once its change, applied to the objects anew, is seen to let the traffic through."""
    suggestion = proposed(one(*objects, cni=cni), question)
    assert suggestion.verdict is Verdict.ALLOWED, suggestion
    rebuilt = one(*applied(objects, suggestion), cni=cni)
    assert not [r for r in rebuilt.refusals if r.fatal]
    assert ask(rebuilt, question).verdict is Verdict.ALLOWED
    return only(suggestion)


# --- Kubernetes ----------------------------------------------------------------------------------------------------


def test_a_port_lent_to_a_rule_counts_the_addresses_that_share_it() -> None:
    peers = [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}},
        {"ipBlock": {"cidr": "192.0.2.0/24"}},
    ]
    spec = {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": peers, "ports": [{"port": 8080}]}]}
    side = holds([*PODS, network_policy("data", "db", spec)])
    lent = next(o for o in side.options if o.text.startswith("add TCP 5432 to rule 0"))
    assert (lent.opens, lent.addresses) == (1, 256)
    assert lent.examples == ("pod shop/batch to pod data/db on TCP 5432",)
    assert side.options[0].cost < lent.cost


def test_a_label_that_no_policy_mentions_keeps_other_workloads_out() -> None:
    closed = network_policy("data", "closed", {"podSelector": {}, "policyTypes": ["Ingress"]})
    world = [o for o in PODS if o["metadata"]["name"] != "web"] + [
        pod("shop", "web", {"app": "web", "role": "front"}, ip="10.0.0.1"),
        pod("shop", "admin", {"app": "web", "role": "back"}, ip="10.0.0.9"),
        closed,
    ]
    best = holds(world).options[0]
    assert best.opens == 0
    assert best.object["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"] == {"app": "web", "role": "front"}


def test_both_clusters_refuse_and_each_gets_its_change() -> None:
    far = node("r1", "172.17.0.1")
    shut = {"podSelector": {}, "policyTypes": ["Egress"]}
    here = [namespace("shop"), pod("shop", "web", {"app": "web"}, ip="10.9.0.1"), network_policy("shop", "out", shut)]
    closed = network_policy("data", "closed", {"podSelector": {}, "policyTypes": ["Ingress"]})
    there = [o for o in PODS if o["metadata"].get("namespace") == "data"] + [namespace("data"), closed]
    question = Question(PodName("shop", "web", "a"), PodName("data", "db", "b"), 5432, via="flat")
    suggestion = proposed(load([ClusterInput("a", [*here, far]), ClusterInput("b", there)]), question)
    assert [(s.cluster, str(s.direction)) for s in suggestion.sides] == [("a", "egress"), ("b", "ingress")]
    assert suggestion.verdict is Verdict.ALLOWED
    first, second = (s.options[0].object for s in suggestion.sides)
    rebuilt = load([ClusterInput("a", [*here, far, first]), ClusterInput("b", [*there, second])])
    names = [(o["metadata"]["namespace"], o["metadata"]["name"]) for o in (first, second)]
    if names[0] == ("shop", "out"):
        rebuilt = load([ClusterInput("a", [*here[:2], far, first]), ClusterInput("b", [*there, second])])
    assert ask(rebuilt, question).verdict is Verdict.ALLOWED


def test_every_endpoint_of_a_service_is_opened() -> None:
    closed = network_policy("data", "closed", {"podSelector": {}, "policyTypes": ["Ingress"]})
    world = [
        *PODS,
        closed,
        pod("data", "db-2", {"app": "db2", "tier": "sql"}, ip="10.0.0.8"),
        pod("data", "db-1", {"app": "db1", "tier": "sql"}, ip="10.0.0.7"),
        service("data", "sql", {"tier": "sql"}, [{"port": 5432}]),
    ]
    question = Question(WEB, ServiceName("data", "sql"), 5432)
    suggestion = proposed(one(*world), question)
    assert suggestion.verdict is Verdict.ALLOWED and len(suggestion.sides) == 2
    assert ask(one(*applied(world, suggestion)), question).verdict is Verdict.ALLOWED


def test_a_baseline_default_is_overridden_where_that_takes_nothing_away() -> None:
    rule = {"action": "Deny", "from": [{"namespaces": {}}]}
    every = {"subject": {"namespaces": {}}, "ingress": [rule]}
    base = obj("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy", None, "default", every)
    isolated = network_policy("data", "out", {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]})
    side = only(proposed(one(*PODS, base, isolated)))
    assert not side.options and [d.ref.name for d in side.deliberate] == ["default"]
    assert "default that a NetworkPolicy could override" in side.why
    closed = network_policy("data", "in", {"podSelector": {}, "policyTypes": ["Ingress"]})
    assert holds([*PODS, base, closed]).options[0].opens == 0


# --- Calico --------------------------------------------------------------------------------------------------------


def calico(name: str, spec: Raw, home: str | None = None) -> Raw:
    return obj("projectcalico.org/v3", "NetworkPolicy" if home else "GlobalNetworkPolicy", home, name, spec)


CLOSED_BY_CALICO = calico("closed", {"selector": "app == 'db'", "types": ["Ingress"]})


def test_a_pod_that_calico_alone_isolates_gets_a_rule_in_that_policy() -> None:
    side = holds([*PODS, CLOSED_BY_CALICO])
    best = side.options[0]
    assert (side.layer, best.opens, best.addresses, best.new) == ("calico", 0, 0, False)
    assert best.object["spec"]["ingress"] == [
        {
            "action": "Allow",
            "protocol": "TCP",
            "source": {"selector": "app == 'web'", "namespaceSelector": "projectcalico.org/name == 'shop'"},
            "destination": {"ports": [5432]},
        }
    ]
    assert [o.object["kind"] for o in side.options] == ["GlobalNetworkPolicy", "NetworkPolicy", "NetworkPolicy"]
    assert side.options[2].object["apiVersion"] == "networking.k8s.io/v1"  # it counts in tier default, and comes last


def test_calico_rules_that_have_the_port_take_the_peer() -> None:
    spec = {
        "selector": "app == 'db'",
        "ingress": [
            {
                "action": "Allow",
                "protocol": "TCP",
                "source": {"nets": ["192.0.2.0/24"]},
                "destination": {"ports": [5432]},
            }
        ],
    }
    asked = Question(Address(parse_ip("198.51.100.7")), DB, 5432)
    best = holds([*PODS, calico("db", spec, "data")], asked).options[0]
    assert best.object["spec"]["ingress"][0]["source"]["nets"] == ["192.0.2.0/24", "198.51.100.7/32"]
    assert (best.opens, best.addresses) == (0, 0)


def test_a_tier_that_ends_in_deny_passes_on_what_later_tiers_decide() -> None:
    tier = obj("projectcalico.org/v3", "Tier", None, "security", {"order": 10, "defaultAction": "Deny"})
    first = calico("security.base", {"tier": "security", "selector": "app == 'db'", "types": ["Ingress"]})
    side = holds([*PODS, tier, first])
    assert side.options[0].object["spec"]["ingress"][0]["action"] == "Pass"
    assert all(o.object["apiVersion"] == "projectcalico.org/v3" for o in side.options)  # no NetworkPolicy can help
    later = network_policy("data", "closed", {"podSelector": {}, "policyTypes": ["Ingress"]})
    side = holds([*PODS, tier, first, later])
    assert side.options[0].object["spec"]["ingress"][0]["action"] == "Allow"  # tier default would refuse it
    own = next(o for o in side.options if o.new)
    assert own.object["metadata"]["name"].startswith("security.") and own.object["spec"]["tier"] == "security"


def test_a_deny_of_calico_is_left_alone() -> None:
    spec = {"selector": "app == 'db'", "ingress": [{"action": "Deny", "source": {"selector": "app == 'web'"}}]}
    side = only(proposed(one(*PODS, calico("no-web", spec))))
    assert not side.options and "on purpose by GlobalNetworkPolicy no-web /spec/ingress/0" in side.why


def test_under_calico_a_networkpolicy_that_isolates_gets_a_networkpolicy() -> None:
    closed = network_policy("data", "closed", {"podSelector": {"matchLabels": {"app": "db"}}})
    best = holds([*PODS, closed], cni="calico").options[0]
    assert best.object["apiVersion"] == "networking.k8s.io/v1" and best.opens == 0


# --- Cilium --------------------------------------------------------------------------------------------------------


def cnp(name: str, spec: Raw, home: str = "data") -> Raw:
    return obj("cilium.io/v2", "CiliumNetworkPolicy", home, name, spec)


def ccnp(name: str, spec: Raw) -> Raw:
    return obj("cilium.io/v2", "CiliumClusterwideNetworkPolicy", None, name, spec)


OF_DB = {"matchLabels": {"app": "db"}}
FROM_WEB = {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "shop", "app": "web"}}


def test_a_cilium_policy_that_isolates_gets_the_rule() -> None:
    side = holds([*PODS, cnp("db", {"endpointSelector": OF_DB, "ingress": [{}]})])
    best = side.options[0]
    assert (side.layer, best.opens, best.new) == ("cilium", 0, False)
    rule = {"fromEndpoints": [FROM_WEB], "toPorts": [{"ports": [{"port": "5432", "protocol": "TCP"}]}]}
    assert best.object["spec"]["ingress"] == [{}, rule]
    assert [o.object["kind"] for o in side.options] == [
        "CiliumNetworkPolicy",
        "CiliumNetworkPolicy",
        "NetworkPolicy",
    ]


def test_the_right_one_of_several_specs_is_edited() -> None:
    whole = cnp("db", None)
    del whole["spec"]
    whole["specs"] = [
        {"endpointSelector": {"matchLabels": {"app": "cache"}}, "ingress": [{}]},
        {"endpointSelector": OF_DB, "ingress": [{}]},
    ]
    best = holds([*PODS, whole]).options[0]
    assert [len(spec["ingress"]) for spec in best.object["specs"]] == [1, 2]


def test_the_peer_joins_a_cilium_rule_that_has_the_port() -> None:
    ports = [{"ports": [{"port": "5432", "protocol": "TCP"}]}]
    rule = {"fromEndpoints": [{"matchLabels": {"app": "cache"}}], "toPorts": ports}
    best = holds([*PODS, cnp("db", {"endpointSelector": OF_DB, "ingress": [rule]})]).options[0]
    assert best.object["spec"]["ingress"] == [{**rule, "fromEndpoints": [*rule["fromEndpoints"], FROM_WEB]}]


def test_a_request_joins_the_requests_of_a_cilium_rule() -> None:
    http = {"http": [{"method": "GET", "path": "/public"}]}
    ports = [{"ports": [{"port": "5432", "protocol": "TCP"}], "rules": http}]
    policy = cnp("db", {"endpointSelector": OF_DB, "ingress": [{"fromEndpoints": [FROM_WEB], "toPorts": ports}]})
    side = holds([*PODS, policy], Question(WEB, DB, 5432, http=Http("POST", "/cart")))
    best = side.options[0]
    listed = best.object["spec"]["ingress"][0]["toPorts"][0]["rules"]["http"]
    assert listed[-1] == {"method": "POST", "path": "/cart"} and best.opens == 0
    wide = [o for o in side.options if "rules" not in str(o.object["spec"]["ingress"][-1]["toPorts"])]
    assert all(o.opens for o in wide)  # all other requests of the same pod


def test_a_node_is_an_entity_and_the_other_nodes_are_counted() -> None:
    nodes = [node("n1", "172.16.0.1"), node("n2", "172.16.0.2"), node("n3", "172.16.0.3")]
    policy = cnp("db", {"endpointSelector": OF_DB, "ingress": [{}]})
    best = holds([*PODS, *nodes, policy], Question(NodeName("n2"), DB, 5432), cni="cilium").options[0]
    assert best.object["spec"]["ingress"][-1]["fromEntities"] == ["remote-node"]
    assert best.opens == 1 and best.examples == ("node n3 to pod data/db on TCP 5432",)


def test_a_name_outside_comes_with_its_look_up() -> None:
    policy = cnp("out", {"endpointSelector": {"matchLabels": {"app": "web"}}, "egress": [{}]}, "shop")
    dns = pod("kube-system", "coredns", {"k8s-app": "kube-dns"}, ip="10.0.0.53", ports={"dns": "53/UDP"})
    world = [*PODS, namespace("kube-system"), dns, policy]
    best = holds(world, Question(WEB, Fqdn("api.example.com"), 443), cni="cilium").options[0]
    rules = best.object["spec"]["egress"][1:]
    assert rules[0]["toFQDNs"] == [{"matchName": "api.example.com"}]
    assert rules[1]["toPorts"][0]["rules"] == {"dns": [{"matchName": "api.example.com"}]}
    assert best.opens and any("coredns" in text for text in best.examples)


def test_a_cilium_deny_is_left_alone() -> None:
    for policy in (
        cnp("no", {"endpointSelector": OF_DB, "ingressDeny": [{"fromEndpoints": [FROM_WEB]}]}),
        ccnp("no", {"endpointSelector": OF_DB, "ingressDeny": [{"fromEntities": ["cluster"]}]}),
    ):
        side = only(proposed(one(*PODS, policy)))
        assert not side.options and [d.ref.name for d in side.deliberate] == ["no"]


def test_across_a_cluster_mesh_both_sides_name_the_other_cluster() -> None:
    def config(name: str) -> Raw:
        data = {"cluster-name": name, "policy-default-local-cluster": "true"}
        meta = {"namespace": "kube-system", "name": "cilium-config"}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}

    here = [
        namespace("shop"),
        pod("shop", "web", {"app": "web"}, ip="10.1.0.1"),
        config("west"),
        cnp("out", {"endpointSelector": {}, "egress": [{}]}, "shop"),
    ]
    there = [
        namespace("data"),
        pod("data", "db", {"app": "db"}, ip="10.2.0.1"),
        config("east"),
        cnp("in", {"endpointSelector": {}, "ingress": [{}]}),
    ]
    question = Question(PodName("shop", "web", "a"), PodName("data", "db", "b"), 5432, via="clustermesh")
    suggestion = proposed(load([ClusterInput("a", here), ClusterInput("b", there)]), question)
    assert suggestion.verdict is Verdict.ALLOWED
    assert [s.cluster for s in suggestion.sides] == ["a", "b"]
    texts = [json.dumps(side.options[0].object) for side in suggestion.sides]
    assert '"k8s:io.cilium.k8s.policy.cluster": "east"' in texts[0]
    assert '"k8s:io.cilium.k8s.policy.cluster": "west"' in texts[1]
    first, second = (side.options[0].object for side in suggestion.sides)
    world = [
        ClusterInput("a", [*(o for o in here if key(o) != key(first)), first]),
        ClusterInput("b", [*(o for o in there if key(o) != key(second)), second]),
    ]
    assert ask(load(world), question).verdict is Verdict.ALLOWED


def test_what_opens_counts_tiers_around_the_policy() -> None:
    """A NetworkPolicy rule that two clients match opens one pair only where an admin policy refuses the other."""
    world = [o for o in PODS if o["metadata"]["name"] != "batch"]
    world.append(pod("shop", "batch", {"app": "web", "role": "batch"}, ip="10.0.0.3"))
    closed = network_policy("data", "closed", {"podSelector": {"matchLabels": {"app": "db"}}})
    assert holds([*world, closed]).options[0].opens == 1
    peer = {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"role": "batch"}}}}
    spec = {"priority": 1, "subject": {"namespaces": {}}, "ingress": [{"action": "Deny", "from": [peer]}]}
    no_batch = obj("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", None, "no-batch", spec)
    assert holds([*world, closed, no_batch]).options[0].opens == 0


# --- Istio ---------------------------------------------------------------------------------------------------------


SIDECAR = {"containers": ("app", "istio-proxy")}


def meshed(**captured: Any) -> list[Raw]:
    return [
        namespace("shop"),
        namespace("data"),
        pod("shop", "web", {"app": "web"}, ip="10.0.0.1", account="web", **captured),
        pod("shop", "batch", {"app": "batch"}, ip="10.0.0.3", account="batch", **captured),
        pod("data", "db", {"app": "db"}, ip="10.0.0.2", **captured),
        pod("data", "cache", {"app": "cache"}, ip="10.0.0.4", **captured),
    ]


def authorization(name: str, spec: Raw, home: str = "data") -> Raw:
    return obj("security.istio.io/v1", "AuthorizationPolicy", home, name, spec)


WEB_PRINCIPAL = "cluster.local/ns/shop/sa/web"


def test_an_existing_allow_policy_takes_the_source() -> None:
    rule = {
        "from": [{"source": {"principals": ["cluster.local/ns/x/sa/y"]}}],
        "to": [{"operation": {"ports": ["5432"]}}],
    }
    policy = authorization("db", {"selector": {"matchLabels": {"app": "db"}}, "action": "ALLOW", "rules": [rule]})
    side = holds([*meshed(**SIDECAR), policy])
    best = side.options[0]
    assert (best.new, best.opens, best.order) == (False, 0, 0)
    assert best.object["spec"]["rules"][0]["from"][-1] == {"source": {"principals": [WEB_PRINCIPAL]}}
    kinds = [(o.new, len(o.object["spec"]["rules"])) for o in side.options]
    assert kinds == [(False, 1), (False, 2), (True, 1)]  # in the rule, a rule, a policy of its own


def test_a_policy_of_the_whole_mesh_is_not_widened_for_one_pod() -> None:
    nothing = authorization("nothing", {}, "istio-system")
    side = holds([*meshed(**SIDECAR), nothing])
    assert side.options[0].new and side.options[0].opens == 0
    assert side.options[0].object["spec"]["selector"] == {"matchLabels": {"app": "db"}}
    widened = next(o for o in side.options if not o.new)
    assert widened.opens == 2  # the same caller to batch and cache; to itself does not count


def test_the_request_is_named_where_it_was_asked_about() -> None:
    policy = authorization("nothing", {"selector": {"matchLabels": {"app": "db"}}})
    side = holds([*meshed(**SIDECAR), policy], Question(WEB, DB, 5432, http=Http("POST", "/cart?x=1")))
    operation = side.options[0].object["spec"]["rules"][0]["to"][0]["operation"]
    assert operation == {"ports": ["5432"], "methods": ["POST"], "paths": ["/cart"]}
    assert side.options[0].opens == 0


def test_strict_is_meant_and_the_exception_is_named_as_broader() -> None:
    plain = [o for o in meshed(**SIDECAR) if o["metadata"]["name"] != "web"]
    world = [*plain, pod("shop", "web", {"app": "web"}, ip="10.0.0.1")]
    strict = obj("security.istio.io/v1", "PeerAuthentication", "data", "default", {"mtls": {"mode": "STRICT"}})
    side = holds([*world, strict])
    assert [d.ref.kind for d in side.deliberate] == ["PeerAuthentication"]
    assert (
        "put pod shop/web in the mesh" in side.why and side.words is not None and "mesh에 넣으십시오" in side.words.ko
    )
    best = side.options[0]
    assert best.text.startswith("broader than asked") and best.addresses > 2**31
    assert best.object["spec"] == {
        "selector": {"matchLabels": {"app": "db"}},
        "mtls": {"mode": "STRICT"},
        "portLevelMtls": {"5432": {"mode": "PERMISSIVE"}},
    }


def test_a_client_whose_destination_rule_turns_mtls_off_is_told_so() -> None:
    strict = obj("security.istio.io/v1", "PeerAuthentication", "data", "default", {"mtls": {"mode": "STRICT"}})
    spec = {"host": "sql.data.svc.cluster.local", "trafficPolicy": {"tls": {"mode": "DISABLE"}}}
    rule = obj("networking.istio.io/v1", "DestinationRule", "shop", "sql", spec)
    world = [*meshed(**SIDECAR), strict, rule, service("data", "sql", {"app": "db"}, [{"port": 5432}])]
    side = only(proposed(one(*world), Question(WEB, ServiceName("data", "sql"), 5432)))
    assert "DestinationRule" in side.why


def test_what_the_registry_hides_is_shown_or_entered() -> None:
    hosts = {"egress": [{"hosts": ["./*"]}], "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}
    sidecar = obj("networking.istio.io/v1", "Sidecar", "shop", "default", hosts)
    world = [*meshed(**SIDECAR), sidecar, service("data", "sql", {"app": "db"}, [{"port": 5432}])]
    best = holds(world, Question(WEB, ServiceName("data", "sql"), 5432)).options[0]
    assert best.object["spec"]["egress"][0]["hosts"] == ["./*", "data/sql.data.svc.cluster.local"]
    best = holds(world, Question(WEB, Fqdn("api.example.com"), 443)).options[0]
    assert "ServiceEntry" in {raw["kind"] for raw in best.objects}


def test_network_and_mesh_refuse_the_same_pod_and_each_gets_its_change() -> None:
    closed = network_policy("data", "closed", {"podSelector": {"matchLabels": {"app": "db"}}})
    nothing = authorization("nothing", {"selector": {"matchLabels": {"app": "db"}}})
    world = [*meshed(**SIDECAR), closed, nothing]
    suggestion = proposed(one(*world))
    assert [s.layer for s in suggestion.sides] == ["kubernetes", "istio"]
    assert suggestion.verdict is Verdict.ALLOWED
    assert all(s.options[0].opens == 0 for s in suggestion.sides)
    assert ask(one(*applied(world, suggestion)), TO_DB).verdict is Verdict.ALLOWED


# --- Linkerd -------------------------------------------------------------------------------------------------------


PROXY = {"containers": ("app", "linkerd-proxy")}
SERVER = obj(
    "policy.linkerd.io/v1beta3", "Server", "data", "db", {"podSelector": {"matchLabels": {"app": "db"}}, "port": 5432}
)


def test_a_server_that_nothing_authorises_gets_a_policy_with_its_authentication() -> None:
    side = holds([*meshed(**PROXY), SERVER])
    assert [tuple(raw["kind"] for raw in o.objects) for o in side.options] == [
        ("ServerAuthorization",),
        ("AuthorizationPolicy", "MeshTLSAuthentication"),
    ]
    assert [o.opens for o in side.options] == [0, 0]
    policy, known = side.options[1].objects
    assert policy["spec"]["targetRef"]["name"] == "db"
    assert policy["spec"]["requiredAuthenticationRefs"][0]["name"] == known["metadata"]["name"]
    assert known["spec"] == {"identityRefs": [{"kind": "ServiceAccount", "namespace": "shop", "name": "web"}]}
    rebuilt = one(*meshed(**PROXY), SERVER, policy, known)
    assert ask(rebuilt, TO_DB).verdict is Verdict.ALLOWED
    assert ask(rebuilt, Question(PodName("shop", "batch"), DB, 5432)).verdict is Verdict.DENIED


def test_an_authentication_that_the_server_has_takes_the_account() -> None:
    ref = {"group": "policy.linkerd.io", "kind": "MeshTLSAuthentication", "name": "known"}
    target = {"group": "policy.linkerd.io", "kind": "Server", "name": "db"}
    policy = obj(
        "policy.linkerd.io/v1alpha1",
        "AuthorizationPolicy",
        "data",
        "db",
        {"targetRef": target, "requiredAuthenticationRefs": [ref]},
    )
    names = {"identities": ["x.y.serviceaccount.identity.linkerd.cluster.local"]}
    known = obj("policy.linkerd.io/v1alpha1", "MeshTLSAuthentication", "data", "known", names)
    best = holds([*meshed(**PROXY), SERVER, policy, known]).options[0]
    assert best.object["metadata"]["name"] == "known" and not best.new
    assert best.object["spec"]["identities"][-1] == "web.shop.serviceaccount.identity.linkerd.cluster.local"


def test_a_client_without_identity_is_admitted_by_address() -> None:
    world = [o for o in meshed(**PROXY) if o["metadata"]["name"] != "web"]
    world += [pod("shop", "web", {"app": "web"}, ip="10.0.0.1"), SERVER]
    best = holds(world).options[0]
    assert [raw["kind"] for raw in best.objects] == ["AuthorizationPolicy", "NetworkAuthentication"]
    assert best.objects[1]["spec"] == {"networks": [{"cidr": "10.0.0.1/32"}]} and best.opens == 0


def test_a_port_under_a_default_policy_gets_a_server_that_keeps_the_default() -> None:
    key_ = "config.linkerd.io/default-inbound-policy"
    plain = [o for o in meshed(**PROXY) if o["metadata"]["name"] not in ("web", "db")]
    db = pod("data", "db", {"app": "db"}, ip="10.0.0.2", annotations={key_: "all-authenticated"}, **PROXY)
    world = [*plain, pod("shop", "web", {"app": "web"}, ip="10.0.0.1"), db]
    best = holds(world).options[0]
    assert [raw["kind"] for raw in best.objects] == ["AuthorizationPolicy", "NetworkAuthentication", "Server"]
    assert best.objects[2]["spec"]["accessPolicy"] == "all-authenticated"
    batch = Question(PodName("shop", "batch"), DB, 5432)
    assert ask(one(*world, *best.objects), batch).verdict is Verdict.ALLOWED  # as before


def test_at_a_waypoint_the_policy_of_its_own_has_the_same_target() -> None:
    spaces = [namespace("shop"), namespace("data")]
    for space in spaces:
        space["metadata"]["labels"] = {"istio.io/dataplane-mode": "ambient"}
    sql = service("data", "sql", {"app": "db"}, [{"port": 5432}])
    sql["metadata"]["labels"] = {"istio.io/use-waypoint": "wp"}
    target = [{"kind": "Service", "group": "", "name": "sql"}]
    policy = authorization("sql", {"targetRefs": target, "action": "ALLOW", "rules": []})
    pods = [o for o in meshed() if o["kind"] == "Pod"]
    question = Question(WEB, ServiceName("data", "sql"), 5432, http=Http("GET", "/rows"))
    side = holds([*spaces, *pods, sql, policy], question)
    assert all(o.object["spec"]["targetRefs"] == target for o in side.options)
    operation = side.options[0].object["spec"]["rules"][-1]["to"][0]["operation"]
    assert operation == {"ports": ["5432"], "methods": ["GET"], "paths": ["/rows"]}


def test_a_host_policy_of_cilium_gets_the_rule_and_no_policy_of_pods() -> None:
    config = obj("v1", "ConfigMap", "kube-system", "cilium-config", None)
    config["data"] = {"cluster-name": "a", "enable-host-firewall": "true"}
    nodes = [node("n1", "172.16.0.1", role="edge"), node("n2", "172.16.0.2")]
    spec = {"nodeSelector": {"matchLabels": {"role": "edge"}}, "ingress": [{"fromEntities": ["cluster"]}]}
    world = [*PODS, *nodes, config, ccnp("host", spec)]
    side = holds(world, Question(Address(parse_ip("192.0.2.7")), NodeName("n1"), 443), cni="cilium")
    assert [o.object["kind"] for o in side.options] == ["CiliumClusterwideNetworkPolicy"]
    assert side.options[0].object["spec"]["ingress"][-1]["fromCIDR"] == ["192.0.2.7/32"]
    assert side.options[0].opens == 0 and side.options[0].addresses == 0
