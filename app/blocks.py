"""The disk's blocks of files that are mapped into memory."""

import os


def allocate(descriptor: int, size: int) -> None:
    """Take the blocks of `size` bytes now: a store into a mapped hole of a file ends the process when the disk is full.

    Raises OSError when there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    os.ftruncate(descriptor, size)
