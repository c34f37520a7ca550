"""A lab with one more router, `outer`, between the gateway and the internet, that the host behind knows nothing of.

    internet  203.0.114.1, 198.51.100.10, 198.51.100.20
       | out0
    outer     "nat", "carrier": translates, 203.0.114.9 outside; "firewall": routes, lets in answers only
       | in0
    gateway   10.0.0.2 ("nat"), 100.64.0.2 ("carrier"), 203.0.114.7 ("firewall"); the rest as in lab.py
"""

from lab import EXTERNAL, PEER, Host, Lab

OUTER = "203.0.114.9"
PRIVATE = "10.0.0.2"
SHARED = "100.64.0.2"
INNER = {"nat": (PRIVATE, "10.0.0.1"), "carrier": (SHARED, "100.64.0.1"), "firewall": (EXTERNAL, PEER)}

MASQUERADE = "table ip nat { chain post { type nat hook postrouting priority 100; oifname \"%s\" masquerade; }; }"
ANSWERS_ONLY = ("table ip filter { chain forward { type filter hook forward priority 0; policy accept; "
                "iifname \"out0\" ct state established,related accept; iifname \"out0\" drop; }; }")


def masquerade(host, device):
    """Translates what leaves there, and opens no port for anybody."""
    host.sysctl("net.ipv4.ip_forward", 1)
    host.run("nft", "-f", "-", stdin=MASQUERADE % device)


class LabBehind(Lab):
    def __init__(self, ahead):
        super().__init__(wan=False)
        gw, net = self.gateway, self.internet
        gw.ip("link", "del", "wan0")
        self.outer = Host(self, "outer")
        self.wire(gw, "wan0", self.outer, "in0")
        self.wire(self.outer, "out0", net, "eth0")
        own, router = INNER[ahead]
        gw.ip("addr", "add", f"{own}/24", "dev", "wan0")
        gw.ip("route", "add", "default", "via", router)
        self.outer.ip("addr", "add", f"{router}/24", "dev", "in0")
        if ahead == "firewall":
            net.ip("addr", "add", "203.0.113.1/24", "dev", "eth0")
            net.ip("route", "add", "203.0.114.0/24", "via", "203.0.113.2")
            self.outer.ip("addr", "add", "203.0.113.2/24", "dev", "out0")
            self.outer.ip("route", "add", "default", "via", "203.0.113.1")
            self.outer.sysctl("net.ipv4.ip_forward", 1)
            self.outer.run("nft", "-f", "-", stdin=ANSWERS_ONLY)
        else:
            net.ip("addr", "add", f"{PEER}/24", "dev", "eth0")
            self.outer.ip("addr", "add", f"{OUTER}/24", "dev", "out0")
            self.outer.ip("route", "add", "default", "via", PEER)
            masquerade(self.outer, "out0")
