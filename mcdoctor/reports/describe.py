"""A fact in one line: what was asked and what came back. Who saw it from where is told by `place`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mcdoctor.models.facts import (
    Absent,
    Banner,
    Blind,
    Capture,
    Clock,
    Conntrack,
    DnsAnswer,
    DnsSeries,
    EndpointAnswer,
    Fact,
    FlowRecord,
    HttpRequest,
    HttpSample,
    HttpSeries,
    Interception,
    Interface,
    KubeObject,
    Listed,
    Listener,
    LogLine,
    Metric,
    NodeFact,
    ObservedSource,
    PacketFilter,
    PathMtu,
    ResolvConf,
    Route,
    Svid,
    Sysctl,
    TcpConnect,
    TlsHandshake,
    Trace,
    TrustBundle,
    UdpProbe,
)
from mcdoctor.models.playbook import Language
from mcdoctor.models.vantage import Vantage
from mcdoctor.reports.clean import line
from mcdoctor.reports.words import RESULTS, say


def place(vantage: Vantage, language: Language) -> str:
    """Where something was seen from, for people."""
    if vantage.pod:
        what = f"pod {vantage.namespace}/{vantage.pod}" if vantage.namespace else f"pod {vantage.pod}"
    elif vantage.node:
        what = f"node {vantage.node}"
    elif vantage.host:
        what = f"host {vantage.host}"
    else:
        what = say("api-server", language)
    shown = say("in", language, what=line(what), cluster=line(vantage.cluster)) if vantage.cluster else line(what)
    return f"{shown} ({say('captured', language, by=line(vantage.captured))})" if vantage.captured else shown


def describe(fact: Fact, language: Language = "en") -> str:
    """One line of plain text, control characters stripped."""
    return line(_describe(fact, language), 400)


def _describe(fact: Fact, language: Language) -> str:
    match fact:
        case ResolvConf():
            return (
                f"resolv.conf: nameserver {', '.join(fact.nameservers)}; search {' '.join(fact.search)}; "
                + " ".join(fact.options)
            )
        case DnsAnswer():
            return _join(f"DNS {fact.name} {fact.type} @{fact.server}/{fact.transport}", _dns(fact, language))
        case DnsSeries():
            return _join(f"DNS {fact.name} {fact.type} @{fact.server}/{fact.transport}", _dns_series(fact, language))
        case TcpConnect():
            return _join(f"TCP {fact.subject}", _tcp(fact, language))
        case PathMtu():
            by = f" ({fact.protocol})" if fact.protocol else ""
            return _join(f"path MTU {fact.destination}{by}", _mtu(fact, language))
        case Trace():
            last = next((f"{h.ttl} {h.address}" for h in reversed(fact.hops) if h.address), None)
            end = say("reached" if fact.reached else "not-reached", language)
            return _join(f"trace {fact.destination} ({fact.protocol})", (end, f"last hop {last}" if last else None))
        case TlsHandshake():
            return _join(f"TLS {fact.subject} SNI {fact.sni or '-'}", _tls(fact, language))
        case HttpRequest():
            return _join(f"{fact.method or 'GET'} {fact.url}", _http(fact, language))
        case HttpSeries():
            return _join(f"{fact.method or 'GET'} {fact.url}", _http_series(fact, language))
        case Banner():
            said = f'"{fact.first_bytes[:40]}"' if fact.first_bytes else None
            return _join(f"banner {fact.subject}", (_result(fact.result, language), said))
        case UdpProbe():
            return _join(f"UDP {fact.subject}", (_result(fact.result, language), _rate(fact, language)))
        case Interception():
            if not fact.captured:
                return say("not-captured", language)
            return _join(say("captured", language, by=fact.by or "?"), fact.evidence)
        case Absent():
            return _join(fact.subject, (say("absent", language), _cluster(fact.cluster, language)))
        case Blind():
            return _join(f"{fact.wanted} {fact.about}", (say("not-seen", language, reason=fact.reason),))
        case Listed():
            where = f"{fact.wanted} in {fact.namespace}" if fact.namespace else fact.wanted
            return _join(where, (say("listed", language, count=fact.count), fact.selector))
        case KubeObject():
            return _join(fact.subject, (_cluster(fact.cluster, language), fact.file))
        case _:
            return _rest(fact)


def _rest(fact: Fact) -> str:
    """Kinds whose values speak for themselves."""
    match fact:
        case Interface():
            return f"interface {fact.name}: MTU {fact.mtu}, {', '.join(fact.addresses)}"
        case Route():
            parts = (fact.type, f"via {fact.via}" if fact.via else None, f"dev {fact.dev}" if fact.dev else None)
            return _join(f"route {fact.subject}", (*parts, f"mtu {fact.mtu}" if fact.mtu else None))
        case Svid():
            return f"identity {fact.spiffe_id}: valid until {fact.not_after.isoformat()}"
        case TrustBundle():
            return f"trust bundle {fact.trust_domain}: {', '.join(r.sha256[:16] for r in fact.roots)}"
        case ObservedSource():
            return _join(f"{fact.listening} received", (f"from {fact.ip}", fact.peer_id))
        case Clock():
            return f"clock offset {fact.offset_s:+.3f} s"
        case Sysctl():
            return f"{fact.name} = {fact.value}"
        case Conntrack():
            failed = f", insert_failed {fact.insert_failed}" if fact.insert_failed else ""
            return f"conntrack {fact.count} of {fact.max}{failed}"
        case NodeFact():
            return f"{fact.name} = {fact.value}"
        case Listener():
            sockets = [f"{s.address}:{s.port}/{s.protocol}" for s in fact.sockets]
            return f"listening: {', '.join(sockets[:8])}" + (f" (+{len(sockets) - 8})" if len(sockets) > 8 else "")
        case PacketFilter():
            hits = f" ({fact.packets} packets)" if fact.packets is not None else ""
            return f"rule in {fact.table}: {fact.rule}{hits}"
        case Capture():
            return f"capture on {fact.interface} ({fact.filter}): {fact.matched} packets"
        case FlowRecord():
            return _join(f"flow {fact.source} → {fact.destination}", (fact.verdict, fact.reason))
        case Metric():
            last = fact.samples[-1].value if fact.samples else "-"
            labels = ",".join(f"{k}={v}" for k, v in sorted(fact.labels.items()))
            return f"{fact.name}{{{labels}}} = {last}"
        case LogLine():
            return f"{fact.component}: {fact.text}" + (f" (×{fact.count})" if fact.count else "")
        case EndpointAnswer():
            return f"{fact.pod} /{fact.path.lstrip('/')}: {fact.cluster}"
        case _:
            return f"{type(fact).KIND} {fact.subject}"


def _join(head: str, parts: Iterable[str | None]) -> str:
    said = ", ".join(p for p in parts if p)
    return f"{head}: {said}" if said else head


def _result(result: str, language: Language) -> str:
    return RESULTS[result].in_language(language) if result in RESULTS else result


def _cluster(name: str, language: Language) -> str:
    return f"{say('cluster', language)} {name}"


def _ms(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 10_000 else f"{ms / 1000:.1f} s"


def _rate(fact: TcpConnect | DnsAnswer | HttpRequest | UdpProbe | TlsHandshake, language: Language) -> str | None:
    if fact.tries is None or fact.tries < 2:
        return None
    return say("of", language, part=fact.successes or 0, whole=fact.tries)


def _bypass(fact: TcpConnect | HttpRequest | HttpSeries | TlsHandshake) -> str | None:
    """Worth a word only where the prober goes round the pod's proxy."""
    bypasses = fact.bypass_proxy or fact.uid in (1337, 2102)
    return f"uid {fact.uid}" if bypasses and fact.uid is not None else "bypass" if bypasses else None


