"""Istio: a case for every row of the semantics.

Sources: "authz" = istio/istio `pilot/pkg/security/authz/{model,builder}`; "attach" = `pilot/pkg/model/{authorization,
policyattachment}.go`; "authn" = `pilot/pkg/model/authentication.go`, `pilot/pkg/security/authn`; "ambient" =
`pilot/pkg/serviceregistry/ambient/authorization.go` and istio/ztunnel `src/rbac.rs`; "docs" = istio.io reference pages.
"""

from __future__ import annotations

from typing import Any

import pytest
from policy_build import namespace, obj, one, pod, service

from mcdoctor.policy.addresses import parse_ip
from mcdoctor.policy.path import ask
from mcdoctor.policy.question import Address, Fqdn, Http, PodName, Question, ServiceName

SIDECAR = {"native_sidecars": ("istio-proxy",)}
AMBIENT = "istio.io/dataplane-mode"


def world(*objects: dict[str, Any], ambient: bool = False, protocol: str = "http"):
    shop = namespace("shop")
    if ambient:
        shop["metadata"]["labels"][AMBIENT] = "ambient"
    mesh: dict[str, Any] = {} if ambient else SIDECAR
    return one(
        shop,
        namespace("other"),
        pod("shop", "web", {"app": "web"}, ip="10.0.0.1", account="web", **mesh),
        pod("shop", "api", {"app": "api"}, ip="10.0.0.2", account="api", ports={protocol: 8080}, **mesh),
        pod("other", "bare", {"app": "bare"}, ip="10.0.0.3", account="bare"),
        service("shop", "api", {"app": "api"}, [{"name": protocol, "port": 80, "targetPort": 8080}]),
        *objects,
    )


def authz(rules: Any = None, action: str | None = None, *, home: str = "shop", name: str = "p", **spec: Any):
    body = dict(spec)
    if rules is not None:
        body["rules"] = rules
    if action:
        body["action"] = action
    return obj("security.istio.io/v1", "AuthorizationPolicy", home, name, body)


def peer(
    mode: str | None, *, home: str = "shop", name: str = "d", selector: Any = None, ports: Any = None, created: str = ""
):
    spec: dict[str, Any] = {}
    if mode:
        spec["mtls"] = {"mode": mode}
    if selector:
        spec["selector"] = {"matchLabels": selector}
    if ports:
        spec["portLevelMtls"] = {str(k): {"mode": v} for k, v in ports.items()}
    return obj(
        "security.istio.io/v1",
        "PeerAuthentication",
        home,
        name,
        spec,
        **({"creationTimestamp": created} if created else {}),
    )


def mesh(text: str):
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": "istio-system", "name": "istio"},
        "data": {"mesh": text},
    }


def get(path: str = "/", method: str = "GET", host: str = "api", **headers: str) -> Http:
    return Http(method, path, host, {k.replace("_", "-"): v for k, v in headers.items()})


def ingress(
    *objects: dict[str, Any],
    source: str = "shop/web",
    http: Http | None = None,
    port: int = 8080,
    ambient: bool = False,
    protocol: str = "http",
    **rest: Any,
) -> str:
    engine = world(*objects, ambient=ambient, protocol=protocol)
    assert engine.refusals == (), engine.refusals
    question = Question(PodName(*source.split("/")), PodName("shop", "api"), port, http=http, **rest)
    return str(ask(engine, question).ingress)


