"""Linkerd: the full table, a case for every row of the semantics and more, since there is no other engine to compare with.

Sources: "index" = linkerd2 `policy-controller/k8s/index/src/inbound/*`; "defaults" = there `../defaults.rs`; "webhook" =
`policy-controller/src/admission.rs`; "grpc" = `policy-controller/grpc/src/inbound.rs`; "egress" =
`policy-controller/k8s/index/src/outbound/index/egress_network.rs` and linkerd.io/2/reference/egress-network; "proxy" =
linkerd2-proxy `linkerd/app/inbound/src/policy` and `linkerd/proxy/server-policy`; "match" = there
`linkerd/http/route/src`.
"""

from __future__ import annotations

from typing import Any

import pytest
from policy_build import namespace, obj, one, pod, service

from mcdoctor.policy.addresses import parse_ip
from mcdoctor.policy.engine import load
from mcdoctor.policy.path import Answer, ask
from mcdoctor.policy.question import Address, Fqdn, Http, NodeName, PodName, Question, ServiceName
from mcdoctor.policy.smallest import suggest
from mcdoctor.policy.world import ClusterInput

MESHED: dict[str, Any] = {"containers": ("app", "linkerd-proxy")}
WEB, API, JOB = PodName("shop", "web"), PodName("shop", "api"), PodName("old", "job")
NEAR_JOB = PodName("old", "near")  # neither job is meshed; this one's address is in the cluster networks
OUTSIDE = Address(parse_ip("198.51.100.7"))
ID = "web-sa.shop.serviceaccount.identity.linkerd.cluster.local"


def policy(
    kind: str, name: str, spec: Any, version: str = "v1alpha1", home: str = "shop", **meta: Any
) -> dict[str, Any]:
    return obj(f"policy.linkerd.io/{version}", kind, home, name, spec, **meta)


def server(
    port: int | str = 8080, name: str = "api", *, labels: dict[str, str] | None = None, created: str = "", **spec: Any
) -> dict[str, Any]:
    meta = ({"labels": labels} if labels else {}) | ({"creationTimestamp": created} if created else {})
    return policy(
        "Server", name, {"podSelector": {"matchLabels": {"app": "api"}}, "port": port, **spec}, "v1beta3", **meta
    )


def grant(client: Any, name: str = "grant", target: Any = None) -> dict[str, Any]:
    return policy(
        "ServerAuthorization",
        name,
        {"server": {"name": "api"} if target is None else target, "client": client},
        "v1beta1",
    )


def authorization(
    *refs: tuple[str, str], kind: str = "Server", target: str = "api", group: str = "policy.linkerd.io"
) -> dict[str, Any]:
    group = "" if kind == "Namespace" else group
    listed = [{"group": "policy.linkerd.io" if k != "ServiceAccount" else "", "kind": k, "name": n} for k, n in refs]
    spec = {"targetRef": {"group": group, "kind": kind, "name": target}, "requiredAuthenticationRefs": listed}
    return policy("AuthorizationPolicy", f"for-{target}", spec)


def identities(*names: str, refs: Any = None) -> dict[str, Any]:
    return policy("MeshTLSAuthentication", "known", {"identities": list(names)} if names else {"identityRefs": refs})


def networks(*blocks: Any) -> dict[str, Any]:
    return policy("NetworkAuthentication", "near", {"networks": list(blocks)})


def answer(
    *objects: dict[str, Any],
    source: Any = WEB,
    port: int | None = 8080,
    http: Http | None = None,
    annotations: dict[str, str] | None = None,
    home: dict[str, str] | None = None,
    probes: dict[str, Any] | None = None,
    **rest: Any,
) -> Answer:
    api = pod(
        "shop",
        "api",
        {"app": "api"},
        ip="10.0.0.2",
        ports={"http": 8080, "admin": 9990},
        annotations=annotations,
        **MESHED,
    )
    api["spec"]["containers"][0] |= probes or {}
    shop = namespace("shop")
    shop["metadata"]["annotations"] = home or {}
    web = pod("shop", "web", {"app": "web"}, ip="10.0.0.1", account="web-sa", **MESHED)
    job = pod("old", "job", {"app": "job"}, ip="203.0.113.5", node="n9")
    near = pod("old", "near", {"app": "job"}, ip="10.0.0.9", node="n9")
    engine = one(shop, namespace("old"), web, api, job, near, *objects)
    assert not [r for r in engine.refusals if r.fatal], engine.refusals
    return ask(engine, Question(source, API, port, http=http, **rest))


def verdict(*objects: dict[str, Any], **rest: Any) -> str:
    return str(answer(*objects, **rest).verdict)


