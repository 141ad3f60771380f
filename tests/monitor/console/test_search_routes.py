"""Search and export of stored frames and events over HTTP."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from sagelink.monitor.console.routes import console_app
from sagelink.monitor.console.search_routes import StoreView
from sagelink.monitor.console.store_batch import StoreBatch, write_batch
from sagelink.monitor.console.store_search import message_of_frame
from sagelink.net.access_guard import Tokens
from sagelink.pipeline.threads import Worker
from sagelink.server.evidence_view import decode_view
from tests.fakes import make_evidence
from tests.monitor.console.stored import EVENT, answer, frame


def test_search_and_export_over_http(view, store):
    worker = Worker("test-store")
    message = make_evidence(5).message
    write_batch(
        store,
        StoreBatch(
            [replace(frame(number), message=message) for number in (1, 2, 3)], [answer(1), answer(2, "=a/../b\x1b")]
        ),
    )

    async def picture(number: int) -> bytes:
        found = message_of_frame(store, number)
        if found is None:
            raise ValueError("this frame is not stored")
        return decode_view(*found, None, transparent=False).png

    client = TestClient(
        console_app(replace(view, store=StoreView(store, worker, picture)), Tokens()), base_url="http://127.0.0.1:1"
    )
    assert [row["id"] for row in client.get("/api/search/frames?label=lorry").json()["found"]] == [1]
    assert client.get("/api/search/frames?from=1970-01-01T00:16:43%2B00:00").json()["found"][0]["id"] == 3
    for wrong in ("from=yesterday", "from=nan", "to=1e400", "min_prob=much", "min_prob=90", "before=1.5", "since=3"):
        for path in ("search/frames", "export/frames.csv", "export/pictures.zip"):
            refused = client.get(f"/api/{path}?{wrong}")
            assert refused.status_code == 400
            assert "accepted: " in refused.json()["error"]
    assert "accepted: camera, label" in client.get("/api/search/events?before=3").json()["error"]
    assert client.get("/api/search/events").json() == {"found": [], "more": False}
    write_batch(store, StoreBatch(events=[("north/door", EVENT)]))
    assert client.get("/api/search/events?label=lorry").json()["found"][0]["id"] == "e"
    head, line, _ = client.get("/api/export/events.csv").text.split("\r\n")
    assert dict(zip(head.split(","), line.split(","), strict=True))["label"] == '"\'=lorry"'
    assert client.get("/api/search/frames/99/picture").status_code == 404
    assert client.get("/api/search/frames/x/picture").status_code == 400
    lines = client.get("/api/export/frames.csv").text.split("\r\n")
    assert (len(lines), lines[0][:9], lines[3].split(",")[5]) == (5, "id,wall_s", '"lorry"')
    archive = zipfile.ZipFile(io.BytesIO(client.get("/api/export/pictures.zip").content))
    assert sorted(archive.namelist()) == [
        "a-b-x1b/north-door-19700101T0016_42-2.png".replace("-x1b", ""),
        "lorry/north-door-19700101T0016_41-1.png",
    ]
    with Image.open(archive.open("lorry/north-door-19700101T0016_41-1.png")) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (16, 16, 3)
    assert (pixels[:4, :4] == 127).all()
    worker.close()


def test_without_a_store_there_is_no_search(view):
    client = TestClient(console_app(view, Tokens()), base_url="http://127.0.0.1:1")
    assert client.get("/api/search/frames").status_code == 404
