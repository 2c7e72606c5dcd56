"""What probes may use of the outside world. Adapters implement these; judges never see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mcdoctor.models.facts import Fact
from mcdoctor.models.requests import ProbeRequest
from mcdoctor.models.vantage import Vantage


class Prober(Protocol):
    """Runs probe requests at one vantage. Safe to call from several threads."""

    @property
    def vantage(self) -> Vantage: ...

    def run(self, request: ProbeRequest, *, budget: float) -> tuple[Fact, ...]:
        """The facts of one request. What could not be done comes back as Blind, never as an exception.

        `budget`: seconds for the whole request, after which the answer is Blind.
        """
        ...

    def close(self) -> None:
        """Ends the prober; safe to call twice."""
        ...


class ClusterReader(Protocol):
    """Reads one cluster: live through its API server, or a bundle, or the lab. Kinds are written with their group."""

    @property
    def cluster(self) -> str: ...

    def get(self, kind: str, namespace: str | None, name: str) -> Fact:
        """KubeObject, Absent or Blind."""
        ...

    def list(
        self, kind: str, namespace: str | None = None, *, labels: str | None = None, fields: str | None = None
    ) -> Sequence[Fact]:
        """The objects and one Listed; or Absent (no such kind); or Blind, perhaps after some objects."""
        ...

    def ask(self, namespace: str, pod: str, port: int, path: str) -> Fact:
        """EndpointAnswer of a debug endpoint over HTTP inside a pod, or Blind."""
        ...
