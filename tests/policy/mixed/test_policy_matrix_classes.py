"""Pods of one class are alike to every family: the matrix, which asks one pod a class, agrees with every single answer."""

from __future__ import annotations

from typing import Any

import pytest
from policy_build import namespace, obj, one, pod, service

from mcdoctor.policy.matrix import all_pairs
from mcdoctor.policy.path import ask
from mcdoctor.policy.question import PodName, Question

ISTIO: dict[str, Any] = {"containers": ("app", "istio-proxy")}
LINKERD: dict[str, Any] = {"containers": ("app", "linkerd-proxy")}
TWINS = ("10.0.0.1", "10.0.0.2")


def twins(**extra: Any) -> list[dict[str, Any]]:
    return [pod("shop", f"web-{n}", {"app": "web"}, ip=ip, **extra) for n, ip in enumerate(TWINS)]


def calico(kind: str, home: str | None, name: str, spec: Any, **labels: str) -> dict[str, Any]:
    return obj("projectcalico.org/v3", kind, home, name, spec, labels=labels)


def authz(source: Any) -> dict[str, Any]:
    return obj(
        "security.istio.io/v1", "AuthorizationPolicy", "shop", "p", {"action": "DENY", "rules": [{"from": [{"source": source}]}]}
    )  # fmt: skip


DENY_SET = [
    calico("GlobalNetworkSet", None, "bad", {"nets": [TWINS[0]]}, zone="bad"),
    calico("GlobalNetworkPolicy", None, "p", {"selector": "app == 'api'", "types": ["Ingress"],
           "ingress": [{"action": "Deny", "source": {"selector": "zone == 'bad'"}}, {"action": "Allow"}]}),
]  # fmt: skip
CLOSED = {"config.linkerd.io/default-inbound-policy": "deny"}
EXCLUDED = {"traffic.sidecar.istio.io/excludeInboundPorts": "80"}
NEAR = [
    obj("policy.linkerd.io/v1beta3", "Server", "shop", "s", {"podSelector": {"matchLabels": {"app": "api"}}, "port": 80}),
    obj("policy.linkerd.io/v1alpha1", "NetworkAuthentication", "shop", "n", {"networks": [{"cidr": TWINS[0]}]}),
    obj("policy.linkerd.io/v1alpha1", "AuthorizationPolicy", "shop", "a", {
        "targetRef": {"group": "policy.linkerd.io", "kind": "Server", "name": "s"},
        "requiredAuthenticationRefs": [{"group": "policy.linkerd.io", "kind": "NetworkAuthentication", "name": "n"}],
    }),
]  # fmt: skip
GETS = obj(
    "security.istio.io/v1", "AuthorizationPolicy", "shop", "p", {"action": "DENY", "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]}
)  # fmt: skip


@pytest.mark.parametrize(
    ("objects", "cni"),
    [
        ([*twins(), pod("shop", "api", {"app": "api"}, ip="10.0.0.9"), *DENY_SET], "calico"),
        ([*twins(**ISTIO), pod("shop", "api", {"app": "api"}, ip="10.0.0.9", **ISTIO), authz({"ipBlocks": [TWINS[0]]})], ""),
        ([*twins(**LINKERD), pod("shop", "api", {"app": "api"}, ip="10.0.0.9", **LINKERD), *NEAR], ""),
        ([*twins(**LINKERD), pod("shop", "web-9", {"app": "web"}, ip="10.0.0.8", annotations=CLOSED, **LINKERD)], ""),
        ([*twins(**ISTIO), pod("shop", "web-9", {"app": "web"}, ip="10.0.0.8", annotations=EXCLUDED, **ISTIO), authz({"namespaces": ["shop"]})], ""),
        ([pod("shop", f"api-{n}", {"app": "api", "role": n}, ip=f"10.0.1.{n}", **ISTIO) for n in "12"]
         + [service("shop", f"api-{n}", {"role": n}, [{"port": 80, "name": name}]) for n, name in (("1", "tcp"), ("2", "http"))]
         + [GETS], ""),
    ],
    ids=["calico-set", "istio-address", "linkerd-address", "linkerd-annotation", "istio-annotation", "istio-service"],
)  # fmt: skip
def test_pods_that_differ_for_a_proxy_or_an_address_are_no_class(objects: list[Any], cni: str) -> None:
    engine = one(namespace("shop"), *objects, cni=cni)
    matrix = all_pairs(engine, "a", 80)
    found = set()
    for source in matrix.pods:
        for destination in matrix.pods:
            if source is not destination:
                names = PodName(source.namespace, source.name), PodName(destination.namespace, destination.name)
                verdict = ask(engine, Question(*names, 80), explain=False).verdict
                found.add(verdict)
                assert matrix.verdict(source, destination) is verdict, (source, destination)
    assert len(found) > 1  # the pods do differ
