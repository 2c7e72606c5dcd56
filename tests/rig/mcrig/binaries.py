"""Where the programs of the rig come from: the environment, Go modules at pinned versions, Debian packages.

Everything that is fetched or built lands in one cache folder whose name holds the pinned versions, so that a
change of a version never mixes with what an older rig left.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

KUBERNETES = "v1.36.2"
KUBE_ROUTER = "v2.2.1"
COREDNS = "v1.14.6"
_MODULES = Path(__file__).resolve().parent.parent / "go"
_PINS = f"kubernetes-{KUBERNETES}_kube-router-{KUBE_ROUTER}_coredns-{COREDNS}"

Progress = Callable[[str], None]


class RigUnavailable(Exception):
    """The rig cannot run here; the message says which tool or right is missing."""


@dataclass(frozen=True, slots=True)
class Program:
    """One executable. `package` is a Go package or the name of a Debian package, by `source`."""

    name: str
    source: Literal["kubernetes", "kube-router", "coredns", "pause", "debian"]
    package: str


PROGRAMS: tuple[Program, ...] = (
    Program("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    Program("kube-controller-manager", "kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    Program("kube-scheduler", "kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    Program("kubelet", "kubernetes", "k8s.io/kubernetes/cmd/kubelet"),
    Program("kube-proxy", "kubernetes", "k8s.io/kubernetes/cmd/kube-proxy"),
    Program("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    Program("kube-router", "kube-router", "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"),
    Program("coredns", "coredns", f"github.com/coredns/coredns@{COREDNS}"),
    Program("pause", "pause", "."),
    Program("etcd", "debian", "etcd-server"),
    Program("containerd", "debian", "containerd"),
    Program("containerd-shim-runc-v2", "debian", "containerd"),
    Program("ctr", "debian", "containerd"),
    Program("runc", "debian", "runc"),
    Program("ptp", "debian", "containernetworking-plugins"),
    Program("host-local", "debian", "containernetworking-plugins"),
    Program("loopback", "debian", "containernetworking-plugins"),
)
_DEBIAN_FOLDERS = ("usr/bin", "usr/sbin", "usr/lib/cni")


def cache() -> Path:
    """The folder that keeps programs and images between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(base) / "mcdoctor" / "rig" / _PINS


def find(name: str) -> Path | None:
    """The program as it would be run now, or None: `$KUBEBUILDER_ASSETS`, then the cache, then `PATH`."""
    folders = [Path(assets)] if (assets := os.environ.get("KUBEBUILDER_ASSETS")) else []
    for folder in (*folders, cache() / "bin"):
        if os.access(folder / name, os.X_OK):
            return folder / name
    found = shutil.which(name)
    return Path(found) if found else None


def need(name: str) -> Path:
    """Like `find`. Raises RigUnavailable when the program is nowhere."""
    if path := find(name):
        return path
    raise RigUnavailable(
        f"{name} is neither in $KUBEBUILDER_ASSETS, the cache {cache()} nor PATH: run `make rig-build`"
    )


def missing() -> list[Program]:
    """The programs that would have to be built or fetched."""
    return [program for program in PROGRAMS if find(program.name) is None]


def _run(command: list[str], cwd: Path, env: dict[str, str] | None = None) -> None:
    result = subprocess.run(command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    if result.returncode:
        tail = "\n".join((result.stdout + result.stderr).splitlines()[-15:])
        raise RigUnavailable(f"{' '.join(command)} failed:\n{tail}")


def _go(program: Program, target: Path) -> None:
    if shutil.which("go") is None:
        raise RigUnavailable(f"{program.name} must be built and there is no Go on PATH")
    env = {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -trimpath"}
    link = "-s -w"
    match program.source:
        case "kubernetes":
            minor = KUBERNETES.split(".")[1]
            version = "k8s.io/component-base/version"
            link += f" -X {version}.gitVersion={KUBERNETES} -X {version}.gitMajor=1 -X {version}.gitMinor={minor}"
            # Go 1.27 makes JSON v2 the default, which breaks /openapi/v2 of this Kubernetes.
            if "go1.27" in subprocess.run(["go", "version"], capture_output=True, text=True).stdout:
                env["GOEXPERIMENT"] = "nojsonv2"
        case "coredns":
            # `go install pkg@version` builds with the checksums and versions of that module itself.
            env["GOBIN"] = str(target.parent)
            _run(["nice", "go", "install", "-ldflags", link, program.package], target.parent, env)
            return
        case "kube-router" | "pause":
            pass
        case "debian":
            raise AssertionError(program)
        case _:
            assert_never(program.source)
    _run(["nice", "go", "build", "-ldflags", link, "-o", str(target), program.package], _MODULES / program.source, env)


def _debian(packages: set[str], target: Path) -> None:
    """Unpacks the packages without installing them: no service starts and dpkg stays as it was."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise RigUnavailable(f"{', '.join(sorted(packages))}: not on PATH, and this machine has no apt-get to fetch it")
    with tempfile.TemporaryDirectory(prefix="mcdoctor-rig-") as name:
        folder = Path(name)
        try:
            _run(["apt-get", "download", *sorted(packages)], folder)
        except RigUnavailable:
            _run(["apt-get", "update"], folder)
            _run(["apt-get", "download", *sorted(packages)], folder)
        for archive in folder.glob("*.deb"):
            _run(["dpkg-deb", "-x", str(archive), str(folder / "root")], folder)
        for program in PROGRAMS:
            if program.source == "debian" and program.package in packages:
                origin = next(p for d in _DEBIAN_FOLDERS if (p := folder / "root" / d / program.name).exists())
                shutil.copy2(origin, target / program.name)


def ensure(progress: Progress) -> None:
    """Builds and fetches what is missing. About 20 minutes from nothing on two cores, nothing from a warm cache.

    Raises RigUnavailable with the last lines of the failing tool.
    """
    target = cache() / "bin"
    target.mkdir(parents=True, exist_ok=True)
    wanted = missing()
    if packages := {program.package for program in wanted if program.source == "debian"}:
        progress(f"fetching {', '.join(sorted(packages))} from Debian")
        _debian(packages, target)
    for program in wanted:
        if program.source != "debian":
            progress(f"building {program.name}")
            _go(program, target / program.name)
