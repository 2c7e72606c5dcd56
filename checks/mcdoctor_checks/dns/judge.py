"""What the answers of the source's resolvers say about the flow's name."""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import (
    DnsAnswer,
    Fact,
    HttpRequest,
    Interface,
    LogLine,
    Route,
    TcpConnect,
)
from mcdoctor.models.ids import Hop, Severity, Symptom
from mcdoctor.models.outcome import Finding, Outcome, Passed, Skipped, Unknown
from mcdoctor_checks.dns.facts import (
    ANSWERED,
    DENIED,
    Kind,
    Look,
    View,
    addresses_in,
    configured,
    dns_addresses,
    expected_names,
    external_name,
    link_local,
    server_address,
    service_of,
    settled,
    source_pods,
    view,
)
from mcdoctor_checks.dns.told import NO_NAME, WORDS, Args, finding, in_source, why_blind
from mcdoctor_checks.endpoints.facts import cluster_ips, is_headless
from mcdoctor_checks.reading import canonical, conclude, family, fields, shown, text, texts, when
from mcdoctor_checks.sight import capturing, place

# --- the resolver's configuration -----------------------------------------------------------------------------------


def judge_resolver(facts: Facts) -> Outcome:
    """The source pod's resolv.conf leads to the cluster's DNS."""
    if facts.flow.host is None:
        return Skipped(NO_NAME)
    seen = configured(facts)
    if seen.conf is None:
        return Unknown(why_blind(facts), in_source(facts, "cat /etc/resolv.conf"), tuple(_policy_only(facts, seen)))
    problems = list(_policy_only(facts, seen))
    inside = seen.zone != "external"
    conf = seen.conf
    servers = shown(conf.nameservers)
    if not conf.nameservers:
        problems.append(finding("dns-no-nameserver", seen, {}, [conf]))
    known = dns_addresses(facts)
    searches = any(s == f"svc.{seen.domain}" for s in seen.search)
    uses = any(s in known or link_local(s) for s in seen.servers) or (searches and not known)
    if conf.nameservers and inside and not uses and not searches:
        problems.append(
            finding(
                "dns-resolver-not-cluster",
                seen,
                {"servers": servers, "search": shown(conf.search)},
                [conf],
                severity=Severity.ERROR,
            )
        )
    elif conf.nameservers and known and not uses and searches:
        problems.append(
            finding(
                "dns-nameserver-not-dns-service",
                seen,
                {"servers": servers, "service": shown(known)},
                [conf],
                severity=Severity.WARNING,
            )
        )
    alias = _host_alias(seen)
    if alias is not None:
        service = service_of(facts, seen)
        wrong = service is not None and bool(cluster_ips(service)) and alias not in cluster_ips(service)
        problems.append(
            finding(
                "dns-host-alias",
                seen,
                {"address": alias},
                [conf],
                severity=Severity.ERROR if wrong else Severity.NOTE,
                symptom=Symptom.WRONG_DESTINATION,
            )
        )
    if any(link_local(s) for s in seen.servers):
        problems.append(finding("dns-node-cache-in-use", seen, {"servers": servers}, [conf], severity=Severity.NOTE))
    outside = [s for s in seen.search if not s.endswith(seen.domain)]
    if outside and conf.ndots > seen.host.count("."):
        problems.append(
            finding(
                "dns-search-outside-cluster",
                seen,
                {"search": shown(outside), "ndots": conf.ndots},
                [conf],
                severity=Severity.NOTE,
            )
        )
    return conclude(problems, (), (conf,))


def _policy_only(facts: Facts, seen: View) -> Iterator[Finding]:
    """dnsPolicy and hostNetwork as the pod says them."""
    for pod in source_pods(facts):
        policy = text(pod.spec.get("dnsPolicy")) or "ClusterFirst"
        host = pod.spec.get("hostNetwork") is True
        config = fields(pod.spec.get("dnsConfig"))
        inside = f"svc.{seen.domain}" in texts(config.get("searches"))  # servers that are given a cluster's names
        own = bool(config.get("nameservers")) and not inside
        bypasses = policy == "Default" or (host and policy == "ClusterFirst") or (policy == "None" and own)
        confirmed = seen.conf is None or f"svc.{seen.domain}" not in seen.search
        if bypasses and confirmed and seen.zone != "external":
            why = f"hostNetwork with dnsPolicy {policy}" if host else f"dnsPolicy {policy}"
            yield finding(
                "dns-policy-bypasses-cluster",
                seen,
                {"why": why, "pod": f"{pod.namespace}/{pod.name}"},
                [pod],
                severity=Severity.WARNING,
                subject=f"Pod {pod.namespace}/{pod.name}",
                hop=Hop.SOURCE_POD,
            )
            return


