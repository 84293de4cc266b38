"""Commands in processes of their own that need not import anything: forked from a server.

To start Python and to import torch, torchvision and detectron2 takes longer than a tiny training.
The server has imported them, has run nothing, and has no threads. Each command is a fork of it that
has a process id, a process group, a folder, an environment and files for its output of its own.
Signals reach it, and its exit status tells how it ended, as with a command that a shell starts.
Processes that the command starts by multiprocessing are forks of the server, too.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import multiprocessing.forkserver
import multiprocessing.process
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

PRELOADED = ["tests.preloaded"]


class ForkedCommand:
    """A running command, with those methods of :class:`subprocess.Popen` that tests use.

    Args:
        command: Command line: Python, then a script, ``-c`` and code or ``-m`` and a module, then
            arguments.
        cwd: Working directory.
        environment: All environment variables of the process.
        output: Folder of the files that standard output and standard error are written to.

    Attributes:
        pid: Process id, which is also the id of its process group.
    """

    def __init__(
        self, command: list[str], cwd: Path, environment: dict[str, str], output: Path
    ) -> None:
        assert command[0] == sys.executable
        self._files = [output / f"{name}.txt" for name in ("stdout", "stderr")]
        surroundings = _address(), environment, str(cwd), 0, [str(path) for path in self._files]
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=_run, args=(command[1:], *surroundings))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status; minus the number of a signal that ended the process; None: it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Returns the exit status, or None if the process still runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end of the process, at most ``timeout`` seconds; returns its status."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("forked command", timeout or 0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for the end of the process; returns its standard output and standard error."""
        self.wait(timeout)
        stdout, stderr = (path.read_text() for path in self._files)
        return stdout, stderr

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends the process by SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Descendant(multiprocessing.context.ForkServerProcess):
    """A process that a command starts by multiprocessing: it has what an interpreter inherits."""

    def start(self) -> None:
        """Starts the process with the environment that the command has now."""
        group = os.getpgid(0)
        self._surroundings = _address(), dict(os.environ), os.getcwd(), group, _output()
        super().start()

    def run(self) -> None:
        """Runs the target: called in the new process."""
        _surround(*self._surroundings)
        super().run()


class _Context(multiprocessing.context.ForkServerContext):
    Process = _Descendant


def _address() -> str:
    """Returns the address of the server, which it starts first where it does not run."""
    server = multiprocessing.forkserver._forkserver  # type: ignore[attr-defined]
    server.set_forkserver_preload(PRELOADED)
    server.ensure_running()
    return server._forkserver_address


def _output() -> list[str]:
    """Returns the files of standard output and standard error; /dev/null for what has no name."""
    paths = [os.readlink(f"/proc/self/fd/{fd}") for fd in (1, 2)]
    return [path if os.path.exists(path) else os.devnull for path in paths]


def forked_context() -> multiprocessing.context.BaseContext:
    """Returns a context of multiprocessing whose processes are forks of the server."""
    return _Context()


def _surround(
    address: str, environment: dict[str, str], cwd: str, group: int, output: list[str]
) -> None:
    """Gives this process its environment, its folder, its process group and its output files."""
    os.setpgid(0, group)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for descriptor, path in zip((1, 2), output, strict=True):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    # The server that this process is a fork of serves it, too.
    server = multiprocessing.forkserver._forkserver  # type: ignore[attr-defined]
    server._forkserver_address = address
    server.ensure_running = lambda: None
    contexts = multiprocessing.context._concrete_contexts  # type: ignore[attr-defined]
    contexts["spawn"] = _Context()


def _run(arguments: list[str], *surroundings: Any) -> None:
    """Becomes the command: entry point of the forked process."""
    _surround(*surroundings)
    process = multiprocessing.current_process()
    process.name = "MainProcess"
    process._config.pop("tempdir", None)  # type: ignore[attr-defined]  # of the tests
    # Parents of ordinary commands are not known to multiprocessing.
    multiprocessing.process._parent_process = None  # type: ignore[attr-defined]
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.path.insert(0, "")
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).parent))
        runpy.run_path(arguments[0], run_name="__main__")
