"""The request itself: does it reach the application, every time, when it is large, after a pause, and who answers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Banner, Fact, HttpRequest, HttpSeries, TlsHandshake
from mcdoctor.models.ids import Hop, Severity, Symptom
from mcdoctor.models.outcome import Finding, Outcome, Passed, Skipped, Unknown, settle
from mcdoctor_checks.request.answer import (
    LARGE,
    Answer,
    Ending,
    front_requests,
    ordinary,
    own_requests,
    read,
    read_sample,
    target,
)
from mcdoctor_checks.sight import capturing, place, rung_of, veil

Args = dict[str, str | int | float]

_FINDING: dict[Ending, tuple[str, Hop, Symptom]] = {
    "times-out": ("request-times-out", Hop.NETWORK, Symptom.CONNECTION_TIMEOUT),
    "refused": ("request-refused", Hop.DEST_SERVICE, Symptom.CONNECTION_REFUSED_OR_RESET),
    "unreachable": ("request-unreachable", Hop.NETWORK, Symptom.CONNECTION_TIMEOUT),
    "reset": ("request-reset", Hop.NETWORK, Symptom.CONNECTION_REFUSED_OR_RESET),
    "closed": ("request-closed", Hop.NETWORK, Symptom.CONNECTION_REFUSED_OR_RESET),
    "tls-fails": ("request-tls-fails", Hop.DEST_PROXY, Symptom.TLS_HANDSHAKE_FAILURE),
    "tls-on-plain": ("request-tls-on-plaintext-port", Hop.DEST_POD, Symptom.TLS_HANDSHAKE_FAILURE),
    "plain-on-tls": ("request-plaintext-on-tls-port", Hop.DEST_POD, Symptom.CONNECTION_REFUSED_OR_RESET),
    "name-fails": ("request-name-fails", Hop.SOURCE_DNS, Symptom.DNS_PERSISTENT_FAILURE),
    "protocol-fails": ("request-protocol-fails", Hop.DEST_POD, Symptom.CONNECTION_REFUSED_OR_RESET),
    "cannot-connect": ("request-cannot-connect", Hop.NETWORK, Symptom.CONNECTION_TIMEOUT),
    "proxy-5xx": ("request-5xx-from-proxy", Hop.DEST_SERVICE, Symptom.SURGE_5XX),
    "proxy-4xx": ("request-4xx-from-proxy", Hop.DEST_PROXY, Symptom.NO_ROUTE),
    "forward-proxy": ("request-forward-proxy-refuses", Hop.SOURCE_POD, Symptom.EGRESS_BLOCKED),
}

# --- request-reaches-backend ---------------------------------------------------------------------------------------

REACH_FINDINGS = (
    *sorted({i for i, _, _ in _FINDING.values()}), "request-5xx-from-application", "request-failed-once",
    "request-endpoint-works",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tally:
    """Answers with how often each came, and the fact each is from."""

    answers: tuple[tuple[Answer, int, Fact], ...]

    @property
    def total(self) -> int:
        return sum(n for _, n, _ in self.answers)

    @property
    def good(self) -> int:
        return sum(n for a, n, _ in self.answers if a.proves_path)

    def of(self, *endings: Ending) -> list[tuple[Answer, int, Fact]]:
        return [x for x in self.answers if x[0].ending in endings]

    @property
    def bad(self) -> list[tuple[Answer, int, Fact]]:
        return [x for x in self.answers if not x[0].proves_path and x[0].ending != "proxy-other"]


def tally(singles: Iterable[HttpRequest], series: Iterable[HttpSeries], *, warm: bool = False) -> Tally:
    """Folds requests and series. `warm`: only samples whose connection is new or was used just before."""
    found: list[tuple[Answer, int, Fact]] = []
    like: dict[int, Answer] = {}
    for request in singles:
        answer = read(request)
        if answer.status is not None:
            like.setdefault(answer.status, answer)
        tries = max(request.tries or 1, request.successes or 0, 1)
        if request.successes is None or request.successes >= tries:
            found.append((answer, tries, request))  # all alike: who counts any answer as a success counted this one
            continue
        won = min(tries, max(0, request.successes))
        if won:
            good = answer if answer.proves_path else Answer(ending="application", by=answer.by, ms=answer.ms)
            found.append((good, won, request))
        if tries > won:
            bad = answer if not answer.proves_path else Answer(ending="times-out", error="no answer", ms=answer.ms)
            found.append((bad, tries - won, request))
    for theirs in series:
        for sample in theirs.samples:
            found.append((read_sample(theirs, sample, like), 1, theirs))
    return Tally(tuple(found))


def judge_reach(facts: Facts) -> Outcome:
    """Any answer of the application proves the path; an answer of somebody between does not."""
    singles, series = front_requests(facts)
    seen = tally(ordinary(singles), series)
    if not seen.total:
        large = tally(singles, ())
        if large.good:  # a large or special request was answered: so is a small one
            return Passed(tuple(f for _, _, f in large.answers)[:2])
        if large.bad and not any(r.max_segment for r in singles):
            return settle(_failures(facts, large))
        return _without_http(facts)
    evidence = tuple({id(f): f for _, _, f in seen.answers}.values())
    if seen.good:
        return Passed(evidence[:3], tuple(_remarks(seen)))
    other = facts.flow.protocol is not None and not _speaks_http(facts)
    if other and seen.bad and all(a.ending == "protocol-fails" for a, _, _ in seen.bad):
        return Passed(evidence[:3])  # it answered in its own protocol: HTTP is not what it speaks
    if not seen.bad:
        by = seen.answers[0][0].by
        return Unknown(
            f"only {by or 'a proxy'} answered ({seen.answers[0][0].status}): the application was not reached",
            "mcdoctor diagnose … --request 'GET /PATH'",
        )
    return settle(_failures(facts, seen))


def _remarks(seen: Tally) -> list[Finding]:
    """What is worth knowing of a path that works."""
    notes: list[Finding] = []
    errors = [x for x in seen.of("application") if (x[0].status or 0) >= 500]
    if errors:
        answer, _, fact = errors[0]
        count = sum(n for _, n, _ in errors)
        whole = count * 2 > seen.total
        notes.append(
            Finding(
                id="request-5xx-from-application",
                hop=Hop.DEST_POD,
                subject=answer.by or fact.subject,
                severity=Severity.NOTE,
                args={
                    "status": answer.status or 0,
                    "by": answer.by or "the application",
                    "failed": count,
                    "tries": seen.total,
                    "always": "yes" if whole else "no",
                },
                evidence=(fact,),
            )
        )
    failed = sum(n for _, n, _ in seen.bad)
    if failed and not sometimes_fails(seen):
        answer, _, fact = seen.bad[0]
        notes.append(
            Finding(
                id="request-failed-once",
                hop=Hop.NETWORK,
                subject=fact.subject,
                severity=Severity.NOTE,
                args={"failed": failed, "tries": seen.total, "how": answer.ending},
                evidence=(fact,),
            )
        )
    return notes


def _failures(facts: Facts, seen: Tally) -> list[Finding]:
    """The failures by kind, the commonest first; and whether a request straight to an endpoint is answered."""
    found: list[Finding] = []
    kinds = Counter({a.ending: 0 for a, _, _ in seen.bad})
    for answer, count, _ in seen.bad:
        kinds[answer.ending] += count
    for ending, count in kinds.most_common():
        answer, _, fact = seen.of(ending)[0]
        ident, hop, symptom = _FINDING[ending]
        evidence = tuple({id(f): f for _, _, f in seen.of(ending)}.values())
        found.append(
            Finding(
                id=ident,
                hop=_hop(hop, answer),
                subject=fact.subject,
                symptom=_symptom(symptom, answer),
                args={
                    "status": answer.status or "-",
                    "by": answer.by or "?",
                    "flags": answer.flags or "-",
                    "error": answer.error or "-",
                    "failed": count,
                    "tries": seen.total,
                    "ms": round(answer.ms),
                },
                evidence=evidence[:4],
            )
        )
    asked = {target(facts, f.url, f.address) for _, _, f in seen.answers if isinstance(f, (HttpRequest, HttpSeries))}
    past = {None, "neighbour", *asked}
    lower = [r for r in own_requests(facts)[0] if target(facts, r.url, r.address) not in past]
    if direct := [r for r in lower if read(r).proves_path]:
        found.append(
            Finding(
                id="request-endpoint-works",
                hop=Hop.DEST_SERVICE,
                subject=direct[0].url,
                severity=Severity.NOTE,
                args={"address": direct[0].address or direct[0].url},
                evidence=(direct[0],),
            )
        )
    return found


def _hop(hop: Hop, answer: Answer) -> Hop:
    if answer.ending == "proxy-5xx" and ("envoy" in answer.by or "linkerd" in answer.by):
        return Hop.SOURCE_PROXY if "linkerd" in answer.by else Hop.DEST_SERVICE
    return hop


def _symptom(symptom: Symptom, answer: Answer) -> Symptom:
    if answer.ending == "proxy-4xx" and answer.status == 403:
        return Symptom.IDENTITY_DENIED
    return symptom


def _without_http(facts: Facts) -> Outcome:
    """A protocol that is not HTTP: a greeting or a TLS handshake of the far side, or an open port that keeps silent."""
    flow = facts.flow
    hellos = [
        t
        for t in facts.all(TlsHandshake)
        if place(flow, t.vantage) == "source" and rung_of(facts, t.address, t.port) not in (None, "neighbour")
    ]
    if flow.protocol == "tls" and (good := [t for t in hellos if t.result == "ok" and veil(facts, t) is None]):
        return Passed(tuple(good[:1]))
    banners = [b for b in facts.all(Banner) if place(flow, b.vantage) in ("source", "near")]
    banners = [b for b in banners if rung_of(facts, b.address, b.port) not in (None, "neighbour")]
    if banners and not _speaks_http(facts):
        return _of_banner(facts, banners)
    for kind in (HttpRequest, HttpSeries):
        if blind := facts.blind_to(kind):
            return Unknown(blind[0].reason, blind[0].command)
    if any(facts.all(kind) for kind in (HttpRequest, HttpSeries)):
        return Unknown("no request was made as the source's workload to the destination's name or Service")
    return Unknown("no request was made from the source")


def _speaks_http(facts: Facts) -> bool:
    return facts.flow.protocol in ("http", "https", "h2c", "grpc")


def _of_banner(facts: Facts, banners: Sequence[Banner]) -> Outcome:
    said = [b for b in banners if b.result == "text"]
    if said:
        return Passed(tuple(said[:1]))
    first = banners[0]
    if proxy := capturing(facts, first.vantage):
        return Unknown(f"the connection ends at {proxy}, and this protocol says nothing until it is spoken to")
    silent = [b for b in banners if b.result == "silent"]
    if silent:
        label = rung_of(facts, silent[0].address, silent[0].port)
        if label in ("gateway", "name") and facts.flow.crosses_clusters and not _balanced(facts, silent[0].address):
            return Unknown(f"{silent[0].subject} is open, but it may be a gateway that accepts for others")
        return Passed(tuple(silent[:1]))
    endings: dict[str, Ending] = {
        "refused": "refused",
        "timeout": "times-out",
        "unreachable": "unreachable",
        "reset": "reset",
    }
    if first.result not in endings:
        return Unknown(
            f"{first.subject} opens and closes at once: a proxy without a backend, or a protocol that does so"
        )
    answer = Answer(ending=endings[first.result], error=first.result, ms=first.ms)
    return settle(_failures(facts, Tally(((answer, 1, first),))))


def _balanced(facts: Facts, address: str) -> bool:
    """An address that kube-proxy or its like turns into an endpoint's without answering for it."""
    services = [s for s in (facts.flow.local, facts.flow.remote) if s]
    return any(address in s.cluster_ips for s in services)


