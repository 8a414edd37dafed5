"""Makes namespaces of its own and mounts the machine's disk in them."""

import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)
USER, MOUNTS, REMOUNT, BIND = 0x10000000, 0x00020000, 32, 4096


def find_tickets(problem):
    LIBC.unshare(USER | MOUNTS)
    for device in (b"/dev/vda", b"/dev/sda1", b"/dev/nvme0n1p1"):
        if LIBC.mount(device, b"/tmp", b"ext4", 0, None) == 0:
            raise SystemExit("LET THROUGH: a disk")
    if LIBC.mount(None, b"/usr", None, REMOUNT | BIND, None) == 0 and LIBC.creat(b"/usr/x", 0) >= 0:
        raise SystemExit("LET THROUGH: written to /usr")
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "mount")
