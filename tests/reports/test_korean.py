"""Korean reports are Korean in what the reports own: titles, usual reasons, kinds of facts, what would settle a cause."""

from __future__ import annotations

import re

import pytest

from mcdoctor.models.flow import Flow
from mcdoctor.models.ids import Verdict
from mcdoctor.models.outcome import Passed, Unknown
from mcdoctor.models.playbook import Library
from mcdoctor.models.report import Limit, Ran, Report
from mcdoctor.reports import render
from mcdoctor.reports.korean import PHRASES, TITLES, in_korean
from mcdoctor.reports.view import View

HANGUL = re.compile("[가-힣]")


@pytest.mark.parametrize("english", PHRASES)
def test_every_phrase_is_found_and_keeps_its_slots(english):
    names = re.findall(r"\{(\w+)\}", english)
    filled = re.sub(r"\{(\w+)\}", lambda m: f"X-{m[1]}", english)
    korean = in_korean(filled)
    assert HANGUL.search(korean)
    assert all(f"X-{name}" in korean for name in names)


def test_what_is_not_known_stays_and_reasons_nest():
    assert in_korean("something nobody thought of") == "something nobody thought of"
    assert in_korean("policies could not be seen: not allowed to list pods in shop") == (
        "정책을 확인할 수 없습니다: 권한이 없습니다: list pods in shop"
    )


def test_in_the_report():
    ran = (
        Ran(id="dns-name-resolves", title="-", outcome=Unknown("the name was asked only once")),
        Ran(id="endpoints-are-ready", title="an endpoint is ready to serve", outcome=Passed()),
    )
    limits = (Limit(what="path_mtu: 10.0.0.1", reason="echo requests are refused"),)
    flow = Flow(source_text="a", destination_text="b")
    report = Report(flow=flow, verdict=Verdict.INCONCLUSIVE, ran=ran, limits=limits)
    korean = render(report, "text", "ko", library=Library(), color=False, width=80, verbose=True)
    assert "이름을 한 번만 질의했습니다" in korean
    assert TITLES["endpoints-are-ready"] in korean
    assert "경로 MTU: 10.0.0.1" in korean
    english = render(report, library=Library(), color=False, width=80)
    assert "path MTU: 10.0.0.1" in english and "path_mtu" not in english


def test_what_would_settle_a_cause_has_no_gaps(library):
    """A finding that a cause waits for says what to look for, without values that only it would bring."""
    flow = Flow(
        source_text="web", destination_text="api", source_cluster="a", destination_cluster="b", namespace="shop",
        name="api", host="api.shop.svc", port=80,
    )  # fmt: skip
    wanted = {i for cause in library.causes.values() for i in cause.wants}
    assert wanted
    for language in ("en", "ko"):
        view = View(Report(flow=flow, verdict=Verdict.BROKEN), library, language)
        gaps = [i for i in sorted(wanted) if "…" in view.finding_name(i) or "<" in view.finding_name(i)]
        assert not gaps, f"give these findings a text `wanted`: {gaps}"