# --- request-succeeds-every-time -----------------------------------------------------------------------------------

STEADY_FINDINGS = (
    "request-sometimes-fails",
    "request-sometimes-5xx",
    "request-sometimes-slow",
    "request-fails-on-kept",
    "request-fails-on-new",
    "request-fails-on-one-backend",
    "request-upstream-fails",
)


def sometimes_fails(seen: Tally) -> bool:
    """One in ten may fail; two and more than a tenth may not, nor three and a twentieth of many."""
    failed = sum(n for _, n, _ in seen.bad)
    share = failed / max(1, seen.total)
    return (
        (failed >= 2 and share > 0.1)
        or (failed >= 3 and share >= 0.05)
        or (failed >= 1 and seen.total <= 4 and failed < seen.total)
    )


def judge_steady(facts: Facts) -> Outcome:
    """Requests that are alike end alike: on new and kept connections, one after the other."""
    singles, series = front_requests(facts)
    seen = tally(ordinary(singles), series)
    if seen.total < 3:
        return Skipped("fewer than three requests of one kind were made")
    evidence = tuple({id(f): f for _, _, f in seen.answers}.values())
    found: list[Finding] = []
    if seen.good and sometimes_fails(seen) and not _by_size(singles):
        found += _sometimes(seen, series, evidence)
    found += _application_errors(seen, evidence)
    if not found:
        found += _slow(series)
    if not seen.good:
        return Skipped("no request succeeded at all")
    return settle(found, evidence[:2])


