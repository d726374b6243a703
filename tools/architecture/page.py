"""The generated parts of docs/architecture.md: the drawing, and the table of rooms and files."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tools.architecture.imports import PACKAGE, Module, read_modules
from tools.architecture.rooms import FLOORS, GROUND, Arrows, arrows, without_implied


def rewritten(page: str, root: Path) -> str:
    """The page with its generated parts made anew, each between `<!-- NAME -->` and `<!-- end of NAME -->`.

    Args:
        page: Text of docs/architecture.md.
        root: Folder of the repository.

    Raises:
        ValueError: If the page does not have the markers of a part.
    """
    modules = read_modules(root)
    drawn = arrows(modules.values())
    parts = {"drawing": _drawing(drawn), "imports": _table_of_arrows(drawn), "files": _table_of_files(modules)}
    for name, text in parts.items():
        match = re.search(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", page, re.DOTALL)
        if match is None:
            raise ValueError(f"docs/architecture.md: expected the markers of the part {name!r}, found none")
        page = page[: match.start()] + text + page[match.end() :]
    return page


def _drawing(drawn: Arrows) -> str:
    """The rooms floor by floor, as Mermaid, which GitHub draws."""
    lines = ["```mermaid", "flowchart TB"]
    for floor in reversed(FLOORS):
        rooms = [room for room in floor if room not in GROUND]
        lines += [f"  {room}" for room in rooms]
    lines.append(f'  ground["{", ".join(room for floor in FLOORS for room in floor if room in GROUND)}"]')
    above_ground = {arrow: loading for arrow, loading in drawn.items() if not GROUND.intersection(arrow)}
    kept = without_implied(above_ground)
    lines += [f"  {source} {'-->' if loading else '-.->'} {target}" for (source, target), loading in _in_order(kept)]
    standing = {source for source, _ in kept}
    on_ground = [room for floor in FLOORS for room in floor if room not in GROUND and room not in standing]
    lines += [f"  {room} --> ground" for room in on_ground]
    return "\n".join([*lines, "```", ""])


def _table_of_arrows(drawn: Arrows) -> str:
    """All arrows, a line for each room."""
    rows = ["| room | imports | only when a function is called |", "| --- | --- | --- |"]
    for floor in reversed(FLOORS):
        for room in floor:
            below = [(f"`{target}`", now) for (source, target), now in _in_order(drawn) if source == room]
            if below:
                at_once = ", ".join(target for target, now in below if now)
                later = ", ".join(target for target, now in below if not now)
                rows.append(f"| `{room}` | {at_once} | {later} |")
    return "\n".join([*rows, ""])


def _table_of_files(modules: Mapping[str, Module]) -> str:
    """Each room with its one job and its files."""
    return "".join("\n".join([*lines, "", ""]) for lines in _rooms(modules))


def _rooms(modules: Mapping[str, Module]) -> Iterator[list[str]]:
    for floor in FLOORS:
        for room in floor:
            # By dotted name a package comes before its modules.
            heading, *files = sorted((m for m in modules.values() if m.room == room), key=lambda module: module.name)
            title = f"**`{room}`**: {heading.summary}"
            table = ["", "| file | what it is |", "| --- | --- |"] if files else []
            yield [title, *table, *(f"| {_link(module)} | {module.summary} |" for module in files)]


def _link(module: Module) -> str:
    return f"[`{module.path.relative_to(PACKAGE)}`](../{module.path})"


def _in_order(drawn: Arrows) -> list[tuple[tuple[str, str], bool]]:
    order = {room: place for place, room in enumerate(room for floor in FLOORS for room in floor)}
    return sorted(drawn.items(), key=lambda arrow: (-order[arrow[0][0]], -order[arrow[0][1]]))
