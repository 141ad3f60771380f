"""The page of `sagelink serve` in a real browser whose camera shows a drawn scene, next to a real edge run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from bench.ports import free_port
from sagelink.app.server.browser_cameras import full_evidence
from sagelink.models import loading
from sagelink.pipeline.config.models import ModelConfig
from sagelink.pipeline.types import Pixels
from sagelink.server.classify import Classifier
from sagelink.server.receive import receive
from sagelink.stages.sources.synthetic import SyntheticSource
from tests.app.runs import answered, dropped, finish, live_run, serve, wait_for_lines
from tests.browsers import chromium, wait_for
from tests.patience import PATIENCE_MS
from tests.processes import Sagelink
from tests.push import TOKEN

FAKE_CAMERA = "--use-fake-device-for-media-stream"
LOOPBACK = "--allow-loopback-in-peer-connection"  # for machines with no other interface


@pytest.fixture(scope="module")
def scene() -> tuple[Pixels, str]:
    """A picture that the demo server classifies with high confidence, and its label."""
    model = loading.load(ModelConfig(), "demo-server")
    classifier = Classifier(model)
    shots = [*SyntheticSource(20, 640, 480, seed=3, hold=1)]
    received = [receive(full_evidence(0, shot.pixels, model.grid, "squash"), classifier.canvas) for shot in shots]
    right = {
        log_probs[0]: shot
        for shot, (classes, log_probs) in zip(shots, classifier(received), strict=True)
        if classes[0] == shot.truth
    }
    shot = right[max(right)]
    return shot.pixels, model.labels[shot.truth]


@pytest.fixture(scope="module")
def browser(scene: tuple[Pixels, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    picture = av.VideoFrame.from_ndarray(scene[0], format="rgb24").reformat(format="yuv420p").to_ndarray().tobytes()
    video = tmp_path_factory.mktemp("camera") / "scene.y4m"
    video.write_bytes(b"YUV4MPEG2 W640 H480 F15:1 Ip A1:1 C420jpeg\n" + (b"FRAME\n" + picture) * 2)
    with chromium(FAKE_CAMERA, f"--use-file-for-fake-video-capture={video}", LOOPBACK) as browser:
        yield browser


@pytest.fixture
def port() -> int:
    return free_port()


def open_page(browser: Any, port: int, camera: bool = True) -> Any:
    context = browser.new_context(permissions=["camera"] if camera else [])
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(f"http://127.0.0.1:{port}/")
    return page


def shows(element: str, text: str) -> str:
    return f"document.getElementById('{element}').textContent.includes('{text}')"


def wait_until_live(page: Any) -> None:
    """Waits until the page shows an answer that arrived after this call."""
    count = int(page.evaluate("document.body.dataset.answers ?? 0"))
    wait_for(page, f"{shows('connection', 'live')} && document.body.dataset.answers > {count}")


def enter(page: Any, token: str) -> None:
    page.fill("#token", token)
    page.click("#login button")


def hide(page: Any, hidden: bool) -> None:
    """Acts like a switch to another tab; a headless browser shows all its pages."""
    value = "true" if hidden else "false"
    page.evaluate(f"Object.defineProperty(document, 'hidden', {{ value: {value}, configurable: true }})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def serving(port: int, *arguments: str, **environment: str) -> Sagelink:
    return serve(f"webrtc+http://127.0.0.1:{port}", *arguments, **environment)


@pytest.mark.campaign
def test_page_shows_answers_next_to_an_edge_run_and_survives_a_server_restart(
    browser: Any, scene: tuple[Pixels, str], port: int, tmp_path: Path
) -> None:
    with serving(port) as server, live_run(f"webrtc+http://127.0.0.1:{port}", tmp_path) as run:
        server.said(f"page for browsers on http://127.0.0.1:{port}/")
        wait_for_lines(tmp_path, answered)
        page = open_page(browser, port)
        wait_until_live(page)
        assert page.inner_text("#label") == scene[1]
        assert page.locator("#top li").count() == 5
        assert page.inner_text("#delay").endswith("s")
        wait_for(page, shows("size", "640"))
        wait_for(page, "Number(document.getElementById('rate').textContent) > 0")
        wait_for_lines(tmp_path, answered, 10)
        server.kill()
        wait_for(page, shows("connection", "trying again"))
        wait_for_lines(tmp_path, dropped("link"))
        with serving(port) as another:
            wait_until_live(page)
            wait_for_lines(tmp_path, answered)
            run.interrupt()
            finish(run, tmp_path)
            another.interrupt()
            assert another.ended() == 0  # the open page does not delay the end
            assert "Traceback" not in another.output
        wait_for(page, shows("connection", "trying again"))
        page.context.close()


@pytest.mark.campaign
def test_page_needs_a_camera_a_token_and_a_free_place(browser: Any, port: int) -> None:
    with serving(port, "--set", "webrtc.max_viewers=1", SAGELINK_WEBRTC_TOKEN=TOKEN) as server:
        server.said("serving")
        page = open_page(browser, port, camera=False)
        wait_for(page, shows("problem-text", "does not allow the camera"))
        page.context.grant_permissions(["camera"])
        page.click("#again")
        wait_for(page, shows("login-text", "needs a token"))
        assert not page.is_visible("#problem")
        enter(page, "a-wrong-token-of-some-length")
        wait_for(page, shows("login-text", "not the token"))
        enter(page, TOKEN)
        wait_until_live(page)

        other = open_page(browser, port)
        wait_for(other, shows("login-text", "needs a token"))
        enter(other, TOKEN)
        wait_for(other, shows("connection", "server full"))
        hide(page, True)
        wait_for(page, shows("connection", "paused"))
        wait_until_live(other)
        hide(page, False)
        wait_for(page, shows("connection", "server full"))
        page.context.close()
        other.context.close()
