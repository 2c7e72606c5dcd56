"""Linkerd: what the API server or the webhook would refuse is named with object and field; the rest stands; nothing
raises.
"""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from policy_build import namespace, obj, one, packet, pod
from reference.linkerd import world

from mcdoctor.policy.question import Http

MESHED: dict[str, Any] = {"containers": ("app", "linkerd-proxy")}
GATEWAY = "gateway.networking.k8s.io"


def policy(kind: str, spec: Any, version: str = "v1alpha1", name: str = "x") -> dict[str, Any]:
    return obj(f"policy.linkerd.io/{version}", kind, "shop", name, spec)


def server(name: str = "x", **spec: Any) -> dict[str, Any]:
    return policy("Server", spec, "v1beta3", name)


def grant(client: Any, target: Any = None) -> dict[str, Any]:
    return policy("ServerAuthorization", {"server": {"name": "x"} if target is None else target, "client": client})


def authorization(target: dict[str, Any], *refs: dict[str, Any]) -> dict[str, Any]:
    return policy("AuthorizationPolicy", {"targetRef": target, "requiredAuthenticationRefs": list(refs)})


def ref(kind: str, name: str = "x", group: str | None = "policy.linkerd.io", **rest: Any) -> dict[str, Any]:
    return ({} if group is None else {"group": group}) | {"kind": kind, "name": name} | rest


SERVER = ref("Server")
MESH, NETWORK, ACCOUNT = ref("MeshTLSAuthentication"), ref("NetworkAuthentication"), ref("ServiceAccount", group=None)


def known(**spec: Any) -> dict[str, Any]:
    return policy("MeshTLSAuthentication", spec)


def networks(*listed: Any, kind: str = "NetworkAuthentication", **rest: Any) -> dict[str, Any]:
    return policy(kind, {"networks": list(listed), **rest})


