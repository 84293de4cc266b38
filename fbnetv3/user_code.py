"""Import of a user's Python code, which registers networks, data sets and other parts by name.

The command line names modules and files (``--import``); a config never does, since it may be
untrusted. Processes that a command starts import the same code. It comes first in the pickled data
that they receive, so that its classes exist before objects of these classes are unpickled.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.abc
import importlib.util
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fbnetv3 import registries
from fbnetv3.errors import FBNetError, first_line
from fbnetv3.io import atomic_write, read_file, read_text
from fbnetv3.registry import Registry

_log = logging.getLogger("fbnetv3")
RECORD = "imports.json"
"""Name of the file in a run's folder that lists the imported code."""
_PREFIX = "fbnetv3_import_"  # prefix of the module name that a file is run under
# Tables of registered names that are no Registry: (module, attribute). Modules that are not loaded
# are skipped, since nothing can be registered there.
_TABLES = (
    ("fbnetv3.modeling.registry", "MODULES"),
    ("fbnetv3.arch.ops", "OP_COSTS"),
    ("fbnetv3.arch.registry", "_REGISTERED"),
)


class UserCodeError(FBNetError):
    """A module or file of --import cannot be imported."""


@dataclass(frozen=True)
class UserModule:
    """A module or file of ``--import``.

    Attributes:
        name: Name of the module, or absolute path of the file.
        sha256: Hash of the source; "" for a module without a source file.
        source: Source of a file, which other processes run; None for a module, which other
            processes import by its name.
    """

    name: str
    sha256: str
    source: bytes | None = None

    @property
    def label(self) -> str:
        """Name of the module, or name of the file without its folder."""
        return self.name if self.source is None else Path(self.name).name

    def load(self) -> None:
        """Imports the module, or runs the file, unless this process has loaded the same source.

        Raises:
            UserCodeError: The code raises an error; the message names its file and line.
        """
        if _LOADED.get(self.name) == self:
            return
        if self.source is None:
            _guarded(self.name, lambda: importlib.import_module(self.name))
        else:
            _guarded(self.name, lambda: _run(self.name, self.source or b""))
        _LOADED[self.name] = self


_LOADED: dict[str, UserModule] = {}


class UserCode:
    """Imported code. A process that unpickles this object imports the code, too.

    Args:
        modules: Modules and files; None: all that this process has imported by ``--import`` or
            :func:`import_user_code`.
    """

    def __init__(self, modules: Iterable[UserModule] | None = None) -> None:
        self.modules = tuple(_LOADED.values() if modules is None else modules)

    def __reduce__(self) -> tuple[Any, ...]:
        return _loaded, (self.modules,)

    def __bool__(self) -> bool:
        return bool(self.modules)


def _loaded(modules: tuple[UserModule, ...]) -> UserCode:
    for module in modules:
        module.load()
    return UserCode(modules)


