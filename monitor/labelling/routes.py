"""HTTP routes for labels: the labelling page, the state, labels, undo, teaching, and the labelled pictures as a zip."""

from __future__ import annotations

import zipfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from sagelink.monitor.api_requests import api_route, json_object
from sagelink.monitor.guarded_page import JsonResponse
from sagelink.monitor.labelling.desk import LabelDesk
from sagelink.monitor.labelling.desks import LabelDesks
from sagelink.monitor.labelling.folder import FrameKey, pictures_in
from sagelink.monitor.labelling.view import FIRST_HEAD
from sagelink.monitor.labelling.zip_stream import ZipChunks
from sagelink.monitor.previews import small_jpeg
from sagelink.pipeline.threads import Worker

_HEAD = ("head",)  # the query
_MAX_DIGITS = 16
_MAX_ZIP_BYTES = 4_000_000_000
_README = """These pictures were labelled on Sagelink's page, one folder a class.
To teach a head, on a machine that has both models:

    sagelink teach pictures --out site.head

Then run the camera with --head site.head.
"""


def label_routes(desks: LabelDesks, worker: Worker, page: Response) -> list[Route]:
    """The query `head` names a further head; without it, requests are about the first one. `worker`: the thread that
    writes files. `page`: the labelling page."""
    api = LabelApi(desks, worker)

    async def label_page(_: Request) -> Response:
        await worker.call(desks.recount)
        return page

    return [
        Route("/label", label_page),
        api_route("/api/labels", api.state, _HEAD),
        api_route("/api/labels", api.label, _HEAD, ["POST"]),
        api_route("/api/labels/class", api.add_class, _HEAD, ["POST"]),
        api_route("/api/labels/undo", api.undo, _HEAD, ["POST"]),
        api_route("/api/labels/skip", api.skip, _HEAD, ["POST"]),
        api_route("/api/labels/hold", api.hold, _HEAD, ["POST"]),
        api_route("/api/labels/pictures.zip", api.pack, _HEAD),
        api_route("/api/labels/picture/{camera}/{seq}", api.picture, ("small",)),
        api_route("/api/teach/{action}", api.teach, _HEAD, ["POST"]),
    ]


class LabelApi:
    """Changes answer with the new state, or with status 400 (refused) or 500 (the disk failed) and an `error`."""

    def __init__(self, desks: LabelDesks, worker: Worker) -> None:
        self._desks = desks
        self._worker = worker

    async def state(self, request: Request) -> Response:
        return JsonResponse(self._desks.state(_head(request)))

    async def picture(self, request: Request) -> Response:
        camera, seq = request.path_params["camera"], request.path_params["seq"]
        if not (seq.isascii() and seq.isdecimal() and len(seq) <= _MAX_DIGITS):
            return JsonResponse({"error": f"accepted: a frame number of up to {_MAX_DIGITS} digits"}, 400)
        stored = self._desks.of().frames.store.get(FrameKey(camera, int(seq)))
        if stored is None:
            return JsonResponse({"error": "the full picture of this frame is no longer stored"}, 404)
        small = "small" in request.query_params
        content = await self._worker.call(small_jpeg, stored.jpeg) if small else stored.jpeg
        return Response(content, media_type="image/jpeg")

    async def label(self, request: Request) -> Response:
        return await self._change(request, ("camera", "seq", "label"), LabelDesk.label)

    async def add_class(self, request: Request) -> Response:
        return await self._change(request, ("name",), LabelDesk.add_class)

    async def skip(self, request: Request) -> Response:
        return await self._change(request, ("camera", "seq"), LabelDesk.skip)

    async def hold(self, request: Request) -> Response:
        return await self._change(request, ("camera", "seq"), LabelDesk.hold)

    async def undo(self, request: Request) -> Response:
        return await self._change(request, (), lambda desk, values: desk.undo())

    async def teach(self, request: Request) -> Response:
        head, action = _head(request), request.path_params["action"]
        keys = ("without_missing",) if action == "begin" else ()
        return await self._change(request, keys, lambda desk, values: self._desks.teach(head, action, values))

    async def pack(self, request: Request) -> Response:
        """The labelled pictures as a zip file, stored without compression, for a machine that has `sagelink teach`."""
        labels = self._desks.of(_head(request)).folder
        folder, names = labels.folder, [*labels.counts()]

        async def chunks() -> AsyncIterator[bytes]:
            sink = ZipChunks()
            total = 0
            with zipfile.ZipFile(sink, "w") as archive:
                archive.writestr("README.txt", _README)
                for name in names:
                    for path in sorted(pictures_in(folder / name)):
                        total += path.stat().st_size
                        if total > _MAX_ZIP_BYTES:
                            return
                        inner = path.relative_to(folder).as_posix()
                        await self._worker.call(archive.write, path, f"pictures/{inner}")
                        yield sink.take()
            yield sink.take()

        headers = {"Content-Disposition": 'attachment; filename="labelled-pictures.zip"'}
        return StreamingResponse(chunks(), media_type="application/zip", headers=headers)

    async def _change(
        self, request: Request, keys: Sequence[str], change: Callable[[LabelDesk, Mapping[str, object]], None]
    ) -> Response:
        """`keys`: what the JSON object may hold."""
        desk, values = self._desks.of(_head(request)), await json_object(request, keys)
        await self._worker.call(change, desk, values)
        return JsonResponse(self._desks.state(_head(request)))


def _head(request: Request) -> str:
    """The name of the head that a request is about; empty: the first one."""
    return request.query_params.get("head", FIRST_HEAD)
