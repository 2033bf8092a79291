"""Scenery under the sky.

Nothing in it is one of the object kinds, so that a removed object leaves none behind; only the forest has trees and the
street buildings, which is why the kinds `tree` and `house` do not occur there.
"""

from __future__ import annotations

import numpy as np

from kn_core.pictures.scenes.page import Page


def field(p: Page) -> None:
    p.sky(p.pick("#8ecdf2", "#a5d8f5", "#7fc3ee"), p.pick("#dff2fb", "#fdf1d8"))
    h = p.horizon
    p.hills(h + 1, p.between(8, 16), p.pick("#a9cdb4", "#9fc8c4"), waves=p.between(0.8, 1.6))
    p.hills(h + 2, p.between(4, 9), p.pick("#a3cc82", "#8fc07a"), waves=p.between(1, 2))
    p.fade(h, 100, p.pick("#b5d468", "#a9cf6a", "#c3d873"), p.pick("#8fbf4d", "#86b64c", "#9dc455"))
    if p.maybe(0.4):
        post = p.pick("#d9b98b", "#c9a77a", "#f3ead9")
        for x in np.arange(p.between(0, 6), 101, 9).tolist():
            p.box(x, h - 4.5, 1.2, 7, post)
        p.box(0, h - 3.4, 100, 1, post)
        p.box(0, h - 0.6, 100, 1, post)
    p.hills(h + p.between(14, 26), 5, p.pick("#8fbf4d", "#7fb04a"), opacity=0.45)
    p.tufts(h + 5, 16, p.pick("#6f9f3d", "#79a945"))
    if p.maybe(0.6):
        p.specks(h + 6, 22, [p.pick("#ffffff", "#ffe27a", "#f6b7c9", "#c9b3ea")], 0.8, 0.7, opacity=0.95)


def garden(p: Page) -> None:
    p.sky(p.pick("#9bd5f3", "#b3def4"), p.pick("#e8f6fb", "#fdf3df"))
    h = p.horizon
    hedge = p.pick("#7fb069", "#6fa561", "#8bb66b")
    for x in np.arange(-3, 104, 7).tolist():
        p.disc(x, h - p.between(9, 13), p.between(5, 7.5), hedge)
    p.box(0, h - 11, 100, 13, hedge)
    if p.maybe(0.65):
        paint = p.pick("#ffffff", "#f3e6cf", "#d8b58a")
        for x in np.arange(p.between(-4, 0), 101, 5.2).tolist():
            p.path(f"M{x:.1f} {h + 2:.1f}v-11l1.8 -2.4l1.8 2.4v11Z", paint)
        p.box(0, h - 6.5, 100, 1.3, paint)
        p.box(0, h - 1.5, 100, 1.3, paint)
    p.fade(h + 1.5, 100, p.pick("#b9dc78", "#add56f"), p.pick("#93c558", "#8dbd55"))
    for k, x in enumerate(np.arange(-40, 140, 20).tolist()):
        if k % 2:
            far, near = (50 + (x - 50) * spread for spread in (0.6, 1.6))
            p.path(f"M{far} {h + 1.5}h12L{near + 32} 101H{near}Z", "#ffffff", opacity=0.1)
    p.tufts(h + 6, 10, p.pick("#76ab45", "#6c9f42"))
    p.specks(h + 2, 14, [p.pick("#f7a8b8", "#ffd75e", "#ffffff", "#d7a6e6")], 0.9, 0.8, opacity=0.95)


def beach(p: Page) -> None:
    p.sky(p.pick("#86cdf0", "#a4dcf3", "#f7c9a8"), p.pick("#e4f5fb", "#fdeccb"))
    sea = p.pick("#4fb3d0", "#5bbccb", "#62aede")
    p.fade(p.horizon, 100, sea, p.pick("#8fd8dc", "#9adbe6"))
    if p.maybe(0.5):
        x = p.between(10, 70)
        p.path(f"M{x} {p.horizon}q8 -7 15 -4t13 4Z", p.pick("#8fb6a8", "#9db8c6"))
    for _ in range(9):
        x, y = p.between(0, 95), p.between(p.horizon + 2, max(p.shore - 2, p.horizon + 4))
        p.line(f"M{x:.1f} {y:.1f}q2 -1.2 4 0t4 0", "#ffffff", 0.5, opacity=0.6)
    if p.shore < 98:
        p.hills(p.shore + 1, 4, "#ffffff", waves=1.1, opacity=0.75)
        p.hills(p.shore + 3.5, 4, p.pick("#f4dfae", "#f2d8a0", "#f6e6c3"), waves=1.1)
        p.specks(p.shore + 8, 40, [p.pick("#dcbf83", "#e3c993")], 0.6, 0.3)
        p.specks(p.shore + 8, 5, [p.pick("#fff7ea", "#f3b9a5", "#e9a8b8")], 1.3, 0.9, opacity=1)


