"""Whether packet policies let the flow through, and which of their usual mistakes is behind a refusal.

A refusal counts as an error only where nothing shows that the traffic passes all the same. It is proved by taking the
deciding policies out in memory: where the engine then allows what was seen to fail, they alone are to blame.
"""

from __future__ import annotations

from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import Listed
from mcdoctor.models.ids import Severity
from mcdoctor.models.outcome import Outcome, Unknown, settle
from mcdoctor_checks.netpol.facts import NETWORK_POLICY, policies, unseen

FINDINGS = (
    "netpol-denies-egress",
    "netpol-denies-ingress",
    "netpol-denies-dns",
    "netpol-denies-some",
    "netpol-denies-dns-upstream",
    "netpol-rule-nearly-matches-egress",
    "netpol-rule-nearly-matches-ingress",
    "netpol-names-service-port",
    "netpol-peer-selects-nothing",
    "netpol-selector-meets-remote-pod",
    "netpol-selectors-joined",
    "netpol-source-translated",
    "netpol-lacks-hbone",
    "netpol-port-name-unknown",
    "netpol-egress-without-rules",
    "netpol-egress-rules-under-ingress",
    "netpol-egress-rules-ignored",
    "netpol-nameserver-not-in-rule",
    "netpol-alone-denies-egress",
    "netpol-alone-denies-ingress",
    "netpol-alone-denies-dns",
    "netpol-denied-but-passes",
    "netpol-allows-dns",
)


def judge(facts: Facts) -> Outcome:
    """Failed when a policy refuses the flow or its DNS; Unknown when policies or pods could not be seen."""
    flow = facts.flow
    pod = flow.source_pod
    facts.all(Listed)
    seen_policies = facts.objects(NETWORK_POLICY)
    if pod is None:
        return Unknown("the source has no pod, so no policy can be asked about it")
    places = [(pod.cluster, pod.namespace), (flow.destination_cluster, flow.namespace or pod.namespace)]
    found = policies(facts, *places, (pod.cluster, "kube-system"))
    hidden = [b for cluster, namespace in dict.fromkeys(places) for b in unseen(facts, cluster, namespace)]
    if not found:
        if hidden:
            return Unknown(f"policies could not be seen: {hidden[0].reason}", hidden[0].command)
        if not all(facts.complete(NETWORK_POLICY, c, n) for c, n in places):
            return Unknown("it is not known whether there are policies: their list was not recorded")
        return settle([], seen_policies)
    from mcdoctor_checks.netpol.evaluate import evaluate  # the engine is loaded where there is something to ask it

    problems, doubt = evaluate(facts, flow, pod, found)
    notes = tuple(p for p in problems if p.severity is Severity.NOTE)
    if len(notes) == len(problems):
        if hidden:
            return Unknown(f"some policies could not be seen: {hidden[0].reason}", hidden[0].command, notes)
        if doubt:
            return Unknown(f"the policies do not settle it: {doubt}", None, notes)
    return settle(problems, found)
