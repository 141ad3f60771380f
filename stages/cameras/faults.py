"""What went wrong with a camera, as one of a few classes: FFmpeg's errors are many, and OpenCV tells none of them."""

from __future__ import annotations

import errno
import time

import av

from sagelink.pipeline.credentials import redact
from sagelink.stages.cameras.probe import probe
from sagelink.stages.cameras.supervisor import Fault

_BY_ERROR: list[tuple[type[Exception], Fault]] = [
    (av.error.HTTPUnauthorizedError, Fault.UNAUTHORISED),
    (av.error.HTTPForbiddenError, Fault.UNAUTHORISED),
    (av.error.HTTPNotFoundError, Fault.NOT_FOUND),
    (FileNotFoundError, Fault.NOT_FOUND),
    (ConnectionRefusedError, Fault.REFUSED),
    (av.error.ExitError, Fault.TIMED_OUT),  # our own time limit interrupted FFmpeg
    (TimeoutError, Fault.TIMED_OUT),
    (av.error.EOFError, Fault.END_OF_FILE),
    (ConnectionError, Fault.END_OF_FILE),
    (av.error.InvalidDataError, Fault.CODEC),
    (av.error.DecoderNotFoundError, Fault.CODEC),
]
_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EADDRNOTAVAIL}
_KNOCK_S = 2.0


class CameraFault(Exception):
    """A connection that is of no more use; the message holds no credentials."""

    def __init__(self, kind: Fault, detail: str = "") -> None:
        super().__init__(f"{kind}: {redact(detail)}" if detail else str(kind))
        self.kind = kind


def classify(error: Exception, address: str, late: bool) -> CameraFault:
    """The fault behind an error of FFmpeg; `late`: the time limit was reached, whatever the error says.

    Where FFmpeg says no more than `I/O error`, the address is asked again.
    """
    kind = next((fault for kind, fault in _BY_ERROR if isinstance(error, kind)), Fault.FAILED)
    code = getattr(error, "errno", None)
    if late:
        return CameraFault(Fault.TIMED_OUT)
    if code in _UNREACHABLE:
        kind = Fault.UNREACHABLE
    elif kind is Fault.FAILED and code == errno.EIO and "://" in address:
        kind = probe(address, _KNOCK_S) or kind
    return CameraFault(kind, getattr(error, "strerror", None) or str(error))


def diagnose(address: str, timeout_s: float, options: dict[str, str]) -> CameraFault:
    """Why a URL that answers cannot be opened, found out by opening it once more."""
    began_s = time.monotonic()
    try:
        with av.open(address, options=options, timeout=timeout_s) as container:
            if not container.streams.video:
                return CameraFault(Fault.CODEC, "no video stream")
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        return classify(error, address, late=time.monotonic() - began_s >= timeout_s)
    return CameraFault(Fault.FAILED, "it opens at a second try")
