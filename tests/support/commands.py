"""Real ``bench`` processes: started, interrupted, killed."""

import atexit
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import fork_server

# A shell's background job inherits that SIGINT is ignored.
MAIN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from bench.cli import main\n"
    "if __name__ == '__main__': main()"
)
PATIENCE = 600


@cache
def server():
    """The address of a server that forks ``bench`` processes, until the tests end."""
    until_the_end = ExitStack()
    atexit.register(until_the_end.close)
    address = Path(until_the_end.enter_context(tempfile.TemporaryDirectory())) / "socket"
    until_the_end.enter_context(fork_server.serving(address, "bench.api"))
    return address


@contextmanager
def started(*arguments, threads=1, paths=(), metrics=None, told=subprocess.PIPE):
    """A ``bench`` process in a session of its own, which is killed in the end.

    With ``metrics`` it knows no others. ``told`` is where its output goes. With one thread it is
    forked from a process that has imported the suite, since imports take most of a short run.
    """
    known = f"from bench import registry; registry.metrics.names = lambda: {metrics}\n"
    code = MAIN if metrics is None else known + MAIN
    arguments = [*map(str, arguments)]
    # An empty entry would be the current folder, and its suite would hide the installed one.
    known_paths = filter(None, [os.environ.get("PYTHONPATH")])
    python_path = os.pathsep.join([*map(str, [*paths, Path(__file__).parent]), *known_paths])
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": python_path}
    how = {"stdout": told, "stderr": told, "text": True, "env": environment}
    if threads == 1:
        process = fork_server.Forked(server(), code, arguments, **how)
    else:
        # -P: the suite that is installed, as in the tests' own process, not the folder's.
        command = [sys.executable, "-P", "-c", code, *arguments]
        process = subprocess.Popen(command, start_new_session=True, **how)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(*arguments, **how):
    """Run ``bench`` to its end; gives (exit code, standard output, standard error)."""
    with started(*arguments, **how) as process:
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err


def wait_for(condition, process, patience=PATIENCE):
    """Wait until the condition holds; fails if the process ends before, or it takes too long."""
    deadline = time.monotonic() + patience
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode}: {process.stderr.read()}")
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def wait_for_lines(process, *patterns):
    """Read the process's output until each pattern was found; fails if it ends before."""
    left = set(patterns)
    for line in process.stdout:
        left -= {pattern for pattern in left if re.search(pattern, line)}
        if not left:
            return
    raise AssertionError(f"never told of {left}: {process.stderr.read()}")
