"""Weights: found, read, fetched, compared, hashed."""

import hashlib
import os
import pickle
import re
import urllib.error
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError
from fcbench.core.features import OFFLINE, WeightsInfo
from fcbench.core.files import sha256_of
from fcbench.core.state_dicts import differences

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
RANDOM_SEED = 0
RANDOM_ORIGIN = f"random(seed={RANDOM_SEED})"
_WRAPPERS = ("state_dict", "model", "model_state", "model_state_dict")
_SHA256 = re.compile("[0-9a-f]{64}")
_PROBE_TIMEOUT_S = 10.0


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal. Raises `FcbenchError`: the file cannot be read."""
    try:
        return sha256_of(path)
    except OSError as exc:
        raise FcbenchError(f"cannot read weights {path}: {exc.strerror}") from exc


def state_sha256(state: nn.Module | Mapping[str, Tensor]) -> str:
    """SHA-256 of a state dict, hexadecimal: over names in sorted order, types, shapes and bytes. It does not depend on
    the order of the names, on strides or on the device."""
    tensors = state.state_dict() if isinstance(state, nn.Module) else state
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` or ``.safetensors`` file.

    Common wrappers are removed: a dict under ``state_dict`` or ``model``, names that begin with ``module.``. Raises
    `FcbenchError`: the file is missing, damaged, of another kind, or holds no state dict.
    """
    if not path.is_file():
        raise FcbenchError(f"weights {path} not found: give --weights a {', '.join(SUFFIXES)} file, or the word random")
    if path.suffix not in SUFFIXES:
        raise FcbenchError(f"weights {path} end in {path.suffix!r}: allowed are {', '.join(SUFFIXES)}")
    raw = _read(path)
    while isinstance(raw, Mapping) and (inside := [raw[k] for k in _WRAPPERS if isinstance(raw.get(k), Mapping)]):
        raw = inside[0]
    is_state = isinstance(raw, Mapping) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in raw.items())
    if not is_state or not raw:
        raise FcbenchError(f"weights {path} hold no state dict (names to tensors): save model.state_dict()")
    prefix = "module." if all(k.startswith("module.") for k in raw) else ""
    return {k[len(prefix) :]: v for k, v in raw.items()}


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in file.infolist()):
                    raise ValueError("its tensors are compressed, and may be of any size")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        reason = "it is damaged, or holds more than tensors"
        raise FcbenchError(f"cannot read weights {path}: {reason}") from exc
    except Exception as exc:  # damaged files may raise anything
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise FcbenchError(f"weights {path} are damaged ({reason}): fetch or save the file again") from exc


def other_architecture(what: str, model: str, different: str) -> FcbenchError:
    """An error for weights that do not fit."""
    return FcbenchError(f"{what} does not fit {model}: {different}. Give weights of that architecture")


def load_into(module: nn.Module, state: Mapping[str, Tensor], what: str, model: str) -> None:
    """Load a state dict of equal names and shapes. Raises `FcbenchError`: they differ; the first names are listed."""
    different = differences(state, module.state_dict())
    if different:
        raise other_architecture(what, model, different)
    module.load_state_dict(dict(state))


def weights_file(weights: str | None, official: Callable[[], tuple[Path, str]]) -> tuple[Path, str] | None:
    """The file of the requested weights, and the origin to record; None for random weights. `weights`: None, ``random``
    or the path of a file. `official`: finds the official or embedded file, and its origin."""
    if weights == "random":
        return None
    return (Path(weights), f"file:{Path(weights).name}") if weights else official()


def random_weights(module: nn.Module) -> WeightsInfo:
    """Origin of a module's present, random weights."""
    return WeightsInfo(state_sha256(module), RANDOM_ORIGIN)


def load_weights(
    module: nn.Module, name: str, file: tuple[Path, str] | None, state: Mapping[str, Tensor] | None = None
) -> WeightsInfo:
    """Load a file into a module; without a file, the module's present weights are its random ones.

    `name`: the model as typed. `file`: of `weights_file`. `state`: the state to load, if not all of the file.
    Raises `FcbenchError`: the file is missing, damaged, or of another architecture.
    """
    if file is None:
        return random_weights(module)
    path, origin = file
    load_into(module, load_state(path) if state is None else state, f"weights {path}", name)
    return WeightsInfo(file_sha256(path), origin)


def freeze(module: nn.Module) -> nn.Module:
    """Set evaluation mode and disable gradients. Returns the module."""
    return module.eval().requires_grad_(False)


