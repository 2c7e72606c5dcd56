"""Rules beside the request: forward proxies, pauses, roll-outs and load. No probe of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import (
    Capture,
    Fact,
    FlowRecord,
    HttpRequest,
    HttpSeries,
    KubeObject,
    LogLine,
    Metric,
    NodeFact,
)
from mcdoctor.models.ids import Hop, Severity, Symptom
from mcdoctor.models.outcome import Finding, Outcome
from mcdoctor_checks.request.answer import read, target
from mcdoctor_checks.sight import is_address, mapping, maps, number, on_path, place
from mcdoctor_checks.tcp.rules import found, rise, settled

# --- forward proxies -----------------------------------------------------------------------------------------------

FORWARD_FINDINGS = ("forward-proxy-takes-internal", "request-through-forward-proxy", "request-direct-works")


def judge_forward_proxy(facts: Facts) -> Outcome:
    """The source's environment does not send in-cluster names to a forward proxy."""
    flow = facts.flow
    problems: list[Finding] = []
    host = (flow.host or flow.address or "").rstrip(".").lower()
    pods = [p for p in facts.objects("Pod", flow.source_cluster or None) if _is_source(facts, p)]
    workload = flow.source and facts.object(
        flow.source.kind, flow.source_cluster, flow.source.namespace, flow.source.name
    )
    bodies = [p.spec for p in pods] or ([_template(workload)] if workload else [])
    shown: list[Fact] = [*pods[:1]] or ([workload] if workload else [])
    if host and _internal(facts, host):
        for container in (c for body in bodies for c in maps(body.get("containers"))):
            environment = {str(e.get("name")): str(e.get("value") or "") for e in maps(container.get("env"))}
            if (proxy := _proxy_for(environment, flow.protocol == "https")) and not _excepted(environment, host):
                problems.append(
                    found(
                        "forward-proxy-takes-internal",
                        Hop.SOURCE_POD,
                        shown,
                        Severity.WARNING,
                        Symptom.EGRESS_BLOCKED,
                        proxy=_bare(proxy),
                        container=str(container.get("name")),
                        host=host,
                        exceptions=environment.get("NO_PROXY") or environment.get("no_proxy") or "-",
                    )
                )
                break
    requests = [
        r
        for r in facts.all(HttpRequest)
        if place(flow, r.vantage) in ("source", "near") and target(facts, r.url, None) is not None
    ]
    through = [r for r in requests if r.via and not read(r).proves_path]
    direct = [r for r in requests if not r.via and read(r).proves_path]
    if through:
        problems.append(
            found(
                "request-through-forward-proxy",
                Hop.SOURCE_POD,
                through,
                Severity.ERROR,
                Symptom.EGRESS_BLOCKED,
                via=through[0].via or "",
                how=read(through[0]).ending,
                failed=len(through),
                tries=sum(bool(r.via) for r in requests),
            )
        )
        if direct:
            problems.append(found("request-direct-works", Hop.SOURCE_POD, direct, via=through[0].via or ""))
    return settled(problems, [*shown, *requests], "the environment of the source was not seen")


def _is_source(facts: Facts, pod: KubeObject) -> bool:
    source = facts.flow.source
    return source is not None and pod.namespace == source.namespace and pod.name in {p.name for p in source.pods}


def _template(workload: KubeObject) -> Mapping[str, object]:
    return mapping(mapping(workload.spec.get("template")).get("spec"))


def _internal(facts: Facts, host: str) -> bool:
    if is_address(host):
        return ip_address(host).is_private
    return ".svc." in f"{host}." or facts.flow.local is not None or "." not in host


def _proxy_for(environment: Mapping[str, str], https: bool) -> str:
    names = ("HTTPS_PROXY", "https_proxy") if https else ("http_proxy", "HTTP_PROXY")
    return next((environment[n] for n in (*names, "ALL_PROXY", "all_proxy") if environment.get(n)), "")


def _bare(proxy: str) -> str:
    """A proxy address without the user and password it may carry."""
    return proxy.rpartition("@")[2] if "@" in proxy else proxy.partition("://")[2] or proxy


