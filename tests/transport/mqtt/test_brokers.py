"""Both links against every broker that is installed: what a table in docs/mqtt.md says about each."""

from __future__ import annotations

import pytest

from bench.mqtt_brokers import BROKERS, check_links, running
from tests.conftest import skip_or_fail


@pytest.mark.parametrize("name", BROKERS)
@pytest.mark.campaign
async def test_a_camera_is_served_over_any_broker(name: str) -> None:
    with running(name) as url:
        if url is None:
            skip_or_fail(name.lower(), f"no {name}")
        found = await check_links(name, url)
    assert {found[column] for column in ("state", "live", "will", "budget")} == {"yes"}
    assert found["second server"] == ("shares" if found["shared"] == "yes" else "stands by")
