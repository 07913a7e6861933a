"""`lesion-serve` as a process: it proves itself, refuses what is wrong, and loses nothing at its end."""

from __future__ import annotations

import http.client
import io
import json
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnxruntime")
pytest.importorskip("starlette")

from lesion_edge.errors import LesionEdgeError
from lesion_serve import connection
from lesion_serve.cli import serve
from tests.edge_runtime.conftest import write_bundle
from tests.serve.conftest import running_service

if TYPE_CHECKING:
    from tests.serve.conftest import RunningService

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")


def slow_image() -> bytes:
    """An image that takes some 0.05 s to decode."""
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 50, (1000, 1000, 3), np.uint8)
    Image.fromarray(noise + np.array([200, 20, 20], np.uint8)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def post(port: int, content: bytes) -> http.client.HTTPConnection:
    """A connection over which an image has been sent."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    client.request("POST", "/classify", content)
    return client


def test_end_loses_nothing_that_was_accepted(proven_bundle: Path, images: Path) -> None:
    """Neither what is in work, waits, is half sent, nor comes over an open connection; new ones are refused."""
    slow, quick = slow_image(), (images / "red.png").read_bytes()
    with running_service("--model", proven_bundle, "--threads", "1") as service:
        idle = post(service.port, quick)
        assert json.loads(idle.getresponse().read())["label"] == "malignant"
        half = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        half.putrequest("POST", "/classify")
        half.putheader("Content-Length", str(len(quick)))
        half.endheaders(quick[:50])
        waiting = [post(service.port, slow) for _ in range(5)]
        figures = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            figures.request("GET", "/metrics")
            if b"lesion_requests_in_progress 6.0" in figures.getresponse().read():
                break
        else:
            pytest.fail("the requests were not accepted")
        service.process.send_signal(signal.SIGTERM)
        while "ending" not in service.said:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        idle.request("POST", "/classify", quick)
        half.send(quick[50:])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", service.port), timeout=5)
        for client in (*waiting, idle, half):
            response = client.getresponse()
            assert (response.status, json.loads(response.read())["label"]) == (200, "malignant")
        assert response.headers["Connection"] == "close"
        assert service.wait() == 0
        assert "Traceback" not in service.said


def test_ctrl_c_ends_likewise_with_its_own_code(proven_bundle: Path) -> None:
    with running_service("--model", proven_bundle) as service:
        assert service.end(signal.SIGINT) == 130
        assert "Traceback" not in service.said


def test_failing_self_test_ends_it(
    proven_bundle: Path, edit: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(proven_bundle, tmp_path / "bundle")

    def shift(content: dict[str, Any]) -> None:
        content["variants"]["int8"]["self_test"]["logits"][0][0] += 1

    edit(tmp_path / "bundle", shift)
    assert serve(["--model", str(tmp_path / "bundle"), "--port", "0"]) is False
    assert "self-test of int8 on cpu: FAILED" in capsys.readouterr().err


def test_bundle_without_a_self_test_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LesionEdgeError, match="the bundle has no self-test for int8: export it again"):
        serve(["--model", str(write_bundle(tmp_path / "bundle")), "--port", "0"])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        pytest.param(["--port", "70000"], "'70000' is not a port, 0 to 65535", id="port"),
        pytest.param(["--queue", "0"], "'0' is not a whole number of at least 1", id="queue"),
        pytest.param(["--batch-size", "2"], "unrecognized arguments: --batch-size 2", id="option of lesion-infer"),
        pytest.param(["--model", "nowhere"], "nowhere", id="bundle"),
        pytest.param(["--host", "203.0.113.1"], "cannot listen on 203.0.113.1, port 8000: ", id="address"),
        pytest.param(["--host", "no.invalid"], "cannot listen on no.invalid, port 8000: ", id="name"),
        pytest.param(["--site", "site.json"], "site.json", id="site"),
    ],
)
def test_wrong_request_is_one_sentence(arguments: list[str], reason: str, proven_bundle: Path) -> None:
    with pytest.raises(LesionEdgeError) as refusal:
        serve(["--model", str(proven_bundle), *arguments])
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_trusted_key_is_asked_for(proven_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography")
    with pytest.raises(LesionEdgeError, match=r"/there/key\.pub"):
        serve(["--model", str(proven_bundle), "--trust", "/there/key.pub"])
    monkeypatch.setenv("LESION_EDGE_TRUST", "/nowhere/key.pub")
    with pytest.raises(LesionEdgeError, match=r"/nowhere/key\.pub"):
        serve(["--model", str(proven_bundle)])


def test_port_in_use_is_refused(served: RunningService, proven_bundle: Path) -> None:
    reason = f"cannot listen on 127.0.0.1, port {served.port}: Address already in use"
    with pytest.raises(LesionEdgeError, match=f"^{reason}$"):
        serve(["--model", str(proven_bundle), "--port", str(served.port)])


def test_endless_head_is_cut(served: RunningService) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as client:
        filler = b"X-Filler: " + b"a" * (connection.MAX_HEAD + 1)
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n" + filler)
        assert client.recv(100).startswith(b"HTTP/1.1 431 ")
    assert http_get(served.port, "/v2/health/live") == 200


def http_get(port: int, path: str) -> int:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    client.request("GET", path)
    return client.getresponse().status


def test_connection_goes_on_after_a_refusal(served: RunningService, images: Path) -> None:
    """A body that nobody read is no part of the next request."""
    client = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    for _ in range(3):
        client.request("POST", "/classify?threshold=0", bytes(300_000))
        response = client.getresponse()
        assert (response.status, "parameters" in json.loads(response.read())["error"]) == (400, True)
        client.request("POST", "/classify", (images / "red.png").read_bytes())
        assert json.loads(client.getresponse().read())["label"] == "malignant"


def test_log_names_no_image(served: RunningService, images: Path) -> None:
    client = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    body = (
        b'--b\r\nContent-Disposition: form-data; name="x"; filename="Jane Doe.png"\r\n\r\n'
        + (images / "red.png").read_bytes()
        + b"\r\n--b--\r\n"
    )
    client.request("POST", "/classify", body, {"Content-Type": "multipart/form-data; boundary=b"})
    assert json.loads(client.getresponse().read())["path"] == "Jane Doe.png"
    assert "Jane" not in served.said
