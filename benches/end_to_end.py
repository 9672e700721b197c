#!/usr/bin/env python3
"""Loads N records of about 1 KB from a static server on loopback into a lake on local disk, then an update of a tenth.

    benches/end_to_end.py PATH/TO/landfall [--records 200000] [--per-page 1000] [--keep DIR]

Needs nginx (Debian `nginx-light`) and GNU time. Prints each command's wall time, peak memory and phases.
"""

import argparse
import contextlib
import json
import pathlib
import random
import re
import shutil
import subprocess
import tempfile

WORDS = "amber basalt cedar delta ember fjord grove harbor island juniper kelp lagoon meadow north orchard prairie".split()


def record(number, updated, generator):
    words = lambda count: " ".join(generator.choice(WORDS) for _ in range(count))
    return {
        "id": number,
        "updated_at": f"2026-{1 + updated % 12:02}-{1 + number % 28:02}T{number % 24:02}:{updated % 60:02}:{number % 60:02}Z",
        "version": updated,
        "status": generator.choice(["open", "paid", "shipped", "returned"]),
        "total": f"{generator.randrange(1, 10**6) / 100:.2f}",
        "paid": generator.random() < 0.5,
        "score": generator.random() * 100,
        "customer": {
            "id": generator.randrange(10**6),
            "name": words(2),
            "email": f"user{number}@example.com",
            "address": {"street": words(3), "city": words(1), "zip": f"{generator.randrange(10**5):05}"},
        },
        "lines": [
            {"sku": f"SKU-{generator.randrange(10**4)}", "quantity": generator.randrange(1, 9), "price": generator.random() * 50}
            for _ in range(3)
        ],
        "tags": [generator.choice(WORDS) for _ in range(4)],
        "note": words(55),
    }


def write_pages(folder, base, records, per_page):
    folder.mkdir(parents=True)
    pages = [records[start : start + per_page] for start in range(0, len(records), per_page)]
    for number, page in enumerate(pages):
        more = f"{base}/{folder.name}/{number + 1}.json" if number + 1 < len(pages) else None
        (folder / f"{number}.json").write_text(json.dumps({"data": page, "next": more}, separators=(",", ":")))


PROJECT = """lake: ./lake
sources:
  bench:
    base_url: {base}
    streams:
      orders:
        request: {{ path: /{day}/0.json }}
        records: $.data[*]
        paginate: {{ type: next_url, from: $.next }}
        table: {{ keys: [id], sequence_by: [version] }}
"""


@contextlib.contextmanager
def served(root, port):
    """nginx over the folder `www` of `root`, as long as it is wanted."""
    config = f"pid {root}/nginx.pid; error_log {root}/error.log; events {{}} http {{ access_log off; types {{ application/json json; }} server {{ listen 127.0.0.1:{port}; root {root}/www; }} }}"
    (root / "nginx.conf").write_text(config)
    server = subprocess.Popen(["nginx", "-c", str(root / "nginx.conf"), "-g", "daemon off;"])
    try:
        yield
    finally:
        server.terminate()
        server.wait()


def timed(command, label):
    done = subprocess.run(["/usr/bin/time", "-v", *command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    wall = re.search(r"Elapsed \(wall clock\) time .*: (.*)", done.stderr).group(1)
    peak = int(re.search(r"Maximum resident set size \(kbytes\): (\d+)", done.stderr).group(1)) // 1024
    user = re.search(r"User time \(seconds\): (.*)", done.stderr).group(1)
    print(f"{label:<24} wall {wall:>9}  user {user:>7} s  peak {peak:>5} MiB")
    for line in done.stderr.splitlines():
        if any(words in line for words in ("extract ended", "load judged", "load ended")):
            print("   ", re.sub(r"\x1b\[[0-9;]*m", "", line).strip())


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("landfall")
    arguments.add_argument("--records", type=int, default=200_000)
    arguments.add_argument("--per-page", type=int, default=1_000)
    arguments.add_argument("--port", type=int, default=18_080)
    arguments.add_argument("--keep")
    options = arguments.parse_args()
    root = pathlib.Path(options.keep or tempfile.mkdtemp(prefix="landfall-bench-"))
    # Started by root, nginx reads as another user.
    root.chmod(0o755)
    base = f"http://127.0.0.1:{options.port}"
    generator = random.Random(7)
    first = [record(number, 1, generator) for number in range(options.records)]
    changed = [record(number, 2, generator) for number in range(0, options.records, 10)]
    write_pages(root / "www" / "first", base, first, options.per_page)
    write_pages(root / "www" / "update", base, changed, options.per_page)
    size = sum(path.stat().st_size for path in (root / "www" / "first").iterdir())
    print(f"{options.records} records, {size / options.records:.0f} bytes each, {options.per_page} a page")
    with served(root, options.port):
        project = root / "project"
        project.mkdir()
        for day in ("first", "update"):
            (project / "landfall.yml").write_text(PROJECT.format(base=base, day=day))
            for verb in ("extract", "transform"):
                timed([options.landfall, "--project", str(project), "-v", verb], f"{day} {verb}")
        count = [options.landfall, "--project", str(project), "sql", "--format", "csv", "SELECT count(*), sum(version) FROM bench.orders"]
        print(subprocess.run(count, capture_output=True, text=True).stdout.strip())
    if not options.keep:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
