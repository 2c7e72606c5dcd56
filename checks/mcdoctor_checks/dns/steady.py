"""Whether the same question gets the same answer, quickly, every time."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import (
    Conntrack,
    Fact,
    FlowRecord,
)
from mcdoctor.models.ids import Hop, Severity, Symptom
from mcdoctor.models.outcome import Finding, Outcome, Skipped, Unknown
from mcdoctor_checks.dns.facts import (
    ANSWERED,
    DENIED,
    Kind,
    Look,
    View,
    addresses_in,
    dns_endpoints,
    settled,
    view,
)
from mcdoctor_checks.dns.told import NO_NAME, WORDS, Args, finding, why_blind
from mcdoctor_checks.reading import conclude

# --- steadiness -------------------------------------------------------------------------------------------------------

_STEPS = (2500, 5000, 10000, 15000)


def judge_steady(facts: Facts) -> Outcome:
    """The same question gets the same answer, quickly, every time."""
    if facts.flow.host is None:
        return Skipped(NO_NAME)
    seen = view(facts)
    names = dict.fromkeys((seen.host, seen.target))  # an alias is looked up as often as the name it stands for
    groups = [looks for name in names for looks in _groups(seen, name).values()]
    libc = [
        k for k in seen.through_libc() if k.type == "A"
    ] or seen.through_libc()  # one question: A and AAAA may differ
    repeated = [g for g in (*groups, libc) if len(g) > 1]
    if not repeated:
        return Unknown(why_blind(facts) if not seen.looks else "the name was asked only once", None)
    problems: list[Finding] = []
    for looks in groups:
        problems += _mixed(seen, looks)
    problems += _mixed(seen, libc) if len(libc) > 1 and not problems else ()
    problems += _steps(seen, [k for k in seen.looks if k.name == seen.host or k in libc])
    problems += _ports(seen)
    if any(p.severity is not Severity.NOTE for p in problems):
        problems += _context(facts, seen)
    problems += _dropped(facts, seen)
    return conclude(problems, (), tuple(g[0].fact for g in repeated))


def _groups(seen: View, name: str) -> dict[tuple[str, str, bool], list[Look]]:
    """Looks at an absolute name by server, type and transport; kept sockets apart."""
    groups: dict[tuple[str, str, bool], list[Look]] = {}
    for look in seen.of(name):
        if not look.fixed_port and (look.server in seen.servers or not seen.servers):
            groups.setdefault((look.server, look.type, look.tcp), []).append(look)
    return groups


def _mixed(seen: View, looks: list[Look]) -> Iterator[Finding]:
    """What differs within one group."""
    count: Counter[Kind] = Counter(k.kind for k in looks)
    del count["truncated"]  # no difference: the client goes on over TCP
    good = count["address"]
    server = looks[0].server
    subject = f"nameserver {server}"
    denials = sum(count[kind] for kind in DENIED)
    base: Args = {"server": server, "total": sum(count.values()), "good": good}
    if good and denials:
        yield finding(
            "dns-answers-flap",
            seen,
            {**base, "bad": denials, "answer": _first(count, DENIED)},
            looks,
            symptom=Symptom.DNS_FLAPPING,
            subject=subject,
        )
        yield from _order(seen, looks, base)
    failures = count["servfail"] + count["declined"]
    if good and failures:
        yield finding(
            "dns-errors-flap", seen, {**base, "bad": failures}, looks, symptom=Symptom.DNS_FLAPPING, subject=subject
        )
    lost = count["silent"] + count["closed"] + count["unreachable"]
    if lost and lost < sum(count.values()):
        yield finding(
            "dns-some-queries-lost",
            seen,
            {**base, "bad": lost, "transport": "TCP" if looks[0].tcp else "UDP"},
            looks,
            severity=Severity.ERROR if lost > 1 else Severity.WARNING,
            symptom=Symptom.DNS_FLAPPING,
            subject=subject,
        )


def _first(count: Counter[Kind], kinds: Iterable[Kind]) -> str:
    return WORDS[next(k for k in kinds if count[k])]


def _order(seen: View, looks: list[Look], base: Args) -> Iterator[Finding]:
    """Denials that ended once look like a cached denial that ran out; those that come and go do not."""
    said = [k.kind == "address" for k in sorted(looks, key=lambda k: k.at) if k.kind in ("address", *DENIED)]
    changes = sum(1 for one, other in itertools.pairwise(said) if one != other)
    args: Args = {**base, "changes": changes}
    if changes > 1:
        yield finding("dns-denials-come-and-go", seen, args, looks, severity=Severity.NOTE)
        if seen.target_zone == "external":
            yield finding("dns-outside-answers-alternate", seen, args, looks, severity=Severity.NOTE)
    elif said[-1]:
        yield finding("dns-denial-ended", seen, args, looks, severity=Severity.NOTE)
        yield finding(
            "dns-denial-is-kept", seen, {"answer": "-", "servers": looks[0].server}, looks, severity=Severity.NOTE
        )
    else:
        yield finding("dns-denial-began", seen, args, looks, severity=Severity.NOTE)


def _steps(seen: View, looks: Sequence[Look]) -> Iterator[Finding]:
    """Answers that come after one of the C library's time-outs: the first query, or its reply, was lost."""
    slow = [k for k in looks if k.kind in ANSWERED and any(0.98 * s <= k.ms <= 1.1 * s for s in _STEPS)]
    quick = [k for k in looks if k.kind == "address" and k.ms < 1000]
    if slow:
        yield finding(
            "dns-delay-in-steps",
            seen,
            {"count": len(slow), "total": len(looks), "delay": round(slow[0].ms / 1000, 1)},
            slow,
            severity=Severity.ERROR if len(slow) > 1 else Severity.WARNING,
            symptom=Symptom.INTERMITTENT_LATENCY,
        )
    elif len(looks) >= 5 and len(quick) < len(looks) / 2:
        late = [k for k in looks if k.kind == "address" and k.ms >= 1000]
        if len(late) > len(looks) / 2:
            yield finding(
                "dns-slow",
                seen,
                {"median": round(sorted(k.ms for k in late)[len(late) // 2])},
                late,
                severity=Severity.WARNING,
                symptom=Symptom.INTERMITTENT_LATENCY,
            )


def _ports(seen: View) -> Iterator[Finding]:
    """One kept socket is never answered while new sockets are."""
    for server in seen.servers or tuple({k.server for k in seen.looks}):
        udp = [k for k in seen.looks if k.server == server and not k.tcp and k.libc is None]
        kept = [k for k in udp if k.fixed_port]
        fresh = [k for k in udp if not k.fixed_port]
        if len(kept) > 1 and settled(kept) == "silent" and fresh and all(k.kind in ANSWERED for k in fresh):
            yield finding(
                "dns-fixed-port-silent",
                seen,
                {"server": server, "count": len(kept)},
                [*kept, *fresh],
                symptom=Symptom.DNS_FLAPPING,
                subject=f"nameserver {server}",
            )


def _context(facts: Facts, seen: View) -> Iterator[Finding]:
    """What parts the causes of unsteady DNS: other names, TCP, the servers beside one another, connection tracking."""
    zone = {"cluster": "dns-local-name-varies", "peer": "dns-peer-name-varies", "external": "dns-outside-name-varies"}
    yield finding(zone[seen.target_zone], seen, {}, severity=Severity.NOTE)
    control = [k for g in _groups(seen, seen.control).values() for k in g]
    if len(control) > 2:
        steady = all(k.kind == "address" and k.ms < 1000 for k in control)
        slug = "dns-other-names-steady" if steady else "dns-other-names-vary"
        args: Args = {"control": seen.control, "count": len(control)}
        yield finding(slug, seen, args, control, severity=Severity.NOTE)
        names = dict.fromkeys((seen.host, seen.target))
        asked = [k for name in names for g in _groups(seen, name).values() for k in g]
        failing = [k for k in asked if k.kind in ("servfail", "silent")]
        if steady and failing and seen.target_zone == "external":
            args = {"outside": seen.target, "answer": WORDS[failing[0].kind]}
            yield finding("dns-only-outside-names-fail", seen, args, [*failing, *control], severity=Severity.NOTE)
    tcp = [k for k in seen.of(seen.host, tcp=True) if k.server in seen.servers or not seen.servers]
    if len(tcp) > 1:
        steady = all(k.kind in ANSWERED and k.kind != "servfail" and k.ms < 1000 for k in tcp)
        yield finding(
            "dns-tcp-steady" if steady else "dns-tcp-varies", seen, {"count": len(tcp)}, tcp, severity=Severity.NOTE
        )
    pods = set(dns_endpoints(facts)) - set(seen.servers)
    direct = [k for k in (*seen.looks, *seen.near) if k.server in pods and k.libc is None]
    if len(direct) > 1 and all(k.kind in ANSWERED and k.ms < 1000 for k in direct):
        yield finding("dns-pods-steady", seen, {"count": len(direct)}, direct, severity=Severity.NOTE)
    yield from _conntrack(facts, seen)


def _conntrack(facts: Facts, seen: View) -> Iterator[Finding]:
    nodes = {p.node for p in facts.flow.source.pods if p.node} if facts.flow.source else set()
    backends = set(dns_endpoints(facts))
    for fact in facts.all(Conntrack):
        if fact.vantage.cluster not in (None, facts.flow.source_cluster) or (nodes and fact.vantage.node not in nodes):
            continue
        if fact.insert_failed:
            yield finding(
                "dns-conntrack-insert-failed", seen, {"count": fact.insert_failed}, [fact], severity=Severity.NOTE
            )
        for entry in fact.entries or ():
            to, back = _last_address(entry.original), _first_address(entry.reply)
            through_vip = entry.protocol.lower() == "udp" and to in seen.servers
            if through_vip and backends and back and back not in {*backends, to}:
                yield finding(
                    "dns-conntrack-entry-stale",
                    seen,
                    {"server": to or "", "backend": back},
                    [fact],
                    symptom=Symptom.DNS_FLAPPING,
                    hop=Hop.SOURCE_NODE,
                )
                break


def _last_address(line: str) -> str | None:
    found = addresses_in(line)
    return found[1] if len(found) > 1 else None


def _first_address(line: str) -> str | None:
    found = addresses_in(line)
    return found[0] if found else None


def _dropped(facts: Facts, seen: View) -> Iterator[Finding]:
    """Flow records of the data plane about DNS packets of the source."""
    pods = facts.flow.source.pods if facts.flow.source else ()
    mine = {p.name for p in pods} | {ip for p in pods for ip in p.ips}
    replies: list[Fact] = []
    queries: list[Fact] = []
    for fact in facts.all(FlowRecord):
        dropped = fact.verdict.upper() in ("DROPPED", "DROP", "DENIED", "DENY", "BLOCKED")
        policy = "POLICY" in f"{fact.reason or ''} {fact.component or ''}".upper() or fact.reason_code in (133, 181)
        if not dropped or not policy or fact.vantage.cluster not in (None, facts.flow.source_cluster):
            continue
        if fact.source.endswith(":53") and any(m in fact.destination for m in mine):
            replies.append(fact)
        elif fact.destination.endswith(":53") and any(m in fact.source for m in mine):
            queries.append(fact)
    if replies:
        yield finding(
            "dns-reply-dropped-by-policy",
            seen,
            {"count": len(replies)},
            replies,
            symptom=Symptom.DNS_FLAPPING,
            hop=Hop.SOURCE_EGRESS_POLICY,
        )
    if queries:
        yield finding(
            "dns-query-dropped-by-policy",
            seen,
            {"count": len(queries)},
            queries,
            symptom=Symptom.EGRESS_BLOCKED,
            hop=Hop.SOURCE_EGRESS_POLICY,
        )
