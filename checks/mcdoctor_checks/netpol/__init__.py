"""Room netpol: policies over packets, asked of the policy engine for exactly this pair."""

from mcdoctor.check import Check
from mcdoctor.models.facts import (
    DnsAnswer,
    HttpRequest,
    HttpSeries,
    KubeObject,
    Listed,
    ObservedSource,
    ResolvConf,
    TcpConnect,
)
from mcdoctor_checks.netpol.judge import FINDINGS, judge

netpol_allows_path = Check(
    id="netpol-allows-path",
    title="policies on both sides let this traffic through",
    judge=judge,
    uses=(KubeObject, Listed, ResolvConf, DnsAnswer, TcpConnect, HttpRequest, HttpSeries, ObservedSource),
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
by taking the deciding policy out in memory. Where traffic passes although a policy refuses it, that is only noted.

## What it needs
`list` of networkpolicies (and the kinds of the policy systems in use), pods and namespaces in the pair's namespaces.
""",
)

CHECKS = (netpol_allows_path,)