def _host_alias(seen: View) -> str | None:
    if seen.conf is None:
        return None
    for name, address in (seen.conf.host_aliases or {}).items():
        if name.lower().rstrip(".") == seen.host:
            return canonical(address)
    return None


# --- the name at each server ----------------------------------------------------------------------------------------


def judge_name(facts: Facts) -> Outcome:
    """Every nameserver of the pod answers, and the name has an address."""
    if facts.flow.host is None:
        return Skipped(NO_NAME)
    seen = view(facts)
    about = [k for k in seen.looks if k.libc is None and (k.name in (seen.host, seen.control))]
    if not about and not seen.through_libc():
        return Unknown(why_blind(facts), in_source(facts, f"nslookup {seen.host}."))
    problems: list[Finding] = list(_other_pods(seen))
    dead = {s: state for s in seen.servers if (state := _dead(seen, s))}
    alive = [s for s in seen.servers if s not in dead and any(k.server == s for k in seen.looks)]
    problems += _dead_servers(facts, seen, dead, alive)
    verdicts = {s: v for s in alive if (v := _verdict(seen, s)) is not None}
    kinds = {kind for kind, _ in verdicts.values()}
    if len(kinds) == 1:
        kind = kinds.pop()
        looks = [k for _, found in verdicts.values() for k in found]
        problems += _agreed(facts, seen, kind, looks, verdicts)
    elif kinds:
        problems += _disagreement(seen, verdicts)
    if not about:
        problems += _libc_only(seen)
    evidence = tuple(k.fact for k in about[:12])
    if not verdicts and not dead and not problems:
        return Unknown("no server of the pod was asked for the name, or its answers vary", notes=tuple(problems))
    return conclude(problems, (), evidence)


def _dead(seen: View, server: str) -> str | None:
    """`silent`, `closed` or `unreachable` when nothing ever came back from a server, with the transports that tried."""
    looks = [k for k in seen.looks if k.server == server and k.libc is None]
    if not looks or any(k.kind in ANSWERED for k in looks):
        return None
    kinds = {k.kind for k in looks}
    return "closed" if "closed" in kinds else "unreachable" if "unreachable" in kinds else "silent"


def _tried(seen: View, servers: Iterable[str]) -> set[str]:
    wanted = set(servers)
    return {"TCP" if k.tcp else "UDP" for k in seen.looks if k.libc is None and k.server in wanted}


def _both(seen: View, servers: Iterable[str]) -> bool:
    return all(_tried(seen, [s]) == {"UDP", "TCP"} for s in servers)


def _dead_servers(facts: Facts, seen: View, dead: dict[str, str], alive: Sequence[str]) -> Iterator[Finding]:
    looks = [k for k in seen.looks if k.server in dead]
    beside = {k.server for k in seen.looks if k.server in dns_addresses(facts) and k.kind in ANSWERED}
    for server in dead:
        if link_local(server) and (beside or any(not link_local(s) for s in alive)):
            yield finding(
                "dns-node-cache-silent",
                seen,
                {"server": server, "others": shown(sorted({*alive, *beside}))},
                [k for k in looks if k.server == server],
                severity=Severity.NOTE,
            )
    if dead and not alive:
        states = set(dead.values())
        args: Args = {"servers": shown(dead), "transports": " and ".join(sorted(_tried(seen, dead), reverse=True))}
        if states == {"silent"}:
            id = "dns-all-servers-silent" if _both(seen, dead) else "dns-servers-silent-one-transport"
            yield finding(id, seen, args, looks)
        else:
            state = "closed" if "closed" in states else "unreachable"
            yield finding(f"dns-all-servers-{state}", seen, args, looks)
    else:
        for server, state in dead.items():
            first = server == seen.servers[0]
            yield finding(
                f"dns-server-{state}",
                seen,
                {"server": server, "position": seen.servers.index(server) + 1, "others": shown(alive)},
                [k for k in looks if k.server == server],
                severity=Severity.ERROR if first else Severity.WARNING,
                symptom=Symptom.INTERMITTENT_LATENCY,
                subject=f"nameserver {server}",
            )
    for server in alive:
        udp = [k for k in seen.looks if k.server == server and not k.tcp and k.libc is None]
        tcp = [k for k in seen.looks if k.server == server and k.tcp and k.libc is None]
        if udp and tcp and settled(udp) == "silent" and any(k.kind in ANSWERED for k in tcp):
            yield finding("dns-udp-silent", seen, {"server": server}, [*udp, *tcp], subject=f"nameserver {server}")
        if tcp and settled(tcp) in ("silent", "closed", "unreachable") and any(k.kind in ANSWERED for k in udp):
            needed = any(k.kind == "truncated" for k in udp)
            yield finding(
                "dns-tcp-fails",
                seen,
                {"server": server, "how": WORDS[tcp[0].kind]},
                tcp,
                severity=Severity.ERROR if needed else Severity.WARNING,
                symptom=Symptom.DNS_PERSISTENT_FAILURE if needed else None,
                subject=f"nameserver {server}",
            )