def _by_size(singles: Sequence[HttpRequest]) -> bool:
    """Failures that follow the size of the body are not chance."""
    failed = [r.body_bytes or r.request_bytes or 0 for r in singles if not read(r).proves_path]
    passed = [r.body_bytes or r.request_bytes or 0 for r in singles if read(r).proves_path]
    return bool(failed and passed) and min(failed) > max(passed)


def _sometimes(seen: Tally, series: Sequence[HttpSeries], evidence: tuple[Fact, ...]) -> list[Finding]:
    failed = sum(n for _, n, _ in seen.bad)
    kinds = Counter(a.ending for a, n, _ in seen.bad for _ in range(n))
    ending = kinds.most_common(1)[0][0]
    _, hop, symptom = _FINDING[ending]
    if ending in ("times-out", "cannot-connect", "unreachable") and 2 * failed < seen.total:
        symptom = Symptom.INTERMITTENT_LATENCY
    args: Args = {"failed": failed, "tries": seen.total, "percent": round(100 * failed / seen.total), "how": ending}
    subject = evidence[0].subject
    found = [
        Finding(
            id="request-sometimes-fails", hop=hop, subject=subject, symptom=symptom, args=args, evidence=evidence[:4]
        )
    ]

    def note(ident: str, at: Hop, **more: str | int | float) -> None:
        found.append(
            Finding(
                id=ident, hop=at, subject=subject, severity=Severity.NOTE, args={**args, **more}, evidence=evidence[:2]
            )
        )

    samples = [(s.connection, read_sample(x, s), s) for x in series for s in x.samples]
    for which, other, ident in (("kept", "new", "request-fails-on-kept"), ("new", "kept", "request-fails-on-new")):
        bad = [s for c, a, s in samples if c == which and not a.proves_path]
        good = [s for c, a, s in samples if c == other and a.proves_path]
        others = [s for c, a, s in samples if c == other and not a.proves_path]
        if len(bad) >= 2 and good and not others:
            note(ident, Hop.NETWORK, connection=which)
    if any(a.flags and {"UF", "UC", "UH"} & set(a.flags.replace(",", " ").split()) for a, _, _ in seen.bad):
        flags = next(a.flags for a, _, _ in seen.bad if a.flags)
        note("request-upstream-fails", Hop.DEST_ENDPOINT, flags=flags)
    by = Counter(s.node or s.served_by for _, a, s in samples if not a.proves_path and (s.node or s.served_by))
    ok = {s.node or s.served_by for _, a, s in samples if a.proves_path}
    if len(by) == 1 and (one := next(iter(by))) not in ok and ok - {None}:
        note("request-fails-on-one-backend", Hop.DEST_ENDPOINT, backend=str(one))
    return found


