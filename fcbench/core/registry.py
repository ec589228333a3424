"""Plug-ins: found by name, imported only when needed.

Built-in: a file ``fcbench/codecs/hyperprior.py``, or a folder of that name, that sets ``PLUGIN``; folders ``shared``
hold code that plug-ins of a room share. Installed: a distribution's entry point in the group ``fcbench.codecs``
(``.encoders``, ``.tasks``, ...). Files: `use` reads ``./my_codec.py``, which then is the codec ``my_codec``.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, overload

from fcbench.core import libraries
from fcbench.core.codecs import LABEL, CodecPlugin, ImagePlugin, LabelPlugin, codec_kind
from fcbench.core.errors import FcbenchError, unknown
from fcbench.core.features import Encoder, EncoderPlugin
from fcbench.core.libraries import PACKAGE, module_file
from fcbench.core.python_files import read_source, reason_of, run_file
from fcbench.core.samples import DatasetPlugin
from fcbench.core.tasks import NeckPlugin, TaskModelPlugin, TaskPlugin

if TYPE_CHECKING:
    import torch

_KINDS: dict[str, tuple[str, type]] = {
    "dataset": ("data", DatasetPlugin),
    "encoder": ("encoders", EncoderPlugin),
    "codec": ("codecs", CodecPlugin),
    "neck": ("necks", NeckPlugin),
    "task": ("tasks", TaskPlugin),
    "taskmodel": ("taskmodels", TaskModelPlugin),
    "image": ("images", ImagePlugin),
    "label": ("labels", LabelPlugin),
}
SHARED = "shared"

KINDS = {kind: room for kind, (room, _) in _KINDS.items()}  # Kind of plug-in -> its room

BFLOAT16, COMPILED = "@bfloat16", "@compiled"
"""Suffixes of encoders and necks that compute in bfloat16 or are compiled; if both, in this order."""


@dataclass(frozen=True, slots=True)
class File:
    """A plug-in file as read."""

    path: Path
    sha256: str
    module: ModuleType


_files: dict[tuple[str, str], File] = {}  # (kind, name) -> the file that this process uses under that name


# ----------------------------------------------------------------------------------------- where plug-ins are
def names(kind: str) -> list[str]:
    """Names of a kind's plug-ins, sorted: built-in, installed, and files in use. Imports none of them.

    >>> "hyperprior" in names("codec")
    True
    """
    used = (name for of, name in _files if of == kind)
    return sorted({*built_in(kind), *_installed(kind), *used})


@cache
def built_in(kind: str) -> Mapping[str, Path]:
    """Name -> its file, or its folder's ``__init__``."""
    folder = PACKAGE / KINDS[kind]
    files = {p.stem: p for p in folder.glob("*.py") if p.stem != "__init__"}
    return files | {p.parent.name: p for p in folder.glob("*/__init__.py") if p.parent.name != SHARED}


@cache
def _installed(kind: str) -> dict[str, list[EntryPoint]]:
    by_name: dict[str, list[EntryPoint]] = {}
    for entry in importlib.metadata.entry_points(group=f"fcbench.{kind}s"):
        by_name.setdefault(entry.name, []).append(entry)
    return by_name


def _find(kind: str, name: str) -> Path | EntryPoint | File:
    """The plug-in that a name stands for. Raises `FcbenchError`: unknown name (the message lists the known ones and the
    nearest), or a name of several plug-ins."""
    name = split_variant(name)[0] if kind == "dataset" else name
    name = plain(name) if kind == "neck" else name
    plugins: list[Path | EntryPoint | File] = [p for n, p in built_in(kind).items() if n == name]
    plugins += _installed(kind).get(name, [])
    plugins += [file for key, file in _files.items() if key == (kind, name)]
    if not plugins:
        raise FcbenchError(unknown(kind, name, names(kind)))
    if len(plugins) > 1:
        both = " and ".join(map(_place, plugins))
        raise FcbenchError(f"{kind} {name!r} is ambiguous: there is one {both}; rename or uninstall one of them")
    return plugins[0]


def _place(plugin: Path | EntryPoint | File) -> str:
    if isinstance(plugin, File):
        return f"in {plugin.path}"
    return "built into fcbench" if isinstance(plugin, Path) else f"in {_distribution(plugin)}"


def _distribution(entry: EntryPoint) -> str:
    return " ".join((entry.dist.name, entry.dist.version)) if entry.dist else entry.value


