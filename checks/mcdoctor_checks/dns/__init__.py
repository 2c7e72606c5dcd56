"""Room dns: what the source pod's resolvers say of the destination's name, and why."""

from mcdoctor.check import Check
from mcdoctor.models.facts import (
    Conntrack,
    DnsAnswer,
    DnsSeries,
    FlowRecord,
    HttpRequest,
    Interception,
    Interface,
    KubeObject,
    Listed,
    LogLine,
    Metric,
    ResolvConf,
    Route,
    TcpConnect,
)
from mcdoctor_checks.dns.judge import judge_answer, judge_ipv6, judge_name, judge_resolver, judge_search
from mcdoctor_checks.dns.probe import probe_configuration, probe_name, probe_other_servers, probe_resolver
from mcdoctor_checks.dns.servers import judge_health, judge_others, judge_zone
from mcdoctor_checks.dns.steady import judge_steady

_LOOKS = (ResolvConf, DnsAnswer, DnsSeries, KubeObject)

configuration = Check(
    id="dns-configuration-covers-name",
    title="the cluster's DNS is configured to know the name",
    judge=judge_zone,
    uses=_LOOKS,
    findings=(
        "dns-zone-not-forwarded", "dns-zone-forward-wrong", "dns-corefile-malformed", "dns-asked-of-several",
        "dns-forwards-to-loopback", "dns-serves-stale", "dns-denial-ttl-long", "dns-name-rewritten",
        "dns-serviceentry-without-address", "dns-import-without-endpoints", "dns-zone-leads-nowhere",
        "dns-zone-covered",
        "dns-nothing-to-serve",
    ),
    doc="""
## What it does
Reads the Corefile of CoreDNS (with snippets, imports and the custom ConfigMaps of distributions), the one of the DNS
cache on the nodes, and stub domains of kube-dns, and follows the destination's name through them.

## Why it matters
A name of the cluster set is known only to a server made for it: the cluster's DNS has to be told to ask there, in every
layer that caches.

## What can go wrong
No block for the zone; a forwarder at an address that no Service has any more; several upstreams of different authority;
long denials; a forwarder that leads back to CoreDNS; a ServiceEntry without an address; an import without endpoints.

## What it needs
`get` of configmaps coredns, coredns-custom, node-local-dns and kube-dns in kube-system.
""",
)  # fmt: skip

resolver = Check(
    id="dns-resolver-is-cluster",
    title="the pod asks the cluster's DNS",
    judge=judge_resolver,
    probe=probe_resolver,
    gives=(ResolvConf,),
    uses=(KubeObject,),
    findings=(
        "dns-no-nameserver", "dns-resolver-not-cluster", "dns-nameserver-not-dns-service", "dns-host-alias",
        "dns-node-cache-in-use", "dns-search-outside-cluster", "dns-policy-bypasses-cluster",
    ),
    doc="""
## What it does
Reads the pod's resolv.conf and compares its nameservers and search list with the cluster's DNS Service, and with
`dnsPolicy`, `hostNetwork` and `hostAliases` of the pod.

## Why it matters
A pod that asks the node's resolvers knows no name of the cluster at all.

## What can go wrong
`hostNetwork` without `ClusterFirstWithHostNet`, `dnsPolicy: Default`, a kubelet that hands out an old DNS address, an
entry in /etc/hosts that hides the name.

## What it needs
A prober in the source pod (resolv.conf); `get` of the pod and of service kube-system/kube-dns.
""",
)  # fmt: skip