def lake(p: Page) -> None:
    p.sky(p.pick("#93cdee", "#a9d6ee", "#f4cdb4"), p.pick("#e2f2f8", "#fbead2"))
    h = p.horizon
    if p.maybe(0.6):
        p.peaks(h + 1, p.between(16, 30), p.pick("#9fb6c4", "#93abc0"), p.pick("#f4f8fb", "#dfe9ef"))
    p.hills(h + 1, p.between(5, 11), p.pick("#8fb98a", "#7fae86", "#9bbf7c"), waves=p.between(1, 2))
    p.fade(h, 100, p.pick("#8cc7e0", "#7fbcd9"), p.pick("#5ca6c9", "#66aecb"))
    for _ in range(14):
        x, y = p.between(-5, 95), p.between(h + 2, max(p.shore - 1, h + 4))
        p.line(f"M{x:.1f} {y:.1f}h{p.between(4, 12):.1f}", "#ffffff", 0.5, opacity=0.5)
    if p.shore < 98:
        p.hills(p.shore + 2.5, 4, p.pick("#e2d3a3", "#d8cb9a"), waves=0.9)
        p.hills(p.shore + 4, 4, p.pick("#a4c964", "#98c060"), waves=0.9)
        p.tufts(p.shore + 8, 14, p.pick("#6f9f3d", "#648f3c"))
        for _ in range(int(p.rng.integers(0, 9))):
            x, tall = p.between(0, 100), p.between(7, 13)
            p.line(f"M{x:.1f} {p.shore + 5:.1f}q0.6 {-tall * 0.6:.1f} 0 {-tall:.1f}", "#6b9445", 0.6)
            p.line(f"M{x:.1f} {p.shore + 5 - tall:.1f}v3", "#8a5f3c", 1.3)