# --------------------------------------------------------------------------------------------------- loading
@overload
def get(kind: Literal["dataset"], name: str) -> DatasetPlugin: ...
@overload
def get(kind: Literal["encoder"], name: str) -> EncoderPlugin: ...
@overload
def get(kind: Literal["codec"], name: str) -> CodecPlugin: ...
@overload
def get(kind: Literal["neck"], name: str) -> NeckPlugin: ...
@overload
def get(kind: Literal["task"], name: str) -> TaskPlugin: ...
@overload
def get(kind: Literal["taskmodel"], name: str) -> TaskModelPlugin: ...
@overload
def get(kind: Literal["image"], name: str) -> ImagePlugin: ...
@overload
def get(kind: Literal["label"], name: str) -> LabelPlugin: ...
@overload
def get(kind: str, name: str) -> Any: ...
def get(kind: str, name: str) -> Any:  # noqa: E302
    """The ``PLUGIN`` of a name. Raises `FcbenchError`: unknown or ambiguous name, or an outside plug-in that cannot be
    imported or is incomplete."""
    if kind == "dataset" and (of := split_variant(name))[1]:
        return get("dataset", of[0]).variant(of[1])
    found = _find(kind, name)
    if isinstance(found, Path):
        return importlib.import_module(_module(kind, found)).PLUGIN
    if isinstance(found, File):
        return found.module.PLUGIN
    where = f"{kind} {name!r} of {_distribution(found)}"
    try:
        plugin = found.load()
    except Exception as error:  # an outside module may raise anything
        raise FcbenchError(f"{where} cannot be imported: {reason_of(error)}") from error
    return _complete(kind, plugin, where)


def _module(kind: str, file: Path) -> str:
    """Name of a built-in plug-in's module."""
    return f"fcbench.{KINDS[kind]}.{file.parent.name if file.stem == '__init__' else file.stem}"


def use(kind: str, typed: str) -> str:
    """Read the plug-in file of ``[image:]FILE.py[:VARIANT]`` and return its name for this process, variant included.

    ``label:FILE.py`` among codecs is the label coder of the task that the file is named after, and returns ``label``.
    ``letterbox:FILE.py`` is that file's data set, letterboxed. Any other name is returned unchanged. Raises
    `FcbenchError`: the file is missing or cannot be run, its ``PLUGIN`` is incomplete, or its name is taken.
    """
    if kind == "codec" and codec_kind(typed)[0] == "image":
        return f"image:{use('image', codec_kind(typed)[1])}"
    if kind == "codec" and typed.startswith(f"{LABEL}:") and typed.endswith(".py"):
        use("label", typed.removeprefix(f"{LABEL}:"))
        return LABEL
    of, _, rest = typed.partition(":")
    if kind == "dataset" and rest and of in names(kind):
        return f"{of}:{use(kind, rest)}"
    path, variant = split_variant(typed)
    if not path.endswith(".py"):
        return typed
    file = _read(Path(path).absolute())
    _complete(kind, getattr(file.module, "PLUGIN", None), path)
    name = file.path.stem
    previous = _files.get((kind, name))
    _files[kind, name] = file if previous is None or previous.sha256 != file.sha256 else previous
    try:
        _find(kind, name)
    except FcbenchError:
        del _files[kind, name]
        raise
    return f"{name}:{variant}" if variant else name


def _read(path: Path) -> File:
    source = read_source(path, "the plug-in file")
    return File(path, hashlib.sha256(source).hexdigest(), run_file(path, source, "the plug-in file"))


def _complete(kind: str, plugin: Any, where: str) -> Any:
    """The plug-in. Raises `FcbenchError`: it lacks members of its protocol."""
    _, protocol = _KINDS[kind]
    required = (name for base in protocol.__mro__ for name in (*vars(base), *vars(base).get("__annotations__", {})))
    lacks = sorted({name for name in required if not name.startswith("_") and not hasattr(plugin, name)})
    if plugin is None:
        raise FcbenchError(f"{where} sets no PLUGIN")
    if lacks:
        raise FcbenchError(f"PLUGIN of {where} is not a {protocol.__name__}: it lacks {', '.join(lacks)}")
    return plugin


def build_encoder(name: str, weights: str | None, device: torch.device) -> Encoder:
    """The encoder of ``NAME`` or ``NAME:VARIANT``, in float32 (see `fcbench.features.encoding`)."""
    family, variant = split_variant(use("encoder", name))
    return get("encoder", family).build(variant, weights, device)


def encoder_family(name: str) -> str:
    """Name of the plug-in in an encoder's name.

    >>> encoder_family("timm:resnet18@bfloat16"), encoder_family("sam2_nano")
    ('timm', 'sam2_nano')
    """
    return split_variant(plain(name))[0]


def plain(name: str) -> str:
    """Name of an encoder or a neck without the suffixes that say how it computes."""
    return name.removesuffix(COMPILED).removesuffix(BFLOAT16)


def computed(name: str, bfloat16: bool, compiled: bool) -> str:
    """Name of an encoder or a neck that computes in bfloat16, or compiled; suffixes it already has are kept.

    >>> computed("neck_2L", True, False), computed("neck_2L@bfloat16", False, True)
    ('neck_2L@bfloat16', 'neck_2L@bfloat16@compiled')
    """
    bfloat16 |= name.removesuffix(COMPILED).endswith(BFLOAT16)
    compiled |= name.endswith(COMPILED)
    return plain(name) + BFLOAT16 * bfloat16 + COMPILED * compiled