def _excepted(environment: Mapping[str, str], host: str) -> bool:
    """NO_PROXY as Go, curl and Python read it: `*`, suffixes with or without a dot, addresses, CIDRs."""
    for raw in (environment.get("NO_PROXY") or environment.get("no_proxy") or "").split(","):
        entry = raw.strip().lower().removeprefix("*")
        if raw.strip() == "*":
            return True
        if not entry:
            continue
        suffix = entry.lstrip(".")
        if host == suffix or host.endswith(f".{suffix}"):
            return True
        if "." not in host.removesuffix(".") and suffix == host:
            return True
        if is_address(host) and "/" in entry:
            try:
                if ip_address(host) in ip_network(entry, strict=False):
                    return True
            except ValueError:
                continue
    return False


# --- pauses --------------------------------------------------------------------------------------------------------

PAUSE_FINDINGS = (
    "middlebox-idle-limit",
    "server-closes-first",
    "reset-not-from-server",
    "upstream-closed-reused",
    "node-removed",
)
_FIN = re.compile(r"\bFIN\b|\[F\.?\]", re.I)
_RST = re.compile(r"\bRST\b|\[R\.?\]", re.I)
_REUSED = re.compile(
    r"\b503\b.{0,80}\bUC\b|upstream_reset_before_response_started\{connection_termination|"
    r"server closed idle connection|connection reset by peer.*reused",
    re.I,
)
_REMOVED = ("RemovingNode", "DeletingNode", "NodeNotReady", "DeletingAllPods", "TargetDeregistered")


def judge_pauses(facts: Facts) -> Outcome:
    """What is known of limits on idle connections, and of who ends them."""
    flow = facts.flow
    problems: list[Finding] = []
    limits = [n for n in facts.all(NodeFact) if re.search(r"idle|conntrack.*timeout", n.name, re.I) and number(n.value)]
    if limits:
        problems.append(
            found(
                "middlebox-idle-limit", Hop.NETWORK, limits, name=limits[0].name, seconds=number(limits[0].value) or 0
            )
        )
    captures = facts.all(Capture)
    at_server = [c for c in captures if place(flow, c.vantage) == "far"]
    if ended := [
        c for c in at_server if c.matched and any(_FIN.search(t) for t in (*(c.flags or ()), *(c.first or ())))
    ]:
        problems.append(found("server-closes-first", Hop.DEST_POD, ended, vantage=str(ended[0].vantage)))
    elif closed := _closes_idle(facts):
        problems.append(found("server-closes-first", Hop.DEST_POD, closed, vantage=closed[0].address or closed[0].url))
    heard = [c for c in captures if place(flow, c.vantage) in ("source", "near") and c.matched and _has_reset(c)]
    unsent = [c for c in at_server if not c.matched and _has_reset(c)]
    if heard and unsent:
        problems.append(found("reset-not-from-server", Hop.NETWORK, [*heard, *unsent], vantage=str(unsent[0].vantage)))
    lines: list[Fact] = [x for x in on_path(flow, facts.all(LogLine)) if _REUSED.search(x.text)]
    lines += [r for r in facts.all(FlowRecord) if "UC" in str(mapping(r.fields).get("response_flags", ""))]
    if lines:
        problems.append(found("upstream-closed-reused", Hop.DEST_POD, lines, vantage=str(lines[0].vantage)))
    if gone := _removed_nodes(facts):
        problems.append(found("node-removed", Hop.DEST_ENDPOINT, gone, node=gone[0].subject))
    looked: list[Fact] = [*limits, *captures, *lines]
    return settled(problems, looked, "nothing is known of limits on idle connections")


def _closes_idle(facts: Facts) -> list[HttpRequest]:
    """Endpoints, asked themselves, end idle connections and answer on new ones; what fails before them is kept ones."""
    sent = [
        r
        for r in facts.all(HttpRequest)
        if place(facts.flow, r.vantage) in ("source", "near") and target(facts, r.url, r.address) == "endpoint"
    ]
    closed = [r for r in sent if r.connection == "kept" and (r.idle_s or 0) > 0 and r.result in ("closed", "reset")]
    fresh = {r.address for r in sent if r.connection == "new" and read(r).proves_path}
    failed = [
        s
        for theirs in facts.all(HttpSeries)
        if place(facts.flow, theirs.vantage) in ("source", "near")
        for s in theirs.samples
        if s.result != "response" or s.status in (502, 503)
    ]
    behind = len(failed) >= 2 and all(s.connection == "kept" for s in failed)
    return [r for r in closed if r.address in fresh] if behind else []


