"""What was refused is not absent: a name that may have been hidden is never said to be missing."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from world import deployment, namespace, pod, service

from mcdoctor.flow import FlowRequest, NotFound, parse_target, resolve
from mcdoctor.flow.resolve import Unseen
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Blind
from mcdoctor.models.vantage import Vantage

FRONTEND = [deployment("a", "frontend"), pod("a", "frontend-1", "frontend", "10.1.0.5"), namespace("a", "app")]


def refused(kind: str, cluster: str) -> Blind:
    return Blind(
        at=datetime(2026, 1, 1, tzinfo=UTC),
        vantage=Vantage(cluster=cluster),
        wanted=kind,
        about=kind,
        reason="not allowed to list deployments in app",
        cluster=cluster,
        permission="list deployments in app",
        command="kubectl get deployments -n app",
    )


def ask(facts):
    request = FlowRequest(
        source=parse_target("frontend"),
        destination=parse_target("backend"),
        source_cluster="a",
        destination_cluster="b",
    )
    return resolve(request, Facts(facts))


def test_a_source_that_may_be_hidden_is_not_missing():
    with pytest.raises(Unseen, match="not everything could be looked at: not allowed to list") as caught:
        ask([service("b", "backend"), refused("Deployment.apps", "a")])
    assert caught.value.command == "kubectl get deployments -n app"


def test_a_destination_that_may_be_hidden_is_not_missing():
    with pytest.raises(Unseen, match="'backend'"):
        ask([*FRONTEND, refused("Service", "b")])


def test_a_refusal_about_something_else_hides_nothing():
    with pytest.raises(NotFound):
        ask([*FRONTEND, refused("ConfigMap", "b"), refused("Service", "c")])
