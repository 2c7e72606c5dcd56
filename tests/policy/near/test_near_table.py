"""Near misses by hand: for every field of every family the rule that was meant and the one thing that it lacks.

Every case is verified: the change named, applied to the object, lifts the refusal in a world built anew.
"""

from __future__ import annotations

from typing import Any

import pytest
from policy_build import namespace, network_policy, node, obj, one, packet, pod, service
from policy_near import decided, with_changes

from mcdoctor.policy.near import NearMiss, near_misses
from mcdoctor.policy.question import Http, Icmp
from mcdoctor.policy.verdict import Direction, Verdict

Raw = dict[str, Any]
SIDECAR, LINKERD = ("app", "istio-proxy"), ("app", "linkerd-proxy")


def world(containers: tuple[str, ...] = ("app",)) -> list[Raw]:
    """Two namespaces; web and api in one, tool in the other; job is outside the mesh, agent on the host network."""
    return [
        namespace("shop", team="red"),
        namespace("data", team="blue"),
        node("n1", "172.16.0.1", zone="a"),
        node("n2", "172.16.0.2", zone="b"),
        pod("shop", "web", {"app": "web"}, ip="10.0.0.1", account="front", containers=containers),
        pod("shop", "api", {"app": "api"}, ip="10.0.0.2", ports={"http": 8080}, account="back", containers=containers),
        pod("data", "tool", {"app": "tool"}, ip="10.0.0.3", account="tool", containers=containers),
        pod("data", "job", {"app": "job"}, ip="10.0.0.4", account="job"),
        pod("data", "agent", {"app": "agent"}, ip="172.16.0.2", node="n2", host_network=True),
        service("shop", "api", {"app": "api"}, [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "tcp-raw", "port": 90, "targetPort": 9090}]),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "shop", "name": "front", "labels": {"role": "a"}}},
    ]  # fmt: skip


def nearest(
    objects: list[Raw], cni: str, source: str, destination: str, port: int | None, direction: str, **rest: Any
) -> tuple[NearMiss, ...]:
    """The near misses of one refused packet, each tried out."""
    engine = one(*objects, cni=cni)
    assert not [r for r in engine.refusals if r.fatal], engine.refusals
    if "service" in rest:
        rest["service"] = engine.world.clusters["a"].services["shop", rest["service"]]
    asked = packet(engine, direction, source, destination, port, **rest)
    point = engine.decide(asked)
    assert point.verdict is Verdict.DENIED, point.layers
    layers = {layer.layer for layer in point.layers if layer.decision.verdict is Verdict.DENIED}
    found = near_misses(engine, point)
    for miss in found:
        assert miss.direction is Direction(direction)
        after = decided(with_changes(objects, cni, miss), asked, layers, miss)
        assert any(d.verdict is not Verdict.DENIED for d in after) or not after, miss
    return found


def told(found: tuple[NearMiss, ...], name: str, pointer: str, why: str) -> None:
    """One thing, told of this rule in both languages."""
    assert [(m.ref.name, m.pointer, m.gap) for m in found] == [(name, pointer, 1)], found
    assert why in found[0].why, found[0].why
    assert any("가" <= c <= "힣" for c in found[0].ko)


# --- Kubernetes ----------------------------------------------------------------------------------------------------


def ns(**labels: str) -> Raw:
    return {"namespaceSelector": {"matchLabels": labels}}


WEB = {"podSelector": {"matchLabels": {"app": "web"}}}