def _has_reset(capture: Capture) -> bool:
    return bool(_RST.search(" ".join((capture.filter, *(capture.flags or ()), *(capture.first or ()))))) or (
        "tcp-rst" in capture.filter or "rst" in capture.filter.lower()
    )


def _removed_nodes(facts: Facts) -> list[Fact]:
    """Nodes of the destination that went away or are going."""
    cluster = facts.flow.destination_cluster or None
    events = [e for e in facts.objects("Event", cluster) if e.body.get("reason") in _REMOVED]
    events += [e for e in facts.objects("Event.events.k8s.io", cluster) if e.body.get("reason") in _REMOVED]
    going = [n for n in facts.objects("Node", cluster) if mapping(n.body.get("metadata")).get("deletionTimestamp")]
    return [*events, *going]


# --- roll-outs -----------------------------------------------------------------------------------------------------

ROLLOUT_FINDINGS = ("backend-terminating", "backend-without-drain", "upstream-connect-fails")
_CONNECT_FAILS = re.compile(r"\b503\b.{0,120}\b(UF|UC)\b|upstream connect error", re.I)


def judge_rollout(facts: Facts) -> Outcome:
    """No traffic goes to pods that are on their way out."""
    flow = facts.flow
    problems: list[Finding] = []
    names = {b.pod for b in flow.backends if b.pod}
    cluster = flow.destination_cluster or None
    pods = [
        p
        for p in facts.objects("Pod", cluster, flow.namespace or None)
        if f"{p.namespace}/{p.name}" in names or _like(p, names)
    ]
    going = [p for p in pods if mapping(p.body.get("metadata")).get("deletionTimestamp")]
    slices = [
        s
        for s in facts.objects("EndpointSlice.discovery.k8s.io", cluster, flow.namespace or None)
        if s.labels.get("kubernetes.io/service-name") == flow.name
        and any(mapping(e.get("conditions")).get("terminating") is True for e in maps(s.body.get("endpoints")))
    ]
    if going or slices:
        shown = ", ".join(p.name for p in going) or slices[0].subject
        problems.append(found("backend-terminating", Hop.DEST_ENDPOINT, [*going, *slices], pods=shown))
        bare = [
            p
            for p in going
            if not any(mapping(c.get("lifecycle")).get("preStop") for c in maps(p.spec.get("containers")))
        ]
        if bare:
            problems.append(found("backend-without-drain", Hop.DEST_POD, bare, pod=bare[0].name))
    lines: list[Fact] = [x for x in on_path(flow, facts.all(LogLine)) if _CONNECT_FAILS.search(x.text)]
    if lines:
        problems.append(found("upstream-connect-fails", Hop.DEST_ENDPOINT, lines, vantage=str(lines[0].vantage)))
    return settled(problems, [*pods, *lines], "the destination's pods were not read")


def _like(pod: KubeObject, names: Iterable[str]) -> bool:
    """A pod of the same owner as a backend: one that was in the slices until a moment ago."""
    stem = f"{pod.namespace}/{pod.name.rsplit('-', 2)[0]}-"
    return pod.name.count("-") >= 2 and any(n.startswith(stem) for n in names)


# --- load ----------------------------------------------------------------------------------------------------------

LOAD_FINDINGS = (
    "autoscaler-without-metrics", "autoscaler-at-maximum", "cpu-throttled", "softirq-saturated", "proxy-pool-overflows",
    "proxy-retries-multiply", "load-on-one-backend", "load-on-one-connection", "load-kept-in-zone",
)  # fmt: skip
_THROTTLED = re.compile(r"cfs_throttled_periods", re.I)
_PERIODS = re.compile(r"cpu_cfs_periods", re.I)