def _verdict(seen: View, server: str) -> tuple[Kind, list[Look]] | None:
    """What one server steadily says of the name; None when it was not asked, or its answers vary."""
    found: dict[str, Kind] = {}
    used: list[Look] = []
    for type in ("A", "AAAA"):
        looks = seen.of(seen.host, type=type, server=server)
        spoken = [k for k in looks if k.kind in ANSWERED and k.kind != "truncated"]
        if not looks:
            continue
        # Silence beside answers is loss, which the steadiness check tells; here it only counts when it is all there is.
        kind = settled(spoken) if spoken else settled(looks)
        if spoken and {k.kind for k in spoken} == {"alias", "empty"}:
            kind = "alias"  # samples keep addresses only, no aliases
        if kind is None:
            return None
        found[type] = kind
        used += looks
    a, aaaa = found.get("A"), found.get("AAAA")
    if "address" in (a, aaaa):
        return "address", used
    if a is None or aaaa is None or a == aaaa:
        only = a if a is not None else aaaa
        # With one family asked, "no record" says nothing of the other.
        return (only, used) if only is not None and (only != "empty" or a is not None) else None
    if "servfail" in (a, aaaa):
        return "servfail", used
    return a, used


def _agreed(
    facts: Facts, seen: View, kind: Kind, looks: list[Look], verdicts: dict[str, tuple[Kind, list[Look]]]
) -> Iterator[Finding]:
    """All servers that answer say the same."""
    servers = shown(verdicts)
    args: Args = {"servers": servers, "answer": WORDS[kind]}
    control = seen.of(seen.control)
    fine = any(k.kind == "address" for k in control)
    if kind == "address":
        yield from _one_family_fails(seen, verdicts)
        return
    if control:
        if fine:
            yield finding("dns-control-name-resolves", seen, {"control": seen.control}, control, severity=Severity.NOTE)
        elif all(k.kind in ANSWERED for k in control):
            yield finding(
                "dns-control-name-fails", seen, {"control": seen.control, "answer": WORDS[control[0].kind]}, control
            )
    target = next((k.alias for k in looks if k.alias), None)
    if target is not None and kind in ("alias", "servfail", "nxdomain", "empty"):
        yield finding("dns-alias-target-fails", seen, {**args, "target": target}, looks)
    elif kind in ("nxdomain", "empty"):
        yield from _denied(facts, seen, kind, args, looks, fine)
    elif kind == "servfail":
        yield finding("dns-server-failure", seen, args, looks)
    elif kind == "declined":
        yield finding("dns-query-refused", seen, args, looks)
    elif kind == "silent":
        yield finding("dns-name-unanswered", seen, args, looks)
    elif kind == "truncated":
        return  # told by dns-tcp-fails, or TCP was not tried
    else:
        yield finding("dns-unusual-answer", seen, args, looks, severity=Severity.WARNING)
    if fine and seen.target_zone == "external" and kind in ("servfail", "silent", "alias") and _failing(looks):
        yield finding(
            "dns-only-outside-names-fail",
            seen,
            {**args, "outside": seen.target},
            [*looks, *control],
            severity=Severity.NOTE,
        )


def _failing(looks: Iterable[Look]) -> bool:
    """A failure to find out, as against a denial."""
    return any(k.kind in ("servfail", "silent") for k in looks)


