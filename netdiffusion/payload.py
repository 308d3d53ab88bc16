"""Payload of written captures: which service a class is, and its servers' names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion.flows import FlowSet

Payload = Literal["zeros", "random", "protocol"]

HOST_BYTES = 64
NOTHING = (None, None)
_SURE = 128
_TRANSPORTS = {6: "tcp", 17: "udp"}


class Service(NamedTuple):
    """What the flows of a class speak.

    Attributes
    ----------
    tcp, udp : str
        Services over these transports, names of `_core.payload_services`;
        empty for none.
    sure : bool
        Whether that goes before the service that the server port names; not
        where the port's readers call anything but their own malformed.
    """

    tcp: str = ""
    udp: str = ""
    sure: bool = True


_WEB = Service("tls", "", sure=False)

_CALL = Service("tls", "stun", sure=False)

CLASS_SERVICES: dict[str, Service] = {
    "1kxun": Service("http", "", sure=False),
    "avast": Service("http"),
    "dhcp": Service("", "dhcp"),
    "discord": _CALL,
    "dns": Service("dns", "dns"),
    "dtls": Service("", "dtls"),
    "encrypted_dns": Service("tls", "quic", sure=False),
    "ftp": Service("ftp"),
    "http": Service("http"),
    "http_proxy": Service("http"),
    "https": Service("tls"),
    "imap": Service("imap"),
    "jabber": Service("xmpp"),
    "kerberos": Service("kerberos", "kerberos"),
    "ldap": Service("ldap", "ldap"),
    "llmnr": Service("llmnr", "llmnr"),
    "mdns": Service("mdns", "mdns"),
    "meet": _CALL,
    "modbus": Service("modbus"),
    "mqtt": Service("mqtt"),
    "mysql": Service("mysql"),
    "nats": Service("nats"),
    "ntp": Service("", "ntp"),
    "ocsp": Service("http"),
    "pop3": Service("pop3"),
    "postgresql": Service("postgresql"),
    "quic": Service("", "quic"),
    "radius": Service("", "radius"),
    "rdp": Service("rdp"),
    "redis": Service("redis"),
    "rtcp": Service("", "rtcp"),
    "rtp": Service("", "rtp"),
    "signal": _CALL,
    "sip": Service("sip", "sip"),
    "smb": Service("smb"),
    "smtp": Service("smtp", "", sure=False),
    "snmp": Service("", "snmp"),
    "soap": Service("http"),
    "ssdp": Service("", "ssdp"),
    "ssh": Service("ssh"),
    "stun": Service("stun", "stun"),
    "syslog": Service("", "syslog"),
    "teams": _CALL,
    "telegram": _CALL,
    "tls": Service("tls"),
    "websocket": Service("http"),
    "whatsapp": _CALL,
}

CLASS_HOSTS: dict[str, tuple[str, ...]] = {
    "1kxun": ("kankan.1kxun.com", "jp.kankan.1kxun.mobi"),
    "accuweather": ("www.accuweather.com", "api.accuweather.com"),
    "amazon": ("www.amazon.com", "completion.amazon.com"),
    "amazon_alexa": ("bob-dispatch-prod-eu.amazon.com",),
    "apple": ("www.apple.com", "gateway.icloud.com", "init.itunes.apple.com"),
    "avast": ("ui.ff.avast.com",),
    "aws": ("s3.amazonaws.com", "ec2-3-8-1-2.compute-1.amazonaws.com"),
    "cloudflare": ("www.cloudflare.com", "cdnjs.cloudflare.com"),
    "crashlytics": ("settings.crashlytics.com", "reports.crashlytics.com"),
    "discord": ("discord.com", "gateway.discord.gg"),
    "dropbox": ("www.dropbox.com", "client.dropbox.com"),
    "encrypted_dns": ("dns.google", "cloudflare-dns.com"),
    "facebook": ("www.facebook.com", "graph.facebook.com", "static.xx.fbcdn.net"),
    "google": ("www.google.com", "clients4.google.com", "www.gstatic.com"),
    "instagram": ("www.instagram.com", "i.instagram.com", "scontent.cdninstagram.com"),
    "meet": ("meet.google.com",),
    "microsoft": ("www.microsoft.com", "login.microsoftonline.com"),
    "netflix": ("www.netflix.com", "occ-0-1-2.1.nflxso.net", "ipv4-c1.nflxvideo.net"),
    "ntop": ("www.ntop.org", "packages.ntop.org"),
    "ocsp": ("ocsp.digicert.com", "ocsp.pki.goog"),
    "opera_vpn": ("api2.sec-tunnel.com",),
    "pinterest": ("www.pinterest.com", "i.pinimg.com"),
    "ppstream": ("www.pps.tv",),
    "qq": ("www.qq.com", "weather.gtimg.cn"),
    "reddit": ("www.reddit.com", "oauth.reddit.com", "i.redd.it"),
    "signal": ("textsecure-service.whispersystems.org", "cdn.signal.org"),
    "skype": ("www.skype.com", "pipe.skype.com"),
    "teams": ("teams.microsoft.com", "presence.teams.microsoft.com"),
    "telegram": ("web.telegram.org", "telegram.org"),
    "tunnelbear": ("api.tunnelbear.com",),
    "twitch": ("www.twitch.tv", "usher.ttvnw.net"),
    "twitter": ("twitter.com", "api.twitter.com", "pbs.twimg.com"),
    "ubuntu": ("archive.ubuntu.com", "one.ubuntu.com"),
    "valve": ("store.steampowered.com", "steamcommunity.com"),
    "viber": ("share.viber.com", "content.cdn.viber.com"),
    "waze": ("rt.waze.com", "www.waze.com"),
    "webex": ("www.webex.com", "wdm-a.webex.com"),
    "wechat": ("web.wechat.com", "short.weixin.qq.com"),
    "weibo": ("www.weibo.com", "img.t.sinajs.cn"),
    "whatsapp": ("web.whatsapp.com", "mmg.whatsapp.net", "g.whatsapp.net"),
    "windows_update": ("download.windowsupdate.com",),
    "yahoo": ("www.yahoo.com", "s.yimg.com"),
    "youtube": ("www.youtube.com", "i.ytimg.com", "r1.googlevideo.com"),
    "zoom": ("us04web.zoom.us", "zoom.us"),
}


@dataclass(frozen=True)
class PayloadReport:
    """How the payload of a written capture came out.

    Parameters
    ----------
    services : dict of str to tuple of int
        For each service: packets with a payload, those of them that were too
        short for the message that belonged there, flows, and flows with such
        packets. ``"other"`` are packets of no known service.
    """

    services: dict[str, tuple[int, int, int, int]]

    @property
    def too_short(self) -> int:
        """Packets whose length did not hold their message."""
        return sum(line[1] for line in self.services.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        names = ("packets", "short_packets", "flows", "short_flows")
        return {
            service: dict(zip(names, line, strict=True))
            for service, line in self.services.items()
        }

    def __str__(self) -> str:
        packets = sum(line[0] for line in self.services.values())
        worst = sorted(
            (n for n in self.services if self.services[n][1]),
            key=lambda n: -self.services[n][1],
        )
        told = ", ".join(
            f"{name} {self.services[name][1]:,} in {self.services[name][3]:,} flows"
            for name in worst[:5]
        )
        return f"{self.too_short:,} of {packets:,} payloads are too short" + (
            f" for their service: {told}" if told else ""
        )


def class_service(label: str) -> Service:
    """Return what the flows of a class speak; ``lab_`` in front is left out."""
    name = label.removeprefix("lab_")
    if name in CLASS_SERVICES:
        return CLASS_SERVICES[name]
    return _WEB if name in CLASS_HOSTS else Service(sure=False)


def flow_services(
    flows: FlowSet, seed: int = 0
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return what the payload of each flow shall be.

    Parameters
    ----------
    flows : FlowSet
        Their classes, ends and transports are looked at.
    seed : int, default 0
        Chooses among the names that servers of a class have.

    Returns
    -------
    services : ndarray of uint8, shape (F,)
        Place in `_core.payload_services`; 128 added where it goes before the
        server's port.
    hosts : ndarray of uint8, shape (F, 64)
        The server's name, filled up with zeros.
    """
    numbers = {name: i for i, name in enumerate(_core.payload_services())}
    services = np.zeros(len(flows), np.uint8)
    hosts = np.zeros((len(flows), HOST_BYTES), np.uint8)
    chance = flows.addresses.sum(axis=(1, 2), dtype=np.int64) + flows.ports.sum(axis=1)
    chance += seed % 1024
    for label in np.unique(flows.labels).tolist():
        mine = flows.labels == label
        spoken = class_service(label)
        for protocol, transport in _TRANSPORTS.items():
            service = getattr(spoken, transport)
            if service:
                number = numbers[service] + (_SURE if spoken.sure else 0)
                services[mine & (flows.protocol == protocol)] = number
        names = CLASS_HOSTS.get(label, ())
        for i, name in enumerate(names):
            hosts[mine & (chance % len(names) == i), : len(name)] = np.frombuffer(
                name.encode(), np.uint8
            )
    return services, hosts
