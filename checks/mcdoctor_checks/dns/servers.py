"""The servers of the cluster's DNS: their configuration, their health, and what each says of the name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import (
    Fact,
    KubeObject,
    LogLine,
    Metric,
    ResolvConf,
)
from mcdoctor.models.ids import Hop, Severity, Symptom
from mcdoctor.models.outcome import Finding, Outcome, Skipped, Unknown
from mcdoctor_checks.dns.corefile import Corefile, clean, forwards, within
from mcdoctor_checks.dns.facts import (
    ANSWERED,
    DENIED,
    PEER_ZONES,
    Kind,
    Look,
    View,
    config_object,
    corefile,
    dns_addresses,
    dns_endpoints,
    dns_pods,
    dns_services,
    link_local,
    multicluster_servers,
    named,
    served_there,
    server_address,
    settled,
    sockets,
    source_pods,
    stub_zone,
    upstreams,
    view,
)
from mcdoctor_checks.dns.told import NO_NAME, WORDS, Args, finding
from mcdoctor_checks.endpoints.facts import (
    SLICE,
    cluster_ips,
    containers,
    ready,
    terminating,
    why_not_ready,
    young,
)
from mcdoctor_checks.reading import (
    conclude,
    family,
    fields,
    items,
    number,
    shown,
    strings,
    text,
    texts,
    when,
)

# --- health -----------------------------------------------------------------------------------------------------------

_RECENT = timedelta(minutes=10)
_UPSTREAM_ERRORS = ("i/o timeout", "connection refused", "server misbehaving", "SERVFAIL", "no route to host")
_WATCH_ERRORS = ("failed to watch", "failed to list", "watch of", "watch closed", "lost the watch", "lost its watch")


def judge_health(facts: Facts) -> Outcome:
    """The pods of the cluster's DNS run, and their logs name no fault."""
    if facts.flow.host is None:
        return Skipped(NO_NAME)
    seen = named(facts)
    pods, services = dns_pods(facts), dns_services(facts)
    lines = [line for line in facts.all(LogLine) if _of_dns(facts, line)]
    metrics = [m for m in facts.all(Metric) if m.vantage.cluster in (None, facts.flow.source_cluster)]
    problems = [*_backends(facts, seen, pods), *_pod_states(seen, pods), *_logs(seen, lines)]
    problems += _metrics(seen, metrics)
    problems += _node_cache(facts, seen)
    if not pods and not services and not problems:
        blind = (*facts.blind_to("Pod"), *facts.blind_to("Service"))
        return Unknown(
            blind[0].reason if blind else "the cluster's DNS was not read",
            "kubectl -n kube-system get service,endpointslices,pods -l k8s-app=kube-dns -o yaml",
        )
    return conclude(problems, (), (*services, *pods, *lines[:4]))


def _of_dns(facts: Facts, line: LogLine) -> bool:
    if line.vantage.cluster not in (None, facts.flow.source_cluster):
        return False
    pod = line.vantage.pod or ""
    return line.component in ("coredns", "kube-dns", "node-local-dns", "nodelocaldns", "lighthouse-coredns") or (
        pod.startswith(("coredns", "submariner-lighthouse-coredns", "node-local-dns"))
    )


def _backends(facts: Facts, seen: View, pods: tuple[KubeObject, ...]) -> Iterator[Finding]:
    """The DNS Service has a ready endpoint, as its slices say."""
    for service in dns_services(facts):
        slices = [
            o
            for o in facts.objects(SLICE, service.cluster, service.namespace)
            if strings(o.labels).get("kubernetes.io/service-name") == service.name
        ]
        endpoints = [fields(e) for o in slices for e in items(o.body.get("endpoints"))]
        if slices and all(fields(e.get("conditions")).get("ready") is False for e in endpoints):
            yield finding(
                "dns-backends-not-ready",
                seen,
                {"service": f"{service.namespace}/{service.name}", "pods": shown(p.name for p in pods)},
                [service, *slices, *pods],
                subject=f"Service {service.namespace}/{service.name}",
            )


