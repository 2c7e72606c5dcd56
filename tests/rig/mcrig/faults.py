"""Faults in the network between the clusters, injected where a field engineer cannot look: on the routers.

Every fault is undone by `clear`. The chain is node A, router A, wide link, router B, node B.
"""

from __future__ import annotations

from dataclasses import dataclass

from mcrig.cluster import SITES, Site
from mcrig.machines import Machine

WAN = ("172.31.0.1", "172.31.0.2")
_RULES = """\
flush ruleset
table inet faults {{
  chain forward {{
    type filter hook forward priority 0; policy accept;
    {forward}
  }}
  chain output {{
    type filter hook output priority 0; policy accept;
    {output}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Network:
    """The two routers, A's and B's."""

    routers: tuple[Machine, Machine]

    def _towards(self, site: Site, router: int) -> tuple[str, ...]:
        """The commands that give a router its routes to one cluster."""
        home = site is SITES[router]
        subnets = [f"192.168.{site.octet}.0/24", f"192.168.{site.octet + 1}.0/24"]
        via_node = [f"{cidr} via {site.node if home else WAN[1 - router]}" for cidr in (site.pods, site.services)]
        return (*via_node, *([] if home else [f"{subnet} via {WAN[1 - router]}" for subnet in subnets]))

    def lay_routes(self) -> None:
        for index, router in enumerate(self.routers):
            for site in SITES:
                for route in self._towards(site, index):
                    router.run("ip", "route", "replace", *route.split())

    def clear(self) -> None:
        """Takes every fault away, whatever came before."""
        for router in self.routers:
            router.run("nft", "flush", "ruleset")
            router.run("ip", "link", "set", "wan", "mtu", "1500")
            router.run("ip", "route", "flush", "cache")
        self.lay_routes()

    def route_missing(self) -> None:
        """Router A forgets how to reach the pods and Services of B; node addresses stay reachable."""
        for cidr in (SITES[1].pods, SITES[1].services):
            self.routers[0].run("ip", "route", "del", cidr)

    def filter_drop(self, port: int) -> None:
        """TCP to `port` vanishes between the clusters, without a word."""
        self._forward(f"iifname wan tcp dport {port} drop")

    def filter_reject(self, port: int) -> None:
        """TCP to `port` is refused by the router with a reset."""
        self._forward(f"iifname wan tcp dport {port} reject with tcp reset")

    def filter_prohibit(self, port: int) -> None:
        """TCP to `port` is refused by the router with ICMP 'administratively prohibited'."""
        self._forward(f"iifname wan tcp dport {port} reject with icmp type admin-prohibited")

    def mtu(self, size: int = 1400, icmp: bool = False) -> None:
        """The wide link carries at most `size` bytes; without `icmp` nobody is told."""
        if not icmp:
            for router in self.routers:
                rules = _RULES.format(forward="", output="icmp type destination-unreachable icmp code frag-needed drop")
                router.run("nft", "-f", "-", input=rules)
        for router in self.routers:
            router.run("ip", "link", "set", "wan", "mtu", str(size))

    def loss(self, share: float) -> None:
        """Each packet between the clusters is lost with this probability, in both directions."""
        self._forward(f"iifname wan numgen random mod 1000 < {round(share * 1000)} drop")

    def _forward(self, rule: str) -> None:
        for router in self.routers:
            router.run("nft", "-f", "-", input=_RULES.format(forward=rule, output=""))
