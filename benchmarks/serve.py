"""How many requests `clearmargin serve` answers: many clients on loopback, each posting one 50×50 patch after another.

Shared runs of the network on and off in turns, so that both see the same hour of the machine. Clients are plain sockets
that keep their connection, in one process on the same cores: what they take of them is the server's loss. Prints a row
a turn: rate, latencies, errors, and the server's processor time a request and memory (start, middle, end).

    python benchmarks/serve.py --seconds 60 --clients 50 --rounds 2 [--bundle BUNDLE]

Without --bundle, a network with random weights is served: speed does not depend on the weights.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from clearmargin.data.phantom import draw_patch
from predict_peers import write_random

_BOUNDARY = "b" * 20
_WARM_SECONDS = 2.0
_PATCHES = 64


@dataclass
class Turn:
    """What one turn gave; times in seconds, memory in MB of the server without its decoders, whose time counts."""

    answers: int = 0
    errors: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    batch: float = 0.0
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        return self.answers / self.seconds

    def row(self, name: str) -> str:
        middle, late = np.percentile(self.latencies, [50, 99]) * 1000
        start, half, last = (self.memory[at] for at in (0, len(self.memory) // 2, -1))
        cells = [name, f"{self.rate:.0f}", f"{middle:.0f}", f"{late:.0f}", self.errors, f"{self.batch:.1f}"]
        cells += [f"{self.cpu / self.answers * 1000:.2f}", f"{start:.0f} → {half:.0f} → {last:.0f}"]
        return f"| {' | '.join(map(str, cells))} |"


def requests(host: str) -> list[bytes]:
    """Whole requests, each with another drawn patch."""
    made = []
    for number in range(_PATCHES):
        stream = io.BytesIO()
        Image.fromarray(draw_patch(1 if number % 2 else 0, number, 50)).save(stream, "PNG")
        body = (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{number}.png"\r\n'
            "Content-Type: image/png\r\n\r\n"
        ).encode() + stream.getvalue() + f"\r\n--{_BOUNDARY}--\r\n".encode()  # fmt: skip
        head = (
            f"POST /api/v1/predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


async def read_answer(reader: asyncio.StreamReader) -> int:
    """The status of the next answer, which has been read to its end."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = next(int(line.split(":")[1]) for line in head.lower().split("\r\n") if line.startswith("content-length:"))
    await reader.readexactly(length)
    return int(head.split()[1])


async def ask(port: int, made: list[bytes], *, number: int, begin: float, end: float, turn: Turn) -> None:
    """One client, whose first request is that of `number`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (started := time.perf_counter()) < end:
        writer.write(made[number % len(made)])
        number += 1
        status = await read_answer(reader)
        if started >= begin:
            turn.answers += 1
            turn.errors += status != 200
            turn.latencies.append(time.perf_counter() - started)
    writer.close()


def processor_time(process: int) -> float:
    """Seconds that the server and its decoders have taken so far."""
    children = [
        child for task in Path(f"/proc/{process}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    ticks = 0
    for each in (str(process), *children):
        fields = Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def watch(process: int, begin: float, end: float, turn: Turn) -> None:
    """Memory of the server, twice a second once it is warm."""
    await asyncio.sleep(begin - time.perf_counter())
    turn.cpu = processor_time(process)
    while time.perf_counter() < end:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        turn.memory.append(pages * 4096 / 1e6)
        await asyncio.sleep(0.5)


async def batches(port: int, host: str) -> tuple[float, float]:
    """Images that went through the network, and in how many runs."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /api/v1/metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    images, runs = (
        float(
            next(line.split()[1] for line in text.splitlines() if line.startswith(f"clearmargin_batch_images_{what} "))
        )
        for what in ("sum", "count")
    )
    return images, runs


async def measure(process: int, port: int, clients: int, seconds: float) -> Turn:
    """One turn against a running server."""
    host, turn = f"127.0.0.1:{port}", Turn()
    made = requests(host)
    begin = time.perf_counter() + _WARM_SECONDS
    end = begin + seconds
    await asyncio.gather(
        *(ask(port, made, number=7 * client, begin=begin, end=end, turn=turn) for client in range(clients)),
        watch(process, begin, end, turn),
    )
    turn.seconds = time.perf_counter() - begin
    turn.cpu = processor_time(process) - turn.cpu
    images, runs = await batches(port, host)
    turn.batch = images / runs
    return turn


def serve(bundle: Path, folder: Path, clients: int, seconds: float, *, batching: bool) -> Turn:
    """One turn with a server of its own."""
    command = [sys.executable, "-m", "clearmargin", "serve", str(bundle), "--port", "0", "--state", str(folder)]
    command += ["--concurrency", str(max(64, clients)), "--batching" if batching else "--no-batching"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        if "Serving" not in line:
            raise SystemExit(line)
        return asyncio.run(measure(process.pid, int(line.rsplit(":", 1)[1]), clients, seconds))
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of a turn")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=1, help="turns with, and as many without")
    parser.add_argument("--bundle", type=Path, help="to serve; random weights when not given")
    parser.add_argument("--model", default="residual", help="whose weights are random")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = given.bundle or write_random(Path(folder) / given.model, given.model)
        print(
            "| shared runs | requests/s | p50, ms | p99, ms | errors | images a run | CPU a request, ms | memory, MB |"
        )
        print("|---" * 8 + "|", flush=True)
        for _ in range(given.rounds):
            for batching in (True, False):
                turn = serve(bundle, Path(folder) / "state", given.clients, given.seconds, batching=batching)
                print(turn.row("on" if batching else "off"), flush=True)


if __name__ == "__main__":
    main()
