"""Kernels that are forks: each on its own, and gone with whoever asked for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
import pytest

from book.press import book
from tests.book.press.test_book import notebook


@pytest.fixture
def page(tmp_path: Path) -> Callable[[str], Path]:
    """page(code): a page whose last cell is that code."""
    return lambda code: notebook(tmp_path / "page.md", "A page", code=f"```{{code-cell}} ipython3\n{code}\n```")


def said(path: Path) -> str:
    outputs = nbformat.read(path, as_version=4).cells[-1].outputs
    return "".join(output.get("text", "") for output in outputs).strip()


def alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE  # dead, if nobody has asked for its end
    except psutil.NoSuchProcess:
        return False


def wait_until(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_kernels_are_processes_of_their_own_that_import_nothing_again(page, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = """import os, sys
there = "book.page" in sys.modules, hasattr(sys, "left_behind")
sys.left_behind = True
import matplotlib, torch
print(os.getpid(), os.getppid(), os.getcwd(), *there, matplotlib.get_backend(), torch.get_num_threads())"""
    found = []
    for _ in range(2):
        book.run_notebook(page(code), tmp_path / "page.ipynb", {}, tmp_path)
        found.append(said(tmp_path / "page.ipynb").split())
    (first, server, *rest), (second, same, *others) = found
    assert rest == others == [str(tmp_path), "True", "False", "inline", "1"]
    assert first != second
    assert server == same != str(os.getpid())
    wait_until(lambda: not alive(int(first)))


def test_who_builds_the_book_need_not_import_what_its_pages_do():
    script = "import sys\nfrom book.press import book\nprint('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "False\n"


def test_a_kernel_that_dies_is_an_error_with_the_pages_name(page, tmp_path):
    path = page("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(book.BookError, match=r"page\.md: the kernel died"):
        book.run_notebook(path, tmp_path / "page.ipynb", {}, tmp_path)
    assert not (tmp_path / "page.ipynb").exists()


def test_no_kernel_outlives_whoever_asked_for_it(page, tmp_path):
    path = page(
        "import os, pathlib, time\npathlib.Path('pids').write_text(f'{os.getpid()} {os.getppid()}')\ntime.sleep(99)"
    )
    arguments = f"Path({str(path)!r}), Path({str(tmp_path / 'page.ipynb')!r}), {{}}, Path({str(tmp_path)!r})"
    script = f"from pathlib import Path\nfrom book.press import book\nbook.run_notebook({arguments})"
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path) as builder:
        pids = tmp_path / "pids"
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2, 60)
        builder.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))
