"""File names that are not UTF-8: they are seen and shown, but fit no table and no message as they are."""

from __future__ import annotations

from pathlib import Path


def is_utf8(text: str | Path) -> bool:
    r"""Whether a name can be written as UTF-8.

    Python stands in a lone surrogate for each byte of a file name that it cannot decode (PEP 383).

    >>> is_utf8("é.nii"), is_utf8("bad\udcff.nii")
    (True, False)
    """
    try:
        str(text).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def shown(text: str | Path) -> str:
    r"""Name with the bytes that are not UTF-8 escaped; a name in UTF-8 as it is.

    >>> shown("bad\udcff.nii")
    'bad\\xff.nii'
    """
    return str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def not_utf8_words(name: str) -> str:
    r"""Say of a file name that it cannot be taken, with its bytes.

    >>> print(not_utf8_words("bad\udcff.nii"))
    its name is not UTF-8: b'bad\xff.nii'
    """
    return f"its name is not UTF-8: {name.encode('utf-8', 'surrogateescape')!r}"
