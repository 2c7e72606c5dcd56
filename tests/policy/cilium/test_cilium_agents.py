"""Cilium: what hangs on the agent's version and settings, and what only its source says.

Sources in cilium/cilium 1.18.5, 1.19.1 and 1.20.2: "config" = `pkg/option/config.go`; "labels" = `pkg/labelsfilter`;
"scope" = `pkg/k8s/apis/cilium.io/utils`; "rules" = `pkg/policy/{rule,repository,l4}.go` and `pkg/policy/utils`;
"services" = `pkg/policy/k8s/service.go`; "ports" = `pkg/types/portmap.go`; "nodes" = `pkg/ipcache/metadata.go`.
"""

from __future__ import annotations

from typing import Any

import pytest
from policy_build import end, namespace, node, obj, one, pod, service

from mcdoctor.policy.addresses import parse_ip
from mcdoctor.policy.engine import load
from mcdoctor.policy.path import Answer, ask
from mcdoctor.policy.question import Address, Fqdn, Http, Icmp, NodeName, Packet, PodName, Question, ServiceName
from mcdoctor.policy.verdict import Direction
from mcdoctor.policy.world import ClusterInput, Node, Pod

Raw = dict[str, Any]
WEB, API, OTHER, FAR = (
    PodName("shop", "web"),
    PodName("shop", "api"),
    PodName("shop", "other"),
    Address(parse_ip("192.0.2.7")),
)
WORLD = (
    namespace("shop", team="a"),
    node("n1", "172.16.0.1", zone="a"),
    node("n2", "172.16.0.2", zone="b"),
    pod("shop", "web", {"app": "web", "pod-template-hash": "1"}, ip="10.0.0.1", node="n1"),
    pod("shop", "api", {"app": "api"}, ip="10.0.0.2", node="n2", ports={"http": 8080}),
    pod("shop", "other", {"app": "other"}, ip="10.0.0.3", node="n2", ports={"http": 80}),
    pod("shop", "bare", {"app": "bare"}, ip="10.0.0.4", node="n2"),
)


def cnp(name: str = "x", app: str = "api", **spec: Any) -> Raw:
    selector = {"matchLabels": {"app": app}}
    return obj("cilium.io/v2", "CiliumNetworkPolicy", "shop", name, {"endpointSelector": selector, **spec})


def ccnp(**spec: Any) -> Raw:
    return obj("cilium.io/v2", "CiliumClusterwideNetworkPolicy", None, "wide", {"endpointSelector": {}, **spec})


def settings(**data: str) -> Raw:
    meta = {"namespace": "kube-system", "name": "cilium-config"}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta,
        "data": {k.replace("_", "-"): v for k, v in data.items()},
    }


def agent(version: str) -> Raw:
    found = pod("kube-system", "cilium-x", {"k8s-app": "cilium"}, containers=("cilium-agent",), host_network=True)
    found["spec"]["containers"][0]["image"] = f"quay.io/cilium/cilium:{version}@sha256:0"
    return found


def answer(*objects: Raw, source: Any = WEB, target: Any = API, port: int | None = 8080, **rest: Any) -> Answer:
    engine = one(*WORLD, *objects, cni="cilium")
    assert not [r for r in engine.refusals if r.fatal], engine.refusals
    return ask(engine, Question(source, target, port, **rest))


def ingress(*objects: Raw, **rest: Any) -> str:
    return str(answer(*objects, **rest).ingress)


def egress(*objects: Raw, **rest: Any) -> str:
    return str(answer(*objects, **rest).egress)


def from_labels(**labels: str) -> Raw:
    return {"fromEndpoints": [{"matchLabels": {k.replace("__", ":").replace("_", "-"): v for k, v in labels.items()}}]}


# --- labels of an identity (labels) ---