name_resolves = Check(
    id="dns-name-resolves",
    title="every nameserver of the pod resolves the name",
    judge=judge_name,
    probe=probe_name,
    gives=(DnsAnswer, DnsSeries),
    uses=(ResolvConf, KubeObject),
    timeout=20.0,
    findings=(
        "dns-name-not-found", "dns-name-empty", "dns-server-failure", "dns-query-refused", "dns-name-unanswered",
        "dns-unusual-answer", "dns-alias-target-fails", "dns-servers-disagree", "dns-inside-name-differs",
        "dns-outside-name-differs", "dns-control-name-resolves", "dns-control-name-fails",
        "dns-only-outside-names-fail", "dns-denies-existing-service", "dns-service-just-created",
        "dns-headless-without-endpoints", "dns-peer-name-denied", "dns-remote-headless-denied", "dns-one-family-fails",
        "dns-all-servers-silent", "dns-servers-silent-one-transport", "dns-all-servers-closed",
        "dns-all-servers-unreachable", "dns-server-silent", "dns-server-closed", "dns-server-unreachable",
        "dns-node-cache-silent", "dns-udp-silent", "dns-tcp-fails", "dns-libc-fails", "dns-other-pod-is-answered",
        "dns-asked-of-several", "dns-denial-is-kept", "dns-server-lacks-zone",
    ),
    doc="""
## What it does
Asks each nameserver of the pod by itself, over UDP and TCP, for A and AAAA of the absolute name, and for a control
name that every cluster knows (`kubernetes.default.svc`). Tells apart: no such name, no record, server failure, refusal,
silence, nothing listening, no route. Also asks through the C library and, name by name, as the search list would.

## Why it matters
A resolver tries its servers one after another and hides which of them failed, and how. "DNS is down" and "this name is
not known" need different people.

## What can go wrong
One server is silent and costs five seconds each time; all are silent because an egress policy forgets port 53; UDP is
dropped and TCP is not; the servers disagree; the target of an alias fails; the Service exists and DNS denies it. No
AAAA record, and NXDOMAIN for names made by the search list, are normal.

## What it needs
A prober in the source pod. About 40 small queries.
""",
)  # fmt: skip

search_list = Check(
    id="dns-search-list-is-harmless",
    title="the name means the same with and without a trailing dot",
    judge=judge_search,
    uses=_LOOKS,
    findings=("dns-search-hides-name", "dns-relative-name-differs", "dns-search-stops-at-empty", "dns-libc-fails"),
    doc="""
## What it does
Compares the answer for the absolute name with those for the names that the search list makes of it, in the order of the
C library and its `ndots`.

## Why it matters
With `ndots:5`, a name with four dots is first tried under every search domain. A wildcard record in one of them answers
in the place of the right server, and TLS or routing is blamed for it.

## What can go wrong
A wildcard in a search domain; a search domain that answers "no record" instead of "no such name", at which musl stops.

## What it needs
Answers gathered by `dns-name-resolves`.
""",
)

steady = Check(
    id="dns-answers-are-steady",
    title="the same question gets the same answer every time",
    judge=judge_steady,
    uses=(*_LOOKS, Conntrack, FlowRecord),
    findings=(
        "dns-answers-flap", "dns-errors-flap", "dns-some-queries-lost", "dns-delay-in-steps", "dns-slow",
        "dns-fixed-port-silent", "dns-denial-ended", "dns-denial-began", "dns-denials-come-and-go",
        "dns-local-name-varies", "dns-peer-name-varies", "dns-outside-name-varies", "dns-other-names-steady",
        "dns-other-names-vary", "dns-tcp-steady", "dns-tcp-varies", "dns-pods-steady", "dns-conntrack-insert-failed",
        "dns-conntrack-entry-stale", "dns-reply-dropped-by-policy", "dns-query-dropped-by-policy",
        "dns-only-outside-names-fail",
        "dns-outside-answers-alternate", "dns-denial-is-kept",
    ),
    doc="""
## What it does
Looks at repeated queries, each from a new socket: five quick ones, and many more when they differ or with
`--symptom dns-flapping`. Where something varies it looks at what does not: another name, TCP, the DNS pods themselves.

## Why it matters
A resolver that fails once in twenty is the hardest fault to catch by hand, and its causes look alike until the same
query is made over TCP, for another name, or to one pod.

## What can go wrong
Answers and denials alternate; errors in between; lost queries; delays of exactly five seconds, which are lost packets
in disguise; one source port that is never answered. One slow or lost query among several is only a warning.

## What it needs
Answers gathered by `dns-name-resolves`; connection tracking of the node or flow records where a recording has them.
""",
)  # fmt: skip