def _pod_states(seen: View, pods: tuple[KubeObject, ...]) -> Iterator[Finding]:
    serving = [p for p in pods if ready(p)]
    for pod in pods:
        where = f"Pod {pod.namespace}/{pod.name}"
        for status in map(fields, items(pod.status.get("containerStatuses"))):
            ended = fields(fields(status.get("lastState")).get("terminated"))
            finished_at = when(ended.get("finishedAt"))
            lately = finished_at is None or pod.at - finished_at < timedelta(hours=1)
            waiting = text(fields(fields(status.get("state")).get("waiting")).get("reason"))
            restarts = number(status.get("restartCount")) or 0
            if ended.get("reason") == "OOMKilled" and lately:
                yield finding(
                    "dns-pods-starved",
                    seen,
                    {"pod": pod.name, "what": "OOMKilled"},
                    [pod],
                    severity=Severity.WARNING,
                    symptom=Symptom.DNS_FLAPPING,
                    subject=where,
                )
            elif waiting == "CrashLoopBackOff":
                yield finding(
                    "dns-pods-crashing",
                    seen,
                    {"pod": pod.name, "restarts": restarts},
                    [pod],
                    severity=Severity.WARNING if serving else Severity.ERROR,
                    subject=where,
                )
            elif restarts and finished_at and pod.at - finished_at < _RECENT:
                yield _replaced(seen, pod, "restarted")
        if terminating(pod):
            yield _replaced(seen, pod, "Terminating")
        elif young(pod, _RECENT.total_seconds()):
            yield _replaced(seen, pod, "created")


def _replaced(seen: View, pod: KubeObject, what: str) -> Finding:
    return finding(
        "dns-pods-replaced-recently",
        seen,
        {"pod": pod.name, "what": what},
        [pod],
        severity=Severity.NOTE,
        subject=f"Pod {pod.namespace}/{pod.name}",
    )


def _logs(seen: View, lines: Sequence[LogLine]) -> Iterator[Finding]:
    loops = [k for k in lines if "plugin/loop" in k.text and "loop" in k.text.lower().replace("plugin/loop", "")]
    if loops:
        yield finding("dns-loop-detected", seen, {"line": loops[0].text[:200]}, loops)
    failed = [k for k in lines if "plugin/errors" in k.text and any(e in k.text for e in _UPSTREAM_ERRORS)]
    if failed:
        count = sum(k.count or 1 for k in failed)
        yield _upstream_errors(seen, count, failed[0].text[:200], failed)
    watches = [k for k in lines if k not in failed and any(w in k.text.lower() for w in _WATCH_ERRORS)]
    if watches:
        yield finding(
            "dns-plugin-watch-lost",
            seen,
            {"line": watches[0].text[:200]},
            watches,
            severity=Severity.WARNING,
            symptom=Symptom.DNS_FLAPPING,
        )


def _upstream_errors(seen: View, count: int, line: str, evidence: Sequence[Fact]) -> Finding:
    return finding(
        "dns-upstream-errors-logged",
        seen,
        {"count": count, "line": line},
        evidence,
        severity=Severity.NOTE,
    )


def _metrics(seen: View, metrics: Sequence[Metric]) -> Iterator[Finding]:
    """Counters that rose: failures of upstreams, throttling of the DNS pods."""
    for metric in metrics:
        values = [p.value for p in sorted(metric.samples, key=lambda p: p.at)]
        if len(values) < 2 or not values[-1] > values[0]:
            continue
        failing = metric.name.startswith("coredns_forward_healthcheck_failures") or (
            metric.name.startswith("coredns_forward_responses") and metric.labels.get("rcode") == "SERVFAIL"
        )
        pod = metric.labels.get("pod", "")
        if failing:
            rise = values[-1] - values[0]
            yield _upstream_errors(seen, round(min(rise, 1e9)), metric.name, [metric])
        elif "cfs_throttled" in metric.name and pod.startswith(("coredns", "kube-dns", "node-local-dns")):
            yield finding(
                "dns-pods-starved",
                seen,
                {"pod": pod, "what": "CPU throttled"},
                [metric],
                severity=Severity.WARNING,
                symptom=Symptom.DNS_FLAPPING,
                subject=f"Pod {pod}",
            )