# --- Server --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objects", "port", "expected"),
    [
        ([server()], 8080, "denied"),  # a port with a Server is refused unless authorised
        ([server()], 9990, "allowed"),  # the other port has none
        ([server("http")], 8080, "denied"),  # by container port name
        ([server("nothing")], 8080, "allowed"),
        ([server(accessPolicy="all-unauthenticated")], 8080, "allowed"),  # accessPolicy replaces deny
        ([server(accessPolicy="audit")], 8080, "allowed"),
        ([server(accessPolicy="all-authenticated")], 8080, "allowed"),
        ([server(accessPolicy="deny")], 8080, "denied"),
        # two Servers on one port: the older wins, then by name
        ([server(name="a", accessPolicy="deny", created="2026-01-02T00:00:00Z"), server(name="b", accessPolicy="audit", created="2026-01-01T00:00:00Z")], 8080, "allowed"),
        ([server(name="a", accessPolicy="deny"), server(name="b", accessPolicy="audit")], 8080, "denied"),
    ],
)  # fmt: skip
def test_servers(objects: list[Any], port: int, expected: str) -> None:
    assert verdict(*objects, port=port) == expected


def test_named_ports_of_init_containers_count() -> None:
    engine_pod = pod("shop", "api", {"app": "api"}, ip="10.0.0.2", **MESHED)
    engine_pod["spec"]["initContainers"] = [{"name": "setup", "ports": [{"name": "boot", "containerPort": 7000}]}]
    web = pod("shop", "web", {"app": "web"}, ip="10.0.0.1", **MESHED)
    engine = one(namespace("shop"), web, engine_pod, server("boot"))
    assert ask(engine, Question(WEB, API, 7000)).verdict == "denied"


# --- default policies ----------------------------------------------------------------------------------------------

KEY = "config.linkerd.io/default-inbound-policy"


@pytest.mark.parametrize(
    ("name", "meshed", "plain_near", "outside"),
    [
        ("all-unauthenticated", "allowed", "allowed", "allowed"),
        ("all-authenticated", "allowed", "denied", "denied"),
        ("cluster-unauthenticated", "allowed", "allowed", "denied"),
        ("cluster-authenticated", "allowed", "denied", "denied"),
        ("deny", "denied", "denied", "denied"),
        ("audit", "allowed", "allowed", "allowed"),
    ],
)
def test_every_default_policy(name: str, meshed: str, plain_near: str, outside: str) -> None:
    noted = {KEY: name}
    assert verdict(annotations=noted) == meshed
    assert verdict(annotations=noted, mtls=False) == plain_near
    assert verdict(annotations=noted, source=OUTSIDE) == outside
    assert verdict(home=noted) == meshed
    assert verdict(server(accessPolicy=name)) == meshed
    assert verdict(server(accessPolicy=name), source=OUTSIDE) == outside


def config(values: str) -> dict[str, Any]:
    raw = obj("v1", "ConfigMap", "linkerd", "linkerd-config", None)
    return {k: v for k, v in raw.items() if k != "spec"} | {"data": {"values": values}}


def test_the_pod_beats_its_namespace_and_that_the_cluster() -> None:
    assert verdict(annotations={KEY: "audit"}, home={KEY: "deny"}) == "allowed"
    assert verdict(config("proxy: {defaultInboundPolicy: deny}")) == "denied"
    assert verdict(config("proxy: {defaultInboundPolicy: deny}"), home={KEY: "audit"}) == "allowed"


def test_cluster_networks_come_from_the_configuration() -> None:
    noted = {KEY: "cluster-unauthenticated"}
    assert verdict(config("clusterNetworks: 198.51.100.0/24"), source=OUTSIDE, annotations=noted) == "allowed"
    assert verdict(config("clusterNetworks: 198.51.100.0/24"), annotations=noted) == "denied"


# --- authorisations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "meshed", "plain"),
    [
        ({"unauthenticated": True}, "allowed", "denied"),  # without networks: the cluster's (grpc, to_authz)
        ({"unauthenticated": True, "networks": [{"cidr": "0.0.0.0/0"}]}, "allowed", "allowed"),
        ({"unauthenticated": True, "networks": [{"cidr": "10.0.0.1"}]}, "allowed", "denied"),  # a bare address
        ({"unauthenticated": True, "networks": [{"cidr": "10.0.0.0/8"}]}, "allowed", "denied"),
        (
            {"unauthenticated": True, "networks": [{"cidr": "10.0.0.0/8", "except": ["10.0.0.1/32"]}]},
            "denied",
            "denied",
        ),
        ({"meshTLS": {"unauthenticatedTLS": True}}, "allowed", "denied"),
        ({"meshTLS": {"identities": ["*"]}}, "allowed", "denied"),
        ({"meshTLS": {"identities": [ID]}}, "allowed", "denied"),
        ({"meshTLS": {"identities": ["*.shop.serviceaccount.identity.linkerd.cluster.local"]}}, "allowed", "denied"),
        ({"meshTLS": {"identities": ["*.cluster.local"]}}, "allowed", "denied"),
        ({"meshTLS": {"identities": ["web-sa.*"]}}, "denied", "denied"),
        ({"meshTLS": {"serviceAccounts": [{"name": "web-sa"}]}}, "allowed", "denied"),
        ({"meshTLS": {"serviceAccounts": [{"name": "web-sa", "namespace": "old"}]}}, "denied", "denied"),
    ],
)
def test_server_authorizations(client: Any, meshed: str, plain: str) -> None:
    assert verdict(server(), grant(client)) == meshed
    assert verdict(server(), grant(client), source=JOB) == plain


