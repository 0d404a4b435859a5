"""Runs a command on a kernel that lacks something, for real: a seccomp filter answers as such a kernel does, a hierarchy is unmounted.

    lacking.py nf_tables,overlay,memory -- COMMAND...

Needs root and x86-64. What is made goes with the process: the filter with it, the mount namespace is its own.
"""
import ctypes
import os
import subprocess
import sys

libc = ctypes.CDLL(None, use_errno=True)
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
SYS_SOCKET, SYS_FSOPEN, AF_NETLINK, NETLINK_NETFILTER = 41, 430, 16, 12
ENODEV, EPROTONOSUPPORT = 19, 93
# struct seccomp_data: the number, then (from byte 16 on) the arguments, their low halves first.
NUMBER, ARGUMENT = 0, lambda n: 16 + 8 * n


class Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.POINTER(Instruction))]


def refuse(number, arguments, errno):
    """A filter: the call of this number with these arguments fails with `errno`."""
    checks = [(NUMBER, number)] + [(ARGUMENT(n), value) for n, value in arguments.items()]
    out = []
    for place, (offset, value) in enumerate(checks):
        left = 2 * (len(checks) - place - 1) + 1
        out += [(LOAD, 0, 0, offset), (EQUAL, 0, left, value)]
    out += [(RETURN, 0, 0, ERRNO | errno), (RETURN, 0, 0, ALLOW)]
    code = (Instruction * len(out))(*[Instruction(*one) for one in out])
    program = Program(len(out), code)
    for result in (libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)):
        if result:
            raise OSError(ctypes.get_errno(), "seccomp")


def hide_controller(controller):
    """The v1 hierarchy of a controller is unmounted; of v2 the list of controllers is replaced."""
    if libc.unshare(0x00020000):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    def mounted():
        for line in open("/proc/self/mountinfo").read().splitlines():
            left, right = line.split(" - ")
            if right.split()[0] == "cgroup" and controller in right.split()[-1].split(","):
                return left.split()[4]

    while place := mounted():
        # Below another mount (as in a lab's machine) it is out of reach.
        if subprocess.run(["umount", place], stderr=subprocess.DEVNULL).returncode:
            raise SystemExit(f"the hierarchy of {controller} cannot be taken away here")
    listed = "/sys/fs/cgroup/cgroup.controllers"
    if os.path.exists(listed):
        rest = " ".join(c for c in open(listed).read().split() if c != controller)
        replaced = f"/tmp/controllers-{os.getpid()}"
        open(replaced, "w").write(rest + "\n")
        subprocess.run(["mount", "--bind", replaced, listed], check=True)
        os.unlink(replaced)


def main():
    what, command = sys.argv[1].split(","), sys.argv[sys.argv.index("--") + 1:]
    for feature in what:
        if feature in ("memory", "cpu", "pids"):
            hide_controller(feature)
    if "nf_tables" in what:
        refuse(SYS_SOCKET, {0: AF_NETLINK, 2: NETLINK_NETFILTER}, EPROTONOSUPPORT)
    if "overlay" in what:
        refuse(SYS_FSOPEN, {}, ENODEV)
    os.execvp(command[0], command)


main()