FROM_WEB = [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/web"]}}]}]
GETS = [{"to": [{"operation": {"methods": ["GET"]}}]}]


# --- order (authz/builder: CUSTOM, DENY, ALLOW) ---


def test_no_policy_allows():
    assert ingress() == "allowed"


def test_a_deny_beats_an_allow():
    assert ingress(authz([{}]), authz(FROM_WEB, "DENY", name="q")) == "denied"
    assert ingress(authz([{}]), authz(FROM_WEB, "DENY", name="q"), source="other/bare") == "allowed"


def test_with_an_allow_policy_one_must_match():
    assert ingress(authz(FROM_WEB)) == "allowed"
    assert ingress(authz(FROM_WEB), source="other/bare") == "denied"
    assert ingress(authz(GETS), authz(FROM_WEB, name="q"), http=get(method="POST")) == "allowed"


def test_audit_and_dry_run_do_nothing():
    assert ingress(authz(FROM_WEB, "AUDIT")) == "allowed"
    dry = authz(FROM_WEB, "DENY")
    dry["metadata"]["annotations"] = {"istio.io/dry-run": "true"}
    assert ingress(dry) == "allowed"


def test_custom_hangs_on_the_provider_and_an_unknown_one_denies():
    custom = authz([{}], "CUSTOM", provider={"name": "opa"})
    assert ingress(custom, mesh("extensionProviders: [{name: opa}]")) == "unknown"
    assert ingress(custom, mesh("extensionProviders: [{name: other}]")) == "denied"


# --- rules ---


@pytest.mark.parametrize(("action", "expected"), [(None, "denied"), ("ALLOW", "denied")])
def test_missing_or_empty_rules_never_match(action, expected):
    assert ingress(authz(None, action)) == expected
    assert ingress(authz([], action)) == expected
    assert ingress(authz(None, "DENY")) == "allowed"


def test_an_empty_rule_always_matches():
    assert ingress(authz([{}], "DENY")) == "denied"
    assert ingress(authz([{}]), source="other/bare") == "allowed"


def test_from_and_to_and_when_must_all_hold():
    rule = [{**FROM_WEB[0], **GETS[0], "when": [{"key": "request.headers[x-team]", "values": ["a"]}]}]
    assert ingress(authz(rule), http=get(x_team="a")) == "allowed"
    assert ingress(authz(rule), http=get(x_team="b")) == "denied"
    assert ingress(authz(rule), http=get(method="PUT", x_team="a")) == "denied"
    assert ingress(authz(rule), http=get(x_team="a"), source="other/bare") == "denied"


def test_within_a_source_fields_are_and_values_or_and_nots_exclude():
    source = {"namespaces": ["other", "shop"], "notPrincipals": ["*/sa/web"]}
    assert ingress(authz([{"from": [{"source": source}]}])) == "denied"
    assert ingress(authz([{"from": [{"source": {"namespaces": ["other", "shop"]}}]}])) == "allowed"
    assert (
        ingress(authz([{"from": [{"source": {"namespaces": ["x"]}}, {"source": {"principals": ["*"]}}]}])) == "allowed"
    )


# --- strings ---


@pytest.mark.parametrize(("pattern", "path", "match"), [
    ("/a", "/a", True), ("/a", "/a/b", False), ("/a*", "/a/b", True), ("*/b", "/a/b", True), ("*", "/", True),
    ("/v/{*}/x", "/v/1/x", True), ("/v/{*}/x", "/v/1/2/x", False), ("/v/{**}", "/v/1/2", True), ("/a", "/a?q=1", True),
])  # fmt: skip
def test_paths(pattern, path, match):
    rule = [{"to": [{"operation": {"paths": [pattern]}}]}]
    assert ingress(authz(rule), http=get(path)) == ("allowed" if match else "denied")


def test_hosts_fold_case_and_methods_do_not():
    assert ingress(authz([{"to": [{"operation": {"hosts": ["API.shop"]}}]}]), http=get(host="api.SHOP")) == "allowed"
    assert ingress(authz([{"to": [{"operation": {"methods": ["get"]}}]}]), http=get()) == "denied"


def test_ports_are_those_of_the_workload():
    assert ingress(authz([{"to": [{"operation": {"ports": ["8080"]}}]}])) == "allowed"
    assert ingress(authz([{"to": [{"operation": {"ports": ["80"]}}]}])) == "denied"


# --- identities ---


def test_principals_have_no_scheme_and_aliases_stand_for_one_another():
    config = mesh("trustDomain: new\ntrustDomainAliases: [old]")
    assert ingress(authz([{"from": [{"source": {"principals": ["old/ns/shop/sa/web"]}}]}]), config) == "allowed"
    pointer = authz([{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/web"]}}]}])
    assert (
        ingress(pointer, config) == "allowed"
    )  # pilot/pkg/trustdomain: cluster.local points to the local trust domain
    assert ingress(authz([{"from": [{"source": {"principals": ["spiffe://new/ns/shop/sa/web"]}}]}]), config) == "denied"


@pytest.mark.parametrize(("source", "expected"), [
    ({"namespaces": ["shop"]}, "allowed"), ({"namespaces": ["other"]}, "denied"), ({"namespaces": ["sh*"]}, "allowed"),
    ({"serviceAccounts": ["web"]}, "allowed"), ({"serviceAccounts": ["shop/web"]}, "allowed"), ({"serviceAccounts": ["other/web"]}, "denied"),
])  # fmt: skip
def test_namespaces_and_service_accounts(source, expected):
    assert ingress(authz([{"from": [{"source": source}]}])) == expected


@pytest.mark.parametrize(("source", "expected"), [
    ({"principals": ["*"]}, "denied"), ({"namespaces": ["other"]}, "denied"), ({"serviceAccounts": ["other/bare"]}, "denied"),
    ({"notPrincipals": ["*"]}, "allowed"), ({"notNamespaces": ["other"]}, "allowed"),
])  # fmt: skip
def test_plaintext_has_no_identity(source, expected):
    assert ingress(authz([{"from": [{"source": source}]}]), source="other/bare") == expected


def test_ip_blocks_are_the_peers_address():
    assert ingress(authz([{"from": [{"source": {"ipBlocks": ["10.0.0.1"]}}]}])) == "allowed"
    assert ingress(authz([{"from": [{"source": {"notIpBlocks": ["10.0.0.0/24"]}}]}])) == "denied"
    forwarded = authz([{"from": [{"source": {"remoteIpBlocks": ["1.2.3.4"]}}]}])
    assert ingress(forwarded, http=get(x_forwarded_for="1.2.3.4")) == "conditional"


def test_request_principals_need_a_token():
    rule = authz([{"from": [{"source": {"requestPrincipals": ["*"]}}]}])
    jwt = obj("security.istio.io/v1", "RequestAuthentication", "shop", "j", {"jwtRules": [{"issuer": "x"}]})
    assert ingress(rule, jwt, http=get()) == "denied"
    assert ingress(rule, jwt, http=get(authorization="Bearer x")) == "conditional"
    assert ingress(jwt, http=get()) == "allowed"
    assert ingress(jwt, http=get(authorization="Bearer x")) == "conditional"


# --- who enforces ---


def test_a_request_that_was_not_said_makes_it_conditional():
    assert ingress(authz(GETS)) == "conditional"


def test_http_fields_on_a_tcp_port_of_a_sidecar():
    assert ingress(authz(GETS), protocol="tcp") == "denied"  # the ALLOW rule is dropped
    assert ingress(authz(GETS, "DENY"), protocol="tcp") == "denied"  # only its condition is dropped: all TCP is refused
    mixed = authz([{**GETS[0], "from": [{"source": {"namespaces": ["x"]}}]}], "DENY")
    assert ingress(mixed, protocol="tcp") == "allowed"
    assert ingress(authz([{"from": [{"source": {"remoteIpBlocks": ["10.0.0.1"]}}]}]), protocol="tcp") == "allowed"


def test_an_undeclared_port_is_conditional_only_where_it_matters():
    assert ingress(authz(GETS, "DENY"), protocol="custom") == "conditional"
    assert ingress(authz(FROM_WEB), protocol="custom") == "allowed"


def test_http_fields_in_ztunnel():
    assert ingress(authz(GETS), ambient=True) == "denied"  # the rule is left out: an ALLOW that admits nothing
    assert ingress(authz(GETS, "DENY"), ambient=True) == "allowed"  # an HTTP-only DENY does nothing
    mixed = authz([{**GETS[0], **FROM_WEB[0]}], "DENY")
    assert ingress(mixed, ambient=True) == "allowed"  # the clause of HTTP fields alone never matches
    assert (
        ingress(authz([{"to": [{"operation": {"methods": ["GET"], "ports": ["8080"]}}]}], "DENY"), ambient=True)
        == "denied"
    )
    assert ingress(authz([{"from": [{"source": {"remoteIpBlocks": ["10.0.0.1"]}}]}]), ambient=True) == "denied"


def test_a_waypoint_enforces_what_targets_the_service_and_ztunnel_sees_the_waypoint():
    labelled = service("shop", "api", {"app": "api"}, [{"name": "http", "port": 80, "targetPort": 8080}])
    labelled["metadata"]["labels"] = {"istio.io/use-waypoint": "wp"}
    target = {"targetRefs": [{"kind": "Service", "group": "", "name": "api"}]}

    def through(*policies: dict[str, Any], http: Http | None) -> str:
        engine = world(labelled, *policies, ambient=True)
        return str(ask(engine, Question(PodName("shop", "web"), ServiceName("shop", "api"), 80, http=http)).ingress)

    assert through(authz(GETS, **target), http=get()) == "allowed"
    assert through(authz(GETS, **target), http=get(method="PUT")) == "denied"
    assert through(authz(FROM_WEB), http=get()) == "denied"  # at ztunnel the peer is the waypoint
    wp = [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/wp"]}}]}]
    assert through(authz(wp), http=get()) == "allowed"


def test_scope_root_namespace_own_namespace_and_selector():
    assert ingress(authz(None, home="istio-system")) == "denied"
    assert ingress(authz(None, home="other")) == "allowed"
    assert ingress(authz(None, selector={"matchLabels": {"app": "web"}})) == "allowed"
    assert ingress(authz(None, selector={"matchLabels": {"app": "api"}})) == "denied"


# --- PeerAuthentication ---


def test_strict_refuses_plaintext_and_the_default_does_not():
    assert ingress(source="other/bare") == "allowed"
    assert ingress(peer("STRICT"), source="other/bare") == "denied"
    assert ingress(peer("STRICT"), source="other/bare", ambient=True) == "denied"
    assert ingress(peer("STRICT")) == "allowed"


def test_workload_beats_namespace_beats_mesh_and_unset_inherits():
    strict = peer("STRICT", home="istio-system", name="m")
    assert ingress(strict, source="other/bare") == "denied"
    assert ingress(strict, peer("PERMISSIVE"), source="other/bare") == "allowed"
    assert ingress(strict, peer("UNSET"), source="other/bare") == "denied"
    own = peer("STRICT", name="w", selector={"app": "api"})
    assert ingress(peer("PERMISSIVE"), own, source="other/bare") == "denied"


def test_the_oldest_of_several_wins():
    old, new = (
        peer("STRICT", name="z", created="2024-01-01T00:00:00Z"),
        peer("PERMISSIVE", name="a", created="2025-01-01T00:00:00Z"),
    )
    assert ingress(old, new, source="other/bare") == "denied"


def test_port_level_mtls_is_keyed_by_the_container_port():
    own = peer("STRICT", name="w", selector={"app": "api"}, ports={8080: "DISABLE"})
    assert ingress(own, source="other/bare") == "allowed"
    assert (
        ingress(peer("STRICT", name="w", selector={"app": "api"}, ports={80: "DISABLE"}), source="other/bare")
        == "denied"
    )


def test_outside_the_mesh_nothing_is_enforced():
    engine = world(authz(None), authz(None, home="other", name="q"))
    assert str(ask(engine, Question(PodName("shop", "web"), PodName("other", "bare"), 80)).ingress) == "allowed"


# --- sending ---


def egress(*objects: dict[str, Any], target: Any = None) -> str:
    engine = world(*objects)
    return str(
        ask(
            engine,
            Question(PodName("shop", "web"), target or ServiceName("shop", "api"), 80 if target is None else 443),
        ).egress
    )


def sidecar(hosts: list[str] | None = None, mode: str = "", **spec: Any) -> dict[str, Any]:
    body: dict[str, Any] = dict(spec)
    if hosts is not None:
        body["egress"] = [{"hosts": hosts}]
    if mode:
        body["outboundTrafficPolicy"] = {"mode": mode}
    return obj("networking.istio.io/v1", "Sidecar", "shop", "default", body)


def entry(host: str, **spec: Any) -> dict[str, Any]:
    return obj(
        "networking.istio.io/v1",
        "ServiceEntry",
        "shop",
        "e",
        {"hosts": [host], "ports": [{"number": 443, "name": "tls"}], **spec},
    )


def test_registry_only_needs_the_registry():
    only = mesh("outboundTrafficPolicy: {mode: REGISTRY_ONLY}")
    assert egress(only) == "allowed"
    assert egress(only, target=Fqdn("api.example.org")) == "denied"
    assert egress(target=Fqdn("api.example.org")) == "allowed"
    assert egress(only, entry("api.example.org"), target=Fqdn("api.example.org")) == "allowed"
    assert egress(only, entry("*.example.org"), target=Fqdn("api.example.org")) == "allowed"
    assert egress(only, entry("api.example.org", exportTo=["~"]), target=Fqdn("api.example.org")) == "denied"


def test_a_sidecar_that_leaves_the_namespace_out_matters_only_under_registry_only():
    assert egress(sidecar(["istio-system/*"])) == "allowed"
    assert egress(sidecar(["istio-system/*"], "REGISTRY_ONLY")) == "denied"
    assert egress(sidecar(["./*"], "REGISTRY_ONLY")) == "allowed"
    assert egress(sidecar(["shop/api.shop.svc.cluster.local"], "REGISTRY_ONLY")) == "allowed"
    assert egress(sidecar(["~/*"], "REGISTRY_ONLY")) == "denied"


def test_the_deciding_object_and_pointer():
    engine = world(authz(FROM_WEB, name="only-web"))
    answer = ask(engine, Question(PodName("other", "bare"), PodName("shop", "api"), 8080))
    assert [(d.ref.kind, d.ref.name, d.pointer, d.effect, d.implicit) for d in answer.deciding] == [
        ("AuthorizationPolicy", "only-web", "/spec/rules", "deny", True)
    ]
    answer = ask(engine, Question(PodName("shop", "web"), PodName("shop", "api"), 8080))
    assert [(d.ref.name, d.pointer, d.effect) for d in answer.deciding] == [("only-web", "/spec/rules/0", "allow")]


@pytest.mark.parametrize(("bad", "pointer"), [
    (authz([{"from": [{"source": {}}]}]), "/spec/rules/0/from/0/source"),
    (authz([{"from": [{"source": {"ipBlocks": ["300.1.1.1"]}}]}]), "/spec/rules/0/from/0/source/ipBlocks/0"),
    (authz([{"when": [{"key": "nonsense", "values": ["x"]}]}]), "/spec/rules/0/when/0/key"),
    (authz([{"to": [{"operation": {"ports": ["http"]}}]}]), "/spec/rules/0/to/0/operation/ports/0"),
    (authz([], "CUSTOM"), "/spec/provider"),
    (authz([], "MAYBE"), "/spec/action"),
    (peer("VERY"), "/spec/mtls/mode"),
    (peer("STRICT", ports={8080: "STRICT"}), "/spec/portLevelMtls"),
    (sidecar(["no-slash"]), "/spec/egress/0/hosts/0"),
])  # fmt: skip
def test_what_the_webhook_would_refuse_is_named_and_the_rest_stands(bad, pointer):
    engine = world(bad, authz(FROM_WEB, name="good"))
    assert [r.field for r in engine.refusals] == [pointer]
    refused = ask(engine, Question(PodName("other", "bare"), PodName("shop", "api"), 8080))
    assert [d.ref.name for d in refused.deciding] == ["good"]


# --- differences between Envoy and ztunnel ---


def test_in_envoy_a_wildcard_may_stand_anywhere_in_a_namespace():  # authz, srcNamespaceGenerator
    rule = authz([{"from": [{"source": {"namespaces": ["s*p"]}}]}])
    assert ingress(rule) == "allowed"
    assert ingress(rule, ambient=True) == "denied"  # ambient, stringToMatch: exact


def test_ztunnel_knows_no_trust_domain_aliases():  # ambient: the principals go to ztunnel as they are
    config, rule = mesh("trustDomain: new\ntrustDomainAliases: [old]"), FROM_WEB
    old = authz([{"from": [{"source": {"principals": ["old/ns/shop/sa/web"]}}]}])
    assert ingress(old, config) == "allowed"
    assert ingress(old, config, ambient=True) == "denied"
    assert ingress(authz(rule), config, ambient=True) == "denied"


def test_a_wildcard_in_the_trust_domain_is_kept_where_it_fits_and_replaced_where_not():  # trustdomain/bundle.go
    config = mesh("trustDomain: new-td\ntrustDomainAliases: [elsewhere]")
    assert ingress(authz([{"from": [{"source": {"principals": ["*-td/ns/shop/sa/web"]}}]}]), config) == "allowed"
    assert ingress(authz([{"from": [{"source": {"principals": ["*-x/ns/shop/sa/web"]}}]}]), config) == "denied"


def test_conditions_that_ztunnel_does_not_know():  # ambient, l4WhenAttributes
    rule = authz([{"when": [{"key": "source.serviceAccount", "values": ["shop/web"]}]}])
    assert ingress(rule) == "allowed"
    assert ingress(rule, ambient=True) == "denied"
    known = authz([{"when": [{"key": "source.principal", "values": ["*/sa/web"]}]}])
    assert ingress(known, ambient=True) == "allowed"


def test_a_selector_in_the_root_namespace_is_ignored_by_peer_authentication():  # authn, ComposePeerAuthentication
    root = peer("STRICT", home="istio-system", selector={"app": "gw"})
    api = pod("istio-system", "gw", {"app": "gw"}, ip="10.0.0.9", containers=("app", "istio-proxy"))
    engine = world(root, api)
    assert str(ask(engine, Question(PodName("other", "bare"), PodName("istio-system", "gw"), 80)).ingress) == "allowed"
    whole = peer("STRICT", home="istio-system")
    engine = world(whole, api)
    assert str(ask(engine, Question(PodName("other", "bare"), PodName("istio-system", "gw"), 80)).ingress) == "denied"


def test_in_ambient_only_a_permissive_port_is_exempt_from_an_inherited_strict():  # ambient, converted selector policies
    def asked(ports: dict[int, str], *, ambient: bool) -> str:
        own = peer(None, name="w", selector={"app": "api"}, ports=ports)
        return ingress(peer("STRICT"), own, source="other/bare", ambient=ambient)

    assert asked({8080: "PERMISSIVE"}, ambient=True) == "allowed"
    assert asked({8080: "DISABLE"}, ambient=True) == "denied"
    assert asked({8080: "DISABLE", 9090: "PERMISSIVE"}, ambient=True) == "allowed"
    assert asked({8080: "DISABLE"}, ambient=False) == "allowed"


def test_a_custom_policy_on_a_tcp_port():  # authz/builder: the HTTP conditions are dropped, an HTTP provider is ignored
    grpc = mesh("extensionProviders: [{name: opa, envoyExtAuthzGrpc: {}}]")
    http = mesh("extensionProviders: [{name: opa, envoyExtAuthzHttp: {}}]")
    custom = authz(GETS, "CUSTOM", provider={"name": "opa"})
    assert ingress(custom, grpc, protocol="tcp") == "unknown"
    assert ingress(custom, http, protocol="tcp") == "allowed"
    assert ingress(custom, http, http=get()) == "unknown"
    assert ingress(custom, http, http=get(method="PUT")) == "allowed"


def test_what_ztunnel_refuses_is_refused_whatever_the_waypoint_would_say():
    labelled = service("shop", "api", {"app": "api"}, [{"name": "http", "port": 80, "targetPort": 8080}])
    labelled["metadata"]["labels"] = {"istio.io/use-waypoint": "wp"}
    at_service = authz(GETS, targetRefs=[{"kind": "Service", "group": "", "name": "api"}])

    def through(*policies: dict[str, Any]) -> str:
        engine = world(labelled, *policies, ambient=True)
        return str(ask(engine, Question(PodName("shop", "web"), ServiceName("shop", "api"), 80)).ingress)

    assert through(at_service) == "conditional"
    assert through(at_service, authz(None, name="closed")) == "denied"


def test_dry_runs_are_told_by_any_spelling_of_true():  # strconv.ParseBool
    for said, expected in (("1", "allowed"), ("True", "allowed"), ("yes", "denied"), ("false", "denied")):
        policy = authz(None)
        policy["metadata"]["annotations"] = {"istio.io/dry-run": said}
        assert ingress(policy) == expected


# --- every field, positive and negative (istio.io: AuthorizationPolicy Source and Operation, Conditions) ---

HTTP = get("/a/b", "GET", "api.shop", x_team="red")


@pytest.mark.parametrize(
    ("section", "field", "fits", "other"),
    [
        ("source", "principals", "cluster.local/ns/shop/sa/web", "cluster.local/ns/shop/sa/x"),
        ("source", "namespaces", "shop", "other"),
        ("source", "serviceAccounts", "shop/web", "shop/x"),
        ("source", "trustDomains", "cluster.local", "elsewhere"),
        ("source", "ipBlocks", "10.0.0.1", "10.0.0.0/32"),
        ("source", "remoteIpBlocks", "10.0.0.0/24", "10.0.1.0/24"),
        ("operation", "hosts", "*.shop", "*.other"),
        ("operation", "ports", "8080", "80"),
        ("operation", "methods", "GET", "PUT"),
        ("operation", "paths", "/a/*", "/b/*"),
    ],
)
def test_every_field_of_a_source_and_an_operation(section: str, field: str, fits: str, other: str) -> None:
    def asked(name: str, values: list[str]) -> str:
        part = {section: {name: values}}
        return ingress(authz([{"from" if section == "source" else "to": [part]}]), http=HTTP)

    negative = "not" + field[0].upper() + field[1:]
    assert asked(field, [fits]) == "allowed"
    assert asked(field, [other]) == "denied"
    assert asked(field, [other, fits]) == "allowed"  # values OR
    assert asked(negative, [fits]) == "denied"
    assert asked(negative, [other]) == "allowed"
    assert asked(negative, [other, fits]) == "denied"  # none of them may match


@pytest.mark.parametrize(
    ("key", "fits", "other"),
    [
        ("source.ip", "10.0.0.1", "10.0.0.9"),
        ("remote.ip", "10.0.0.0/24", "10.0.9.0/24"),
        ("source.namespace", "shop", "other"),
        ("source.principal", "*/sa/web", "*/sa/x"),
        ("source.serviceAccount", "shop/web", "shop/x"),
        ("source.trustDomain", "cluster.local", "x"),
        ("destination.ip", "10.0.0.2/32", "10.0.0.3/32"),
        ("destination.port", "8080", "80"),
        ("request.headers[X-Team]", "r*", "b*"),
        ("request.headers[x-none]", None, "*"),  # a header that is not there has no value
    ],
)
def test_every_condition_of_when(key: str, fits: str | None, other: str) -> None:
    def asked(**condition: list[str]) -> str:
        return ingress(authz([{"when": [{"key": key, **condition}]}]), http=HTTP)

    if fits is not None:
        assert asked(values=[fits]) == "allowed"
        assert asked(notValues=[fits]) == "denied"
    assert asked(values=[other]) == "denied"
    assert asked(notValues=[other]) == "allowed"


@pytest.mark.parametrize(
    "key", ["request.auth.principal", "request.auth.audiences", "request.auth.presenter", "request.auth.claims[iss]"]
)
def test_conditions_on_a_token(key: str) -> None:
    jwt = obj("security.istio.io/v1", "RequestAuthentication", "shop", "j", {"jwtRules": [{"issuer": "x"}]})
    rule = authz([{"when": [{"key": key, "values": ["x"]}]}])
    assert ingress(rule, jwt, http=get()) == "denied"
    assert ingress(rule, jwt, http=get(authorization="Bearer t")) == "conditional"


def test_what_nobody_said_about_a_connection_stays_open() -> None:
    for key in ("connection.sni", "experimental.envoy.filters.network.mysql_proxy[db.table]"):
        assert ingress(authz([{"when": [{"key": key, "values": ["x"]}]}]), http=HTTP) == "conditional", key


@pytest.mark.parametrize(("key", "sidecar_", "ztunnel"), [("connection.sni", "conditional", "denied"), ("remote.ip", "allowed", "denied"), ("source.ip", "allowed", "allowed")])  # fmt: skip
def test_conditions_on_a_tcp_port_and_in_ztunnel(key: str, sidecar_: str, ztunnel: str) -> None:
    """The first two stay enforceable on a TCP port of a sidecar; in ztunnel they leave an ALLOW rule out."""
    rule = authz([{"when": [{"key": key, "values": ["10.0.0.1"]}]}])
    assert ingress(rule, protocol="tcp") == sidecar_
    assert ingress(rule, ambient=True) == ztunnel


def test_a_deny_of_ztunnel_keeps_the_conditions_it_knows() -> None:
    both = [{"key": "source.namespace", "values": ["shop"]}, {"key": "request.headers[x]", "values": ["y"]}]
    for known, expected in (("shop", "denied"), ("other", "allowed")):
        rule = [
            {
                "to": [{"operation": {"methods": ["GET"], "ports": ["8080"]}}],
                "from": [{"source": {"namespaces": [known]}}],
            }
        ]
        assert ingress(authz(rule, "DENY"), ambient=True) == expected
    assert ingress(authz([{"when": both}], "DENY"), ambient=True) == "allowed"  # one clause of `when` never matches


def test_a_pod_outside_the_mesh_sends_plaintext_and_an_ambient_one_does_not() -> None:
    assert ingress(authz([{"from": [{"source": {"notPrincipals": ["*"]}}]}]), source="other/bare") == "allowed"
    assert ingress(authz([{"from": [{"source": {"notPrincipals": ["*"]}}]}]), ambient=True) == "denied"


def test_a_proxys_own_ports_are_never_captured() -> None:  # sidecar: 15020, 15021 and 15090 pass the inbound rules by
    for port in (15020, 15021, 15090):
        assert ingress(authz(None), peer("STRICT"), source="other/bare", port=port) == "allowed"
    assert ingress(authz(None), peer("STRICT"), source="other/bare", port=15000) == "denied"


@pytest.mark.parametrize(("noted", "port", "expected"), [
    ({"excludeInboundPorts": "9000,8080"}, 8080, "allowed"), ({"excludeInboundPorts": "9000"}, 8080, "denied"),
    ({"includeInboundPorts": "9000"}, 8080, "allowed"), ({"includeInboundPorts": "8080"}, 8080, "denied"),
    ({"includeInboundPorts": ""}, 8080, "allowed"), ({"includeInboundPorts": "*", "excludeInboundPorts": "8080"}, 8080, "allowed"),
])  # fmt: skip
def test_ports_that_the_annotations_leave_out(noted: dict[str, str], port: int, expected: str) -> None:
    api = pod("shop", "api", {"app": "api"}, ip="10.0.0.2", annotations={f"traffic.sidecar.istio.io/{k}": v for k, v in noted.items()}, **SIDECAR)  # fmt: skip
    assert ingress(authz(None), api, port=port) == expected


@pytest.mark.parametrize(("noted", "expected"), [
    ({}, "denied"), ({"excludeOutboundPorts": "443"}, "allowed"), ({"excludeOutboundPorts": "80"}, "denied"),
    ({"excludeOutboundIPRanges": "198.51.100.0/24"}, "allowed"), ({"includeOutboundIPRanges": "10.0.0.0/8"}, "allowed"),
    ({"includeOutboundIPRanges": "198.51.100.0/24"}, "denied"), ({"includeOutboundIPRanges": ""}, "allowed"),
    ({"includeOutboundIPRanges": "10.0.0.0/8", "includeOutboundPorts": "443"}, "denied"), ({"excludeOutboundIPRanges": "junk"}, "denied"),
])  # fmt: skip
def test_what_a_sidecar_does_not_capture_on_the_way_out(noted: dict[str, str], expected: str) -> None:
    web = pod("shop", "web", {"app": "web"}, ip="10.0.0.1", annotations={f"traffic.sidecar.istio.io/{k}": v for k, v in noted.items()}, **SIDECAR)  # fmt: skip
    only = mesh("outboundTrafficPolicy: {mode: REGISTRY_ONLY}")
    assert egress(only, web, target=Address(parse_ip("198.51.100.7"))) == expected


@pytest.mark.parametrize("junk", [7, "x", None, {}, [7], [{}], [[]]])
def test_junk_in_what_is_read_beside_policies_is_no_traceback(junk: Any) -> None:
    only = mesh("outboundTrafficPolicy: {mode: REGISTRY_ONLY}")
    odd = [
        entry("x.example") | {"spec": {"hosts": junk, "addresses": junk, "ports": junk, "exportTo": junk}},
        obj("networking.istio.io/v1", "DestinationRule", "shop", "d", {"host": "api", "trafficPolicy": junk}),
        obj("networking.istio.io/v1", "DestinationRule", "shop", "e", {"host": "api", "trafficPolicy": {"portLevelSettings": junk, "tls": junk}}),
        obj("networking.istio.io/v1", "DestinationRule", "shop", "f", junk),
    ]  # fmt: skip
    for raw in odd:
        for target in (Fqdn("x.example"), Address(parse_ip("192.0.2.7")), None):
            assert egress(only, raw, target=target) in ("allowed", "denied")
        assert ingress(raw) == "allowed"