def _node_cache(facts: Facts, seen: View) -> Iterator[Finding]:
    """The DNS cache on the source's own node."""
    nodes = {p.node for p in facts.flow.source.pods if p.node} if facts.flow.source else set()
    for pod in facts.objects("Pod", facts.flow.source_cluster or None):
        if strings(pod.labels).get("k8s-app") not in ("node-local-dns", "nodelocaldns"):
            continue
        if nodes and pod.spec.get("nodeName") not in nodes:
            continue
        ends = (
            when(fields(fields(s.get("lastState")).get("terminated")).get("finishedAt"))
            for s in map(fields, items(pod.status.get("containerStatuses")))
        )
        restarted = any(end is not None and pod.at - end < _RECENT for end in ends)
        if not ready(pod) or restarted or young(pod, _RECENT.total_seconds()):
            why = why_not_ready(pod) if not ready(pod) else "restarted"
            yield finding(
                "dns-node-cache-restarting",
                seen,
                {"pod": pod.name, "why": why},
                [pod],
                severity=Severity.NOTE,
                subject=f"Pod {pod.namespace}/{pod.name}",
            )


# --- configuration ----------------------------------------------------------------------------------------------------


def judge_zone(facts: Facts) -> Outcome:
    """The configuration of the cluster's DNS covers the name."""
    if facts.flow.host is None:
        return Skipped(NO_NAME)
    seen = view(facts)
    problems = [*_service_entry(facts, seen), *_import_backends(facts, seen), *_node_config(facts, seen)]
    config, origin = corefile(facts), config_object(facts)
    if config is not None and origin is not None:
        if config.problems:
            problems.append(
                finding(
                    "dns-corefile-malformed",
                    seen,
                    {"problem": config.problems[0], "config": origin.name},
                    [origin],
                    severity=Severity.NOTE,
                    subject=origin.subject,
                )
            )
        covered = list(_covered(facts, seen, config, origin))
        lost = any(p.id == "dns-zone-leads-nowhere" for p in problems)
        problems += [p for p in covered if not (lost and p.id == "dns-zone-covered")]
        problems += _habits(facts, seen, config, origin)
        return conclude(problems, (), (origin,))
    if problems:
        return conclude(problems)
    blind = facts.blind_to("ConfigMap")
    return Unknown(
        blind[0].reason if blind else "the configuration of the cluster's DNS was not read",
        "kubectl -n kube-system get configmap coredns -o yaml",
    )


def _special(name: str) -> bool:
    """Names that only a server made for them knows: the cluster set's."""
    return any(within(name, z) for z in PEER_ZONES)


def _resolves(seen: View) -> bool | None:
    """Whether the pod's servers give the name an address; None when they were not asked."""
    looks = [k for k in seen.of(seen.host) if k.server in seen.servers or not seen.servers]
    return any(k.kind == "address" for k in looks) if looks else None


def _misconfigured(seen: View, slug: str, args: Args, origin: KubeObject) -> Iterator[Finding]:
    """A fault of form: an error once the name is seen to fail, a warning while nobody asked."""
    args = {"config": origin.name, **args}
    severity = Severity.WARNING if _resolves(seen) is None else Severity.ERROR
    yield finding(slug, seen, args, [origin], severity=severity, subject=origin.subject)
    yield finding("dns-zone-leads-nowhere", seen, args, [origin], severity=Severity.NOTE, subject=origin.subject)


def _zone_name(name: str) -> str:
    return next((z for z in PEER_ZONES if within(name, z)), name)


