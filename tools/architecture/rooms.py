"""The order of the rooms, and the arrows between them."""

from collections.abc import Iterable, Mapping

from tools.architecture.imports import PACKAGE, Module, When

# From the ground up. A room imports from rows before its own only: rooms of one row do not know each other.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "_version"),
    ("optional", "assets", "early_signal", "lean_imports"),
    ("files", "topology"),
    ("data",),
    ("decomposition",),
    ("attribution",),
    ("storage",),
    ("query",),
    ("parts",),
    ("harvest",),
    ("export", "plots", "view", "planning"),
    ("launch",),
    ("cli",),
    ("demo",),
    (PACKAGE,),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# All rooms stand on these; the drawing leaves the arrows to them out.
GROUND = frozenset(FLOORS[0] + FLOORS[1])

# (importing room, imported room) -> whether some import runs as soon as the importing room is loaded.
Arrows = Mapping[tuple[str, str], bool]


def arrows(modules: Iterable[Module]) -> Arrows:
    """The arrows between rooms; imports for type checkers alone draw none."""
    drawn: dict[tuple[str, str], bool] = {}
    for module in modules:
        for imported in module.imports:
            parts = imported.module.split(".")
            if parts[0] != PACKAGE or imported.when is When.NEVER:
                continue
            arrow = module.room, parts[1] if len(parts) > 1 else PACKAGE
            if arrow[0] != arrow[1]:
                drawn[arrow] = drawn.get(arrow, False) or imported.when is When.LOADING
    return drawn


def without_implied(drawn: Arrows) -> Arrows:
    """The arrows that no chain of others implies: what a reader needs to see which room stands on which."""
    below: dict[str, set[str]] = {}
    for room in sorted({room for arrow in drawn for room in arrow}, key=FLOOR_OF.__getitem__):
        direct = {target for source, target in drawn if source == room}
        below[room] = direct.union(*(below.get(target, set()) for target in direct))
    return {
        (source, target): loading
        for (source, target), loading in drawn.items()
        if not any(between[0] == source and target in below[between[1]] for between in drawn)
    }