def _denied(facts: Facts, seen: View, kind: Kind, args: Args, looks: list[Look], fine: bool) -> Iterator[Finding]:
    yield finding("dns-name-not-found" if kind == "nxdomain" else "dns-name-empty", seen, args, looks)
    service = service_of(facts, seen)
    flow = facts.flow
    if service is not None and not external_name(service):
        created = when(fields(service.body.get("metadata")).get("creationTimestamp"))
        last = max(k.at for k in looks)
        age = (last - created).total_seconds() if created else None
        if is_headless(service):
            ready = [b for b in flow.local.backends if b.ready] if flow.local else []
            if not ready and service.spec.get("publishNotReadyAddresses") is not True:
                yield finding("dns-headless-without-endpoints", seen, args, [service, *looks])
                return
        yield finding(
            "dns-denies-existing-service",
            seen,
            {**args, "service": f"{service.namespace}/{service.name}"},
            [service, *looks],
        )
        limit = max((k.denial_ttl for k in looks if k.denial_ttl is not None), default=30)
        if age is not None and 0 <= age <= max(limit, 30):
            args = {**args, "seconds": round(age), "ttl": limit}
            yield finding("dns-service-just-created", seen, args, [service, *looks], severity=Severity.NOTE)
            yield finding("dns-denial-is-kept", seen, args, [service, *looks], severity=Severity.NOTE)
    if _counts_down(looks):
        yield finding("dns-denial-is-kept", seen, args, looks, severity=Severity.NOTE)
    if seen.zone == "peer" and fine:
        yield finding("dns-peer-name-denied", seen, args, looks, severity=Severity.NOTE)
    if flow.remote is not None and flow.remote.headless and flow.crosses_clusters and flow.local is None:
        yield finding(
            "dns-remote-headless-denied", seen, {**args, "cluster": flow.remote.cluster}, looks, severity=Severity.NOTE
        )


def _counts_down(looks: Sequence[Look]) -> bool:
    """The time that a denial has left falls as the clock goes on: it is one cached denial, not many new ones."""
    timed = sorted((k for k in looks if k.denial_ttl is not None and not k.tcp), key=lambda k: k.at)
    for one, other in itertools.combinations(timed, 2):
        passed = (other.at - one.at).total_seconds()
        fell = (one.denial_ttl or 0) - (other.denial_ttl or 0)
        if (one.server, one.type) == (other.server, other.type) and passed >= 2 and abs(fell - passed) <= 1.5:
            return True
    return False


def _one_family_fails(seen: View, verdicts: dict[str, tuple[Kind, list[Look]]]) -> Iterator[Finding]:
    """One of A and AAAA gives an address; the other ends in an error, where "no record" would be right."""
    for server in verdicts:
        for type, other in (("AAAA", "A"), ("A", "AAAA")):
            looks = seen.of(seen.host, type=type, server=server)
            kind = settled(looks)
            good = any(k.kind == "address" for k in seen.of(seen.host, type=other, server=server))
            # What the C library was told through the same servers is one more look; a single silence is a lost packet.
            spared = any(k.type == type and k.kind in ("empty", "address") for k in seen.through_libc())
            once = kind == "silent" and len(looks) < 2
            if good and not spared and not once and kind in ("servfail", "nxdomain", "silent", "declined", "other"):
                yield finding(
                    "dns-one-family-fails",
                    seen,
                    {"server": server, "type": type, "other": other, "answer": WORDS[kind]},
                    looks,
                    severity=Severity.WARNING,
                    symptom=Symptom.INTERMITTENT_LATENCY,
                )


def _disagreement(seen: View, verdicts: dict[str, tuple[Kind, list[Look]]]) -> Iterator[Finding]:
    told = "; ".join(f"{s}: {WORDS[k]}" for s, (k, _) in verdicts.items())
    looks = [k for _, found in verdicts.values() for k in found]
    args: Args = {"answers": told}
    yield finding("dns-servers-disagree", seen, args, looks, symptom=Symptom.DNS_FLAPPING)
    # A server that denies even the control name does not hold the cluster's zone: that is no cached denial.
    strangers = [
        s
        for s, (kind, _) in verdicts.items()
        if kind != "address"
        and settled(seen.of(seen.control, server=s)) in ("nxdomain", "declined", "servfail", "empty")
    ]
    knowing = any(k.kind == "address" and k.server not in strangers for k in seen.of(seen.control))
    if strangers and knowing:
        args = {"server": shown(strangers), "control": seen.control}
        yield finding("dns-server-lacks-zone", seen, args, looks, severity=Severity.NOTE)
    outside = seen.target_zone == "external"
    if outside or (strangers and knowing):
        yield finding("dns-asked-of-several", seen, {"targets": shown(verdicts)}, looks, severity=Severity.NOTE)
    if not (strangers and knowing):
        slug = "dns-outside-name-differs" if outside else "dns-inside-name-differs"
        yield finding(slug, seen, {"answers": told}, looks, severity=Severity.NOTE)