@pytest.mark.parametrize(
    ("filters", "label", "expected"),
    [
        (None, {"pod_template_hash": "1"}, "denied"),  # left out by default
        (
            "k8s:pod-template-hash k8s:app",
            {"pod_template_hash": "1"},
            "denied",
        ),  # an include must be longer than an ignore
        ("k8s:app", {"app": "web"}, "allowed"),  # one include makes the list inclusive; the built-in includes stay
        ("k8s:team", {"app": "web"}, "denied"),
        ("!app", {"app": "web"}, "denied"),
        ("!ap", {"app": "web"}, "denied"),  # regular expressions from the start of the key
        ("!pp", {"app": "web"}, "allowed"),
        ("container:app", {"app": "web"}, "denied"),  # another source: inclusive, and names no label of Kubernetes
    ],
)
def test_the_label_filter_with_its_built_in_entries(filters: str | None, label: dict[str, str], expected: str) -> None:
    rule = ccnp(ingress=[from_labels(**label)])
    told = [settings(labels=filters)] if filters is not None else []
    assert ingress(rule, *told) == expected


def test_labels_of_an_unknown_namespace_leave_it_open() -> None:
    rule = cnp(ingress=[{"fromEndpoints": [{"matchLabels": {"io.cilium.k8s.namespace.labels.team": "b"}}]}])
    lonely = pod("far", "lonely", {"app": "x"}, ip="10.0.0.9")
    assert ingress(rule, lonely, source=PodName("far", "lonely")) == "unknown"
    by_name = {"io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": "far"}
    assert (
        ingress(cnp(ingress=[{"fromEndpoints": [{"matchLabels": by_name}]}]), lonely, source=PodName("far", "lonely"))
        == "allowed"
    )


def test_a_selector_of_reserved_labels_is_not_scoped() -> None:
    assert ingress(cnp(ingress=[from_labels(reserved__host="")]), source=NodeName("n1")) == "denied"
    assert ingress(cnp(ingress=[from_labels(reserved__remote_node="")]), source=NodeName("n1")) == "allowed"
    assert (
        ingress(cnp(ingress=[from_labels(reserved__world="")]), settings(enable_ipv6="false"), source=FAR) == "allowed"
    )
    assert ingress(cnp(ingress=[from_labels(reserved__world="")]), settings(enable_ipv6="true"), source=FAR) == "denied"
    assert ingress(cnp(ingress=[from_labels(reserved__world="")]), source=FAR) == "unknown"  # dual-stack or not


def test_a_selector_of_negative_expressions_alone_is_open_for_what_is_no_pod() -> None:
    key = "io.cilium.k8s.namespace.labels.team"
    rule = cnp(ingress=[{"fromEndpoints": [{"matchExpressions": [{"key": key, "operator": "DoesNotExist"}]}]}])
    assert ingress(rule) == "denied"
    assert ingress(rule, agent("v1.18.5"), source=FAR) == "unknown"
    assert ingress(rule, agent("v1.19.0"), source=FAR) == "denied"  # the local cluster's label is demanded


def test_world_by_address_family_exists_in_dual_stack_only() -> None:
    rule = cnp(ingress=[{"fromEntities": ["world-ipv4"]}])
    assert ingress(rule, settings(enable_ipv4="true", enable_ipv6="true"), source=FAR) == "allowed"
    assert ingress(rule, settings(enable_ipv4="true", enable_ipv6="false"), source=FAR) == "denied"
    assert ingress(rule, source=FAR) == "unknown"
    assert ingress(rule, source=Address(parse_ip("2001:db8::1"))) == "denied"


# --- clusters (scope; `policy-default-local-cluster` in config) ---


def meshed(rule: Raw, *more: Raw, name: str = "east", **told: str) -> str:
    a = [
        namespace("shop"),
        pod("shop", "web", {"app": "web"}, ip="10.1.0.1"),
        settings(cluster_name=name, cluster_id="1"),
    ]
    b = [*WORLD, settings(cluster_name="west", cluster_id="2", **told), cnp(ingress=[rule]), *more]
    engine = load([ClusterInput("a", a), ClusterInput("b", b)])
    return str(ask(engine, Question(PodName("shop", "web", "a"), PodName("shop", "api", "b"), 8080)).ingress)


