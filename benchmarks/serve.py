"""Does the service answer as fast as a folder run, stay flat under load, and lose nothing at its end?

    python benchmarks/serve.py IMAGES [--model BUNDLE] [--images 200] [--rounds 5] [--requests 10000] [--load 0.8]

Rate: every round times `Classifier.predict` on the files, as a folder run does, and the service on the same ones,
one image a request over a few open connections. The client runs on the same CPUs and takes its share of them.

Load: requests come at even times, at a share of the rate that the service reached, and each is timed from when it
was due. An answer counts where it is the one of the folder run, byte for byte. How long an image waited for a
thread is what the service says (`Server-Timing`).

End: the service is sent SIGTERM while requests keep coming.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lesion_edge import Classifier
from lesion_edge.classifier import SHIPPED_BUNDLE
from lesion_edge.images import find_images
from lesion_edge.output import columns, json_line
from timing import markdown_table, time_in_turns

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECTIONS = 16


@dataclass(frozen=True)
class Answer:
    """What came back for one request."""

    status: int
    body: bytes
    queued: float
    """ms that the image waited for a thread."""
    is_last: bool
    """Whether the service closes the connection."""
    latency: float = 0.0
    """ms from when the request was due."""


class Connection:
    """A connection that stays open; the least client that there can be."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, content: bytes) -> Answer:
        """Answer to an image.

        Raises:
            ConnectionError: the connection ended without one.
        """
        self._socket.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(content))
        self._socket.sendall(content)
        received = b""
        while b"\r\n\r\n" not in received:
            chunk = self._socket.recv(1 << 16)
            if not chunk:
                raise ConnectionResetError("no answer")
            received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        fields = dict(re.findall(rb"\r\n([^:]+): ([^\r]*)", head.lower()))
        while len(body) < int(fields[b"content-length"]):
            body += self._socket.recv(1 << 16)
        queued = re.search(rb"queue;dur=([\d.]+)", fields.get(b"server-timing", b""))
        is_last = fields.get(b"connection") == b"close"
        return Answer(int(head.split()[1]), body, float(queued[1]) if queued else 0.0, is_last)


