#!/usr/bin/env python3
"""Lands one JSON page too large for memory from a streaming server on loopback into a lake on local disk.

    benches/large_page.py PATH/TO/landfall [--megabytes 2000] [--record-bytes 1000] [--memory 256MiB] [--gzip] [--noise] [--transform]

Needs GNU time. Prints peak memory, wall time and throughput, and checks that the parts in raw are the page byte for byte.
"""

import argparse
import hashlib
import http.server
import json
import pathlib
import random
import re
import shutil
import subprocess
import tempfile
import threading
import zlib

WORDS = "amber basalt cedar delta ember fjord grove harbor island juniper kelp lagoon meadow north orchard prairie".split()

# Records are taken in turn from so many that were made beforehand: the server is not what is measured.
TEMPLATES = 1_000

PROJECT = """lake: ./lake
memory: {memory}
sources:
  bench:
    base_url: http://127.0.0.1:{port}
    timeouts: {{ total: 1h }}
    limits: {{ page_bytes_max: 1TiB }}
    streams:
      orders:
        request: {{ path: /orders }}
        records: $.data[*]
        paginate: {{ type: none }}
        table: {{ keys: [id] }}
"""


def templates(record_bytes):
    generator = random.Random(7)
    made = []
    for number in range(TEMPLATES):
        fields = {
            "version": 1,
            "status": generator.choice(["open", "paid", "shipped", "returned"]),
            "total": f"{generator.randrange(1, 10**6) / 100:.2f}",
            "customer": {"id": generator.randrange(10**6), "email": f"user{number}@example.com"},
            "tags": [generator.choice(WORDS) for _ in range(4)],
        }
        # The number of the record takes about 15 bytes.
        missing = record_bytes - len(json.dumps(fields, separators=(",", ":"))) - 25
        note = ""
        while len(note) < missing:
            note += generator.choice(WORDS) + f" {generator.randrange(10**4)} "
        fields["note"] = note[: max(missing, 0)]
        made.append(json.dumps(fields, separators=(",", ":"))[1:].encode())
    return made


def chunks(records, record_bytes, noise):
    """The page in pieces of about 256 KiB."""
    made = templates(record_bytes // 2 if noise else record_bytes)
    generator = random.Random(11)
    piece = bytearray(b'{"data":[')
    for number in range(records):
        piece += b'{"id":%d,' % number
        if noise:
            piece += b'"noise":"%s",' % generator.randbytes(record_bytes // 4).hex().encode()
        piece += made[number % TEMPLATES] + (b",\n" if number + 1 < records else b"")
        if len(piece) >= 1 << 18:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece) + b'],"total":%d,"next":null}' % records


def serve(records, options, sent):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            sent["digest"], sent["bytes"] = hashlib.sha256(), 0
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            if options.gzip:
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            packer = zlib.compressobj(1, zlib.DEFLATED, 31)
            for piece in chunks(records, options.record_bytes, options.noise):
                sent["digest"].update(piece)
                sent["bytes"] += len(piece)
                self.chunk(packer.compress(piece) if options.gzip else piece)
            if options.gzip:
                self.chunk(packer.flush())
            self.wfile.write(b"0\r\n\r\n")

        def chunk(self, piece):
            if piece:
                self.wfile.write(b"%x\r\n" % len(piece) + piece + b"\r\n")

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def timed(command, label, size):
    done = subprocess.run(["/usr/bin/time", "-v", *command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    clock = re.search(r"Elapsed \(wall clock\) time .*: (.*)", done.stderr).group(1)
    seconds = sum(float(part) * 60**place for place, part in enumerate(reversed(clock.split(":"))))
    peak = int(re.search(r"Maximum resident set size \(kbytes\): (\d+)", done.stderr).group(1)) // 1024
    user = re.search(r"User time \(seconds\): (.*)", done.stderr).group(1)
    print(f"{label:<10} wall {seconds:8.2f} s  user {user:>8} s  peak {peak:>5} MiB  {size / seconds / 1e6:7.1f} MB/s")


def landed(lake):
    """SHA-256 and length of all bodies in raw, with what stands between them left out: the page is the only one."""
    log = sorted((lake / "raw/bench/orders/_log").glob("[0-9]*.json"))
    objects = [lake / entry["path"] for path in log for entry in json.loads(path.read_text())["objects"]]
    digest, size = hashlib.sha256(), 0
    unpacked = subprocess.Popen(["zstd", "-dc", *map(str, objects)], stdout=subprocess.PIPE)
    # The newline behind the last part is no byte of the page.
    held = b""
    while piece := unpacked.stdout.read(1 << 20):
        digest.update(held)
        size += len(held)
        held = piece
    digest.update(held[:-1])
    return digest.hexdigest(), size + len(held) - 1, len(objects)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("landfall")
    arguments.add_argument("--megabytes", type=int, default=2_000)
    arguments.add_argument("--record-bytes", type=int, default=1_000)
    arguments.add_argument("--memory", default="256MiB")
    arguments.add_argument("--gzip", action="store_true")
    arguments.add_argument("--noise", action="store_true", help="half of each record is random: raw is large too")
    arguments.add_argument("--transform", action="store_true")
    arguments.add_argument("--keep")
    options = arguments.parse_args()
    records = options.megabytes * 1_000_000 // options.record_bytes
    sent = {}
    server = serve(records, options, sent)
    root = pathlib.Path(options.keep or tempfile.mkdtemp(prefix="landfall-bench-"))
    try:
        root.mkdir(exist_ok=True)
        (root / "landfall.yml").write_text(PROJECT.format(memory=options.memory, port=server.server_port))
        command = [options.landfall, "--project", str(root)]
        print(f"{records} records of about {options.record_bytes} bytes in one page, memory {options.memory}")
        timed([*command, "extract"], "extract", options.megabytes * 1e6)
        print(f"           page of {sent['bytes']} bytes")
        if shutil.which("zstd"):
            digest, size, objects = landed(root / "lake")
            same = digest == sent["digest"].hexdigest() and size == sent["bytes"]
            print(f"           raw: {objects} objects, {'the page byte for byte' if same else 'NOT the page'}")
            if not same:
                raise SystemExit(1)
        if options.transform:
            timed([*command, "transform"], "transform", sent["bytes"])
            query = "SELECT count(*), count(DISTINCT id) FROM bench.orders"
            print(subprocess.run([*command, "sql", "--format", "csv", query], capture_output=True, text=True).stdout.strip())
    finally:
        server.shutdown()
        if not options.keep:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