@contextmanager
def seeded() -> Iterator[None]:
    """Make random weights inside reproducible; the generator is restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        yield


def hub_file(model: str, repo: str, names: Sequence[str], hint: str = "") -> Path:
    """A checkpoint on the Hugging Face hub: from its cache, or downloaded into it.

    A file whose SHA-256 is not the one on the hub is removed from the cache and refused. `model`: as typed,
    for messages. `repo`: ``owner/name``, or ``owner/name@revision``. `names`: acceptable files, the preferred one
    first. `hint`: a further remedy, for messages. Raises `FcbenchError`: it is not in the cache, and the hub cannot be
    reached; the download failed or is damaged; no such file or repository.
    """
    import huggingface_hub as hub

    repo_id, _, revision = repo.partition("@")
    for name in names:
        cached = hub.try_to_load_from_cache(repo_id, name, revision=revision or None)
        if isinstance(cached, str):
            return _intact(model, Path(cached))
    source = f"{hub.constants.ENDPOINT}/{repo_id} ({names[0]})"
    if os.environ.get(OFFLINE):
        raise FcbenchError(no_weights(model, f"download {source}", hint))
    try:  # a single quick try: the client's own retries take most of a minute
        hub.get_session().head(hub.constants.ENDPOINT, timeout=_PROBE_TIMEOUT_S)
    except Exception as exc:
        raise FcbenchError(no_weights(model, f"download {source}", hint)) from exc
    for name in names:
        try:
            path = hub.hf_hub_download(repo_id, name, revision=revision or None)
        except hub.errors.LocalEntryNotFoundError as exc:
            raise FcbenchError(_broken(model, source, exc)) from exc
        except hub.errors.EntryNotFoundError:
            continue
        except (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError) as exc:
            raise FcbenchError(
                f"{model}: {hub.constants.ENDPOINT} does not provide {repo}: it does not exist, or needs a login "
                "(HF_TOKEN); check HF_ENDPOINT, or give --weights FILE"
            ) from exc
        except Exception as exc:  # the client or its transport may raise anything
            raise FcbenchError(_broken(model, source, exc)) from exc
        return _intact(model, Path(path))
    raise FcbenchError(f"{model}: {repo} holds none of {', '.join(names)}")


def published_file(model: str, url: str, promised: str) -> Path:
    """A file that is published under a URL: from torch.hub's folder, else downloaded into it.

    `model`: as typed, for messages. `promised`: its SHA-256, or the first digits of it. Raises `FcbenchError`: it
    cannot be fetched, or it is damaged; a damaged one is removed.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        if os.environ.get(OFFLINE):
            raise FcbenchError(no_weights(model, f"download {url}"))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), promised, progress=False)
        except urllib.error.HTTPError as exc:
            raise FcbenchError(f"{model}: {url} answers {exc.code} {exc.reason}: give --weights FILE") from exc
        except (OSError, RuntimeError) as exc:  # no network; or torch.hub's own word for another hash
            if "hash" in str(exc):
                raise FcbenchError(f"{model}: {url} arrived damaged ({exc}): run the command again") from exc
            raise FcbenchError(no_weights(model, f"download {url}")) from exc
    if not (got := file_sha256(path)).startswith(promised):
        path.unlink()
        raise FcbenchError(
            f"{model}: {path} is damaged (SHA-256 {got[:12]}..., promised is {promised[:12]}...) and was removed: "
            "run the command again"
        )
    return path


def _intact(model: str, path: Path) -> Path:
    """A file of the hub's cache, its bytes checked against the SHA-256 that the hub states.

    The cache keeps a large file under its SHA-256 and links to it. Otherwise (small files, systems without
    links), nothing can be checked.
    """
    promised = Path(os.readlink(path)).name if path.is_symlink() else ""
    if not _SHA256.fullmatch(promised) or (got := file_sha256(path)) == promised:
        return path
    for damaged in (path.resolve(), path.parent / os.readlink(path), path):
        damaged.unlink(missing_ok=True)
    raise FcbenchError(
        f"{model}: the downloaded {path.name} is damaged (SHA-256 {got[:12]}..., the hub says {promised[:12]}...) and "
        "was removed: run the command again; or give --weights FILE"
    )


def no_weights(model: str, missing: str, hint: str = "") -> str:
    """One line for weights that are not on this machine and cannot be fetched, with the remedies."""
    return (
        f"{model}: its weights are not on this machine and could not be fetched: would {missing}. "
        f"{hint}Or give --weights FILE, or use the embedded encoders hiera_nano and sam2_nano, "
        "which need no download"
    )


def _broken(model: str, source: str, exc: Exception) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    reason = lines[0] if lines else type(exc).__name__
    return (
        f"{model}: the download of {source} failed ({reason}): run the command again, it resumes where it stopped; "
        "or give --weights FILE"
    )
