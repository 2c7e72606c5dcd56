"""What Calico's validation would refuse is named with object and field; the rest stands; nothing raises.

Source: projectcalico/calico `libcalico-go/lib/validator/v3/validator.go`, `policy_common.go` (kubebuilder rules);
Felix drops what does not validate (`felix/calc/validation_filter.go`).
"""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_build import namespace, obj, one, packet, pod

WORLD = (
    namespace("shop"),
    pod("shop", "web", {"app": "web"}, ip="10.0.0.1"),
    pod("shop", "api", {"app": "api"}, ip="10.0.0.2"),
)
V3 = "projectcalico.org/v3"
CLOSED = obj(V3, "NetworkPolicy", "shop", "closed", {"types": ["Ingress"]})


def rules(**parts: Any) -> dict[str, Any]:
    return {"ingress": [{"action": "Allow", **parts}]}


def outgoing(**parts: Any) -> dict[str, Any]:
    return {"egress": [{"action": "Allow", **parts}]}


def source(**parts: Any) -> dict[str, Any]:
    return rules(protocol="TCP", source=parts)


IN = "/spec/ingress/0"
OUT = "/spec/egress/0"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"selector": "app = 'x'"}, "/spec/selector"),
        ({"selector": 7}, "/spec/selector"),
        ({"selector": "global()"}, "/spec/selector"),
        ({"serviceAccountSelector": "((("}, "/spec/serviceAccountSelector"),
        ({"order": "1"}, "/spec/order"),
        ({"order": True}, "/spec/order"),
        ({"order": float("nan")}, "/spec/order"),
        ({"tier": 1}, "/spec/tier"),
        ({"types": ["ingress"]}, "/spec/types/0"),
        ({"types": ["Ingress", "Ingress"]}, "/spec/types/1"),
        ({"types": "Ingress"}, "/spec/types"),
        ({"ingress": {}}, "/spec/ingress"),
        ({"ingress": [[]]}, IN),
        ({"ingress": [{}]}, f"{IN}/action"),
        (rules(action="allow"), f"{IN}/action"),
        (rules(ipVersion=5), f"{IN}/ipVersion"),
        (rules(protocol="tcp"), f"{IN}/protocol"),
        (rules(protocol=0), f"{IN}/protocol"),
        (rules(protocol=256), f"{IN}/protocol"),
        (rules(protocol="ICMP", ipVersion=6), f"{IN}/ipVersion"),
        (rules(notProtocol=58, ipVersion=4), f"{IN}/ipVersion"),
        (rules(icmp={"type": 8}), f"{IN}/icmp"),
        (rules(protocol="TCP", icmp={"type": 8}), f"{IN}/icmp"),
        (rules(protocol="ICMP", icmp={"type": 255}), f"{IN}/icmp/type"),
        (rules(protocol="ICMP", icmp={"code": 1}), f"{IN}/icmp/code"),
        (rules(protocol="ICMP", notICMP={"type": 1, "code": 256}), f"{IN}/notICMP/code"),
        (rules(protocol="UDP", http={"methods": ["GET"]}), f"{IN}/protocol"),
        (rules(action="Deny", http={"methods": ["GET"]}), f"{IN}/http"),
        (rules(http={"methods": ["GET", "GET"]}), f"{IN}/http/methods"),
        (rules(http={"paths": [{}]}), f"{IN}/http/paths/0"),
        (rules(http={"paths": [{"exact": "/a", "prefix": "/b"}]}), f"{IN}/http/paths/0"),
        (rules(http={"paths": [{"exact": "a"}]}), f"{IN}/http/paths/0"),
        (rules(http={"paths": [{"prefix": "/a?b"}]}), f"{IN}/http/paths/0"),
        (outgoing(http={"methods": ["GET"]}), f"{OUT}/http"),
        (rules(source=[]), f"{IN}/source"),
        (rules(source={"ports": [80]}), f"{IN}/source/ports/0"),
        (rules(protocol="ICMP", destination={"notPorts": [80]}), f"{IN}/destination/notPorts/0"),
        (source(ports=[0]), f"{IN}/source/ports/0"),
        (source(ports=["90:80"]), f"{IN}/source/ports/0"),
        (source(ports=["1:70000"]), f"{IN}/source/ports/0"),
        (source(ports=["a b"]), f"{IN}/source/ports/0"),
        (source(ports=[80.5]), f"{IN}/source/ports/0"),
        (source(nets=["10.0.0.0"]), f"{IN}/source/nets/0"),
        (source(nets=["10.0.0.1/8"]), f"{IN}/source/nets/0"),
        (source(notNets=["all"]), f"{IN}/source/notNets/0"),
        (source(nets=["10.0.0.0/8", "fd00::/8"]), f"{IN}/source/nets"),
        (rules(source={"nets": ["10.0.0.0/8"]}, destination={"nets": ["fd00::/8"]}), f"{IN}/destination/nets"),
        (rules(ipVersion=6, source={"nets": ["10.0.0.0/8"]}), f"{IN}/source/nets"),
        (source(selector="global()"), f"{IN}/source/selector"),
        (source(notSelector="has("), f"{IN}/source/notSelector"),
        (source(namespaceSelector="global() || has(a)"), f"{IN}/source/namespaceSelector"),
        (source(serviceAccounts={"names": "x"}), f"{IN}/source/serviceAccounts/names"),
        (source(serviceAccounts={"selector": "x"}), f"{IN}/source/serviceAccounts/selector"),
        (source(services={}), f"{IN}/source/services/name"),
        (source(services={"name": "a"}, selector="has(a)"), f"{IN}/source/selector"),
        (source(services={"name": "a"}, nets=["10.0.0.0/8"]), f"{IN}/source/nets"),
        (rules(destination={"services": {"name": "a"}}), f"{IN}/destination/services"),
        (outgoing(source={"services": {"name": "a"}}), f"{OUT}/source/services"),
        (outgoing(protocol="TCP", destination={"services": {"name": "a"}, "ports": [1]}), f"{OUT}/destination/ports"),
        (rules(destination={"domains": ["a.example"]}), f"{IN}/destination/domains"),
        (outgoing(action="Deny", destination={"domains": ["a.example"]}), f"{OUT}/destination/domains"),
        (outgoing(destination={"domains": ["https://x/"]}), f"{OUT}/destination/domains/0"),
        ([], "/spec"),
    ],
)
def test_what_validation_refuses_is_named_and_the_rest_stands(spec: Any, field: str) -> None:
    for staged in ("", "Staged"):
        engine = one(*WORLD, CLOSED, obj(V3, f"{staged}NetworkPolicy", "shop", "broken", spec), cni="calico")
        assert [(r.ref.name, r.field) for r in engine.refusals] == [("broken", field)]
        assert engine.decide(packet(engine, "ingress", "shop/web", "shop/api")).verdict == "denied"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"preDNAT": True, "doNotTrack": True, "applyOnForward": True}, "/spec/preDNAT"),
        ({"preDNAT": True}, "/spec/applyOnForward"),
        ({"doNotTrack": True}, "/spec/applyOnForward"),
        ({"preDNAT": True, "applyOnForward": True, "egress": [{"action": "Allow"}]}, "/spec/egress"),
        ({"preDNAT": True, "applyOnForward": True, "types": ["Egress"]}, "/spec/types"),
        ({"applyOnForward": "yes"}, "/spec/applyOnForward"),
        ({"namespaceSelector": "global()"}, "/spec/namespaceSelector"),
        (rules(source={"services": {"name": "a"}}), f"{IN}/source/services/namespace"),
    ],
)
def test_global_policies(spec: Any, field: str) -> None:
    for kind in ("GlobalNetworkPolicy", "StagedGlobalNetworkPolicy"):
        engine = one(*WORLD, CLOSED, obj(V3, kind, None, "broken", spec), cni="calico")
        assert [(r.ref.name, r.field) for r in engine.refusals] == [("broken", field)]


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        (obj("projectcalico.org/v1", "NetworkPolicy", "shop", "x", {}), "/apiVersion"),
        (obj(V3, "Tier", None, "x", {"order": "first"}), "/spec/order"),
        (obj(V3, "Tier", None, "x", {"defaultAction": "Allow"}), "/spec/defaultAction"),
        (obj(V3, "Tier", None, "default", {"order": 5}), "/spec/order"),
        (obj(V3, "NetworkSet", "shop", "x", {"nets": ["10.0.0.0/33"]}), "/spec/nets/0"),
        (obj(V3, "GlobalNetworkSet", None, "x", {"nets": "10.0.0.0/8"}), "/spec/nets"),
        (obj(V3, "GlobalNetworkSet", None, "x", {}, labels={"projectcalico.org/namespace": "a"}), "/metadata/labels"),
        (obj("crd.projectcalico.org/v1", "GlobalNetworkSet", None, "x", {}, annotations={"projectcalico.org/metadata": "{"}), "/metadata/annotations/projectcalico.org~1metadata"),
        (obj(V3, "HostEndpoint", None, "x", {"interfaceName": "eth0"}), "/spec/node"),
        (obj(V3, "HostEndpoint", None, "x", {"node": "n1"}), "/spec/interfaceName"),
        (obj(V3, "HostEndpoint", None, "x", {"node": "n1", "expectedIPs": ["here"]}), "/spec/expectedIPs/0"),
        (obj(V3, "StagedNetworkPolicy", "shop", "x", {"stagedAction": "Drop"}), "/spec/stagedAction"),
        (obj(V3, "StagedKubernetesNetworkPolicy", "shop", "x", {"ingress": [{"from": [{}]}]}), "/spec/ingress/0/from/0"),
    ],
)  # fmt: skip
def test_other_kinds(broken: Any, field: str) -> None:
    engine = one(*WORLD, CLOSED, broken, cni="calico")
    assert [(r.ref.name, r.field) for r in engine.refusals] == [(broken["metadata"]["name"], field)]
    assert engine.decide(packet(engine, "ingress", "shop/web", "shop/api")).verdict == "denied"


