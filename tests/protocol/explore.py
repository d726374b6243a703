"""Every order of the steps of some processes, with kills between any two: all states are visited, each once."""

import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from lit_attr.errors import LitAttrError
from tests.protocol.counted import Counted, Violation, ids_of, ledger_ids
from tests.protocol.files import Behaviour, FileMap, Outcome, Step, after_kill, answers, holds_lock
from tests.protocol.programs import merger, worker
from tests.protocol.replay import Finished, Program, next_step, on_model_files

# Files that nobody changes, or removes while others know of them: when they are read makes no difference.
_FIXED = re.compile(r"(target_shard_\d+/)?(generation_\d+\.json|worker_states/frozen_)")


@dataclass(frozen=True)
class Scenario:
    """Processes that work on one harvest, beginning at any time.

    A process that is killed is one that takes no further step: since all orders are explored, so are kills at every
    step. Only where it holds a lock the kill is a step of its own.

    Attributes:
        processes: Name to program.
        n_batches: Batches of the harvest in the end.
        behaviour: What the file system can do.
        deletes: Whether a user deletes parts meanwhile, whose batches are then done again.
        doubles: Whether two workers of one rank are at work, of whom one may replace what the other has just committed.
        n_shards: Among how many shards targets are dealt out.
    """

    processes: Mapping[str, Program]
    n_batches: int
    behaviour: Behaviour = field(default_factory=Behaviour)
    deletes: bool = False
    doubles: bool = False
    n_shards: int = 1


@dataclass
class Report:
    """How much was explored.

    Attributes:
        n_states: States of files and processes.
        n_steps: Steps between them.
        n_files: Different contents of the folder, from each of which the harvest was merged and finished.
        n_results: Results that were written, each after a different course of what its writer was answered.
        ends: How processes ended, and in how many states.
    """

    n_states: int = 0
    n_steps: int = 0
    n_files: int = 0
    n_results: int = 0
    ends: Counter[str] = field(default_factory=Counter)


def explore(scenario: Scenario, max_states: int | None = None) -> Report:
    """Visit all states of a scenario, and check every one.

    Raises:
        Violation: If something happened that must not; its text has the steps that lead there.
    """
    with on_model_files(scenario.behaviour, scenario.n_shards):
        return explore_patched(scenario, max_states)


def explore_patched(scenario: Scenario, max_states: int | None = None) -> Report:
    """Visit all states inside `on_model_files`, which a test may have changed."""
    search = Search(scenario)
    return search.run(max_states)


State = tuple[int, ...]


