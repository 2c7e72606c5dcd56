"""Istio: what the validation webhook would refuse is named with object and field; the rest stands; nothing raises."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_build import namespace, obj, one, packet, pod
from reference.istio import world

from mcdoctor.policy.question import Http

SIDECAR: dict[str, Any] = {"containers": ("app", "istio-proxy")}


def authz(rule: Any = None, **spec: Any) -> dict[str, Any]:
    rules = {} if rule is None else {"rules": [rule]}
    return obj("security.istio.io/v1", "AuthorizationPolicy", "shop", "x", {**rules, **spec})


def peer(**spec: Any) -> dict[str, Any]:
    return obj("security.istio.io/v1", "PeerAuthentication", "shop", "x", spec)


def source(**fields: Any) -> dict[str, Any]:
    return authz({"from": [{"source": fields}]})


def operation(**fields: Any) -> dict[str, Any]:
    return authz({"to": [{"operation": fields}]})


def when(key: str, **rest: Any) -> dict[str, Any]:
    return authz({"when": [{"key": key, **rest}]})


SOURCE, OPERATION = "/spec/rules/0/from/0/source", "/spec/rules/0/to/0/operation"


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        (source(), SOURCE),
        (source(principals=[]), f"{SOURCE}/principals"),
        (source(principals=[""]), f"{SOURCE}/principals/0"),
        (source(principals="x"), f"{SOURCE}/principals"),
        (source(notIpBlocks=["10.0.0.0/33"]), f"{SOURCE}/notIpBlocks/0"),
        (source(serviceAccounts=["a*"]), f"{SOURCE}/serviceAccounts/0"),
        (source(serviceAccounts=["a"], namespaces=["b"]), SOURCE),
        (authz({"from": [{}]}), SOURCE),
        (authz({"from": []}), "/spec/rules/0/from"),
        (authz({"from": {"source": {}}}), "/spec/rules/0/from"),
        (operation(ports=["http"]), f"{OPERATION}/ports/0"),
        (operation(ports=[80]), f"{OPERATION}/ports/0"),
        (operation(methods=[""]), f"{OPERATION}/methods/0"),
        (when("source.ip"), "/spec/rules/0/when/0"),
        (when("source.ip", values=["x"]), "/spec/rules/0/when/0/values/0"),
        (when("source.labels", values=["x"]), "/spec/rules/0/when/0/key"),
        (when("request.headers", values=["x"]), "/spec/rules/0/when/0/key"),
        (authz({}, action="BLOCK"), "/spec/action"),
        (authz({}, action="CUSTOM"), "/spec/provider"),
        (authz({}, provider={"name": "x"}), "/spec/provider"),
        (authz({}, selector={"matchLabels": {"app": "*"}}), "/spec/selector/matchLabels/app"),
        (authz({}, selector={"matchLabels": {"app": 1}}), "/spec/selector/matchLabels/app"),
        (authz({}, selector={}, targetRefs=[{"kind": "Service", "name": "y"}]), "/spec/selector"),
        (authz({}, targetRefs=[{"kind": "Service"}]), "/spec/targetRefs/0/name"),
        (authz(7), "/spec/rules/0"),
        (peer(mtls={"mode": "strict"}), "/spec/mtls/mode"),
        (peer(portLevelMtls={"80": {"mode": "STRICT"}}), "/spec/portLevelMtls"),
        (peer(selector={"matchLabels": {"a": "b"}}, portLevelMtls={"web": {}}), "/spec/portLevelMtls/web"),
        (
            obj("security.istio.io/v1", "RequestAuthentication", "shop", "x", {"jwtRules": [{}]}),
            "/spec/jwtRules/0/issuer",
        ),
        (
            obj("networking.istio.io/v1", "Sidecar", "shop", "x", {"egress": [{"hosts": ["api"]}]}),
            "/spec/egress/0/hosts/0",
        ),
    ],
)
def test_what_would_be_refused_is_named_and_the_rest_stands(broken: Any, field: str) -> None:
    closed = obj("security.istio.io/v1", "AuthorizationPolicy", "shop", "closed", {})
    api = pod("shop", "api", {"app": "api"}, ip="10.0.0.2", **SIDECAR)
    engine = one(namespace("shop"), pod("shop", "web", ip="10.0.0.1"), api, closed, broken)
    assert [(r.ref.name, r.field) for r in engine.refusals] == [("x", field)]
    refused = engine.decide(packet(engine, "ingress", "shop/web", "shop/api", 8080))
    assert refused.verdict == "denied"
    assert [d.ref.name for layer in refused.layers for d in layer.decision.by] == ["closed"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += _places(inner, (*path, key))
    return found


def _extras() -> list[dict[str, Any]]:
    """Kinds that the reference has no part in."""
    parents = {"egress": [{"hosts": ["./*", "~/*"]}], "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}
    entry = {"hosts": ["api.example"], "addresses": ["203.0.113.0/24"], "ports": [{"number": 8080}], "exportTo": ["."]}
    rule = {"host": "web.n0.svc.cluster.local", "trafficPolicy": {"tls": {"mode": "DISABLE"}}}
    return [
        obj("networking.istio.io/v1", "Sidecar", "n0", "default", parents),
        obj("networking.istio.io/v1", "ServiceEntry", "n0", "e", entry),
        obj("networking.istio.io/v1", "DestinationRule", "n0", "d", rule),
        obj("security.istio.io/v1", "RequestAuthentication", "n0", "j", {"jwtRules": [{"issuer": "x"}]}),
    ]


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10**6), pick=st.integers(0, 10**6), junk=JSON)
def test_junk_anywhere_in_any_object_never_raises(seed: int, pick: int, junk: Any) -> None:
    objects = world(random.Random(seed)) + _extras()
    places = [p for p in _places(objects) if p]
    place = places[pick % len(places)]
    holder: Any = objects
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = junk
    engine = one(*objects)
    pods = [f"{p.namespace}/{p.name}" for p in engine.world.clusters["a"].pods.values()]
    http = Http("GET", "/a", "api", {"authorization": "Bearer x"})
    for source_end in [*pods[:2], "203.0.113.7"]:
        for destination in [*pods[-2:], "203.0.113.7", "dns:api.example"]:
            for direction in ("ingress", "egress"):
                engine.decide(packet(engine, direction, source_end, destination, 8080, http=http))
