"""Sorting the header of safetensors files, so that equal content is saved as equal bytes."""

from __future__ import annotations

import json

_LENGTH = 8  # a file begins with the length of its header, a little-endian integer of 8 bytes
_METADATA = "__metadata__"


def sorted_header(content: bytes) -> bytes:
    """Returns a safetensors file whose header has its metadata in alphabetical order.

    The package safetensors writes the metadata in a random order. The order of the tensors is kept.

    Args:
        content: The file, as ``safetensors.torch.save`` returned it.
    """
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    header = json.loads(content[_LENGTH:end])
    header[_METADATA] = dict(sorted(header.get(_METADATA, {}).items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH)  # the tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(_LENGTH, "little") + text + content[end:]