class CallableWithUserCode:
    """A function that is pickled with the imported code; unpickling imports the code first.

    Args:
        function: Function that needs the code: it is of a user's class or looks up registered
            names.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.code = UserCode()  # pickled first
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in ("code", "function") or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.function, name)


def import_user_code(names: Iterable[str]) -> list[UserModule]:
    """Imports modules and files; warns of newly imported ones that register nothing.

    Args:
        names: Names of modules such as ``mypackage.networks``, and paths of files ``FILE.py``. The
            folder of a file is appended to ``sys.path``.

    Raises:
        UserCodeError: There is no such module or file, or it raises an error.
    """
    modules = []
    for name in names:
        module = _find(name)
        is_new, before = _LOADED.get(module.name) != module, _registrations()
        module.load()
        if is_new and _registrations() == before:
            _log.warning(
                "--import %s registers nothing; decorate networks, data sets and other parts with "
                "fbnetv3.register_network, fbnetv3.register_dataset etc. (docs/extending.md)",
                name,
            )
        modules.append(module)
    return modules


def imported_names() -> list[str]:
    """Returns the modules and paths that this process has imported, as ``--import`` takes them."""
    return list(_LOADED)


def _find(name: str) -> UserModule:
    """Returns the module or file of a name, without loading it."""
    if not name.endswith(".py"):
        return UserModule(name, _source_hash(name))
    path = Path(name).expanduser().resolve()
    try:
        source = read_file(path, "code")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserCodeError(
            f"--import {name}: cannot read {path} ({reason}); give the path of a file, or the "
            "name of a module"
        ) from error
    folder = str(path.parent)
    if folder not in sys.path:  # at the end: a file there must not hide another package
        sys.path.append(folder)
    return UserModule(str(path), hashlib.sha256(source).hexdigest(), source)


def _source_hash(name: str) -> str:
    """Returns the hash of a module's source; "" if it has none.

    Raises:
        UserCodeError: There is no such module.
    """

    def find() -> Any:
        return importlib.util.find_spec(name)

    spec = _guarded(name, find) if all(p.isidentifier() for p in name.split(".")) else None
    if spec is None:
        hint = f"; did you mean {name}.py?" if Path(f"{name}.py").is_file() else ""
        raise UserCodeError(
            f"--import {name}: there is no such module; give a path that ends in .py, or a module "
            f"that Python finds (PYTHONPATH){hint}"
        )
    origin = Path(spec.origin or "")
    if origin.suffix != ".py" or not origin.is_file():
        return ""
    return hashlib.sha256(read_file(origin, "code")).hexdigest()


class _Loader(importlib.abc.SourceLoader):
    """Runs a source that is already read, without writing bytecode."""

    def __init__(self, path: str, source: bytes) -> None:
        self._path, self._source = path, source

    def get_filename(self, fullname: str) -> str:
        return self._path

    def get_data(self, path: str | bytes) -> bytes:
        return self._source


def _run(path: str, source: bytes) -> ModuleType:
    """Runs a file as a module, whose name depends on its path only."""
    digest = hashlib.sha256(path.encode()).hexdigest()[:8]
    name = f"{_PREFIX}{Path(path).stem}_{digest}"
    loader = _Loader(path, source)
    spec = importlib.util.spec_from_loader(name, loader, origin=path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module  # before it runs: dataclasses and pickle look it up
    try:
        loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        raise
    return module


def _guarded(name: str, run: Callable[[], Any]) -> Any:
    try:
        return run()
    except SyntaxError as error:
        place = f"{error.filename}, line {error.lineno}"
        raise UserCodeError(f"--import {name}: {place}: SyntaxError: {error.msg}") from error
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        in_file = [f for f in frames if f.filename == name]
        others = [f for f in frames if not f.filename.startswith("<") and f.filename != __file__]
        frame = (in_file or others or frames)[-1]
        place = f"{frame.filename}, line {frame.lineno}"
        problem = f"{type(error).__name__}: {first_line(error)}"
        raise UserCodeError(f"--import {name}: {place}: {problem}") from error


def _registrations() -> list[int]:
    """Returns numbers that change with each registration."""
    kinds = [value for value in vars(registries).values() if isinstance(value, Registry)]
    tables = [
        getattr(sys.modules[module], table)
        for module, table in _TABLES
        if module in sys.modules and hasattr(sys.modules[module], table)
    ]
    return [*(kind.registrations for kind in kinds), *map(len, tables)]


def record_user_code(folder: Path) -> None:
    """Writes ``imports.json``: the sha256 of each imported module and file, by its label.

    Files of one name in several folders share a label, which then has several hashes. If no code is
    imported, the file is removed.

    Raises:
        WriteError: The file cannot be written.
    """
    path, code = folder / RECORD, UserCode()
    if not code:
        path.unlink(missing_ok=True)
        return
    values = _hashes_by_label(code)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1), encoding="utf-8")


def user_code_changes(folder: Path) -> str:
    """Returns which code of the run in a folder has changed or is no longer imported.

    The result is "" if there is no such code. Code that the run did not import is not reported.

    Raises:
        UserCodeError: ``imports.json`` is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return ""
    try:
        before = json.loads(read_text(path, "record"))
        items = {str(label): _as_hashes(value) for label, value in before.items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserCodeError(f"{path} is damaged ({first_line(error)}); remove it") from error
    now = _hashes_by_label(UserCode())
    parts = []
    for label, digests in items.items():
        if len(now.get(label, ())) < len(digests):
            parts.append(f"{label} is not imported now: add --import {label}")
        elif not {*digests} <= {*now[label]}:
            shown = [", ".join(digest[:12] for digest in d) for d in (digests, now[label])]
            parts.append(f"{label} has changed (sha256 {shown[0]} before, {shown[1]} now)")
    return "; ".join(parts)


def _hashes_by_label(code: UserCode) -> dict[str, list[str]]:
    hashes: dict[str, list[str]] = {}
    for module in code.modules:
        hashes.setdefault(module.label, []).append(module.sha256)
    return hashes


def _as_hashes(value: object) -> list[str]:
    """Returns the hashes of a label in a record; earlier versions wrote a single text."""
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]
