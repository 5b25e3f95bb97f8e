"""The inside of a sandbox: a program of its own that locks itself up and then runs what it was given.

`python -I jail.py STATUS_FD`, with a JSON object on standard input. It goes through three processes: the first makes
namespaces, the second is the init of the new process namespace (when it ends, the kernel kills whatever is left in
there), the third becomes the program. Standard library only, and no import of the harness.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any, NoReturn

NEW_USER, NEW_PID, NEW_NET = 0x10000000, 0x20000000, 0x40000000
NEW_NS, NEW_IPC, NEW_UTS = 0x00020000, 0x08000000, 0x04000000
PRIVATE, RECURSIVE, BIND, NO_SUID, NO_DEV, NO_EXEC = 0x40000, 0x4000, 0x1000, 2, 4, 8
READ_ONLY = 1
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, ATTR_READ_ONLY = 442, -100, 0x8000, 1
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
UIDS = 1_800_000_000
"""Where root takes the user id of a program from: nobody has one there, so that its processes alone are counted."""
NOBODY = 65534

libc = ctypes.CDLL(None, use_errno=True)


class MountAttr(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def new_namespaces() -> None:
    """Enter namespaces of processes, mounts, networks and messages; a plain user enters one of users as well."""
    own = NEW_PID | NEW_NS | NEW_NET | NEW_IPC | NEW_UTS
    if os.geteuid() == 0:
        check(libc.unshare(own), "unshare")
        return
    uid, gid = os.geteuid(), os.getegid()
    check(libc.unshare(own | NEW_USER), "unshare")
    check(libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")
    # Mapped to itself, not to root: the program then has no capability, not even in here.
    for name, content in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as f:
            f.write(content)


def close_the_files(directory: str, disk_bytes: int) -> None:
    """Make everything that is mounted read-only, `directory` an empty file system of `disk_bytes`, and /run, where the
    sockets of a machine's services lie, an empty one as well."""
    check(libc.mount(b"none", b"/", None, RECURSIVE | PRIVATE, None), "mount private")
    read_only = MountAttr(set=ATTR_READ_ONLY)
    place = ctypes.c_char_p(b"/")
    size = ctypes.sizeof(read_only)
    check(libc.syscall(MOUNT_SETATTR, AT_FDCWD, place, AT_RECURSIVE, ctypes.byref(read_only), size), "mount_setattr")
    if os.path.isdir("/run"):
        check(libc.mount(b"tmpfs", b"/run", b"tmpfs", READ_ONLY, b"size=4k,mode=0755"), "mount tmpfs on /run")
    options = f"size={disk_bytes},nr_inodes=4096,mode=0777".encode()
    check(libc.mount(b"tmpfs", directory.encode(), b"tmpfs", NO_SUID | NO_DEV, options), "mount tmpfs")
    check(libc.mount(b"proc", b"/proc", b"proc", NO_SUID | NO_DEV | NO_EXEC, None), "mount proc")


def become_nobody() -> None:
    """Give up root: limits on processes do not hold for it."""
    os.setgroups([])
    for uid in (UIDS + os.getppid() + int.from_bytes(os.urandom(3), "little"), NOBODY):
        with contextlib.suppress(OSError):  # the machine may have few ids
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            return
    raise OSError("setresuid: no user to become")


def limit(given: dict[str, int]) -> None:
    """Set the limits that a process and what it starts have for good."""
    for name, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, given["cpu_s"]),
        (resource.RLIMIT_AS, given["memory_bytes"]),
        (resource.RLIMIT_FSIZE, given["file_bytes"]),
        (resource.RLIMIT_NOFILE, given["open_files"]),
        (resource.RLIMIT_NPROC, given["processes"]),
    ):
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))


def end_as(status: int) -> NoReturn:
    """End as a child with the wait status `status` did: 128 and the number for a signal, as a shell says it."""
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def reap(child: int) -> int:
    """The wait status of `child`, while whatever else ends is buried."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return status


def fork(isolated: bool) -> int:
    """Fork; the child dies with its parent. Isolated it is the first of its own session; else it stays in the process
    group of the jail, with which all that it starts is killed."""
    child = os.fork()
    if child == 0:
        check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
        if isolated:
            os.setsid()
    return child


def interpreter(directory: str, isolated: bool) -> str:
    """The interpreter for the program, without any virtual environment: the standard library is what it may use. One
    that lies where a user that is nobody cannot go (in the home of root) is shown in `directory` as well."""
    real, prefix = os.path.realpath(sys.executable), os.path.realpath(sys.base_prefix)
    above = real
    while (above := os.path.dirname(above)) != "/" and os.stat(above).st_mode & 0o001:
        pass
    if above == "/" or os.geteuid() != 0 or not isolated or not real.startswith(f"{prefix}/"):
        return real
    shown = os.path.join(directory, "python")
    os.mkdir(shown)
    check(libc.mount(prefix.encode(), shown.encode(), None, BIND | RECURSIVE, None), "mount bind")
    return os.path.join(shown, os.path.relpath(real, prefix))


def become_the_program(given: dict[str, Any], tell: int, isolated: bool) -> NoReturn:
    python = interpreter(given["directory"], isolated)
    os.chdir(given["directory"])
    with open("program.py", "w", encoding="utf-8") as f:
        f.write(given["program"])
    if os.geteuid() == 0:
        os.chmod("program.py", 0o644)
        become_nobody()
    # What was set before the change of user is gone.
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    limit(given["limits"])
    if not os.access(python, os.X_OK):
        raise PermissionError(f"{python}: not to be executed by user {os.geteuid()}")
    os.write(tell, b"isolated" if isolated else b"limited")
    os.execve(python, [python, "-I", "-B", "program.py"], {})


def place() -> str:
    """Where the file system of an isolated program is mounted: there is such a directory, to which everybody can go,
    and the interpreter is not in it."""
    return "/mnt" if os.path.realpath(sys.executable).startswith("/tmp/") else "/tmp"


def main() -> None:
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    tell = int(sys.argv[1])
    os.set_inheritable(tell, False)
    given = json.load(sys.stdin)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    isolated = given["directory"] is None
    given["directory"] = given["directory"] or place()
    try:
        if isolated:
            new_namespaces()
        init = fork(isolated)
        if init:
            end_as(reap(init))
        if isolated:
            close_the_files(given["directory"], given["limits"]["disk_bytes"])
        program = fork(isolated)
        if program:
            os.close(tell)
            end_as(reap(program))
        become_the_program(given, tell, isolated)
    except OSError as e:
        os.write(tell, f"refused: {e}".encode())
        os._exit(1)


if __name__ == "__main__":
    main()