def test_a_server_authorization_finds_servers_by_label() -> None:
    by_label = grant({"unauthenticated": True}, target={"selector": {"matchLabels": {"team": "x"}}})
    assert verdict(server(labels={"team": "x"}), by_label) == "allowed"
    assert verdict(server(), by_label) == "denied"


NEAR, KNOWN, ACCOUNT = (
    ("NetworkAuthentication", "near"),
    ("MeshTLSAuthentication", "known"),
    ("ServiceAccount", "web-sa"),
)


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([authorization()], "allowed"),  # an empty list means no condition
        ([authorization(KNOWN), identities(ID)], "allowed"),
        ([authorization(KNOWN), identities("other")], "denied"),
        ([authorization(KNOWN)], "denied"),  # a missing reference: the policy counts as absent
        ([authorization(NEAR), networks({"cidr": "10.0.0.0/24"})], "allowed"),
        ([authorization(NEAR), networks({"cidr": "10.0.0.0/24", "except": ["10.0.0.0/31"]})], "denied"),
        ([authorization(KNOWN, NEAR), identities(ID), networks({"cidr": "10.0.0.0/24"})], "allowed"),  # AND
        ([authorization(KNOWN, NEAR), identities(ID), networks({"cidr": "10.9.0.0/24"})], "denied"),
        ([authorization(ACCOUNT)], "allowed"),
        ([authorization(KNOWN), identities(refs=[{"kind": "ServiceAccount", "name": "web-sa"}])], "allowed"),
        ([authorization(KNOWN), identities(refs=[{"kind": "Namespace", "name": "shop"}])], "allowed"),
        ([authorization(KNOWN), identities(refs=[{"kind": "Namespace", "name": "old"}])], "denied"),
        ([authorization(kind="Namespace", target="shop")], "allowed"),  # of the Server's namespace
        ([authorization(target="other")], "denied"),
        ([authorization(KNOWN), identities("other"), grant({"unauthenticated": True})], "allowed"),  # OR'ed
    ],
)
def test_authorization_policies(objects: list[Any], expected: str) -> None:
    assert verdict(server(), *objects) == expected


def test_an_explicit_principal_and_spiffe_ids() -> None:
    spiffe = "spiffe://root/ns/x/sa/y"
    assert verdict(server(), authorization(KNOWN), identities(spiffe), source=JOB, principal=spiffe) == "allowed"
    other = identities("spiffe://root/ns/x")
    assert verdict(server(), authorization(KNOWN), other, source=JOB, principal=spiffe) == "denied"
    assert verdict(server(), authorization(KNOWN), identities("*"), source=JOB, principal=spiffe) == "allowed"


def test_the_trust_domain_and_control_plane_namespace_are_part_of_the_identity() -> None:
    assert verdict(server(), authorization(ACCOUNT), config("identityTrustDomain: corp.example")) == "allowed"
    assert (
        verdict(server(), authorization(KNOWN), identities(ID), config("identityTrustDomain: corp.example")) == "denied"
    )


# --- routes --------------------------------------------------------------------------------------------------------


GATEWAY = "gateway.networking.k8s.io"
GATEWAY_V1 = f"{GATEWAY}/v1"


def route(
    name: str,
    *matches: Any,
    version: str = "policy.linkerd.io/v1beta3",
    kind: str = "HTTPRoute",
    metadata: dict[str, Any] | None = None,
    refused: bool = False,
    **spec: Any,
) -> dict[str, Any]:
    parent = {"group": "policy.linkerd.io", "kind": "Server", "name": "api"}
    rules = [{"matches": list(matches)}] if matches else [{}]
    raw = obj(version, kind, "shop", name, {"parentRefs": [parent], "rules": rules, **spec}, **(metadata or {}))
    if refused:
        raw["status"] = {"parents": [{"parentRef": parent, "conditions": [{"type": "Accepted", "status": "False"}]}]}
    return raw


def path(value: str, kind: str = "PathPrefix") -> dict[str, Any]:
    return {"path": {"type": kind, "value": value}}


GET, PUT = Http("GET", "/api/x", "api"), Http("PUT", "/api/x", "api")


