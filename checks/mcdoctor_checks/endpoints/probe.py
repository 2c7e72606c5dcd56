"""Reads what the rules need and the resolution of the pair did not fetch: other pods, EndpointSlices, workloads."""

from __future__ import annotations

from collections.abc import Iterator

from mcdoctor.check import World
from mcdoctor.models.facts import Fact
from mcdoctor_checks.endpoints.facts import SLICE, is_external_name, pods_of, selector, sides, slices_of
from mcdoctor_checks.reading import whole


def probe_objects(world: World) -> Iterator[Fact]:
    """Endpoints of each Service; where no pod matches a selector, the namespace's pods and workloads too."""
    for side in sides(world.facts):
        reader = world.reader(side.cluster)
        if reader is None or side.service is None or is_external_name(side.service):
            continue
        fetched: list[Fact] = []
        label = {"kubernetes.io/service-name": side.name}
        if not slices_of(world.facts, side) and not whole(world.facts, SLICE, side.cluster, side.namespace, label):
            fetched += reader.list(SLICE, side.namespace, labels=f"kubernetes.io/service-name={side.name}")
        if selector(side.service) and not pods_of(world.facts, side):
            if not whole(world.facts, "Pod", side.cluster, side.namespace):
                fetched += reader.list("Pod", side.namespace)
            for kind in ("Deployment.apps", "StatefulSet.apps"):
                if not whole(world.facts, kind, side.cluster, side.namespace):
                    fetched += reader.list(kind, side.namespace)
        yield from fetched
