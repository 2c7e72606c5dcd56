"""Fills a cluster with pods and Services that nobody asked about: thousands, in namespaces of their own."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from mcrig import images
from mcrig.cluster import Cluster

_LABEL = "rig-load"
_PER_NAMESPACE = 250


def _pod(index: int) -> dict[str, object]:
    """A pod that no scheduler will ever place: it costs the API server its bytes and the node nothing."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"pod-{index}", "labels": {"app": f"app-{index % 25}", _LABEL: "true"}},
        "spec": {
            "schedulerName": "nobody",
            "containers": [
                {
                    "name": "app",
                    "image": images.APP,
                    "env": [{"name": f"VARIABLE_{n}", "value": "x" * 40} for n in range(12)],
                }
            ],
        },
    }


def _service(index: int) -> dict[str, object]:
    spec = {"selector": {"app": f"app-{index}"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"service-{index}"}, "spec": spec}


def fill(cluster: Cluster, pods: int = 5000, services: int = 500) -> None:
    """Creates them over as many namespaces as it takes. Raises RuntimeError when the API server refuses one."""
    count = -(-pods // _PER_NAMESPACE)
    namespaces = [f"load-{number:03d}" for number in range(count)]
    _create(cluster, (("/api/v1/namespaces", _namespace(name)) for name in namespaces))
    work: list[tuple[str, dict[str, object]]] = []
    for index in range(services):
        work.append((f"/api/v1/namespaces/{namespaces[index % count]}/services", _service(index // count)))
    for index in range(pods):
        work.append((f"/api/v1/namespaces/{namespaces[index % count]}/pods", _pod(index // count)))
    _create(cluster, work)


def empty(cluster: Cluster) -> None:
    """Takes it all away again and waits until it is gone."""
    cluster.kubectl("delete", "namespace", "-l", _LABEL, "--wait=true", "--timeout=300s", timeout=310)


def _namespace(name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {_LABEL: "true"}}}


def _create(cluster: Cluster, work: Iterable[tuple[str, dict[str, object]]]) -> None:
    context = ssl.create_default_context(cafile=str(cluster.pki / "ca.crt"))
    context.load_cert_chain(cluster.pki / "admin.crt", cluster.pki / "admin.key")
    local = threading.local()

    def post(item: tuple[str, dict[str, object]]) -> None:
        path, body = item
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPSConnection("127.0.0.1", cluster.site.port, context=context, timeout=60)
        headers = {"Content-Type": "application/json"}
        for _ in range(50):
            local.connection.request("POST", path, json.dumps(body), headers)
            answer = local.connection.getresponse()
            text = answer.read()
            if answer.status in {200, 201, 409}:
                return
            # A namespace is a moment older than the service account that its pods need.
            if answer.status not in {403, 429}:
                break
            threading.Event().wait(0.2)
        raise RuntimeError(f"POST {path}: {answer.status} {text[:300].decode(errors='replace')}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(post, work))
