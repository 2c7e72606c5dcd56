"""Hypothesis strategies for facts, built from the dataclasses themselves: any record that would load is generated.

`facts(*kinds)` gives lists of well-formed facts of those kinds, about few names and addresses so that they meet;
`odd_json` gives JSON of any shape, for the bodies of objects that nobody validated.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Literal

from hypothesis import strategies as st

from mcdoctor.models.facts import Fact, KubeObject
from mcdoctor.models.flow import Backend, Flow, Layer, Pod, Rung, ServicePort, Workload
from mcdoctor.models.vantage import Vantage

START = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
ADDRESSES = (
    "10.96.0.10",
    "10.96.7.80",
    "10.10.1.21",
    "10.20.1.31",
    "169.254.20.10",
    "fd00::31",
    "2001:db8::1",
    "240.240.0.7",
    "",
)
NAMES = (
    "backend.shop.svc.cluster.local", "backend.shop.svc.cluster.local.", "kubernetes.default.svc.cluster.local.",
    "backend.shop.svc.clusterset.local.", "api.example.com", "backend", "a", "", ".", "backend.shop.svc.cluster.local.corp.example.",
)  # fmt: skip
WORDS = (
    *ADDRESSES, *NAMES, "10.96.0.10:53", "[fd00::31]:53", "a", "b", "shop", "frontend-1", "backend-1", "node-a", "coredns",
    "kube-system", "UDP", "udp", "TCP", "ndots:5", "ndots:x", "musl", "DROPPED", "Policy denied", "10.10.1.21:40000", "app",
    "[FATAL] plugin/loop: Loop (127.0.0.1:1 -> :53) detected", "src=10.10.1.21 dst=10.96.0.10", "http", "", "2026-11-01T11:59:50Z",
)  # fmt: skip

words = st.sampled_from(WORDS)
moments = st.integers(0, 4000).map(lambda s: START + timedelta(milliseconds=250 * s))
odd_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=12,
)
vantages = st.sampled_from(
    [
        Vantage(cluster="a", namespace="shop", pod="frontend-1"),
        Vantage(cluster="a", namespace="shop", pod="frontend-1", captured="istio"),
        Vantage(cluster="a", namespace="shop", pod="other-1"),
        Vantage(cluster="a", node="node-a"),
        Vantage(cluster="b", namespace="shop", pod="backend-1"),
        Vantage(cluster="a", host="laptop"),
        Vantage(),
    ]
)

_OF_FIELD: dict[str, st.SearchStrategy[Any]] = {
    "kind": st.sampled_from(
        [
            "Service",
            "Pod",
            "EndpointSlice",
            "ConfigMap",
            "Endpoints",
            "Deployment",
            "ServiceEntry",
            "ServiceImport",
            "ServiceExport",
        ]
    ),
}


def _shaped(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with the usual members, each of a likely or of any shape."""
    meta = st.fixed_dictionaries(
        {"name": st.sampled_from(["backend", "kube-dns", "coredns", "frontend-1", "backend-1", "node-local-dns"])},
        optional={
            "namespace": st.sampled_from(["shop", "kube-system"]),
            "labels": st.dictionaries(
                st.sampled_from(
                    ["app", "k8s-app", "kubernetes.io/service-name", "multicluster.kubernetes.io/service-name"]
                ),
                st.sampled_from(["backend", "kube-dns", "node-local-dns", "frontend"]),
                max_size=2,
            )
            | inner,
            "creationTimestamp": words | inner,
            "deletionTimestamp": words | inner,
            "ownerReferences": inner,
            "annotations": inner,
        },
    )
    corefile = st.lists(
        st.sampled_from(
            [
                ".:53 {",
                "}",
                "forward . /etc/resolv.conf",
                "cache 30 {",
                "denial 100 90",
                "import x",
                "(s) {",
                '"',
                "kubernetes cluster.local",
                "clusterset.local { forward . 10.96.0.53 }",
            ]
        ),
        max_size=8,
    ).map("\n".join)
    spec = st.dictionaries(
        st.sampled_from(
            ["selector", "ports", "clusterIP", "clusterIPs", "type", "externalName", "ipFamilies", "dnsPolicy", "hostNetwork",
             "containers", "initContainers", "nodeName", "internalTrafficPolicy", "readinessGates", "replicas", "template",
             "hosts", "addresses", "ips", "dnsConfig", "publishNotReadyAddresses"]
        ),
        inner | st.sampled_from([{"app": "backend"}, [{"port": 80, "targetPort": "http"}], "10.96.7.80", "None", "Local", "ExternalName", "api.example.com", 0]),
        max_size=6,
    )  # fmt: skip
    return st.fixed_dictionaries(
        {
            "apiVersion": st.sampled_from(["v1", "discovery.k8s.io/v1", "apps/v1", "networking.istio.io/v1", "multicluster.x-k8s.io/v1alpha1"]),
            "kind": _OF_FIELD["kind"],
            "metadata": meta,
        },
        optional={
            "spec": spec | inner,
            "status": st.dictionaries(
                st.sampled_from(["phase", "podIP", "podIPs", "conditions", "containerStatuses", "initContainerStatuses", "addresses"]),
                inner,
                max_size=4,
            )
            | inner,
            "endpoints": st.lists(
                st.fixed_dictionaries(
                    {"addresses": st.lists(words, max_size=2) | inner},
                    optional={"conditions": st.dictionaries(st.sampled_from(["ready", "serving", "terminating"]), st.booleans() | inner), "targetRef": inner, "nodeName": inner},
                )
                | inner,
                max_size=3,
            )
            | inner,
            "ports": st.lists(st.fixed_dictionaries({}, optional={"name": words, "port": st.integers(0, 70000) | inner}), max_size=2) | inner,
            "subsets": inner,
            "data": st.dictionaries(st.sampled_from(["Corefile", "stubDomains", "upstreamNameservers", "x.server"]), corefile | inner, max_size=2) | inner,
        },
    )  # fmt: skip


