"""Room tcp: whether connections open, rung by rung, and what on nodes and between clusters keeps them from it."""

from mcdoctor.check import Check
from mcdoctor.models.facts import (
    Capture,
    Conntrack,
    DnsAnswer,
    HttpSeries,
    Interception,
    KubeObject,
    Listener,
    LogLine,
    Metric,
    NodeFact,
    ObservedSource,
    PacketFilter,
    ResolvConf,
    Route,
    Sysctl,
    TcpConnect,
    Trace,
    UdpProbe,
)
from mcdoctor_checks.tcp import judge, probe, rules

_SEEN = (DnsAnswer, ResolvConf, Interception, KubeObject)

tcp_source_is_seen = Check(
    id="tcp-source-is-seen",
    title="it is known whether a proxy answers for the far side",
    probe=probe.probe_capture,
    judge=judge.judge_capture,
    gives=(Interception,),
    findings=judge.CAPTURE_FINDINGS,
    timeout=3.0,
    doc="""
## What it does
Looks for the listening ports of known proxies in the source's pod and connects to an address that nobody has: whoever
answers is a local proxy.

## Why it matters
In a captured pod every TCP connect, TLS handshake and segment ends at the proxy. A check that did not know would call
a dead network fine.

## What can go wrong
Nothing: a captured pod is not a fault. Low-layer checks then speak only from where nothing was captured.

## What it needs
A prober in the source's pod.
""",
)

tcp_reaches_destination = Check(
    id="tcp-reaches-destination",
    title="connections open on every rung of the way",
    probe=probe.probe,
    judge=judge.judge_reach,
    gives=(TcpConnect, Trace, Route),
    uses=_SEEN,
    findings=judge.REACH_FINDINGS,
    timeout=14.0,
    doc="""
## What it does
Connects to each rung of the destination ladder: what the name leads to, the Service's address or the gateway, each
endpoint (six at most), and a neighbour on the same far side. A rung that does not open is tried ten times; the first
silent one is traced. Open, refused, reset, silent and unreachable (with its ICMP code) are kept apart.

## Why it matters
The first rung that differs names the hop. An endpoint that opens behind a Service address that does not is a matter of
the node's rules; a pod that refuses is a matter of the application; silence on all rungs is a matter of network or
policy.

## What can go wrong
Silence (a filter, a policy, no way back), a refusal (nobody listens), an ICMP error (administratively prohibited, no
such host, no such network), connections that open only sometimes, rungs that differ. One lost try in ten is not a
fault, and neither is an endpoint that is not ready.

## What it needs
A prober in the source's pod; in a captured pod one outside the proxy. No privilege.
""",
)

tcp_connects_at_first_syn = Check(
    id="tcp-connects-at-first-syn",
    title="connections open without a repeated SYN",
    judge=judge.judge_repeats,
    uses=(TcpConnect, HttpSeries, *_SEEN),
    findings=judge.REPEAT_FINDINGS,
    doc="""
## What it does
Looks at how long new connections took to open, and at the kernel's count of repeated SYNs. A kernel repeats a lost SYN
after one, three and seven seconds.

## Why it matters
Steps of one second in latency are the mark of lost first packets: a race in source NAT, a full table, a bad checksum.

## What can go wrong
Every new connection is a second late, or some are. A single one is only noted.

## What it needs
At least two timed connections.
""",
)

tcp_conntrack_has_room = Check(
    id="tcp-conntrack-has-room",
    title="connection tracking has room on the nodes",
    judge=rules.judge_conntrack,
    uses=(Conntrack, LogLine, Metric, PacketFilter),
    findings=rules.CONNTRACK_FINDINGS,
    doc="""
## What it does
Reads the connection tracking table of the nodes on the path from recorded facts, metrics and kernel logs: how full it
is, insertions that failed, packets dropped as invalid.

## Why it matters
A full table drops new connections at random while old ones go on; a failed insertion costs a connection one second.

## What can go wrong
The table is full or nearly so, insertions fail, invalid packets are dropped.

## What it needs
Facts of the nodes: conntrack, kernel log lines, node metrics or filter counters. A pod alone does not see them.
""",
)

tcp_replies_are_accepted = Check(
    id="tcp-replies-are-accepted",
    title="replies are accepted where they arrive",
    judge=rules.judge_replies,
    uses=(Sysctl, LogLine, Metric, Capture),
    findings=rules.REPLY_FINDINGS,
    doc="""
## What it does
Reads reverse-path filter settings and their drop counters, martian log lines, and captures of replies that reach a node
and not its pod.

## Why it matters
Between clusters the way back is often another interface. Strict reverse-path filtering then drops the reply without a
word, and every policy looks innocent.

## What can go wrong
A strict filter on the node, counted drops, replies lost between node and pod, packets with a bad checksum.

## What it needs
Facts of the nodes: sysctl, metrics, log lines or captures.
""",
)

tcp_service_rules_are_current = Check(
    id="tcp-service-rules-are-current",
    title="the node sends the Service's traffic to its present endpoints",
    judge=rules.judge_service_rules,
    uses=(PacketFilter, LogLine, NodeFact, KubeObject),
    findings=rules.SERVICE_FINDINGS,
    doc="""
## What it does
Compares the NAT rules of nodes with the EndpointSlices of the Service, and reads what kube-proxy logged.

## Why it matters
When kube-proxy stops syncing, a node keeps sending connections to pods that are gone, and the API shows nothing of it.

## What can go wrong
Rules name addresses that are no endpoints any more, or say that there are none; kube-proxy fails to sync; an IPVS
server of weight zero keeps connections.

## What it needs
Filter rules or logs of the source's node, and the EndpointSlices.
""",
)

