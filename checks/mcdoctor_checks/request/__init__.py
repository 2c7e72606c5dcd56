"""Room request: the flow's own request, end to end."""

from mcdoctor.check import Check
from mcdoctor.models.facts import (
    Banner,
    Capture,
    DnsAnswer,
    FlowRecord,
    HttpRequest,
    HttpSeries,
    Interception,
    Interface,
    KubeObject,
    LogLine,
    Metric,
    NodeFact,
    PacketFilter,
    PathMtu,
    ResolvConf,
    TcpConnect,
    TlsHandshake,
    Trace,
)
from mcdoctor_checks.request import judge, probe, rules, segments

_SEEN = (DnsAnswer, ResolvConf, Interception, KubeObject)

request_reaches_backend = Check(
    id="request-reaches-backend",
    title="a request of the source is answered by the application",
    probe=probe.probe,
    judge=judge.judge_reach,
    gives=(HttpRequest, HttpSeries, Banner),
    uses=(*_SEEN, TlsHandshake),
    findings=judge.REACH_FINDINGS,
    timeout=20.0,
    doc="""
## What it does
Sends the flow's own request from the source: the readiness path of the destination's pods, else `/`, by GET, to the
name that the workload uses. Then a short series on new and on kept connections (four each, at most five a second);
all 20 where the first vary or the symptom is one of intermittence. When it fails, the same request goes to the other
rungs of the ladder. Where the protocol is not HTTP, it connects and listens for a greeting. `--request` chooses
another request; one that is not GET, HEAD or OPTIONS is sent once only.

## Why it matters
Without it nothing is ever called healthy. Any status that the application itself sends proves the path: 404, 401 and
500 too. A 503 by a proxy does not, and who answered is told.

## What can go wrong
Time-out, refusal, reset, TLS that fails, TLS spoken to a plaintext port or the reverse, an answer by a proxy or gateway
in the application's place, a name that does not resolve.

## What it needs
A prober in the source's pod, as the workload itself: what goes past the pod's proxy is not the workload's traffic.
""",
)

request_succeeds_every_time = Check(
    id="request-succeeds-every-time",
    title="requests that are alike end alike",
    judge=judge.judge_steady,
    uses=(HttpRequest, HttpSeries, *_SEEN),
    findings=judge.STEADY_FINDINGS,
    doc="""
## What it does
Counts failures of the series, on new and on kept connections, by backend where backends say who they are, and looks for
a tail of latency far from the middle.

## Why it matters
A fifth of requests that fail is one bad endpoint of five; failures on kept connections only are somebody's idle limit.

## What can go wrong
Two or more failures and more than one in ten; answers of 5xx now and then; a tail of ten times the median and half a
second more. One failure in ten and a slow first request are not faults.

## What it needs
At least three requests.
""",
)

request_large_passes = Check(
    id="request-large-passes",
    title="a request of several segments passes as a small one does",
    probe=probe.probe_large,
    judge=judge.judge_large,
    gives=(HttpRequest,),
    uses=(HttpSeries, PathMtu, *_SEEN),
    findings=judge.LARGE_FINDINGS,
    timeout=6.0,
    doc="""
## What it does
Sends the same GET with a header of 3,600 bytes where a black hole was measured or the symptom is a hang of large
payloads.

## Why it matters
It shows the user's symptom itself, beside the sizes that were measured.

## What can go wrong
The small request is answered and the large one is not, or one path of the application hangs that answers with more. A
status of 413, 414 or 431 is an answer.

## What it needs
The small request answered.
""",
)

request_passes_in_small_segments = Check(
    id="request-passes-in-small-segments",
    title="the request that hung passes in small segments",
    probe=probe.probe_small_segments,
    judge=segments.judge_small_segments,
    gives=(HttpRequest,),
    uses=(PathMtu, Interface, NodeFact, PacketFilter, TcpConnect, Trace, Capture, *_SEEN),
    findings=segments.PROOF_FINDINGS,
    proves=(
        "pmtu-blackhole",
        "icmp-frag-needed-blocked",
        "mtu-encapsulation-overhead",
        "mtu-mismatch-between-nodes",
        "mss-clamp-missing",
    ),
    timeout=8.0,
    doc="""
## What it does
Repeats the request that hung with a segment size below the largest packet that was delivered. Nothing else differs.

## Why it matters
If it is answered now, size is the cause, and nothing in the cluster was changed to prove it.

## What can go wrong
It hangs as well: then size is not what keeps it.

## What it needs
A black hole in question and a request that hung.
""",
)

