"""The explanation of a failed ICE connection; and a TURN server that relays through a firewall."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from bench.namespaces import SERVER, Cable, unavailable
from sagelink.transport.webrtc.address import ENV_TOKEN, ENV_TURN_PASSWORD
from sagelink.transport.webrtc.ice_diagnosis import diagnose_ice
from tests.conftest import skip_or_fail

HOST = "a=candidate:abc 1 udp 2130706431 192.0.2.1 50000 typ host\r\n"
OTHER = "a=candidate:abd 1 udp 2130706431 198.51.100.7 50000 typ host\r\n"
REFLEXIVE = "a=candidate:abe 1 udp 1694498815 203.0.113.9 50000 typ srflx raddr 192.0.2.1 rport 50000\r\n"
RELAY = "a=candidate:abf 1 udp 16777215 203.0.113.5 50000 typ relay raddr 192.0.2.1 rport 50000\r\n"


@pytest.mark.parametrize(
    ("local", "remote", "servers", "says"),
    [
        ("v=0\r\n", OTHER, [], "this machine has only a loopback address"),
        (HOST, "v=0\r\n", [], "the other side has only a loopback address"),
        (
            HOST,
            OTHER,
            [],
            "192.0.2.1 (this machine) and 198.51.100.7 (the other side), because of a firewall or NAT; accepted:",
        ),
        (HOST, OTHER, ["stun:s"], "the STUN server does not answer"),
        (HOST + REFLEXIVE, OTHER, ["stun:s", "turn:s"], "the TURN server gives no relay"),
        (HOST + REFLEXIVE, OTHER, ["stun:s"], "between 192.0.2.1, 203.0.113.9 (this machine)"),
        (HOST + RELAY, OTHER, ["turns:s"], "does not get around it either"),
    ],
)
def test_the_cause_is_named(local: str, remote: str, servers: list[str], says: str) -> None:
    assert says in diagnose_ice(local, remote, servers)


def test_only_the_first_addresses_are_named() -> None:
    many = "".join(HOST.replace("192.0.2.1", f"192.0.2.{number}") for number in range(1, 9))
    assert "192.0.2.4 ... (this machine)" in diagnose_ice(many, OTHER, [])


TURN = f"""listening-ip={SERVER}
relay-ip={SERVER}
lt-cred-mech
user=site:a-secret-of-turn
realm=sagelink
no-tls
no-dtls
no-cli
log-file=stdout
"""


@pytest.mark.campaign
def test_a_turn_server_relays_through_a_firewall_without_udp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs edge and server as a user does, with the password in a file; before, a wrong one is tried."""
    if (reason := unavailable()) is not None:
        skip_or_fail("netns", reason)
    if shutil.which("turnserver") is None:
        skip_or_fail("coturn", "no turnserver (Debian: coturn)")
    monkeypatch.setenv(ENV_TOKEN, "token-of-this-test")
    monkeypatch.delenv(ENV_TURN_PASSWORD, raising=False)
    (tmp_path / "turn.conf").write_text(TURN + f"pidfile={tmp_path / 'pid'}\nuserdb={tmp_path / 'users'}\n")
    password = tmp_path / "password"
    relay = {"ice_servers": [f"turn:{SERVER}:3478"], "turn_username": "site", "turn_password_file": str(password)}
    settings = {"ship": {"server": f"webrtc+http://{SERVER}:8620"}, "webrtc": relay, "models": "demo"}
    settings |= {"gate": {"policy": "always"}, "capture": {"source": "synthetic:10"}}
    (tmp_path / "site.yaml").write_text(json.dumps(settings))
    sagelink = (sys.executable, "-m", "sagelink.app.cli")
    with Cable(2) as cable:
        cable.allow_udp_to(3478)
        cable.run("server", "turnserver", "-c", str(tmp_path / "turn.conf"))
        server = cable.run("server", *sagelink, "serve", "--listen", f"webrtc+http://{SERVER}:8620", "--models", "demo")
        assert server.stdout.readline().startswith("serving")

        def run() -> tuple[int, str]:
            options = ("--config", str(tmp_path / "site.yaml"), "--uplink", "unlimited", "--out", str(tmp_path / "out"))
            process = cable.run("edge", "sh", "-c", 'exec "$@" 2>&1', "sh", *sagelink, "run", *options)
            return process.wait(), process.stdout.read()

        password.write_text("another-password")
        code, printed = run()
        assert code == 1
        assert "the TURN server gives no relay; check that it can be reached and accepts webrtc.turn_user" in printed
        password.write_text("a-secret-of-turn\n")
        code, printed = run()
        assert code == 0, printed
    assert "a-secret-of-turn" not in printed
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [line["drop"] for line in lines] == [None] * 10