def judge_load(facts: Facts) -> Outcome:
    """The destination has the replicas and the CPU that it asks for."""
    flow = facts.flow
    problems: list[Finding] = []
    scalers = [
        h
        for h in facts.objects(
            "HorizontalPodAutoscaler.autoscaling", flow.destination_cluster or None, flow.namespace or None
        )
        if _scales(facts, h)
    ]
    for scaler in scalers:
        conditions = {str(c.get("type")): c for c in maps(scaler.status.get("conditions"))}
        active = conditions.get("ScalingActive", {})
        limited = conditions.get("ScalingLimited", {})
        current, most = number(scaler.status.get("currentReplicas")), number(scaler.spec.get("maxReplicas"))
        if active.get("status") == "False" and active.get("reason") != "ScalingDisabled":
            problems.append(
                found(
                    "autoscaler-without-metrics",
                    Hop.DEST_POD,
                    [scaler],
                    Severity.WARNING,
                    Symptom.SURGE_5XX,
                    reason=str(active.get("reason")),
                )
            )
        elif limited.get("status") == "True" and limited.get("reason") == "TooManyReplicas" and current == most:
            problems.append(found("autoscaler-at-maximum", Hop.DEST_POD, [scaler], replicas=current or 0))
    pods = {b.pod.rpartition("/")[2] for b in flow.backends if b.pod} | {
        p.name for p in (flow.source.pods if flow.source else ())
    }
    metrics = on_path(flow, facts.all(Metric))
    throttled = [m for m in metrics if _THROTTLED.search(m.name) and _about(m, pods)]
    for metric in throttled:
        share = _share(metric, metrics)
        if share is not None and share >= 0.2:
            problems.append(
                found(
                    "cpu-throttled",
                    Hop.DEST_POD,
                    [metric],
                    percent=round(100 * share),
                    pod=metric.labels.get("pod", "?"),
                    container=metric.labels.get("container", "?"),
                )
            )
            break
    squeezed = [
        m for m in metrics if re.search(r"time_squeeze|softnet.*(squeezed|dropped)", m.name, re.I) and rise(m) > 0
    ]
    if squeezed:
        problems.append(found("softirq-saturated", Hop.SOURCE_NODE, squeezed, vantage=str(squeezed[0].vantage)))
    problems += _overflows(facts, metrics)
    problems += _retries(metrics)
    problems += _spread(facts)
    looked: list[Fact] = [*scalers, *throttled, *squeezed]
    return settled(problems, looked, "neither autoscalers nor metrics of the destination were seen")


_OVERFLOW = re.compile(r"upstream_(rq_pending|cx)(_pool)?_overflow", re.I)


def _overflows(facts: Facts, metrics: list[Metric]) -> list[Finding]:
    """Envoy's circuit breaker: response flag UO, or its counters. A pool that nobody exceeds is no matter."""
    rose: list[Fact] = [m for m in metrics if _OVERFLOW.search(m.name) and rise(m) > 0 and _to(facts, m)]
    told: list[Fact] = [x for x in on_path(facts.flow, facts.all(LogLine)) if re.search(r"\b503 UO\b", x.text)]
    flagged: list[Fact] = [s for s in facts.all(HttpSeries) if any("UO" in _flags(x.response_flags) for x in s.samples)]
    flagged += [r for r in facts.all(HttpRequest) if "UO" in _flags(r.response_flags)]
    seen = [*flagged, *told, *rose]
    return [found("proxy-pool-overflows", Hop.SOURCE_PROXY, seen, vantage=str(seen[0].vantage))] if seen else []


def _flags(text: str | None) -> list[str]:
    return (text or "").replace(",", " ").split()


def _to(facts: Facts, metric: Metric) -> bool:
    """Envoy names its clusters after the Service: `outbound|80||backend.shop.svc.cluster.local`."""
    cluster = metric.labels.get("cluster_name") or metric.labels.get("envoy_cluster_name")
    return not cluster or not facts.flow.name or f"{facts.flow.name}." in cluster


def _retries(metrics: list[Metric]) -> list[Finding]:
    """Retries that make up half of what a proxy sends multiply the load that they answer to."""
    for metric in metrics:
        if not re.search(r"upstream_rq_retry$|upstream_rq_retry_total$", metric.name) or rise(metric) <= 0:
            continue
        whole = [
            m for m in metrics
            if re.search(r"upstream_rq_total$", m.name) and dict(m.labels) == dict(metric.labels) and rise(m) > 0
        ]  # fmt: skip
        if whole and (share := rise(metric) / rise(whole[0])) >= 0.5:
            seen = [metric, whole[0]]
            percent = round(100 * share)
            return [
                found("proxy-retries-multiply", Hop.SOURCE_PROXY, seen, percent=percent, vantage=str(metric.vantage))
            ]
    return []


