"""A request from beside the source says nothing of the source's own policies: the verdict and its words say so."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mcdoctor.diagnosis import beside
from mcdoctor.diagnosis.explain import verdict
from mcdoctor.models.facts import HttpRequest
from mcdoctor.models.flow import Flow, Pod, Workload
from mcdoctor.models.ids import Verdict
from mcdoctor.models.outcome import Passed, Unknown
from mcdoctor.models.playbook import Library
from mcdoctor.models.report import Ran, Report
from mcdoctor.models.vantage import Vantage
from mcdoctor.reports import render

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OWN = Vantage(cluster="a", namespace="shop", pod="mcdoctor-run-abc")
SOURCE = Vantage(cluster="a", namespace="shop", pod="web-0")


def flow(proxy=None):
    pod = Pod(cluster="a", namespace="shop", name="web-0", ips=("10.0.0.1",), ready=True, proxy=proxy)
    source = Workload(cluster="a", namespace="shop", kind="StatefulSet", name="web", pods=(pod,))
    return Flow(source_text="web", destination_text="api", source=source, source_cluster="a", host="api.shop.svc")


def ran(vantage, policies):
    sent = HttpRequest(
        at=NOW, vantage=vantage, url="http://api.shop.svc/", protocol="h1", result="response", status=200, ms=3.0
    )
    return (
        Ran(id="request-reaches-backend", title="-", outcome=Passed((sent,))),
        Ran(id="netpol-allows-path", title="-", outcome=policies),
    )


@pytest.mark.parametrize(
    ("vantage", "policies", "proxy", "expected"),
    [
        (SOURCE, Unknown("not seen"), None, Verdict.HEALTHY),
        (SOURCE, Unknown("not seen"), "istio", Verdict.HEALTHY),
        (OWN, Passed(), None, Verdict.HEALTHY),
        (OWN, Unknown("not seen"), None, Verdict.INCONCLUSIVE),
        (OWN, Passed(), "istio", Verdict.INCONCLUSIVE),
        (Vantage(cluster="a", node="n1"), Unknown("not seen"), None, Verdict.INCONCLUSIVE),
    ],
)
def test_where_it_was_sent_from_decides(vantage, policies, proxy, expected):
    assert verdict(ran(vantage, policies), (), flow(proxy)) is expected


def test_the_words_name_the_pod_that_sent():
    runs, pair = ran(OWN, Passed()), flow()
    assert beside(runs, pair) == OWN
    for policies, word in ((Passed(), "policies let"), (Unknown("-"), "may treat it otherwise")):
        runs = ran(OWN, policies)
        report = Report(flow=pair, verdict=verdict(runs, (), pair), ran=runs)
        printed = " ".join(render(report, library=Library(), color=False, width=80).split())
        assert "mcdoctor-run-abc" in printed and word in printed