@pytest.mark.parametrize(
    ("objects", "http", "expected"),
    [
        ([route("r", path("/other")), authorization()], GET, "denied"),  # unmatched: 404, whatever authorises the Server
        ([route("r", path("/api")), authorization(kind="HTTPRoute", target="r")], GET, "allowed"),
        ([route("r", path("/api"))], GET, "denied"),
        ([route("r", path("/api")), authorization()], GET, "allowed"),
        ([route("r", path("/ap")), authorization(kind="HTTPRoute", target="r")], GET, "denied"),  # prefixes are of segments
        ([route("r", path("/api/x", "Exact")), authorization(kind="HTTPRoute", target="r")], GET, "allowed"),
        ([route("r", path("/api/[a-z]", "RegularExpression")), authorization(kind="HTTPRoute", target="r")], GET, "allowed"),
        ([route("r", {"method": "GET"}), authorization(kind="HTTPRoute", target="r")], PUT, "denied"),
        ([route("wide", path("/")), route("narrow", path("/api")), authorization(kind="HTTPRoute", target="wide")], GET, "denied"),
        ([route("r", path("/"), hostnames=["*.example"]), authorization()], GET, "denied"),
        ([route("r", path("/api"), version=GATEWAY_V1), authorization(kind="HTTPRoute", target="r", group=GATEWAY)], GET, "allowed"),
        ([route("r", path("/api"), version=GATEWAY_V1), authorization(kind="HTTPRoute", target="r")], GET, "denied"),  # the group counts (index)
        ([route("r", path("/api/")), authorization(kind="HTTPRoute", target="r")], Http("GET", "/api", "api"), "allowed"),
        ([route("r", path("/api/x")), route("s", {**path("/api/x"), "method": "GET"}), authorization(kind="HTTPRoute", target="s")], GET, "allowed"),  # a method is more specific
        ([route("r", path("/api/x"), metadata={"creationTimestamp": "2026-01-02T00:00:00Z"}), route("s", path("/api/x"), metadata={"creationTimestamp": "2026-01-01T00:00:00Z"}), authorization(kind="HTTPRoute", target="s")], GET, "allowed"),  # then the oldest
        ([route("a", path("/api/x")), route("b", path("/api/x")), authorization(kind="HTTPRoute", target="b")], GET, "denied"),  # then by name
        ([route("r", path("/"), hostnames=["api"]), route("s", path("/api/x")), authorization(kind="HTTPRoute", target="s")], GET, "denied"),  # a host beats a path
        ([route("r", {"queryParams": [{"name": "q", "value": "1"}]}), authorization()], Http("GET", "/x?q=1&q=2"), "allowed"),
        ([route("r", {"queryParams": [{"name": "q", "value": "1"}]}), authorization()], Http("GET", "/x"), "denied"),
        ([route("r", {"headers": [{"name": "X", "value": "a|ab", "type": "RegularExpression"}]}), authorization()], Http("GET", "/", headers={"x": "ab"}), "denied"),  # the first alternative must be the whole
        ([route("r", refused=True), authorization()], GET, "allowed"),  # a route that the controller did not accept is not attached
        ([route("r", path("/api")), authorization(kind="HTTPRoute", target="r")], None, "conditional"),
        ([route("r", path("/")), authorization()], None, "allowed"),  # HTTP or not, the Server's authorisation admits it
        ([route("r", path("/")), authorization(kind="HTTPRoute", target="r")], None, "conditional"),  # what is not HTTP has no route
        ([route("r", {"headers": [{"name": "x", "value": "1"}]}), authorization()], Http("GET", "/", headers={"x": "1"}), "allowed"),
    ],
)  # fmt: skip
def test_routes(objects: list[Any], http: Http | None, expected: str) -> None:
    assert verdict(server(), *objects, http=http) == expected


def test_opaque_ports_lose_their_routes() -> None:
    assert verdict(server(proxyProtocol="opaque"), route("r", path("/x")), authorization(), http=None) == "allowed"
    assert verdict(server(proxyProtocol="TLS"), route("r", path("/x")), authorization(), http=None) == "allowed"
    noted = {"config.linkerd.io/opaque-ports": "8000-8100"}
    assert verdict(server(), route("r", path("/x")), authorization(), annotations=noted) == "allowed"
    # Only a meshed client knows the annotation; for others the Server's protocol is looked for (index, inbound_server).
    assert (
        verdict(server(), route("r", path("/x")), authorization(), annotations=noted, mtls=False, http=GET) == "denied"
    )


def call(service: str, method: str) -> dict[str, Any]:
    return {"method": {"service": service, "method": method}}


