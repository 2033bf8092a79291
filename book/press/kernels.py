"""Kernels for the book's pages, which do not each import the same libraries again.

A kernel of Jupyter's is a new interpreter, and much of a page's time goes into importing torch, transformers, scipy and
matplotlib. Here one process imports them once, and every kernel is a fork of it: multiprocessing's fork server, behind
jupyter_client's interface for launching kernels. Pages share nothing else; all see the code as it was at the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from multiprocessing import forkserver
from multiprocessing.connection import wait
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

NAME = "kn-core-forked"  # of the provisioner

_context = multiprocessing.get_context("forkserver")
# tqdm first: imported before there is a kernel, it draws its bars as on a terminal, where ours belong.
_context.set_forkserver_preload(
    ["tqdm.auto", "ipykernel.kernelapp", "seaborn", "book.page", "book.pictures", "myst_nb", "book.press.preread"]
)


class ForkedKernel(LocalProvisioner):
    """Launches a kernel by a fork. Of the command that would start an interpreter it takes the kernel's arguments."""

    process: Any = None  # multiprocessing's, where LocalProvisioner has one of subprocess

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
        self.process = _context.Process(target=_kernel, args=(arguments, str(kwargs["cwd"]), dict(kwargs["env"])))
        self.process.start()
        self.pid = self.pgid = self.process.pid
        return self.connection_info

    async def poll(self) -> int | None:
        code: int | None = self.process.exitcode if self.process else 0
        return code

    async def wait(self) -> int | None:
        while (code := await self.poll()) is None:
            await asyncio.sleep(0.05)
        self.process = None
        return code

    async def send_signal(self, signum: int) -> None:
        """To the kernel and what it has started, as far as they still run.

        But no SIGINT: jupyter_client sends one at every end, and an idle kernel writes an ERROR of it.
        """
        if self.process and signum != signal.SIGINT:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signum)


def _kernel(arguments: list[str], folder: str, environment: Mapping[str, str]) -> None:
    """What the fork does: it is a kernel until it is told to stop, or until whoever asked for it is gone."""
    import torch  # there already, which whoever asks for kernels can do without
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()
    os.chdir(folder)
    os.environ.update(environment)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))  # torch read it when it was imported, there
    threading.Thread(target=_end_with_parent, daemon=True).start()
    IPKernelApp.launch_instance([*arguments, "--matplotlib=inline", f"--IPKernelApp.parent_handle={os.getppid()}"])


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def end() -> None:
    """End the process whose forks kernels are, which may still be importing; they end with whoever asked for them."""
    if server := forkserver._forkserver._forkserver_pid:  # type: ignore[attr-defined]
        os.kill(server, signal.SIGKILL)


def register() -> None:
    """Make the provisioner known to jupyter_client, as an entry point of an installed package would."""
    factory = KernelProvisionerFactory.instance()
    factory.provisioners[NAME] = EntryPoint(NAME, f"{__name__}:{ForkedKernel.__name__}", factory.GROUP_NAME)