def _libc_only(seen: View) -> Iterator[Finding]:
    """Only the C library was asked: its word without the servers behind it."""
    looks = [k for k in seen.through_libc() if k.type == "A"] or seen.through_libc()
    kind = settled(looks)
    if kind in ("nxdomain", "empty", "servfail", "silent", "declined"):
        yield finding("dns-libc-fails", seen, {"resolver": looks[0].libc or "libc", "answer": WORDS[kind]}, looks)


def _other_pods(seen: View) -> Iterator[Finding]:
    """Another pod of the same cluster resolves what the source cannot, with the same server."""
    for server in seen.servers:
        mine = [k for k in seen.looks if k.server == server and k.libc is None]
        theirs = [
            k for k in seen.near if k.server == server and k.fact.vantage.pod and k.name in (seen.host, seen.control)
        ]
        if mine and settled(mine) == "silent" and any(k.kind in ANSWERED for k in theirs):
            yield finding(
                "dns-other-pod-is-answered",
                seen,
                {"server": server, "pod": theirs[0].fact.vantage.pod or ""},
                [*mine, *theirs],
                severity=Severity.NOTE,
            )


# --- the search list --------------------------------------------------------------------------------------------------


def judge_search(facts: Facts) -> Outcome:
    """The name means the same with and without a trailing dot."""
    if facts.flow.host is None:
        return Skipped(NO_NAME)
    seen = view(facts)
    expansions = expected_names(seen.host, seen.search)
    expanded = [k for name in expansions for k in seen.of(name)]
    searched = seen.through_libc()
    if not expanded and not searched:
        return Unknown(why_blind(facts), in_source(facts, f"nslookup {seen.host}"))
    problems = [*_wildcard(seen, expansions, searched), *_nodata(seen, expansions, searched)]
    if not problems:
        problems += _libc_alone(seen, searched)
    return conclude(problems, (), tuple(k.fact for k in (*expanded, *searched)[:8]))


def _right(seen: View) -> set[str]:
    return {a for k in seen.of(seen.host) if k.kind == "address" for a in k.addresses}


def _wildcard(seen: View, expansions: Sequence[str], searched: Sequence[Look]) -> Iterator[Finding]:
    """An expansion of the name has an address of its own, and a client that searches gets it."""
    own = _right(seen)
    absolute = seen.of(seen.host)
    denied = bool(absolute) and all(k.kind in DENIED for k in absolute)
    if not absolute:
        return
    for name in expansions:
        hits = [k for k in seen.of(name) if k.kind == "address" and not own & set(k.addresses)]
        if hits and (seen.searches_first or denied):
            yield finding(
                "dns-search-hides-name",
                seen,
                {
                    "expanded": name,
                    "address": shown(hits[0].addresses),
                    "right": shown(sorted(own)),
                    "ndots": seen.conf.ndots if seen.conf else 1,
                },
                [*hits, *absolute],
                symptom=Symptom.DNS_PERSISTENT_FAILURE,
            )
            return
    for look in searched:
        if look.kind != "address" or own & set(look.addresses):
            continue
        owner = next((o for o in look.owners if o in expansions or o.startswith(f"{seen.host}.")), None)
        if owner is not None or denied:
            yield finding(
                "dns-search-hides-name",
                seen,
                {
                    "expanded": owner or f"{seen.host}.<search domain>",
                    "address": shown(look.addresses),
                    "right": shown(sorted(own)),
                    "ndots": seen.conf.ndots if seen.conf else 1,
                },
                [look, *absolute],
            )
            return
        if own and seen.zone != "external":
            yield finding(
                "dns-relative-name-differs",
                seen,
                {"address": shown(look.addresses), "right": shown(sorted(own))},
                [look, *absolute],
            )
            return


