"""``python -m benchmarks.fuzz``: feed the readers, count, and write the table."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from benchmarks.fuzz.child import apart, drawn, unpack
from benchmarks.fuzz.readers import READERS

RESULT = Path(__file__).parents[1] / "results" / "fuzz.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", default="", help="only those whose names hold one of A;B;…")
    parser.add_argument("--inputs", type=int, default=2000, help="per reader")
    parser.add_argument("--seconds", type=float, default=1e9, help="at most, per reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--show", type=int, metavar="N", help="write input N of one reader to ./input"
    )
    parser.add_argument("--json", type=Path, help=f"where the counts go, for example {RESULT}")
    parser.add_argument("--doc", type=Path, help="put the table of --json into this document")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    wanted = [word.lower() for word in given.readers.split(";")]
    chosen = [r for r in READERS if any(word in r.name.lower() for word in wanted)]
    scratch = "/dev/shm" if Path("/dev/shm").is_dir() else None
    result = _read(given.json)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        os.environ["XRDPIPE_CACHE"] = f"{folder}/cache"
        for number, reader in enumerate(chosen if given.inputs else ()):
            work = Path(folder) / str(number)
            if given.show is not None:
                seeds = reader.seeds(work / "seeds")
                unpack(drawn(reader, seeds, given.seed, given.show), Path("input"))
                return
            started = time.monotonic()
            score = apart(reader, given.inputs, given.seconds, given.seed, work)
            _say(reader.name, score, time.monotonic() - started)
            result["readers"][reader.name] = {"what": reader.what, **score}
            if given.json:
                result["seed"] = given.seed
                given.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if given.doc:
        _fill(given.doc, table(result))


def _read(path: Path | None) -> dict[str, Any]:
    if path is not None and path.is_file():
        return dict(json.loads(path.read_text()))
    return {"readers": {}}


def _say(name: str, score: dict[str, Any], wall: float) -> None:
    findings = score["findings"]
    print(
        f"{name}: {score['inputs']} inputs, {score['read']} read, {score['refused']} refused, "
        f"{sum(found['inputs'] for found in findings.values())} findings, slowest "
        f"{score['slowest']:.2f} s (input {score['slowest_input']}), {wall:.0f} s"
    )
    for what, found in sorted(findings.items(), key=lambda item: -item[1]["inputs"]):
        print(f"   {found['inputs']:5d} x {what} (input {found['first']}): {found['detail']}")
    sys.stdout.flush()


def table(result: dict[str, Any]) -> str:
    """Markdown: a line per reader."""
    lines = [
        "| reader | inputs | read | refused by name | findings left | slowest |",
        "|---|---|---|---|---|---|",
    ]
    for name, of in result["readers"].items():
        left = sum(found["inputs"] for found in of["findings"].values())
        lines.append(
            f"| {name}: {of['what']} | {of['inputs']:,} | {of['read']:,} | {of['refused']:,} | "
            f"{left:,} | {of['slowest']:.1f} s |"
        )
    return "\n".join(lines)


def _fill(doc: Path, text: str) -> None:
    begin, end = "<!-- fuzz -->\n", "<!-- /fuzz -->"
    before, _, rest = doc.read_text().partition(begin)
    after = rest.partition(end)[2]
    doc.write_text(f"{before}{begin}{text}\n{end}{after}")


if __name__ == "__main__":
    main()