# -------------------------------------------------------------------------------------------------- identity
def origin(kind: str, name: str) -> dict[str, str]:
    """Source of an outside plug-in: distribution -> version, or file name -> ``sha256:HEX``; empty for built-in ones.

    >>> origin("codec", "uniform")
    {}
    """
    plugin = _find(kind, name)
    of = split_variant(name)[1] if kind == "dataset" else ""
    inner = origin(kind, of) if split_variant(of)[0] in names(kind) else {}
    if isinstance(plugin, File):
        return {plugin.path.name: f"sha256:{plugin.sha256}", **inner}
    if isinstance(plugin, Path) or plugin.dist is None:
        return inner
    return {plugin.dist.name: plugin.dist.version, **inner}


def file_of(kind: str, name: str) -> Path | None:
    """The file in use under a name; None for built-in and installed plug-ins."""
    plugin = _find(kind, name)
    return plugin.path if isinstance(plugin, File) else None


def files_in_use() -> tuple[tuple[str, Path], ...]:
    """Kind and path of this process's plug-in files, for `use` in another process."""
    return tuple((kind, file.path) for (kind, _), file in _files.items())


def code_version(kind: str, name: str) -> str:
    """Short hash of a plug-in's source: its file, or all Python files of its folder (installed: of its package), and
    the modules that it uses from the room of fcbench's own plug-ins of its kind."""
    plugin = _find(kind, name)
    if isinstance(plugin, File):
        own, module = plugin.sha256, plugin.module
    else:
        get(kind, name)
        of = plugin.module if isinstance(plugin, EntryPoint) else _module(kind, plugin)
        module = sys.modules[of]
        own = _hash_of(plugin if isinstance(plugin, Path) else _source(of.partition(".")[0]))
    used = libraries.code_in(f"fcbench.{KINDS[kind]}", module)
    return hashlib.sha256(json.dumps([own, used], sort_keys=True).encode()).hexdigest()[:16]


@cache
def _hash_of(source: Path) -> str:
    """Short hash of a file, or of all Python files of a folder, given its ``__init__``; computed once per process."""
    files = sorted(source.parent.rglob("*.py")) if source.name == "__init__.py" else [source]
    total = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        total.update(f"{file.relative_to(source.parent).as_posix()} {len(content)}\n".encode() + content)
    return total.hexdigest()[:16]


def _source(module: str) -> Path:
    """The file of an installed module, or its folder's ``__init__``; imports nothing."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        raise FcbenchError(f"the source of the installed module {module} is not on this machine")
    return module_file(Path(spec.origin).parent, rest) if rest else Path(spec.origin)


def summary(kind: str, name: str) -> str:
    """First line of a plug-in's docstring. Does not import it."""
    return _docstring(kind, name).partition("\n")[0]


def tails(kind: str, name: str) -> str:
    """The paragraph of a plug-in's docstring that begins with "Tails", or an empty text. Does not import it."""
    paragraphs = _docstring(kind, name).split("\n\n")
    return " ".join(next((p for p in paragraphs if p.startswith("Tails")), "").split())


def _docstring(kind: str, name: str) -> str:
    plugin = _find(kind, name)
    if isinstance(plugin, File):
        plugin = plugin.path
    source = plugin if isinstance(plugin, Path) else _source(plugin.module)
    return ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""


def coder_versions(kind: str, name: str) -> dict[str, str]:
    """Versions of a plug-in's external coders. Raises `FcbenchError`: one is missing."""
    if (kind, name) == ("codec", LABEL):  # of one task or another
        return {}
    versions: dict[str, str] = get(kind, name).versions()
    return versions


# ----------------------------------------------------------------------------------------------------- names
def split_variant(typed: str) -> tuple[str, str]:
    """Name or file, and variant, of ``NAME[:VARIANT]`` or ``FILE.py[:VARIANT]``.

    >>> split_variant("timm:resnet18"), split_variant("C:/mine.py:small"), split_variant("./mine.py")
    (('timm', 'resnet18'), ('C:/mine.py', 'small'), ('./mine.py', ''))
    """
    path, dot_py, variant = typed.rpartition(".py")
    if dot_py and variant[:1] in ("", ":"):
        return path + dot_py, variant[1:]
    name, _, variant = typed.partition(":")
    return name, variant


def split_root(typed: str) -> tuple[str, str]:
    """Data set and root of ``DATASET[:ROOT]``. What follows the name of a data set that needs no root is
    its variant.

    >>> split_root("letterbox:coco:/data/coco"), split_root("coco")
    (('letterbox:coco', '/data/coco'), ('coco', ''))
    """
    name, rest = split_variant(typed)
    if not rest or get("dataset", use("dataset", name)).needs_root:
        return name, rest
    inner, root = split_root(rest)
    return f"{name}:{inner}", root