def _nodata(seen: View, expansions: Sequence[str], searched: Sequence[Look]) -> Iterator[Finding]:
    """An expansion exists without a record: musl stops there, glibc goes on."""
    if not seen.searches_first or not _right(seen):
        return
    for name in expansions:
        looks = seen.of(name)
        if settled([k for k in looks if k.type == "A"]) == "nxdomain":
            continue
        if not looks or settled(looks) != "empty":
            return  # an address, or something that does not end a search quietly
        musl = (seen.conf is not None and seen.conf.libc == "musl") or any(k.libc == "musl" for k in searched)
        if not musl and seen.conf is not None and seen.conf.libc == "glibc":
            return  # glibc goes on to the next name
        failing = [k for k in searched if k.type == "A" and k.kind in DENIED]
        stops = musl and (bool(failing) or not any(k.kind == "address" for k in searched))
        yield finding(
            "dns-search-stops-at-empty",
            seen,
            {"expanded": name, "libc": "musl" if musl else "not known"},
            [*looks, *searched],
            severity=Severity.ERROR if stops else Severity.NOTE,
        )
        return


def _libc_alone(seen: View, searched: Sequence[Look]) -> Iterator[Finding]:
    """The absolute name is fine at every server, and still the C library does not find it."""
    looks = [k for k in searched if k.type == "A"]
    kind = settled(looks)
    if _right(seen) and kind in ("nxdomain", "empty", "servfail", "silent", "declined"):
        good = [k for k in seen.of(seen.host) if k.kind == "address"]
        if all(k.kind == "address" for k in seen.of(seen.host, type="A")):
            yield finding(
                "dns-libc-fails", seen, {"resolver": looks[0].libc or "libc", "answer": WORDS[kind]}, [*looks, *good]
            )


# --- the answer itself ------------------------------------------------------------------------------------------------

_PROXY_RANGES = tuple(ipaddress.ip_network(n) for n in ("240.240.0.0/16", "2001:2::/48"))


def judge_answer(facts: Facts) -> Outcome:
    """The address is the one that the objects say."""
    flow = facts.flow
    if flow.host is None:
        return Skipped(NO_NAME)
    seen = view(facts)
    looks = [k for k in seen.of(seen.host) if k.kind == "address" and (k.server in seen.servers or not seen.servers)]
    if not looks:  # what a search list makes of the name is another check's affair
        looks = [k for k in seen.through_libc() if k.kind == "address" and not _expanded(seen, k)]
    if not looks:
        return Unknown(why_blind(facts) if not seen.looks else "no answer with an address was seen")
    problems: list[Finding] = []
    proxied = [k for k in looks if any(_of_proxy(a) for a in k.addresses)]
    if proxied:
        captured = any(capturing(facts, k.fact.vantage) for k in proxied)
        problems.append(
            finding(
                "dns-answer-from-proxy",
                seen,
                {"address": shown(proxied[0].addresses)},
                proxied,
                severity=Severity.NOTE if captured else Severity.WARNING,
                symptom=Symptom.CONNECTION_TIMEOUT,
            )
        )
    looks = [k for k in looks if k not in proxied]
    service = service_of(facts, seen)
    known = False
    if looks and service is not None and cluster_ips(service):
        known = True
        problems += _against_service(seen, looks, service.at, set(cluster_ips(service)), [service])
    elif looks and service is not None and is_headless(service):
        mine = {canonical(b.address) for b in flow.local.backends} if flow.local else set()
        known = bool(mine)
        problems += _against_endpoints(facts, seen, looks, mine, service) if mine else ()
    elif looks and service is not None and (target := external_name(service)):
        known = True
        problems += _against_alias(seen, looks, target, service)
    elif looks and flow.local is not None and flow.local.type in ("ServiceImport", "ClusterSetIP"):
        mine = {canonical(a) for a in flow.local.cluster_ips}
        known = bool(mine) and not flow.local.headless
        if known:
            objects = [
                o
                for o in facts.objects("ServiceImport.multicluster.x-k8s.io", flow.local.cluster)
                if o.name == flow.local.name and o.namespace == flow.local.namespace
            ]
            problems += _against_service(seen, looks, looks[0].at, mine, objects)
    problems += _dials_other(facts, seen, looks)
    unknown = () if known or proxied else ("nothing read says which address is right",)
    if not problems and unknown:
        return Passed(tuple(k.fact for k in looks[:4]))
    return conclude(problems, (), tuple(k.fact for k in looks[:4]))


def _expanded(seen: View, look: Look) -> bool:
    """The address belongs to an expansion of the name: the search list's matter."""
    return any(o != seen.host and o.startswith(f"{seen.host}.") for o in look.owners)


def _of_proxy(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed.version == n.version and parsed in n for n in _PROXY_RANGES)