bodies = _shaped(odd_json)


def of_hint(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type hint as the facts use them."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is object:
        return odd_json
    if origin is Literal:
        return st.sampled_from(args)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*(st.none() if a is type(None) else of_hint(a) for a in args))
    if origin is tuple:
        return st.lists(of_hint(args[0]), max_size=4).map(tuple)
    if origin is not None and issubclass(origin, Mapping):
        return st.dictionaries(words, of_hint(args[1]), max_size=3)
    if hint is Vantage:
        return vantages
    if dataclasses.is_dataclass(hint):
        return of_class(typing.cast(type, hint))
    if hint is datetime:
        return moments
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(list(hint))
    return {
        str: words,
        int: st.integers(0, 70000),
        float: st.floats(0, 20000, allow_nan=False) | st.sampled_from([5.0, 2500.0, 5003.0, 10010.0]),
        bool: st.booleans(),
    }[hint]


def of_class(cls: type) -> st.SearchStrategy[Any]:
    """Instances of a dataclass of the models; optional fields are left out at times."""
    if cls is KubeObject:
        return st.builds(KubeObject, at=moments, vantage=vantages, cluster=st.sampled_from(["a", "b"]), body=bodies)
    hints = typing.get_type_hints(cls)
    required, optional = {}, {}
    for field in dataclasses.fields(cls):
        free = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        (optional if free else required)[field.name] = of_hint(hints[field.name])
    return st.fixed_dictionaries(required, optional=optional).map(lambda values: cls(**values))


def facts(*kinds: type[Fact], max_size: int = 12) -> st.SearchStrategy[list[Fact]]:
    """Well-formed facts of these kinds, in any number and order."""
    return st.lists(st.one_of(*(of_class(kind) for kind in kinds)), max_size=max_size)


def _service(cluster: str) -> st.SearchStrategy[ServicePort | None]:
    backend = st.builds(
        Backend,
        cluster=st.sampled_from(["a", "b"]),
        address=st.sampled_from(["10.20.1.31", "10.10.1.31", "fd00::31"]),
        port=st.sampled_from([80, 8080]),
        ready=st.booleans(),
        pod=st.none() | st.just("shop/backend-1"),
    )
    return st.none() | st.builds(
        ServicePort,
        cluster=st.just(cluster),
        namespace=st.just("shop"),
        name=st.just("backend"),
        type=st.sampled_from(["ClusterIP", "ServiceImport", "ExternalName"]),
        cluster_ips=st.sampled_from([(), ("10.96.7.80",), ("10.96.7.80", "fd00::80")]),
        external_name=st.none() | st.just("api.example.com."),
        port=st.none() | st.just(80),
        headless=st.booleans(),
        backends=st.lists(backend, max_size=3).map(tuple),
    )


flows = st.builds(
    Flow,
    source_text=st.just("frontend"),
    destination_text=st.sampled_from(["backend", "svc/backend", "deploy/backend", "10.1.2.3"]),
    source=st.none()
    | st.builds(
        Workload,
        cluster=st.just("a"),
        namespace=st.just("shop"),
        kind=st.just("Deployment.apps"),
        name=st.just("frontend"),
        pods=st.sampled_from(
            [
                (),
                (Pod(cluster="a", namespace="shop", name="frontend-1", ips=("10.10.1.21",), node="node-a", ready=True),),
                (Pod(cluster="a", namespace="shop", name="frontend-1", ips=("10.10.1.21", "fd00::21"), proxy="istio"),),
            ]
        ),
    ),
    source_cluster=st.sampled_from(["a", ""]),
    destination_cluster=st.sampled_from(["a", "b", ""]),
    namespace=st.sampled_from(["shop", ""]),
    name=st.sampled_from(["backend", ""]),
    host=st.none() | st.sampled_from([n.rstrip(".") for n in NAMES if n.rstrip(".")]),
    port=st.none() | st.sampled_from([80, 443]),
    protocol=st.none() | st.sampled_from(["http", "tcp", "udp"]),
    local=_service("a"),
    remote=_service("b"),
    rungs=st.lists(st.builds(Rung, label=st.just("endpoint"), address=st.none() | words, port=st.just(80)), max_size=1).map(tuple),
    interconnect=st.lists(st.builds(Layer, layer=st.sampled_from(["naming", "l7", "l3"]), system=words), max_size=1).map(tuple),
)  # fmt: skip
"""Flows of every completeness, about the names and places that the facts are about."""
