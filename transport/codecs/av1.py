"""AVIF: one AV1 still (AV1 specification, 5.5 and 5.9); the ISO container around it is not sent but rebuilt.

Of the 290 bytes around the coded frame only five bits vary: the coding tools that the sequence header enables. Older
libavif leaves out the description of the colours, which a decoder then assumes to be the same.
"""

from __future__ import annotations

import io
import struct

from PIL import Image

from sagelink.transport.envelope import MalformedMessage

_SPEED = 9  # of libaom: 3 ms for 224 x 224 pixels, where 6 takes 40
_DELIMITER, _SEQUENCE, _FRAME = 2, 1, 6  # OBU types
_HAS_SIZE = 2
_TOOLS = 6  # bits: 128-pixel superblocks, filter intra, intra edge, super-resolution, CDEF, restoration
_SUPERRES = 0b000100  # never accepted: the frame would carry its own size
# 8 bit, colour, described as BT.709 primaries, sRGB transfer, BT.601 matrix, full range; 4:2:0, one quantiser for both
# chroma planes, no film grain; then the trailing bit.
_REST = "1" + "00" + "0" + "0" + "1"
_COLOUR = f"001{1:08b}{13:08b}{6:08b}" + _REST
_KNOWN_COLOURS = (_COLOUR, "000" + _REST)  # libavif 1.4 (Pillow 12.2), and 1.3


def encode(image: Image.Image, quality: int) -> bytes:
    """An AVIF file; `quality` 0 to 100."""
    file = io.BytesIO()
    image.save(file, "AVIF", quality=quality, speed=_SPEED, subsampling="4:2:0", range="full", max_threads=1)
    return file.getvalue()


def strip(file: bytes) -> tuple[int, int, bytes]:
    """Width and height of the picture, and one byte of tools with the content of the frame OBU. Raises
    MalformedMessage."""
    units = dict(_obus(_last_box(file, b"mdat")))
    if set(units) - {_DELIMITER} != {_SEQUENCE, _FRAME}:
        raise MalformedMessage("not an AVIF file of one frame")
    width, height, tools = _read_sequence(units[_SEQUENCE])
    return width, height, bytes([tools]) + units[_FRAME]


def rebuild(width: int, height: int, core: bytes) -> bytes:
    """The AVIF file of a stripped frame. Raises MalformedMessage for tools that are not accepted."""
    if not core or core[0] >> _TOOLS or core[0] & _SUPERRES:
        raise MalformedMessage("unknown AV1 tools")
    frame, sequence = core[1:], _sequence(width, height, core[0])
    return _container(width, height, _obu(_SEQUENCE, sequence) + _obu(_FRAME, frame))


def _sequence(width: int, height: int, tools: int, colour: str = _COLOUR) -> bytes:
    """The sequence header of a still (5.5.1): main profile, reduced header, lowest level."""
    sizes = [(size - 1).bit_length() for size in (width, height)]
    bits = "00011" + "00000" + f"{sizes[0] - 1:04b}{sizes[1] - 1:04b}"
    bits += f"{width - 1:0{sizes[0]}b}{height - 1:0{sizes[1]}b}{tools:0{_TOOLS}b}" + colour
    bits = bits.ljust(-(-len(bits) // 8) * 8, "0")
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _read_sequence(header: bytes) -> tuple[int, int, int]:
    """Width, height and tools. Raises MalformedMessage for a header that `_sequence` could not have written."""
    bits = "".join(f"{byte:08b}" for byte in header[:16]).ljust(128, "0")
    across, down = int(bits[10:14], 2) + 1, int(bits[14:18], 2) + 1
    width = int(bits[18 : 18 + across], 2) + 1
    height = int(bits[18 + across : 18 + across + down], 2) + 1
    at = 18 + across + down
    tools = int(bits[at : at + _TOOLS], 2)
    levelled = (bits[:5] + "00000" + bits[10:])[: len(header) * 8]  # decoders ignore the level
    known = [_sequence(width, height, tools, colour) for colour in _KNOWN_COLOURS if min(width, height) > 1]
    if tools & _SUPERRES or int(levelled, 2).to_bytes(len(header), "big") not in known:
        raise MalformedMessage("an AV1 sequence header that is not known")
    return width, height, tools


def _obu(kind: int, content: bytes) -> bytes:
    size, left = b"", len(content)
    while left > 127:
        size, left = size + bytes([left & 127 | 128]), left >> 7
    return bytes([kind << 3 | _HAS_SIZE]) + size + bytes([left]) + content


def _obus(data: bytes) -> list[tuple[int, bytes]]:
    """Type and content of each OBU; each OBU must carry its size. Raises MalformedMessage."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        kind, size, shift = data[at], 0, 0
        at += 1
        while True:
            if kind & 0x87 != _HAS_SIZE or at >= len(data) or shift > 28:
                raise MalformedMessage("not a sequence of AV1 units")
            size |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 128:
                break
        if at + size > len(data) or any(known == kind >> 3 for known, _ in found):
            raise MalformedMessage("an AV1 unit is cut short or occurs twice")
        found.append((kind >> 3, data[at : at + size]))
        at += size
    return found


def _last_box(file: bytes, kind: bytes) -> bytes:
    """Content of the last box at the top level, which must be of that kind. Raises MalformedMessage."""
    at = 0
    while at + 8 <= len(file):
        size, found = struct.unpack_from(">I4s", file, at)
        if found == kind and at + size == len(file):
            return file[at + 8 :]
        at += max(size, 8)
    raise MalformedMessage("not an AVIF file")


def _make(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _container(width: int, height: int, data: bytes) -> bytes:
    """An AVIF file of one item (ISO 23000-22), with only the boxes that a decoder needs."""
    full = bytes(4)  # version and flags
    kind = _make(b"ftyp", b"avif", full, b"avifmif1miafMA1B")

    def meta(offset: int) -> bytes:
        return _make(
            b"meta",
            full,
            _make(b"hdlr", full, bytes(4), b"pict", bytes(13)),
            _make(b"pitm", full, struct.pack(">H", 1)),
            # one item in one extent: offset and length of 4 bytes each
            _make(b"iloc", full, struct.pack(">BBHHHHII", 0x44, 0, 1, 1, 0, 1, offset, len(data))),
            _make(
                b"iinf",
                full,
                struct.pack(">H", 1),
                _make(b"infe", b"\2\0\0\0", struct.pack(">HH4sB", 1, 0, b"av01", 0)),
            ),
            _make(
                b"iprp",
                _make(
                    b"ipco",
                    _make(b"ispe", full, struct.pack(">II", width, height)),
                    _make(b"pixi", full, b"\3\10\10\10"),
                    _make(b"av1C", b"\x81\0\x0c\0"),
                ),
                _make(b"ipma", full, struct.pack(">IHB3B", 1, 1, 3, 1, 2, 0x83)),
            ),
        )

    return kind + meta(len(kind) + len(meta(0)) + 8) + _make(b"mdat", data)
