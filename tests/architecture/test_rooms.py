"""The room table compared with the code: directions of imports, importers of libraries, and who may print."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import submillion

PACKAGE = Path(submillion.__file__).parent
ROOT = PACKAGE.parents[1]
SOURCES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_ANY = 150
MAX_ROWS = 22
MAX_FLOORS = 12
MAX_ROOT_MODULES = 10
# It runs as a separate process and answers its parent on stdout.
ANSWERS_ON_STDOUT = {"pipeline/proof.py"}

# Each of these packages has one importer, so that changes between its versions are handled in one place.
IMPORTERS = {
    "peft": {"model/adapter.py"},
    "accelerate": {"training/collective.py", "training/track.py"},
    "sklearn": {"metrics/baseline.py", "estimator.py"},
    "matplotlib": {"report/"},
    "jinja2": {"report/templates.py"},
    "markupsafe": {"report/templates.py"},
    "typer": {"cli/"},
    "rich": {"cli/"},
    "datasets": set(),
    "nltk": {"wordnet/lexicon.py", "wordnet/tagger.py"},
    "pydantic": {"config/run.py", "config/search.py", "config/section.py", "budget/", "config/generate.py"},
    "optuna": {"search/"},
    "sqlalchemy": {"search/storage.py"},
}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def iter_imports(path: Path) -> Iterator[str]:
    """Yield every module that a file imports anywhere, functions and type checking included."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno} is a relative import"
            assert node.module is not None
            if node.module == "submillion":
                yield from (f"submillion.{alias.name}" for alias in node.names if alias.name != "__version__")
            else:
                yield node.module


