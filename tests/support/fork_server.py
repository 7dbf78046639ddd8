"""Python programs without the seconds of their imports: a server with the suite forks them.

A request is a line of JSON with the three standard streams attached; the answer is the exit code.
The server has one thread and has computed nothing yet, so what it forks is as good as new.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import socket
import subprocess
import sys
import traceback
from contextlib import contextmanager
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


def write_program(path, address, code):
    """Write a program that runs Python code, with its own arguments, in a process of the server."""
    path.write_text(
        f"#!{sys.executable} -IS\n"
        "import sys\n"
        f"sys.path.append({str(Path(__file__).parent)!r})\n"
        "from fork_server import run\n"
        f"sys.exit(run({str(address)!r}, {code!r}, sys.argv))\n"
    )
    path.chmod(0o755)


def run(address, code, arguments):
    """Run Python code in a process that the server forks for it; gives the exit code."""
    program = (code, arguments, os.getcwd(), dict(os.environ))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [json.dumps(program).encode()], STREAMS)
        connection.shutdown(socket.SHUT_WR)
        return int(connection.recv(16))


def next_program(listener):
    """Serve requests; returns only in a process that is forked, with the code that it is to run."""
    while True:
        connection, _ = listener.accept()
        with connection:
            message, streams, _, _ = socket.recv_fds(connection, LONGEST_REQUEST, len(STREAMS))
            while part := connection.recv(LONGEST_REQUEST):
                message += part
            child = os.fork()
            if child == 0:
                return prepare(streams, *json.loads(message))
            for stream in streams:
                os.close(stream)
            _, status = os.waitpid(child, 0)
            connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def prepare(streams, code, arguments, folder, environment):
    """Take over the streams, arguments, folder and environment of a program; gives its code."""
    for ours, theirs in zip(STREAMS, streams, strict=True):
        os.dup2(theirs, ours)
        os.close(theirs)
    sys.argv = arguments
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
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
