"""The checks that ship with mcdoctor, a room a layer."""

from mcdoctor.check import Check
from mcdoctor_checks import dns, endpoints, flow, gateway, joint, mtu, netpol, request, tcp

CHECKS: tuple[Check, ...] = (
    *flow.CHECKS,
    *endpoints.CHECKS,
    *joint.CHECKS,
    *gateway.CHECKS,
    *dns.CHECKS,
    *netpol.CHECKS,
    *tcp.CHECKS,
    *mtu.CHECKS,
    *request.CHECKS,
)
"""Every built-in check: the one explicit list."""
