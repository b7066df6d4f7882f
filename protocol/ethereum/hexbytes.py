"""`0x` hex text, as messages carry it, to bytes, as they are hashed, signed or encoded; and back."""

from __future__ import annotations

import binascii

from protocol.errors import BadMessage

_DIGITS = {digit: int(digit, 16) for digit in "0123456789abcdefABCDEF"}
#: Value that iExec's Java decoder gives a character that is no hex digit.
_NOT_A_DIGIT = -1


def to_hex(data: bytes) -> str:
    """`data` as lower-case `0x` hex."""
    return "0x" + data.hex()


def to_bytes(text: str, size: int | None = None) -> bytes:
    """Bytes behind `0x` hex of either case, exactly `size` of them if given; otherwise BadMessage."""
    if not text.startswith("0x"):
        raise BadMessage(why=f"{_excerpt(text)} is not 0x hex")
    try:
        data = binascii.unhexlify(text[2:])
    except ValueError as error:
        raise BadMessage(why=f"{_excerpt(text)} is not 0x hex") from error
    if size is not None and len(data) != size:
        raise BadMessage(why=f"{_excerpt(text)} is {len(data)} bytes long instead of {size}")
    return data


def to_bytes_leniently(text: str) -> bytes:
    """Bytes as iExec's Java decoder reads them: an odd first digit stands alone, a non-digit counts as -1.

    Only for what must hash like Java workers hash it (callback data; iexec-worker 9.2). Java counts characters by their
    UTF-16 code units.
    """
    units = [unit for character in text.removeprefix("0x") for unit in (character, character)[character <= "\uffff" :]]
    digits = [_DIGITS.get(unit, _NOT_A_DIGIT) for unit in units]
    odd = len(digits) % 2
    head = bytes(digit & 0xFF for digit in digits[:odd])
    pairs = zip(digits[odd::2], digits[odd + 1 :: 2], strict=True)
    return head + bytes(((high << 4) + low) & 0xFF for high, low in pairs)


def _excerpt(text: str) -> str:
    """The first characters of untrusted text, enough to recognise it in an error message."""
    return repr(text if len(text) <= 80 else text[:77] + "...")
