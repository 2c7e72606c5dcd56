"""Linkerd: the full table, a case for every row of the semantics and more, since there is no other engine to compare with.

Sources: linkerd2 `policy-controller/k8s/index/src/{defaults.rs,cluster_info.rs,inbound/*}`, `policy-controller/k8s/api`.
"""

from __future__ import annotations

from typing import Any

import pytest
from policy_build import namespace, obj, one, pod

from mcdoctor.policy.addresses import parse_ip
from mcdoctor.policy.path import Answer, ask
from mcdoctor.policy.question import Address, Http, NodeName, PodName, Question
from mcdoctor.policy.smallest import suggest

MESHED: dict[str, Any] = {"containers": ("app", "linkerd-proxy")}
WEB, API, JOB = PodName("shop", "web"), PodName("shop", "api"), PodName("old", "job")
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


def authorization(*refs: tuple[str, str], kind: str = "Server", target: str = "api") -> dict[str, Any]:
    group = "" if kind == "Namespace" else "policy.linkerd.io"
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
    port: int = 8080,
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
    engine = one(
        shop, namespace("old"), web, api, pod("old", "job", {"app": "job"}, ip="203.0.113.5", node="n9"), *objects
    )
    assert not engine.refusals, engine.refusals
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
        ({"unauthenticated": True}, "allowed", "allowed"),
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
    assert (
        verdict(server(), authorization(KNOWN), identities("spiffe://root/*"), source=JOB, principal=spiffe) == "denied"
    )


def test_the_trust_domain_and_control_plane_namespace_are_part_of_the_identity() -> None:
    assert verdict(server(), authorization(ACCOUNT), config("identityTrustDomain: corp.example")) == "allowed"
    assert (
        verdict(server(), authorization(KNOWN), identities(ID), config("identityTrustDomain: corp.example")) == "denied"
    )


# --- routes --------------------------------------------------------------------------------------------------------


def route(name: str, *matches: Any, version: str = "policy.linkerd.io/v1beta3", **spec: Any) -> dict[str, Any]:
    parent = {"group": "policy.linkerd.io", "kind": "Server", "name": "api"}
    return obj(
        version, "HTTPRoute", "shop", name, {"parentRefs": [parent], "rules": [{"matches": list(matches)}], **spec}
    )


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
        ([route("r", path("/api"), version="gateway.networking.k8s.io/v1"), authorization(kind="HTTPRoute", target="r")], GET, "allowed"),
        ([route("r", path("/api")), authorization(kind="HTTPRoute", target="r")], None, "conditional"),
        ([route("r", {"headers": [{"name": "x", "value": "1"}]}), authorization()], Http("GET", "/", headers={"x": "1"}), "allowed"),
    ],
)  # fmt: skip
def test_routes(objects: list[Any], http: Http | None, expected: str) -> None:
    assert verdict(server(), *objects, http=http) == expected


def test_opaque_ports_lose_their_routes() -> None:
    assert verdict(server(proxyProtocol="opaque"), route("r", path("/x")), authorization(), http=None) == "allowed"
    noted = {"config.linkerd.io/opaque-ports": "8000-8100"}
    assert verdict(server(), route("r", path("/x")), authorization(), annotations=noted) == "allowed"


PROBES = {"livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}}}


def test_probes_are_let_in_only_while_no_route_is_attached() -> None:
    probe = Http("GET", "/healthz")
    assert verdict(server(), source=NodeName("n1"), http=probe, probes=PROBES) == "allowed"
    assert verdict(server(), source=NodeName("n1"), http=Http("GET", "/"), probes=PROBES) == "denied"
    assert verdict(server(), route("r", path("/api")), source=NodeName("n1"), http=probe, probes=PROBES) == "denied"
    assert verdict(source=NodeName("n1"), http=probe, probes=PROBES, annotations={KEY: "deny"}) == "allowed"


# --- ports, directions, the mesh -----------------------------------------------------------------------------------


def test_ports_that_require_an_identity() -> None:
    noted = {"config.linkerd.io/proxy-require-identity-inbound-ports": "8080"}
    assert verdict(annotations=noted) == "allowed"
    assert verdict(annotations=noted, source=JOB) == "denied"
    assert verdict(server(accessPolicy="all-unauthenticated"), annotations=noted, source=JOB) == "denied"


def test_skipped_ports_are_outside_all_policy() -> None:
    noted = {"config.linkerd.io/skip-inbound-ports": "25,8000-8100"}
    assert verdict(server(), annotations=noted) == "allowed"
    assert verdict(server(9990), annotations=noted, port=9990) == "denied"


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


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        (policy("Server", "x", {"port": 80}, "v1beta3"), "/spec"),
        (policy("Server", "x", {"podSelector": {}, "port": 0}, "v1beta3"), "/spec/port"),
        (policy("Server", "x", {"podSelector": {}}, "v1beta3"), "/spec/port"),
        (
            policy("Server", "x", {"podSelector": {}, "port": 80, "accessPolicy": "open"}, "v1beta3"),
            "/spec/accessPolicy",
        ),
        (
            policy("Server", "x", {"podSelector": {}, "port": 80, "proxyProtocol": "http"}, "v1beta3"),
            "/spec/proxyProtocol",
        ),
        (grant({}, "x"), "/spec/client"),
        (grant({"meshTLS": {}}, "x"), "/spec/client/meshTLS"),
        (grant({"unauthenticated": True, "networks": [{"cidr": "10.0.0.0/99"}]}, "x"), "/spec/client/networks/0/cidr"),
        (grant({"unauthenticated": True}, "x", target={}), "/spec/server"),
        (authorization(KNOWN, ACCOUNT), "/spec/requiredAuthenticationRefs"),
        (authorization(("Secret", "x")), "/spec/requiredAuthenticationRefs/0/kind"),
        (authorization(kind="Namespace", target="old"), "/spec/targetRef/name"),
        (policy("MeshTLSAuthentication", "x", {}), "/spec"),
        (policy("NetworkAuthentication", "x", {"networks": []}), "/spec/networks"),
    ],
)
def test_what_would_be_refused_is_named_and_the_rest_stands(broken: Any, field: str) -> None:
    api = pod("shop", "api", {"app": "api"}, ip="10.0.0.2", **MESHED)
    engine = one(namespace("shop"), pod("shop", "web", ip="10.0.0.1"), api, server(), broken)
    assert [r.field for r in engine.refusals] == [field]
    assert ask(engine, Question(WEB, API, 8080)).verdict == "denied"