def _covered(facts: Facts, seen: View, config: Corefile, origin: KubeObject) -> Iterator[Finding]:
    """A name of the cluster set needs a block, or a plugin, that knows it; its forwarders need to be right."""
    server, zone = config.server_for(seen.host), config.zone_of(seen.host)
    theirs = served_there(facts, seen.target)
    if theirs and not _special(seen.host) and stub_zone(facts, seen.target) is None and _resolves(seen) is False:
        if not config.imports and not config.problems:
            yield from _misconfigured(seen, "dns-zone-not-forwarded", {"zone": theirs}, origin)
        return
    if not _special(seen.host) or _resolves(seen):
        return
    if server is None or zone is None or not any(within(zone, z) for z in PEER_ZONES):
        knows = server is not None and (
            bool(server.all("multicluster", "lighthouse", "clusterset"))
            or any(within(seen.host, a) for p in server.all("kubernetes") for a in p.args if a != ".")
            or any(p.args and p.args[0] != "." and within(seen.host, p.args[0]) for p in server.all("forward", "proxy"))
        )
        if not knows and not config.imports and not config.problems:
            yield from _misconfigured(seen, "dns-zone-not-forwarded", {"zone": _zone_name(seen.host)}, origin)
        return
    targets = [a for t in forwards(server, seen.host) if family(a := server_address(t))]
    special = set(multicluster_servers(facts))
    known = special
    if not special and facts.complete("Service", facts.flow.source_cluster):
        known = {a for s in facts.objects("Service", facts.flow.source_cluster) for a in cluster_ips(s)}
    if targets and (special or known) and not known & set(targets):
        args: Args = {"zone": zone, "target": shown(targets), "right": shown(sorted(special))}
        yield from _misconfigured(seen, "dns-zone-forward-wrong", args, origin)
    elif targets and known:
        args = {"zone": zone, "target": shown(targets), "config": origin.name}
        yield finding("dns-zone-covered", seen, args, [origin], severity=Severity.NOTE, subject=origin.subject)


def _node_config(facts: Facts, seen: View) -> Iterator[Finding]:
    """Where the pod asks the cache on its node, that cache's own configuration must know the zone too."""
    if not any(link_local(s) for s in seen.servers) or not _special(seen.host) or _resolves(seen):
        return
    config, origin = corefile(facts, "node-local-dns"), config_object(facts, "node-local-dns")
    if config is None or origin is None or config.imports or config.problems:
        return
    zone = config.zone_of(seen.host)
    if zone is not None and zone != ".":
        return
    server = config.server_for(seen.host)
    targets = forwards(server, seen.host) if server else ()
    cluster = {*dns_addresses(facts), *dns_endpoints(facts)}
    # The root block usually forwards to the node's own resolvers, which know nothing of the cluster set.
    if not any("CLUSTER__DNS" in t or server_address(t) in cluster for t in targets):
        yield from _misconfigured(seen, "dns-zone-not-forwarded", {"zone": _zone_name(seen.host)}, origin)


def _habits(facts: Facts, seen: View, config: Corefile, origin: KubeObject) -> Iterator[Finding]:
    """Settings that explain odd answers: several upstreams, long denials, old answers, rewritten names, loops."""
    server = config.server_for(seen.target)
    root = config.server_for("example.invalid")
    targets = forwards(server, seen.target) if server else ()

    def note(id: str, **args: str | int) -> Finding:
        return finding(id, seen, dict(args), [origin], severity=Severity.NOTE, subject=origin.subject)

    if len(targets) > 1 and seen.target_zone != "cluster":
        yield note("dns-asked-of-several", targets=shown(targets))
    for cache in server.all("cache") if server else ():
        options = {o[0]: o[1:] for o in cache.options if o}
        if "serve_stale" in options:
            yield note("dns-serves-stale")
        denial = options.get("denial", ())
        ttl = number(denial[1]) if len(denial) > 1 else None
        if ttl is not None and ttl > 60:
            yield note("dns-denial-ttl-long", seconds=ttl)
    for plugin in server.all("rewrite", "hosts", "template", "file") if server else ():
        words = (*plugin.args, *(w for o in plugin.options for w in o))
        if any(clean(w) in (seen.host, seen.target) for w in words):
            yield note("dns-name-rewritten", plugin=plugin.name)
    files = [t for t in (forwards(root, "example.invalid") if root else ()) if t.startswith("/")]
    nodes = [
        c
        for c in facts.all(ResolvConf)
        if c.vantage.node and not c.vantage.pod and c.vantage.cluster in (None, facts.flow.source_cluster)
    ]
    looped = [c for c in nodes if any(s.startswith("127.") or s == "::1" for s in c.nameservers)]
    if files and looped:
        yield finding(
            "dns-forwards-to-loopback",
            seen,
            {"file": files[0], "address": looped[0].nameservers[0], "node": looped[0].vantage.node or ""},
            [origin, *looped],
            severity=Severity.WARNING,
            subject=origin.subject,
        )