def test_the_default_cluster_of_a_selector_follows_the_version() -> None:
    web = from_labels(app="web")
    assert meshed(web, agent("v1.18.5")) == "allowed"
    assert meshed(web, agent("v1.19.0")) == "denied"
    assert meshed(web, agent("v1.19.0"), policy_default_local_cluster="false") == "allowed"
    assert (
        meshed(
            web,
            agent("v1.18.5"),
            agent("v1.19.0")
            | {"metadata": {"namespace": "kube-system", "name": "cilium-y", "labels": {"k8s-app": "cilium"}}},
        )
        == "unknown"
    )
    assert meshed(web) == "unknown"
    assert meshed(from_labels(app="nobody")) == "denied"  # whatever the reading


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ({"operator": "In", "values": ["east", "north"]}, "allowed"),
        ({"operator": "In", "values": ["west"]}, "denied"),
        ({"operator": "NotIn", "values": ["west"]}, "allowed"),
        ({"operator": "Exists"}, "allowed"),
        ({"operator": "DoesNotExist"}, "denied"),
    ],
)
def test_a_selector_that_names_clusters(expression: Raw, expected: str) -> None:
    rule = {
        "fromEndpoints": [
            {
                "matchLabels": {"app": "web"},
                "matchExpressions": [{"key": "k8s:io.cilium.k8s.policy.cluster", **expression}],
            }
        ]
    }
    assert meshed(rule, agent("v1.19.0")) == expected


def test_entities_and_cidrs_across_the_mesh() -> None:
    assert meshed({"fromEntities": ["all"]}) == "allowed"
    for rule in ({"fromEntities": ["cluster"]}, {"fromEntities": ["world"]}, {"fromCIDR": ["10.1.0.0/16"]}):
        assert meshed(rule) == "denied"


def test_nodes_of_the_other_cluster_are_remote_nodes() -> None:
    a = [node("m1", "172.17.0.1"), settings(cluster_name="east", cluster_id="1")]
    b = [*WORLD, settings(cluster_name="west", cluster_id="2"), cnp(ingress=[{"fromEntities": ["remote-node"]}])]
    engine = load([ClusterInput("a", a), ClusterInput("b", b)])
    source, target = engine.world.clusters["a"].nodes["m1"], engine.world.clusters["b"].pods["shop", "api"]
    assert isinstance(source, Node) and isinstance(target, Pod)
    packet = Packet("b", Direction.INGRESS, source, target, "TCP", 8080)
    assert engine.decide(packet).verdict == "allowed"


@pytest.mark.parametrize(
    ("east", "west", "expected"),
    [
        ({"cluster_name": "east", "cluster_id": "1"}, {"cluster_name": "west", "cluster_id": "2"}, "allowed"),
        ({"cluster_name": "east"}, {"cluster_name": "west"}, "unknown"),
        (None, None, "unknown"),
        ({"cluster_name": "default", "cluster_id": "0"}, None, "denied"),  # 0 is no cluster of a mesh
    ],
)
def test_clusters_on_cilium_may_be_meshed_unless_told_otherwise(east: Any, west: Any, expected: str) -> None:
    """network/clustermesh: "cluster.id: must be unique and in the range 1 to 255" (or 511)."""
    rule = from_labels(app="web")
    a = [namespace("shop"), pod("shop", "web", {"app": "web"}, ip="10.1.0.1"), agent("v1.18.5"), *([settings(**east)] if east else [])]  # fmt: skip
    b = [*WORLD, cnp(ingress=[rule]), agent("v1.18.5"), *([settings(**west)] if west else [])]
    engine = load([ClusterInput("a", a), ClusterInput("b", b)])
    found = ask(engine, Question(PodName("shop", "web", "a"), PodName("shop", "api", "b"), 8080))
    assert found.ingress == expected
    assert ("read as a ClusterMesh too" in found.reason) is (expected == "unknown")