def _dns(fact: DnsAnswer, language: Language) -> tuple[str | None, ...]:
    if fact.result != "answered":
        return _result(fact.result, language), _rate(fact, language), _ms(fact.ms)
    records = [r.data for r in fact.answers or ()]
    shown = ", ".join(records[:4]) + (f" (+{len(records) - 4})" if len(records) > 4 else "")
    return (fact.rcode or "?", shown or say("empty", language), _rate(fact, language), _ms(fact.ms))


def _counted(words: Sequence[str]) -> str:
    counts = {w: words.count(w) for w in dict.fromkeys(words)}
    return ", ".join(f"{n}× {w}" for w, n in counts.items())


def _dns_series(fact: DnsSeries, language: Language) -> tuple[str, ...]:
    def said(result: str, rcode: str | None, answers: tuple[str, ...] | None) -> str:
        if result != "answered":
            return _result(result, language)
        return f"{rcode or '?'} {'+'.join(sorted(answers or ()))}".strip()

    return (_counted([said(s.result, s.rcode, s.answers) for s in fact.samples]),)


def _tcp(fact: TcpConnect, language: Language) -> tuple[str | None, ...]:
    icmp = f"ICMP {fact.icmp.type}/{fact.icmp.code} from {fact.icmp.sender or '?'}" if fact.icmp else fact.error
    return _result(fact.result, language), icmp, _rate(fact, language), _ms(fact.ms), _bypass(fact)


def _mtu(fact: PathMtu, language: Language) -> tuple[str | None, ...]:
    largest, lost = fact.largest_delivered, fact.smallest_lost
    signalled = min((s.mtu for s in fact.sizes if s.result == "frag-needed" and s.mtu), default=None)
    return (
        say("none-delivered", language) if largest is None else say("delivered", language, size=largest),
        None if lost is None else say("lost-from", language, size=lost),
        None if signalled is None else say("signalled", language, size=signalled),
    )


def _tls(fact: TlsHandshake, language: Language) -> tuple[str | None, ...]:
    alert = f"{fact.alert.name} ({fact.alert.by})" if fact.alert else fact.post_handshake_alert
    error = fact.verify.error if fact.verify and not fact.verify.ok else None
    return _result(fact.result, language), fact.version, alert, error, _ms(fact.ms)


def _http(fact: HttpRequest, language: Language) -> tuple[str | None, ...]:
    answer = str(fact.status) if fact.status is not None else _result(fact.result, language)
    who = say("answered-by", language, who=fact.served_by) if fact.served_by else None
    small = f"MSS {fact.max_segment}" if fact.max_segment else None
    dialled = f"@{fact.address}" if fact.address else None
    return dialled, answer, fact.response_flags, small, who, fact.error, _rate(fact, language), _ms(fact.ms)


def _http_series(fact: HttpSeries, language: Language) -> tuple[str | None, ...]:
    def said(sample: HttpSample) -> str:
        return str(sample.status) if sample.status is not None else _result(sample.result, language)

    return (f"@{fact.address}" if fact.address else None, _counted([said(s) for s in fact.samples]))
