"""Whether policies are enforced as they are written: late, stale, or without the addresses of the names they allow."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import DnsAnswer, DnsSeries, Fact, FlowRecord, HttpSeries, KubeObject, LogLine, TcpConnect
from mcdoctor.models.ids import Hop
from mcdoctor.models.outcome import Finding, Outcome
from mcdoctor_checks.netpol.facts import policies
from mcdoctor_checks.sight import on_path, place, split_host_port
from mcdoctor_checks.tcp.rules import found, settled

FINDINGS = ("policy-name-without-address", "policy-agent-out-of-sync", "policy-late-at-start", "policy-twin-passes")

_EVICTED = re.compile(
    r"(fqdn|tofqdns).{0,120}(evict|limit|max-ip|over |too many)|evict.{0,60}(fqdn|dns) (cache|mapping)", re.I
)
_OUT_OF_SYNC = re.compile(
    r"dataplane out of sync|resync failed|failed to (sync|realize|apply|program).{0,60}(polic|ipset|rule)|"
    r"ipset.{0,60}lacks|policy.{0,40}(stale|not (realized|programmed|applied))|endpoint regeneration failed",
    re.I,
)
_START = timedelta(seconds=60)


def judge_enforcement(facts: Facts) -> Outcome:
    """Notes of the agents that enforce policies, and failures that fit no written rule."""
    flow = facts.flow
    pod = flow.source_pod
    places = [(flow.source_cluster, pod.namespace if pod else ""), (flow.destination_cluster, flow.namespace)]
    written = policies(facts, *places)
    if not written:
        return settled([], [], "no policy concerns the flow")
    problems = [*_names(facts), *_agents(facts), *_start(facts), *_twins(facts)]
    return settled(problems, written, "")


def _names(facts: Facts) -> list[Finding]:
    """Drops to an address that an allowed name had just given, or an agent that says it forgot such addresses."""
    given = {a for d in facts.all(DnsAnswer) for a in d.addresses}
    given |= {a for d in facts.all(DnsSeries) for s in d.samples for a in s.answers or ()}
    drops: list[Fact] = [
        f
        for f in on_path(facts.flow, facts.all(FlowRecord))
        if f.verdict.upper() in ("DROPPED", "DENIED")
        and (f.identity or "").lower().removeprefix("reserved:") == "world"
        and split_host_port(f.destination)[0] in given
    ]
    told: list[Fact] = [x for x in on_path(facts.flow, facts.all(LogLine)) if _EVICTED.search(x.text)]
    if not drops and not told:
        return []
    return [found("policy-name-without-address", Hop.SOURCE_EGRESS_POLICY, [*drops, *told])]


def _agents(facts: Facts) -> list[Finding]:
    told = [x for x in on_path(facts.flow, facts.all(LogLine)) if _OUT_OF_SYNC.search(x.text)]
    if not told:
        return []
    return [found("policy-agent-out-of-sync", Hop.SOURCE_NODE, told, vantage=str(told[0].vantage))]


def _start(facts: Facts) -> list[Finding]:
    """Failures in the first seconds of the pod's life only, and none after the first success."""
    for series in facts.all(HttpSeries):
        if place(facts.flow, series.vantage) != "source" or len(series.samples) < 5:
            continue
        good = [s.result == "response" for s in sorted(series.samples, key=lambda s: s.at)]
        first = good.index(True) if True in good else 0
        begun = _begun(facts, series)
        at = min(s.at for s in series.samples)
        if first and all(good[first:]) and len(good) >= 2 * first and begun and at - begun <= _START:
            return [found("policy-late-at-start", Hop.SOURCE_NODE, [series], failed=first, tries=len(good))]
    return []


def _begun(facts: Facts, series: HttpSeries) -> datetime | None:
    where = series.vantage
    if not where.pod or not where.cluster:
        return None
    body: KubeObject | None = facts.object("Pod", where.cluster, where.namespace, where.pod)
    try:
        begun = datetime.fromisoformat(str(body.status.get("startTime")).replace("Z", "+00:00")) if body else None
    except ValueError:
        return None
    return begun if begun and begun.tzinfo else None


def _twins(facts: Facts) -> list[Finding]:
    """Replicas of the source, alike for every policy, of which one gets through and another never does."""
    mine = [c for c in facts.all(TcpConnect) if place(facts.flow, c.vantage) == "source" and c.vantage.pod]
    for connect in mine:
        if connect.result != "timeout" or connect.successes:
            continue
        others = [c for c in mine if c.vantage.pod != connect.vantage.pod and c.subject == connect.subject]
        if others and all(c.result == "open" for c in others):
            args: dict[str, str | int | float] = {
                "pod": connect.vantage.pod or "",
                "other": others[0].vantage.pod or "",
            }
            return [found("policy-twin-passes", Hop.SOURCE_NODE, [connect, others[0]], args=args)]
    return []
