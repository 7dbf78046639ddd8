"""Python programs without the seconds of their imports: a server with the suite forks them.

A request is a line of JSON with the three standard streams attached; the answers are the process's
number and, at its end, its exit code. The server has one thread and has computed nothing yet, so
what it forks is as good as new.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path

STREAMS = (0, 1, 2)
LONGEST_REQUEST = 2**20


@contextmanager
def serving(address, first, **environment):
    """Start a server at a path, which imports a module ahead of the suite, and end it."""
    environment = {**os.environ, **environment, "OMP_NUM_THREADS": "1"}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        command = [sys.executable, __file__, first]
        server = subprocess.Popen(command, stdin=listener, env=environment)
    try:
        yield
    finally:
        server.terminate()
        server.wait()


def client(address, code, told="None"):
    """Python code of a client: a program that the server forks for it, which gets its arguments."""
    return (
        "import sys\n"
        f"sys.path.append({str(Path(__file__).parent)!r})\n"
        "from fork_server import run\n"
        f"sys.exit(run({str(address)!r}, {code!r}, sys.argv, {told}))\n"
    )


def write_program(path, address, code):
    """Write a program that runs Python code, with its own arguments, in a process of the server."""
    path.write_text(f"#!{sys.executable} -IS\n{client(address, code)}")
    path.chmod(0o755)


class Forked(subprocess.Popen):
    """A client of the server: signals go to the process that is forked, whose end is the client's.

    ``number`` is the number of that process.
    """

    def __init__(self, address, code, arguments, **how):
        told, tell = os.pipe()
        command = [sys.executable, "-IS", "-c", client(address, code, str(tell)), *arguments]
        super().__init__(command, pass_fds=[tell], **how)
        os.close(tell)
        with os.fdopen(told) as answer:
            self.number = int(answer.read())

    def send_signal(self, sig):
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.number, sig)


def run(address, code, arguments, told=None):
    """Run Python code in a process that the server forks for it; gives the exit code.

    Where the process is killed, this one is too. ``told`` is the file in which its number is told.
    """
    program = (code, arguments, os.getcwd(), dict(os.environ))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [json.dumps(program).encode()], STREAMS)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile() as answers:
            number = answers.readline()
            if told is not None:
                os.write(told, number.encode())
                os.close(told)
            status = int(answers.readline())
    if status < 0:
        with suppress(OSError):  # SIGKILL has no handler
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def next_program(listener):
    """Serve requests; returns in a process that is forked, with the code that it is to run.

    The server itself returns nothing to run once the tests have ended, even if they were killed.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener.settimeout(1)
    tests = os.getppid()
    while os.getppid() == tests:
        with suppress(TimeoutError):
            connection, _ = listener.accept()
            if (code := forked(listener, connection)) is not None:
                return code
    return ""


def forked(listener, connection):
    """Fork a process that serves one request; gives None in the server itself."""
    if os.fork() == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listener.detach()  # its file is the standard input, which is the program's from now on
        return served_program(connection)
    connection.close()
    return None


def served_program(connection):
    """Serve one request; returns only in the program's process, with the code that it is to run."""
    message, streams, _, _ = socket.recv_fds(connection, LONGEST_REQUEST, len(STREAMS))
    while part := connection.recv(LONGEST_REQUEST):
        message += part
    program = os.fork()
    if program == 0:
        connection.close()
        return prepare(streams, *json.loads(message))
    for stream in (*STREAMS, *streams):
        os.close(stream)
    connection.sendall(f"{program}\n".encode())
    _, status = os.waitpid(program, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def prepare(streams, code, arguments, folder, environment):
    """Take over the streams, arguments, folder and environment of a program; gives its code."""
    for ours, theirs in zip(STREAMS, streams, strict=True):
        os.dup2(theirs, ours)
        os.close(theirs)
    os.setsid()
    sys.argv = arguments
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    return code


def run_to_the_end(code):
    """Run a program and end this process, without the half second in which modules are cleared."""
    try:
        exec(code, {"__name__": "__main__"})
        status = 0
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def import_suite(first):
    """Import a module, and then those of the suite with all that they use."""
    importlib.import_module(first)
    for name in ("bench", "baselines"):
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    # The imported objects stay: neither looked through nor copied in what is forked.
    gc.freeze()


if __name__ == "__main__":
    import_suite(sys.argv[1])
    run_to_the_end(next_program(socket.socket(fileno=0)))