@pytest.mark.parametrize(
    ("rule", "source", "why"),
    [
        ({"from": [{"podSelector": {"matchLabels": {"app": "wbe"}}}]}, "shop/web", "pod shop/web has app=web, the rule wants app=wbe"),
        ({"from": [{"podSelector": {"matchLabels": {"tier": "x"}}}]}, "shop/web", "pod shop/web has no label tier, the rule wants tier=x"),
        ({"from": [{"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}}]}, "shop/web", "app not in (web)"),
        ({"from": [{"podSelector": {"matchLabels": {"app": "tool"}}}]}, "data/tool", "a podSelector alone means namespace shop, tool is in data"),
        ({"from": [ns(team="red")]}, "data/tool", "namespace data has team=blue, the rule wants team=red"),
        ({"from": [ns(name="data")]}, "data/tool", "kubernetes.io/metadata.name=data would match"),
        ({"from": [{"ipBlock": {"cidr": "10.0.1.0/24"}}]}, "shop/web", "10.0.0.1 is not in 10.0.1.0/24"),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/30"]}}]}, "shop/web", "excepted by 10.0.0.0/30"),
        ({"from": [ns(team="blue")]}, "data/agent", "on the host network and counts as its node"),
        ({"from": [WEB], "ports": [{"port": 80}]}, "shop/web", "names the Service's port 80"),
        ({"from": [WEB], "ports": [{"port": 8081}]}, "shop/web", "the rule covers TCP 8081, the traffic is TCP 8080"),
        ({"from": [WEB], "ports": [{"port": 8080, "protocol": "UDP"}]}, "shop/web", "the rule is for UDP, the traffic is TCP"),
        ({"from": [WEB], "ports": [{"port": "htpp"}]}, "shop/web", "no container port named htpp"),
    ],
)  # fmt: skip
def test_network_policy(rule: Raw, source: str, why: str) -> None:
    objects = [
        *world(),
        network_policy("shop", "x", {"podSelector": {"matchLabels": {"app": "api"}}, "ingress": [rule]}),
    ]
    told(
        nearest(objects, "kube-router", source, "shop/api", 8080, "ingress", service="api"),
        "x",
        "/spec/ingress/0/from/0",
        why,
    )


def test_two_things_are_told_where_no_rule_lacks_one_only() -> None:
    rule = {"from": [{"podSelector": {"matchLabels": {"app": "wbe"}}}], "ports": [{"port": 81}]}
    objects = [*world(), network_policy("shop", "x", {"podSelector": {}, "ingress": [rule]})]
    (found,) = nearest(objects, "calico", "shop/web", "shop/api", 8080, "ingress")
    assert found.gap == 2 and "app=wbe" in found.why and "TCP 81" in found.why
    closer = {"from": [WEB], "ports": [{"port": 82}]}
    objects[-1]["spec"]["ingress"].append(closer)
    told(nearest(objects, "calico", "shop/web", "shop/api", 8080, "ingress"), "x", "/spec/ingress/1/from/0", "TCP 82")


# --- admin policies ------------------------------------------------------------------------------------------------

GROUP = "policy.networking.k8s.io"
APIS = {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "api"}}}}
EVERYBODY = [{"namespaces": {}}]
DENY = {"action": "Deny", "from": EVERYBODY}


def anp(name: str, priority: int, *rules: Raw, side: str = "ingress", subject: Raw = APIS) -> Raw:
    spec = {"priority": priority, "subject": subject, side: list(rules)}
    return obj(f"{GROUP}/v1alpha1", "AdminNetworkPolicy", None, name, spec)


def allow(peer: Raw, *ports: Raw) -> Raw:
    return {"action": "Allow", "from": [peer], **({"ports": list(ports)} if ports else {})}


@pytest.mark.parametrize(
    ("rule", "source", "why"),
    [
        (allow({"namespaces": {"matchLabels": {"team": "green"}}}), "data/tool", "namespace data has team=blue, the rule wants team=green"),
        (allow({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "wbe"}}}}), "shop/web", "has app=web, the rule wants app=wbe"),
        (allow({"namespaces": {"sameLabels": ["team"]}}), "data/tool", "namespaces data and shop differ in the label team"),
        (allow({"namespaces": {}}, {"portNumber": {"protocol": "TCP", "port": 81}}), "shop/web", "the rule covers TCP 81, the traffic is TCP 8080"),
        (allow({"namespaces": {}}, {"portRange": {"protocol": "UDP", "start": 8000, "end": 9000}}), "shop/web", "the rule is for UDP, the traffic is TCP"),
        (allow({"namespaces": {}}, {"namedPort": "htpp"}), "shop/web", "no container port named htpp"),
    ],
)  # fmt: skip
def test_admin_network_policy(rule: Raw, source: str, why: str) -> None:
    objects = [*world(), anp("x", 5, rule, DENY)]
    told(nearest(objects, "ovn-kubernetes", source, "shop/api", 8080, "ingress"), "x", "/spec/ingress/0/from/0", why)


@pytest.mark.parametrize(
    ("peer", "destination", "why"),
    [
        ({"networks": ["192.0.2.0/24"]}, "198.51.100.7", "198.51.100.7 is not in 192.0.2.0/24"),
        ({"nodes": {"matchLabels": {"zone": "c"}}}, "node:n2", "node n2 has zone=b, the rule wants zone=c"),
        ({"domainNames": ["*.example.com"]}, "dns:example.com", "covers names below example.com, not itself"),
        ({"domainNames": ["db.example.com"]}, "dns:api.example.com", "api.example.com is not db.example.com"),
    ],
)  # fmt: skip
def test_admin_egress(peer: Raw, destination: str, why: str) -> None:
    closed = {"action": "Deny", "to": [{"networks": ["0.0.0.0/0"]}, {"nodes": {}}]}
    subject = {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}}
    objects = [*world(), anp("x", 5, {"action": "Allow", "to": [peer]}, closed, side="egress", subject=subject)]
    told(nearest(objects, "ovn-kubernetes", "shop/web", destination, 443, "egress"), "x", "/spec/egress/0/to/0", why)


