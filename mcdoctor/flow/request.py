"""What was asked for: the two targets and where to look for them."""

from __future__ import annotations

from dataclasses import dataclass

from mcdoctor.models.flow import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRequest:
    """The question. Clusters are names of this run; a null namespace means every namespace that was read."""

    source: Target
    destination: Target
    source_cluster: str
    destination_cluster: str | None = None
    namespace: str | None = None
    to_namespace: str | None = None
    port: str | None = None