def test_a_tier_that_was_not_given_is_told() -> None:
    engine = one(*WORLD, obj(V3, "NetworkPolicy", "shop", "x", {"tier": "gone"}), cni="calico")
    assert [(r.field, r.fatal) for r in engine.refusals] == [("/spec/tier", False)]


WHOLE = (
    obj(V3, "NetworkPolicy", "shop", "np", {
        "tier": "sec", "order": 10, "selector": "app == 'api' || has(x)", "serviceAccountSelector": "has(y)", "types": ["Ingress"],
        "ingress": [{"action": "Allow", "protocol": "TCP", "source": {"selector": "app == 'web'", "namespaceSelector": "all()", "nets": ["10.0.0.0/8"],
                     "notNets": ["10.9.0.0/16"], "serviceAccounts": {"names": ["a"], "selector": "has(z)"}},
                     "destination": {"ports": [80, "90:100", "http"], "notPorts": [81]}, "http": {"methods": ["GET"], "paths": [{"exact": "/"}]}}],
    }),
    obj(V3, "GlobalNetworkPolicy", None, "gnp", {
        "namespaceSelector": "has(team)", "applyOnForward": True, "ingress": [{"action": "Log"}],
        "egress": [{"action": "Deny", "protocol": "ICMP", "icmp": {"type": 8, "code": 0}, "destination": {"notSelector": "kind == 'lan'"}},
                   {"action": "Pass", "destination": {"services": {"name": "s", "namespace": "shop"}}},
                   {"action": "Allow", "destination": {"domains": ["*.example.com"]}}],
    }),
    obj(V3, "Tier", None, "sec", {"order": 5, "defaultAction": "Pass"}),
    obj(V3, "GlobalNetworkSet", None, "lan", {"nets": ["192.0.2.0/24"], "allowedEgressDomains": ["x.example"]}, labels={"kind": "lan"}),
    obj(V3, "HostEndpoint", None, "hep", {"node": "n1", "interfaceName": "*", "expectedIPs": ["172.16.0.1"], "profiles": ["p"],
        "ports": [{"name": "ssh", "protocol": "TCP", "port": 22}]}),
    obj(V3, "StagedKubernetesNetworkPolicy", "shop", "skp", {"stagedAction": "Set", "podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}),
    obj("crd.projectcalico.org/v1", "NetworkSet", "shop", "ns", {"nets": ["192.0.2.9"]}, annotations={"projectcalico.org/metadata": '{"labels": {"a": "b"}}'}),
)  # fmt: skip
JUNK: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    "",
    "x",
    "((",
    "global()",
    [],
    {},
    [None],
    ["x"],
    [{}],
    {"x": None},
    {"name": 1},
    "9" * 400,
    "\x00",
)


def corrupt(rng: random.Random, value: Any) -> Any:
    """The value with one place in it replaced by something strange."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        return {**value, key: corrupt(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.9:
        found = list(value)
        place = rng.randrange(len(found))
        found[place] = corrupt(rng, found[place])
        return found
    return copy.deepcopy(rng.choice(JUNK))


@settings(max_examples=150, deadline=None)
@given(st.integers(min_value=0, max_value=10**9))
def test_strange_objects_are_refused_or_read_and_nothing_raises(seed: int) -> None:
    rng = random.Random(seed)
    objects = [dict(each) for each in WHOLE]
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(objects))
        section = "metadata" if rng.random() < 0.1 else "spec"
        objects[place] = {**objects[place], section: corrupt(rng, objects[place][section])}
    engine = one(*WORLD, *objects, cni="calico")
    for direction, ends in (("ingress", ("shop/web", "shop/api")), ("egress", ("shop/api", "192.0.2.9"))):
        for end in (ends, (ends[0], "dns:a.example.com")) if direction == "egress" else (ends,):
            point = engine.decide(packet(engine, direction, *end))
            for by in point.layers[0].decision.by:
                found: Any = next(
                    o for o in objects if o["metadata"].get("name") == by.ref.name and o["kind"] == by.ref.kind
                )
                for part in by.pointer.split("/")[1:]:
                    found = found[int(part)] if isinstance(found, list) else found[part]


def test_the_whole_of_them_is_accepted() -> None:
    assert one(*WORLD, *WHOLE, cni="calico").refusals == ()