@pytest.mark.parametrize(
    ("rpc", "expected"),
    [
        (Http("POST", "/shop.Cart/Add"), "allowed"),
        (Http("POST", "/shop.Cart/Drop"), "denied"),
        (Http("GET", "/shop.Cart/Add"), "denied"),  # gRPC is always POST (match)
        (Http("POST", "/shop.Other/Add"), "denied"),
    ],
)
def test_grpc_routes_count_on_grpc_servers_only(rpc: Http, expected: str) -> None:
    only = route("r", call("shop.Cart", "Add"), kind="GRPCRoute", version=GATEWAY_V1)
    granted = authorization(kind="GRPCRoute", target="r", group=GATEWAY)
    assert verdict(server(proxyProtocol="gRPC"), only, granted, http=rpc) == expected
    assert verdict(server(proxyProtocol="gRPC"), route("h", path("/x")), authorization(), http=rpc) == "allowed"
    assert verdict(server(), only, granted, http=rpc) == "denied"  # grpc, to_server: other protocols get HTTPRoutes


PROBES = {"livenessProbe": {"httpGet": {"path": "/healthz?full=1", "port": "http"}}}


def test_probes_are_let_in_only_while_no_route_is_attached() -> None:
    probe = Http("GET", "/healthz")
    assert verdict(server(), source=NodeName("n1"), http=probe, probes=PROBES) == "allowed"
    assert verdict(server(), source=NodeName("n1"), http=Http("GET", "/"), probes=PROBES) == "denied"
    assert verdict(server(), source=NodeName("n1"), http=Http("POST", "/healthz"), probes=PROBES) == "denied"
    assert verdict(server(), route("r", path("/api")), source=NodeName("n1"), http=probe, probes=PROBES) == "denied"
    assert verdict(source=NodeName("n1"), http=probe, probes=PROBES, annotations={KEY: "deny"}) == "allowed"
    # The exemption is a route, and only what is taken for HTTP has routes.
    assert verdict(server(proxyProtocol="opaque"), source=NodeName("n1"), http=probe, probes=PROBES) == "denied"
    assert verdict(server(proxyProtocol="gRPC"), source=NodeName("n1"), http=probe, probes=PROBES) == "denied"


def test_probes_come_from_the_probe_networks() -> None:
    probe, narrow = Http("GET", "/healthz"), config("policyController: {probeNetworks: [203.0.113.0/24]}")
    assert verdict(server(), narrow, source=JOB, http=probe, probes=PROBES) == "allowed"
    assert verdict(server(), narrow, source=NEAR_JOB, http=probe, probes=PROBES) == "denied"


def test_a_request_of_a_node_that_was_not_said_may_be_a_probe() -> None:
    assert verdict(server(), source=NodeName("n1"), probes=PROBES) == "conditional"
    assert verdict(server(), source=JOB, probes=PROBES) == "denied"  # an application's traffic is not taken for one


# --- ports, directions, the mesh -----------------------------------------------------------------------------------


def test_ports_that_require_an_identity() -> None:
    noted = {"config.linkerd.io/proxy-require-identity-inbound-ports": "8080"}
    assert verdict(annotations=noted) == "allowed"
    assert verdict(annotations=noted, source=JOB) == "denied"
    assert verdict(annotations=noted | {KEY: "cluster-unauthenticated"}) == "allowed"
    assert verdict(annotations=noted | {KEY: "cluster-unauthenticated"}, source=NEAR_JOB) == "denied"
    # index, default_inbound_server: neither `audit` nor a port with a Server is touched by it.
    assert verdict(annotations=noted | {KEY: "audit"}, source=JOB) == "allowed"
    assert verdict(server(accessPolicy="all-unauthenticated"), annotations=noted, source=JOB) == "allowed"


def test_skipped_ports_are_outside_all_policy() -> None:
    noted = {"config.linkerd.io/skip-inbound-ports": "25,8000-8100"}
    assert verdict(server(), annotations=noted) == "allowed"
    assert verdict(server(9990), annotations=noted, port=9990) == "denied"
    assert verdict(server(), home=noted) == "allowed"  # the injector copies what the namespace has
    assert verdict(server(), config("proxyInit: {ignoreInboundPorts: 8080}")) == "allowed"


def test_the_init_container_says_which_ports_are_skipped() -> None:
    def told(port: int, ignored: str) -> str:
        api = pod(
            "shop", "api", {"app": "api"}, ip="10.0.0.2", annotations={"config.linkerd.io/skip-inbound-ports": "1"}
        )
        api["spec"]["containers"].append({"name": "linkerd-proxy"})
        arguments = ["--proxy-uid", "2102", "--inbound-ports-to-ignore", ignored]
        api["spec"]["initContainers"] = [{"name": "linkerd-init", "args": arguments}]
        engine = one(namespace("shop"), pod("shop", "web", ip="10.0.0.1"), api, server(port))
        return str(ask(engine, Question(WEB, API, port)).verdict)

    assert told(8080, "4190,4191,8080") == "allowed"
    assert told(8080, "4190,4191") == "denied"
    assert told(4191, "4190,4191") == "denied"  # the proxy's own admin port knows its Server
    assert told(4190, "") == "allowed"


def test_the_proxys_own_port_takes_only_connections_with_an_identity() -> None:
    assert verdict(port=4143) == "allowed"
    assert verdict(port=4143, source=JOB) == "denied"  # proxy, direct.rs: RefusedNoIdentity
    assert verdict(server(4143), port=4143) == "denied"


