"""Installs the Debian packages that tests and yardsticks use, where this is Debian and we are root; else names them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

WANTED = {
    "nft": "nftables",
    "iptables": "iptables",
    "ipset": "ipset",
    "conntrack": "conntrack",
    "ethtool": "ethtool",
    "ip": "iproute2",
    "dig": "dnsutils",
    "tracepath": "iputils-tracepath",
    "curl": "curl",
    "openssl": "openssl",
    "setpriv": "util-linux",
    "tmux": "tmux",
}


def main() -> int:
    missing = sorted({package for tool, package in WANTED.items() if shutil.which(tool) is None})
    if not missing:
        return 0
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print("missing, tests that want them are skipped: " + ", ".join(missing), file=sys.stderr)
        return 0
    quiet = {"stdout": subprocess.DEVNULL}
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "--no-install-recommends", *missing]):
        if subprocess.run(command, env=environment, check=False, **quiet).returncode:  # type: ignore[call-overload]
            print(f"{' '.join(command)} failed; tests that want {', '.join(missing)} are skipped", file=sys.stderr)
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
