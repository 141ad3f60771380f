"""The edge's half of signalling: posts a WebRTC offer over HTTP and returns the server's answer."""

from __future__ import annotations

import asyncio
import http.client
import ssl

from sagelink.net.offers import MAX_OFFER_BYTES
from sagelink.transport.webrtc.address import ENV_TOKEN, SignallingEndpoint

_TIMEOUT_S = 3.0
OFFER_PATH = "/offer"


class Unreachable(Exception):
    """The server gave no usable answer; the text gives the reason."""


async def exchange(endpoint: SignallingEndpoint, offer: str, path: str = OFFER_PATH) -> str:
    """The answer to an offer (SDP). Raises Unreachable."""
    return await asyncio.to_thread(_post, endpoint, offer, path)


def _post(endpoint: SignallingEndpoint, offer: str, path: str) -> str:
    connection: http.client.HTTPConnection
    if endpoint.tls:
        connection = http.client.HTTPSConnection(
            endpoint.host, endpoint.port, timeout=_TIMEOUT_S, context=endpoint.tls_context
        )
    else:
        connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=_TIMEOUT_S)
    headers = {"Content-Type": "application/sdp"}
    if endpoint.token is not None:
        headers["Authorization"] = f"Bearer {endpoint.token}"
    try:
        connection.request("POST", path, offer.encode(), headers)
        response = connection.getresponse()
        text = response.read(MAX_OFFER_BYTES).decode(errors="replace")
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(
            f"TLS: {error.verify_message.rstrip('.')}; accepted: a certificate for {endpoint.host!r} that an authority "
            "in webrtc.ca has signed"
        ) from None
    except ssl.SSLError as error:
        raise Unreachable(f"TLS: {error.reason or error}; a server without a certificate is webrtc+http://") from None
    except http.client.HTTPException as error:
        reason = f"no HTTP server: {error or type(error).__name__}"
        raise Unreachable(
            reason if endpoint.tls else f"{reason}; a server with a certificate is webrtc+https://"
        ) from None
    except OSError as error:
        raise Unreachable(error.strerror or str(error)) from None
    finally:
        connection.close()
    if response.status == 401:
        problem = "the token is not the server's" if endpoint.token else "no token is set"
        raise Unreachable(f"the server refuses: {problem}; set {ENV_TOKEN} or webrtc.token_file")
    if response.status != 201:
        raise Unreachable(f"the server refuses ({response.status}): {text.strip()[:200] or response.reason}")
    return text
