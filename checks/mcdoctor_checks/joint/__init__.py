"""Room joint: what joins the two clusters, as its own objects say: imports, mirrors, tunnels, cluster meshes."""

from mcdoctor.check import Check
from mcdoctor.models.facts import KubeObject, Listed, LogLine, Metric, TcpConnect
from mcdoctor_checks.joint import judge

joint_service_is_imported = Check(
    id="joint-service-is-imported",
    title="exports, imports and mirrors of the destination fit together",
    judge=judge.judge_imports,
    uses=(KubeObject, Listed, TcpConnect, Metric, LogLine),
    findings=judge.IMPORT_FINDINGS,
    doc="""
## What it does
Compares the ServiceExport, the ServiceImport and its EndpointSlices, or the Link and the exported Service's labels, of
the two clusters; reads whether a mirror's gateway counts as alive.

## Why it matters
Each of these objects looks right by itself. What is wrong shows only beside its twin in the other cluster.

## What can go wrong
The export is in conflict with another cluster's; slices lack the label that consumers look for, or name other ports;
the Service's labels are not those that the Link selects; the gateway of a mirror counts as dead, which empties it.

## What it needs
ServiceExports, ServiceImports, EndpointSlices, Services and Links of the pair's namespaces.
""",
)

joint_clusters_are_connected = Check(
    id="joint-clusters-are-connected",
    title="the clusters' connection is configured on both sides",
    judge=judge.judge_connection,
    uses=(KubeObject, Listed),
    findings=judge.CONNECTION_FINDINGS,
    doc="""
## What it does
Reads Submariner's Gateways, Endpoints and global addresses, the gateway label of nodes, and the cluster name and id
that Cilium has in each cluster.

## Why it matters
A cluster mesh whose ids clash, or a tunnel without a gateway node, carries nothing, and no probe can say why.

## What can go wrong
No node is labelled as a gateway; the ranges announced for a cluster do not hold its pods; an exported Service has no
global address, or an egress one; two clusters have the same id or name.

## What it needs
Nodes, Submariner's objects, the ConfigMap cilium-config.
""",
)

CHECKS = (joint_service_is_imported, joint_clusters_are_connected)