tcp_address_ranges_are_distinct = Check(
    id="tcp-address-ranges-are-distinct",
    title="the two clusters do not share addresses",
    judge=rules.judge_ranges,
    uses=(KubeObject, NodeFact, *_SEEN, TcpConnect),
    findings=rules.RANGE_FINDINGS,
    doc="""
## What it does
Compares pod ranges of both clusters (Nodes, CNI pools, configuration, Submariner's view), pod addresses that exist
twice, Service addresses that belong to another Service here, and names that lead to one address.

## Why it matters
With overlapping ranges a packet for the other cluster never leaves this one.

## What can go wrong
Pod ranges intersect while pods are spoken to directly; an address is taken on both sides. Behind gateways or Globalnet
an overlap does no harm and is only noted.

## What it needs
`list` of nodes and CNI pools, or a bundle that holds them.
""",
)

tcp_tunnels_answer = Check(
    id="tcp-tunnels-answer",
    title="tunnel and overlay ports answer",
    judge=rules.judge_tunnels,
    uses=(UdpProbe, LogLine, KubeObject),
    findings=rules.TUNNEL_FINDINGS,
    doc="""
## What it does
Reads UDP probes of tunnel ports (500, 4500, 4490, WireGuard) and overlay ports (4800, 8472, 4789, 6081), the connection
status of Submariner gateways, and negotiation errors in logs.

## Why it matters
A tunnel that is down is silence for every pod behind it.

## What can go wrong
A tunnel port is silent between the clusters, an overlay port between the nodes of one; a gateway is not connected; a
driver refuses.

## What it needs
Recorded UDP probes, Gateway objects or logs.
""",
)

tcp_load_balancer_admits_source = Check(
    id="tcp-load-balancer-admits-source",
    title="the load balancer admits the source and has a pod behind it",
    judge=rules.judge_admission,
    uses=(KubeObject, ObservedSource, TcpConnect, DnsAnswer, ResolvConf),
    findings=rules.ADMISSION_FINDINGS,
    doc="""
## What it does
Compares the source ranges of the load balancer on the way with the address that the far side sees, and with
`externalTrafficPolicy: Local` the nodes with the nodes that hold a ready pod.

## Why it matters
A load balancer that does not admit an address says nothing; a node without a pod drops what it is sent.

## What can go wrong
The source's public address is not in the ranges, or has changed; some nodes hold no pod.

## What it needs
Services, EndpointSlices and Nodes of the destination; the observed source address from the far side.
""",
)

tcp_nodes_route = Check(
    id="tcp-nodes-route",
    title="nodes have their own addresses, routes and source ports",
    judge=rules.judge_nodes,
    uses=(KubeObject, NodeFact, Route, Metric, LogLine, *_SEEN, TcpConnect),
    findings=rules.NODE_FINDINGS,
    doc="""
## What it does
Compares the address that the CNI took for a node with the node's own, looks for a route to the destination in recorded
tables, for source ports of NAT that are used up, and for a rising count of repeated segments.

## Why it matters
Each of these is silence to the client, and none is visible from a pod.

## What can go wrong
A CNI that took a bridge for the node's interface, a missing route, exhausted NAT ports, a BGP session that is down, an
encryption peer that is missing, source ports that always fail.

## What it needs
Nodes, recorded routing tables, metrics.
""",
)

tcp_application_listens = Check(
    id="tcp-application-listens",
    title="the application listens where the endpoint says",
    judge=rules.judge_listeners,
    uses=(Listener, TcpConnect, *_SEEN),
    findings=rules.LISTENER_FINDINGS,
    doc="""
## What it does
Reads the listening sockets of the destination's pod, or compares a connect over loopback with one to the pod's address.

## Why it matters
An application that listens on 127.0.0.1 works from inside its pod, passes an exec probe, and refuses everybody else.

## What can go wrong
It listens on loopback only, or on another port than the Service's target.

## What it needs
Sockets seen in the destination's pod.
""",
)

tcp_path_has_no_policy = Check(
    id="tcp-path-has-no-policy",
    title="whether a network policy could stand on the way",
    judge=rules.judge_policy_free,
    uses=(KubeObject,),
    findings=rules.POLICY_FINDINGS,
    doc="""
## What it does
Looks whether the two namespaces hold any network policy of any known kind. What policies mean is for the policy checks.

## Why it matters
A silent port is either a policy's or a firewall's doing. Where there is no policy at all, it is the firewall's.

## What can go wrong
Nothing: the result is context for a silent port.

## What it needs
Complete lists of every policy kind on both sides.
""",
)

CHECKS: tuple[Check, ...] = (
    tcp_source_is_seen, tcp_reaches_destination, tcp_connects_at_first_syn, tcp_conntrack_has_room,
    tcp_replies_are_accepted, tcp_service_rules_are_current, tcp_address_ranges_are_distinct, tcp_tunnels_answer,
    tcp_load_balancer_admits_source, tcp_nodes_route, tcp_application_listens, tcp_path_has_no_policy,
)  # fmt: skip