def _spread(facts: Facts) -> list[Finding]:
    """Requests of which one of three endpoints and more takes nearly all, by the endpoints' own counters."""
    flow = facts.flow
    pods = {b.pod.rpartition("/")[2] for b in flow.backends if b.pod and b.ready}
    counters = [
        m
        for m in facts.all(Metric)
        if m.type == "counter" and re.search(r"request|handled|_rq_|_rq$", m.name) and m.labels.get("pod") in pods
    ]
    rises = {m.labels["pod"]: rise(m) for m in counters}
    whole = sum(rises.values())
    if len(rises) < 3 or len(rises) < len(pods) or whole < 50:
        return []
    most = max(rises, key=lambda p: rises[p])
    if rises[most] / whole < 0.8:
        return []
    problems = [
        found(
            "load-on-one-backend",
            Hop.DEST_ENDPOINT,
            counters,
            Severity.ERROR,
            Symptom.UNEVEN_LOAD_OR_NO_FAILOVER,
            subject=f"pod {most}",
            pod=most,
            percent=round(100 * rises[most] / whole),
            count=len(rises),
        )
    ]
    runs: list[Fact] = [
        s
        for s in facts.all(HttpSeries)
        if place(flow, s.vantage) == "source"
        and len(s.samples) >= 5
        and len({x.connection_id for x in s.samples}) == 1
        and all(x.connection == "kept" for x in s.samples[1:])
    ]
    if runs:
        problems.append(found("load-on-one-connection", Hop.SOURCE_POD, runs))
    problems += _zones(facts, most)
    return problems


def _zones(facts: Facts, busy: str) -> list[Finding]:
    """Zone hints that leave the source's zone with fewer endpoints than its share."""
    flow = facts.flow
    slices = [
        s
        for s in facts.objects("EndpointSlice.discovery.k8s.io", None, flow.namespace or None)
        if s.labels.get("kubernetes.io/service-name") == flow.name
    ]
    endpoints = [e for s in slices for e in maps(s.body.get("endpoints"))]
    hinted = [e for e in endpoints if maps(mapping(e.get("hints")).get("forZones"))]
    mine = next((e for e in hinted if mapping(e.get("targetRef")).get("name") == busy), None)
    if mine is None or len(hinted) < len(endpoints):
        return []
    zones = [str(z.get("name")) for z in maps(mapping(mine.get("hints")).get("forZones"))]
    inside = [e for e in hinted if any(z.get("name") in zones for z in maps(mapping(e.get("hints")).get("forZones")))]
    if 2 * len(inside) >= len(hinted):
        return []
    return [found("load-kept-in-zone", Hop.DEST_SERVICE, slices, zone=zones[0], inside=len(inside), count=len(hinted))]


def _scales(facts: Facts, scaler: KubeObject) -> bool:
    name = str(mapping(scaler.spec.get("scaleTargetRef")).get("name") or "")
    pods = {b.pod.rpartition("/")[2] for b in facts.flow.backends if b.pod}
    return name == facts.flow.name or (bool(name) and any(p.startswith(f"{name}-") for p in pods))


def _about(metric: Metric, pods: set[str]) -> bool:
    pod = metric.labels.get("pod") or metric.labels.get("pod_name")
    return pod is None or not pods or pod in pods


def _share(throttled: Metric, metrics: list[Metric]) -> float | None:
    """Throttled periods of all periods; the rise alone is not enough to say much."""
    rose = rise(throttled)
    for other in metrics:
        if (
            _PERIODS.search(other.name)
            and not _THROTTLED.search(other.name)
            and dict(other.labels) == dict(throttled.labels)
        ):
            total = rise(other)
            return rose / total if total else None
    if throttled.type == "gauge" and 0 <= rose <= 1:
        return rose
    span = [p.at for p in throttled.samples]
    seconds = (max(span) - min(span)).total_seconds() if span else 0.0
    return rose / (seconds * 10) if seconds else None  # ten periods of 100 ms a second
