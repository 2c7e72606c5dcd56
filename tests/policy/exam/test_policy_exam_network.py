"""An exam of the batch form over Calico and the paths between clusters: expectations from the documents.

Sources: "v3" = projectcalico/calico `api/pkg/apis/projectcalico/v3`, docs.tigera.io/calico/latest/reference/resources;
"sorter" = `felix/calc/policy_sorter.go`; "checker" = `app-policy/checker/check.go`; "conversion" =
`libcalico-go/lib/backend/k8s/conversion`; "submariner" = submariner.io/getting-started/architecture/globalnet; "istio" =
istio.io/docs/setup/install/multicluster; "linkerd" = linkerd.io/2/features/multicluster; kubernetes.io "Source IP".
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from policy_build import namespace, network_policy, node, obj, pod, service
from policy_exam_worlds import (
    MESHED,
    PROXY,
    a_side,
    admits,
    authz,
    b_side,
    block,
    calico,
    calico_world,
    cnp,
    config_map,
    east_west,
    global_cidrs,
    gnp,
    grants,
    labelled,
    lets_out,
    linkerd,
    network,
    of,
    server,
    tier,
)

from mcdoctor.policy.batch import answers
from mcdoctor.policy.engine import load
from mcdoctor.policy.world import ClusterInput

ALLOW, DENY, PASS, LOG = ({"action": name} for name in ("Allow", "Deny", "Pass", "Log"))
GNP, CNP, NP = "GlobalNetworkPolicy", "NetworkPolicy", "NetworkPolicy"


def allow(**parts: Any) -> dict[str, Any]:
    return {"action": "Allow", **parts}


def q(source: Any = "shop/web", destination: Any = "data/db", port: int | None = 5432, **rest: Any) -> dict[str, Any]:
    """Ends are pods; a mapping is taken as it is."""
    ends = {"source": source, "destination": destination}
    given = {name: {"pod": end} if isinstance(end, str) else end for name, end in ends.items()}
    return given | ({"port": port} if port else {}) | rest


def by(kind: str, name: str, pointer: str, effect: str = "deny", home: str = "", direction: str = "ingress") -> Any:
    return kind, home, name, pointer, direction, effect


def ping(kind: int, family: int = 4) -> dict[str, Any]:
    return {"port": None, "icmp": {"family": family, "type": kind}}


OUTSIDE = {"ip": "192.0.2.7"}
DB = "app == 'db'"
SETS = [
    calico("GlobalNetworkSet", None, "lan", {"nets": ["192.0.2.0/24"]}, labels={"kind": "lan"}),
    calico("NetworkSet", "data", "own", {"nets": ["192.0.2.7"]}, labels={"kind": "own"}),
]
CLOSED = network_policy("data", "closed", {"podSelector": {}, "policyTypes": ["Ingress"]})

# (name, objects, question, "verdict egress ingress", what decides; None = not looked at)
CALICO: list[tuple[str, list[Any], dict[str, Any], str, Any]] = [
    # `types` missing (v3): Ingress unless there are egress rules alone; unlike Kubernetes
    ("types-only-egress-rules", [cnp("p", egress=[ALLOW])], q(), "allowed allowed allowed", []),
    ("types-only-egress-rules-isolate-egress", [cnp("p", egress=[allow(destination={"nets": ["192.0.2.0/24"]})])], q("data/db", "shop/web", 80), "denied denied allowed", None),
    ("types-no-rules-means-ingress", [cnp("p")], q(), "denied allowed denied", [by(CNP, "p", "/spec", home="data")]),
    ("types-no-rules-leave-egress", [cnp("p")], q("data/db", "shop/web", 80), "allowed allowed allowed", []),
    ("types-win-over-rules", [cnp("p", types=["Egress"], ingress=[DENY])], q(), "allowed allowed allowed", []),
    # tiers (sorter): by order, missing last, then by name
    ("tier-without-order-is-last", [tier("first"), gnp("p", tier="first", selector=DB, ingress=[DENY]), gnp("q", selector=DB, ingress=[ALLOW])], q(), "allowed allowed allowed", [by(GNP, "q", "/spec/ingress/0", "allow")]),
    ("tier-by-order", [tier("sec", order=10), gnp("p", tier="sec", selector=DB, ingress=[DENY]), gnp("q", order=1, selector=DB, ingress=[ALLOW])], q(), "denied allowed denied", [by(GNP, "p", "/spec/ingress/0")]),
    ("tier-end-is-deny", [tier("sec", order=10), gnp("p", tier="sec", selector=DB, ingress=[allow(source={"nets": ["192.0.2.0/24"]})]), gnp("q", selector=DB, ingress=[ALLOW])], q(), "denied allowed denied", [by(GNP, "p", "/spec/ingress")]),
    ("tier-end-only-for-what-it-selects", [tier("sec", order=10), gnp("p", tier="sec", selector="app == 'x'", types=["Ingress"]), gnp("q", selector=DB, ingress=[ALLOW])], q(), "allowed allowed allowed", None),
    ("tier-end-pass", [tier("sec", order=10, defaultAction="Pass"), gnp("p", tier="sec", selector=DB, types=["Ingress"]), gnp("q", selector=DB, ingress=[ALLOW])], q(), "allowed allowed allowed", [by(GNP, "q", "/spec/ingress/0", "allow")]),
    ("a-staged-policy-does-not-end-a-tier", [tier("sec", order=10), calico("StagedGlobalNetworkPolicy", None, "sec.p", {"tier": "sec", "selector": DB, "types": ["Ingress"]})], q(), "allowed allowed allowed", []),
    # policies in a tier: by order, missing = infinite
    ("order-missing-is-last", [gnp("a", selector=DB, ingress=[DENY]), gnp("z", order=9999, selector=DB, ingress=[ALLOW])], q(), "allowed allowed allowed", [by(GNP, "z", "/spec/ingress/0", "allow")]),
    ("order-ties-by-name", [gnp("b", order=5, selector=DB, ingress=[ALLOW]), gnp("a", order=5, selector=DB, ingress=[DENY])], q(), "denied allowed denied", [by(GNP, "a", "/spec/ingress/0")]),
    ("order-fractions", [gnp("b", order=0.5, selector=DB, ingress=[ALLOW]), gnp("a", order=1, selector=DB, ingress=[DENY])], q(), "allowed allowed allowed", None),
    # Kubernetes' NetworkPolicies (conversion): order 1000 in tier default; what they do not allow falls through it
    ("kubernetes-policy-before-1001", [gnp("p", order=1001, selector=DB, ingress=[DENY]), network_policy("data", "open", {"podSelector": {}, "ingress": [{}]})], q(), "allowed allowed allowed", [by(NP, "open", "/spec/ingress/0", "allow", "data")]),
    ("kubernetes-policy-after-999", [gnp("p", order=999, selector=DB, ingress=[DENY]), network_policy("data", "open", {"podSelector": {}, "ingress": [{}]})], q(), "denied allowed denied", [by(GNP, "p", "/spec/ingress/0")]),
    ("kubernetes-isolation-falls-through", [gnp("p", order=2000, selector=DB, ingress=[ALLOW]), CLOSED], q(), "allowed allowed allowed", [by(GNP, "p", "/spec/ingress/0", "allow")]),
    # Pass, Log (checker)
    ("pass-leaves-the-tier", [gnp("p", order=1, selector=DB, ingress=[PASS]), gnp("q", order=2, selector=DB, ingress=[DENY])], q(), "allowed allowed allowed", None),
    ("pass-to-the-next-tier", [tier("sec", order=10), gnp("p", tier="sec", selector=DB, ingress=[PASS]), gnp("q", selector=DB, ingress=[DENY])], q(), "denied allowed denied", [by(GNP, "q", "/spec/ingress/0")]),
    ("log-goes-on", [gnp("p", selector=DB, ingress=[LOG, ALLOW])], q(), "allowed allowed allowed", [by(GNP, "p", "/spec/ingress/1", "allow")]),
    ("log-alone-is-no-answer", [gnp("p", selector=DB, ingress=[LOG])], q(), "denied allowed denied", [by(GNP, "p", "/spec/ingress")]),
    # selectors (libcalico-go/lib/selector)
    ("not-equal-of-a-missing-label", [gnp("p", selector=DB, ingress=[allow(source={"selector": "env != 'dev'"})])], q(), "allowed allowed allowed", None),
    ("not-in-of-a-missing-label", [gnp("p", selector=DB, ingress=[allow(source={"selector": "env not in {'dev'}"})])], q(), "allowed allowed allowed", None),
    ("equal-needs-the-label", [gnp("p", selector=DB, ingress=[allow(source={"selector": "env == 'dev'"})])], q(), "denied allowed denied", None),
    ("not-binds-to-the-comparison", [gnp("p", selector=DB, ingress=[allow(source={"selector": "! app == 'tool'"})])], q(), "allowed allowed allowed", None),
    ("and-before-or", [gnp("p", selector=DB, ingress=[allow(source={"selector": "app == 'web' || app == 'tool' && env == 'prod'"})])], q(), "allowed allowed allowed", None),
    ("and-before-or-the-other", [gnp("p", selector=DB, ingress=[allow(source={"selector": "app == 'web' || app == 'tool' && env == 'prod'"})])], q("shop/tool"), "denied allowed denied", None),
    ("starts-with", [gnp("p", selector="app starts with 'd'", ingress=[DENY])], q(), "denied allowed denied", None),
    ("contains-and-ends-with", [gnp("p", selector="app contains 'x' || app ends with 'x'", ingress=[DENY])], q(), "allowed allowed allowed", []),
    ("a-selector-that-is-none-does-not-count", [gnp("p", selector="app = 'db'", ingress=[DENY])], q(), "allowed allowed allowed", []),
    # entities: scope, notSelector, namespaceSelector, service accounts
    ("a-selector-means-the-own-namespace", [cnp("p", ingress=[allow(source={"selector": "app == 'web'"})])], q(), "denied allowed denied", [by(CNP, "p", "/spec/ingress", home="data")]),
    ("a-selector-in-the-own-namespace", [cnp("p", ingress=[allow(source={"selector": "app == 'web'"})])], q("data/job"), "allowed allowed allowed", [by(CNP, "p", "/spec/ingress/0", "allow", "data")]),
    ("namespace-selector-widens-it", [cnp("p", ingress=[allow(source={"selector": "app == 'web'", "namespaceSelector": "team == 'a'"})])], q(), "allowed allowed allowed", None),
    ("nets-are-not-scoped-and-match-pods", [cnp("p", ingress=[allow(source={"nets": ["10.0.0.1/32"]})])], q(), "allowed allowed allowed", None),
    ("not-selector-means-the-own-namespace", [cnp("p", ingress=[allow(source={"notSelector": "app == 'x'"})])], q(), "denied allowed denied", None),
    ("not-selector-of-a-global-policy-matches-strangers", [gnp("p", selector=DB, ingress=[allow(source={"notSelector": "app == 'web'"})])], q(OUTSIDE), "allowed allowed allowed", None),
    ("a-selector-never-matches-strangers", [gnp("p", selector=DB, ingress=[allow(source={"selector": "!has(app)"})])], q(OUTSIDE), "denied allowed denied", None),
    ("all-namespaces-are-no-strangers", [gnp("p", selector=DB, ingress=[allow(source={"namespaceSelector": "all()"})])], q(OUTSIDE), "denied allowed denied", None),
    ("service-accounts-by-name-in-the-own-namespace", [cnp("p", ingress=[allow(source={"serviceAccounts": {"names": ["front"]}})])], q(), "denied allowed denied", None),
    ("service-accounts-by-name-of-a-global-policy", [gnp("p", selector=DB, ingress=[allow(source={"serviceAccounts": {"names": ["front"]}})])], q(), "allowed allowed allowed", None),
    ("service-account-selector-of-the-subject", [gnp("p", serviceAccountSelector="role == 'storage'", ingress=[DENY])], q(), "denied allowed denied", None),
    ("fields-are-anded", [gnp("p", selector=DB, ingress=[allow(source={"selector": "app == 'web'", "notNets": ["10.0.0.0/24"]})])], q(), "denied allowed denied", None),
    # network sets
    ("a-global-set-in-a-global-policy", [*SETS, gnp("p", selector=DB, ingress=[allow(source={"selector": "kind == 'lan'"})])], q(OUTSIDE), "allowed allowed allowed", None),
    ("a-global-set-in-a-namespaced-policy", [*SETS, cnp("p", ingress=[allow(source={"selector": "kind == 'lan'"})])], q(OUTSIDE), "denied allowed denied", None),
    ("a-global-set-asked-for", [*SETS, cnp("p", ingress=[allow(source={"selector": "kind == 'lan'", "namespaceSelector": "global()"})])], q(OUTSIDE), "allowed allowed allowed", None),
    ("a-set-of-the-own-namespace", [*SETS, cnp("p", ingress=[allow(source={"selector": "kind == 'own'"})])], q(OUTSIDE), "allowed allowed allowed", None),
    ("global-excludes-namespaced-sets", [*SETS, cnp("p", ingress=[allow(source={"selector": "kind == 'own'", "namespaceSelector": "global()"})])], q(OUTSIDE), "denied allowed denied", None),
    # protocols, ICMP
    ("icmp-type", [gnp("p", selector=DB, ingress=[allow(protocol="ICMP", icmp={"type": 8})])], q(**ping(8)), "allowed allowed allowed", None),
    ("another-icmp-type", [gnp("p", selector=DB, ingress=[allow(protocol="ICMP", icmp={"type": 8})])], q(**ping(0)), "denied allowed denied", None),
    ("icmp-of-the-other-family", [gnp("p", selector=DB, ingress=[allow(protocol="ICMP")])], q(**ping(128, 6)), "denied allowed denied", None),
    ("not-icmp", [gnp("p", selector=DB, ingress=[allow(protocol="ICMP", notICMP={"type": 8}), DENY])], q(**ping(8)), "denied allowed denied", [by(GNP, "p", "/spec/ingress/1")]),
    ("not-protocol", [gnp("p", selector=DB, ingress=[allow(notProtocol="UDP")])], q(protocol="UDP"), "denied allowed denied", None),
    ("ports-need-a-protocol", [gnp("p", selector=DB, ingress=[{"action": "Deny", "destination": {"ports": [5432]}}])], q(), "allowed allowed allowed", []),
    ("a-named-port-of-the-destination", [gnp("p", selector=DB, ingress=[allow(protocol="TCP", destination={"ports": ["sql"]})])], q(), "allowed allowed allowed", None),
    ("a-range-and-its-exception", [gnp("p", selector=DB, ingress=[allow(protocol="TCP", destination={"ports": ["5000:6000"], "notPorts": [5432]})])], q(), "denied allowed denied", None),
    ("http-without-a-request", [gnp("p", selector=DB, ingress=[allow(http={"methods": ["GET"]})])], q(), "conditional allowed conditional", None),
    # staged kinds, profiles
    ("staged-deny", [calico("StagedNetworkPolicy", "data", "s", {"ingress": [DENY]})], q(), "allowed allowed allowed", []),
    ("staged-allow-does-not-open", [calico("StagedGlobalNetworkPolicy", None, "s", {"order": 1, "selector": DB, "ingress": [ALLOW]}), CLOSED], q(), "denied allowed denied", [by(NP, "closed", "/spec/policyTypes/0", home="data")]),
    ("staged-kubernetes", [calico("StagedKubernetesNetworkPolicy", "data", "s", {"podSelector": {}, "policyTypes": ["Ingress"]})], q(), "allowed allowed allowed", []),
    ("profile-of-the-namespace", [], q(), "allowed allowed allowed", []),
    # hosts
    ("a-host-endpoint-closes-the-node", [calico("HostEndpoint", None, "h", {"node": "n2", "interfaceName": "*"})], q("shop/web", {"node": "n2"}, 8080), "denied allowed denied", [by("HostEndpoint", "h", "/spec")]),
    ("failsafe-ports-stay-open", [calico("HostEndpoint", None, "h", {"node": "n2", "interfaceName": "*"})], q("shop/web", {"node": "n2"}, 22), "unknown allowed unknown", None),
    ("both-sides-refuse", [gnp("out", selector="app == 'web'", egress=[DENY]), gnp("in", selector=DB, ingress=[DENY])], q(), "denied denied denied", [by(GNP, "out", "/spec/egress/0", direction="egress"), by(GNP, "in", "/spec/ingress/0")]),
]  # fmt: skip


def fields(answer: dict[str, Any]) -> list[tuple[str, ...]]:
    names = ("kind", "namespace", "name", "pointer", "direction", "effect")
    return [tuple(d[name] for name in names) for d in answer["deciding"]]


@pytest.mark.parametrize(
    ("objects", "question", "expected", "decides"), [c[1:] for c in CALICO], ids=[c[0] for c in CALICO]
)
def test_calico(objects: list[Any], question: dict[str, Any], expected: str, decides: Any) -> None:
    engine = load([ClusterInput("a", calico_world(*objects), cni="calico")])
    [line] = answers(engine, [json.dumps({"id": "x", **question})])
    answer = json.loads(line)
    assert f"{answer['verdict']} {answer['egress']} {answer['ingress']}" == expected, answer["reason"]
    if decides is not None:
        assert fields(answer) == decides, answer["reason"]


def cross(**rest: Any) -> dict[str, Any]:
    ends = {"source": {"pod": "shop/web", "cluster": "a"}, "destination": {"pod": "shop/api", "cluster": "b"}}
    return ends | {"port": 8080} | rest


GATEWAY_PODS = of("istio-system", istio="eastwestgateway")
AMBIENT = {"istio.io/dataplane-mode": "ambient"}
BY_WEB = authz("p", {"rules": [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/web"]}}]}]})
BY_GATEWAY_IP = authz("p", {"rules": [{"from": [{"source": {"ipBlocks": ["10.2.9.1"]}}]}]})
BY_CLIENT_IP = authz("p", {"rules": [{"from": [{"source": {"ipBlocks": ["10.1.0.1"]}}]}]})
LINKERD_GATEWAY = [
    namespace("linkerd-multicluster"),
    pod("linkerd-multicluster", "gw", {"app": "linkerd-gateway"}, ip="10.2.8.1", node="b2", account="gw", **MESHED),
    service("linkerd-multicluster", "linkerd-gateway", {"app": "linkerd-gateway"}, [{"port": 4143}], type="LoadBalancer"),
]  # fmt: skip
LINK = obj("multicluster.linkerd.io/v1alpha1", "Link", "linkerd-multicluster", "b", {"gatewayAddress": "203.0.113.4"})


def identities(*names: str) -> dict[str, Any]:
    return linkerd("MeshTLSAuthentication", "known", {"identities": list(names)})


def account(name: str) -> str:
    return f"{name}.serviceaccount.identity.linkerd.cluster.local"


def pool(cidr: str, **spec: Any) -> dict[str, Any]:
    return obj("crd.projectcalico.org/v1", "IPPool", None, "pool-" + cidr[:4].replace(".", "-"), {"cidr": cidr, **spec})


def router(home: str, ip: str, at: str) -> dict[str, Any]:
    return pod(home, "skupper-router-1", {"skupper.io/component": "router"}, ip=ip, node=at)


def ambient(side: list[Any]) -> list[Any]:
    """The namespace shop enrolled."""
    return [labelled(o, AMBIENT) if o["kind"] == "Namespace" and o["metadata"]["name"] == "shop" else o for o in side]


KNOWN = ("MeshTLSAuthentication", "known")
SUBMARINER = obj("submariner.io/v1", "Endpoint", "submariner-operator", "b", {})
LB = service("shop", "api", {"app": "api"}, [{"port": 80, "targetPort": 8080}], type="LoadBalancer", externalIPs=["203.0.113.80"])  # fmt: skip
LOCAL = {**LB, "spec": {**LB["spec"], "externalTrafficPolicy": "Local"}}

# (name, cluster a, cluster b, question, "verdict egress ingress")
PATHS: list[tuple[str, list[Any], list[Any], dict[str, Any], str]] = [
    # flat: only addresses match on either side
    ("flat-by-cidr", a_side(lets_out(block("10.2.0.0/16"))), b_side(admits(block("10.1.0.0/16"))), cross(via="flat"), "allowed allowed allowed"),
    ("flat-selectors-are-of-this-cluster", a_side(lets_out(of("shop"))), b_side(admits(of("shop"))), cross(via="flat"), "denied denied denied"),
    ("flat-named-port-cannot-be-resolved-over-there", a_side(lets_out(block("10.2.0.0/16"), port="http")), b_side(), cross(via="flat"), "denied denied allowed"),
    ("submariner-keeps-pod-addresses", a_side(SUBMARINER), b_side(SUBMARINER, admits(block("10.1.0.0/16"))), cross(), "allowed allowed allowed"),
    ("a-node-of-the-other-cluster-is-not-exempt", a_side(node("b1", "172.16.0.9")), b_side(admits(of("shop"))), cross(source={"node": "b1", "cluster": "a"}, via="flat"), "denied allowed denied"),
    ("the-other-clusters-node-by-its-address", a_side(), b_side(admits(block("172.16.0.0/16"))), cross(source={"node": "a1", "cluster": "a"}, via="flat"), "allowed allowed allowed"),
    # Globalnet (submariner): global addresses on both sides, never the pods'
    ("globalnet-by-pod-cidr", a_side(*global_cidrs()), b_side(*global_cidrs(), admits(block("10.1.0.0/16"))), cross(), "denied allowed denied"),
    ("globalnet-by-global-cidr", a_side(*global_cidrs()), b_side(*global_cidrs(), admits(block("242.1.0.0/16"))), cross(), "allowed allowed allowed"),
    ("globalnet-egress-by-pod-cidr", a_side(*global_cidrs(), lets_out(block("10.2.0.0/16"))), b_side(*global_cidrs()), cross(), "denied denied allowed"),
    ("globalnet-egress-by-global-cidr", a_side(*global_cidrs(), lets_out(block("242.2.0.0/16"))), b_side(*global_cidrs()), cross(), "allowed allowed allowed"),
    ("globalnet-one-address-of-a-pod", a_side(*global_cidrs(), obj("submariner.io/v1", "GlobalEgressIP", "shop", "g", {"podSelector": {"matchLabels": {"app": "web"}}}) | {"status": {"allocatedIPs": ["242.1.0.7"]}}), b_side(*global_cidrs(), admits(block("242.1.0.7/32"))), cross(), "allowed allowed allowed"),
    ("globalnet-one-address-of-another-pod", a_side(*global_cidrs(), obj("submariner.io/v1", "GlobalEgressIP", "shop", "g", {"podSelector": {"matchLabels": {"app": "x"}}}) | {"status": {"allocatedIPs": ["242.1.0.7"]}}), b_side(*global_cidrs(), admits(block("242.1.0.7/32"))), cross(), "denied allowed denied"),
    ("globalnet-a-part-of-the-global-cidr", a_side(*global_cidrs()), b_side(*global_cidrs(), admits(block("242.1.128.0/24"))), cross(), "unknown allowed unknown"),
    ("globalnet-but-for-a-part", a_side(*global_cidrs()), b_side(*global_cidrs(), admits({"ipBlock": {"cidr": "242.1.0.0/16", "except": ["242.1.128.0/24"]}})), cross(), "unknown allowed unknown"),
    # nobody knows what carries it
    ("unknown-without-policies", a_side(), b_side(), cross(), "allowed allowed allowed"),
    ("unknown-closed-to-all", a_side(), b_side(network_policy("shop", "in", {"podSelector": {}})), cross(), "denied allowed denied"),
    ("unknown-by-pod-cidr", a_side(), b_side(admits(block("10.1.0.0/16"))), cross(), "unknown allowed unknown"),
    ("unknown-by-pod-and-node-cidrs", a_side(), b_side(admits(block("10.1.0.0/16"), block("172.16.0.0/15"))), cross(), "allowed allowed allowed"),
    # translation to a node's address
    ("masqueraded-by-calico", a_side(pool("10.1.0.0/16", natOutgoing=True)), b_side(admits(block("10.1.0.0/16"))), cross(via="flat"), "denied allowed denied"),
    ("masqueraded-by-calico-to-its-node", a_side(pool("10.1.0.0/16", natOutgoing=True)), b_side(admits(block("172.16.0.1/32"))), cross(via="flat"), "allowed allowed allowed"),
    ("a-pool-for-the-other-side-keeps-the-address", a_side(pool("10.1.0.0/16", natOutgoing=True), pool("10.2.0.0/16", disabled=True)), b_side(admits(block("10.1.0.0/16"))), cross(via="flat"), "allowed allowed allowed"),
    ("a-pool-without-translation", a_side(pool("10.1.0.0/16", natOutgoing=False)), b_side(admits(block("10.1.0.0/16"))), cross(via="flat"), "allowed allowed allowed"),
    ("through-a-node", a_side(), b_side(admits(block("10.1.0.0/16"))), cross(via={"node": "a1", "cluster": "a"}), "denied allowed denied"),
    ("through-an-address", a_side(), b_side(admits(block("198.51.100.0/24"))), cross(via="198.51.100.7"), "allowed allowed allowed"),
    # load balancers (Source IP)
    ("load-balancer-shows-a-node", a_side(), b_side(LB, admits(block("10.1.0.0/16"))), cross(destination={"service": "shop/api", "cluster": "b"}, port=80, via="load-balancer"), "denied allowed denied"),
    ("load-balancer-local-shows-the-client", a_side(), b_side(LOCAL, admits(block("10.1.0.0/16"))), cross(destination={"service": "shop/api", "cluster": "b"}, port=80, via="load-balancer"), "allowed allowed allowed"),
    ("load-balancer-egress-is-to-its-address", a_side(lets_out(block("203.0.113.80/32"), port=80)), b_side(LB), cross(destination={"service": "shop/api", "cluster": "b"}, port=80, via="load-balancer"), "allowed allowed allowed"),
    # Istio, several networks
    ("east-west-egress-by-pod-cidr", [*a_side(lets_out(block("10.2.0.0/16")), **PROXY), network("net-a")], [*b_side(**PROXY), *east_west()], cross(), "denied denied allowed"),
    ("east-west-egress-by-gateway", [*a_side(lets_out(block("203.0.113.9/32"), port=15443), **PROXY), network("net-a")], [*b_side(**PROXY), *east_west()], cross(), "allowed allowed allowed"),
    ("east-west-egress-by-gateway-and-pod-port", [*a_side(lets_out(block("203.0.113.9/32"), port=8080), **PROXY), network("net-a")], [*b_side(**PROXY), *east_west()], cross(), "denied denied allowed"),
    ("east-west-ingress-by-pod-cidr", [*a_side(**PROXY), network("net-a")], [*b_side(admits(block("10.1.0.0/16")), **PROXY), *east_west()], cross(), "denied allowed denied"),
    ("east-west-ingress-by-gateway-on-the-target-port", [*a_side(**PROXY), network("net-a")], [*b_side(admits(GATEWAY_PODS), **PROXY), *east_west()], cross(), "allowed allowed allowed"),
    ("east-west-ingress-by-gateway-on-15443", [*a_side(**PROXY), network("net-a")], [*b_side(admits(GATEWAY_PODS, port=15443), **PROXY), *east_west()], cross(), "denied allowed denied"),
    ("east-west-keeps-the-identity", [*a_side(**PROXY), network("net-a")], [*b_side(BY_WEB, **PROXY), *east_west()], cross(http={"method": "GET"}), "allowed allowed allowed"),
    ("east-west-shows-the-gateways-address", [*a_side(**PROXY), network("net-a")], [*b_side(BY_GATEWAY_IP, **PROXY), *east_west()], cross(http={"method": "GET"}), "allowed allowed allowed"),
    ("east-west-hides-the-clients-address", [*a_side(**PROXY), network("net-a")], [*b_side(BY_CLIENT_IP, **PROXY), *east_west()], cross(http={"method": "GET"}), "denied allowed denied"),
    ("east-west-gateways-own-policy", [*a_side(**PROXY), network("net-a")], [*b_side(**PROXY), *east_west(), network_policy("istio-system", "closed", {"podSelector": {}, "policyTypes": ["Egress"]})], cross(), "denied denied allowed"),
    ("one-network-is-flat", [*a_side(**PROXY), network("net-b")], [*b_side(admits(block("10.1.0.0/16")), **PROXY), *east_west()], cross(), "allowed allowed allowed"),
    ("ambient-egress-by-gateway", [*ambient(a_side(lets_out(block("203.0.113.9/32"), port=15008))), network("net-a")], [*ambient(b_side()), *east_west(15008)], cross(), "allowed allowed allowed"),
    ("ambient-ingress-on-the-target-port", [*ambient(a_side()), network("net-a")], [*ambient(b_side(admits(GATEWAY_PODS))), *east_west(15008)], cross(), "denied allowed denied"),
    ("ambient-ingress-on-15008", [*ambient(a_side()), network("net-a")], [*ambient(b_side(admits(GATEWAY_PODS, port=15008))), *east_west(15008)], cross(), "allowed allowed allowed"),
    # Linkerd
    ("linkerd-gateway-egress", a_side(LINK, lets_out(block("203.0.113.4/32"), port=4143), **MESHED), b_side(*LINKERD_GATEWAY, **MESHED), cross(), "allowed allowed allowed"),
    ("linkerd-gateway-loses-the-client", a_side(LINK, **MESHED), b_side(*LINKERD_GATEWAY, server(), grants("Server", "api", KNOWN), identities(account("web.shop")), **MESHED), cross(), "denied allowed denied"),
    ("linkerd-gateway-is-the-identity", a_side(LINK, **MESHED), b_side(*LINKERD_GATEWAY, server(), grants("Server", "api", KNOWN), identities(account("gw.linkerd-multicluster")), **MESHED), cross(), "allowed allowed allowed"),
    ("linkerd-flat-keeps-the-client", a_side(**MESHED), b_side(server(), grants("Server", "api", KNOWN), identities(account("web.shop")), **MESHED), cross(via="flat"), "allowed allowed allowed"),
    ("linkerd-remote-pods-outside-the-cluster-networks", a_side(**MESHED), b_side(config_map("linkerd", "linkerd-config", values="clusterNetworks: 10.2.0.0/16\nproxy: {defaultInboundPolicy: cluster-authenticated}"), **MESHED), cross(via="flat"), "denied allowed denied"),
    # policy.md 4.2: named ports are those of the real destination, gateways and sidecars on the way to ambient pods
    ("a-named-port-of-the-gateway", [*a_side(**PROXY), network("net-a")], [*b_side(**PROXY), *east_west(), admits(block("0.0.0.0/0"), port="tls", home="istio-system")], cross(), "denied allowed denied"),
    ("a-named-port-of-the-destination-behind-it", [*a_side(**PROXY), network("net-a")], [*b_side(admits(GATEWAY_PODS, port="http"), **PROXY), *east_west()], cross(), "allowed allowed allowed"),
    ("a-sidecar-to-ambient-on-the-target-port", a_side(lets_out(block("10.2.0.0/16")), **PROXY), ambient(b_side(admits(block("10.1.0.0/16")))), cross(via="flat"), "denied allowed denied"),
    ("a-sidecar-to-ambient-on-15008", a_side(**PROXY), ambient(b_side(admits(block("10.1.0.0/16"), port=15008))), cross(via="flat"), "allowed allowed allowed"),
    # Skupper: each side sees its own router
    ("relay-by-the-router", a_side(router("sk", "10.1.0.7", "a1"), namespace("sk"), lets_out(of("sk"))), b_side(router("sk", "10.2.0.7", "b2"), namespace("sk"), admits(of("sk"))), cross(via="skupper"), "allowed allowed allowed"),
    ("relay-hides-the-client", a_side(router("sk", "10.1.0.7", "a1"), namespace("sk")), b_side(router("sk", "10.2.0.7", "b2"), namespace("sk"), admits(block("10.1.0.0/16"))), cross(via="skupper"), "denied allowed denied"),
]  # fmt: skip


@pytest.mark.parametrize(("near", "far", "question", "expected"), [p[1:] for p in PATHS], ids=[p[0] for p in PATHS])
def test_paths(near: list[Any], far: list[Any], question: dict[str, Any], expected: str) -> None:
    engine = load([ClusterInput("a", near, "source", "calico"), ClusterInput("b", far, "destination", "calico")])
    [line] = answers(engine, [json.dumps(question)])
    answer = json.loads(line)
    assert f"{answer['verdict']} {answer['egress']} {answer['ingress']}" == expected, answer["reason"]
    for decides in answer["deciding"]:
        assert decides["direction"] in ("egress", "ingress")
    if answer["verdict"] == "denied":
        assert answer["deciding"], answer["reason"]
        assert {d["effect"] for d in answer["deciding"]} == {"deny"}
    for side in ("egress", "ingress"):
        named = {d["direction"] for d in answer["deciding"]}
        assert (answer[side] == "denied") is (side in named if answer["verdict"] == "denied" else False)


def test_pod_cidrs_that_overlap_are_said() -> None:
    """policy.md 4.2: then a CIDR rule for the remote pods admits local ones too."""
    near = a_side()
    far = b_side(pod("shop", "other", {"app": "other"}, ip="10.1.0.1", node="b2"), admits(block("10.1.0.0/16")))
    [line] = answers(load([ClusterInput("a", near), ClusterInput("b", far)]), [json.dumps(cross(via="flat"))])
    answer = json.loads(line)
    assert answer["verdict"] == "allowed"
    assert "10.1.0.1 of pod shop/web is also the address of pod shop/other in b" in answer["reason"]


def test_a_service_that_fails_over_is_answered_endpoint_by_endpoint() -> None:
    """policy.md 4.2: evaluate each endpoint, answer "allowed to 1 of 2"."""
    front = service("shop", "api", {"app": "api"}, [{"port": 80, "targetPort": 8080}])
    own = pod("shop", "api", {"app": "api"}, ip="10.1.0.2", node="a1", **PROXY)
    closed = network_policy("shop", "in", {"podSelector": {}})
    near = [*a_side(own, front, **PROXY), network("net-a")]
    far = [*b_side(front, closed, **PROXY), *east_west()]
    question = {"source": {"pod": "shop/web"}, "destination": {"service": "shop/api"}, "port": 80}
    engine = load([ClusterInput("a", near, "source"), ClusterInput("b", far, "destination")])
    answer = json.loads(next(iter(answers(engine, [json.dumps(question)]))))
    assert answer["verdict"] == "conditional" and "allowed to 1 of 2 endpoints" in answer["reason"]
    assert {(d["kind"], d["name"], d["direction"]) for d in answer["deciding"]} == {("NetworkPolicy", "in", "ingress")}


HEP = calico("HostEndpoint", None, "b1-host", {"node": "b1", "interfaceName": "*"})
FIREWALL = obj("cilium.io/v2", "CiliumClusterwideNetworkPolicy", None, "nodes", {"nodeSelector": {}, "ingress": [{}]})


@pytest.mark.parametrize(
    ("near", "far", "via", "said"),
    [
        ([SUBMARINER], [SUBMARINER, HEP], None, "UDP 4500, 4490 and 4800 (Submariner): not asked of the policies for nodes (HostEndpoint b1-host)"),
        ([SUBMARINER, *global_cidrs()], [SUBMARINER, *global_cidrs(), HEP], None, "UDP 4500, 4490 and 4800"),
        ([SUBMARINER, FIREWALL], [SUBMARINER], None, "(CiliumClusterwideNetworkPolicy nodes)"),
        ([], [FIREWALL], "clustermesh", "with WireGuard 51871 (Cilium)"),
        ([SUBMARINER], [SUBMARINER], None, ""),
        ([], [HEP], "flat", ""),
    ],
)  # fmt: skip
def test_policies_for_nodes_stand_in_the_way_of_tunnels(near: list[Any], far: list[Any], via: Any, said: str) -> None:
    """policy.md 4.2: encapsulated tunnels run node to node, host firewalls must let them through."""
    question = cross() | ({"via": via} if via else {})
    engine = load([ClusterInput("a", a_side(*near)), ClusterInput("b", b_side(*far))])
    reason = json.loads(next(iter(answers(engine, [json.dumps(question)]))))["reason"]
    assert said in reason and (said != "" or "tunnel" not in reason)