def _service_entry(facts: Facts, seen: View) -> Iterator[Finding]:
    """A ServiceEntry without an address gives its host no DNS answer unless the proxy makes one up."""
    environment = _proxy_environment(facts)
    if environment is None:
        return
    for entry in facts.objects("ServiceEntry.networking.istio.io", facts.flow.source_cluster or None):
        hosts = [clean(h) for h in texts(entry.spec.get("hosts"))]
        if seen.host not in hosts or texts(entry.spec.get("addresses")) or items(entry.status.get("addresses")):
            continue
        capture = environment.get("ISTIO_META_DNS_CAPTURE", "").lower() == "true"
        allocate = environment.get("ISTIO_META_DNS_AUTO_ALLOCATE", "").lower() == "true"
        if not (capture and allocate):
            yield finding(
                "dns-serviceentry-without-address",
                seen,
                {
                    "entry": f"{entry.namespace}/{entry.name}",
                    "capture": "on" if capture else "off",
                    "allocate": "on" if allocate else "off",
                },
                [entry],
                severity=Severity.NOTE,
                subject=entry.subject,
                hop=Hop.SOURCE_PROXY,
            )


def _proxy_environment(facts: Facts) -> dict[str, str] | None:
    """The environment of the source's istio-proxy; None where no such container was seen."""
    for pod in source_pods(facts):
        for container in containers(pod):
            if container.get("name") == "istio-proxy":
                return {text(e.get("name")): text(e.get("value")) for e in map(fields, items(container.get("env")))}
    return None


def _import_backends(facts: Facts, seen: View) -> Iterator[Finding]:
    """What the server for the cluster set has to answer with: nothing without an import, or without ready endpoints."""
    flow = facts.flow
    if not _special(seen.host) or not flow.namespace:
        return
    kinds = ("ServiceImport.multicluster.x-k8s.io", "ServiceImport.lighthouse.submariner.io")
    imports = [o for k in kinds if (o := facts.object(k, flow.source_cluster, flow.namespace, flow.name)) is not None]
    exports = [
        o
        for k in kinds
        if (o := facts.object(k.replace("Import", "Export"), flow.destination_cluster, flow.namespace, flow.name))
        is not None
    ]
    args: Args = {"service": f"{flow.namespace}/{flow.name}"}
    if not imports and exports and facts.absent(kinds[0], flow.source_cluster, flow.namespace, flow.name):
        yield finding("dns-nothing-to-serve", seen, args, exports, severity=Severity.NOTE)
    slices = [
        o
        for o in facts.objects(SLICE, flow.source_cluster, flow.namespace)
        if strings(o.labels).get("multicluster.kubernetes.io/service-name") == flow.name
    ]
    endpoints = [e for o in slices for e in map(fields, items(o.body.get("endpoints")))]
    if imports and slices and all(fields(e.get("conditions")).get("ready") is False for e in endpoints):
        yield finding(
            "dns-import-without-endpoints",
            seen,
            args,
            [*imports, *slices],
            severity=Severity.WARNING,
            subject=imports[0].subject,
        )
        yield finding("dns-nothing-to-serve", seen, args, imports, severity=Severity.NOTE)


