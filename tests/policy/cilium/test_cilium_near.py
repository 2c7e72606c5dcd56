"""Near misses of Cilium's rules: the rule that was meant, and the one thing that keeps it from matching."""

from __future__ import annotations

from typing import Any

import pytest
from policy_build import namespace, obj, one, pod, service

from mcdoctor.policy.path import ask
from mcdoctor.policy.question import PodName, Question, ServiceName

WORLD = (
    namespace("shop"),
    namespace("data"),
    pod("shop", "web", {"app": "web"}, ip="10.0.0.1"),
    pod("shop", "api", {"app": "api"}, ip="10.0.0.2", ports={"http": 8080}),
    pod("data", "tool", {"app": "tool"}, ip="10.0.0.3"),
    service("shop", "api", {"app": "api"}, [{"port": 80, "targetPort": 8080}]),
)
WEB = {"fromEndpoints": [{"matchLabels": {"app": "web"}}]}


@pytest.mark.parametrize(
    ("rule", "source", "pointer", "told"),
    [
        ({}, "shop/web", "/spec/ingress/0", "an empty rule of Cilium allows nothing"),
        ({"fromEndpoints": [{"matchLabels": {"app": "tool"}}]}, "data/tool", "/spec/ingress/0/fromEndpoints/0", "means namespace shop, tool is in data"),
        ({"fromEndpoints": [{"matchLabels": {"app": "wbe"}}]}, "shop/web", "/spec/ingress/0/fromEndpoints/0", "has app=web, the rule wants app In wbe"),
        ({"fromCIDR": ["10.0.0.0/8"]}, "shop/web", "/spec/ingress/0/fromCIDR/0", "do not match managed pods"),
        (WEB | {"toPorts": [{"ports": [{"port": "81", "protocol": "TCP"}]}]}, "shop/web", "/spec/ingress/0/fromEndpoints/0", "the rule covers TCP 81"),
        (WEB | {"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]}, "shop/web", "/spec/ingress/0/fromEndpoints/0", "names the Service's port 80"),
    ],
)  # fmt: skip
def test_the_rule_that_was_meant(rule: Any, source: str, pointer: str, told: str) -> None:
    spec = {"endpointSelector": {"matchLabels": {"app": "api"}}, "ingress": [rule]}
    engine = one(*WORLD, obj("cilium.io/v2", "CiliumNetworkPolicy", "shop", "x", spec), cni="cilium")
    answer = ask(engine, Question(PodName(*source.split("/")), ServiceName("shop", "api"), 80))
    assert answer.verdict == "denied"
    assert [(n.ref.name, n.pointer, n.gap) for n in answer.near] == [("x", pointer, 1)]
    assert told in answer.near[0].why and told in answer.reason


def test_nothing_is_near_where_two_things_and_more_are_missing() -> None:
    far = {"fromEndpoints": [{"matchLabels": {"app": "a", "tier": "b", "io.kubernetes.pod.namespace": "c"}}]}
    spec = {"endpointSelector": {}, "ingress": [far]}
    engine = one(*WORLD, obj("cilium.io/v2", "CiliumNetworkPolicy", "shop", "x", spec), cni="cilium")
    assert ask(engine, Question(PodName("shop", "web"), PodName("shop", "api"), 80)).near == ()