@pytest.mark.parametrize("target", [ServiceName("shop", "api"), ServiceName("shop", "api", "a"), Address(parse_ip("10.97.0.1")), Fqdn("api.shop.svc.cluster.local")])  # fmt: skip
def test_a_global_service_leads_to_the_other_cluster(target: Any) -> None:
    """network/clustermesh/services: annotation service.cilium.io/global."""
    sides = []
    for name, number, address, app in (("a", "1", "10.97.0.1", "nobody"), ("b", "2", "10.98.0.1", "api")):
        entry = service("shop", "api", {"app": app}, [{"port": 80, "targetPort": 8080}], clusterIP=address)
        entry["metadata"]["annotations"] = {"service.cilium.io/global": "true"}
        sides.append([entry, namespace("shop"), settings(cluster_name=name, cluster_id=number), agent("v1.18.5")])
    a = [*sides[0], pod("shop", "web", {"app": "web"}, ip="10.1.0.1")]
    b = [*sides[1], pod("shop", "api", {"app": "api"}, ip="10.2.0.1", node="n9"), cnp(ingress=[from_labels(app="web")])]
    engine = load([ClusterInput("a", a), ClusterInput("b", b)])
    found = ask(engine, Question(PodName("shop", "web", "a"), target, 80))
    assert (found.verdict, [d.ref.cluster for d in found.deciding]) == ("allowed", ["b"])


def test_without_a_configuration_only_names_of_clusters_at_hand_are_certain() -> None:
    rule = {"matchLabels": {"app": "web", "io.cilium.k8s.policy.cluster": "a"}}
    assert ingress(cnp(ingress=[{"fromEndpoints": [rule]}])) == "allowed"  # the cluster is called a here
    other = {"matchLabels": {"app": "web", "io.cilium.k8s.policy.cluster": "z"}}
    assert ingress(cnp(ingress=[{"fromEndpoints": [other]}])) == "unknown"
    assert ingress(cnp(ingress=[{"fromEndpoints": [other]}]), settings(cluster_name="b")) == "denied"


# --- named ports (ports) ---


@pytest.mark.parametrize(
    ("version", "name", "target", "expected"),
    [
        ("v1.19.1", "http", API, "denied"),  # two numbers for one name: the rule is left out for egress
        ("v1.20.2", "http", API, "allowed"),  # since 1.20 by the destination
        (None, "http", API, "unknown"),
        ("v1.19.1", "HTTP", API, "denied"),
        ("v1.20.2", "HTTP", API, "allowed"),  # names are compared without case
        ("v1.20.2", "http", PodName("shop", "bare"), "denied"),
        ("v1.19.1", "nosuch", API, "denied"),
    ],
)
def test_named_ports_on_egress(version: str | None, name: str, target: Any, expected: str) -> None:
    rule = cnp(app="web", egress=[{"toEndpoints": [{}], "toPorts": [{"ports": [{"port": name, "protocol": "TCP"}]}]}])
    assert egress(rule, *([agent(version)] if version else []), target=target) == expected


def test_a_named_port_with_one_number_reaches_every_peer_before_1_20() -> None:
    only = pod("shop", "only", {"app": "only"}, ip="10.0.0.8", ports={"grpc": 9000})
    rule = cnp(app="web", egress=[{"toEndpoints": [{}], "toPorts": [{"ports": [{"port": "grpc", "protocol": "TCP"}]}]}])
    target = PodName("shop", "bare")
    assert egress(rule, only, agent("v1.19.1"), target=target, port=9000) == "allowed"
    assert egress(rule, only, agent("v1.20.2"), target=target, port=9000) == "denied"


def test_named_ports_on_ingress_are_the_pods_own() -> None:
    rule = cnp(ingress=[{"fromEndpoints": [{}], "toPorts": [{"ports": [{"port": "http"}]}]}])
    assert ingress(rule) == "allowed"
    assert ingress(rule, port=80) == "denied"
    assert ingress(rule, protocol="UDP") == "denied"


# --- requirements (rules; gone in 1.19) ---