# --- other servers ----------------------------------------------------------------------------------------------------


def judge_others(facts: Facts) -> Outcome:
    """Servers beside the pod's own say the same: DNS pods, multi-cluster servers, upstreams."""
    flow = facts.flow
    if flow.host is None:
        return Skipped(NO_NAME)
    seen = view(facts)
    every = [k for k in (*seen.looks, *seen.near) if k.libc is None and k.name in (seen.host, seen.target)]
    groups = {
        "pods": set(dns_endpoints(facts)),
        "multicluster": set(multicluster_servers(facts)),
        "upstream": set(upstreams(facts, seen.target)),
    }
    asked = [k for k in every if k.name == seen.host]
    looks = {name: [k for k in asked if k.server in servers - set(seen.servers)] for name, servers in groups.items()}
    apart = {*groups["multicluster"], *groups["pods"], *seen.servers, *dns_addresses(facts)}
    # What a node or a DNS pod was made to ask beside these is an upstream, whatever the Corefile calls it.
    dns_names = {p.name for p in dns_pods(facts)}
    looks["upstream"] = [
        k
        for k in every
        if k.server not in apart
        and (k.server in groups["upstream"] or k.fact.vantage.node or (k.fact.vantage.pod in dns_names))
    ]
    if not any(looks.values()):
        return Unknown("no server beside the pod's own was asked for the name")
    own = [k for k in seen.of(seen.host) if k.server in seen.servers]
    denied = bool(own) and all(k.kind in (*DENIED, "servfail", "declined") for k in own)
    failing = bool(own) and all(k.kind in ("servfail", "silent") for k in own)
    problems: list[Finding] = []
    problems += _multicluster(seen, looks["multicluster"], own, denied)
    problems += _pods(seen, looks["pods"], own)
    problems += _upstreams(seen, looks["upstream"], own, failing)
    problems += _stub(facts, seen, looks["upstream"], own)
    problems += _known_elsewhere(facts, seen, looks["upstream"], own)
    return conclude(problems, (), tuple(k.fact for g in looks.values() for k in g[:3]))


def _known_elsewhere(facts: Facts, seen: View, looks: list[Look], own: list[Look]) -> Iterator[Finding]:
    """The cluster's DNS denies the name, and the servers that it asks know it, or only one that it does not ask."""
    asked = set(upstreams(facts, seen.target))
    denied = bool(own) and all(k.kind in (*DENIED, "alias") for k in own)
    # A cache on the node may be told otherwise than the DNS whose configuration was read.
    if not asked or not denied or not set(seen.servers) <= {*dns_addresses(facts)}:
        return
    said = _each([k for k in looks if k.name == seen.target])
    knowing = [s for s, kind in said.items() if kind == "address"]
    args: Args = {"servers": shown(knowing), "asked": shown(sorted(asked)), "answer": WORDS[own[0].kind]}
    evidence = [*(k for k in looks if k.server in knowing), *own]
    if knowing and set(knowing) >= asked:
        yield finding("dns-upstream-knows-denied-name", seen, args, evidence, severity=Severity.NOTE)
    elif knowing and not set(knowing) & asked:
        yield finding("dns-unasked-server-knows-name", seen, args, evidence, severity=Severity.NOTE)


def _multicluster(seen: View, looks: list[Look], own: list[Look], denied: bool) -> Iterator[Finding]:
    if any(k.kind == "address" for k in looks) and denied:
        yield finding(
            "dns-direct-server-answers", seen, {"server": looks[0].server, "answer": WORDS[own[0].kind]}, [*looks, *own]
        )
    elif looks and all(k.kind in DENIED for k in looks):
        yield finding(
            "dns-direct-server-denies",
            seen,
            {"server": looks[0].server, "answer": WORDS[looks[0].kind]},
            looks,
            severity=Severity.NOTE,
        )