request_survives_idle = Check(
    id="request-survives-idle",
    title="the first request after a pause is answered",
    judge=judge.judge_idle,
    uses=(HttpRequest, HttpSeries, *_SEEN),
    findings=judge.IDLE_FINDINGS,
    doc="""
## What it does
Looks at requests on connections that had been idle for five seconds or more, recorded ones or (with
`--symptom connection-refused-or-reset` and time for it) one after 61 s.

## Why it matters
Load balancers and NAT forget idle connections after 60, 350 or 900 seconds; the next request is reset.

## What can go wrong
The first request after a pause is reset, closed or hangs, while a new connection works.

## What it needs
Time, or records.
""",
)

request_is_answered_by_destination = Check(
    id="request-is-answered-by-destination",
    title="a pod of the destination answers",
    judge=judge.judge_served,
    uses=(HttpRequest, HttpSeries, *_SEEN),
    findings=judge.SERVED_FINDINGS,
    doc="""
## What it does
Compares who answered, as far as backends say it, with the destination's endpoints.

## Why it matters
With overlapping addresses or a shadowed name the request is answered, and by somebody else.

## What can go wrong
A pod of another workload or another cluster answers.

## What it needs
A backend that reports itself in `x-served-by`.
""",
)

request_bypasses_forward_proxy = Check(
    id="request-bypasses-forward-proxy",
    title="in-cluster names are not sent to a forward proxy",
    judge=rules.judge_forward_proxy,
    uses=(KubeObject, HttpRequest, DnsAnswer, ResolvConf),
    findings=rules.FORWARD_FINDINGS,
    doc="""
## What it does
Reads HTTP_PROXY, HTTPS_PROXY and NO_PROXY of the source's containers, and requests recorded through a proxy.

## Why it matters
mcdoctor's own request does not read these variables; the application's library does, and sends in-cluster names out.

## What can go wrong
NO_PROXY does not cover the destination; the proxy refuses where the direct request works.

## What it needs
The source's Pod or its workload.
""",
)

request_idle_limits_are_known = Check(
    id="request-idle-limits-are-known",
    title="who ends idle connections",
    judge=rules.judge_pauses,
    uses=(NodeFact, Capture, LogLine, FlowRecord, HttpRequest, HttpSeries, *_SEEN),
    findings=rules.PAUSE_FINDINGS,
    doc="""
## What it does
Gathers what parts the causes of failures after a pause: known limits of middleboxes, captures of who sent FIN or RST,
endpoints that, asked themselves, end idle connections, 503 UC in proxy logs, nodes that went away.

## Why it matters
The remedy differs: a shorter client pool, a keepalive, or a drain.

## What can go wrong
Nothing by itself: these are notes.

## What it needs
Recorded facts.
""",
)

request_backends_stay = Check(
    id="request-backends-stay",
    title="no traffic goes to pods that are leaving",
    judge=rules.judge_rollout,
    uses=(KubeObject, LogLine),
    findings=rules.ROLLOUT_FINDINGS,
    doc="""
## What it does
Looks for terminating pods of the destination, whether they wait before they stop, and for 503 UF or UC in logs.

## Why it matters
For a moment after a pod begins to stop, others still send to it.

## What can go wrong
Requests fail during a roll-out. A terminating pod alone is only noted.

## What it needs
Pods and EndpointSlices of the destination.
""",
)

request_backends_have_capacity = Check(
    id="request-backends-have-capacity",
    title="the destination has the replicas and the CPU it asks for",
    judge=rules.judge_load,
    uses=(KubeObject, Metric, LogLine, HttpRequest, HttpSeries),
    findings=rules.LOAD_FINDINGS,
    doc="""
## What it does
Reads the autoscaler's conditions, CPU throttling of the pods and softirq pressure of nodes, where they were recorded.

## Why it matters
Latency in steps of 100 ms and surges of 5xx are often a limit, not the path.

## What can go wrong
The autoscaler cannot read its metrics or is at its maximum; a fifth of CPU periods is throttled; a proxy's connection
pool overflows (flag UO), or half of what it sends are retries; one pod of several takes nearly all requests.

## What it needs
HorizontalPodAutoscalers, metrics.
""",
)

CHECKS: tuple[Check, ...] = (
    request_reaches_backend, request_succeeds_every_time, request_large_passes, request_passes_in_small_segments,
    request_survives_idle, request_is_answered_by_destination, request_bypasses_forward_proxy,
    request_idle_limits_are_known, request_backends_stay, request_backends_have_capacity,
)  # fmt: skip
