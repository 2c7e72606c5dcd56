"""The report as JSON, schemaVersion "1": the form that programs may rely on. See report.schema.json."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from mcdoctor import __version__
from mcdoctor.diagnosis import exit_code
from mcdoctor.models.codec import timestamp
from mcdoctor.models.facts import Fact
from mcdoctor.models.flow import Flow, ServicePort
from mcdoctor.models.outcome import Finding, Skipped, Unknown, findings, word
from mcdoctor.models.playbook import Language, Library
from mcdoctor.models.record import to_record
from mcdoctor.models.report import Diagnosis, Ran, Report
from mcdoctor.reports.clean import escape_json, line
from mcdoctor.reports.view import View

SCHEMA_VERSION = "1"


def render(report: Report, library: Library, language: Language = "en") -> str:
    """One JSON object with a line break at its end. Hidden characters of untrusted text are escaped."""
    return escape_json(json.dumps(document(report, library, language), ensure_ascii=False, indent=2)) + "\n"


def document(report: Report, library: Library, language: Language = "en") -> dict[str, Any]:
    """The report as plain data."""
    view = View(report, library, language)
    index = _Index(report.facts)
    document: dict[str, Any] = {
        "schemaVersion": SCHEMA_VERSION,
        "tool": {"name": "mcdoctor", "version": __version__},
        "means": report.means,
        "language": language,
    }
    if report.started is not None:
        document["started"] = timestamp(report.started)
    document |= {
        "seconds": round(report.seconds, 3),
        "interrupted": report.interrupted,
        "flow": _flow(report.flow),
        "verdict": report.verdict.value,
        "exitCode": exit_code(report),
        "summary": view.headline,
        "symptoms": [s.value for s in report.symptoms],
        "causes": [_cause(d, view, index) for d in report.diagnoses],
        "unexplained": [_finding(f, view, index) for f in view.unexplained],
        "checks": [_check(r, view, index) for r in report.ran],
        "facts": [],
        "limits": [
            _given(what=x.what, reason=x.reason, permission=x.permission, command=x.command) for x in report.limits
        ],
    }
    document["facts"] = index.records  # filled last: a finding may rest on a fact that the run did not keep
    return document


class _Index:
    """Facts by their place in the document."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self.records: list[dict[str, Any]] = []
        self._places: dict[int, int] = {}
        self._held: list[Fact] = []
        for fact in facts:
            self.place(fact)

    def place(self, fact: Fact) -> int:
        known = self._places.get(id(fact))
        if known is None:
            known = self._places[id(fact)] = len(self.records)
            self._held.append(fact)  # an id is only good while its fact lives
            self.records.append(to_record(fact))
        return known


def _given(**values: Any) -> dict[str, Any]:
    return {k: v for k, v in values.items() if v is not None and v != ""}


def _flow(flow: Flow) -> dict[str, Any]:
    source, pod = flow.source, flow.source_pod
    return {
        "source": _given(
            text=flow.source_text,
            cluster=flow.source_cluster,
            namespace=source.namespace if source else None,
            kind=source.kind if source else None,
            workload=source.name if source else None,
            pod=pod.name if pod else None,
            proxy=pod.proxy if pod else None,
        ),
        "destination": _given(
            text=flow.destination_text,
            cluster=flow.destination_cluster,
            namespace=flow.namespace,
            name=flow.name,
            host=flow.host,
            address=flow.address,
            localService=_service(flow.local),
            remoteService=_service(flow.remote),
            endpoints=[_given(address=b.address, port=b.port, pod=b.pod, ready=b.ready) for b in flow.backends],
        ),
        "port": flow.port,
        "protocol": flow.protocol,
        "interconnect": [
            {**_given(layer=x.layer, system=x.system, mode=x.mode), "evidence": list(x.evidence)}
            for x in flow.interconnect
        ],
    }


def _service(service: ServicePort | None) -> dict[str, Any] | None:
    if service is None:
        return None
    return _given(
        cluster=service.cluster,
        namespace=service.namespace,
        name=service.name,
        type=service.type,
        port=service.port,
        target=service.target,
        clusterIPs=list(service.cluster_ips),
        externalName=service.external_name,
    )


def _finding(finding: Finding, view: View, index: _Index) -> dict[str, Any]:
    return _given(
        finding=finding.id,
        text=view.sentence(finding),
        hop=finding.hop.value,
        subject=finding.subject,
        severity=finding.severity.value,
        symptom=finding.symptom.value if finding.symptom else None,
        args=dict(finding.args),
        facts=[index.place(f) for f in finding.evidence],
    )


def _cause(diagnosis: Diagnosis, view: View, index: _Index) -> dict[str, Any]:
    def told(found: Iterable[Finding]) -> list[dict[str, Any]]:
        return [_finding(f, view, index) for f in found]

    cause = diagnosis.cause
    return {
        "id": cause.id,
        "rank": diagnosis.rank,
        "certainty": diagnosis.certainty.value,
        "hop": diagnosis.hop.value,
        "layer": cause.layer,
        "object": line(diagnosis.object),
        "summary": view.summary(diagnosis),
        "confirm": view.confirm(diagnosis),
        "symptoms": [s.value for s in cause.symptoms],
        "evidence": told(diagnosis.supporting),
        "proof": told(diagnosis.proof),
        "against": told(diagnosis.against),
        "explains": told(diagnosis.explained),
        "missing": [{"finding": i, "text": view.finding_name(i)} for i in diagnosis.missing],
        "remedies": [
            {"text": text, "commands": list(commands), "risk": r.risk.value, **_given(object=manifest)}
            for r in diagnosis.remedies
            for text, commands, manifest in [view.remedy(r, diagnosis)]
        ],
        "refs": list(cause.refs),
    }


def _check(run: Ran, view: View, index: _Index) -> dict[str, Any]:
    outcome = run.outcome
    reason = outcome.reason if isinstance(outcome, (Unknown, Skipped)) else None
    return {
        "id": run.id,
        "title": run.title,
        "outcome": word(outcome),
        **_given(
            reason=reason,
            blockedBy=outcome.blocked_by if isinstance(outcome, Skipped) else None,
            command=outcome.command if isinstance(outcome, Unknown) else None,
            vantage=run.vantage,
        ),
        "durationMs": round(run.ms, 1),
        "findings": [_finding(f, view, index) for f in findings(outcome)],
    }