def street(p: Page) -> None:
    p.sky(p.pick("#9fd2f0", "#c5e3f3", "#b9c9ea"), p.pick("#eaf5fa", "#fdeedd"), clouds=2)
    h, x = p.horizon, p.between(-12, 0)
    while x < 100:
        w, tall = p.between(16, 28), p.between(0.45, 0.92) * h
        wall = p.pick("#e9b49a", "#f0cf9c", "#b9cfc0", "#c8bedb", "#dfa7a0", "#bcd0de")
        glass = p.pick("#fdf6d9", "#dcebf3")
        p.box(x, h - tall, w, tall + 1, wall)
        p.box(x - 0.6, h - tall - 1.4, w + 1.2, 2, "#ffffff", opacity=0.55)
        columns, rows = int(w // 6), int(tall // 9)
        for row in range(rows):
            y = h - tall + 3.5 + row * (tall - 9) / max(rows, 1)
            for column in range(columns):
                p.box(x + w * (column + 0.5) / columns - 1.6, y, 3.2, 4.6, glass)
        p.box(x + w * 0.5 - 2, h - 7, 4, 8, p.pick("#8b6b5c", "#5f7f8c", "#9c5f5a"), radius=0.5)
        x += w + (p.between(0, 6) if p.maybe(0.3) else 0)
    pavement, lane = p.pick("#d9d4cc", "#d3cfd2"), h + 0.2 * (100 - h)
    p.box(0, h, 100, 100 - h, pavement)
    for k in np.arange(p.between(0, 9), 101, 9).tolist():
        p.line(f"M{k:.1f} {h + 0.5:.1f}L{50 + (k - 50) * 1.12:.1f} {lane - 1:.1f}", "#b9b4ae", 0.4)
    p.box(0, lane - 1.6, 100, 1.8, "#b5b0ab")
    p.fade(lane, 100, p.pick("#8e9199", "#959499"), p.pick("#7b7e87", "#84858c"))
    dash = lane + 0.45 * (100 - lane)
    for k in np.arange(p.between(-12, 0), 101, 24).tolist():
        p.path(f"M{k:.1f} {dash:.1f}h13l-1.5 2.4h-13Z", "#f6f2e6", opacity=0.9)


def snow(p: Page) -> None:
    p.sky(p.pick("#a9c9e6", "#b9cde0", "#c9c6e3"), p.pick("#e6eff7", "#f5e8ea"), clouds=2, sun="#fff6dc")
    h = p.horizon
    if p.maybe(0.65):
        p.peaks(h + 2, p.between(18, 34), p.pick("#9db4cc", "#8fa7c4", "#a8aecb"), "#f6fafd")
    p.hills(h + 3, p.between(6, 12), p.pick("#d3e2ef", "#dae4f0"), waves=p.between(0.8, 1.6))
    p.fade(h, 100, p.pick("#e2edf6", "#e6edf5"), p.pick("#d1e0ee", "#d8e2ef"))
    p.hills(h + p.between(12, 20), 6, "#f3f8fc", waves=p.between(0.6, 1.3), opacity=0.8)
    p.hills(h + p.between(28, 40), 7, "#dde9f4", waves=p.between(0.6, 1.3), opacity=0.8)
    if p.maybe(0.7):
        for _ in range(45):
            p.disc(p.between(0, 100), p.between(0, 100), p.between(0.35, 0.9), "#ffffff", opacity=0.9)


def forest(p: Page) -> None:
    h = p.horizon
    p.fade(0, h + 1, p.pick("#cfe8d0", "#d9edc9", "#c4e2dc"), p.pick("#eef6d8", "#f6f3d4"))
    for depth, crowns, trunks in (
        (0.55, ("#a8cfa0", "#b4d4a4"), ("#a9b196",)),
        (1.0, ("#74ab6c", "#84b566", "#5f9a68"), ("#8a6b50", "#7a6250")),
    ):
        x = p.between(-8, 2)
        while x < 102:
            w, top = p.between(9, 14) * depth, p.between(-6, h * 0.35) + (1 - depth) * 14
            crown, foot = p.pick(*crowns), h + 3 * depth
            p.box(x - w * 0.1, top + 8, w * 0.22, foot - top - 8, p.pick(*trunks))
            if p.maybe(0.5):
                for k in range(3):
                    y, s = top + k * w * 0.75, w * (0.6 + 0.22 * k)
                    p.path(f"M{x - s} {y + s * 1.3}L{x} {y}L{x + s} {y + s * 1.3}Z", crown)
            else:
                for dx, dy, r in ((-0.5, 0.5, 0.62), (0.5, 0.45, 0.66), (0, 0, 0.75)):
                    p.disc(x + dx * w, top + w * (0.8 + dy), r * w, crown)
            x += w * p.between(1.0, 1.9)
    p.fade(h, 100, p.pick("#a2bf6b", "#94b56a"), p.pick("#7c9c4c", "#86a04f"))
    bend, left, right = p.between(30, 70), p.between(15, 40), p.between(62, 90)
    way = f"M44 {h}Q{bend:.1f} {h + 12} {left:.1f} 101H{right:.1f}Q56 {h + 14} 52 {h}Z"
    p.path(way, p.pick("#d8c391", "#cdb787"), opacity=0.8)
    p.tufts(h + 4, 18, p.pick("#5f8a3f", "#557f41"))
    if p.maybe(0.5):
        p.specks(h + 6, 16, [p.pick("#d98b4a", "#e3b15a", "#c7663f")], 1.0, 0.6)


def desert(p: Page) -> None:
    p.sky(p.pick("#9fd3ea", "#f5c79c", "#c3ddea"), p.pick("#fdebc8", "#fbe0c3"), clouds=1, sun="#fff0a8")
    h, x = p.horizon, p.between(-10, 10)
    while p.maybe(0.75) and x < 90:
        w, tall, rock = p.between(16, 30), p.between(8, 20), p.pick("#d99468", "#cc8562", "#dba377")
        p.path(f"M{x} {h + 1}l{w * 0.15} {-tall}h{w * 0.6}l{w * 0.25} {tall}Z", rock)
        band = f"M{x + w * 0.1} {h - tall * 0.6}h{w * 0.72}l{w * 0.05} {tall * 0.2}h{-w * 0.82}Z"
        p.path(band, "#ffffff", opacity=0.18)
        x += w + p.between(5, 25)
    p.hills(h + 2, p.between(4, 9), p.pick("#efcb8e", "#ecc184"), waves=p.between(0.8, 1.4))
    p.fade(h, 100, p.pick("#f3d69a", "#f0cf94"), p.pick("#e6b873", "#e2b078"))
    p.hills(h + p.between(12, 20), 8, p.pick("#e9be7c", "#f7dda6"), waves=p.between(0.6, 1.1), opacity=0.8)
    p.hills(h + p.between(28, 40), 8, p.pick("#e3b472", "#efca8d"), waves=p.between(0.6, 1.1), opacity=0.7)
    p.specks(h + 6, 12, [p.pick("#b98a5c", "#c79b6f")], 1.2, 0.8)