answer = Check(
    id="dns-answer-is-expected",
    title="the name leads to the address that the objects say",
    judge=judge_answer,
    uses=(*_LOOKS, Interception, LogLine, TcpConnect),
    findings=(
        "dns-answer-unexpected-address", "dns-answers-old-and-new", "dns-answer-from-both-clusters",
        "dns-answer-from-proxy", "dns-alias-unexpected", "dns-client-dials-other-address",
    ),
    doc="""
## What it does
Compares the answer with the ClusterIP of the Service, the addresses of the import, the target of the ExternalName, or
the endpoints of a headless Service.

## Why it matters
A stale record sends traffic to an address that is nobody's, or somebody else's, and everything after DNS looks broken.

## What can go wrong
An old address in a cache or in one DNS replica; a headless name that mixes the pods of both clusters; an address that a
mesh made up (240.240.0.0/16) seen by a pod outside the mesh. Addresses that nobody can know, such as those of a load
balancer, are never judged.

## What it needs
Answers gathered by `dns-name-resolves`, and the Service and its endpoints in the source's cluster.
""",
)  # fmt: skip

ipv6 = Check(
    id="dns-ipv6-answer-has-route",
    title="IPv6 addresses are handed only to pods that can reach them",
    judge=judge_ipv6,
    uses=(*_LOOKS, Interface, Route, TcpConnect, HttpRequest, LogLine),
    findings=("dns-aaaa-without-route",),
    doc="""
## What it does
Where the name has AAAA records, looks whether the pod has a global IPv6 address and route, and whether a client was
seen to fail on such an address.

## Why it matters
Clients that do not fall back try the IPv6 address first and fail at once, now and then or always.

## What can go wrong
An IPv4-only pod gets AAAA records. That alone is a note; a failing connection makes it a warning; a failing request, or
a name without A records, an error.

## What it needs
Answers gathered by `dns-name-resolves`; interfaces, routes and connections seen from the source pod.
""",
)

health = Check(
    id="dns-servers-are-healthy",
    title="the pods of the cluster's DNS run well",
    judge=judge_health,
    probe=probe_configuration,
    gives=(KubeObject, Listed),
    uses=(LogLine, Metric),
    findings=(
        "dns-backends-not-ready", "dns-pods-starved", "dns-pods-crashing", "dns-pods-replaced-recently",
        "dns-loop-detected", "dns-upstream-errors-logged", "dns-plugin-watch-lost", "dns-node-cache-restarting",
    ),
    doc="""
## What it does
Looks at the DNS Service, its endpoints and pods, at the DNS cache on the source's node, and at log lines and metrics of
theirs where a recording has them.

## Why it matters
Whether all names fail or only some, and whether at all times or in bursts, mostly follows from the state of these pods.

## What can go wrong
No ready pod; pods killed for memory or throttled; a crash loop from a forwarding loop; pods replaced minutes ago; a
plugin that lost its watch; upstreams that time out.

## What it needs
`get` and `list` of services, endpointslices and pods in kube-system.
""",
)  # fmt: skip

others = Check(
    id="dns-other-servers-agree",
    title="DNS pods, multi-cluster servers and upstreams say the same",
    judge=judge_others,
    probe=probe_other_servers,
    gives=(DnsAnswer,),
    uses=(ResolvConf, DnsSeries, KubeObject),
    proves=(
        "stub-domain-misconfigured", "clusterset-dns-not-served", "upstream-dns-failing",
        "inconsistent-upstream-resolvers", "dns-negative-cache",
        "netpol-egress-dns-blocked", "dns-record-missing", "alias-target-missing",
    ),
    findings=(
        "dns-upstream-knows-denied-name", "dns-unasked-server-knows-name",
        "dns-direct-server-answers", "dns-direct-server-denies", "dns-pods-disagree", "dns-cache-denies-known-name",
        "dns-pods-answer-directly", "dns-upstreams-disagree", "dns-asked-of-several", "dns-upstream-fails-directly",
        "dns-upstream-answers-directly", "dns-zone-servers-silent", "dns-zone-leads-nowhere",
    ),
    doc="""
## What it does
Asks the same question to servers beside the pod's own: each DNS pod, the multi-cluster DNS server, the upstreams to
which the Corefile forwards the name. Runs only when the answer would settle a cause.

## Why it matters
It parts the layer that is wrong from the layers that repeat what it says.

## What can go wrong
The multi-cluster server knows the name and the cluster's DNS never asks it; one DNS pod is old; a cache keeps a denial;
two upstreams of different authority answer in turns. Silence of an upstream towards the pod proves nothing: the pod may
not be allowed to reach it.

## What it needs
A prober in the source pod; the objects read by the other DNS checks.
""",
)  # fmt: skip

CHECKS = (configuration, resolver, name_resolves, search_list, steady, answer, ipv6, health, others)
