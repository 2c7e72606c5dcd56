"""Names: what may be an id, and the closed lists of symptoms, hops, verdicts and certainties."""

from __future__ import annotations

import re
from enum import StrEnum

_SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")


def slug(text: str) -> str:
    """Accept `dns-service-resolves`; refuse `DNS001`, `Dns_Resolve` and `dns` with a ValueError."""
    if not _SLUG.fullmatch(text):
        raise ValueError(f"{text!r} is not an id such as 'dns-service-resolves'")
    return text


class Symptom(StrEnum):
    """What the user sees. The first six are the rows of the troubleshooting table that mcdoctor grew from."""

    CONNECTION_TIMEOUT = "connection-timeout"
    SURGE_5XX = "5xx-surge"
    TLS_HANDSHAKE_FAILURE = "tls-handshake-failure"
    INTERMITTENT_LATENCY = "intermittent-latency"
    DNS_FLAPPING = "dns-flapping"
    EGRESS_BLOCKED = "egress-blocked"
    LARGE_PAYLOAD_HANG = "large-payload-hang"
    CONNECTION_REFUSED_OR_RESET = "connection-refused-or-reset"
    DNS_PERSISTENT_FAILURE = "dns-persistent-failure"
    REMOTE_SERVICE_NOT_IMPORTED = "remote-service-not-imported"
    UNEVEN_LOAD_OR_NO_FAILOVER = "uneven-load-or-no-failover"
    IDENTITY_DENIED = "identity-denied"
    NO_ROUTE = "no-route"
    WRONG_DESTINATION = "wrong-destination"
    POLICY_WITHOUT_EFFECT = "policy-without-effect"


class Hop(StrEnum):
    """Where on the way from source to destination something sits, in the order in which traffic meets it."""

    SOURCE_POD = "source-pod"
    SOURCE_DNS = "source-dns"
    SOURCE_PROXY = "source-proxy"
    SOURCE_EGRESS_POLICY = "source-egress-policy"
    SOURCE_NODE = "source-node"
    NETWORK = "network"
    DEST_GATEWAY = "dest-gateway"
    DEST_INGRESS_POLICY = "dest-ingress-policy"
    DEST_SERVICE = "dest-service"
    DEST_ENDPOINT = "dest-endpoint"
    DEST_PROXY = "dest-proxy"
    DEST_POD = "dest-pod"
    CONTROL_PLANE = "control-plane"

    @property
    def position(self) -> int:
        """0 at the source; the control plane is last."""
        return _HOPS.index(self)


_HOPS = tuple(Hop)


class Verdict(StrEnum):
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    BROKEN = "broken"
    INCONCLUSIVE = "inconclusive"


class Certainty(StrEnum):
    """`proved`: an experiment settled it. `supported`: all wanted evidence, none against. `possible`: some evidence."""

    PROVED = "proved"
    SUPPORTED = "supported"
    POSSIBLE = "possible"


class Severity(StrEnum):
    """`error` makes a verdict worse, `warning` does not change the exit code, `note` is context."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Risk(StrEnum):
    NONE = "none"
    REVERSIBLE = "reversible"
    DISRUPTIVE = "disruptive"
