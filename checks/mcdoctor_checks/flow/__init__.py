"""Room flow: the pair itself, and what its resolution met on the way."""

from mcdoctor.check import Check
from mcdoctor.flow import FINDINGS
from mcdoctor.models.facts import KubeObject, Listed
from mcdoctor_checks.flow.judge import judge

flow_pair_resolves = Check(
    id="flow-pair-resolves",
    title="source and destination are where the name says",
    judge=judge,
    uses=(KubeObject, Listed),
    findings=FINDINGS,
    doc="""
## What it does
Resolves the two ends: the source's pods, the destination's Service in the source's cluster (or its mirror, import or
alias) and the Service of the same name in the destination's cluster. Across clusters it compares the two sides.

## Why it matters
A name means the same namespace in every cluster of a cluster set. A Service that exists there and not here is the
plainest reason for a name that does not resolve, and no tool of a single cluster can see it.

## What can go wrong
The namespace or the Service is missing on one side; the Service is not exported, not imported, or marked global on one
side only; the source has no running pod. A missing object counts only when its list was read completely.

## What it needs
`get` and `list` of services, endpointslices, pods, namespaces and the MCS kinds, in the pair's namespaces.
""",
)

CHECKS = (flow_pair_resolves,)