class Service:
    """`lesion-serve` as a process of its own."""

    def __init__(self, bundle: Path) -> None:
        command = [sys.executable, "-c", "from lesion_serve.cli import main; main()"]
        self.process = subprocess.Popen(
            [*command, "--model", str(bundle), "--port", "0", "--device", "cpu"], stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.port = int(re.findall(r"http://[^/]*:(\d+)/", self.process.stderr.readline())[0])
        print(self.process.stderr.readline().strip(), flush=True)

    def memory(self) -> float:
        """Resident memory, MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024

    def cpu(self) -> float:
        """CPU time so far, s."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100


def main() -> None:
    """Print the rates, the latencies and what became of each request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--model", type=Path, default=SHIPPED_BUNDLE)
    parser.add_argument("--images", dest="count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--load", type=float, default=0.8)
    arguments = parser.parse_args()
    classifier = Classifier(arguments.model, device="cpu")
    found = itertools.islice(find_images([str(arguments.images)]), arguments.count)
    files = list(itertools.islice(itertools.cycle(list(found)), arguments.count))
    contents = [Path(file).read_bytes() for file in files]
    names = columns(classifier.manifest.class_names)
    expected = [json_line(prediction, names).encode() for prediction in classifier.predict(contents)]
    size = statistics.mean(map(len, contents)) / 1024
    print(f"{len(files)} images of {size:.0f} KiB, {classifier.threads} threads\n", flush=True)
    service = Service(arguments.model)
    rate = compare_rates(classifier, service, files, contents, arguments.rounds)
    idle = measure_idle(service, contents)
    load(service, contents, expected, rate * arguments.load, arguments.requests, idle)
    end(service, contents, expected)


def compare_rates(
    classifier: Classifier, service: Service, files: list[str], contents: list[bytes], rounds: int
) -> float:
    """Print both rates and their ratio; images/s of the service."""
    clock = {"folder": 0.0, "service": 0.0, "client": 0.0}

    def classify(_: int) -> None:
        before = time.process_time()
        list(classifier.predict(files))
        clock["folder"] += time.process_time() - before

    def serve(_: int) -> None:
        indices = iter(range(len(contents)))
        before = time.process_time(), service.cpu()
        connections = [Connection(service.port) for _ in range(CONNECTIONS)]
        in_threads(len(connections), lambda thread: [connections[thread].ask(contents[i]) for i in indices])
        clock["client"] += time.process_time() - before[0]
        clock["service"] += service.cpu() - before[1]

    times = time_in_turns({"folder": classify, "service": serve}, rounds, warm_up=1)
    rates = {name: [1000 * len(files) / value for value in values] for name, values in times.items()}
    ratios = [a / b for a, b in zip(rates["service"], rates["folder"], strict=True)]
    rows = [[name, f"{statistics.median(values):.1f}"] for name, values in rates.items()]
    print(markdown_table(["", "images/s"], rows))
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"\nservice / folder: {statistics.median(ratios):.3f} ({spread}, {rounds} rounds)")
    per_image = [f"{name} {1000 * value / len(files) / (rounds + 1):.2f}" for name, value in clock.items()]
    print(
        f"CPU time, ms an image: {', '.join(per_image)}; ratio {clock['folder'] / clock['service']:.3f}\n",
        flush=True,
    )
    return statistics.median(rates["service"])


def measure_idle(service: Service, contents: list[bytes]) -> float:
    """Median latency of one request at a time, ms."""
    connection, latencies = Connection(service.port), []
    for content in itertools.islice(itertools.cycle(contents), 400):
        start = time.perf_counter()
        connection.ask(content)
        latencies.append((time.perf_counter() - start) * 1000)
    print(f"idle: p50 {statistics.median(latencies):.2f} ms, p99 {percentile(latencies, 99):.2f} ms\n", flush=True)
    return statistics.median(latencies)


def load(
    service: Service, contents: list[bytes], expected: list[bytes], rate: float, requests: int, idle: float
) -> None:
    """Print what became of requests at a rate, their latencies, and the memory of the service."""
    answers: list[Answer] = []
    outcomes: Counter[str] = Counter()
    memory: dict[int, float] = {}
    indices = iter(range(requests))
    begin = time.perf_counter() + 0.5

    def work(_: int) -> None:
        connection = Connection(service.port)
        for index in indices:
            due = begin + index / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            answer = connection.ask(contents[index % len(contents)])
            latency = (time.perf_counter() - due) * 1000
            is_right = answer.status == 200 and answer.body == expected[index % len(contents)]
            outcomes["right" if is_right else f"status {answer.status}" if answer.status != 200 else "WRONG"] += 1
            answers.append(Answer(answer.status, b"", answer.queued, answer.is_last, latency))
            if index % (requests // 10) == 0:
                memory[index] = service.memory()

    in_threads(CONNECTIONS, work)
    answered = [answer for answer in answers if answer.status == 200]
    latencies = [answer.latency for answer in answered]
    without_queue = [answer.latency - answer.queued for answer in answered]
    print(f"{requests} requests at {rate:.1f} a second: {dict(outcomes)}")
    rows = [
        [name, *(f"{percentile(values, share):.2f}" for share in (50, 90, 99))]
        for name, values in (
            ("latency", latencies),
            ("waited for a thread", [answer.queued for answer in answered]),
            ("latency without that", without_queue),
        )
    ]
    print(markdown_table(["ms", "p50", "p90", "p99"], rows))
    print(f"\np99 without the queue / p50 idle: {percentile(without_queue, 99) / idle:.2f}")
    print(
        "resident memory, MiB: " + ", ".join(f"{memory[index]:.0f}" for index in sorted(memory)) + "\n", flush=True
    )


def end(service: Service, contents: list[bytes], expected: list[bytes]) -> None:
    """Print what became of requests while the service ends."""
    outcomes: Counter[str] = Counter()
    has_ended = threading.Event()

    def work(thread: int) -> None:
        connection = None
        for index in itertools.count(thread):
            if has_ended.is_set():
                return
            try:
                connection = connection or Connection(service.port)
            except ConnectionError:
                outcomes["connection refused"] += 1
                time.sleep(0.01)
                continue
            try:
                answer = connection.ask(contents[index % len(contents)])
            except ConnectionError:
                outcomes["no answer"] += 1
                connection = None
                continue
            is_right = answer.status == 200 and answer.body == expected[index % len(contents)]
            outcomes["right" if is_right else f"status {answer.status}"] += 1
            if answer.is_last:
                connection = None

    def stop() -> None:
        time.sleep(5)
        service.process.send_signal(signal.SIGTERM)
        outcomes[f"exit code {service.process.wait(60)}"] += 1
        time.sleep(0.2)
        has_ended.set()

    threading.Thread(target=stop).start()
    in_threads(8, work)
    print(f"SIGTERM under load: {json.dumps(outcomes)}")


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Call a function in several threads, each with its number, and wait for all of them."""
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


def percentile(values: list[float], share: int) -> float:
    """Percentile, 1 to 99."""
    return statistics.quantiles(values, n=100)[share - 1]


if __name__ == "__main__":
    main()
