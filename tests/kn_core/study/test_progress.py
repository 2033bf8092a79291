"""How far something is: on a terminal a bar, elsewhere a line now and then."""

from __future__ import annotations

import io
import sys
import time

from kn_core.study import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_now_and_then_says_how_far_captions_are(capsys, monkeypatch):
    clock = iter((0.0, 9.0, 10.0, 15.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    told = progress.Progress(every=10)
    for done in (100, 200, 300, 500):  # told every 10 s, of 300 after 10 s there are 20 a second
        told(("perturbations, bear", done, 1000))
    assert capsys.readouterr().err == "perturbations, bear: 300 of 1,000 captions, some 35 s left\n"


SHARES = {"model": 30, "captions": 50, "scores": 20}


def test_steps_are_a_bar_with_the_time_left_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress.steps(SHARES) as step:
        step("captions")
        step("scores")
    for begins in ("model:   0%|", "captions:  30%|", "scores:  80%|"):
        assert begins in terminal.getvalue()
    assert " left" in terminal.getvalue()


def test_steps_are_a_line_now_and_then_elsewhere(capsys):
    with progress.steps(SHARES, every=0.2) as step:
        step("captions")
        time.sleep(1.2)
    assert "captions: 1 s so far\n" in capsys.readouterr().err
    with progress.steps(SHARES) as step:
        step("captions")
    assert capsys.readouterr().err == ""