def test_a_client_that_skips_its_proxy_has_no_identity() -> None:
    web = pod("shop", "web", ip="10.0.0.1", annotations={"config.linkerd.io/skip-outbound-ports": "8080"}, **MESHED)
    api = pod("shop", "api", {"app": "api"}, ip="10.0.0.2", **MESHED)
    behind = service("shop", "api", {"app": "api"}, [{"port": 80, "targetPort": 8080}])
    engine = one(namespace("shop"), web, api, behind, server(accessPolicy="all-authenticated"))
    assert ask(engine, Question(WEB, API, 8080)).verdict == "denied"
    # Before translation the client's rules see the port of the Service.
    assert ask(engine, Question(WEB, ServiceName("shop", "api"), 80)).verdict == "allowed"


def test_only_the_receiving_proxy_enforces_and_only_tcp() -> None:
    found = answer(server(), annotations={})
    assert (found.egress, found.ingress) == ("allowed", "denied")
    assert verdict(server(), protocol="UDP") == "allowed"
    web_server = policy("Server", "web", {"podSelector": {"matchLabels": {"app": "web"}}, "port": 8080}, "v1beta3")
    assert verdict(web_server) == "allowed"


def test_a_pod_outside_the_mesh_enforces_nothing() -> None:
    engine = one(
        namespace("shop"),
        pod("shop", "web", ip="10.0.0.1"),
        pod("shop", "api", {"app": "api"}, ip="10.0.0.2"),
        server(),
    )
    assert ask(engine, Question(WEB, API, 8080)).verdict == "allowed"


def test_native_sidecars_count_as_meshed() -> None:
    api = pod("shop", "api", {"app": "api"}, ip="10.0.0.2", native_sidecars=("linkerd-proxy",))
    engine = one(namespace("shop"), pod("shop", "web", ip="10.0.0.1"), api, server())
    assert ask(engine, Question(WEB, API, 8080)).verdict == "denied"


def test_what_decides_is_named() -> None:
    refused = answer(server())
    assert [(d.ref.kind, d.pointer, d.effect) for d in refused.deciding] == [("Server", "/spec", "deny")]
    admitted = answer(server(), grant({"unauthenticated": True}), authorization())
    assert [(d.ref.kind, d.pointer) for d in admitted.deciding] == [
        ("ServerAuthorization", "/spec/client"),
        ("AuthorizationPolicy", "/spec/requiredAuthenticationRefs"),
    ]
    by_default = answer(annotations={KEY: "deny"})
    assert [(d.ref.kind, d.pointer) for d in by_default.deciding] == [
        ("Pod", "/metadata/annotations/config.linkerd.io~1default-inbound-policy")
    ]


def test_the_smallest_change_authorises_exactly_this_account() -> None:
    web = pod("shop", "web", {"app": "web"}, ip="10.0.0.1", account="web-sa", **MESHED)
    api = pod("shop", "api", {"app": "api"}, ip="10.0.0.2", **MESHED)
    engine = one(namespace("shop"), web, api, server())
    suggestion = suggest(engine, ask(engine, Question(WEB, API, 8080)))
    assert suggestion is not None and suggestion.verdict == "allowed"
    assert suggestion.objects[0]["spec"]["client"] == {
        "meshTLS": {"serviceAccounts": [{"namespace": "shop", "name": "web-sa"}]}
    }


# --- configuration -------------------------------------------------------------------------------------------------


def destination(*arguments: str) -> dict[str, Any]:
    raw = pod("linkerd", "linkerd-destination", {"linkerd.io/control-plane-component": "destination"}, **MESHED)
    raw["spec"]["containers"].append({"name": "policy", "args": list(arguments)})
    return raw


def test_the_policy_controllers_arguments_are_what_counts() -> None:
    asked = config("proxy: {defaultInboundPolicy: all-unauthenticated}")
    found = answer(asked, destination("--grpc-addr=0.0.0.0:8090", "--default-policy=deny"))
    assert [(d.ref.name, d.pointer) for d in found.deciding] == [("linkerd-destination", "/spec/containers/2/args/1")]
    far = {KEY: "cluster-unauthenticated"}
    assert verdict(destination("--cluster-networks", "198.51.100.0/24"), source=OUTSIDE, annotations=far) == "allowed"
    known = identities("web-sa.shop.serviceaccount.identity.control.corp")
    told = destination("--control-plane-namespace=control", "--identity-domain=corp")
    assert verdict(server(), authorization(KNOWN), known, told) == "allowed"


