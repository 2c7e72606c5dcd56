"""Room gateway: load balancers and gateways in front of the destination, as their objects say."""

from mcdoctor.check import Check
from mcdoctor.models.facts import KubeObject, LogLine, TcpConnect
from mcdoctor_checks.gateway import judge

gateway_takes_route = Check(
    id="gateway-takes-route",
    title="the routes to the destination are attached to their gateway",
    judge=judge.judge_routes,
    uses=(KubeObject,),
    findings=judge.ROUTE_FINDINGS,
    doc="""
## What it does
Reads the conditions of the Gateway API routes that lead to the destination.

## Why it matters
A route that no listener takes looks complete; the gateway answers 404 or 500 in its place.

## What can go wrong
The host name fits no listener, the namespace is not allowed, the section or port does not exist, a reference across
namespaces lacks its grant, or the backend is not there.

## What it needs
HTTPRoutes (or the other route kinds) of the destination's namespace, with their status.
""",
)

gateway_can_be_reached = Check(
    id="gateway-can-be-reached",
    title="the gateway of the destination's cluster has an address and passes its load balancer's checks",
    judge=judge.judge_entrance,
    uses=(KubeObject, TcpConnect, LogLine),
    findings=judge.ENTRANCE_FINDINGS,
    doc="""
## What it does
Looks at the Services of type LoadBalancer through which the destination's cluster is entered: whether they were given
an address, and whether the health check port of their nodes answers.

## Why it matters
A pending address or a failing health check is silent on the caller's side.

## What can go wrong
The Service waits for an address; every target is unhealthy because the health check port is closed.

## What it needs
Services of the destination's namespaces and of the gateways.
""",
)

CHECKS = (gateway_takes_route, gateway_can_be_reached)
