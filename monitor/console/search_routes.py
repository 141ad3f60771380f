"""HTTP routes of the console's store: search, stored pictures, and exports as CSV and as pictures in class folders."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from sagelink.monitor.api_requests import api_route, number, whole, words
from sagelink.monitor.console.console_store import ConsoleStore
from sagelink.monitor.console.csv_lines import csv_lines
from sagelink.monitor.console.store_search import (
    EVENT_COLUMNS,
    FRAME_COLUMNS,
    MAX_FOUND,
    FrameSearch,
    find_events,
    find_frames,
)
from sagelink.monitor.guarded_page import JsonResponse
from sagelink.monitor.labelling.zip_stream import ZipChunks
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.threads import Worker

_FILTERS = ("camera", "label", "from", "to", "min_prob")
_MAX_TEXT = 120  # characters of a filter
_MAX_ID = 10**18
_MAX_PICTURES = 5000  # in an export
_MAX_ROWS = 1_000_000
_UNSAFE = re.compile(r"[^A-Za-z0-9-]+")


Pages = Callable[[FrameSearch, int], AsyncIterator[list[dict[str, object]]]]  # takes the largest number of rows


@dataclass(frozen=True, slots=True)
class StoreView:
    """The store, as its routes use it."""

    store: ConsoleStore
    worker: Worker  # the thread of the store
    picture: Callable[[int], Awaitable[bytes]]  # PNG of a stored frame, grey where nothing was sent; raises ValueError


def search_of(query: Mapping[str, str]) -> FrameSearch:
    """`camera`, `label`, `from`, `to` (s since 1970, or ISO 8601), `min_prob`, `before`. Raises UsageError."""
    return FrameSearch(
        camera=words(query, "camera", _MAX_TEXT),
        label=words(query, "label", _MAX_TEXT),
        from_s=_time("from", query.get("from")),
        to_s=_time("to", query.get("to")),
        min_prob=number(query, "min_prob", 0, 1),
        before=whole(query, "before", 0, _MAX_ID, default=0) if query.get("before") else None,
    )


def search_routes(view: StoreView) -> list[BaseRoute]:
    """The routes below `/api/search` and `/api/export`."""
    search = SearchApi(view)
    return [
        api_route("/api/search/frames", search.frames, (*_FILTERS, "before")),
        api_route("/api/search/events", search.events, _FILTERS),
        api_route("/api/search/frames/{number}/picture", search.picture),
        api_route("/api/export/frames.csv", search.frames_csv, (*_FILTERS, "before")),
        api_route("/api/export/events.csv", search.events_csv, _FILTERS),
        api_route("/api/export/pictures.zip", search.pictures, (*_FILTERS, "before")),
    ]


class SearchApi:
    """What programs read of the store."""

    def __init__(self, view: StoreView) -> None:
        self._view = view

    async def frames(self, request: Request) -> Response:
        return await self._found(request, find_frames)

    async def events(self, request: Request) -> Response:
        return await self._found(request, find_events)

    async def _found(
        self, request: Request, find: Callable[[ConsoleStore, FrameSearch], list[dict[str, object]]]
    ) -> Response:
        search = search_of(request.query_params)
        try:
            found = await self._view.worker.call(find, self._view.store, search)
        except SagelinkError as error:
            return JsonResponse({"error": str(error)}, 503)
        return JsonResponse({"found": found, "more": len(found) == MAX_FOUND})

    async def picture(self, request: Request) -> Response:
        frame = whole(request.path_params, "number", 0, _MAX_ID, default=0)
        try:
            return Response(await self._view.picture(frame), media_type="image/png")
        except ValueError as error:
            return JsonResponse({"error": str(error)}, 404)

    async def frames_csv(self, request: Request) -> Response:
        """All frames that a search finds, newest first."""
        return self._csv(request, "frames.csv", FRAME_COLUMNS, self._pages)

    async def events_csv(self, request: Request) -> Response:
        """All events that a search finds, the one that changed last first."""
        return self._csv(request, "events.csv", EVENT_COLUMNS, self._event_pages)

    def _csv(self, request: Request, name: str, columns: Sequence[str], pages: Pages) -> Response:
        search = search_of(request.query_params)

        async def lines() -> AsyncIterator[str]:
            yield ",".join(columns) + "\r\n"
            async for rows in pages(search, _MAX_ROWS):
                yield "".join(csv_lines(rows))

        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(lines(), media_type="text/csv; charset=utf-8", headers=headers)

    async def pictures(self, request: Request) -> Response:
        """The pictures of the frames that a search finds, one folder a label, newest first."""
        search = search_of(request.query_params)

        async def chunks() -> AsyncIterator[bytes]:
            sink, written = ZipChunks(), 0
            with zipfile.ZipFile(sink, "w") as archive:
                async for rows in self._pages(search, _MAX_ROWS):
                    for row in rows:
                        if not row["label"] or written == _MAX_PICTURES:
                            continue
                        try:
                            png = await self._view.picture(int(str(row["id"])))
                        except ValueError:
                            continue
                        written += 1
                        archive.writestr(_name(row), png)
                        yield sink.take()
                    if written == _MAX_PICTURES:
                        break
            yield sink.take()

        headers = {"Content-Disposition": 'attachment; filename="pictures.zip"'}
        return StreamingResponse(chunks(), media_type="application/zip", headers=headers)

    async def _pages(self, search: FrameSearch, most: int) -> AsyncIterator[list[dict[str, object]]]:
        found = 0
        while found < most:
            rows = await self._view.worker.call(find_frames, self._view.store, search)
            if rows:
                yield rows
            if len(rows) < MAX_FOUND:
                return
            found += len(rows)
            search = replace(search, before=rows[-1]["id"])

    async def _event_pages(self, search: FrameSearch, most: int) -> AsyncIterator[list[dict[str, object]]]:
        for skipped in range(0, most, MAX_FOUND):
            rows = await self._view.worker.call(find_events, self._view.store, search, MAX_FOUND, skipped)
            if rows:
                yield rows
            if len(rows) < MAX_FOUND:
                return


def _name(row: Mapping[str, object]) -> str:
    """`label/node-camera_20261129T104358_123.png`: the part before `_` is the group, as `sagelink teach` reads it."""
    label = _UNSAFE.sub("-", str(row["label"])).strip("-")[:60] or "unnamed"
    camera = _UNSAFE.sub("-", str(row["camera"]))[:80]
    when = datetime.fromtimestamp(float(str(row["wall_s"])), UTC)
    return f"{label}/{camera}-{when:%Y%m%dT%H%M}_{when:%S}-{row['seq']}.png"


def _time(key: str, text: str | None) -> float | None:
    if not text:
        return None
    try:
        time_s = float(text)
    except ValueError:
        try:
            time_s = datetime.fromisoformat(text[:40]).timestamp()
        except (ValueError, OverflowError):
            time_s = math.nan
    if not math.isfinite(time_s):
        raise UsageError(f"{key} {text[:40]!r}; accepted: seconds since 1970, or 2026-11-29T10:00")
    return time_s