def test_without_them_the_proxys_variables_tell() -> None:
    def asked(variables: dict[str, str], *objects: dict[str, Any]) -> Answer:
        env = [{"name": name, "value": value} for name, value in variables.items()]
        api = pod("shop", "api", {"app": "api"}, ip="10.0.0.2", **MESHED)
        api["spec"]["containers"][1]["env"] = env
        web = pod("shop", "web", ip="10.0.0.1", account="web-sa", **MESHED)
        return ask(one(namespace("shop"), api, web, *objects), Question(WEB, API, 8080))

    refused = asked({"LINKERD2_PROXY_INBOUND_DEFAULT_POLICY": "deny"})
    assert [(d.ref.name, d.pointer) for d in refused.deciding] == [("api", "/spec/containers/1/env/0/value")]
    local = {"LINKERD2_PROXY_IDENTITY_LOCAL_NAME": "$(_pod_sa).$(_pod_ns).serviceaccount.identity.mesh.corp.example"}
    known = identities("web-sa.shop.serviceaccount.identity.mesh.corp.example")
    assert asked(local, server(), authorization(KNOWN), known).verdict == "allowed"


def test_a_port_that_was_not_said_is_conditional_where_it_matters() -> None:
    assert verdict(server(), port=None) == "conditional"
    assert verdict(server(accessPolicy="audit"), port=None) == "allowed"
    assert verdict(server(), annotations={KEY: "deny"}, port=None) == "denied"


# --- across clusters -----------------------------------------------------------------------------------------------


def test_through_the_gateway_the_gateways_identity_arrives() -> None:
    gateway = pod("linkerd-multicluster", "gw", {"app": "linkerd-gateway"}, ip="10.9.0.9", account="gw", **MESHED)
    outer = service(
        "linkerd-multicluster", "linkerd-gateway", {"app": "linkerd-gateway"}, [{"name": "mc-gateway", "port": 4143}],
        type="LoadBalancer",
    )  # fmt: skip
    far = (
        namespace("shop"),
        namespace("linkerd-multicluster"),
        pod("shop", "api", {"app": "api"}, ip="10.9.0.2", ports={"http": 8080}, **MESHED),
        gateway,
        outer,
        server(),
    )
    near = (namespace("shop"), pod("shop", "web", {"app": "web"}, ip="10.0.0.1", account="web-sa", **MESHED))

    def through(*policies: dict[str, Any], known: bool = True) -> str:
        there = (*far, *policies) if known else (*far[:3], server(), *policies)
        engine = load([ClusterInput("a", near), ClusterInput("b", there)])
        question = Question(PodName("shop", "web", "a"), PodName("shop", "api", "b"), 8080, via="linkerd")
        return str(ask(engine, question).ingress)

    name = "gw.linkerd-multicluster.serviceaccount.identity.linkerd.cluster.local"
    assert through(authorization(KNOWN), identities(ID)) == "denied"
    assert through(authorization(KNOWN), identities(name)) == "allowed"
    # A gateway that is not among the objects has an identity that nobody knows.
    assert through(authorization(KNOWN), identities(ID), known=False) == "unknown"
    assert through(known=False) == "denied"


def test_in_a_flat_network_the_clients_identity_arrives_with_its_own_trust_domain() -> None:
    meshed = pod("shop", "web", {"app": "web"}, ip="10.1.0.1", account="web-sa", **MESHED)
    near = (namespace("shop"), meshed, config("identityTrustDomain: near"))
    api = pod("shop", "api", {"app": "api"}, ip="10.9.0.2", **MESHED)

    def through(name: str) -> str:
        far = (namespace("shop"), api, server(), authorization(KNOWN), identities(name))
        engine = load([ClusterInput("a", near), ClusterInput("b", far)])
        question = Question(PodName("shop", "web", "a"), PodName("shop", "api", "b"), 8080, via="flat")
        return str(ask(engine, question).ingress)

    assert through("web-sa.shop.serviceaccount.identity.linkerd.near") == "allowed"
    assert through(ID) == "denied"


# --- EgressNetwork -------------------------------------------------------------------------------------------------


def egress(name: str = "out", policy_: str = "Deny", home: str = "shop", networks: Any = None, **meta: Any) -> Any:
    spec = {"trafficPolicy": policy_} | ({"networks": [{"cidr": n} for n in networks]} if networks else {})
    return policy("EgressNetwork", name, spec, home=home, **meta)


def outward(kind: str, *rules: Any, port: int = 443, version: str = "v1alpha2", **spec: Any) -> dict[str, Any]:
    parent = {"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out", "port": port}
    return obj(f"{GATEWAY}/{version}", kind, "shop", "way", {"parentRefs": [parent], "rules": list(rules), **spec})


