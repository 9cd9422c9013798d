"""What the pool's tests run in worker processes. A task is a word, or a word and an argument."""

import errno
import os
import re
import resource
import signal
import time
from pathlib import Path


def work(task: tuple[str, object]) -> object:
    kind, argument = task
    if kind == "echo":
        return argument
    if kind == "pid":
        return os.getpid()
    if kind == "sleep":
        time.sleep(float(str(argument)))
        return argument
    if kind == "note and hang":  # leaves its process id in a folder, then never returns
        Path(str(argument), str(os.getpid())).touch()
        time.sleep(600)
    if kind == "wait for note":
        while not any(Path(str(argument)).iterdir()):
            time.sleep(0.02)
        return argument
    if kind == "hang in C":  # the regular expression engine holds the interpreter's lock: no thread of this process runs
        re.match(r"(a+)+$", "a" * 64 + "b")
    if kind == "die":
        os.kill(os.getpid(), int(str(argument)))
        time.sleep(600)
    if kind == "kill parent once":  # as a machine dies
        if Path(str(argument)).exists():
            return "survived"
        Path(str(argument)).touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    if kind == "exit":
        os._exit(int(str(argument)))
    if kind == "raise":
        raise ValueError(argument)
    if kind == "memory":
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (2**31, hard))
        try:
            return len(bytearray(2**33))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    if kind == "disk full":
        raise OSError(errno.ENOSPC, "No space left on device", str(argument))
    if kind == "alarm":
        return signal.getitimer(signal.ITIMER_REAL)[0], signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    if kind == "ignored":
        return [signal.getsignal(number) == signal.SIG_IGN for number in (signal.SIGINT, signal.SIGTERM)]
    if kind == "talk":
        print("a library's chatter")
        os.write(2, b"more chatter\n")
        return "said"
    if kind == "unpicklable":
        return lambda: None
    if kind == "big":
        return bytes(int(str(argument)))
    raise AssertionError(kind)