def test_requirements_hold_for_the_peers_of_all_rules() -> None:
    need = cnp("need", ingress=[{"fromRequires": [{"matchLabels": {"app": "web"}}]}])
    give = cnp("give", ingress=[{"fromEndpoints": [{}]}])
    assert ingress(need, give) == "allowed"
    assert ingress(need, give, source=OTHER) == "denied"
    assert ingress(need) == "denied"  # grants nothing by itself
    ports = {"toPorts": [{"ports": [{"port": "8080"}]}]}
    assert ingress(cnp(ingress=[{"fromRequires": [{}]} | ports])) == "denied"  # nor with ports
    assert ingress(need, cnp("ports", ingress=[ports]), source=OTHER) == "allowed"  # no peers by labels: not affected


# --- rules without effect, and lists that select nobody (rules) ---


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"toPorts": [{}]}, "denied"),  # a port rule without ports covers none
        ({"toPorts": []}, "denied"),  # and then the rule is empty
        ({"fromEndpoints": [{}], "toPorts": []}, "allowed"),
        ({"fromEndpoints": [], "toPorts": [{"ports": [{"port": "8080"}]}]}, "denied"),
        ({"fromEntities": []}, "denied"),
        ({"icmps": [{}]}, "denied"),
        ({"toPorts": [{"ports": [{"port": "0"}]}]}, "allowed"),
        ({"toPorts": [{"ports": [{"port": "8080", "endPort": 80}]}]}, "allowed"),  # an end below the port is ignored
        ({"toPorts": [{"ports": [{"port": "8080", "protocol": "TCP"}], "rules": {"http": []}}]}, "allowed"),
    ],
)
def test_empty_parts(rule: Raw, expected: str) -> None:
    assert ingress(cnp(ingress=[rule])) == expected


def test_enable_default_deny_does_nothing_in_a_direction_without_rules() -> None:
    rule = cnp(egress=[{}], enableDefaultDeny={"ingress": True})
    assert ingress(rule) == "allowed"
    off = cnp(ingressDeny=[from_labels(app="other")], enableDefaultDeny={"ingress": False})
    assert ingress(off) == "allowed"
    assert ingress(off, source=OTHER) == "denied"
    assert ingress(off, settings(enable_non_default_deny_policies="false")) == "denied"


def test_port_zero_is_every_transport_but_not_icmp() -> None:
    zero = cnp(ingress=[{"toPorts": [{"ports": [{"port": "0"}]}]}])
    for protocol in ("TCP", "UDP", "SCTP"):
        assert ingress(zero, protocol=protocol) == "allowed"
    assert ingress(zero, port=None, icmp=Icmp(4, 8)) == "denied"


@pytest.mark.parametrize(
    ("kind", "asked", "expected"),
    [
        ({"type": "EchoRequest"}, Icmp(4, 8), "allowed"),
        ({"type": "EchoRequest", "family": "IPv6"}, Icmp(6, 128), "allowed"),
        ({"type": "EchoRequest", "family": "IPv6"}, Icmp(4, 8), "denied"),
        ({"type": "8"}, Icmp(4, 8), "allowed"),
        ({"type": 8}, Icmp(4), "conditional"),
        ({"type": 8}, Icmp(4, 11), "denied"),
    ],
)
def test_icmp_types(kind: Raw, asked: Icmp, expected: str) -> None:
    assert ingress(cnp(ingress=[{"icmps": [{"fields": [kind]}]}]), port=None, icmp=asked) == expected


# --- services (services) ---


def test_services_by_selector_by_name_and_without_selector() -> None:
    plain = service("shop", "api", {"app": "api"}, [{"port": 80}])
    plain["metadata"]["labels"] = {"expose": "yes"}
    bare = service("shop", "db", {}, [{"port": 5432}])
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"namespace": "shop", "name": "db-1", "labels": {"kubernetes.io/service-name": "db"}},
        "ports": [{"port": 5432, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["192.0.2.7"]}],
    }

    def to(*services: Raw, **more: Any) -> Raw:
        return cnp(app="web", egress=[{"toServices": list(services), **more}])

    by_labels = {"k8sServiceSelector": {"selector": {"matchLabels": {"expose": "yes"}}}}
    assert egress(to(by_labels), plain) == "allowed"
    assert egress(to(by_labels), plain, target=OTHER) == "denied"
    assert egress(to({"k8sService": {"serviceName": "api", "namespace": "elsewhere"}}), plain) == "denied"
    assert egress(to({"k8sService": {"serviceName": "db"}}), bare, slice_, target=FAR) == "allowed"
    assert egress(to({"k8sService": {"serviceName": "gone"}}), plain) == "denied"
    ports = [{"ports": [{"port": "8080"}]}]
    assert egress(to(by_labels, toPorts=ports), plain) == "allowed"
    gone = to({"k8sService": {"serviceName": "gone"}}, toPorts=ports)
    assert egress(gone, agent("v1.18.5")) == "denied"
    assert egress(gone) == "unknown"  # versions that open the port to everyone