def _against_service(
    seen: View, looks: Sequence[Look], read: object, right: set[str], objects: Sequence[Fact]
) -> Iterator[Finding]:
    """A Service with addresses of its own has those and no other; families that it lacks are left aside."""
    families = {family(a) for a in right}
    wrong = [k for k in looks if any(family(a) in families and a not in right for a in k.addresses)]
    if not wrong:
        return
    fresh = [k for k in looks if right & set(k.addresses)]
    yield finding(
        "dns-answer-unexpected-address",
        seen,
        {
            "address": shown(a for k in wrong for a in k.addresses if a not in right),
            "right": shown(sorted(right)),
            "servers": shown(k.server for k in wrong),
        },
        [*objects, *wrong],
        symptom=Symptom.WRONG_DESTINATION if not fresh else Symptom.DNS_FLAPPING,
    )
    if fresh:
        yield finding(
            "dns-answers-old-and-new", seen, {"servers": shown(k.server for k in fresh)}, fresh, severity=Severity.NOTE
        )


def _against_endpoints(
    facts: Facts, seen: View, looks: Sequence[Look], mine: set[str], service: Fact
) -> Iterator[Finding]:
    flow = facts.flow
    far = {canonical(b.address) for b in flow.remote.backends} if flow.remote and flow.crosses_clusters else set()
    given = {a for k in looks for a in k.addresses}
    # The proxy of a captured pod answers in place of the nameserver: its answer is what the client gets.
    captured = [k for k in seen.looks if k.libc == "proxy-capture" and k.kind == "address" and k.name == seen.host]
    heard = given | {a for k in captured for a in k.addresses}
    both = heard & (far - mine)
    if both and heard & mine:
        yield finding(
            "dns-answer-from-both-clusters",
            seen,
            {"here": shown(sorted(heard & mine)), "there": shown(sorted(both))},
            [service, *looks, *captured],
            symptom=Symptom.WRONG_DESTINATION,
        )
    strange = given - mine - far
    if strange:
        # Endpoints change between two readings; only an answer without any right address is surely old.
        yield finding(
            "dns-answer-unexpected-address",
            seen,
            {
                "address": shown(sorted(strange)),
                "right": shown(sorted(mine)),
                "servers": shown(k.server for k in looks),
            },
            [service, *looks],
            severity=Severity.WARNING if given & mine else Severity.ERROR,
            symptom=Symptom.WRONG_DESTINATION,
        )


def _against_alias(seen: View, looks: Sequence[Look], target: str, service: Fact) -> Iterator[Finding]:
    for look in looks:
        answer = look.fact
        chain = []
        if isinstance(answer, DnsAnswer):
            chain = [r.data.lower().rstrip(".") for r in answer.answers or () if r.type == "CNAME"]
            chain = chain or [c.lower().rstrip(".") for c in answer.chain or ()]
        if chain and target not in chain:
            yield finding(
                "dns-alias-unexpected",
                seen,
                {"target": chain[0], "right": target},
                [service, look],
                symptom=Symptom.WRONG_DESTINATION,
            )
            return


_DIALLED = re.compile(r"dial(?:ing|led)? (?:tcp|udp)?\s*\[?([0-9a-fA-F.:]+?)\]?:(\d+)")
# Java writes NAME/ADDRESS:PORT; the name has been looked for already.
_NAMED = re.compile(r"[\w.-]+/\[?([0-9a-fA-F.:]+?)\]?:(\d+)")
_NO_ANSWER = re.compile(r"time(d)? ?out|refused|unreachable|no route", re.I)


def _dials_other(facts: Facts, seen: View, looks: Sequence[Look]) -> Iterator[Finding]:
    """The application dials an address that the name no longer has."""
    flow = facts.flow
    current = {a for k in looks for a in k.addresses}
    known = current | {canonical(b.address) for s in (flow.local, flow.remote) if s for b in s.backends}
    known |= {canonical(a) for s in (flow.local, flow.remote) if s for a in s.cluster_ips}
    known |= {canonical(r.address) for r in flow.rungs if r.address}
    if not current:
        return
    for line in facts.all(LogLine):
        if line.component != "app" or place(flow, line.vantage) != "source" or seen.host not in line.text.lower():
            continue
        for match in (*_DIALLED.finditer(line.text), *_NAMED.finditer(line.text)):
            address = canonical(match.group(1))
            if int(match.group(2)) == flow.port and family(address) == 4 and address not in known:
                fails = bool(_NO_ANSWER.search(line.text)) and _is_dead(facts, address, flow.port)
                yield finding(
                    "dns-client-dials-other-address",
                    seen,
                    {"address": address, "right": shown(sorted(current))},
                    [line, *looks],
                    severity=Severity.ERROR if fails else Severity.WARNING,
                    symptom=Symptom.CONNECTION_TIMEOUT,
                    hop=Hop.SOURCE_POD,
                )
                return


