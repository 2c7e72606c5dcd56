"""Protocols and port ranges of rules."""

from __future__ import annotations

import re
from dataclasses import dataclass

TRANSPORTS = ("TCP", "UDP", "SCTP")
ICMP_PROTOCOLS = ("ICMP", "ICMPv6")


@dataclass(frozen=True, slots=True)
class PortRange:
    """Numeric ports, both ends included, of one protocol; `protocol` None = any."""

    protocol: str | None
    low: int = 1
    high: int = 65535


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A container port by name, looked up on the destination pod; `protocol` None = any."""

    protocol: str | None
    name: str


_PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")


def port_name_error(name: str) -> str | None:
    """Why `name` is not an IANA service name as Kubernetes demands, or None."""
    if len(name) > 15:
        return "a port name has at most 15 characters"
    if not _PORT_NAME.match(name):
        return "a port name is lower case letters, digits and single hyphens, with at least one letter"
    return None
