"""Bytes of files, a piece at a time."""

import hashlib

_CHUNK_BYTES = 1 << 20  # the most that a message of an upload holds


def chunks(path):
    with open(path, "rb") as file:
        yield from iter(lambda: file.read(_CHUNK_BYTES), b"")


def sha256(path):
    """Lower-case hex."""
    digest = hashlib.sha256()
    for chunk in chunks(path):
        digest.update(chunk)
    return digest.hexdigest()
