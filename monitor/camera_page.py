"""The web page that makes a browser a camera of the server. It shares its style sheet with the dashboard."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import Response

from sagelink.net.http import static_files

_HERE = Path(__file__).parent
_SHARED = ("style.css", "theme.js", "format.js", "icon.svg")


def camera_page() -> dict[str, Response]:
    """The files of the page by URL path."""
    own, shared = static_files(_HERE / "camera"), static_files(_HERE / "static")
    page = own.pop("index.html")
    return {
        "/": page,
        **{f"/camera/{name}": file for name, file in own.items()},
        **{f"/static/{name}": shared[name] for name in _SHARED},
    }