def _is_dead(facts: Facts, address: str, port: int | None) -> bool:
    """Connects to it were tried from the source, and none opened."""
    tried = [
        t
        for t in facts.all(TcpConnect)
        if canonical(t.address) == address and t.port == port and place(facts.flow, t.vantage) == "source"
    ]
    return bool(tried) and not any(t.result == "open" or t.successes for t in tried)


# --- IPv6 -------------------------------------------------------------------------------------------------------------


def judge_ipv6(facts: Facts) -> Outcome:
    """A name with IPv6 addresses is asked for from a pod that can reach them."""
    flow = facts.flow
    if flow.host is None:
        return Skipped(NO_NAME)
    seen = view(facts)
    looks = [
        k
        for k in (*seen.of(seen.host, type="AAAA"), *seen.through_libc())
        if k.kind == "address" and any(family(a) == 6 for a in k.addresses)
    ]
    if not looks:
        asked = [k for k in seen.looks if k.type == "AAAA" and k.name == seen.host]
        return Passed(tuple(k.fact for k in asked[:2])) if asked else Unknown(why_blind(facts))
    addresses = {a for k in looks for a in k.addresses if family(a) == 6}
    has = _has_ipv6(facts)
    failed = [
        c
        for c in facts.all(TcpConnect)
        if place(flow, c.vantage) == "source" and canonical(c.address) in addresses and c.result != "open"
    ]
    open_ = [
        c
        for c in facts.all(TcpConnect)
        if place(flow, c.vantage) == "source" and canonical(c.address) in addresses and c.result == "open"
    ]
    no_route = [c for c in failed if c.result == "unreachable"]
    if open_ or (has and not no_route):
        return Passed(tuple(k.fact for k in looks[:2]))
    felt = _felt(facts, addresses)
    if has is None and not no_route and not felt:
        return Unknown("whether the source pod has an IPv6 address and route was not seen")
    alone = not any(k.kind == "address" for k in seen.of(seen.host, type="A"))
    asked_a = bool(seen.of(seen.host, type="A"))
    severity = Severity.ERROR if felt or (alone and asked_a) else Severity.WARNING if no_route else Severity.NOTE
    problem = finding(
        "dns-aaaa-without-route",
        seen,
        {"address": shown(sorted(addresses)), "felt": "yes" if felt else "not seen"},
        [*looks, *no_route, *felt],
        severity=severity,
        symptom=Symptom.DNS_FLAPPING,
        hop=Hop.SOURCE_POD,
    )
    return conclude([problem], (), tuple(k.fact for k in looks[:2]))


def _has_ipv6(facts: Facts) -> bool | None:
    """Whether the source pod has a global IPv6 address and no lack of a route; None when nothing tells."""
    flow = facts.flow
    interfaces = [i for i in facts.all(Interface) if place(flow, i.vantage) == "source"]
    routes = [r for r in facts.all(Route) if place(flow, r.vantage) == "source" and r.lookup and family(r.lookup) == 6]
    if any(r.type in ("unreachable", "blackhole", "prohibit") for r in routes):
        return False
    if interfaces:
        return any(_global_v6(a.partition("/")[0]) for i in interfaces for a in i.addresses)
    pod = flow.source_pod
    if pod is not None and pod.ips:
        return any(family(ip) == 6 for ip in pod.ips)
    return None


def _global_v6(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return parsed.version == 6 and not parsed.is_link_local and not parsed.is_loopback


def _felt(facts: Facts, addresses: set[str]) -> list[Fact]:
    """Requests or log lines of the source that failed on one of the IPv6 addresses."""
    flow = facts.flow
    felt: list[Fact] = []
    for request in facts.all(HttpRequest):
        if place(flow, request.vantage) == "source" and request.result == "connect-error":
            dialled = server_address(request.address or "")
            if dialled in addresses or (
                not request.address and "network is unreachable" in (request.error or "").lower()
            ):
                felt.append(request)
    for line in facts.all(LogLine):
        found = set(addresses_in(line.text.replace("[", " ").replace("]", " "))) & addresses
        if place(flow, line.vantage) == "source" and found and "unreachable" in line.text.lower():
            felt.append(line)
    return felt
