"""Keeps freed memory inside a training process, so that every update finds its buffers mapped already."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
_MEBIBYTE = 1 << 20


def keep_freed_memory() -> bool:
    """Tell the C allocator of this process to reuse freed blocks instead of returning them to the system.

    An update frees and allocates tensors of about a megabyte thousands of times a second; by default each of
    them is mapped and cleared by the kernel anew. Call it once, before training on a CPU. The process then
    keeps its peak memory. Returns False, having done nothing, where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    settings = (
        (_MMAP_THRESHOLD, 32 * _MEBIBYTE),
        (_TRIM_THRESHOLD, 1024 * _MEBIBYTE),
        (_TOP_PAD, 64 * _MEBIBYTE),
    )
    return all(mallopt(key, value) == 1 for key, value in settings)
