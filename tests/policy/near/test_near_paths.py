"""Near misses where they are read: in answers across clusters, on the command line, in English and Korean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from policy_build import namespace, network_policy, obj, pod
from typer.testing import CliRunner

from mcdoctor.cli.policy import app
from mcdoctor.policy.engine import load
from mcdoctor.policy.path import ask
from mcdoctor.policy.question import PodName, Question
from mcdoctor.policy.world import ClusterInput

Raw = dict[str, Any]
WEB, API = PodName("shop", "web", "a"), PodName("shop", "api", "b")
FLAT = Question(WEB, API, 8080, via="flat")


def answer(a: list[Raw], b: list[Raw], question: Question, cni: str) -> Any:
    here = [namespace("shop"), pod("shop", "web", {"app": "web"}, ip="10.1.0.1"), *a]
    there = [namespace("shop"), pod("shop", "api", {"app": "api"}, ip="10.2.0.1"), *b]
    return ask(load([ClusterInput("a", here, "source", cni), ClusterInput("b", there, "destination", cni)]), question)


def cilium(side: str, peer: Raw) -> Raw:
    return obj("cilium.io/v2", "CiliumNetworkPolicy", "shop", "x", {"endpointSelector": {}, side: [peer]})


def calico(side: str, end: str, selector: str) -> Raw:
    rule = {"action": "Allow", end: {"selector": selector}}
    return obj("projectcalico.org/v3", "NetworkPolicy", "shop", "x", {"types": [side.capitalize()], side: [rule]})


PODS = {"podSelector": {}}
ANYBODY = {"namespaceSelector": {}}


@pytest.mark.parametrize(
    ("cni", "a", "b", "pointer"),
    [
        ("kube-router", [], [network_policy("shop", "x", PODS | {"ingress": [{"from": [ANYBODY]}]})], "/spec/ingress/0/from/0"),
        ("kube-router", [network_policy("shop", "x", PODS | {"egress": [{"to": [ANYBODY]}], "policyTypes": ["Egress"]})], [], "/spec/egress/0/to/0"),
        ("cilium", [], [cilium("ingress", {"fromEndpoints": [{}]})], "/spec/ingress/0/fromEndpoints/0"),
        ("cilium", [cilium("egress", {"toEndpoints": [{"matchLabels": {"app": "api"}}]})], [], "/spec/egress/0/toEndpoints/0"),
        ("calico", [], [calico("ingress", "source", "app == 'web'")], "/spec/ingress/0"),
        ("calico", [calico("egress", "destination", "app == 'api'")], [], "/spec/egress/0"),
    ],
)  # fmt: skip
def test_selectors_that_meet_a_remote_pod(cni: str, a: list[Raw], b: list[Raw], pointer: str) -> None:
    """policy.md 4.2: selectors never match remote pods; addresses do."""
    found = answer(a, b, FLAT, cni)
    assert found.verdict == "denied"
    assert [(m.pointer, m.gap) for m in found.near] == [(pointer, 1)], found.near
    assert "selectors never match remote pods" in found.near[0].why and found.near[0].why in found.reason
    address = "10.1.0.1/32" if b else "10.2.0.1/32"
    assert address in str(found.near[0].changes)


@pytest.mark.parametrize(
    ("peer", "why"),
    [
        ({"fromEndpoints": [{"matchLabels": {"app": "web"}}]}, "without io.cilium.k8s.policy.cluster it means this cluster only"),
        ({"fromEntities": ["cluster"]}, "the entity cluster is the local cluster only, pod shop/web is in a"),
        ({"fromCIDR": ["10.1.0.0/16"]}, "10.1.0.1 is inside, but CIDR rules of Cilium do not match managed pods"),
    ],
)  # fmt: skip
def test_cluster_mesh(peer: Raw, why: str) -> None:
    """docs.cilium.io "Cluster Mesh: network policy" and upstream's test cluster-entity-multi-cluster."""

    def config(name: str, number: str) -> Raw:
        data = {"cluster-name": name, "cluster-id": number, "policy-default-local-cluster": "true"}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "kube-system", "name": "cilium-config"}, "data": data}  # fmt: skip

    found = answer([config("a", "1")], [config("b", "2"), cilium("ingress", peer)], Question(WEB, API, 8080), "cilium")
    assert found.paths[0].carrier == "clustermesh" and found.verdict == "denied"
    assert [m.gap for m in found.near] == [1] and why in found.near[0].why


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    rule = {"from": [{"podSelector": {"matchLabels": {"app": "wbe"}}}]}
    objects = [
        namespace("shop"),
        pod("shop", "web", {"app": "web"}, ip="10.0.0.1"),
        pod("shop", "api", {"app": "api"}, ip="10.0.0.2"),
        network_policy("shop", "x", {"podSelector": {"matchLabels": {"app": "api"}}, "ingress": [rule]}),
    ]
    file = tmp_path / "all.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    return file


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 1, result.output
    return result.stdout


def test_on_the_command_line(manifests: Path) -> None:
    ends = ("web.shop", "pod/api.shop:8080", "-f", str(manifests))
    told = "NetworkPolicy shop/x /spec/ingress/0/from/0: pod shop/web has app=web, the rule wants app=wbe"
    assert f"nearly: {told}" in run("check", *ends)
    assert f"nearly: {told}" in run("explain", *ends)
    korean = "pod shop/web의 label은 app=web이고, 규칙은 app=wbe을(를) 요구합니다"
    assert f"거의 맞는 규칙: NetworkPolicy shop/x /spec/ingress/0/from/0: {korean}" in run(
        "explain", *ends, "--lang", "ko"
    )
    (near,) = json.loads(run("check", *ends, "-o", "json"))["near"]
    place = "/spec/ingress/0/from/0/podSelector/matchLabels/app"
    assert near["changes"] == [{"object": "NetworkPolicy shop/x", "op": "replace", "path": place, "value": "web"}]
    assert (near["ko"], near["gap"], near["direction"], near["traffic"]) == (korean, 1, "ingress", {})
