"""The families, in the order they are compiled: each may build on those before it (Calico and Cilium enforce
NetworkPolicy too).
"""

from __future__ import annotations

from mcdoctor.policy import admin, calico, cilium, istio, kubernetes, linkerd
from mcdoctor.policy.family import Family

FAMILIES: tuple[Family, ...] = (
    kubernetes.FAMILY,
    admin.FAMILY,
    cilium.FAMILY,
    calico.FAMILY,
    istio.FAMILY,
    linkerd.FAMILY,
)
