"""Both clusters with the network between them: up, down, and a handle on what is running."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mcrig import availability, binaries, images, manifests, pki
from mcrig.binaries import Progress, RigUnavailable
from mcrig.cluster import SITES, Cluster
from mcrig.faults import WAN, Network
from mcrig.machines import Machine, link, started

_FORWARD = {"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/default/rp_filter": "0"}


def state() -> Path:
    """The folder of the running rig; `$MCDOCTOR_RIG_STATE` moves it."""
    return Path(os.environ.get("MCDOCTOR_RIG_STATE", "/var/tmp/mcdoctor-rig"))


@dataclass(frozen=True, slots=True)
class Rig:
    """A running rig. `kubeconfig` has the contexts `cluster-a` and `cluster-b`: administrator, namespace `demo`."""

    folder: Path
    clusters: tuple[Cluster, Cluster]
    network: Network

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def a(self) -> Cluster:
        return self.clusters[0]

    @property
    def b(self) -> Cluster:
        return self.clusters[1]

    def machines(self) -> tuple[Machine, ...]:
        nodes = [machine for cluster in self.clusters for machine in (cluster.control_plane, cluster.node)]
        return (*self.network.routers, *nodes)

    def wait(self, cluster: Cluster, *condition: str, timeout: float = 60) -> None:
        """`kubectl wait` with these arguments. Raises RuntimeError when the time is over."""
        cluster.kubectl("wait", f"--timeout={timeout:.0f}s", *condition, timeout=timeout + 10)

    def reset(self) -> None:
        """Takes network faults away and puts the demo back as it was at the start."""
        self.network.clear()
        for cluster in self.clusters:
            cluster.forget_path_mtu()
            cluster.kubectl("delete", "networkpolicy", "--all", "-n", "demo", "--ignore-not-found")
            dns = cluster.apply(manifests.coredns(cluster.site))
            demo = cluster.apply(manifests.demo(cluster.site))
            if "configmap/coredns configured" in dns:
                self.restart_dns(cluster)
            if "deployment.apps" in demo:
                self._wait_demo(cluster)

    def restart_dns(self, cluster: Cluster) -> None:
        """Makes CoreDNS take its configuration now: a mounted ConfigMap may lag by a minute."""
        cluster.kubectl("rollout", "restart", "deployment/coredns", "-n", "kube-system")
        cluster.kubectl("rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=40s")

    def _wait_demo(self, cluster: Cluster) -> None:
        for name in manifests.demo_workloads(cluster.site):
            cluster.kubectl("rollout", "status", f"deployment/{name}", "-n", "demo", "--timeout=60s", timeout=70)
        # A pod that is still ending would be part of what the next test sees.
        deadline = time.monotonic() + 30
        while "Terminating" in cluster.kubectl("get", "pods", "-n", "demo", "--no-headers", check=False):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{cluster.site.name}: a pod of the demo does not end")
            time.sleep(0.2)


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    with Path(f"{state()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def running() -> Rig | None:
    """The rig that is up now, or None."""
    try:
        record = json.loads((state() / "rig.json").read_text())
    except (OSError, ValueError):
        return None
    machines = {name: Machine(**fields) for name, fields in record["machines"].items()}
    if not record["ready"] or not all(machine.alive for machine in machines.values()):
        return None
    return _assemble(machines)


def _assemble(machines: dict[str, Machine]) -> Rig:
    folder = state()
    a, b = (
        Cluster(site, folder / site.letter, machines[f"control-plane-{site.letter}"], machines[f"node-{site.letter}"])
        for site in SITES
    )
    return Rig(folder, (a, b), Network((machines["router-a"], machines["router-b"])))


def _record(machines: dict[str, Machine], ready: bool) -> None:
    fields = {
        name: {"name": name, "pid": machine.pid, "keeper": machine.keeper, "ticks": machine.ticks}
        for name, machine in machines.items()
    }
    (state() / "rig.json").write_text(json.dumps({"ready": ready, "machines": fields}, indent=2))


def up(progress: Progress) -> Rig:
    """Starts the rig, or gives back the one that runs. Raises RigUnavailable with every reason why it cannot."""
    if rig := running():
        return rig
    if reasons := availability.reasons(need_cache=False):
        raise RigUnavailable("; ".join(reasons))
    with _locked():
        _down()
        binaries.ensure(progress)
        images.ensure(progress)
        begun = time.monotonic()
        try:
            rig = _start(lambda text: progress(f"{time.monotonic() - begun:5.1f} s  {text}"))
        except BaseException:
            if not os.environ.get("MCDOCTOR_RIG_KEEP"):
                _down()
            raise
        return rig


def _start(progress: Progress) -> Rig:
    folder = state()
    folder.mkdir(parents=True)
    names = [f"{kind}-{site.letter}" for site in SITES for kind in ("router", "control-plane", "node")]
    machines: dict[str, Machine] = {}
    for name in names:
        machines[name] = Machine.start(name)
        _record(machines, ready=False)
    rig = _assemble(machines)
    _cable(rig)
    for cluster, router in zip(rig.clusters, rig.network.routers, strict=True):
        cluster.logs.mkdir(parents=True)
        corefile = cluster.folder / "upstream.corefile"
        corefile.write_text(manifests.upstream_corefile(cluster.site))
        router.daemon(cluster.logs / "upstream.log", str(binaries.need("coredns")), "-conf", str(corefile))
    progress("machines and network")
    with ThreadPoolExecutor(4) as pool:
        for cluster in rig.clusters:
            cluster.issue_certificates()
        contexts = {c.site.name: (c.pki, "admin", f"https://127.0.0.1:{c.site.port}") for c in rig.clusters}
        pki.kubeconfig(rig.kubeconfig, contexts, namespace="demo")
        list(pool.map(Cluster.start_control_plane, rig.clusters))
        nodes = [pool.submit(cluster.prepare_node) for cluster in rig.clusters]
        list(pool.map(_wait_api, rig.clusters))
        progress("API servers ready")
        for node in nodes:
            node.result()
        progress("images imported")
        list(pool.map(_populate, rig.clusters))
        progress("nodes ready")
        list(pool.map(lambda cluster: _settle(rig, cluster), rig.clusters))
    _record(machines, ready=True)
    progress("demo ready")
    return rig


def _cable(rig: Rig) -> None:
    for cluster, router in zip(rig.clusters, rig.network.routers, strict=True):
        site = cluster.site
        for machine, subnet, port in (
            (cluster.node, site.octet, "node"),
            (cluster.control_plane, site.octet + 1, "control"),
        ):
            link(router, port, machine, "eth0")
            router.run("ip", "address", "add", f"192.168.{subnet}.1/24", "dev", port)
            machine.run("ip", "address", "add", f"192.168.{subnet}.10/24", "dev", "eth0")
            machine.run("ip", "route", "add", "default", "via", f"192.168.{subnet}.1")
            machine.sysctl(_FORWARD)
        router.sysctl(_FORWARD)
    link(rig.network.routers[0], "wan", rig.network.routers[1], "wan")
    for router, wan in zip(rig.network.routers, WAN, strict=True):
        router.run("ip", "address", "add", f"{wan}/30", "dev", "wan")
    rig.network.lay_routes()


def _wait_api(cluster: Cluster) -> None:
    deadline = time.monotonic() + 60
    while cluster.kubectl("get", "--raw=/readyz", check=False) != "ok":
        if time.monotonic() > deadline:
            log = (cluster.logs / "kube-apiserver.log").read_text(errors="replace")[-1500:]
            raise RuntimeError(f"{cluster.site.name}: the API server is not ready after 60 s:\n{log}")
        time.sleep(0.2)


def _populate(cluster: Cluster) -> None:
    cluster.start_node()
    node = f"node/node-{cluster.site.letter}"
    deadline = time.monotonic() + 60
    while node not in cluster.kubectl("get", "nodes", "-o", "name", check=False):
        if time.monotonic() > deadline:
            log = (cluster.logs / "kubelet.log").read_text(errors="replace")[-1500:]
            raise RuntimeError(f"{cluster.site.name}: the node has not registered after 60 s:\n{log}")
        time.sleep(0.2)
    cluster.start_policy_engine()
    cluster.apply(manifests.coredns(cluster.site))
    cluster.kubectl("create", "namespace", "demo")
    for _ in range(50):  # the controller manager makes it; a pod without it is refused
        if cluster.kubectl("get", "serviceaccount", "default", "-n", "demo", "-o", "name", check=False):
            break
        time.sleep(0.1)
    cluster.apply(manifests.demo(cluster.site))
    cluster.kubectl("wait", "--for=condition=Ready", node, "--timeout=60s", timeout=70)


def _settle(rig: Rig, cluster: Cluster) -> None:
    cluster.kubectl("rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=60s", timeout=70)
    rig._wait_demo(cluster)


def down() -> None:
    """Ends the rig and leaves nothing: processes, namespaces, links, mounts, cgroups, files. Safe when none runs."""
    with _locked():
        _down()
    with contextlib.suppress(OSError):
        Path(f"{state()}.lock").unlink()


def _down() -> None:
    folder = state()
    try:
        record = json.loads((folder / "rig.json").read_text())
    except (OSError, ValueError):
        record = {"machines": {}}
    for file in folder.glob("*/relay.pid"):
        pid = int(file.read_text())
        with contextlib.suppress(OSError):
            # The pid is ours only while it still runs our relay.
            if b"relay.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGTERM)
    # Nodes first: their pods end with them and nobody reports them missing.
    for fields in reversed(record["machines"].values()):
        Machine(**fields).stop()
    for site in SITES:
        for pattern in (f"mcdoctor-rig-{site.letter}", f"*/mcdoctor-rig-{site.letter}"):
            for cgroup in Path("/sys/fs/cgroup").glob(pattern):
                _remove_cgroup(cgroup)
    shutil.rmtree(folder, ignore_errors=True)


def _remove_cgroup(folder: Path) -> None:
    """Cgroup folders hold only control files; rmdir is what removes them, from the leaves up."""
    if not folder.is_dir() or folder.is_symlink():
        return
    for child, _, _ in os.walk(folder, topdown=False):
        for _ in range(50):
            try:
                Path(child).rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.05)


def leftovers() -> list[str]:
    """What a rig left behind on this machine: one line each, empty when nothing."""
    found = [f"cgroup {path}" for path in Path("/sys/fs/cgroup").rglob("mcdoctor-rig-[ab]")]
    mounts = Path("/proc/mounts").read_text().splitlines()
    found += [f"mount {line.split()[1]}" for line in mounts if str(state()) in line]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(state()) in command and started(int(process.name)) is not None:
                found.append(f"process {process.name} {command[:100]}")
    if state().exists():
        found.append(f"folder {state()}")
    return found
