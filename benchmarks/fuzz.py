"""Damaged files of every kind, read by what reads them in commands, in bounded memory and time.

    python benchmarks/fuzz.py --minutes 60
    python benchmarks/fuzz.py --files 100000 --kinds result part
    python benchmarks/fuzz.py --replay failures/result_17.json

A reader may succeed, or refuse with an exception of the package's own that names the file; everything else is a
failure, and its file is kept in `--failures`. Ctrl-C ends it with the table of what was done so far.
"""

import argparse
import base64
import json
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from threading import Lock

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.fuzzing.kinds import KINDS, Kind
from benchmarks.fuzzing.worker import Outcome, Reading

_KEPT = 20  # failures that are kept of each kind, reader and message


class Fuzzing:
    """Counts how readers end.

    Args:
        folder: Folder for the files.
        failures: Folder in which failing files are kept.
        seed: Seed of all that is random.
        kinds: Names of the kinds that are tried.
    """

    def __init__(self, folder: Path, failures: Path, seed: int, kinds: list[str]) -> None:
        self.failures = failures
        self.kinds = [kind for kind in KINDS if kind.name in kinds]
        self.good = {kind.name: _good(kind, folder / "good" / kind.name) for kind in self.kinds}
        self._folder, self._seed, self._lock = folder, seed, Lock()
        self.is_stopped = False
        self.files: Counter[str] = Counter()
        self.verdicts: dict[str, Counter[str]] = defaultdict(Counter)
        self.slowest: dict[str, Outcome] = {}
        self.largest: dict[str, Outcome] = {}
        self.reasons: Counter[tuple[str, str, str]] = Counter()

    def run(self, process: int, n_files: int, end: float) -> None:
        """Try files in a process of its own.

        Args:
            process: Its number.
            n_files: How many files.
            end: When it ends all the same, by the monotonic clock.
        """
        folder = self._folder / str(process)
        folder.mkdir()
        random, reading = Random(f"{self._seed} {process}"), Reading(folder)
        for _ in range(n_files):
            if time.monotonic() > end or self.is_stopped:
                break
            (kind,) = random.choices(self.kinds, [kind.weight for kind in self.kinds])
            damaged = kind.damage(Random(random.getrandbits(64)), self.good[kind.name])
            outcomes = reading.read(kind.name, damaged)
            with self._lock:
                self._count(kind, damaged, outcomes)
        reading.close()

    def _count(self, kind: Kind, damaged: bytes, outcomes: list[Outcome]) -> None:
        self.files[kind.name] += 1
        for outcome in outcomes:
            self.verdicts[kind.name][outcome.verdict] += 1
            if outcome.seconds > self.slowest.get(kind.name, outcome).seconds or kind.name not in self.slowest:
                self.slowest[kind.name] = outcome
            if outcome.megabytes > self.largest.get(kind.name, outcome).megabytes or kind.name not in self.largest:
                self.largest[kind.name] = outcome
            if outcome.verdict == "failed":
                self._keep(kind, damaged, outcome)

    def _keep(self, kind: Kind, damaged: bytes, outcome: Outcome) -> None:
        reason = kind.name, outcome.reader, (outcome.message.strip().splitlines() or [""])[-1][:80]
        self.reasons[reason] += 1
        if self.reasons[reason] <= _KEPT:
            self.failures.mkdir(parents=True, exist_ok=True)
            name = f"{kind.name.replace(' ', '_')}_{sum(self.files.values())}_{outcome.reader}.json"
            content = base64.b64encode(damaged).decode()
            case = {"kind": kind.name, "reader": outcome.reader, "message": outcome.message, "content": content}
            (self.failures / name).write_text(json.dumps(case, indent=1))

    def table(self) -> list[str]:
        """The counts, a line for each kind."""
        lines = ["| file | files | read | refused | failed | slowest | most memory |", "|---|---|---|---|---|---|---|"]
        for name, n_files in sorted(self.files.items()):
            verdicts, slow, large = self.verdicts[name], self.slowest[name], self.largest[name]
            numbers = " | ".join(f"{verdicts[verdict]:,}" for verdict in ("read", "refused", "failed"))
            ends = f"{slow.seconds:.2f} s ({slow.reader}) | {large.megabytes:.0f} MB ({large.reader})"
            lines.append(f"| {name} | {n_files:,} | {numbers} | {ends} |")
        return lines


def _good(kind: Kind, folder: Path) -> bytes:
    folder.mkdir(parents=True)
    kind.make(folder)
    return kind.place(folder).read_bytes()


def _replay(case: Path) -> None:
    """Read a kept file again, and print how its readers end."""
    content = json.loads(case.read_text())
    with tempfile.TemporaryDirectory() as folder:
        reading = Reading(Path(folder))
        for outcome in reading.read(content["kind"], base64.b64decode(content["content"])):
            print(outcome.reader, outcome.verdict, f"{outcome.seconds:.2f} s", f"{outcome.megabytes:.0f} MB")
            print(outcome.message)
        reading.close()


def main() -> None:
    """Try files until there are enough, or the time is over."""
    names = [kind.name for kind in KINDS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--files", type=int, default=10**9)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=names, default=names)
    parser.add_argument("--failures", type=Path, default=Path("failures"), help="folder of files that fail")
    parser.add_argument("--replay", type=Path, help="a kept file, which is read again")
    options = parser.parse_args()
    if options.replay:
        _replay(options.replay)
        return
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        fuzzing = Fuzzing(Path(folder), options.failures, options.seed, options.kinds)
        signal.signal(signal.SIGINT, lambda *_: setattr(fuzzing, "is_stopped", True))
        end, each = begin + 60 * options.minutes, -(-options.files // options.processes)
        with ThreadPoolExecutor(options.processes) as pool:
            list(pool.map(lambda process: fuzzing.run(process, each, end), range(options.processes)))
    print("\n".join(fuzzing.table()))
    print(f"\n{sum(fuzzing.files.values()):,} files in {time.monotonic() - begin:.0f} s")
    for (kind, reader, message), count in fuzzing.reasons.most_common():
        print(f"{count} x {kind}, {reader}: {message}")
    sys.exit(bool(fuzzing.reasons))


if __name__ == "__main__":
    main()