# --- nodes (nodes; config) ---


def test_the_api_server_is_known_by_its_endpoints() -> None:
    rule = cnp(app="web", egress=[{"toEntities": ["kube-apiserver"]}])
    endpoints = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"namespace": "default", "name": "kubernetes"},
        "subsets": [{"addresses": [{"ip": "172.16.0.2"}], "ports": [{"port": 6443}]}],
    }
    assert egress(rule, endpoints, target=NodeName("n2")) == "allowed"
    assert egress(rule, endpoints, target=NodeName("n1")) == "denied"
    assert egress(rule, target=NodeName("n2")) == "unknown"


def test_cidrs_and_nodes() -> None:
    rule = cnp(ingress=[{"fromCIDR": ["172.16.0.0/16"]}])
    assert ingress(rule, source=NodeName("n1")) == "denied"
    assert ingress(rule, settings(policy_cidr_match_mode="nodes"), source=NodeName("n1")) == "allowed"
    out = cnp(app="web", egress=[{"toCIDR": ["172.16.0.1"]}])
    assert egress(out, settings(policy_cidr_match_mode="nodes"), target=NodeName("n1")) == "unknown"  # its own node


def test_nodes_by_labels() -> None:
    rule = cnp(ingress=[{"fromNodes": [{"matchLabels": {"zone": "a"}}]}])
    on = settings(enable_node_selector_labels="true")
    assert ingress(rule, on, source=NodeName("n1")) == "allowed"
    assert (
        ingress(cnp(ingress=[{"fromNodes": [{"matchLabels": {"zone": "b"}}]}]), on, source=NodeName("n1")) == "denied"
    )
    assert ingress(rule, on, source=WEB) == "denied"
    assert ingress(rule, source=NodeName("n1")) == "unknown"


def test_host_policies_select_by_labels_of_the_node() -> None:
    wall = ccnp(ingress=[{"fromEntities": ["health"]}])
    wall["spec"] = {"nodeSelector": {"matchLabels": {"zone": "a"}}, "ingress": [{"fromEntities": ["health"]}]}
    on = settings(enable_host_firewall="true")
    assert ingress(wall, on, target=NodeName("n1"), source=FAR) == "denied"
    assert ingress(wall, on, target=NodeName("n2"), source=FAR) == "allowed"
    host = pod("shop", "host", {"app": "host"}, ip="172.16.0.1", node="n1", host_network=True)
    assert ingress(wall, on, host, target=PodName("shop", "host"), source=FAR) == "denied"


# --- demands besides matching (rules) ---


def test_server_names_and_listeners_leave_it_open() -> None:
    item = {"ports": [{"port": "443", "protocol": "TCP"}]}
    names = cnp(app="web", egress=[{"toEntities": ["world"], "toPorts": [item | {"serverNames": ["example.com"]}]}])
    assert egress(names, target=FAR, port=443) == "conditional"
    assert egress(names, target=FAR, port=80) == "denied"
    listener = {"listener": {"envoyConfig": {"name": "e"}, "name": "l"}}
    own = cnp(app="web", egress=[{"toEntities": ["world"], "toPorts": [item | listener]}])
    assert egress(own, target=FAR, port=443) == "unknown"


