"""The group of curve25519, as far as X25519 itself does not offer it.

X25519 (RFC 7748) multiplies a point's u-coordinate by a secret scalar; it can neither
add points nor hash into the group. Here are these two, in affine coordinates of the
equivalent Edwards curve -x^2 + y^2 = 1 + d x^2 y^2 (RFC 8032, section 5.1), whose
addition law has no exceptions. Secret scalars never come here. Python integers do not
take constant time: local timing is not protected.
"""

import hashlib

from privjax.errors import ProtocolError

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
_ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)

Point = tuple[int, int]
NEUTRAL: Point = (0, 1)


def from_y(y: int, odd: bool) -> Point | None:
    """The point with this y and with x odd or even; None if there is none."""
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * _ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P or (x == 0 and odd):
        return None
    return (P - x if (x & 1) != odd else x), y


def from_u(data: bytes, odd: bool) -> Point:
    """One of the two points with this u-coordinate (RFC 7748: y = (u - 1) / (u + 1))."""
    u = int.from_bytes(data, "little") % 2**255 % P
    point = from_y((u - 1) * pow(u + 1, -1, P) % P, odd) if u != P - 1 else None
    if point is None:
        raise ProtocolError("a received value is no point of curve25519.")
    return point


def to_u(point: Point) -> bytes:
    """u = (1 + y) / (1 - y) as X25519 takes it; 0 for the neutral element."""
    y = point[1]
    return ((1 + y) * pow(1 - y, P - 2, P) % P).to_bytes(32, "little")


def encode(point: Point) -> bytes:
    """RFC 8032, section 5.1.2."""
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


def decode(data: bytes) -> Point:
    """RFC 8032, section 5.1.3. Raises ProtocolError if there is no such point."""
    value = int.from_bytes(data, "little")
    point = from_y(value % 2**255, bool(value >> 255)) if len(data) == 32 else None
    if point is None:
        raise ProtocolError("a received value is no point of curve25519.")
    return point


def add(one: Point, two: Point) -> Point:
    """RFC 8032, section 5.1.4, affine: defined for every pair of points."""
    (x1, y1), (x2, y2) = one, two
    product = D * x1 * x2 * y1 * y2 % P
    # One inversion for both denominators, 1 + product and 1 - product.
    inverse = pow(1 - product * product, -1, P)
    x = (x1 * y2 + x2 * y1) * (1 - product) * inverse % P
    y = (y1 * y2 + x1 * x2) * (1 + product) * inverse % P
    return x, y


def negate(point: Point) -> Point:
    return -point[0] % P, point[1]


def hash_to_group(data: bytes) -> Point:
    """A point of the prime-order subgroup, as a random oracle of `data`.

    The first of SHA-512(counter, data) whose low 32 bytes encode a point, times the
    cofactor 8. Two attempts on average, which the clock shows: for public data.
    """
    counter = 0
    while True:
        digest = hashlib.sha512(counter.to_bytes(4, "little") + data).digest()
        value = int.from_bytes(digest[:32], "little")
        point = from_y(value % 2**255, bool(value >> 255))
        if point is not None:
            for _ in range(3):
                point = add(point, point)
            if point != NEUTRAL:
                return point
        counter += 1
