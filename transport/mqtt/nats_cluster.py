"""The address of a NATS cluster, `nats://a,b:4223,c`, and this side's credentials there."""

from __future__ import annotations

import importlib.util
import ssl
from dataclasses import dataclass, field

from sagelink.pipeline.config.link import MqttConfig
from sagelink.pipeline.errors import UsageError
from sagelink.transport.mqtt.address import ENV_PASSWORD, ENV_USERNAME, open_broker
from sagelink.transport.server_url import UrlRules, cluster_url, parse_cluster_url

_PORTS = {"nats": 4222, "nats+tls": 4222}
_SCHEMES = {"nats": "mqtt", "nats+tls": "mqtts"}  # and the scheme of MQTT that has the same credentials
ALSO_NATS = ", nats://host[:port][,host[:port]...]"  # further forms in the error message about another URL
MISSING = "NATS needs nats-py, which is not installed; pip install 'sagelink[nats]'"
_RULES = UrlRules(
    schemes=_PORTS,
    server="a NATS cluster",
    accepted="nats://host[:port][,host[:port]...] or nats+tls://host[:port][,...]",
    credentials=f"{ENV_USERNAME} and {ENV_PASSWORD}, or mqtt.username and mqtt.password_file",
)


@dataclass(frozen=True, slots=True)
class NatsCluster:
    """The nodes of one cluster."""

    url: str
    nodes: tuple[tuple[str, int], ...]  # host and port
    tls: ssl.SSLContext | None
    username: str | None
    password: str | None = field(repr=False)
    keepalive_s: int


def is_nats(url: str) -> bool:
    return url.partition("://")[0] in _SCHEMES


def open_cluster(url: str, config: MqttConfig, where: str) -> NatsCluster:
    """Reads certificates and credentials, which are those of `mqtt`. Raises UsageError, also if nats-py is not
    installed."""
    scheme, nodes = parse_cluster_url(url, where, _RULES, _PORTS)
    if importlib.util.find_spec("nats") is None:
        raise UsageError(f"{where}: {MISSING}")
    same = open_broker(cluster_url(_SCHEMES[scheme], nodes), config, where)
    return NatsCluster(cluster_url(scheme, nodes), nodes, same.tls, same.username, same.password, same.keepalive_s)
