"""One cluster: a machine with the control plane, a machine that is the node, and what runs on them."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcrig import binaries, images, pki
from mcrig.machines import Machine

# Settings that kubelet writes for the whole host. It finds them as it wants them in files laid over the real ones.
_HOST_SETTINGS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}


@dataclass(frozen=True, slots=True)
class Site:
    """The addresses of one cluster. `octet` tells the clusters apart: 10 for A, 20 for B."""

    letter: str
    octet: int
    port: int

    @property
    def name(self) -> str:
        return f"cluster-{self.letter}"

    @property
    def pods(self) -> str:
        return f"10.{self.octet}.0.0/16"

    @property
    def services(self) -> str:
        return f"10.{self.octet + 100}.0.0/16"

    @property
    def dns(self) -> str:
        return f"10.{self.octet + 100}.0.10"

    @property
    def node(self) -> str:
        """Address of the node; its subnet is a /24 with the router at .1."""
        return f"192.168.{self.octet}.10"

    @property
    def control_plane(self) -> str:
        return f"192.168.{self.octet + 1}.10"

    @property
    def zone(self) -> str:
        """The name under which the other cluster knows this one's Services."""
        return f"{self.name}.internal"


# Both pod networks lie in here: what stays inside keeps its source address on the way through a Service.
FLAT_NETWORK = "10.0.0.0/11"
SITES = (Site("a", 10, 16443), Site("b", 20, 26443))


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that is running or being started. `folder` holds certificates, logs and disks."""

    site: Site
    folder: Path
    control_plane: Machine
    node: Machine

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True, timeout: float = 60) -> str:
        """kubectl with administrator's rights. Raises RuntimeError with stderr when it fails and `check` is set."""
        command = [str(binaries.need("kubectl")), "--kubeconfig", str(self.folder / "admin.kubeconfig"), *arguments]
        result = subprocess.run(command, input=input, capture_output=True, text=True, timeout=timeout)
        if check and result.returncode:
            raise RuntimeError(f"{self.site.name}: kubectl {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def apply(self, manifest: str) -> str:
        return self.kubectl("apply", "-f", "-", input=manifest)

    def request(self, method: str, path: str, body: object = None) -> Any:
        """One request to the API server with administrator's rights, much cheaper than kubectl; gives the JSON answer.

        Raises RuntimeError when the answer is not a 2xx.
        """
        context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        context.load_cert_chain(self.pki / "admin.crt", self.pki / "admin.key")
        connection = http.client.HTTPSConnection("127.0.0.1", self.site.port, context=context, timeout=30)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status // 100 != 2:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:400].decode(errors='replace')}")
        return json.loads(text)

    # -- control plane

    def issue_certificates(self) -> None:
        site = self.site
        authority = pki.Authority.create(self.pki, site.name)
        service = f"10.{site.octet + 100}.0.1"
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
        authority.issue(
            "apiserver", "kube-apiserver", hosts=("127.0.0.1", "localhost", site.control_plane, service, *names)
        )
        authority.issue("admin", "rig-admin", "system:masters")
        authority.issue("kubelet-client", "kube-apiserver-kubelet-client", "system:masters")
        authority.issue(
            "kubelet", f"system:node:node-{site.letter}", "system:nodes", (f"node-{site.letter}", site.node)
        )
        for component in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
            authority.issue(component, f"system:{component}")
        authority.key_pair("service-account")
        server = f"https://{site.control_plane}:6443"
        for file in ("kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy"):
            pki.kubeconfig(self.folder / f"{file}.kubeconfig", {site.name: (self.pki, file, server)})
        pki.kubeconfig(self.folder / "kube-router.kubeconfig", {site.name: (self.pki, "admin", server)})
        pki.kubeconfig(
            self.folder / "admin.kubeconfig", {site.name: (self.pki, "admin", f"https://127.0.0.1:{site.port}")}
        )

    def start_control_plane(self) -> None:
        disk = self.folder / "etcd"
        disk.mkdir()
        self.control_plane.run("mount", "-t", "tmpfs", "tmpfs", str(disk))
        self._on_control_plane(
            "etcd", "--data-dir", str(disk / "data"), "--listen-client-urls", "http://127.0.0.1:2379",
            "--advertise-client-urls", "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380",
        )  # fmt: skip
        self.start_apiserver()
        self._relay()
        self._on_control_plane(
            "kube-controller-manager", f"--kubeconfig={self.folder}/kube-controller-manager.kubeconfig",
            f"--service-account-private-key-file={self.pki}/service-account.key", f"--root-ca-file={self.pki}/ca.crt",
            f"--cluster-signing-cert-file={self.pki}/ca.crt", f"--cluster-signing-key-file={self.pki}/ca.key",
            f"--cluster-cidr={self.site.pods}", "--allocate-node-cidrs=true", "--use-service-account-credentials=true",
            "--leader-elect=false", "--concurrent-endpoint-syncs=10",
        )  # fmt: skip
        self._on_control_plane(
            "kube-scheduler", f"--kubeconfig={self.folder}/kube-scheduler.kubeconfig", "--leader-elect=false"
        )

    def start_apiserver(self) -> int:
        """Starts the API server; gives its process id on the host."""
        pki = self.pki
        return self._on_control_plane(
            "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379",
            f"--service-cluster-ip-range={self.site.services}",
            f"--client-ca-file={pki}/ca.crt", f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/service-account.pub",
            f"--service-account-signing-key-file={pki}/service-account.key", "--authorization-mode=Node,RBAC",
            f"--kubelet-client-certificate={pki}/kubelet-client.crt", f"--kubelet-client-key={pki}/kubelet-client.key",
            f"--kubelet-certificate-authority={pki}/ca.crt", "--kubelet-preferred-address-types=InternalIP",
            "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
            f"--advertise-address={self.site.control_plane}", "--secure-port=6443", "--profiling=false",
        )  # fmt: skip

    def _relay(self) -> None:
        """Makes the API server reachable on a loopback port of the host."""
        relay = Path(__file__).with_name("relay.py")
        command = [
            sys.executable,
            "-I",
            str(relay),
            str(self.site.port),
            str(self.control_plane.pid),
            "127.0.0.1",
            "6443",
        ]
        with (self.logs / "relay.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        (self.folder / "relay.pid").write_text(str(process.pid))

    def _on_control_plane(self, name: str, *arguments: str) -> int:
        return self.control_plane.daemon(self.logs / f"{name}.log", str(binaries.need(name)), *arguments)

    # -- node

    def prepare_node(self) -> None:
        """Gives the node disks of its own and starts containerd with the images of the rig."""
        node, folder = self.node, self.folder / "node"
        shields = []
        for key, value in _HOST_SETTINGS.items():
            if Path(f"/proc/sys/{key}").exists():
                file = folder / "settings" / key.replace("/", ".")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(f"{value}\n")
                shields.append(f"mount --bind {file} /proc/sys/{key}")
        for name in ("lib", "log", "cni"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        script = [
            "mount --make-rshared /",
            f"mount --bind {folder}/lib /var/lib",
            f"mount --bind {folder}/log /var/log",
        ]
        script += ["mount -t tmpfs tmpfs /run", *shields]
        node.run("sh", "-e", "-c", "\n".join(script))
        (folder / "cni" / "10-rig.conflist").write_text(json.dumps(_cni(self.site)))
        (folder / "containerd.toml").write_text(_containerd(folder / "cni", binaries.need("ptp").parent))
        programs = {"PATH": f"{binaries.need('containerd').parent}:{binaries.need('runc').parent}:{os.environ['PATH']}"}
        node.daemon(
            self.logs / "containerd.log", str(binaries.need("containerd")), "--config", str(folder / "containerd.toml"),
            env=programs,
        )  # fmt: skip
        ctr = str(binaries.need("ctr"))
        deadline = time.monotonic() + 20
        while node.run(ctr, "version", check=False).count("Version") != 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        for archive in images.archives().values():
            self.import_image(archive)

    def import_image(self, archive: Path) -> None:
        """Puts an image onto the node."""
        self.node.run(str(binaries.need("ctr")), "-n", "k8s.io", "images", "import", str(archive), timeout=120)

    def start_node(self) -> None:
        """Starts kubelet, kube-proxy and the policy engine; needs a ready API server."""
        folder, node, site = self.folder / "node", self.node, self.site
        for hierarchy in _hierarchies():
            (hierarchy / self.cgroup).mkdir(exist_ok=True)
        (folder / "resolv.conf").write_text(f"nameserver 192.168.{site.octet}.1\n")
        (folder / "kubelet.json").write_text(json.dumps(self._kubelet()))
        (folder / "kube-proxy.json").write_text(json.dumps(self._kube_proxy()))
        node.daemon(
            self.logs / "kubelet.log", str(binaries.need("kubelet")), f"--config={folder}/kubelet.json",
            f"--kubeconfig={self.folder}/kubelet.kubeconfig", f"--hostname-override=node-{site.letter}",
            f"--node-ip={site.node}", "--v=2",
        )  # fmt: skip
        node.daemon(
            self.logs / "kube-proxy.log", str(binaries.need("kube-proxy")), f"--config={folder}/kube-proxy.json"
        )

    def start_policy_engine(self) -> None:
        """Starts kube-router's firewall, which needs the Node object to exist."""
        self.node.daemon(
            self.logs / "kube-router.log", str(binaries.need("kube-router")), "--run-router=false",
            "--run-service-proxy=false", "--run-loadbalancer=false", "--run-firewall=true",
            f"--kubeconfig={self.folder}/kube-router.kubeconfig", f"--hostname-override=node-{self.site.letter}",
            f"--service-cluster-ip-range={self.site.services}", "--health-port=0", "--metrics-port=0", "--v=1",
        )  # fmt: skip

    def forget_path_mtu(self) -> None:
        """Drops what the node and its pods learnt about paths from ICMP, which they would else keep for ten minutes."""
        flush = "ip route flush cache; for n in /run/netns/*; do nsenter --net=$n ip route flush cache; done"
        self.node.run("sh", "-c", flush, check=False)

    @property
    def cgroup(self) -> str:
        return f"mcdoctor-rig-{self.site.letter}"

    def _kubelet(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True},
                               "x509": {"clientCAFile": f"{self.pki}/ca.crt"}},
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{self.pki}/kubelet.crt",
            "tlsPrivateKeyFile": f"{self.pki}/kubelet.key",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": [],
            "makeIPTablesUtilChains": False,
            "oomScoreAdj": 0,
            "clusterDNS": [self.site.dns],
            "clusterDomain": "cluster.local",
            "resolvConf": f"{self.folder}/node/resolv.conf",
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "serializeImagePulls": False,
            "syncFrequency": "5s",
            "nodeStatusUpdateFrequency": "5s",
            "readOnlyPort": 0,
            "maxPods": 110,
            "registryPullQPS": 0,
            "eventRecordQPS": 0,
            "kubeAPIQPS": 100,
            "kubeAPIBurst": 200,
        }  # fmt: skip

    def _kube_proxy(self) -> dict[str, object]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": f"{self.folder}/kube-proxy.kubeconfig"},
            "hostnameOverride": f"node-{self.site.letter}",
            "clusterCIDR": FLAT_NETWORK,
            "conntrack": {"maxPerCore": 0, "min": 0},
            "oomScoreAdj": 0,
            "iptables": {"minSyncPeriod": "200ms"},
        }