def _pods(seen: View, looks: list[Look], own: list[Look]) -> Iterator[Finding]:
    """DNS pods asked one by one."""
    answered = {s: k for s, k in _each(looks).items() if k in ANSWERED}
    told = _told(answered)
    if len(set(answered.values())) > 1:
        yield finding("dns-pods-disagree", seen, {"answers": told}, looks, symptom=Symptom.DNS_FLAPPING)
    elif set(answered.values()) == {"address"} and own and all(k.kind in ("nxdomain", "empty") for k in own):
        yield finding(
            "dns-cache-denies-known-name",
            seen,
            {"servers": shown(k.server for k in own), "answer": WORDS[own[0].kind]},
            [*looks, *own],
        )
    if answered and own and settled(own) == "silent":
        yield finding(
            "dns-pods-answer-directly", seen, {"servers": shown(answered)}, [*looks, *own], severity=Severity.NOTE
        )


def _upstreams(seen: View, looks: list[Look], own: list[Look], failing: bool) -> Iterator[Finding]:
    said = _each(looks)
    told = _told(said) or shown(dict.fromkeys(k.kind for k in looks))
    spoken = {k for k in said.values() if k in ("address", "nxdomain", "empty", "declined")}
    if len(spoken) > 1:
        yield finding("dns-upstreams-disagree", seen, {"answers": told}, looks, symptom=Symptom.DNS_FLAPPING)
        yield finding("dns-asked-of-several", seen, {"targets": shown(said)}, looks, severity=Severity.NOTE)
    # A pod that may not reach the upstream itself hears silence: from a pod only an error counts.
    wrong = [
        k for k in looks if k.kind == "servfail" or (k.kind == "silent" and k.place == "near" and k.fact.vantage.node)
    ]
    if wrong and not any(k.kind == "address" for k in looks):
        yield finding("dns-upstream-fails-directly", seen, {"answers": told}, wrong)
    elif failing and any(k.kind == "address" for k in looks):
        yield finding("dns-upstream-answers-directly", seen, {"answers": told}, [*looks, *own], severity=Severity.NOTE)


def _stub(facts: Facts, seen: View, looks: list[Look], own: list[Look]) -> Iterator[Finding]:
    """A zone is sent to servers of its own, none of them answers the pod, and the name has no address."""
    zone, origin = stub_zone(facts, seen.target), config_object(facts)
    servers = upstreams(facts, seen.target)
    theirs = [k for k in looks if k.server in servers and k.name == seen.target]
    if zone is None or origin is None or not theirs or {k.server for k in theirs} != set(servers):
        return
    dead = not any(k.kind in ANSWERED for k in theirs)
    # Who hears nothing from its own servers either is shut off from DNS: the silence of others says nothing.
    heard = any(k.server in seen.servers and _spoke(k) for k in (*seen.looks, *seen.near))
    if dead and heard and own and not any(k.kind == "address" for k in own):
        at = sockets(facts, seen.target)
        args: Args = {"zone": zone, "target": shown(at.get(s, s) for s in servers), "config": origin.name}
        yield finding("dns-zone-servers-silent", seen, args, [origin, *theirs, *own], subject=origin.subject)
        yield finding("dns-zone-leads-nowhere", seen, args, [origin], severity=Severity.NOTE, subject=origin.subject)


def _spoke(look: Look) -> bool:
    """True where a server has spoken: a C library says SERVFAIL also when none did."""
    return look.kind in ANSWERED and not (look.libc is not None and look.kind == "servfail")


def _each(looks: list[Look]) -> dict[str, Kind]:
    """What each server steadily says; those that vary are left out."""
    found = {server: settled([k for k in looks if k.server == server]) for server in {k.server: None for k in looks}}
    return {server: kind for server, kind in found.items() if kind is not None}


def _told(said: Mapping[str, Kind]) -> str:
    return "; ".join(f"{server}: {WORDS[kind]}" for server, kind in said.items())
