"""Downloads, against a small hub on 127.0.0.1: what arrives whole, broken, false or not at all, and the cache.

`test_weights` has timm's models offline, interrupted and fetched; here are official SAM 2 files and the checksum.
"""

from __future__ import annotations

import hashlib
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from fcbench.core.errors import FcbenchError
from fcbench.encoders.shared import weights

REPO, FILE = "facebook/sam2.1-hiera-tiny", "sam2.1_hiera_tiny.pt"
PAYLOAD = bytes(range(256)) * 64
COMMIT = "0" * 40


@dataclass
class Hub:
    """A hub that holds one file.

    Attributes:
        payload: the file.
        sent: what is sent in its place.
        sha256: what the hub says its SHA-256 is.
        error_code: the hub's own word for a 404, for everything but the file.
        n_served: bodies sent so far.
    """

    payload: bytes = PAYLOAD
    sent: bytes = PAYLOAD
    sha256: str = hashlib.sha256(PAYLOAD).hexdigest()
    error_code: str = "EntryNotFound"
    n_served: int = 0
    url: str = ""
    server: http.server.ThreadingHTTPServer = field(init=False)

    def start(self) -> None:
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, to: http.server.BaseHTTPRequestHandler, body: bool) -> None:
        found = to.path == f"/{REPO}/resolve/main/{FILE}"
        to.send_response(200 if found or to.path == "/" else 404)
        if not found:
            to.send_header("X-Error-Code", self.error_code)
            to.send_header("Content-Length", "0")
            to.end_headers()
            return
        to.send_header("X-Repo-Commit", COMMIT)
        to.send_header("X-Linked-Etag", f'"{self.sha256}"')
        to.send_header("X-Linked-Size", str(len(self.payload)))
        to.send_header("ETag", f'"{self.sha256}"')
        to.send_header("Content-Length", str(len(self.sent if body else self.payload)))
        to.end_headers()
        if body:
            self.n_served += 1
            to.wfile.write(self.sent)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, and the client of this process pointed at it with a cache of its own."""
    found = Hub()
    found.start()
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", found.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", found.url + template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield found
    found.stop()


def fetch(file: str = FILE, repo: str = REPO) -> Path:
    return weights.hub_file("sam2", repo, [file])


def refused(match: str, file: str = FILE, repo: str = REPO) -> None:
    with pytest.raises(FcbenchError, match=match) as caught:
        fetch(file, repo)
    assert "\n" not in str(caught.value)
    assert "sam2: " in str(caught.value)


def left(cache: Path) -> list[Path]:
    """Whole files in the cache."""
    blobs = cache.glob("models--*/blobs/*")
    return [p for p in blobs if not p.name.endswith(".incomplete")]


def test_a_good_file_arrives_and_is_kept(hub: Hub) -> None:
    assert fetch().read_bytes() == PAYLOAD
    assert fetch().name == FILE
    assert hub.n_served == 1


def test_the_cache_needs_no_server(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetch()
    hub.stop()
    monkeypatch.setattr(hub, "stop", lambda: None)
    assert fetch() == first


def test_no_server(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.stop()
    monkeypatch.setattr(hub, "stop", lambda: None)
    refused(f"would download {hub.url}/{REPO} .{FILE}.*hiera_nano and sam2_nano")


def test_a_truncated_file_is_refused_and_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.sent = PAYLOAD[:-100]
    refused("failed .*run the command again")
    assert left(tmp_path / "hub") == []
    hub.sent = PAYLOAD
    assert fetch().read_bytes() == PAYLOAD


def test_a_file_of_another_checksum_is_refused_and_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.sent = PAYLOAD[:-1] + b"?"  # the size is right
    refused(f"damaged .*the hub says {hub.sha256[:12]}.*run the command again")
    assert left(tmp_path / "hub") == []
    hub.sent = PAYLOAD
    assert fetch().read_bytes() == PAYLOAD


def test_a_file_damaged_in_the_cache_is_refused_and_fetched_again(hub: Hub, tmp_path: Path) -> None:
    blob = fetch().resolve()
    blob.write_bytes(PAYLOAD[:100])
    refused("damaged")
    assert left(tmp_path / "hub") == []
    assert fetch().read_bytes() == PAYLOAD
    assert hub.n_served == 2


def test_a_small_file_has_no_checksum_to_check(hub: Hub) -> None:
    hub.sha256 = "a1b2c3d4" * 5  # git's hash of a small file, not a SHA-256
    assert fetch().read_bytes() == PAYLOAD


def test_no_such_file(hub: Hub) -> None:
    refused(f"{REPO} holds none of other.pt", file="other.pt")


@pytest.mark.parametrize("code", ["RepoNotFound", "RevisionNotFound", "GatedRepo"])
def test_no_such_repository(hub: Hub, code: str) -> None:
    hub.error_code = code
    refused("does not provide facebook/sam3: .*HF_TOKEN.*HF_ENDPOINT", repo="facebook/sam3")


def test_a_404_that_says_nothing(hub: Hub) -> None:
    hub.error_code = ""
    refused("download of .*facebook/sam3.* failed", repo="facebook/sam3")
    assert hub.n_served == 0


# -------------------------------------------------------------------------------- as users have it
SCRIPT = """
import torch
from fcbench.core import registry
from fcbench.core.errors import FcbenchError
try:
    for time in ("first", "second"):
        e = registry.get("encoder", "sam2").build("", None, torch.device("cpu"))
        print("OK", e.weights.sha256, e.weights.origin, len(e.specs), flush=True)
        if time == "first":
            input()
except FcbenchError as exc:
    print("ERROR", exc)
"""


def test_sam2_from_the_hub_and_then_without_it(hub: Hub, tmp_path: Path) -> None:
    """The environment's own HF_ENDPOINT, an official file; the second build has no server."""
    from sam2.build_sam import build_sam2

    model = build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu")
    # tensors of one value each: the official names and shapes in a file of a few hundred kB
    state = {k: torch.zeros(1).expand(t.shape) for k, t in model.state_dict().items()}
    torch.save({"model": state}, tmp_path / FILE)
    hub.payload = hub.sent = (tmp_path / FILE).read_bytes()
    hub.sha256 = hashlib.sha256(hub.payload).hexdigest()
    env = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "OMP_NUM_THREADS": "1",
    }
    env.pop("HF_HUB_OFFLINE", None)
    env.pop("HF_HUB_CACHE", None)
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None and process.stdin is not None
        expected = f"OK {hub.sha256} hub:{REPO} 8\n"
        assert process.stdout.readline() == expected
        served, hub.payload = hub.n_served, b""
        hub.sent, hub.sha256 = b"", ""  # nothing right comes from here any more
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stdout.readline() == expected
    assert process.returncode == 0
    assert (served, hub.n_served) == (1, 1)
