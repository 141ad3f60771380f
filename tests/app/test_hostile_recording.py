"""A recording from a stranger: it opens no connection, reads no file outside its folder, and ends in a clear error."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sagelink.app.commands.replay import check
from sagelink.app.edge.run import prepare
from sagelink.app.replay.recorded_config import recorded_config
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import dump_config, load_config
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.own_files import is_inside

SECRET = "hunter2-of-the-user"  # noqa: S105
FRONTIER = (
    "server: demo-server\nunits: 196\npixels: 112\nlines:\n"
    "- {codec: avif, side: 112, units: 196, points: {20: [400, 0.5, 0.5], 60: [1500, 0.6, 1.0]}}\n"
)


def make(pair: Pair, folder: Path, **settings: object) -> Path:
    given = {"models": "demo", "gate.policy": "always", "capture.source": "synthetic:2", "output.record": str(folder)}
    prepare(load_config(None, given | settings), pair).run()
    return folder


@pytest.fixture(scope="module")
def original(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(pair, tmp_path_factory.mktemp("original") / "rec")


@pytest.fixture
def recording(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "rec"))


def configure(recording: Path, **sections: object) -> None:
    path = recording / "config.yaml"
    tree = yaml.safe_load(path.read_text())
    for section, values in sections.items():
        tree[section] = tree[section] | values if isinstance(values, dict) else values
    path.write_text(yaml.safe_dump(tree))


def edit_row(recording: Path, **changes: object) -> None:
    lines = (recording / "frames.jsonl").read_text().splitlines()
    verdict = changes.pop("verdict", {})
    row = json.loads(lines[0]) | changes
    row["verdict"] |= verdict
    (recording / "frames.jsonl").write_text("\n".join([json.dumps(row), *lines[1:]]) + "\n")


def test_no_connection_is_opened_and_no_secret_is_read(
    recording: Path, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text(SECRET)
    with socket.create_server(("127.0.0.1", 0)) as attacker:
        port = attacker.getsockname()[1]
        attacker.settimeout(0.2)
        configure(
            recording,
            home_assistant={"broker": f"mqtt://127.0.0.1:{port}", "every": 0.1},
            mqtt={"username": "u", "password_file": str(tmp_path / "password"), "ca": str(tmp_path / "password")},
            dashboard={"address": "127.0.0.1:0"},
            output={
                "out": str(tmp_path / "out"),
                "record": str(tmp_path / "again"),
                "annotate": str(tmp_path / "a.mp4"),
            },
            capture={"source": f"http://127.0.0.1:{port}/x", "duration": 0.01, "max_frames": 1},
            webrtc={"token_file": str(tmp_path / "password")},
        )
        check(recording, pair)
        with pytest.raises(TimeoutError):
            attacker.accept()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["password", "rec"]


def test_only_listed_settings_are_obeyed(recording: Path) -> None:
    """A key that is new in the configuration is not obeyed until somebody lists it."""
    kept = yaml.safe_load(dump_config(recorded_config(recording, {})))
    default = yaml.safe_load(dump_config(Config()))
    configure(
        recording,
        home_assistant={"broker": "mqtt://h"},
        mqtt={"prefix": "other", "node": "n"},
        serve={"listen": "mqtt://h", "http": "0.0.0.0:1"},
        dashboard={"address": "0.0.0.0:1"},
        webrtc={"node": "n", "ice_servers": ["stun:h"]},
    )
    obeyed = yaml.safe_load(dump_config(recorded_config(recording, {})))
    assert obeyed == kept
    for section in ("home_assistant", "mqtt", "dashboard", "webrtc", "output"):
        assert obeyed[section] == default[section]


def test_settings_that_this_version_does_not_have_are_refused_where_they_were_used(recording: Path) -> None:
    configure(recording, select={"memory": None}, serve={"memory": "256MB"}, video={"saving": False})
    recorded_config(recording, {})
    configure(recording, select={"memory": "10s"})
    with pytest.raises(UsageError, match=r"was made with select\.memory, which this version does not have"):
        recorded_config(recording, {})


@pytest.mark.parametrize("key", ["edge.checkpoint", "edge.labels", "server.checkpoint", "encode.frontier"])
@pytest.mark.parametrize("name", ["/etc/hostname", "../secret", "sub/../../secret", "link"])
def test_files_outside_the_recording_are_refused(
    recording: Path, tmp_path: Path, key: str, name: str, command: Callable[..., tuple[int, str]]
) -> None:
    (tmp_path / "secret").write_text(SECRET)
    (recording / "link").symlink_to(tmp_path / "secret")
    section, _, field = key.partition(".")
    configure(recording, **{section: {field: name}})
    code, printed = command("replay", recording)
    text = " ".join(printed.split())
    assert (code, SECRET in text, "internal" in text) == (2, False, False)
    assert f"--set {key}=FILE" in text


def test_a_file_of_the_user_counts_when_the_user_names_it(pair: Pair, tmp_path: Path, capsys) -> None:
    """A run copies its frontier; a recording that names one elsewhere is exact again with the file from the user."""
    (tmp_path / "mine.yaml").write_text(FRONTIER)
    recording = make(pair, tmp_path / "rec", **{"encode.frontier": str(tmp_path / "mine.yaml")})
    assert yaml.safe_load((recording / "config.yaml").read_text())["encode"]["frontier"] == "frontier.yaml"
    (recording / "frontier.yaml").unlink()
    configure(recording, encode={"frontier": str(tmp_path / "mine.yaml")})
    with pytest.raises(UsageError, match="a file outside of the recording"):
        check(recording, pair)
    check(recording, pair, files={"encode.frontier": str(tmp_path / "mine.yaml")})
    assert "2 of 2 frames" in capsys.readouterr().out


def test_naming_the_recorded_file_again_is_still_an_exact_replay(
    recording: Path, tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"class {number}\n" for number in range(16)))
    configure(recording, server={"labels": str(labels)})
    code, printed = command("replay", recording, "--set", f"server.labels={labels}")
    assert not (recording / "replay").exists()
    assert "frames" in printed or code in (1, 2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"video": "../camera-000.ts"}, "video"),
        ({"video": "/etc/passwd"}, "video"),
        ({"video": "http://h/camera-000.ts"}, "video"),
        ({"video": "camera-001.ts"}, "camera-001.ts"),
        ({"message": [0, 10**9]}, "message"),
        ({"message": [-1, 4]}, "message"),
        ({"reply": "zz"}, "reply"),
        ({"stream_s": 1e300}, "stream_s"),
        ({"capture_ns": 10**30}, "64 bits"),
        ({"verdict": {"camera": "../x"}}, "camera"),
        ({"verdict": {"drop": "dropped"}}, "drop"),
        ({"verdict": {"seq": -1}}, "seq"),
        ({"heard": [[[]] * 20_000]}, "too many values"),
    ],
)
def test_a_forged_row_is_a_usage_error(recording: Path, pair: Pair, changes: dict, reason: str) -> None:
    edit_row(recording, **changes)
    with pytest.raises(UsageError, match=reason):
        check(recording, pair)


@pytest.mark.parametrize("name", ["frames.jsonl", "messages.bin", "config.yaml", "camera-000.ts"])
def test_a_link_out_of_the_folder_is_refused(recording: Path, pair: Pair, tmp_path: Path, name: str) -> None:
    shutil.move(recording / name, tmp_path / name)
    (recording / name).symlink_to(tmp_path / name)
    with pytest.raises(UsageError, match=f"{name}', which is outside its folder"):
        check(recording, pair)


@pytest.mark.parametrize("text", ["#EXTM3U\n#EXTINF:1,\n{}\n", "ffconcat version 1.0\nfile {}\n"])
def test_a_playlist_in_place_of_a_video_is_not_followed(recording: Path, pair: Pair, tmp_path: Path, text: str) -> None:
    shutil.move(recording / "camera-000.ts", tmp_path / "real.ts")
    (recording / "camera-000.ts").write_text(text.format(tmp_path / "real.ts") * 50)
    with pytest.raises(UsageError, match="camera-000.ts"):
        check(recording, pair)


def test_a_line_and_its_configuration_are_bounded(recording: Path, pair: Pair) -> None:
    with (recording / "frames.jsonl").open("a") as file:
        file.write("[" * 300_000 + "\n")
    with pytest.raises(UsageError, match="line 3 cannot be read: it has more than"):
        check(recording, pair)


@pytest.mark.parametrize("text", ["a: &a [" + "x," * 9 + "]", "[" * 5000, "a: " + "9" * 5000, "\xff"])
def test_a_damaged_configuration_of_a_recording_is_a_usage_error(recording: Path, pair: Pair, text: str) -> None:
    (recording / "config.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match="config"):
        check(recording, pair)


@pytest.mark.parametrize("name", ["config.yaml", "camera-000.ts"])
def test_an_empty_file_of_a_recording_is_named(recording: Path, pair: Pair, name: str, capfd) -> None:
    (recording / name).write_bytes(b"")
    with pytest.raises(UsageError, match=rf"{name} is empty"):
        check(recording, pair)
    assert "Traceback" not in capfd.readouterr().err


def test_names_that_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "out").symlink_to("/")
    assert [is_inside(tmp_path, name) for name in ("a", "a/b", "new.yaml")] == [True, True, True]
    for name in ("/a", "..", "a/../b", "out/etc", "a\0b"):
        assert not is_inside(tmp_path, name)
