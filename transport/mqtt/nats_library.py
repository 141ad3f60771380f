"""nats-py's client, which sends user and password only over TLS if TLS is asked for.

nats-py uses TLS if the node asks for it, whatever the client's address says. So a node without TLS, or anyone between
who changes the node's first message, would read the password. The only module that uses private attributes of nats-py:
`Client._connect_command`, which makes the message with the credentials, and `_server_info`.
"""

from __future__ import annotations

from nats.aio.client import Client
from nats.errors import Error


class EncryptedClient(Client):
    """With the option `tls`, it connects only to nodes that use TLS."""

    def _connect_command(self) -> bytes:
        if "tls" in self.options and not self._server_info.get("tls_required"):
            raise Error("the node does not use TLS")
        return super()._connect_command()
