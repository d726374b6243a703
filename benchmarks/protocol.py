"""Every order of the steps of a few workers, restarts and mergers of one harvest, with a kill between any two.

    python benchmarks/protocol.py

Each line of JSON is a scenario: how many states of files and processes there are, how many steps between them, and how
many different contents the folder had, from each of which the harvest was merged, and finished by one and by two
workers. A line with a violation has the steps that lead to it.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.protocol.counted import Violation
from tests.protocol.explore import Scenario, explore
from tests.protocol.scenarios import LARGE, SMALL


def measure(name: str, scenario: Scenario, max_states: int) -> dict[str, Any]:
    """Visit the states of a scenario.

    Args:
        name: Its name.
        scenario: The processes.
        max_states: States after which the search ends early; the line says so.

    Returns:
        The numbers, in plain types.
    """
    begin = time.monotonic()
    try:
        report = explore(scenario, max_states)
    except Violation as violation:
        return {"scenario": name, "violation": str(violation).splitlines()}
    whole = report.n_states <= max_states
    known = {key: value for key, value in asdict(report).items() if key != "ends"}
    return {"scenario": name, **known, "all": whole, "seconds": round(time.monotonic() - begin, 1)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="scenarios whose names contain this")
    parser.add_argument("--max_states", type=int, default=5_000_000, help="of one scenario; a million take 0.4 GB")
    given = parser.parse_args()
    broken = False
    for name, scenario in {**SMALL, **LARGE}.items():
        if given.only in name:
            line = measure(name, scenario, given.max_states)
            broken |= "violation" in line
            print(json.dumps(line), flush=True)
    sys.exit(broken)