def read_rooms() -> list[list[str]]:
    """Return the rows of the table in docs/architecture.md, top down: files, and folders with a slash at their end."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## Rooms, from the top down")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.+?`) \|", table, flags=re.MULTILINE)
    return [[re.sub(r"\{.*", "", name) for name in re.findall(r"`([^`]+)`", cell)] for cell in cells]


ROOMS = read_rooms()


def find_room(name: str) -> tuple[int, str] | None:
    """Return the row and the name of the room that a file is in; the most exact name counts."""
    found = [
        (row, room)
        for row, rooms in enumerate(ROOMS)
        for room in rooms
        if name == room or (room.endswith("/") and name.startswith(room))
    ]
    return max(found, key=lambda place: len(place[1]), default=None)


def file_of(module: str) -> str | None:
    """Return the file of one of our modules, or of the module that holds an imported name."""
    parts = module.split(".")[1:]
    while parts:
        path = PACKAGE.joinpath(*parts)
        if path.with_suffix(".py").is_file():
            return name_of(path.with_suffix(".py"))
        if (path / "__init__.py").is_file():
            return name_of(path / "__init__.py")
        parts.pop()
    return None


def test_the_table_has_rooms() -> None:
    assert len(ROOMS) > 10
    assert len(ROOMS) <= MAX_ROWS
    assert find_room("cli/app.py") == (1, "cli/")
    assert find_room("errors.py") == (len(ROOMS) - 1, "errors.py")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_module_has_a_room_and_imports_only_go_down(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return  # The package's __init__ passes on names from the rooms.
    room = find_room(name_of(path))
    assert room is not None, f"{name_of(path)} is in no row of the table in docs/architecture.md"
    for module in iter_imports(path):
        if module.split(".")[0] != "submillion":
            continue
        file = file_of(module)
        assert file is not None, f"{module} is no module"
        other = find_room(file)
        assert other is not None
        assert other[1] == room[1] or other[0] > room[0], f"{name_of(path)} imports {module}, which is not below it"


def collect_arrows() -> dict[str, set[str]]:
    """Return the rooms that each room imports from, lazily or not; the front door aside."""
    arrows: dict[str, set[str]] = {}
    for path in SOURCES:
        room = find_room(name_of(path))
        if room is None:
            continue
        files = (file_of(module) for module in iter_imports(path) if module.split(".")[0] == "submillion")
        others = {found[1] for file in files if file is not None and (found := find_room(file)) is not None}
        arrows.setdefault(room[1], set()).update(others - {room[1]})
    return arrows


def test_no_two_rooms_import_each_other_and_floors_are_few() -> None:
    """A floor is one step of the longest chain of imports between rooms."""
    arrows = collect_arrows()
    floors: dict[str, int] = {}
    for room in graphlib.TopologicalSorter(arrows).static_order():  # raises CycleError where rooms import each other
        floors[room] = 1 + max((floors[other] for other in arrows[room]), default=0)
    assert max(floors.values()) <= MAX_FLOORS


def test_the_core_enters_the_makers_of_rows_by_one_lazy_import() -> None:
    """`augment/` and `wordnet/` make rows; a run that trains on existing rows loads neither."""
    inside = ("augment/", "wordnet/", "cli/")  # commands import lazily anyway
    makers = ("submillion.augment", "submillion.wordnet")
    core = [path for path in SOURCES if not name_of(path).startswith(inside)]
    assert [name_of(p) for p in core if any(m.startswith(makers) for m in iter_imports(p))] == ["pipeline/synonyms.py"]
    door = "submillion.pipeline.synonyms"
    assert [name_of(p) for p in core if door in iter_imports(p)] == ["pipeline/synthetic_rows.py"]
    tree = parse(PACKAGE / "pipeline" / "synthetic_rows.py")
    assert all(node.module != door for node in tree.body if isinstance(node, ast.ImportFrom))


def test_few_modules_lie_loose_in_the_root() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_ROOT_MODULES


@pytest.mark.parametrize("package", sorted(IMPORTERS))
def test_packages_have_their_one_importer(package: str) -> None:
    importers = {
        name_of(path) for path in SOURCES if any(module.split(".")[0] == package for module in iter_imports(path))
    }
    allowed = tuple(IMPORTERS[package])
    assert [name for name in importers if not name.startswith(allowed)] == []


def test_only_the_command_line_prints() -> None:
    printers = []
    for path in SOURCES:
        if name_of(path).startswith("cli/") or name_of(path) in ANSWERS_ON_STDOUT:
            continue
        for node in ast.walk(parse(path)):
            if not isinstance(node, ast.Call | ast.Attribute):
                continue
            is_print = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            is_stream = isinstance(node, ast.Attribute) and ast.unparse(node) in {"sys.stdout", "sys.stderr"}
            if is_print or is_stream:
                printers.append(f"{name_of(path)}:{node.lineno}")
    assert printers == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_modules_are_small_enough_to_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_functions_fit_on_a_page(path: Path) -> None:
    functions = [node for node in ast.walk(parse(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert [name for name, length in lengths.items() if length > MAX_FUNCTION_LINES] == []


def test_values_of_any_type_stay_at_borders() -> None:
    """Where JSON, torch or transformers hand something over, and an alias says so, nothing is known of its type."""
    names = (node for path in SOURCES for node in ast.walk(parse(path)) if isinstance(node, ast.Name))
    assert sum(node.id == "Any" for node in names) <= MAX_ANY


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_everything_public_says_what_it_is(path: Path) -> None:
    tree = parse(path)
    assert ast.get_docstring(tree), "the module has no docstring"
    missing = []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            inner = node.body if isinstance(node, ast.ClassDef) else []
            methods = [item for item in inner if isinstance(item, ast.FunctionDef) and not item.name.startswith("_")]
            missing += [item.name for item in (node, *methods) if not ast.get_docstring(item)]
    assert missing == []


def test_test_files_have_names_of_their_own() -> None:
    """Test files are modules of no package, so two of one name cannot be collected together."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_no_room_hides_a_function_of_the_api() -> None:
    """Importing a module sets it as an attribute of the package, over a function of the same name."""
    names = set(submillion.__all__) - {"report"}  # which is a room
    rooms = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert not names & rooms
