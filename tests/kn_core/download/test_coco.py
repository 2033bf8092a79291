"""The download of MS COCO 2017, from a server of ours that cuts, lies and loses files."""

import hashlib
import io
import json
import multiprocessing
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import filelock
import numpy as np
import pytest
from PIL import Image

from kn_core.__main__ import main
from kn_core.download import annotations as annotations_module
from kn_core.download import coco, transfer
from kn_core.download.annotations import ARCHIVE, SERVER
from kn_core.download.coco import download
from kn_core.download.transfer import AGAIN, DownloadError
from kn_core.method.filtering import could_keep
from kn_core.pictures.coco import CocoFolder
from kn_core.profile import Profile, load_profile

W, H = 64, 48
ZIP = f"/annotations/{ARCHIVE}"
PART = f"{ARCHIVE}.part"


def box(x: float, y: float, width: float, height: float) -> list[list[float]]:
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


# id -> what is annotated: (category, polygons, crowd). `WANTED` pass area in [0.05, 0.6] and one region.
PICTURES = {
    1: [("bear", box(0, 0, 32, 24), 0)],  # a quarter
    2: [("bear", box(0, 0, 8, 6), 0)],  # a 64th: too small
    3: [("bear", box(0, 0, 64, 40), 0)],  # five sixths: too large
    4: [("bear", box(0, 0, 16, 24), 0), ("bear", box(40, 0, 16, 24), 0)],  # two regions
    5: [("bear", {"size": [H, W], "counts": [0, H * W // 2, H * W // 2]}, 1)],  # a crowd alone
    6: [("cat", box(0, 0, 32, 48), 0), ("bear", box(48, 0, 4, 4), 0)],  # a cat of half the picture, a speck of a bear
    7: [("dog", box(0, 0, 32, 24), 0)],  # of no concept that is asked for
    8: [("bear", box(0, 0, 32, 24), 0), ("bear", box(24, 0, 16, 24), 0)],  # two, in one region
    9: [("bear", box(8, 8, 24, 24), 0), ("cat", box(30, 8, 24, 24), 0)],
}
WANTED = [1, 6, 8, 9]  # for bear and cat
CATEGORIES = {"bear": 23, "cat": 17, "dog": 18}


def jpeg(seed: int, size: tuple[int, int] = (W, H)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def name(image_id: int) -> str:
    return f"{image_id:012d}.jpg"


def annotations(split: str = "val2017") -> tuple[dict, dict]:
    """instances, captions."""
    images = [
        {"id": i, "file_name": name(i), "width": W, "height": H, "coco_url": f"{SERVER}/{split}/{name(i)}"}
        for i in PICTURES
    ]
    objects = [
        {"image_id": i, "category_id": CATEGORIES[category], "segmentation": segmentation, "iscrowd": crowd}
        for i, found in PICTURES.items()
        for category, segmentation, crowd in found
    ]
    objects = [{"id": number, **one} for number, one in enumerate(objects)]
    categories = [{"id": number, "name": category} for category, number in CATEGORIES.items()]
    said = [{"id": i, "image_id": i, "caption": f"Picture {i}."} for i in PICTURES]
    return (
        {"images": images, "annotations": objects, "categories": categories},
        {"images": images, "annotations": said},
    )


def archive(extra: dict[str, bytes] | None = None, split: str = "val2017", filler: int = 200_000) -> bytes:
    instances, captions = annotations(split)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("annotations/person_keypoints_val2017.json", np.random.default_rng(0).bytes(filler))
        packed.writestr(f"annotations/instances_{split}.json", json.dumps(instances))
        packed.writestr(f"annotations/captions_{split}.json", json.dumps(captions))
        for member, content in (extra or {}).items():
            packed.writestr(member, content)
    return file.getvalue()


class Server:
    """Files over HTTP, and for each path what goes wrong, request by request (the last of them for ever).

    Trouble: a status; ("cut", n), only n bytes are sent; ("claims", n), the announced length is n too long, and
    there are no ranges; ("sends", bytes); "no ranges"; "waits", it sends half, and nothing more until `go`; None, all
    is well.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.trouble: dict[str, list] = {}
        self.asked: list[tuple[str, str]] = []  # (path, range) of every GET
        self.waiting, self.go = threading.Event(), threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append((self.path, self.headers.get("Range", "")))
                planned = server.trouble.get(self.path, [None])
                trouble = planned.pop(0) if len(planned) > 1 else planned[0]
                return self.answer(server.files.get(self.path), trouble)

            def answer(self, content, trouble):
                if content is None:
                    return self.send_error(404)
                if isinstance(trouble, int):
                    return self.send_error(trouble)
                kind, value = trouble if isinstance(trouble, tuple) else (trouble, None)
                start, whole = 0, len(content)
                asked = self.headers.get("Range")
                if kind == "sends":
                    content, asked = value, None
                elif asked and kind not in ("no ranges", "claims"):
                    start = int(asked.removeprefix("bytes=").removesuffix("-"))
                    if start >= whole:
                        self.send_response(416)
                        self.send_header("Content-Range", f"bytes */{whole}")
                        return self.end_headers()
                    content = content[start:]
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
                self.send_header("Content-Length", str(len(content) + (value if kind == "claims" else 0)))
                self.end_headers()
                if kind == "waits":
                    self.wfile.write(content[: len(content) // 2])
                    server.waiting.set()
                    server.go.wait(20)
                    return None
                self.wfile.write(content[:value] if kind == "cut" else content)
                return None

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.go.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def pack(self, content: bytes, monkeypatch) -> None:
        """Serve this archive as the official one."""
        self.files[ZIP] = content
        monkeypatch.setattr(annotations_module, "ARCHIVE_SHA256", hashlib.sha256(content).hexdigest())

    @property
    def pictures_asked(self) -> list[int]:
        """Ids, in ascending order, with repetitions."""
        return sorted(int(Path(path).stem) for path, _ in self.asked if path != ZIP)


@pytest.fixture
def server(monkeypatch):
    running = Server()
    running.pack(archive(), monkeypatch)
    running.files |= {f"/val2017/{name(i)}": jpeg(i) for i in PICTURES}
    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    monkeypatch.setattr(transfer, "TIMEOUT", 5.0)
    monkeypatch.setenv("KN_COCO_MIRROR", running.url)
    yield running
    running.close()


@pytest.fixture
def profile() -> Profile:
    changes = {"concepts": ["bear", "cat"], "ours": ["cat"]}
    return Profile.model_validate(load_profile("embedded-coco").model_dump() | changes)


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder that is not there yet, beside nothing else."""
    return tmp_path / "beside" / "coco"


@pytest.fixture
def get(root, profile):
    """get(): the download; gives what it said."""

    def run(**more) -> str:
        said: list[str] = []
        arguments = {"root": root, "split": "val2017", "profile": profile, "say": said.append} | more
        download(**arguments)
        return "\n".join(said)

    return run


def files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder but the lock."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".download.lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def expected(wanted=WANTED) -> dict[str, bytes]:
    instances, captions = annotations()
    return {
        "annotations/instances_val2017.json": json.dumps(instances).encode(),
        "annotations/captions_val2017.json": json.dumps(captions).encode(),
        **{f"val2017/{name(i)}": jpeg(i) for i in wanted},
    }


def existing(folder: Path, layout: str, pictures=WANTED) -> Path:
    """A COCO folder that is there already."""
    plain = layout == "plain"
    images = folder / ("images" if plain else "val2017")
    images.mkdir(parents=True)
    (folder / "annotations").mkdir()
    for kind, content in zip(("instances", "captions"), annotations(), strict=True):
        path = folder / (f"{kind}.json" if plain else f"annotations/{kind}_val2017.json")
        path.write_text(json.dumps(content))
    if plain:
        (folder / "annotations").rmdir()
    for image_id in pictures:
        (images / name(image_id)).write_bytes(jpeg(image_id))
    return folder


def test_annotations_and_the_pictures_that_could_be_kept_are_fetched_and_nothing_else(server, get, root, tmp_path):
    said = get()
    assert files(tmp_path) == {f"beside/coco/{path}": content for path, content in expected().items()}
    assert server.asked[0] == (ZIP, "")
    assert server.pictures_asked == WANTED
    pixels = len(WANTED) * W * H
    assert said.splitlines() == [
        f"Annotations: 1 file, 252.9 MB, {server.url}{ZIP}. "
        "Kept of it: captions_val2017.json and instances_val2017.json.",
        "They are under CC BY 4.0; each photograph is under its author's terms.",
        "Pictures: 7 show bear, cat. The profile 'embedded-coco' could keep 4",
        "of them, by what needs no model: the file keeps the photograph's proportions; "
        "the object fills 5% to 60% of the frame; the object is one connected region.",
        f"0 of them are there. To fetch: 4, about {0.6 * pixels / 1e6:.1f} MB, 8 at a time.",
        "All 4 are there.",
    ]


def test_no_picture_that_the_filters_would_keep_is_left_out(server, get, root, profile, tmp_path):
    everything = CocoFolder(existing(tmp_path / "everything", "plain", PICTURES))
    kept = {s.image_id for c in ("bear", "cat") for s in everything.samples(c) if could_keep(s, profile.filtering)}
    assert kept == {str(i) for i in WANTED}
    get()
    coco = CocoFolder(root)
    assert {s.image_id for c in ("bear", "cat") for s in coco.samples(c)} == kept
    assert coco.captions(9) == ("Picture 9.",)


def test_a_profile_with_other_constraints_wants_other_pictures(server, get, profile):
    one = profile.filtering.model_copy(update={"constraints": ("area", "one_instance", "named")})
    get(profile=profile.model_copy(update={"filtering": one}))
    assert server.pictures_asked == [1, 6, 9]  # of two bears there are two instances


def test_a_second_call_asks_for_nothing(server, get, root):
    get()
    before = len(server.asked)
    said = get()
    assert len(server.asked) == before
    assert f"Annotations: {root}/annotations/instances_val2017.json is there and is not downloaded." in said
    assert said.endswith("All 4 are there: none is downloaded.")


def test_a_second_split_beside_the_first_is_named_by_its_file(server, get, root, profile, monkeypatch):
    get()
    server.pack(archive(split="train2017"), monkeypatch)
    server.files |= {f"/train2017/{name(i)}": jpeg(i + 100) for i in PICTURES}
    folder = download(root, "train2017", profile, say=lambda _: None)
    assert folder == root / "annotations" / "instances_train2017.json"
    (bear, *_) = CocoFolder(folder).samples("bear")
    assert (bear.image == CocoFolder(root, "train2017").picture(1)).all()
    assert (bear.image != CocoFolder(root, "val2017").picture(1)).any()


def test_an_archive_that_breaks_off_goes_on_where_it_stopped(server, get, root):
    whole = len(server.files[ZIP])
    server.trouble[ZIP] = [("cut", 70_000), 503, ("cut", 60_000), None]
    get()
    ranges = [asked for path, asked in server.asked if path == ZIP]
    assert ranges == ["", "bytes=70000-", "bytes=70000-", "bytes=130000-"]
    assert whole > 130_000
    assert files(root) == expected()


def test_an_archive_may_break_off_more_often_than_attempts_as_long_as_some_of_it_comes(server, get, root):
    server.trouble[ZIP] = [("cut", 20_000)]
    get()
    assert len([path for path, _ in server.asked if path == ZIP]) == -(-len(server.files[ZIP]) // 20_000)
    assert files(root) == expected()


def test_a_second_call_goes_on_with_the_archive_of_the_first(server, get, root):
    server.trouble[ZIP] = [("cut", 100_000), 500]
    with pytest.raises(DownloadError) as raised:
        get()
    assert str(raised.value) == f"{server.url}{ZIP}: HTTP 500 Internal Server Error. {AGAIN}"
    assert [asked for _, asked in server.asked] == ["", *["bytes=100000-"] * (transfer.ATTEMPTS - 1)]
    assert list(files(root)) == [PART]
    del server.trouble[ZIP], server.asked[:]
    said = get()
    assert "(0.1 MB of it are here)" in said
    assert server.asked[0] == (ZIP, "bytes=100000-")
    assert files(root) == expected()


def test_an_archive_that_came_whole_before_the_run_ended_is_not_fetched_again(server, get, root):
    root.mkdir(parents=True)
    (root / PART).write_bytes(server.files[ZIP])
    get()
    assert server.asked[0] == (ZIP, f"bytes={len(server.files[ZIP])}-")  # 416: there is no more
    assert server.asked[1][0] != ZIP
    assert files(root) == expected()


def test_what_is_longer_than_the_archive_is_begun_anew(server, get, root):
    root.mkdir(parents=True)
    (root / PART).write_bytes(server.files[ZIP] + b"more")
    get()
    assert [asked for path, asked in server.asked if path == ZIP][1:] == [""]
    assert files(root) == expected()


def test_a_server_without_ranges_sends_the_archive_from_its_beginning(server, get, root):
    server.trouble[ZIP] = [("cut", 100_000), "no ranges"]
    get()
    assert files(root) == expected()


def test_an_archive_of_other_content_is_deleted_and_said_to_be(server, get, root):
    server.files[ZIP] = archive(filler=100)
    digest = hashlib.sha256(server.files[ZIP]).hexdigest()
    with pytest.raises(DownloadError, match=f"sha256 must be .{{64}}, COCO's. Got {digest}. .*was deleted. Run the sa"):
        get()
    assert files(root) == {}


def test_the_official_digest_is_written_here():
    assert annotations_module.ARCHIVE_SHA256 == "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268"


def test_an_archive_that_is_there_is_used_and_stays(server, get, root):
    root.mkdir(parents=True)
    (root / ARCHIVE).write_bytes(server.files.pop(ZIP))
    assert f"Annotations: from {root / ARCHIVE}, which is there" in get()
    assert server.pictures_asked == WANTED
    assert files(root).keys() == {ARCHIVE, *expected()}
    (root / "annotations" / "instances_val2017.json").unlink()
    (root / ARCHIVE).write_bytes(b"half")
    with pytest.raises(DownloadError, match=f"{ARCHIVE}: sha256 must be .* Delete it to have it downloaded."):
        get()


def test_no_path_inside_the_archive_leads_out_of_the_folder(server, get, tmp_path, monkeypatch):
    evil = dict.fromkeys(["../../evil", "/kn-evil", "annotations/../../evil", "..\\evil"], b"evil")
    server.pack(archive(evil), monkeypatch)
    get()
    assert files(tmp_path) == {f"beside/coco/{path}": content for path, content in expected().items()}
    assert not Path("/kn-evil").exists()


WHOLE = len(jpeg(6))


@pytest.mark.parametrize(
    ("trouble", "reason", "asked"),
    [
        (404, "HTTP 404 Not Found", 1),
        (403, "HTTP 403 Forbidden", 1),
        (500, "HTTP 500 Internal Server Error", 4),
        (("claims", 10), f"cut off after {WHOLE:,} of {WHOLE + 10:,} bytes", 4),
        (("claims", -900), "truncated or damaged (image file is truncated (", 4),
        (("sends", jpeg(6)[:-900]), "truncated or damaged (image file is truncated (", 4),
        (("sends", b"<html>Gone fishing</html>"), "not a picture in a format that Pillow reads", 4),
        (("sends", b""), "not a picture in a format that Pillow reads", 4),
        (("sends", jpeg(6, (48, 64))), "it has 48 x 64 pixels, annotated are 64 x 48", 4),
    ],
)
def test_a_picture_that_does_not_come_whole_is_named_and_the_others_are_kept(server, get, root, trouble, reason, asked):
    server.trouble[f"/val2017/{name(6)}"] = [trouble]
    with pytest.raises(DownloadError) as raised:
        get()
    head, line, advice = str(raised.value).splitlines()
    assert head == "1 of 4 pictures did not come; 3 did and are kept."
    assert line.startswith(f"  {name(6)}: {reason}")
    other = "What one server refuses, another may have: --mirror."
    assert advice == f"{AGAIN if asked > 1 else other} A picture that is not there is left out of a run."
    assert files(root) == expected([1, 8, 9])
    assert server.pictures_asked == sorted([*WANTED, *[6] * (asked - 1)])
    del server.trouble[f"/val2017/{name(6)}"], server.asked[:]
    get()
    assert server.pictures_asked == [6]
    assert files(root) == expected()


def test_a_picture_gets_a_few_attempts(server, get, root):
    server.trouble[f"/val2017/{name(6)}"] = [500, ("sends", b"<html>"), 429, None]
    server.trouble[f"/val2017/{name(9)}"] = [("cut", 1000), None]
    get()
    assert server.pictures_asked == [1, 6, 6, 6, 6, 8, 9, 9]
    assert (f"/val2017/{name(9)}", "bytes=1000-") in server.asked
    assert files(root) == expected()


def test_every_picture_that_fails_is_named_in_order(server, get, root):
    del server.files[f"/val2017/{name(9)}"]
    server.trouble[f"/val2017/{name(1)}"] = [500]
    with pytest.raises(DownloadError) as raised:
        get()
    assert str(raised.value).splitlines() == [
        "2 of 4 pictures did not come; 2 did and are kept.",
        f"  {name(1)}: HTTP 500 Internal Server Error",
        f"  {name(9)}: HTTP 404 Not Found",
        f"{AGAIN} What one server refuses, another may have: --mirror. "
        "A picture that is not there is left out of a run.",
    ]
    assert files(root) == expected([6, 8])


def test_after_many_failures_in_a_row_the_rest_is_given_up(server, get, root, monkeypatch):
    monkeypatch.setattr(coco, "GIVE_UP", 2)
    monkeypatch.setattr(coco, "CONNECTIONS", 1)
    for image_id in (1, 6, 8, 9):
        del server.files[f"/val2017/{name(image_id)}"]
    with pytest.raises(DownloadError) as raised:
        get()
    lines = str(raised.value).splitlines()
    assert lines[0] == "2 of 4 pictures did not come; 0 did and are kept."
    assert lines[3] == "After 2 failures in a row, the other 2 were given up."
    assert len(server.pictures_asked) in (2, 3, 4)  # those under way are waited for


def test_a_server_that_is_not_there_is_said_to_be_so(server, get, root):
    get()
    (root / "val2017" / name(6)).unlink()
    server.close()
    with pytest.raises(DownloadError, match=rf"{name(6)}: no connection \(.*refused\)"):
        get()
    with pytest.raises(DownloadError, match=rf"{ARCHIVE}: no connection \(.*refused\). Run the same"):
        get(root=root.parent / "other")


@pytest.mark.parametrize(
    "file_name", ["../evil.jpg", "a/../../evil.jpg", "/kn-evil.jpg", "..%2Fevil.jpg", "..\\evil.jpg"]
)
def test_no_name_in_the_annotations_leads_out_of_the_folder(server, get, root, tmp_path, file_name):
    existing(root, "official", [1, 8, 9])
    path = root / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    (record,) = (record for record in content["images"] if record["id"] == 6)
    record["file_name"] = file_name
    path.write_text(json.dumps(content))
    bystander = root / ".bystander.1.part"
    bystander.write_bytes(b"not ours")
    before = files(tmp_path)
    with pytest.raises(DownloadError) as raised:
        get()
    assert f"  {file_name}: its name in the annotations leads out of the folder" in str(raised.value)
    assert files(tmp_path) == before
    assert server.asked == []
    assert not Path("/kn-evil.jpg").exists()


def run_and_kill(server, root, profile) -> None:
    """Start the download, and kill it (SIGKILL) when the server has sent half of the file that waits."""
    process = multiprocessing.get_context("fork").Process(
        target=download, args=(root, "val2017", profile), kwargs={"say": str}
    )
    process.start()
    assert server.waiting.wait(20)
    end = time.monotonic() + 20
    while not any(path.name != PART or path.stat().st_size for path in root.rglob("*.part")):  # what was sent
        assert time.monotonic() < end, "nothing was written"
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -9


def test_a_run_that_is_killed_in_the_archive_is_gone_on_with(server, get, root, profile):
    server.trouble[ZIP] = ["waits", None]
    run_and_kill(server, root, profile)
    (left,) = files(root)
    assert left == PART
    had = (root / PART).stat().st_size
    assert 0 < had < len(server.files[ZIP])
    get()
    assert server.asked[1] == (ZIP, f"bytes={had}-")
    assert files(root) == expected()


def test_a_run_that_is_killed_in_a_picture_leaves_no_half_picture(server, get, root, profile):
    server.trouble[f"/val2017/{name(8)}"] = ["waits", None]
    server.trouble[f"/val2017/{name(9)}"] = ["waits", None]
    run_and_kill(server, root, profile)
    left = set(files(root)) - set(expected())
    assert all(path.startswith("val2017/.0") and path.endswith(".part") for path in left)
    assert not {f"val2017/{name(8)}", f"val2017/{name(9)}"} & set(files(root))
    assert files(root)["annotations/captions_val2017.json"] == expected()["annotations/captions_val2017.json"]
    done = {int(Path(path).stem) for path in files(root) if path.endswith(".jpg")}
    del server.asked[:]
    server.trouble.clear()  # of the second one, which may not have been asked for yet
    get()
    assert server.pictures_asked == sorted(set(WANTED) - done)
    assert files(root) == expected()


def interrupted(_):
    """In the place of `as_completed`: Ctrl-C while pictures are under way."""
    raise KeyboardInterrupt
    yield


def test_an_archive_whose_members_were_half_taken_out_is_taken_out_again(server, get, root, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(annotations_module.shutil, "copyfileobj", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            get()
    assert list(files(root)) == [PART]
    get()
    assert files(root) == expected()


def test_two_runs_do_not_write_into_a_folder_at_once(server, get, root):
    root.mkdir(parents=True)
    other = filelock.FileLock(root / ".download.lock")
    with other, pytest.raises(DownloadError, match=f"another run is downloading into {root}. Wait"):
        get()
    get()
    assert files(root) == expected()


@pytest.mark.parametrize("layout", ["plain", "official"])
def test_a_folder_that_has_all_is_neither_written_to_nor_asked_for(server, get, root, layout, monkeypatch):
    server.close()
    existing(root, layout)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    said = get()
    assert said.endswith("All 4 are there: none is downloaded.")
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.parametrize(("layout", "pictures"), [("plain", "images"), ("official", "val2017")])
def test_a_folder_that_lacks_pictures_gets_those(server, get, root, layout, pictures):
    existing(root, layout, [1, 7])
    before = files(root)
    said = get()
    assert "1 of them are there. To fetch: 3, about" in said
    assert server.pictures_asked == [6, 8, 9]
    assert ZIP not in {path for path, _ in server.asked}
    assert files(root) == before | {f"{pictures}/{name(i)}": jpeg(i) for i in (6, 8, 9)}


def test_a_folder_without_pictures_gets_a_place_for_them(server, get, root):
    existing(root, "official", [])
    (root / "val2017").rmdir()
    get()
    assert files(root) == expected()


def test_pictures_that_are_not_whole_are_replaced_once_a_good_one_is_there(server, get, root):
    existing(root, "official")
    damaged = {8: jpeg(8)[:-900], 9: jpeg(9, (32, 24))}
    for image_id, content in damaged.items():
        (root / "val2017" / name(image_id)).write_bytes(content)
    server.trouble[f"/val2017/{name(9)}"] = [404, None]
    with pytest.raises(DownloadError, match=f"{name(9)}: HTTP 404"):
        get()
    assert files(root) == expected() | {f"val2017/{name(9)}": damaged[9]}
    said = get()
    assert f"Damaged, or not of the annotated size, and to be replaced: {name(9)}." in said
    assert files(root) == expected()


@pytest.fixture
def cocos_own(monkeypatch):
    """Which addresses are asked for without a mirror; nothing leaves this machine."""
    asked = []

    def refuse(url, *_, **__):
        asked.append(url)
        raise transfer.RefusedError("HTTP 404")

    monkeypatch.delenv("KN_COCO_MIRROR", raising=False)
    monkeypatch.setattr(coco, "fetch", refuse)
    monkeypatch.setattr(annotations_module, "fetch", refuse)
    return asked


def test_without_a_mirror_cocos_own_addresses_are_asked(cocos_own, get, root):
    with pytest.raises(DownloadError, match="HTTP 404"):
        get()
    existing(root, "official", [1, 8])
    path = root / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    for record in content["images"]:
        if record["id"] == 6:
            record["coco_url"] = "http://elsewhere.example/6.jpg"
        else:
            del record["coco_url"]
    path.write_text(json.dumps(content))
    with pytest.raises(DownloadError, match="HTTP 404"):
        get()
    assert cocos_own[0] == "http://images.cocodataset.org/annotations/annotations_trainval2017.zip"
    assert sorted(cocos_own[1:]) == [
        "http://elsewhere.example/6.jpg",
        "http://images.cocodataset.org/val2017/000000000009.jpg",
    ]


def test_a_mirror_has_the_same_paths_below_its_address(server, get, root, monkeypatch):
    server.files = {f"/deep/coco{path}": content for path, content in server.files.items()}
    get(mirror=f"{server.url}/deep/coco/")
    assert files(root) == expected()


@pytest.mark.parametrize("mirror", ["file:///etc", "images.cocodataset.org", "http://"])
def test_a_mirror_is_an_address(get, root, mirror):
    with pytest.raises(DownloadError, match=f"a mirror must be an address such as {SERVER}. Got '{mirror}'."):
        get(mirror=mirror)
    assert not root.exists()


def test_nothing_but_http_is_opened(tmp_path):
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(transfer.RefusedError, match="not an address of http or https"):
        transfer.fetch((tmp_path / "secret").as_uri(), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def command(root: Path, *more: str) -> list[str]:
    return ["data", "coco", "--split", "val2017", "--root", str(root), *more]


def test_the_command_ends_with_the_next_one(server, root, capsys):
    assert main(command(root, "--concept", "bear", "--concept", "cat")) == 0
    said = capsys.readouterr().out
    assert f"Next: make book PROFILE=embedded-coco COCO={root}\n" in said
    assert files(root) == expected()


def test_the_command_goes_on_after_an_interruption(server, root, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(coco, "as_completed", interrupted)
        patch.setattr(coco, "CONNECTIONS", 1)
        assert main(command(root, "--concept", "bear")) == 130
    assert files(root).items() <= expected().items()
    assert capsys.readouterr().err.endswith("kn-core: interrupted; the same command goes on\n")
    assert main(command(root, "--concept", "bear", "--mirror", server.url)) == 0
    assert files(root) == expected([1, 8, 9])