def route(*matches: Any, kind: str = "HTTPRoute", **parent: Any) -> dict[str, Any]:
    whole = ref("Server") | parent
    return obj(f"{GATEWAY}/v1", kind, "shop", "x", {"parentRefs": [whole], "rules": [{"matches": list(matches)}]})


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        (server(port=80), "/spec"),
        (server(port=80, podSelector={}, externalWorkloadSelector={}), "/spec"),
        (server(podSelector={}, port=0), "/spec/port"),
        (server(podSelector={}, port=""), "/spec/port"),
        (server(podSelector={}, port=True), "/spec/port"),
        (server(podSelector={}), "/spec/port"),
        (server(podSelector={"matchLabels": {"a": 1}}, port=80), "/spec/podSelector/matchLabels/a"),
        (server(podSelector={}, port=80, accessPolicy="open"), "/spec/accessPolicy"),
        (server(podSelector={}, port=80, proxyProtocol="http"), "/spec/proxyProtocol"),
        (grant({}), "/spec/client"),
        (grant({"meshTLS": {}}), "/spec/client/meshTLS"),
        (grant({"unauthenticated": True, "meshTLS": {"identities": ["*"]}}), "/spec/client/unauthenticated"),
        (
            grant({"meshTLS": {"unauthenticatedTLS": True, "identities": ["*"]}}),
            "/spec/client/meshTLS/unauthenticatedTLS",
        ),
        (grant({"meshTLS": {"serviceAccounts": [{}]}}), "/spec/client/meshTLS/serviceAccounts/0/name"),
        (grant({"unauthenticated": True, "networks": [{"cidr": "10.0.0.0/99"}]}), "/spec/client/networks/0/cidr"),
        (
            grant({"unauthenticated": True, "networks": [{"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"]}]}),
            "/spec/client/networks/0/except/0",
        ),
        (grant({"unauthenticated": True}, {}), "/spec/server"),
        (grant({"unauthenticated": True}, {"name": "x", "selector": {}}), "/spec/server"),
        (authorization(SERVER, MESH, ACCOUNT), "/spec/requiredAuthenticationRefs"),
        (authorization(SERVER, NETWORK, NETWORK), "/spec/requiredAuthenticationRefs"),
        (authorization(SERVER, ref("Secret")), "/spec/requiredAuthenticationRefs/0/kind"),
        (authorization(SERVER, ref("ServiceAccount")), "/spec/requiredAuthenticationRefs/0/kind"),
        (authorization(ref("Server", group=None)), "/spec/targetRef/kind"),
        (authorization(ref("Pod", group="core")), "/spec/targetRef/kind"),
        (authorization(ref("GRPCRoute")), "/spec/targetRef/kind"),
        (authorization(ref("Namespace", "other", None)), "/spec/targetRef/name"),
        (authorization({"kind": "Server", "group": "policy.linkerd.io"}), "/spec/targetRef/name"),
        (known(), "/spec"),
        (known(identities=["*"], identityRefs=[ACCOUNT]), "/spec"),
        (known(identities=["web.*"]), "/spec/identities/0"),
        (known(identities=["spiffe://root/*"]), "/spec/identities/0"),
        (known(identities=["spiffe://root/a/../b"]), "/spec/identities/0"),
        (known(identities=["spiffe:///a"]), "/spec/identities/0"),
        (known(identityRefs=[ref("Pod", group=None)]), "/spec/identityRefs/0/kind"),
        (known(identityRefs=[ref("Namespace", group=None, namespace="shop")]), "/spec/identityRefs/0/namespace"),
        (networks(), "/spec/networks"),
        (networks({"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}), "/spec/networks/0/except/0"),
        (networks({}), "/spec/networks/0/cidr"),
        (networks({"cidr": "10.0.0.0/8"}, kind="EgressNetwork"), "/spec/trafficPolicy"),
        (networks(kind="EgressNetwork", trafficPolicy="Deny"), "/spec/networks"),
        (route({"path": {"type": "Glob", "value": "/"}}), "/spec/rules/0/matches/0/path/type"),
        (route({"path": {"value": "x"}}), "/spec/rules/0/matches/0/path/value"),
        (
            route({"path": {"type": "RegularExpression", "value": "("}}),
            "/spec/rules/0/matches/0/path/value",
        ),
        (route({"method": "get"}), "/spec/rules/0/matches/0/method"),
        (route({"headers": [{"name": "x"}]}), "/spec/rules/0/matches/0/headers/0/value"),
        (route({"method": {}}, kind="GRPCRoute"), "/spec/rules/0/matches/0/method"),
        (route(namespace="other"), "/spec/parentRefs/0/namespace"),
        (route(port=80), "/spec/parentRefs/0/port"),
        (route(sectionName="x"), "/spec/parentRefs/0/sectionName"),
        (route(kind="HTTPRoute") | {"spec": {"parentRefs": [ref("EgressNetwork")]}}, "/spec/parentRefs/0/port"),
    ],
)
def test_what_would_be_refused_is_named_and_the_rest_stands(broken: Any, field: str) -> None:
    api = pod("shop", "api", {"app": "api"}, ip="10.0.0.2", **MESHED)
    closed = server("api", podSelector={"matchLabels": {"app": "api"}}, port=8080)
    engine = one(namespace("shop"), pod("shop", "web", ip="10.0.0.1"), api, closed, broken)
    assert [(r.ref.name, r.field, r.fatal) for r in engine.refusals] == [("x", field, True)]
    assert engine.decide(packet(engine, "ingress", "shop/web", "shop/api", 8080)).verdict == "denied"


def test_the_younger_of_two_servers_on_a_port_is_warned_of() -> None:
    old = server("old", podSelector={}, port=80) | {}
    old["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    young = server("a", podSelector={"matchLabels": {"app": "x"}}, port=80)
    young["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
    engine = one(namespace("shop"), old, young)
    assert [(r.ref.name, r.field, r.fatal) for r in engine.refusals] == [("a", "/spec/port", False)]
    apart = server("b", podSelector={}, port=81)
    assert one(namespace("shop"), old, apart).refusals == ()


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


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10**6), pick=st.integers(0, 10**6), junk=JSON)
@example(seed=451651, pick=451652, junk=[None])  # a service account that is a list
def test_junk_anywhere_in_any_object_never_raises(seed: int, pick: int, junk: Any) -> None:
    objects = copy.deepcopy(world(random.Random(seed)))
    places = [p for p in _places(objects) if p]
    place = places[pick % len(places)]
    holder: Any = objects
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = junk
    engine = one(*objects)
    pods = [f"{p.namespace}/{p.name}" for p in engine.world.clusters["a"].pods.values()]
    for source in [*pods[:2], "198.51.100.7"]:
        for destination in [*pods[-2:], "198.51.100.7"]:
            for direction in ("ingress", "egress"):
                engine.decide(packet(engine, direction, source, destination, 8080, http=Http("GET", "/a")))
