"""`sagelink models` describes head files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sagelink.models.heads.head import write_head
from sagelink.models.pair import Pair
from tests.heads import random_head


def test_a_folder_of_heads_is_described(command: Callable[..., tuple[int, str]], pair: Pair, tmp_path: Path) -> None:
    head = random_head(pair)
    write_head(head, tmp_path / "site.head")
    code, printed = command("models", tmp_path)
    assert code == 0, printed
    for text in (f"site.head: head {head.taught.head_id.hex()}", "3: gate open, gate shut, lorry", "demo-server (back"):
        assert text in printed
    (tmp_path / "empty").mkdir()
    code, printed = command("models", tmp_path / "empty")
    assert (code, "holds no *.head file" in printed) == (2, True)
    (tmp_path / "other.head").write_bytes(b"x" * 100)
    code, printed = command("models", tmp_path / "other.head")
    assert (code, "damaged or not a head file" in printed) == (2, True)