def test_admin_order() -> None:
    late = [*world(), anp("no", 5, DENY), anp("yes", 9, allow({"namespaces": {}}))]
    told(
        nearest(late, "ovn-kubernetes", "shop/web", "shop/api", 8080, "ingress"),
        "yes",
        "/spec/ingress/0/from/0",
        "AdminNetworkPolicy no denies first (priority 5 before 9)",
    )
    below = [*world(), anp("x", 5, DENY, allow({"namespaces": {}}))]
    told(nearest(below, "ovn-kubernetes", "shop/web", "shop/api", 8080, "ingress"), "x", "/spec/ingress/1/from/0", "rule 0 of the same policy denies first")  # fmt: skip


def test_baseline_and_cluster_network_policy() -> None:
    spec: Raw = {"subject": APIS, "ingress": [allow({"namespaces": {"matchLabels": {"team": "green"}}}), DENY]}
    objects = [*world(), obj(f"{GROUP}/v1alpha1", "BaselineAdminNetworkPolicy", None, "default", spec)]
    told(
        nearest(objects, "ovn-kubernetes", "data/tool", "shop/api", 8080, "ingress"),
        "default",
        "/spec/ingress/0/from/0",
        "wants team=green",
    )
    accept = {"action": "Accept", "from": EVERYBODY, "protocols": [{"tcp": {"destinationPort": {"number": 81}}}]}
    spec = {"tier": "Admin", "priority": 1, "subject": APIS, "ingress": [accept, DENY]}
    objects = [*world(), obj(f"{GROUP}/v1alpha2", "ClusterNetworkPolicy", None, "x", spec)]
    told(nearest(objects, "ovn-kubernetes", "shop/web", "shop/api", 8080, "ingress"), "x", "/spec/ingress/0/from/0", "the rule covers TCP 81")  # fmt: skip


# --- Cilium --------------------------------------------------------------------------------------------------------

CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "kube-system", "name": "cilium-config"}, "data": {"cluster-name": "a", "policy-default-local-cluster": "true", "enable-ipv4": "true", "enable-ipv6": "false", "enable-node-selector-labels": "true"}}  # fmt: skip


def cnp(rule: Raw, side: str = "ingress", app: str = "api") -> list[Raw]:
    spec = {"endpointSelector": {"matchLabels": {"app": app}}, side: [rule]}
    return [*world(), CONFIG, obj("cilium.io/v2", "CiliumNetworkPolicy", "shop", "x", spec)]


def http_rule(**rule: Any) -> Raw:
    port = {"ports": [{"port": "8080", "protocol": "TCP"}], "rules": {"http": [rule]}}
    return {"fromEndpoints": [{"matchLabels": {"app": "web"}}], "toPorts": [port]}


