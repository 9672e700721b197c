#!/usr/bin/env python3
"""The load of end_to_end.py by Landfall and by dlt, one after the other on the same machine, from the same server.

    benches/peers.py PATH/TO/landfall [--records 200000] [--per-page 1000] [--keep DIR]

Needs nginx (Debian `nginx-light`), GNU time and Python's venv; dlt is installed by name into the folder of the run. Both load
into a Delta table on local disk by key, first everything, then an update of every tenth record. dlt keeps nested values as
JSON text; Landfall lands the pages byte for byte first and types nested columns. Prints wall time, peak memory and ratios.
"""

import argparse
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile

from end_to_end import PROJECT, record, served, write_pages

DLT = ["dlt[deltalake,filesystem]==1.31.0"]

PIPELINE = """
import sys
import dlt
from dlt.destinations import filesystem
from dlt.sources.rest_api import rest_api_source

base, day, folder = sys.argv[1:]
source = rest_api_source({
    "client": {"base_url": base, "paginator": {"type": "json_link", "next_url_path": "next"}},
    "resources": [{
        "name": "orders",
        "endpoint": {"path": f"{day}/0.json", "data_selector": "data"},
        "primary_key": "id",
        "write_disposition": {"disposition": "merge", "strategy": "upsert"},
        "table_format": "delta",
    }],
}, max_table_nesting=0)
pipeline = dlt.pipeline("bench", destination=filesystem(f"file://{folder}/lake"), dataset_name="bench", pipelines_dir=f"{folder}/state")
pipeline.run(source)
"""


def timed(command):
    done = subprocess.run(["/usr/bin/time", "-v", *map(str, command)], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-4000:])
    clock = re.search(r"Elapsed \(wall clock\) time .*: (.*)", done.stderr).group(1)
    seconds = sum(float(part) * 60**power for power, part in enumerate(reversed(clock.split(":"))))
    peak = int(re.search(r"Maximum resident set size \(kbytes\): (\d+)", done.stderr).group(1)) / 1024
    return seconds, peak


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("landfall")
    arguments.add_argument("--records", type=int, default=200_000)
    arguments.add_argument("--per-page", type=int, default=1_000)
    arguments.add_argument("--port", type=int, default=18_081)
    arguments.add_argument("--keep")
    options = arguments.parse_args()
    root = pathlib.Path(options.keep or tempfile.mkdtemp(prefix="landfall-peers-"))
    root.chmod(0o755)
    base = f"http://127.0.0.1:{options.port}"
    generator = random.Random(7)
    write_pages(root / "www" / "first", base, [record(n, 1, generator) for n in range(options.records)], options.per_page)
    changed = [record(n, 2, generator) for n in range(0, options.records, 10)]
    write_pages(root / "www" / "update", base, changed, options.per_page)
    subprocess.run([sys.executable, "-m", "venv", root / "venv"], check=True)
    python = root / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *DLT], check=True)
    (root / "pipeline.py").write_text(PIPELINE)
    with served(root, options.port):
        project = root / "project"
        project.mkdir()
        for day, rows in (("first", options.records), ("update", len(changed))):
            (project / "landfall.yml").write_text(PROJECT.format(base=base, day=day))
            ours, our_peak = timed([options.landfall, "--project", project, "run"])
            theirs, their_peak = timed([python, root / "pipeline.py", base, day, root / "dlt"])
            print(f"{day}: {rows:,} rows")
            print(f"    landfall {ours:8.2f} s  {rows / ours:>10,.0f} rows/s  peak {our_peak:6.0f} MiB")
            print(f"    dlt      {theirs:8.2f} s  {rows / theirs:>10,.0f} rows/s  peak {their_peak:6.0f} MiB")
            print(f"    ratio    {theirs / ours:8.1f} x faster, {our_peak / their_peak:.2f} of the memory")
    if not options.keep:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