class Search:
    """The states of a scenario. Files and processes are numbers: equal ones have the same.

    A process' number stands for all that it was answered so far.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.report = Report()
        self._files: list[FileMap] = []
        self._file_numbers: dict[frozenset, int] = {}
        self._counted: dict[int, list[Counted]] = {}
        self._processes: list[tuple[str, Program, int | None, Outcome | None]] = []
        self._next: list[Step | Finished] = []
        self._children: dict[tuple[int, Outcome], int] = {}
        self._roots: dict[str, int] = {}
        self._after: dict[tuple, list[tuple[Outcome, int]]] = {}
        self._origins: dict[State, tuple[State, str] | None] = {}

    def run(self, max_states: int | None) -> Report:
        names = list(self.scenario.processes)
        start = self._start()
        self._origins = {start: None}
        queue = deque([start])
        while queue:
            state = queue.popleft()
            try:
                moves = list(self._moves(state, names))
            except Violation as error:
                raise self._violation(state, str(error)) from error
            if not moves and not all(self._is_over(node) for node in state[1:]):
                raise self._violation(state, "processes wait for each other")
            for place, step, after in moves:
                self.report.n_steps += 1
                if after not in self._origins:
                    self._origins[after] = (state, f"{names[place]}: {_show(step)}")
                    queue.append(after)
                    self._check(state, after, place, step)
            if max_states and len(self._origins) > max_states:
                break
        self.report.n_states = len(self._origins)
        self.report.n_files = len(self._counted)
        return self.report

    def walk(self, choose: Callable[[list[int]], int]) -> Iterator[tuple[Step, Outcome]]:
        """One order of the steps, to its end.

        Args:
            choose: Chooses whose turn it is, of those who need not wait.
        """
        names = list(self.scenario.processes)
        files, *nodes = self._start()
        while able := [
            place
            for place, name in enumerate(names)
            if isinstance(step := self._next[nodes[place]], Step) and self._answers(files, step, name)
        ]:
            place = choose(able)
            step = self._next[nodes[place]]
            outcome, files = self._answers(files, step, names[place])[0]
            yield step, outcome
            nodes[place] = self._after_notes(self._child(nodes[place], outcome), files)

    # Steps

    def _start(self) -> State:
        roots = (self._root(name, program) for name, program in self.scenario.processes.items())
        return self._number_of({}), *roots

    def _moves(self, state: State, names: list[str]) -> Iterator[tuple[int, Step, State]]:
        files = state[0]
        for place, name in enumerate(names):
            node = state[place + 1]
            step = self._next[node]
            if isinstance(step, Finished):
                continue
            for outcome, files_after in self._answers(files, step, name):
                after = self._go_on(node, outcome, files_after)
                yield place, step, (files_after, *state[1 : place + 1], after, *state[place + 2 :])
            if holds_lock(self._files[files], name):
                left = self._number_of(after_kill(self._files[files], {name}, self.scenario.behaviour))
                yield place, Step("killed"), (left, *state[1 : place + 1], self._dead(), *state[place + 2 :])

    def _answers(self, files: int, step: Step, name: str) -> list[tuple[Outcome, int]]:
        key = (files, step, name if "lock" in step.kind else "")
        if key not in self._after:
            possible = answers(self._files[files], step, name, self.scenario.behaviour)
            self._after[key] = [(outcome, self._number_of(after)) for outcome, after in possible]
        return self._after[key]

    def _go_on(self, node: int, outcome: Outcome, files: int) -> int:
        """The process after an answer, and after all that it does then without regard to other processes."""
        node = self._after_notes(self._child(node, outcome), files)
        while (
            isinstance(step := self._next[node], Step)
            and step.kind in ("read", "exists")
            and step.name in self._files[files]
            and _FIXED.match(step.name)
        ):
            ((outcome, _),) = self._answers(files, step, "")
            node = self._after_notes(self._child(node, outcome), files)
        return node

    def _after_notes(self, node: int, files: int) -> int:
        while isinstance(step := self._next[node], Step) and step.kind == "note":
            node = self._child(node, Outcome(self._noted(files, *step.argument)))
        return node

    def _noted(self, files: int, what: str, value: Any) -> Any:
        if what == "newest generation":
            return None if self.scenario.behaviour.stale else self._count(files)[value].number
        if what == "part":
            content = None if self.scenario.deletes else self._files[files].get(value)
            return content and content.identity
        name, numbers, coverage = value
        self.report.n_results += 1
        if len(numbers) != self.scenario.n_shards:
            raise Violation(f"{name} has the numbers of {len(numbers)} target shards")
        for of_shard in numbers:
            check_result(name, of_shard, json.loads(coverage))
        return None

    def _root(self, name: str, program: Program) -> int:
        if name not in self._roots:
            self._roots[name] = self._add(name, program, None, None)
        return self._roots[name]

    def _dead(self) -> int:
        return self._root("killed", lambda: None)

    def _child(self, node: int, outcome: Outcome) -> int:
        if (node, outcome) not in self._children:
            name, program, *_ = self._processes[node]
            self._children[node, outcome] = self._add(name, program, node, outcome)
        return self._children[node, outcome]

    def _add(self, name: str, program: Program, parent: int | None, outcome: Outcome | None) -> int:
        self._processes.append((name, program, parent, outcome))
        node = len(self._processes) - 1
        step = next_step(name, program, [answer for _, answer in self._log(node)])
        if isinstance(step, Finished) and parent is not None:
            if step.error is not None and not isinstance(step.error, LitAttrError):
                raise Violation(f"{name} ended with {step.error!r}") from step.error
            how = "done" if step.error is None else str(step.error)
            self._processes[node] = (name, program, parent, outcome)
            end = f"end of {name}: {how}"
            if end in self._roots:  # how it came there makes no difference any more
                self._processes.pop()
                return self._roots[end]
            self._roots[end] = node
        self._next.append(step)
        return node

    def _log(self, node: int) -> list[tuple[Step, Outcome]]:
        log = []
        while (parent := self._processes[node][2]) is not None:
            log.append((self._next[parent], self._processes[node][3]))
            node = parent
        return log[::-1]

    def _number_of(self, files: FileMap) -> int:
        key = frozenset(files.items())
        if key not in self._file_numbers:
            self._file_numbers[key] = len(self._files)
            self._files.append(files)
        return self._file_numbers[key]

    def _is_over(self, node: int) -> bool:
        return isinstance(self._next[node], Finished)

    # Checks

    def _check(self, before: State, state: State, place: int, step: Step) -> None:
        try:
            end = self._next[state[place + 1]]
            if isinstance(end, Finished):
                name = self._processes[state[place + 1]][0]
                how = str(end.error) if end.error else "done"
                self.report.ends[f"{name.split()[0]}: {how}"] += 1
            if before[0] != state[0]:
                counted = self._counted_in(state[0])
                for old, new in zip(self._count(before[0]), counted, strict=True):
                    self._check_loss(before, old, new, place, step)
        except Violation as error:
            raise self._violation(state, str(error)) from error

    def _count(self, files: int) -> list[Counted]:
        """What counts, by target shard."""
        n = self.scenario.n_shards
        return self._counted.get(files) or [Counted.of(self._files[files], shard, n) for shard in range(n)]

    def _counted_in(self, files: int) -> list[Counted]:
        if files not in self._counted:
            counted = self._counted[files] = self._count(files)
            for one in counted:
                one.check()
                if one.number > len(self.scenario.processes) + self.scenario.behaviour.repeats:
                    raise Violation(f"{one.number} generations: processes begin one after another for ever")
            if any(one.number for one in counted):
                self._check_merge(files, counted)
            self._check_recovery(files)
        return self._counted[files]

    def _check_merge(self, files: int, counted: list[Counted]) -> None:
        n_batches, by_shard = max(one.n_batches for one in counted), [one.ids for one in counted]
        complete = all(len(ids) == n_batches for ids in by_shard)
        _, end = self._alone(files, "merger", merger(allow_partial=False))
        if complete == (end.error is not None):
            raise Violation(f"with {_shown(by_shard)} of {n_batches} batches merging ends with {end.error}")
        _, end = self._alone(files, "merger of some", merger(allow_partial=True))
        if (end.error is None) != (bool(by_shard[0]) and all(ids == by_shard[0] for ids in by_shard)):
            raise Violation(f"with {_shown(by_shard)} merging some ends with {end.error}")

    def _check_recovery(self, files: int) -> None:
        """All that is alive is killed; a restart finishes the harvest, and merging it is complete."""
        files = self._number_of(after_kill(self._files[files], self.scenario.processes, self.scenario.behaviour))
        n_shards = self.scenario.n_shards
        for world_size in (1, 2):
            left = files
            for rank, shard in product(range(world_size), range(n_shards)):
                program = worker(rank, world_size, self.scenario.n_batches, shard=shard)
                left, end = self._alone(left, f"last {rank} of {world_size}, shard {shard}", program)
                if end.error is not None:
                    raise Violation(f"a restart by {world_size} ends with {end.error}")
            for counted in (Counted.of(self._files[left], shard, n_shards) for shard in range(n_shards)):
                counted.check()
                if counted.ids != {*range(self.scenario.n_batches)}:
                    raise Violation(f"a restart by {world_size} ends with {sorted(counted.ids)}")
            _, end = self._alone(left, "merger", merger(allow_partial=False))
            if end.error is not None:
                raise Violation(f"merging after a restart by {world_size} ends with {end.error}")

    def _alone(self, files: int, name: str, program: Program) -> tuple[int, Finished]:
        """Run one process to its end."""
        node = self._root(name, program)
        while not isinstance(step := self._next[node], Finished):
            outcome, files = self._answers(files, step, name)[0]
            node = self._go_on(node, outcome, files)
        return files, step

    def _check_loss(self, before: State, old: Counted, counted: Counted, place: int, step: Step) -> None:
        """What is committed stays so, but for what a worker commits while others freeze its part."""
        lost = old.ids - counted.ids
        if not lost or self.scenario.deletes or self.scenario.doubles:
            return
        if step.kind != "create" or counted.number != old.number + 1:
            raise Violation(f"{sorted(lost)} no longer counts")
        log, files = self._log(before[place + 1]), self._files[before[0]]
        for name, content in old.parts.items():
            if not lost & {*ledger_ids(content)}:
                continue
            seen = [(taken, outcome) for taken, outcome in log if taken.name == name and taken.kind in ("link", "read")]
            if not seen:
                raise Violation(f"{name} is not frozen: {sorted(lost)} no longer counts")
            taken, outcome = seen[-1]
            was = files[taken.argument] if taken.kind == "link" and outcome.error is None else outcome.value
            if was is not None and was.numbers == content.numbers:
                raise Violation(f"{name} was frozen, but {sorted(lost)} no longer counts")

    def _violation(self, state: State, what: str) -> Violation:
        lines = []
        while (origin := self._origins.get(state)) is not None:
            state, line = origin
            lines.append(line)
        return Violation("\n".join([what, *lines[::-1]]))


def check_result(name: str, numbers: tuple[int, ...], coverage: Mapping[str, Any]) -> None:
    """A result holds what it says, and is called complete if and only if it is."""
    ids = ids_of(coverage["batches"])
    complete = ids == tuple(range(coverage["n_batches"]))
    if numbers != ids:
        raise Violation(f"{name} says {ids}, and holds the numbers of {numbers}")
    if coverage["complete"] != complete or (name == "dataset_attributions.pt") != complete:
        raise Violation(f"{name} with {ids} of {coverage['n_batches']} batches says complete: {coverage['complete']}")


def _shown(by_shard: list[frozenset[int]]) -> str:
    return " and ".join(str(sorted(ids)) for ids in by_shard)


def _show(step: Step) -> str:
    argument = "" if step.argument is None else f" {step.argument}"
    return f"{step.kind} {step.name}{argument}"[:160]