@pytest.mark.parametrize(
    ("rule", "source", "pointer", "why"),
    [
        (http_rule(method="GET"), "shop/web", "fromEndpoints/0", "the method is POST, the rule wants GET"),
        (http_rule(method="POST", path="/b.*"), "shop/web", "fromEndpoints/0", "the path is /a/1, the rule wants /b.*"),
        (http_rule(host="other"), "shop/web", "fromEndpoints/0", "the host is api.shop, the rule wants other"),
        (http_rule(headers=["X-Team: red"]), "shop/web", "fromEndpoints/0", "no header x-team: red"),
        (http_rule(headerMatches=[{"name": "X-Team", "value": "red"}]), "shop/web", "fromEndpoints/0", "no header x-team: red"),
        ({"fromEntities": ["world"]}, "shop/web", "fromEntities/0", "the entity world does not cover pod shop/web, which is cluster"),
        ({"fromEntities": ["host"]}, "data/agent", "fromEntities/0", "the entity host does not cover pod data/agent, which is remote-node"),
        ({"fromEntities": ["cluster"]}, "192.0.2.7", "fromEntities/0", "the entity cluster does not cover 192.0.2.7, which is world"),
        ({"fromCIDR": ["198.51.100.0/24"]}, "192.0.2.7", "fromCIDR/0", "192.0.2.7 is not in 198.51.100.0/24"),
        ({"fromCIDRSet": [{"cidr": "192.0.2.0/24", "except": ["192.0.2.0/28"]}]}, "192.0.2.7", "fromCIDRSet/0", "192.0.2.7 is in 192.0.2.0/24 but excepted"),
        ({"fromCIDRSet": [{"cidr": "172.16.0.0/24"}]}, "data/agent", "fromCIDRSet/0", "do not match nodes"),
        ({"fromEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "data", "app": "agent"}}]}, "data/agent", "fromEndpoints/0", "is on the host network"),
        ({"fromNodes": [{"matchLabels": {"zone": "c"}}]}, "node:n2", "fromNodes/0", "node n2 has zone=b, the rule wants zone In c"),
        ({"fromEndpoints": []}, "shop/web", "", "an empty list of peers (fromEndpoints) selects nobody"),
        ({"fromEndpoints": [{"matchLabels": {"io.cilium.k8s.policy.serviceaccount": "back"}}]}, "shop/web", "fromEndpoints/0", "serviceaccount=front"),
    ],
)  # fmt: skip
def test_cilium(rule: Raw, source: str, pointer: str, why: str) -> None:
    asked = {"http": Http("POST", "/a/1", "api.shop", {"x-team": "blue"})} if "toPorts" in rule else {}
    found = nearest(cnp(rule), "cilium", source, "shop/api", 8080, "ingress", **asked)
    told(found, "x", f"/spec/ingress/0/{pointer}".rstrip("/"), why)


def test_cilium_icmp_and_names() -> None:
    ping = {"fromEndpoints": [{}], "icmps": [{"fields": [{"type": 8}]}]}
    found = nearest(cnp(ping), "cilium", "shop/web", "shop/api", None, "ingress", protocol="ICMP", icmp=Icmp(4, 13))
    told(found, "x", "/spec/ingress/0/fromEndpoints/0", "the traffic is ICMPv4 type 13")
    dns = {
        "toEndpoints": [{}],
        "toPorts": [{"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": [{"matchPattern": "*"}]}}],
    }
    objects = cnp({"toFQDNs": [{"matchName": "db.example.com"}]}, "egress", "web")
    found = nearest(objects, "cilium", "shop/web", "dns:db.example.com", 443, "egress")
    told(found, "x", "/spec/egress/0/toFQDNs/0", "no rule sends the look-ups of names through Cilium's DNS proxy")
    objects[-1]["spec"]["egress"].append(dns)
    found = nearest(objects, "cilium", "shop/web", "dns:api.example.com", 443, "egress")
    told(found, "x", "/spec/egress/0/toFQDNs/0", "api.example.com does not match db.example.com")  # fmt: skip


def test_cilium_denies_are_no_near_misses() -> None:
    """A deny beats every allow: an allowing rule that lacks one thing would change nothing."""
    objects = cnp({"fromEndpoints": [{"matchLabels": {"app": "wbe"}}]})
    objects[-1]["spec"]["ingressDeny"] = [{"fromEntities": ["all"]}]
    assert nearest(objects, "cilium", "shop/web", "shop/api", 8080, "ingress") == ()


# --- Calico --------------------------------------------------------------------------------------------------------

V3 = "projectcalico.org/v3"


def rule(action: str = "Allow", **rest: Any) -> Raw:
    return {"action": action, "protocol": "TCP", **rest}


def calico(*rules: Raw, side: str = "ingress", app: str = "api", name: str = "x", **spec: Any) -> Raw:
    types = [side.capitalize()]
    return obj(
        V3, "NetworkPolicy", "shop", name, {"selector": f"app == '{app}'", "types": types, side: list(rules), **spec}
    )


@pytest.mark.parametrize(
    ("meant", "source", "why"),
    [
        (rule(source={"selector": "app == 'wbe'"}), "shop/web", 'pod shop/web has app=web, the rule wants app == "wbe"'),
        (rule(source={"selector": "app == 'web' && has(tier)"}), "shop/web", "no label tier, the rule wants has(tier)"),
        (rule(source={"selector": "app == 'tool'"}), "data/tool", "without a namespaceSelector the rule means namespace shop, tool is in data"),
        (rule(source={"namespaceSelector": "team == 'green'"}), "data/tool", 'namespace data has team=blue, the rule wants team == "green"'),
        (rule(source={"namespaceSelector": "global()", "selector": "app == 'tool'"}), "data/tool", "global() means what is in no namespace"),
        (rule(source={"notSelector": "app == 'web'"}), "shop/web", "pod shop/web is excluded by notSelector"),
        (rule(source={"nets": ["192.0.2.0/24"]}), "198.51.100.7", "198.51.100.7 is not in 192.0.2.0/24"),
        (rule(source={"nets": ["10.0.1.0/24"]}), "shop/web", "pod shop/web (10.0.0.1) is not in 10.0.1.0/24"),
        (rule(source={"notNets": ["10.0.0.0/30"]}), "shop/web", "10.0.0.1 is excluded by notNets 10.0.0.0/30"),
        (rule(source={"serviceAccounts": {"names": ["back"]}}), "shop/web", "runs as front, the rule wants the service account back"),
        (rule(source={"serviceAccounts": {"selector": "role == 'b'"}}), "shop/web", 'service account shop/front has role=a, the rule wants role == "b"'),
        (rule(destination={"ports": [81]}), "shop/web", "the rule covers TCP 81, the traffic is TCP 8080"),
        (rule(destination={"ports": [80]}), "shop/web", "names the Service's port 80"),
        (rule(destination={"ports": ["htpp"]}), "shop/web", "no container port named htpp"),
        (rule(destination={"notPorts": ["8000:9000"]}), "shop/web", "port 8080 is excluded by notPorts"),
        ({"action": "Allow", "protocol": "UDP"}, "shop/web", "the rule is for UDP, the traffic is TCP"),
        ({"action": "Allow", "notProtocol": "TCP"}, "shop/web", "TCP is excluded by notProtocol"),
        (rule(http={"methods": ["GET"]}), "shop/web", "the rule covers the methods GET, the traffic is POST"),
        (rule(http={"paths": [{"prefix": "/b"}]}), "shop/web", "the rule covers the paths /b*, the traffic is /a/1"),
    ],
)  # fmt: skip
def test_calico(meant: Raw, source: str, why: str) -> None:
    objects = [*world(), calico(meant)]
    found = nearest(objects, "calico", source, "shop/api", 8080, "ingress", service="api", http=Http("POST", "/a/1"))
    told(found, "x", "/spec/ingress/0", why)


def test_calico_services() -> None:
    meant = {"action": "Allow", "destination": {"services": {"name": "apii", "namespace": "shop"}}}
    objects = [
        *world(),
        service("shop", "apii", {"app": "web"}, [{"port": 80}]),
        calico(meant, side="egress", app="web"),
    ]
    found = nearest(objects, "calico", "shop/web", "shop/api", 8080, "egress", service="api")
    told(found, "x", "/spec/egress/0", "the rule is for Service shop/apii, the traffic is for shop/api")


def test_calico_order_and_tiers() -> None:
    """docs.tigera.io "Policy tiers": the first tier, the first policy, the first rule that matches decides."""
    open_, shut = rule(), rule("Deny")
    asked = ("calico", "shop/web", "shop/api", 8080, "ingress")
    late = [*world(), calico(shut, name="no", order=10), calico(open_, name="yes", order=20)]
    told(
        nearest(late, *asked),
        "yes",
        "/spec/ingress/0",
        "NetworkPolicy shop/no denies first (order 10, this policy has 20)",
    )
    below = [*world(), calico(shut, open_)]
    told(nearest(below, *asked), "x", "/spec/ingress/1", "rule 0 of the same policy denies first")
    tier = obj(V3, "Tier", None, "early", {"order": 5})
    tiers = [*world(), tier, calico(shut, name="no", tier="early"), calico(open_, name="yes")]
    told(
        nearest(tiers, *asked),
        "yes",
        "/spec/ingress/0",
        "NetworkPolicy shop/no denies first (this policy is in tier default)",
    )
    end = [
        *world(),
        tier,
        calico(rule(source={"selector": "app == 'x' && has(y)"}), name="no", tier="early"),
        calico(open_, name="yes"),
    ]
    told(
        nearest(end, *asked),
        "yes",
        "/spec/ingress/0",
        "tier early comes first, NetworkPolicy shop/no applies in it and none of its rules matches",
    )
    everywhere = obj(
        V3,
        "GlobalNetworkPolicy",
        None,
        "all",
        {"selector": "all()", "types": ["Ingress"], "ingress": [rule(source={"namespaceSelector": "team == 'blue'"})]},
    )
    told(nearest([*world(), everywhere], *asked), "all", "/spec/ingress/0", 'namespace shop has team=red, the rule wants team == "blue"')  # fmt: skip


# --- Istio ---------------------------------------------------------------------------------------------------------


def authorization(meant: Raw) -> Raw:
    return obj(
        "security.istio.io/v1",
        "AuthorizationPolicy",
        "shop",
        "x",
        {"selector": {"matchLabels": {"app": "api"}}, "rules": [meant]},
    )


def source_of(**fields: Any) -> Raw:
    return {"from": [{"source": fields}]}


def operation(**fields: Any) -> Raw:
    return {"to": [{"operation": fields}]}


@pytest.mark.parametrize(
    ("meant", "pointer", "why"),
    [
        (source_of(principals=["cluster.local/ns/shop/sa/back"]), "from/0/source", "the principal is cluster.local/ns/shop/sa/front, the rule wants cluster.local/ns/shop/sa/back"),
        (source_of(namespaces=["data"]), "from/0/source", "the namespace is shop, the rule wants data"),
        (source_of(serviceAccounts=["back"]), "from/0/source", "the service account is shop/front, the rule wants back"),
        (source_of(trustDomains=["other"]), "from/0/source", "the trust domain is cluster.local, the rule wants other"),
        (source_of(notNamespaces=["shop"]), "from/0/source", "the namespace shop is excluded by notNamespaces shop"),
        (source_of(namespaces=["shop"], notPrincipals=["*front"]), "from/0/source", "is excluded by notPrincipals *front"),
        (source_of(ipBlocks=["10.0.1.0/24"]), "from/0/source", "the address is 10.0.0.1, the rule wants 10.0.1.0/24"),
        (source_of(remoteIpBlocks=["10.0.1.0/24"]), "from/0/source", "the address is 10.0.0.1, the rule wants 10.0.1.0/24"),
        (operation(methods=["GET"]), "to/0/operation", "the method is POST, the rule wants GET"),
        (operation(paths=["/b*"]), "to/0/operation", "the path is /a/1, the rule wants /b*"),
        (operation(notPaths=["/a*"]), "to/0/operation", "the path /a/1 is excluded by notPaths /a*"),
        (operation(ports=["80"]), "to/0/operation", "the port is 8080, the rule wants 80"),
        (operation(hosts=["other.shop"]), "to/0/operation", "the host is api.shop, the rule wants other.shop"),
        ({"when": [{"key": "source.namespace", "values": ["data"]}]}, "", "the source.namespace is shop, the rule wants data"),
        ({"when": [{"key": "request.headers[x-team]", "values": ["red"]}]}, "", "the request.headers[x-team] is blue, the rule wants red"),
        ({"when": [{"key": "destination.port", "notValues": ["8080"]}]}, "", "the destination.port 8080 is excluded by notValues 8080"),
        (source_of(namespaces=["shop"]) | operation(methods=["GET"], ports=["8080"]), "from/0/source", "the method is POST, the rule wants GET"),
    ],
)  # fmt: skip
def test_authorization_policy(meant: Raw, pointer: str, why: str) -> None:
    objects = [*world(SIDECAR), authorization(meant)]
    asked = Http("POST", "/a/1", "api.shop", {"x-team": "blue"})
    found = nearest(objects, "", "shop/web", "shop/api", 8080, "ingress", http=asked)
    told(found, "x", f"/spec/rules/0/{pointer}".rstrip("/"), why)


def test_istio_callers_without_an_identity() -> None:
    objects = [*world(SIDECAR), authorization(source_of(namespaces=["data"]))]
    found = nearest(objects, "", "data/job", "shop/api", 8080, "ingress", http=Http("GET", "/"))
    told(
        found,
        "x",
        "/spec/rules/0/from/0/source",
        "pod data/job is not in the mesh: it sends plaintext and has no identity",
    )
    assert dict(found[0].traffic) == {"mtls": True} and not found[0].changes
    strict = obj("security.istio.io/v1", "PeerAuthentication", "shop", "strict", {"mtls": {"mode": "STRICT"}})
    found = nearest([*world(SIDECAR), strict], "", "data/job", "shop/api", 8080, "ingress", http=Http("GET", "/"))
    told(found, "strict", "/spec/mtls/mode", "STRICT takes mutual TLS only, and pod data/job is not in the mesh")
    found = nearest([*world(SIDECAR), strict], "", "192.0.2.7", "shop/api", 8080, "ingress", http=Http("GET", "/"))
    told(found, "strict", "/spec/mtls/mode", "STRICT takes mutual TLS only, and 192.0.2.7 is outside the mesh")


def test_istio_rules_for_requests_where_no_requests_are_seen() -> None:
    """istio.io "Authorization on TCP ports" and ztunnel: an ALLOW rule with HTTP fields is left out."""
    objects = [*world(SIDECAR), authorization(operation(methods=["GET"]))]
    told(
        nearest(objects, "", "shop/web", "shop/api", 9090, "ingress"),
        "x",
        "/spec/rules/0/to/0/operation",
        "port 9090 is no HTTP port, and an ALLOW rule with methods is left out there",
    )
    ambient = [*world(), authorization(operation(paths=["/a"]))]
    for each in ambient:
        if each["kind"] == "Namespace":
            each["metadata"]["labels"]["istio.io/dataplane-mode"] = "ambient"
    told(nearest(ambient, "", "shop/web", "shop/api", 8080, "ingress"), "x", "/spec/rules/0/to/0/operation", "ztunnel leaves out an ALLOW rule with paths; a waypoint could enforce it")  # fmt: skip


def test_istio_denies_are_no_near_misses() -> None:
    deny = obj("security.istio.io/v1", "AuthorizationPolicy", "shop", "no", {"action": "DENY", "rules": [{}]})
    objects = [*world(SIDECAR), deny, authorization(source_of(namespaces=["data"]))]
    assert nearest(objects, "", "shop/web", "shop/api", 8080, "ingress", http=Http("GET", "/")) == ()


def test_istio_egress() -> None:
    spec = {"egress": [{"hosts": ["data/*"]}], "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}
    objects = [*world(SIDECAR), obj("networking.istio.io/v1", "Sidecar", "shop", "x", spec)]
    found = nearest(objects, "", "shop/web", "shop/api", 8080, "egress", service="api")
    told(found, "x", "/spec/egress/0/hosts", "is not among the hosts data/*")
    spec = {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}
    objects = [*world(SIDECAR), obj("networking.istio.io/v1", "Sidecar", "shop", "x", spec)]
    found = nearest(objects, "", "shop/web", "dns:api.example.com", 443, "egress")
    told(
        found,
        "x",
        "/spec/outboundTrafficPolicy/mode",
        "no ServiceEntry visible to pod shop/web has api.example.com on port 443",
    )


# --- Linkerd -------------------------------------------------------------------------------------------------------

LINKERD_GROUP = "policy.linkerd.io"


def linkerd(kind: str, name: str, spec: Raw, version: str = "v1alpha1") -> Raw:
    return obj(f"{LINKERD_GROUP}/{version}", kind, "shop", name, spec)


def server(port: int | str = 8080, app: str = "api", **spec: Any) -> Raw:
    return linkerd("Server", "srv", {"podSelector": {"matchLabels": {"app": app}}, "port": port, **spec}, "v1beta3")


def authorizing(*required: tuple[str, str], server: str = "srv", kind: str = "Server") -> Raw:
    refs = [{"group": "" if k == "ServiceAccount" else LINKERD_GROUP, "kind": k, "name": n} for k, n in required]
    return linkerd(
        "AuthorizationPolicy",
        "x",
        {"targetRef": {"group": LINKERD_GROUP, "kind": kind, "name": server}, "requiredAuthenticationRefs": refs},
    )


def identities(*names: str, **spec: Any) -> Raw:
    return linkerd("MeshTLSAuthentication", "who", {"identities": list(names)} if names else spec)


def networks(**network: Any) -> Raw:
    return linkerd("NetworkAuthentication", "net", {"networks": [network]})


IDENTITY = "front.shop.serviceaccount.identity.linkerd.cluster.local"
WHO, NET = ("MeshTLSAuthentication", "who"), ("NetworkAuthentication", "net")


@pytest.mark.parametrize(
    ("objects", "name", "pointer", "why"),
    [
        ([server(), authorizing(WHO), identities(f"back{IDENTITY[5:]}")], "x", "/spec", f"the client is {IDENTITY}, the rule wants back.shop"),
        ([server(), authorizing(WHO), identities(identityRefs=[{"kind": "ServiceAccount", "name": "back"}])], "x", "/spec", "the rule wants back.shop"),
        ([server(), authorizing(("ServiceAccount", "back"))], "x", "/spec", "the rule wants the service account shop/back"),
        ([server(), authorizing(NET), networks(cidr="10.0.1.0/24")], "x", "/spec", "10.0.0.1 is not in 10.0.1.0/24"),
        ([server(), authorizing(NET), networks(cidr="10.0.0.0/8", **{"except": ["10.0.0.0/30"]})], "x", "/spec", "10.0.0.1 is in 10.0.0.0/8 but excepted by 10.0.0.0/30"),
        ([server(), authorizing(WHO)], "x", "/spec", "it requires MeshTLSAuthentication shop/who, which does not exist"),
        ([server(), authorizing(NET)], "x", "/spec", "it requires NetworkAuthentication shop/net, which does not exist"),
        ([server(), authorizing(server="svr")], "x", "/spec", "it is for Server svr, which does not exist; port 8080 has Server srv"),
        ([server(), linkerd("ServerAuthorization", "x", {"server": {"name": "srv"}, "client": {"meshTLS": {"serviceAccounts": [{"name": "back"}]}}}, "v1beta1")], "x", "/spec/client", "the rule wants back"),
        ([server(), linkerd("ServerAuthorization", "x", {"server": {"name": "srv"}, "client": {"unauthenticated": True, "networks": [{"cidr": "10.0.1.0/24"}]}}, "v1beta1")], "x", "/spec/client", "10.0.0.1 is not in 10.0.1.0/24"),
        ([server(), linkerd("ServerAuthorization", "x", {"server": {"selector": {"matchLabels": {"a": "b"}}}, "client": {"unauthenticated": True}}, "v1beta1")], "x", "/spec/client", "Server shop/srv has no label a, the rule wants a=b"),
    ],
)  # fmt: skip
def test_linkerd_authorisations(objects: list[Raw], name: str, pointer: str, why: str) -> None:
    told(nearest([*world(LINKERD), *objects], "", "shop/web", "shop/api", 8080, "ingress"), name, pointer, why)


CLOSED = "config.linkerd.io/default-inbound-policy"


def closed(default: str = "deny") -> list[Raw]:
    objects = world(LINKERD)
    for each in objects:
        if each["kind"] == "Namespace":
            each["metadata"]["annotations"] = {CLOSED: default}
    return objects


@pytest.mark.parametrize(
    ("srv", "pointer", "why"),
    [
        (server(8081), "/spec/port", "the Server covers port 8081, the traffic is for 8080"),
        (server(80), "/spec/port", "names the Service's port 80; the proxy sees the pod's port 8080"),
        (server("htpp"), "/spec/port", "pod shop/api has no container port named htpp"),
        (server(app="apii"), "/spec/podSelector", "pod shop/api has app=api, the rule wants app=apii"),
    ],
)
def test_linkerd_servers(srv: Raw, pointer: str, why: str) -> None:
    objects = [*closed(), srv, authorizing()]
    told(nearest(objects, "", "shop/web", "shop/api", 8080, "ingress", service="api"), "srv", pointer, why)
    unauthorised = nearest([*closed(), srv], "", "shop/web", "shop/api", 8080, "ingress")
    assert unauthorised == (), "a Server that nothing authorises would refuse it as well"


@pytest.mark.parametrize(
    ("entry", "hosts", "why"),
    [
        ({"path": {"type": "PathPrefix", "value": "/b"}}, [], "the path is /a/1, the route wants PathPrefix /b"),
        ({"path": {"type": "Exact", "value": "/a"}}, [], "the path is /a/1, the route wants Exact /a"),
        ({"method": "GET"}, [], "the method is POST, the route wants GET"),
        ({"headers": [{"name": "x-team", "value": "red"}]}, [], "the request has no header x-team: red"),
        ({}, ["other.shop"], "the host is api.shop, the route is for other.shop"),
    ],
)
def test_linkerd_routes(entry: Raw, hosts: list[str], why: str) -> None:
    parent = {"group": LINKERD_GROUP, "kind": "Server", "name": "srv"}
    spec: Raw = {"parentRefs": [parent], "rules": [{"matches": [entry]}]} | ({"hostnames": hosts} if hosts else {})
    objects = [*world(LINKERD), server(proxyProtocol="HTTP/1"), authorizing(server="r", kind="HTTPRoute")]
    objects.append(linkerd("HTTPRoute", "r", spec, "v1beta3"))
    asked = Http("POST", "/a/1", "api.shop", {"x-team": "blue"})
    found = nearest(objects, "", "shop/web", "shop/api", 8080, "ingress", http=asked)
    told(found, "r", "/spec/rules/0/matches/0", why)


def test_linkerd_clients_outside_the_mesh() -> None:
    found = nearest(closed("all-authenticated"), "", "data/job", "shop/api", 8080, "ingress")
    told(
        found,
        "shop",
        "/metadata/annotations/config.linkerd.io~1default-inbound-policy",
        "pod data/job sends no identity of the mesh: it is not in the mesh",
    )
    objects = [*world(LINKERD), server(), authorizing(WHO), identities("*")]
    found = nearest(objects, "", "data/job", "shop/api", 8080, "ingress")
    told(found, "x", "/spec", "pod data/job sends no identity of the mesh: it is not in the mesh")  # fmt: skip
