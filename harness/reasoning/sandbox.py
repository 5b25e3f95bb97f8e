"""Code that a model wrote, run where it can do no harm, on Linux, as root or as a plain user.

A program gets an empty network, process table and message queue of its own (namespaces), a read-only view of all files
but a small file system of its own that is gone when it ends, no environment, and limits. Root becomes a user that
nobody is. When its time is over, or its first process ends, the kernel kills all that it started. It can read what the
user (as root: everybody) can read, and has nowhere to take it but its output.

Where the machine gives no namespaces (as in most unprivileged containers), a program is refused, unless the caller
takes what is left: limits and a process group, but the network, other files and a process that left the group.
"""

import contextlib
import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from harness.errors import InputError, require, whole_fields

JAIL = Path(__file__).with_name("jail.py")
SETUP_S = 30.0
"""How long a loaded machine may take to start the interpreter, beside the program's own time."""
SHOWN_BYTES = 2000


@dataclass(frozen=True)
class Limits:
    """What a program gets. Memory is by process, so that at most `processes` times as much is used; the disk is memory
    too. `wall_s` is in all, `cpu_s` by process."""

    wall_s: float = 10.0
    cpu_s: int = 10
    memory_bytes: int = 2**29
    file_bytes: int = 2**24
    disk_bytes: int = 2**25
    processes: int = 8
    open_files: int = 64
    output_bytes: int = 2**16

    def __post_init__(self) -> None:
        require(self.wall_s > 0, "Limits.wall_s", self.wall_s, "use a positive number of seconds")
        whole_fields(
            self, cpu_s=1, memory_bytes=2**26, file_bytes=0, disk_bytes=2**12, processes=1, open_files=8, output_bytes=1
        )


Isolation = Literal["namespaces", "limits"]
Status = Literal["passed", "failed", "time", "output"]


class Outcome(NamedTuple):
    """How a program ended."""

    status: Status
    """"passed": it came to its end; "time" and "output": it was killed for taking or printing too much."""
    code: int | None
    """Its exit code, 128 and the number of the signal that killed it; None where the sandbox killed it."""
    output: str
    """The end of what it printed."""
    wall_s: float


def run(program: str, limits: Limits | None = None, isolation: Isolation = "namespaces") -> Outcome:
    """Run the Python source `program` by itself. It passes if all of it ran and it exits with 0: a program that ends
    early, with whatever code, does not.

    Raises InputError where this machine cannot isolate it; nothing of it ran then."""
    require(sys.platform == "linux", "platform", sys.platform, "generated code runs in a sandbox on Linux alone")
    limits = limits or Limits()
    token = secrets.token_hex(16)
    directory = tempfile.mkdtemp(prefix="sandbox-") if isolation == "limits" else None
    if directory is not None:
        os.chmod(directory, 0o777)  # root gives it to a user that nobody is
    given = {
        "program": f"{program}\n\nprint({token!r}, end='', flush=True)\n",
        "directory": directory,
        "limits": {name: v for name, v in asdict(limits).items() if name not in ("wall_s", "output_bytes")},
    }
    try:
        told, status, code, output, wall_s = _supervise(json.dumps(given).encode(), limits)
    finally:
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
    if told not in ("isolated", "limited"):
        way_out = "allow namespaces to this user, or ask for isolation by limits alone, which leaves the network open"
        raise InputError(f"sandbox = {isolation!r}: {told or 'it did not start'}; {way_out}")
    ended = output.endswith(token.encode())
    if status is None:
        status = "passed" if code == 0 and ended else "failed"
    shown = output.removesuffix(token.encode())[-SHOWN_BYTES:].decode("utf-8", "replace")
    return Outcome(status, code, shown, wall_s)


def _supervise(given: bytes, limits: Limits) -> tuple[str, Status | None, int | None, bytes, float]:
    """Start the jail, and kill it when it takes too long or prints too much. Returns what it said of itself, why it
    was killed if it was, its exit code, its output and its seconds."""
    read_told, write_told = os.pipe()
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-I", str(JAIL), str(write_told)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={},
        pass_fds=(write_told,),
        start_new_session=True,
    )
    os.close(write_told)
    assert process.stdin is not None and process.stdout is not None
    status: Status | None = None
    output, told = bytearray(), bytearray()
    deadline = started + SETUP_S
    try:
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(given)
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ, output)
            selector.register(read_told, selectors.EVENT_READ, told)
            while selector.get_map():
                left = deadline - time.monotonic()
                if left <= 0:
                    status = "time"
                    break
                for key, _ in selector.select(left):
                    chunk = os.read(key.fd, 2**16)
                    if not chunk:
                        selector.unregister(key.fileobj)
                        continue
                    key.data.extend(chunk)
                    if key.data is told:
                        started = time.monotonic()
                        deadline = started + limits.wall_s
                if len(output) > limits.output_bytes:
                    status = "output"
                    break
        if status is None:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                status = "time"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        os.close(read_told)
    code = process.returncode if status is None else None
    return told.decode("utf-8", "replace"), status, code, bytes(output), time.monotonic() - started
