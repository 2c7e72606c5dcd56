"""Room netpol: policies over packets, asked of the policy engine for exactly this pair."""

from mcdoctor.check import Check
from mcdoctor.models.facts import (
    DnsAnswer,
    DnsSeries,
    FlowRecord,
    HttpRequest,
    HttpSeries,
    KubeObject,
    Listed,
    LogLine,
    ObservedSource,
    ResolvConf,
    TcpConnect,
)
from mcdoctor_checks.netpol.enforcement import FINDINGS as ENFORCEMENT_FINDINGS
from mcdoctor_checks.netpol.enforcement import judge_enforcement
from mcdoctor_checks.netpol.judge import FINDINGS, judge

netpol_allows_path = Check(
    id="netpol-allows-path",
    title="policies on both sides let this traffic through",
    judge=judge,
    uses=(KubeObject, Listed, ResolvConf, DnsAnswer, TcpConnect, HttpRequest, HttpSeries, ObservedSource, LogLine),
    findings=FINDINGS,
    doc="""
## What it does
Asks the policy engine three questions about the pair: may the source leave for the destination, may the destination
take it in, and may the source ask its nameservers. Kubernetes, Cilium, Calico and admin policies are evaluated
together, with the address or identity that each side really sees across the clusters.

## Why it matters
A dropped packet looks like a dead network. No policy system tells the sender, and no tool of one cluster sees that the
refusal stands in the other.

## What can go wrong
An ingress policy that does not admit the caller; an egress policy without the destination or without DNS; the Service's
port in place of the pod's; a selector that fits nothing; egress rules that policyTypes leaves out. A refusal is proved
by taking the deciding policy out in memory. The rule that was probably meant is named with the one thing it lacks, and
only where that one thing changed in memory lifts the refusal. Where traffic passes although a policy refuses it, that
is only noted.

## What it needs
`list` of networkpolicies (and the kinds of the policy systems in use), pods and namespaces in the pair's namespaces.
""",
)

netpol_is_enforced = Check(
    id="netpol-is-enforced",
    title="policies are enforced as they are written",
    judge=judge_enforcement,
    uses=(KubeObject, LogLine, FlowRecord, DnsAnswer, DnsSeries, HttpSeries, TcpConnect),
    findings=ENFORCEMENT_FINDINGS,
    doc="""
## What it does
Compares what agents and flow records say with what the policies allow: names whose addresses were forgotten, rules not
programmed on a node, failures in a pod's first seconds only, replicas of one workload that fare differently.

## Why it matters
The policy is right, and the traffic is dropped all the same. Reading the policy again does not help.

## What can go wrong
Nothing by itself: these are notes, which become causes where the flow fails.

## What it needs
Logs or flow records of the CNI's agents, or probes from two replicas of the source.
""",
)

CHECKS = (netpol_allows_path, netpol_is_enforced)
