"""Which known context is the destination's cluster: a conclusion that needs two facts that agree. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from mcdoctor.flow import kinds
from mcdoctor.flow.interconnect import is_mirror, stub_zones
from mcdoctor.flow.objects import mapping, maps
from mcdoctor.models.collection import Facts
from mcdoctor.models.facts import KubeObject
from mcdoctor.models.flow import Target


def names_in_source(facts: Facts, cluster: str, target: Target) -> Mapping[str, str]:
    """Words by which the source's cluster speaks of other clusters for this destination, each with where it stands."""
    words: dict[str, str] = {}

    def remember(text: object, where: str) -> None:
        if isinstance(text, str) and text:
            words.setdefault(text.lower().rstrip("."), where)

    for service in facts.objects(kinds.SERVICE, cluster):
        if service.name == target.name and service.spec.get("type") == "ExternalName":
            remember(service.spec.get("externalName"), f"{service.subject} stands for it")
        if is_mirror(service) and service.name.startswith(f"{target.name}-"):
            remember(service.labels.get("mirror.linkerd.io/cluster-name"), f"{service.subject} is a mirror")
    for link in facts.objects(kinds.LINK, cluster):
        remember(link.spec.get("targetClusterName"), link.subject)
    for kind in (kinds.SUBMARINER_ENDPOINT, kinds.SUBMARINER_CLUSTER):
        for found in facts.objects(kind, cluster):
            remember(found.spec.get("cluster_id"), found.subject)
    for imported in facts.objects(kinds.SERVICE_IMPORT, cluster):
        if imported.name == target.name:
            for entry in maps(imported.status.get("clusters")):
                remember(entry.get("cluster"), imported.subject)
    for zone in stub_zones(facts, cluster):
        if zone not in (".", "cluster.local"):
            remember(zone, f"CoreDNS forwards {zone}")
    if target.form == "host":
        remember(target.name, "the destination as typed")
    return words


def mentions(words: Mapping[str, str], names: Iterable[str]) -> str | None:
    """Where the source's cluster mentions one of these names as a whole word, or None."""
    for name in names:
        if len(name) < 2:
            continue
        pattern = re.compile(rf"(?<![a-z0-9-]){re.escape(name.lower())}(?![a-z0-9-])")
        for word, where in words.items():
            if pattern.search(word):
                return where
    return None


def addresses_match(facts: Facts, cluster: str, nodes: Iterable[KubeObject]) -> str | None:
    """A node address of the other cluster that the source's CoreDNS forwards to, or None."""
    config = facts.object(kinds.CONFIG_MAP, cluster, "kube-system", "coredns")
    text = str(mapping(config.body.get("data")).get("Corefile", "")) if config else ""
    for node in nodes:
        for entry in maps(node.status.get("addresses")):
            address = str(entry.get("address", ""))
            if address and re.search(rf"(?<![0-9.]){re.escape(address)}(?![0-9])", text):
                return f"CoreDNS forwards to {address}, a node of it"
    return None
