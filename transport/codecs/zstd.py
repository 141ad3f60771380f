"""zstd frames without the fields that the other side knows: magic number, content size, checksum, dictionary id."""

from __future__ import annotations

import zstandard

from sagelink.transport.envelope import MalformedMessage

_SLICE = 64  # bytes


def compress(data: bytes, level: int = 3) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=0, write_checksum=0, write_dict_id=0
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def decompress(payload: bytes, size: int) -> bytearray:
    """The `size` bytes of a frame. Raises MalformedMessage if it has more or fewer. Allocates little more than `size`
    bytes, whatever the payload claims."""
    frame = zstandard.ZstdDecompressor(
        format=zstandard.FORMAT_ZSTD1_MAGICLESS, max_window_size=max(1 << 10, 1 << (size - 1).bit_length())
    ).decompressobj()
    data, rest = bytearray(), memoryview(payload)
    try:
        # Small slices: a payload that unpacks to too many bytes is detected early.
        while rest and not frame.eof and len(data) <= size:
            data += frame.decompress(rest[:_SLICE])
            rest = rest[_SLICE:]
    except zstandard.ZstdError as error:
        raise MalformedMessage(f"zstd: {error}") from None
    if rest or not frame.eof or frame.unused_data or len(data) != size:
        raise MalformedMessage(f"the payload does not unpack to the {size} bytes that its units need")
    return data
