"""How much memory there is, and how much was used."""

from __future__ import annotations

import os
import resource
from pathlib import Path

GIB = 1 << 30


def cgroup_limit() -> int | None:
    """Bytes that a container may use, where it says so."""
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def memory_of_machine() -> int:
    """Bytes that this process may use, others aside."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = cgroup_limit()
    return min(total, limit) if limit else total


def memory_of_device(device: str) -> int:
    """Bytes of the GPU, or of the machine."""
    if device == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(0).total_memory)
    return memory_of_machine()


def peak_memory(device: str) -> int:
    """Bytes at most so far: on a GPU what tensors took, on a CPU what this process had."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_of_processes() -> int:
    """Bytes at most so far of this process or of one that it has ended, whichever had more."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) * 1024


def restart_peak(device: str) -> bool:
    """Forgets the highest memory so far, so that `peak_memory` is that of what follows; whether that was possible.

    Linux lets a process do so (proc(5), clear_refs); elsewhere the figure stays that of the whole process.
    """
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
