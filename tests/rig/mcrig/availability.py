"""Whether the rig can run on this machine, and every reason why not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from mcrig import binaries

_TOOLS = {
    "unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2", "nft": "nftables", "iptables": "iptables",
    "ipset": "ipset", "ethtool": "ethtool", "conntrack": "conntrack",
}  # fmt: skip


def reasons(need_cache: bool) -> list[str]:
    """Why the rig cannot run here; empty when it can. With `need_cache`, that it must first be built is one."""
    if not sys.platform.startswith("linux"):
        return [f"the rig needs Linux, this is {sys.platform}"]
    found = []
    if os.geteuid() != 0:
        found.append("the rig needs root: it makes namespaces, cgroups and containers")
    if absent := sorted(tool for tool in _TOOLS if shutil.which(tool) is None):
        packages = sorted({_TOOLS[tool] for tool in absent})
        found.append(f"not on PATH: {', '.join(absent)} (Debian: apt-get install {' '.join(packages)})")
    if not found and (problem := _kernel()):
        found.append(problem)
    missing = binaries.missing()
    if missing and need_cache:
        names = ", ".join(program.name for program in missing)
        found.append(f"not built yet: {names}; run `make rig-build` once (about 15 minutes on two cores)")
    elif any(program.source != "debian" for program in missing) and shutil.which("go") is None:
        found.append("there is no Go on PATH to build what is missing")
    return found


def _kernel() -> str | None:
    """Tries, in a namespace that ends with the attempt, what the rig asks of the kernel."""
    script = (
        "ip link add left type veth peer name right && ipset create probe hash:ip && "
        "iptables -A FORWARD -m set --match-set probe src -m comment --comment probe -j ACCEPT && "
        "iptables -t nat -A POSTROUTING -j MASQUERADE && "
        "nft add table inet probe && nft 'add chain inet probe c { type filter hook forward priority 0; }' && "
        "nft add rule inet probe c numgen random mod 100 '<' 30 drop && "
        "mount -t tmpfs tmpfs /mnt && cd /mnt && mkdir l u w m && "
        "mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m"
    )
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "sh", "-e", "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if result.returncode == 0:
        return None
    return (
        f"the kernel or this container refuses a feature that the rig needs: {result.stderr.strip().splitlines()[-1]}"
    )