def _hierarchies() -> list[Path]:
    """The mounted cgroup trees: one of version 2, or one for each controller of version 1."""
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        return [top]
    return [folder for folder in top.iterdir() if folder.is_dir() and not folder.is_symlink()]


def _cni(site: Site) -> dict[str, object]:
    return {
        "cniVersion": "0.4.0",
        "name": "rig",
        "plugins": [
            {
                # One routed link a pod, no bridge: packets between two pods of the node pass the FORWARD chain too,
                # so the policy engine sees them without br_netfilter.
                "type": "ptp",
                "ipMasq": False,
                "mtu": 1500,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": f"10.{site.octet}.0.0/24"}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": "/var/lib/cni/networks",
                },
            }
        ],
    }


def _containerd(cni: Path, plugins: Path) -> str:
    return textwrap.dedent(f"""\
        version = 2
        root = "/var/lib/containerd"
        state = "/run/containerd"
        oom_score = 0
        [grpc]
          address = "/run/containerd/containerd.sock"
        [plugins."io.containerd.grpc.v1.cri"]
          sandbox_image = "{images.PAUSE}"
          restrict_oom_score_adj = true
          disable_apparmor = true
          [plugins."io.containerd.grpc.v1.cri".cni]
            bin_dir = "{plugins}"
            conf_dir = "{cni}"
          [plugins."io.containerd.grpc.v1.cri".containerd]
            snapshotter = "overlayfs"
            default_runtime_name = "runc"
            [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
              runtime_type = "io.containerd.runc.v2"
              [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
                BinaryName = "{binaries.need("runc")}"
                SystemdCgroup = false
        """)