def _application_errors(seen: Tally, evidence: tuple[Fact, ...]) -> list[Finding]:
    """The application answers 5xx now and then: the path is fine, the application is not."""
    errors = [x for x in seen.of("application") if (x[0].status or 0) >= 500]
    count = sum(n for _, n, _ in errors)
    if count < 2 or count == seen.good or count / seen.total <= 0.1:
        return []
    args: Args = {
        "failed": count,
        "tries": seen.total,
        "status": errors[0][0].status or 0,
        "percent": round(100 * count / seen.total),
    }
    return [
        Finding(
            id="request-sometimes-5xx",
            hop=Hop.DEST_POD,
            subject=evidence[0].subject,
            symptom=Symptom.SURGE_5XX,
            args=args,
            evidence=evidence[:3],
        )
    ]


def _slow(series: Sequence[HttpSeries]) -> list[Finding]:
    """A tail far from the middle: ten times the median and half a second more, for a sixth of the requests.

    Or two speeds: a quarter of the requests and more takes five times as long as the faster quarter, and 80 ms more.
    """
    times = [s.ms for x in series for i, s in enumerate(x.samples) if s.result == "response" and i]
    if len(times) < 5:
        return []
    middle = median(times)
    usual = sorted(times)[len(times) // 4]
    late = [t for t in times if t > max(10 * middle, middle + 500)]
    uneven = [t for t in times if t > 5 * usual and t > usual + 80]
    if len(late) < 2 or len(late) / len(times) < 0.15:
        if len(uneven) < 3 or len(uneven) / len(times) < 0.25:
            return []
        late = uneven
    args: Args = {"late": len(late), "of": len(times), "median": round(middle), "slowest": round(max(late))}
    return [
        Finding(
            id="request-sometimes-slow",
            hop=Hop.NETWORK,
            subject=series[0].url,
            symptom=Symptom.INTERMITTENT_LATENCY,
            args=args,
            evidence=tuple(series[:2]),
        )
    ]


# --- request-large-passes ------------------------------------------------------------------------------------------

LARGE_FINDINGS = ("request-hangs-when-large", "request-hangs-on-some-paths", "request-too-large-for-proxy")


def judge_large(facts: Facts) -> Outcome:
    """A request or an answer of several segments passes as a small one does."""
    singles, series = front_requests(facts)
    usual = [r for r in singles if not r.max_segment]
    large = [r for r in usual if (r.request_bytes or 0) > LARGE]
    small = tally(ordinary(usual), series)
    problems: list[Finding] = []
    hung = [r for r in large if read(r).ending in ("times-out", "closed", "reset")]
    if hung and small.good:
        fits = [
            r
            for r in large
            if read(r).proves_path and (r.request_bytes or 0) >= max(x.request_bytes or 0 for x in hung)
        ]
        if not fits:
            problems.append(_hang("request-hangs-when-large", hung, hung[0].request_bytes or 0, Severity.ERROR))
    refused = [r for r in large if _says_too_large(r)]
    if refused:
        problems.append(
            Finding(
                id="request-too-large-for-proxy",
                hop=Hop.DEST_PROXY,
                subject=refused[0].url,
                severity=Severity.NOTE if _padded(refused[0]) else Severity.ERROR,
                symptom=None if _padded(refused[0]) else Symptom.LARGE_PAYLOAD_HANG,
                args={"status": refused[0].status or 0, "bytes": refused[0].request_bytes or 0},
                evidence=(refused[0],),
            )
        )
    problems += _paths(usual)
    if problems:
        return settle(problems, tuple(large))
    answered = [r for r in usual if read(r).proves_path and max(r.request_bytes or 0, r.body_bytes or 0) > LARGE]
    if answered:
        return Passed(tuple(answered[:2]))
    return Skipped("no request of several segments was made")


_TOO_LARGE = re.compile(
    r"(header|cookie|uri|url|entity|body|payload|request line)\b.{0,40}\btoo (large|long|big)", re.I
)


def _says_too_large(request: HttpRequest) -> bool:
    """By its status, or in words: nginx and others refuse long headers with 400 or a status of their own."""
    if request.status in (413, 414, 431, 494):
        return True
    return request.status in (400, 502) and bool(_TOO_LARGE.search(request.body_start or ""))


def _padded(request: HttpRequest) -> bool:
    """Whether mcdoctor itself made the request large: then a limit on headers is no fault."""
    return any(name.lower() == "x-mcdoctor-padding" for name in request.request_headers or {})


def _paths(usual: Sequence[HttpRequest]) -> list[Finding]:
    """One URL always answers and another, with a larger answer, always hangs."""
    small = ordinary(usual)
    good = [r for r in small if read(r).proves_path]
    hung = [r for r in small if r.result == "timeout" and all(o.result == "timeout" for o in small if o.url == r.url)]
    if not good or not hung:
        return []
    largest = max((r.body_bytes or 0 for r in good), default=0)
    expected = [r for r in hung if not r.body_bytes or r.body_bytes > largest]  # of none it is not known how large
    begun = [r for r in expected if r.status is not None or (r.body_bytes or 0) > largest]
    severity = Severity.ERROR if begun else Severity.WARNING
    return [_hang("request-hangs-on-some-paths", hung, largest, severity)] if expected else []


def _hang(ident: str, hung: Sequence[HttpRequest], size: int, severity: Severity) -> Finding:
    return Finding(
        id=ident,
        hop=Hop.NETWORK,
        subject=hung[0].url,
        severity=severity,
        symptom=Symptom.LARGE_PAYLOAD_HANG,
        args={"bytes": size, "ms": round(hung[0].ms), "how": hung[0].result, "tries": len(hung)},
        evidence=tuple(hung[:3]),
    )


# --- request-survives-idle -----------------------------------------------------------------------------------------

IDLE_FINDINGS = (
    "request-first-after-idle-fails", "request-after-idle-reset", "request-after-idle-closed",
    "request-after-idle-hangs", "request-new-connection-works", "request-kept-connection-hangs",
)  # fmt: skip
_PAUSE = 5.0


def judge_idle(facts: Facts) -> Outcome:
    """The first request on a connection that was idle is answered like the others."""
    singles, series = front_requests(facts)
    paused: list[tuple[float, Answer, Fact]] = [
        (r.idle_s or 0.0, read(r), r) for r in singles if r.connection != "new" and (r.idle_s or 0) >= _PAUSE
    ]
    for theirs in series:
        paused += _pauses(theirs)
    stuck = _stuck(singles, series)
    if not paused and not stuck:
        return Skipped("no request was made on a connection that had been idle for a while")
    failed = [x for x in paused if not x[1].proves_path]
    if not failed and stuck:
        return settle(stuck)
    evidence: tuple[Fact, ...] = tuple({id(f): f for _, _, f in paused}.values())
    if not failed:
        return Passed(evidence[:2])
    idle, answer, _ = min(failed, key=lambda x: x[0])
    others = tally(ordinary([r for r in singles if r.connection != "kept" or (r.idle_s or 0) < _PAUSE]), ())
    fresh = others.good or sum(
        read_sample(x, s).proves_path for x in series for s in x.samples if s.connection != "kept"
    )
    args: Args = {
        "idle": round(idle),
        "how": answer.ending,
        "ms": round(answer.ms),
        "survived": round(max((i for i, a, _ in paused if a.proves_path), default=0.0)),
    }
    subject = evidence[0].subject
    shown = tuple({id(f): f for _, _, f in failed}.values())
    found = [
        Finding(
            id="request-first-after-idle-fails",
            hop=Hop.NETWORK,
            subject=subject,
            args=args,
            evidence=shown[:3],
            symptom=Symptom.CONNECTION_REFUSED_OR_RESET,
        )
    ]
    kind = {"reset": "request-after-idle-reset", "times-out": "request-after-idle-hangs"}.get(
        answer.ending, "request-after-idle-closed" if answer.ending in ("closed", "proxy-5xx") else ""
    )
    if kind:
        found.append(
            Finding(id=kind, hop=Hop.NETWORK, subject=subject, severity=Severity.NOTE, args=args, evidence=shown[:2])
        )
    if fresh:
        found.append(
            Finding(
                id="request-new-connection-works",
                hop=Hop.NETWORK,
                subject=subject,
                severity=Severity.NOTE,
                args=args,
                evidence=evidence[:2],
            )
        )
    return settle([*found, *stuck], evidence)


# tcp_retries2 at its default of 15 gives up after 924 s at the least; nobody waits that long for a working server.
_GIVING_UP = 600_000.0


def _stuck(singles: Sequence[HttpRequest], series: Sequence[HttpSeries]) -> list[Finding]:
    """A kept connection that hung for about as long as TCP repeats before it gives up."""
    hung: list[tuple[float, Fact]] = [
        (r.ms, r) for r in singles if r.connection == "kept" and r.result != "response" and r.ms >= _GIVING_UP
    ]
    for theirs in series:
        hung += [
            (s.ms, theirs)
            for s in theirs.samples
            if s.connection == "kept" and s.result != "response" and s.ms >= _GIVING_UP
        ]
    if not hung:
        return []
    ms, fact = max(hung, key=lambda x: x[0])
    return [
        Finding(
            id="request-kept-connection-hangs",
            hop=Hop.DEST_ENDPOINT,
            subject=fact.subject,
            symptom=Symptom.CONNECTION_TIMEOUT,
            args={"seconds": round(ms / 1000)},
            evidence=(fact,),
        )
    ]


def _pauses(series: HttpSeries) -> list[tuple[float, Answer, Fact]]:
    """Samples on a kept connection whose last use was some seconds before."""
    found: list[tuple[float, Answer, Fact]] = []
    before = None
    for sample in sorted(series.samples, key=lambda s: s.at):
        if before is not None and sample.connection == "kept":
            pause = (sample.at - before.at).total_seconds() - before.ms / 1000
            if pause >= _PAUSE:
                found.append((pause, read_sample(series, sample), series))
        before = sample
    return found


# --- request-answered-by-destination -------------------------------------------------------------------------------

SERVED_FINDINGS = ("request-served-by-another", "request-served-by")


def judge_served(facts: Facts) -> Outcome:
    """The pod that answered is one of the destination's."""
    flow = facts.flow
    singles, series = front_requests(facts)
    seen: Counter[str] = Counter()
    shown: dict[str, Fact] = {}
    for request in singles:
        if request.served_by:
            seen[request.served_by] += 1
            shown.setdefault(request.served_by, request)
    for theirs in series:
        for sample in theirs.samples:
            if sample.served_by:
                seen[sample.served_by] += 1
                shown.setdefault(sample.served_by, theirs)
    if not seen:
        return Skipped("the backend does not say who it is")
    pods = {b.pod.rpartition("/")[2] for b in flow.backends if b.pod}
    clusters = {flow.source_cluster, flow.destination_cluster, *(b.cluster for b in flow.backends)} - {""}
    strangers = []
    for name in seen:
        cluster, _, pod = name.rpartition("/")
        alien = bool(cluster) and cluster in clusters and not _serves(facts, cluster)
        unknown_pod = (
            bool(pods) and pod not in pods and not _replica(pod, pods) and _same(cluster, flow.destination_cluster)
        )
        if alien or unknown_pod:
            strangers.append(name)
    if strangers:
        return settle(
            [
                Finding(
                    id="request-served-by-another",
                    hop=Hop.NETWORK,
                    subject=strangers[0],
                    symptom=Symptom.WRONG_DESTINATION,
                    args={
                        "by": ", ".join(sorted(strangers)),
                        "failed": sum(seen[s] for s in strangers),
                        "tries": sum(seen.values()),
                    },
                    evidence=tuple(shown[s] for s in strangers),
                )
            ]
        )
    return settle(
        [
            Finding(
                id="request-served-by",
                hop=Hop.DEST_POD,
                subject=flow.destination,
                severity=Severity.NOTE,
                args={"by": ", ".join(sorted(seen))},
                evidence=tuple(shown.values())[:3],
            )
        ],
        tuple(shown.values())[:3],
    )


def _serves(facts: Facts, cluster: str) -> bool:
    """Whether a cluster has backends of this destination (a merged Service has them on both sides)."""
    flow = facts.flow
    own = flow.local.backends if flow.local else ()
    if cluster == flow.destination_cluster or cluster in {b.cluster for b in flow.backends}:
        return True
    return any(b.cluster == cluster for b in own)


def _same(cluster: str, other: str) -> bool:
    return not cluster or cluster == other


def _replica(pod: str, pods: Iterable[str]) -> bool:
    """A pod of the same workload, started since the objects were read."""
    stem = pod.rsplit("-", 2)[0] if pod.count("-") >= 2 else pod.rsplit("-", 1)[0]
    return any(p.rsplit("-", 2)[0] == stem or p.rsplit("-", 1)[0] == stem for p in pods)
