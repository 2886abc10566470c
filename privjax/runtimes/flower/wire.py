"""Arrays by name as bytes, without pickle.

A message is a JSON head (names, types, shapes), its length before it, and the arrays'
bytes after it, little-endian. Only numbers and truth values have a type here, and what a
head says is checked against what is there: bytes from elsewhere make arrays or an error.
"""

import json
import math
import struct
from typing import Any

import ml_dtypes
import numpy as np

from privjax.errors import ProtocolError

Message = dict[str, np.ndarray]

# Enough for any model's list of arrays.
HEAD_BYTES = 2**24
_SIZES = (8, 16, 32, 64)
TYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(name)
    for name in (
        "bool",
        *(f"{kind}{size}" for kind in ("int", "uint") for size in _SIZES),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
} | {"bfloat16": np.dtype(ml_dtypes.bfloat16)}


def raw(x: np.ndarray) -> bytes:
    """An array's entries as bytes.

    Raises: ProtocolError for a type that does not travel.
    """
    if x.dtype.name not in TYPES:
        raise ProtocolError(f"an array of {x.dtype} does not travel in messages.")
    little = x.astype(x.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little).tobytes()


def array(dtype: str, shape: Any, data: bytes) -> np.ndarray:
    """The array that `raw` made bytes of.

    Raises: ProtocolError for an unknown type, a wrong shape, or bytes that do not fit.
    """
    sizes = tuple(shape)
    if dtype not in TYPES or not all(isinstance(n, int) and n >= 0 for n in sizes):
        raise ProtocolError(f"a message has an array of {dtype!r} and shape {sizes}.")
    kind = TYPES[dtype]
    if len(data) != math.prod(sizes) * kind.itemsize:
        raise ProtocolError(f"{len(data)} bytes are no {dtype} array of shape {sizes}.")
    little = np.frombuffer(data, kind.newbyteorder("<"))
    return little.astype(kind).reshape(sizes)


def pack(message: Message) -> bytes:
    """A message as one string of bytes."""
    pieces = [raw(x) for x in message.values()]
    head = json.dumps(
        [[name, x.dtype.name, list(x.shape)] for name, x in message.items()]
    ).encode()
    return b"".join([struct.pack("<I", len(head)), head, *pieces])


def unpack(data: bytes) -> Message:
    """The message that `pack` made bytes of.

    Raises: ProtocolError for anything else.
    """
    try:
        (length,) = struct.unpack_from("<I", data)
        if length > HEAD_BYTES:
            raise ProtocolError(f"a message's head of {length} bytes.")
        head = json.loads(data[4 : 4 + length].decode())
        out: Message = {}
        at = 4 + length
        for name, dtype, shape in head:
            size = math.prod(shape) * TYPES[dtype].itemsize
            out[str(name)] = array(dtype, shape, data[at : at + size])
            at += size
    except (struct.error, ValueError, TypeError, KeyError) as error:
        if isinstance(error, ProtocolError):
            raise
        raise ProtocolError(f"these bytes are no message: {error}.") from error
    if at != len(data):
        raise ProtocolError(f"{len(data) - at} bytes are left after a message.")
    return out
