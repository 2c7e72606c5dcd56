"""NetworkPolicy v1: a case for every row of the semantics.

Sources: kubernetes.io "Network Policies" and networking/v1 types.go."""

from __future__ import annotations

import pytest
from policy_build import namespace, network_policy, one, packet, pod

WORLD = (
    namespace("shop", team="a"),
    namespace("data", team="b"),
    pod("shop", "web", {"app": "web"}, ip="10.0.0.1", ports={"http": 8080}),
    pod("data", "db", {"app": "db"}, ip="10.0.0.2", ports={"sql": 5432}),
)
ANY_WEB = {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {"matchLabels": {"app": "web"}}}


@pytest.mark.parametrize(
    ("spec", "port", "verdict", "pointer"),
    [
        pytest.param({"podSelector": {}}, 5432, "denied", "/spec", id="missing policyTypes always isolates ingress"),
        pytest.param(
            {"podSelector": {}, "ingress": [{}]}, 5432, "allowed", "/spec/ingress/0", id="empty rule allows all"
        ),
        pytest.param(
            {"podSelector": {}, "ingress": [{"from": [ANY_WEB], "ports": [{"port": "sql"}]}]},
            5432,
            "allowed",
            "/spec/ingress/0/from/0",
            id="named port on the subject",
        ),
    ],
)
def test_ingress_to_the_database(spec: dict[str, object], port: int, verdict: str, pointer: str) -> None:
    engine = one(*WORLD, network_policy("data", "p", spec))
    decision = engine.decide(packet(engine, "ingress", "shop/web", "data/db", port))
    assert decision.verdict == verdict
    assert [d.pointer for d in decision.layers[0].decision.by] == [pointer]
