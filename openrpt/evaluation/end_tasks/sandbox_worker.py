"""The processes between `sandbox.py` and a program that nobody has read (Linux only).

    keeper           makes the namespaces, and waits
    └─ judge         process 1 of a namespace of processes: hands out the program, and reports
       └─ program    an ordinary user without rights, files, network and other processes

The judge's end is the end of every process of its namespace, whatever session it is in. It reads
one JSON object (source, seconds, memory in bytes) and writes one (verdict and error; or `refused`:
the wall that this machine can't build). Imports nothing of OpenRPT: it runs by its path.
"""

import ctypes
import json
import math
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
import types
from contextlib import suppress

NEW_FILES, NEW_NAMES, NEW_IPC = 0x20000, 0x4000000, 0x8000000
NEW_USER, NEW_PROCESSES, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
NO_SUID, NO_DEVICES, BIND, RECURSIVE, PRIVATE = 2, 4, 4096, 16384, 1 << 18
"""Flags of Linux's unshare(2) and mount(2)."""
MOUNT_SETATTR, HERE, BELOW, READ_ONLY = 442, -100, 0x8000, 1
"""A system call that the C library has no function for, and what it is told."""
NO_NEW_RIGHTS = 38
"""An option of prctl(2)."""
NOBODY = 65534
FILE_BYTES, FILES_BYTES = 16 << 20, 64 << 20
"""The most bytes of one file, and of all of a program's."""
OPEN_FILES = 32
OUT_OF_TIME = (-signal.SIGXCPU, -signal.SIGKILL)
"""The signals with which the kernel ends a process at its limit of CPU time."""
SHOWN = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/usr/share/zoneinfo")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int | bytes | ctypes.c_ulong | None) -> None:
    """Calls a function of the C library. Raises OSError with its name where it fails."""
    if getattr(libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def write(path: str, text: str) -> None:
    """Writes a file of /proc or /sys in one go."""
    with open(path, "w") as file:
        file.write(text)


# ---- the walls ----------------------------------------------------------------------------------


def make_namespaces() -> None:
    """Makes the namespaces: root as it is; anybody else becomes the owner of a namespace of users
    first.

    A root that may only do the latter is refused: it would still be root to the kernel, which
    counts no processes of root's.
    """
    user, group = os.getuid(), os.getgid()
    flags = NEW_FILES | NEW_NAMES | NEW_IPC | NEW_PROCESSES | NEW_NETWORK
    call("unshare", flags | (NEW_USER if user else 0))
    if user:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{user} {user} 1")
        write("/proc/self/gid_map", f"{group} {group} 1")
    with suppress(OSError):  # before Linux 5.19 only root may
        write("/proc/sys/kernel/shmall", "0")  # shared memory of this namespace


def make_files(root: str) -> None:
    """Makes, in the empty folder `root`, a file system in memory with the libraries of Python and
    of the machine, read-only, a few devices and a /tmp. Then that is all there is."""
    os.umask(0o022)
    call("mount", None, b"/", None, RECURSIVE | PRIVATE, None)
    options = f"size={FILES_BYTES},nr_inodes=4096,mode=755".encode()
    call("mount", b"tmpfs", root.encode(), b"tmpfs", NO_SUID | NO_DEVICES, options)
    box = f"{root}/box"
    prefixes = (sys.base_prefix, sys.base_exec_prefix)
    own = [f"{prefix}/{name}" for prefix in prefixes for name in ("lib", sys.platlibdir)]
    for path in (*SHOWN, *own):
        if os.path.isdir(path) and not os.path.isdir(box + path):  # not inside another one
            os.makedirs(box + path)
            show(path, box + path)
    os.mkdir(f"{box}/dev")
    for path in DEVICES:
        write(box + path, "")
        call("mount", path.encode(), (box + path).encode(), None, BIND, None)
    os.mkdir(f"{box}/tmp")
    os.chmod(f"{box}/tmp", 0o1777)
    # A folder below the root of the namespace: from there nobody can make a namespace of users.
    os.chroot(box)
    os.chdir("/tmp")


def show(path: str, at: str) -> None:
    """Mounts a folder and what is mounted below it, read-only for everybody."""
    call("mount", path.encode(), at.encode(), None, BIND | RECURSIVE, None)
    attributes = struct.pack("=4Q", READ_ONLY | NO_SUID, 0, 0, 0)
    call("syscall", MOUNT_SETATTR, HERE, at.encode(), BELOW, attributes, len(attributes))


def give_up_rights() -> None:
    """Makes the process an ordinary user's from here on."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    call("prctl", NO_NEW_RIGHTS, 1, 0, 0, 0)
    call("capset", struct.pack("=Ii", 0x20080522, 0), bytes(24))


def limit(seconds: float, memory: int) -> None:
    """Sets the process's limits: CPU time, bytes of memory, size of files."""
    cpu = math.ceil(seconds)
    for name, (soft, hard) in {
        resource.RLIMIT_CPU: (cpu, cpu + 1),
        resource.RLIMIT_AS: (memory, memory),
        resource.RLIMIT_FSIZE: (FILE_BYTES, FILE_BYTES),
        resource.RLIMIT_NPROC: (1, 1),  # no second one, nor a thread: its memory is all there is
        resource.RLIMIT_NOFILE: (OPEN_FILES, OPEN_FILES),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_MEMLOCK: (0, 0),
        resource.RLIMIT_MSGQUEUE: (0, 0),
    }.items():
        most = resource.getrlimit(name)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(name, (soft, hard))


# ---- the processes ------------------------------------------------------------------------------


def run_program(link: socket.socket) -> None:
    """Runs the source that the judge sends. At its end it says so and sends back a word that it is
    given only then: what was printed, an early exit or a few bytes written anywhere are no end.

    What it needs for that is bound before the program can change it.
    """
    nothing = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.closerange(3, link.fileno())
    os.closerange(link.fileno() + 1, OPEN_FILES * 4)
    seconds, memory, size = struct.unpack("=dQQ", link.recv(24, socket.MSG_WAITALL))
    source = link.recv(size, socket.MSG_WAITALL).decode()
    os.environ.clear()
    os.environ.update(HOME="/tmp", TMPDIR="/tmp", PATH="/usr/bin:/bin", LANG="C.UTF-8")
    sys.argv = ["program.py"]
    sys.modules["__main__"] = module = types.ModuleType("__main__")
    give_up_rights()
    limit(seconds, memory)
    send, receive, text_of = link.sendall, link.recv, str
    try:
        exec(compile(source, "program.py", "exec", dont_inherit=True), module.__dict__)
    except MemoryError:
        send(b"memory MemoryError")
    except BaseException as error:  # SystemExit, too: the tests come last
        message = " ".join(text_of(error).split())[:200]
        said = f"failed {type(error).__name__}: {message}"
        send(said.encode("utf-8", "backslashreplace"))
    else:
        send(b"done")
        send(receive(16))


def judge(
    program: int, link: socket.socket, source: str, seconds: float, memory: int
) -> tuple[str, str]:
    """Hands out the source and says how the program ended: (verdict, error)."""
    deadline = time.monotonic() + seconds

    def in_time() -> socket.socket:
        link.settimeout(max(deadline - time.monotonic(), 1e-3))
        return link

    def hear() -> bytes:
        """Returns what the program says. Ends the judge, and so the program, where nobody is left
        to be told: whoever asked was killed."""
        waiting = select.poll()
        waiting.register(link, select.POLLIN)
        waiting.register(1, 0)  # an error comes unasked, once nobody reads
        found = dict(waiting.poll(1000 * max(deadline - time.monotonic(), 1e-3)))
        if 1 in found:
            os._exit(1)
        return in_time().recv(4096)

    data, word = source.encode(), os.urandom(16)
    try:
        in_time().sendall(struct.pack("=dQQ", seconds, memory, len(data)) + data)
        said = hear()
        if said == b"done":
            in_time().sendall(word)
            if hear() == word:
                return "passed", ""
    except TimeoutError:
        return "time", ""
    except ConnectionError:
        said = b""
    verdict, _, error = said.decode("utf-8", "replace").partition(" ")
    if verdict in ("failed", "memory"):
        return verdict, error
    while not said and time.monotonic() < deadline:  # it has let go of the link, maybe ended
        process, status = os.waitpid(program, os.WNOHANG)
        if process:
            out_of_time = os.waitstatus_to_exitcode(status) in OUT_OF_TIME
            return ("time", "") if out_of_time else ("failed", "it ended itself")
        time.sleep(0.005)
    return ("failed", "it spoke for its judge") if said else ("time", "")


def main(root: str) -> None:
    """Builds the walls around the folder `root` and serves programs from inside them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        make_namespaces()
        first = os.fork()
        if first:
            os.waitpid(first, 0)
            return
        make_files(root)
        ours, link = socket.socketpair()
        program = os.fork()
    except OSError as error:
        reply = {"refused": f"{error.filename or 'fork'}: {error.strerror}"}
    else:
        if not program:
            try:
                run_program(link)
            finally:
                os._exit(1)  # no handlers that the program has left
        link.close()
        verdict, said = judge(program, ours, **json.load(sys.stdin))
        reply = {"verdict": verdict, "error": said}
    print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
