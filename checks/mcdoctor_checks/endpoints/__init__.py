"""Room endpoints: the Service, the pods behind it, its ports and its EndpointSlices, on both sides."""

from mcdoctor.check import Check
from mcdoctor.models.facts import KubeObject, Listed, Listener, TcpConnect
from mcdoctor_checks.endpoints.judge import (
    judge_endpoints,
    judge_local,
    judge_ports,
    judge_ready,
    judge_selector,
    judge_service,
)
from mcdoctor_checks.endpoints.probe import probe_objects

_READS = """`get` and `list` of services, endpointslices and pods in the namespaces of the pair; nothing is sent."""

service_is_usable = Check(
    id="endpoints-service-is-usable",
    title="the Service exists and has the port",
    judge=judge_service,
    uses=(KubeObject, Listed),
    findings=(
        "service-absent", "service-port-other-protocol", "external-name-is-address",
        "external-name-to-itself", "external-name-target-absent", "external-name-in-cluster", "external-name-alias",
    ),
    doc=f"""
## What it does
Looks at the destination's Service, and at the one that stands for it in the source's cluster: that it exists, has the
port with the right protocol, and, for an ExternalName, that its target is a name that can lead somewhere.

## Why it matters
Everything behind the name hangs on this object; an ExternalName changes the address and nothing else, neither the Host
header nor the TLS server name nor the port.

## What can go wrong
No such Service (told only when the list is known to be whole); a port that is UDP only; an ExternalName that holds an
IP address, itself, or a Service that does not exist.

## What it needs
{_READS}
""",
)  # fmt: skip

selector_matches_pods = Check(
    id="endpoints-selector-matches-pods",
    title="the Service's selector matches pods",
    judge=judge_selector,
    probe=probe_objects,
    gives=(KubeObject, Listed),
    findings=(
        "selector-matches-no-pod",
        "service-without-own-pods",
        "workload-scaled-to-zero",
        "workload-has-no-pods",
    ),
    doc=f"""
## What it does
Compares the selector with the labels of the pods. Where none match, it names the pod that comes nearest and the label
that differs, or the workload whose pods would match but that has none.

## Why it matters
A selector that matches nothing is valid, raises no event, and leaves a Service that refuses or swallows every request.

## What can go wrong
A label renamed on one side only; a workload scaled to zero; pods that cannot be created. That no pod matches is said
only when all pods are known, or when an EndpointSlice without endpoints says it in the controller's own words.

## What it needs
{_READS} `list` of deployments and statefulsets names the workload.
""",
)

endpoints_ready = Check(
    id="endpoints-are-ready",
    title="an endpoint is ready to serve",
    judge=judge_ready,
    uses=(KubeObject, Listed),
    findings=(
        "endpoints-none-ready",
        "mirror-endpoints-not-ready", "endpoints-some-not-ready", "endpoints-empty", "endpoints-manual-empty",
        "endpoints-only-terminating", "endpoints-terminating",
    ),
    doc=f"""
## What it does
Counts the ready, serving and terminating endpoints and says, pod by pod, what keeps the others from being ready: the
scheduler's message, the waiting reason, the readiness probe, a readiness gate.

## Why it matters
Traffic goes to ready endpoints only. With none, kube-proxy refuses and a proxy answers 503.

## What can go wrong
A failing readiness probe, a crash loop, an image that cannot be pulled, no node to run on. Pods that start or leave
during a rollout are a note, not a fault.

## What it needs
{_READS}
""",
)  # fmt: skip

ports_resolve = Check(
    id="endpoints-ports-resolve",
    title="the Service's port leads to a port of the pods",
    judge=judge_ports,
    uses=(KubeObject, Listed, Listener, TcpConnect),
    findings=(
        "target-port-name-unknown", "target-port-name-partial", "target-port-undeclared",
        "endpoints-lack-port",
        "endpoints-manual-lack-port",
        "endpoints-port-differs",
        "endpoints-headless-port-differs",
        "target-port-not-served",
    ),
    doc=f"""
## What it does
Resolves `targetPort` on every pod, by number or by the name of a container port, and compares the result with the ports
in the EndpointSlices, which kube-proxy joins to the Service's by name.

## Why it matters
A named port that no container declares leaves the Service without endpoints for that port, silently.

## What can go wrong
A name that no pod, or only some pods, declare; slices that carry another port name (endpoints written by hand) or
another number (old slices). Declaring a port is optional, so a number that is not declared is only a note, and only
where the pods declare others.

## What it needs
{_READS}
""",
)  # fmt: skip

endpoints_agree = Check(
    id="endpoints-agree-with-pods",
    title="the EndpointSlices list the living pods",
    judge=judge_endpoints,
    uses=(KubeObject, Listed),
    findings=(
        "endpoints-slice-absent", "endpoints-address-stale", "endpoints-lack-ready-pod", "endpoints-manual",
        "endpoints-family-missing",
    ),
    doc=f"""
## What it does
Compares the addresses in the EndpointSlices with the pods, both ways, and their family with the Service's.

## Why it matters
Every data plane follows the slices, not the pods: an old address sends requests to nobody, or to somebody else.

## What can go wrong
No EndpointSlice; an address whose pod ended or has another address now; a ready pod that is in no slice; a Service that
promises IPv4 or IPv6 and has no endpoint of that family; endpoints kept by hand, which nobody updates (a note).

## What it needs
{_READS}
""",
)  # fmt: skip

local_policy = Check(
    id="endpoints-local-traffic-has-endpoint",
    title="a Service that keeps traffic on the node has an endpoint there",
    judge=judge_local,
    uses=(KubeObject,),
    findings=("endpoints-none-on-node",),
    doc=f"""
## What it does
For `internalTrafficPolicy: Local`, looks for a ready endpoint on the node of each source pod.

## Why it matters
Without one, packets to the ClusterIP are dropped on that node while the Service works from other nodes.

## What can go wrong
Clients and backends run on different nodes; a rollout or a drain moved the only local backend.

## What it needs
{_READS}
""",
)

CHECKS = (
    service_is_usable,
    selector_matches_pods,
    endpoints_ready,
    ports_resolve,
    endpoints_agree,
    local_policy,
)
