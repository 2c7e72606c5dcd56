from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mcdoctor.lab import Lab, RunningLab, available
from mcdoctor.lab.schema import LabSpec, parse

BASE = """\
apiVersion: mcdoctor.dev/v1
kind: Lab
about: a test
diagnose: {source: client, destination: server}
routers:
  left: {cluster: cluster-a, address: 172.18.1.1}
  middle: {address: 172.18.0.1}
  right: {cluster: cluster-b, address: 172.18.2.1}
links:
  - {between: [left, middle]}
  - {between: [middle, right]LINK}
services:
  - name: shop/server
    cluster: cluster-a
    address: 10.110.0.1
    ports:
      - {port: 80, to: ["10.20.0.1:8080"]}
      - {port: 53, protocol: udp, to: ["10.20.0.1:53"]}
      - {port: 81, to: []}
      - {port: 82, to: [], empty: drop}
hosts:
  client:
    cluster: cluster-a
    pod: shop/client
    address: 10.10.0.1
    router: left
    resolv_conf: {nameservers: [10.20.0.1], search: [shop.svc.cluster.local]}
  server:
    cluster: cluster-b
    pod: shop/server
    address: 10.20.0.1
    router: right
    http:
      - {port: 8080, routes: [{path: /healthz}, {path: /large, body_bytes: 60000}]}
    tcp:
      - {port: 7, echo: true}
      - {port: 22, banner: "SSH-2.0-lab\\r\\n"}
    dns:
      - zones: [test]
        records: {server.test: ["A 10.20.0.1"]}
"""


def text_of(link: str = "", more: str = "") -> str:
    """The lab of these tests with faults on its second line, and further sections."""
    return BASE.replace("LINK", f", {link}" if link else "") + textwrap.dedent(more)


def spec_of(link: str = "", more: str = "") -> LabSpec:
    return parse(text_of(link, more))


Starter = Callable[..., RunningLab]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Starts the lab of these tests; it is stopped at the end."""
    if reason := available():
        pytest.skip(reason)
    running: list[RunningLab] = []

    def run(link: str = "", more: str = "") -> RunningLab:
        folder = tmp_path / f"lab{len(running)}"
        folder.mkdir()
        (folder / "lab.yaml").write_text(text_of(link, more), encoding="utf-8")
        running.append(Lab(folder).start())
        return running[-1]

    yield run
    for lab in running:
        lab.stop()
