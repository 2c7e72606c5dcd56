"""What can be asked, and what an enforcing point gets to see of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from mcdoctor.policy.addresses import Ip
from mcdoctor.policy.verdict import Direction
from mcdoctor.policy.world import DomainName, End, Node, Outside, Pod, Service


@dataclass(frozen=True, slots=True)
class PodName:
    """A pod, or a workload whose pods are alike; `cluster` '' = wherever it is found."""

    namespace: str
    name: str
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    ip: Ip
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class NodeName:
    name: str
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class ServiceName:
    namespace: str
    name: str
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class Fqdn:
    name: str


Source: TypeAlias = PodName | Address | NodeName
Target: TypeAlias = PodName | Address | NodeName | ServiceName | Fqdn


@dataclass(frozen=True, slots=True)
class Icmp:
    """`family` 4 or 6; `type` the ICMP type number, None = not said."""

    family: int
    type: int | None = None


@dataclass(frozen=True, slots=True)
class Http:
    """What is known of the request; None = not said. Header names are lower case."""

    method: str | None = None
    path: str | None = None
    host: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """May `source` reach `destination`? `port` is the Service's when the destination is a Service, else the pod's.

    `mtls` and `principal` None: concluded from how both pods are meshed. `via` names a gateway, an address or a kind
    of path
    that the traffic takes (see `path.py`).
    """

    source: Source
    destination: Target
    port: int | str | None = None
    protocol: str = "TCP"
    icmp: Icmp | None = None
    http: Http | None = None
    mtls: bool | None = None
    principal: str | None = None
    via: PodName | Address | NodeName | ServiceName | str | None = None
    id: object = None


@dataclass(frozen=True, slots=True, eq=False)
class Packet:
    """One hop as one enforcing point sees it: the policies of `cluster`, in `direction`, are asked about it.

    A `Pod` at the far end means that this point knows its identity (same cluster, or a ClusterMesh peer: then its
    `cluster` differs); where a gateway, another network or translation hides it, the end is `Outside` with the
    address seen.
    `client` is the workload whose mesh identity the connection carries, whatever the addresses are.
    `service`: the Service that was addressed, before translation. `version`: 4 or 6 when only one address family is
    meant.
    """

    cluster: str
    direction: Direction
    source: End
    destination: End
    protocol: str = "TCP"
    port: int | None = None
    icmp: Icmp | None = None
    http: Http | None = None
    mtls: bool | None = None
    principal: str | None = None
    client: Pod | None = None
    service: Service | None = None
    version: int = 0

    @property
    def subject(self) -> End:
        """The end whose policies are asked."""
        return self.source if self.direction is Direction.EGRESS else self.destination

    @property
    def peer(self) -> End:
        return self.destination if self.direction is Direction.EGRESS else self.source

    def ips(self, end: End) -> tuple[Ip, ...]:
        """The addresses of an end as far as this packet may use them; () when not known."""
        match end:
            case Outside():
                found: tuple[Ip, ...] = (end.ip,)
            case DomainName():
                return ()
            case Pod():
                found = end.ips or (end.host_ips if end.host_network else ())
            case Node():
                found = end.ips
        return tuple(ip for ip in found if ip.version == self.version) if self.version else found
