"""Hostile programs in the sandbox: each is really run, as root and as a plain user, and does no harm."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from harness.errors import InputError
from harness.reasoning.sandbox import Isolation, Limits, Outcome, run

ROOT = Path(__file__).resolve().parent.parent
QUICK = Limits(wall_s=4, cpu_s=4)
PLAIN = 54321
"""A user id that is not root."""


def plain_user(program: str, limits: Limits = QUICK, isolation: Isolation = "namespaces") -> Outcome:
    """The same as `run`, by a plain user, with the interpreter and the code where it can read them."""
    if os.geteuid() != 0:
        return run(program, limits, isolation)
    with tempfile.TemporaryDirectory() as copy:
        os.chmod(copy, 0o755)
        for name in ("__init__.py", "errors.py", "reasoning/__init__.py", "reasoning/sandbox.py", "reasoning/jail.py"):
            file = Path(copy, "harness", name)
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / "harness" / name, file)
        call = (
            "import json, sys\nfrom harness.reasoning.sandbox import Limits, run\n"
            f"print(json.dumps(run(sys.stdin.read(), {limits!r}, {isolation!r})))"
        )
        shell = 'mount --bind "$0" /mnt && exec setpriv --reuid "$1" --regid "$1" --clear-groups /mnt/bin/"$2" -c "$3"'
        python = os.path.basename(os.path.realpath(sys.executable))
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", shell, sys.base_prefix, str(PLAIN), python, call],
            check=False,
            input=program,
            capture_output=True,
            text=True,
            cwd=copy,
            env={"PATH": os.defpath},
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    return Outcome(*json.loads(done.stdout))


def here(program: str, limits: Limits = QUICK) -> Outcome:
    return run(program, limits)


users = pytest.mark.parametrize("run_as", [here, plain_user])


def leftovers(mark: str) -> list[int]:
    """Processes that carry `mark` in what they run."""
    found = []
    for process in psutil.process_iter():
        try:
            if mark in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@users
def test_a_program_that_does_nothing_wrong_passes(run_as) -> None:
    done = run_as("import math\nassert math.comb(5, 2) == 10\nprint('hello')")
    assert (done.status, done.code, done.output.strip()) == ("passed", 0, "hello"), done
    failed = run_as("assert 1 == 2, 'no'")
    assert (failed.status, failed.code) == ("failed", 1)
    assert "AssertionError: no" in failed.output


@pytest.mark.parametrize("end", ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit"])
def test_a_program_that_ends_before_its_tests_has_not_passed(end: str) -> None:
    assert here(f"{end}\nassert False").status == "failed"


@users
def test_a_fork_bomb_is_held_and_swept_away(run_as) -> None:
    bomb = "import os, time\nn = 0\ntry:\n    while True:\n        if os.fork() == 0:\n            os.setsid()\n"
    bomb += "        n += 1\nexcept OSError:\n    time.sleep(60)\n# mark-of-the-bomb"
    before = len(psutil.pids())
    started = time.monotonic()
    done = run_as(bomb, Limits(wall_s=2, processes=6))
    assert (done.status, done.code) == ("time", None)
    assert time.monotonic() - started < 30
    time.sleep(0.3)
    assert len(psutil.pids()) < before + 40  # others start processes too
    assert not leftovers("program.py")


@users
def test_the_number_of_processes_is_limited(run_as) -> None:
    count = "import os, time\nn = 0\ntry:\n    for _ in range(100):\n        if os.fork() == 0:\n"
    count += "            time.sleep(2); os._exit(0)\n        n += 1\nexcept OSError:\n    pass\nprint(n)"
    done = run_as(count, Limits(wall_s=20, processes=5))
    assert done.status == "passed" and 1 <= int(done.output) <= 5, done


@users
def test_what_fills_the_disk_gets_no_more_than_its_own(run_as) -> None:
    fill = "import os\nn = 0\ntry:\n    while True:\n        with open(f'f{n}', 'wb') as f: f.write(b'x' * 2**20)\n"
    fill += "        n += 1\nexcept OSError as e:\n    print(n, e.errno)"
    done = run_as(fill, Limits(wall_s=20, disk_bytes=2**23))
    count, error = map(int, done.output.split())
    assert done.status == "passed" and error == 28 and 4 <= count <= 8
    large = run_as("f = open('f', 'wb')\nwhile True:\n    f.write(b'x' * 2**20)", Limits(wall_s=20, file_bytes=2**21))
    assert large.status == "failed"  # SIGXFSZ, or the error that Python makes of it


@users
def test_what_never_ends_is_ended(run_as) -> None:
    done = run_as("import time\nwhile True: time.sleep(1)", Limits(wall_s=1))
    assert (done.status, done.code) == ("time", None) and done.wall_s < 5
    spun = run_as("while True: pass", Limits(wall_s=20, cpu_s=1))
    assert spun.status == "failed" and spun.code is not None and spun.code > 128 and spun.wall_s < 15
    deaf = "import signal, time\nfor s in set(signal.Signals) - {9, 19}:\n    signal.signal(s, signal.SIG_IGN)\n"
    assert run_as(deaf + "while True: time.sleep(1)", Limits(wall_s=1)).status == "time"


@users
def test_memory_is_limited(run_as) -> None:
    done = run_as("x = bytearray(2**31)\nprint(len(x))", Limits(wall_s=20))
    assert done.status == "failed" and "MemoryError" in done.output


@users
def test_there_is_no_network(run_as) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = run_as(
            "import socket\nfor host in ('127.0.0.1', '1.1.1.1'):\n    try:\n"
            f"        socket.create_connection((host, {port}), timeout=1)\n        print('connected')\n"
            "    except OSError as e:\n        print('no')"
        )
    assert (done.status, done.output.split()) == ("passed", ["no", "no"])


@users
def test_it_cannot_kill_its_parent_or_anyone(run_as) -> None:
    kill = f"import os, signal\nfor pid in (os.getppid(), 1, {os.getpid()}, -1):\n    try:\n"
    kill += "        os.kill(pid, signal.SIGKILL)\n    except OSError:\n        pass\nprint('alive')"
    done = run_as(kill)
    assert done.status == "passed" and done.output.strip() == "alive"
    assert run_as("import os\nos.kill(0, 9)").code == 128 + 9
    assert run_as("import os\nprint(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()))").output == "[1, 2]\n"


@users
def test_it_sees_no_socket_of_the_machine(run_as) -> None:
    assert run_as("import os\nprint(os.listdir('/run'))").output == "[]\n"


@users
def test_it_writes_nowhere_else(run_as, tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o777)
    (tmp_path / "mine").write_text("mine")
    os.chmod(tmp_path / "mine", 0o666)
    write = "import os, tempfile\nopen('own', 'w').write('x')\n"
    places = [str(tmp_path / "new"), str(tmp_path / "mine"), "/var/tmp/new", "/dev/shm/new", "/run/new", "../new"]
    write += f"for p in {places!r}:\n"
    write += "    try:\n        open(p, 'a').write('x'); print('wrote', p)\n    except OSError: pass\n"
    write += "try:\n    os.remove("
    write += f"{str(tmp_path / 'mine')!r}); print('removed')\nexcept OSError: pass"
    done = run_as(write)
    assert (done.status, done.output) == ("passed", "")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"] and (tmp_path / "mine").read_text() == "mine"


@users
def test_what_prints_endlessly_is_cut_off(run_as) -> None:
    done = run_as("while True: print('x' * 1000)", Limits(wall_s=20, output_bytes=10_000))
    assert done.status == "output" and done.wall_s < 15 and len(done.output) <= 2000


@users
def test_it_has_no_environment_no_rights_and_few_files(run_as, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    done = run_as(
        "import os\nprint('SECRET_TOKEN' in os.environ, os.geteuid() == 0, os.getcwd(), os.listdir())\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "print(int(status['CapEff'], 16), int(status['NoNewPrivs']))\n"
        "files = []\ntry:\n    while True: files.append(open('/dev/null'))\nexcept OSError: print(len(files) < 64)"
    )
    assert done.output.splitlines()[1:] == ["0 1", "True"], done
    assert done.output.startswith("False False /tmp ['") and "program.py" in done.output


def test_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    os.chmod(tmp_path, 0o755)
    for program in ("open('a', 'w').write('x')", "while True: print('x' * 1000)"):
        run(program, QUICK)
    assert not list(tmp_path.iterdir())


def test_without_namespaces_it_is_refused_unless_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.reasoning import sandbox

    # What a container without the right to namespaces answers.
    own = sandbox.JAIL.read_text().replace("check(libc.unshare(own)", "check(libc.unshare(0x80000000 | own)")
    own = own.replace("check(libc.unshare(own | NEW_USER)", "check(libc.unshare(0x80000000 | own)")
    with tempfile.NamedTemporaryFile("w", suffix=".py") as jail:
        jail.write(own)
        jail.flush()
        monkeypatch.setattr(sandbox, "JAIL", Path(jail.name))
        with pytest.raises(InputError, match=r"sandbox = 'namespaces': .*unshare: Invalid argument; allow namespaces"):
            run("open('/tmp/never', 'w')", QUICK)
    assert not Path("/tmp/never").exists()


def test_limits_alone_hold_what_they_can() -> None:
    done = plain_user("import os\nprint('hello', os.getcwd())", QUICK, "limits")
    assert done.status == "passed" and done.output.startswith("hello ")
    assert not Path(done.output.split()[1]).exists()
    forks = "import os, time\nfor _ in range(2): os.fork()\ntime.sleep(60)"  # as many as the limit allows
    assert plain_user(forks, Limits(wall_s=1), "limits").status == "time"
    time.sleep(0.3)
    assert not leftovers("program.py")
    assert plain_user("x = bytearray(2**31)", QUICK, "limits").status == "failed"


def test_limits_that_are_none_are_refused() -> None:
    for limits in ({"wall_s": 0}, {"processes": 0}, {"memory_bytes": 1}):
        with pytest.raises(InputError, match=r"^Limits\."):
            Limits(**limits)
