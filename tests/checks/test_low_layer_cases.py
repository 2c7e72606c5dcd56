"""The rooms tcp, mtu and request on recorded facts: what fires, what stays silent, what stays blind, and the first cause.

A case is a flow (the one below, with changes), facts in their JSON form and objects. `at` and `vantage` are filled in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcdoctor.models.codec import decode
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Fact, KubeObject, Listed
from mcdoctor.models.flow import Backend, Flow, Layer, Pod, Rung, ServicePort, Workload
from mcdoctor.models.outcome import Failed, Unknown, findings, word
from mcdoctor.models.record import from_record, to_record
from mcdoctor.models.report import Report
from mcdoctor.models.vantage import Vantage
from mcdoctor.runner.bundle import read_bundle
from mcdoctor.runner.replay import replay, request_of
from mcdoctor.runner.run import arrange, conclude
from mcdoctor_checks import CHECKS, mtu, request, tcp
from mcdoctor_playbooks import load

ROOMS = ("tcp", "mtu", "request")
OURS = (*tcp.CHECKS, *mtu.CHECKS, *request.CHECKS)
START = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
PLACES: dict[str, dict[str, str]] = {
    "source": {"cluster": "cluster-a", "namespace": "shop", "pod": "frontend-5d8f-a1"},
    "beside": {"cluster": "cluster-a", "namespace": "shop", "pod": "cart-77c-x2"},
    "node-a1": {"cluster": "cluster-a", "node": "node-a1"},
    "node-a2": {"cluster": "cluster-a", "node": "node-a2"},
    "node-b1": {"cluster": "cluster-b", "node": "node-b1"},
    "backend-1": {"cluster": "cluster-b", "namespace": "shop", "pod": "backend-66b-1"},
    "far": {"cluster": "cluster-b", "namespace": "shop", "pod": "catalog-1a2-9"},
    "stranger": {"cluster": "cluster-c", "namespace": "shop", "pod": "other"},
}


def flow(**changes: Any) -> Flow:
    """frontend in cluster-a calls backend in cluster-b over a flat network."""
    backends = (
        Backend(cluster="cluster-b", address="10.2.0.7", port=8080, pod="shop/backend-66b-1", node="node-b1"),
        Backend(
            cluster="cluster-b", address="10.2.0.8", port=8080, pod="shop/backend-66b-2", node="node-b2",
            ready=not changes.pop("second_unready", False),
        ),
    )  # fmt: skip
    if changes.pop("third", False):
        third = Backend(cluster="cluster-b", address="10.2.0.6", port=8080, pod="shop/backend-66b-3", node="node-b1")
        backends = (*backends, third)
    proxy = changes.pop("proxy", None)
    layers = tuple(decode(Layer, x) for x in changes.pop("interconnect", [{"layer": "l3", "system": "vpn"}]))
    rungs = (
        Rung(label="name", address=None, port=80, about="the name"),
        Rung(label="cluster-ip", address="10.3.0.10", port=80, cluster="cluster-a"),
        *(Rung(label="endpoint", address=b.address, port=8080, cluster="cluster-b") for b in backends if b.ready),
        Rung(label="neighbour", address="10.2.0.9", port=9090, cluster="cluster-b"),
    )
    pod = Pod(
        cluster="cluster-a", namespace="shop", name="frontend-5d8f-a1", ips=("10.1.0.5",), node="node-a1", ready=True,
        proxy=proxy,
    )  # fmt: skip
    local = ServicePort(
        cluster="cluster-a", namespace="shop", name="backend", cluster_ips=("10.3.0.10",), port=80, target="8080",
        backends=backends,
    )  # fmt: skip
    made = Flow(
        source_text="frontend",
        destination_text="backend",
        source=Workload(cluster="cluster-a", namespace="shop", kind="Deployment.apps", name="frontend", pods=(pod,)),
        source_cluster="cluster-a",
        destination_cluster="cluster-b",
        namespace="shop",
        name="backend",
        host="backend.shop.svc.clusterset.local",
        port=80,
        protocol="http",
        local=local,
        remote=dataclasses.replace(local, cluster="cluster-b", cluster_ips=("10.4.0.10",)),
        backends=backends,
        rungs=rungs,
        interconnect=layers,
    )
    return dataclasses.replace(made, **changes)


def fact(record: dict[str, Any], index: int) -> Fact:
    vantage = record.get("vantage", "source")
    return from_record(
        {
            "at": (START + timedelta(seconds=index)).isoformat(),
            **record,
            "vantage": PLACES[vantage] if isinstance(vantage, str) else vantage,
        }
    )


def kube_object(cluster: str, body: dict[str, Any]) -> KubeObject:
    return KubeObject(at=START, vantage=Vantage(cluster=cluster), cluster=cluster, body=body)


def facts_of(case: dict[str, Any]) -> list[Fact]:
    found: list[Fact] = [fact(r, i) for i, r in enumerate(case.get("facts", []))]
    for cluster, bodies in case.get("objects", {}).items():
        found += [kube_object(cluster, b) for b in bodies]
    for entry in case.get("listed", []):
        found.append(Listed(at=START, vantage=Vantage(), cluster=entry[0], wanted=entry[1], namespace=None, count=0))
    return found


def diagnose(case: dict[str, Any]) -> Report:
    return conclude(CHECKS, facts_of(case), flow(**case.get("flow", {})), load())


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    for room in ROOMS:
        for path in sorted((Path(__file__).parent / room / "cases").glob("*.yaml")):
            for case in yaml.safe_load(path.read_text("utf-8")):
                yield f"{path.stem}/{case['name']}", case


CASES = dict(cases())


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    case = CASES[name]
    report = diagnose(case)
    outcomes = {r.id: r.outcome for r in report.ran}
    told = {f.id for r in report.ran for f in findings(r.outcome)}
    shown = {k: (word(o), sorted(f.id for f in findings(o)), getattr(o, "reason", "")) for k, o in outcomes.items()}
    for check, wanted in case.get("checks", {}).items():
        assert word(outcomes[check]) == wanted, shown[check]
    assert set(case.get("finds", [])) <= told, sorted(told)
    assert not set(case.get("silent", [])) & told
    if case.get("quiet"):
        loud = [k for k, o in outcomes.items() if isinstance(o, Failed) and k in {c.id for c in OURS}]
        assert loud == [], {k: shown[k] for k in loud}
        assert [d.cause.id for d in report.diagnoses] == []
    if "cause" in case:
        ranked = [(d.cause.id, d.certainty.value, [f.id for f in d.supporting]) for d in report.diagnoses]
        wanted = case["cause"]
        assert (ranked[0][0] if ranked else None) == wanted, ranked
        if "certainty" in case:
            assert ranked[0][1] == case["certainty"], ranked
    if "verdict" in case:
        assert report.verdict == case["verdict"], shown["request-reaches-backend"]


@pytest.mark.parametrize("name", CASES)
def test_the_record_of_a_case_says_the_same(name: str) -> None:
    """Facts written out and read again, in another order of arrival, give the same outcomes."""
    case = CASES[name]
    before = arrange(facts_of(case))
    after = arrange([from_record(to_record(f)) for f in reversed(facts_of(case))])
    the_flow = flow(**case.get("flow", {}))
    for check in OURS:
        one, two = check.judge(Facts(before, the_flow)), check.judge(Facts(after, the_flow))
        assert (word(one), {f.id for f in findings(one)}) == (word(two), {f.id for f in findings(two)}), check.id


@pytest.mark.parametrize("check", OURS, ids=lambda c: c.id)
def test_without_facts_nothing_is_claimed(check: Any) -> None:
    outcome = check.judge(Facts([], flow()))
    assert word(outcome) in ("unknown", "skipped", "passed")
    if isinstance(outcome, Unknown):
        assert outcome.reason


def test_every_finding_of_these_rooms_is_seen_in_some_case() -> None:
    """In a case of the rooms, or in one of the recorded cases."""
    told = {f.id for case in CASES.values() for r in diagnose(case).ran for f in findings(r.outcome)}
    for folder in (Path(__file__).parents[1] / "cases").iterdir():
        if any(folder.glob("facts/*.jsonl")):
            bundle = read_bundle(folder)
            told |= {f.id for r in replay(bundle, OURS, load(), request_of(bundle)).ran for f in findings(r.outcome)}
    assert sorted({f for c in OURS for f in c.findings} - told) == []


def test_cases_tell_what_they_expect() -> None:
    keys = {"checks", "finds", "silent", "quiet", "cause", "verdict"}
    assert [n for n, c in CASES.items() if not keys & c.keys()] == []