def test_authentication_that_another_rule_for_the_traffic_demands() -> None:
    demanded = {"fromEndpoints": [{}], "authentication": {"mode": "required"}}
    assert ingress(cnp(ingress=[demanded, {"fromEndpoints": [{}]}])) == "conditional"
    assert ingress(cnp(ingress=[{"fromEndpoints": [{}], "authentication": {"mode": "test-always-fail"}}])) == "denied"


def test_requests_that_a_regular_expression_cannot_settle_here() -> None:
    def http(**rule: Any) -> Raw:
        item = {"ports": [{"port": "8080", "protocol": "TCP"}], "rules": {"http": [rule]}}
        return cnp(ingress=[{"toPorts": [item]}])

    asked = Http("GET", "/a", "api:8080", {"x": "1"})
    assert ingress(http(path="/[[:alpha:]]+"), http=asked) in ("unknown", "denied")
    assert ingress(http(host="api"), http=asked) == "denied"
    assert ingress(http(host="api.*"), http=asked) == "allowed"
    assert ingress(http(headers=["X"]), http=asked) == "allowed"
    assert ingress(http(headers=["Y"]), http=asked) == "denied"
    secret = {"name": "x", "secret": {"name": "s"}}
    assert ingress(http(headerMatches=[secret]), http=asked) == "conditional"
    assert ingress(http(headerMatches=[secret]), http=Http("GET", "/a", "api")) == "denied"
    assert ingress(http(method="GET"), http=Http(path="/")) == "conditional"


def test_dns_rules_let_only_some_look_ups_pass() -> None:
    def dns(pattern: str) -> Raw:
        item = {"ports": [{"port": "53", "protocol": "UDP"}], "rules": {"dns": [{"matchPattern": pattern}]}}
        return cnp(app="web", egress=[{"toPorts": [item]}])

    assert egress(dns("*"), port=53, protocol="UDP") == "allowed"
    assert egress(dns("*.example.com"), port=53, protocol="UDP") == "conditional"


def test_groups_of_a_cloud_provider_hold_addresses_outside() -> None:
    rule = cnp(app="web", egress=[{"toGroups": [{"aws": {"region": "x"}}]}])
    assert egress(rule, target=FAR) == "unknown"
    assert egress(rule) == "denied"


# --- what decides ---


def test_enforcement_always_is_decided_by_the_setting() -> None:
    found = answer(settings(enable_policy="always"))
    assert [(d.ref.kind, d.ref.name, d.pointer, d.direction, d.implicit) for d in found.deciding] == [
        ("ConfigMap", "cilium-config", "/data/enable-policy", direction, True) for direction in ("egress", "ingress")
    ]


def test_audit_mode_says_what_it_would_do() -> None:
    found = answer(cnp(ingress=[{}]), settings(policy_audit_mode="true"))
    assert found.ingress == "allowed"
    assert [(d.pointer, d.effect) for d in found.deciding] == [("/spec/ingress", "audit")]
    assert "would be denied" in found.reason


def test_a_deny_that_may_match_leaves_an_allow_open() -> None:
    lonely = pod("far", "lonely", {"app": "x"}, ip="10.0.0.9")
    deny = {"fromEndpoints": [{"matchLabels": {"io.cilium.k8s.namespace.labels.team": "b"}}]}
    rule = cnp(ingress=[{"fromEntities": ["cluster"]}], ingressDeny=[deny])
    found = answer(rule, lonely, source=PodName("far", "lonely"))
    assert found.ingress == "unknown"
    assert {d.pointer for d in found.deciding} == {
        "/spec/ingress/0/fromEntities/0",
        "/spec/ingressDeny/0/fromEndpoints/0",
    }
    closed = cnp(ingress=[{}], ingressDeny=[deny])
    assert ingress(closed, lonely, source=PodName("far", "lonely")) == "denied"  # either way


def test_a_pod_and_itself_is_left_to_the_plugin() -> None:
    engine = one(*WORLD, cnp(ingress=[{}]), cni="cilium")
    api = end(engine, "shop/api")
    assert engine.decide(Packet("a", Direction.INGRESS, api, api, "TCP", 8080)).verdict == "unknown"
