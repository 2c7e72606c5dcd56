"""Findings about the flow's name, as all judges of this room make them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import DnsAnswer, DnsSeries, Fact, ResolvConf
from mcdoctor.models.ids import Hop, Severity, Symptom
from mcdoctor.models.outcome import Finding
from mcdoctor_checks.dns.facts import Kind, Look, View

Args = dict[str, str | int | float]

NO_NAME = "the destination is an address: no name is looked up"
WORDS: dict[Kind, str] = {
    "address": "NOERROR",
    "alias": "CNAME without an address",
    "empty": "NOERROR without a record",
    "truncated": "truncated (TC)",
    "nxdomain": "NXDOMAIN",
    "servfail": "SERVFAIL",
    "declined": "REFUSED",
    "other": "another rcode",
    "silent": "timeout",
    "closed": "port unreachable",
    "unreachable": "network unreachable",
}
"""What people who use dig call each kind, the same in every language."""


def finding(
    slug: str,
    seen: View,
    args: Args,
    looks: Iterable[Look | Fact] = (),
    *,
    severity: Severity = Severity.ERROR,
    symptom: Symptom | None = Symptom.DNS_PERSISTENT_FAILURE,
    subject: str | None = None,
    hop: Hop = Hop.SOURCE_DNS,
) -> Finding:
    """A finding about the flow's name; a note names no symptom."""
    facts = (k.fact if isinstance(k, Look) else k for k in looks)
    once = {id(f): f for f in facts}  # by identity: facts may hold unhashable values
    return Finding(
        id=slug,
        hop=hop,
        subject=subject or seen.host,
        severity=severity,
        symptom=None if severity is Severity.NOTE else symptom,
        args={"name": seen.host, **args},
        evidence=tuple(once.values()),
    )


def why_blind(facts: Facts) -> str:
    for kind in (DnsAnswer, DnsSeries, ResolvConf):
        if blind := facts.blind_to(kind):
            return blind[0].reason
    return "no query for the name was made from the source"


def in_source(facts: Facts, command: str) -> str:
    """A kubectl command that runs in the source's pod, to be pasted by whoever may."""
    pod = facts.flow.source_pod
    if pod is None:
        return f"kubectl exec POD -- {command}"
    into = shlex.join(["kubectl", "--context", pod.cluster, "-n", pod.namespace, "exec", pod.name, "--"])
    return f"{into} {command}"
