"""What a device can do and what a process has used of it: measured, for the record."""

import resource
import sys
import time

PEAK_SIZES = {"cpu": (512, 1024), "cuda": (4096, 8192)}
REPEATS = 5


def kind(device: str) -> str:
    """ "cuda" of "cuda:0"."""
    return device.partition(":")[0]


def of_this_machine() -> str:
    """The first GPU, or the CPU where there is none."""
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def matrix_peak(device: str, precision: str) -> float:
    """FLOP/s of the best of a few square matrix products, in `precision` ("fp32" or "bf16"), with the threads that are
    set: the peak that model FLOPs utilisation is a share of."""
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    best = 0.0
    for n in PEAK_SIZES[kind(device)]:
        # Of random numbers: a GPU multiplies ones at less power, and so faster.
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        for _ in range(REPEATS):
            synchronise(device)
            started = time.perf_counter()
            torch.mm(a, b)
            synchronise(device)
            best = max(best, 2 * n**3 / (time.perf_counter() - started))
    return best


def synchronise(device: str) -> None:
    """Wait for what was given to a GPU."""
    if kind(device) == "cuda":
        import torch

        torch.cuda.synchronize(device)


def peak_memory(device: str) -> int:
    """Most bytes that this process has held: allocated on the GPU, or resident on a CPU."""
    if kind(device) == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