def leaving(*objects: dict[str, Any], to: Any = OUTSIDE, port: int = 443, http: Http | None = None) -> str:
    engine = one(
        namespace("shop"), pod("shop", "web", ip="10.0.0.1", **MESHED), pod("shop", "api", ip="10.0.0.2"), *objects
    )
    assert not engine.refusals, engine.refusals
    return str(ask(engine, Question(WEB, to, port, http=http)).egress)


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([], "allowed"),
        ([egress()], "denied"),
        ([egress(policy_="Allow")], "allowed"),
        ([egress(home="linkerd-egress")], "denied"),  # the global namespace
        ([egress(home="linkerd-egress"), egress(policy_="Allow")], "allowed"),  # the own namespace takes priority
        ([egress(home="old")], "allowed"),
        ([egress(networks=["203.0.113.0/24"])], "allowed"),  # not captured
        ([egress("a", networks=["198.51.0.0/16"]), egress("b", "Allow", networks=["198.51.100.0/24"])], "allowed"),  # the narrower
        ([egress("a", creationTimestamp="2026-01-02T00:00:00Z"), egress("b", "Allow", creationTimestamp="2026-01-01T00:00:00Z")], "allowed"),  # the older
        ([egress("a"), egress("b", "Allow")], "denied"),  # by name
        ([egress(), outward("TCPRoute", {})], "allowed"),  # every connection on the port
        ([egress(), outward("TCPRoute", {}, port=80)], "denied"),  # another port
        ([egress(), outward("TLSRoute", {}, hostnames=["api.example"])], "conditional"),
        ([egress(), outward("HTTPRoute", {"matches": [path("/x")]}, version="v1")], "conditional"),
    ],
)  # fmt: skip
def test_egress_networks(objects: list[Any], expected: str) -> None:
    assert leaving(*objects) == expected


def test_http_routes_of_an_egress_network_describe_requests() -> None:
    way = outward("HTTPRoute", {"matches": [path("/x")]}, version="v1", hostnames=["*.example"])
    assert leaving(egress(), way, http=Http("GET", "/x/y", "api.example")) == "allowed"
    assert leaving(egress(), way, http=Http("GET", "/z", "api.example")) == "denied"
    assert leaving(egress(), way, http=Http("GET", "/x", "example")) == "denied"


def test_names_and_pods_as_destinations() -> None:
    assert leaving(egress(), to=Fqdn("api.example")) == "conditional"  # it may resolve to a cluster network
    assert leaving(egress(policy_="Allow"), to=Fqdn("api.example")) == "allowed"
    assert leaving(egress(), to=API) == "allowed"  # the cluster networks are outside of it
    assert leaving(egress(networks=["10.0.0.0/8"]), to=API) == "unknown"
    skipped = pod("shop", "web", ip="10.0.0.1", annotations={"config.linkerd.io/skip-outbound-ports": "443"}, **MESHED)
    assert leaving(egress(), skipped) == "allowed"
    assert leaving(egress(), pod("shop", "web", ip="10.0.0.1")) == "allowed"  # outside the mesh


# --- rows that a second reading found without a case of their own ---------------------------------------------------


def test_a_server_of_external_workloads_says_nothing_about_pods() -> None:  # index, server selector
    outer = policy("Server", "api", {"externalWorkloadSelector": {}, "port": 8080}, "v1beta3")
    assert verdict(outer) == "allowed"


def test_a_grant_for_the_namespace_is_for_ports_with_a_server() -> None:  # index: authorizations belong to servers
    assert verdict(authorization(kind="Namespace", target="shop"), home={KEY: "deny"}) == "denied"
    assert verdict(server(), authorization(kind="Namespace", target="shop"), home={KEY: "deny"}) == "allowed"


@pytest.mark.parametrize("ip", ["10.9.0.1", "100.64.0.1", "172.31.0.1", "192.168.9.9"])
def test_the_cluster_networks_are_the_private_ranges_by_default(ip: str) -> None:  # defaults
    noted = {KEY: "cluster-unauthenticated"}
    assert verdict(annotations=noted, source=Address(parse_ip(ip))) == "allowed"


def test_opaque_ports_travel_inside_the_proxies_own_port() -> None:  # policy.md 4.1: 4143 by the transport header
    noted = {"config.linkerd.io/opaque-ports": "8080"}

    def admitting(port: int) -> dict[str, Any]:
        rule = {"from": [{"podSelector": {}}], "ports": [{"port": port}]}
        return obj("networking.k8s.io/v1", "NetworkPolicy", "shop", "in", {"podSelector": {}, "ingress": [rule]})

    assert verdict(admitting(4143), annotations=noted) == "allowed"
    assert verdict(admitting(8080), annotations=noted) == "denied"
    assert verdict(admitting(8080)) == "allowed"
    assert verdict(admitting(8080), annotations=noted, mtls=False) == "allowed"


@pytest.mark.parametrize(("value", "expected"), [("ALL-AUTHENTICATED", "allowed"), ("nonsense", "allowed"), ("", "allowed")])  # fmt: skip
def test_an_annotation_that_is_no_policy_does_not_count(value: str, expected: str) -> None:  # defaults: FromStr
    assert verdict(annotations={KEY: value}, source=JOB) == expected
