"""Where weights to start from lie: a file, a web address, or a repository of the Hugging Face Hub.

What is downloaded is kept, and read like any file, by ``weights.reader``: nothing in it is run.
"""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from mmms_plugin.errors import UserError, first_line

if TYPE_CHECKING:
    from mmms_plugin.weights.files import Checkpoint

WEB, HUB = ("http://", "https://"), "hf://"
SCHEME = re.compile(r"[\w.+-]{2,}://")  # a drive of Windows has one letter
REPOSITORY = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>[^/].*))?")
FORM = "hf://OWNER/NAME, hf://OWNER/NAME/FILE or hf://OWNER/NAME@REVISION/FILE"
KINDS = (".safetensors", ".pth", ".pt", ".bin", ".tar")  # of files in a repository, preferred first
USUAL = ("model.safetensors", "pytorch_model.bin")  # of several of a kind
FILE_NAME = re.compile(r"\w[\w.%+=-]{0,199}")
UNIQUE = re.compile(r"-[0-9a-f]{8,}\.")  # a published file's name ends in a part of its hash
STALLED = 60.0  # seconds without a byte
LISTED = 5


def check_place(place: str) -> None:
    """Check a file's name or an address, without any network.

    Raises: UserError.
    """
    if place.startswith(WEB):
        parts = urlparse(place)
        if not parts.hostname or not FILE_NAME.fullmatch(PurePosixPath(parts.path).name):
            raise UserError(f"{place}: an address of a file is expected, such as https://HOST/weights.pth")
    elif place.startswith(HUB):
        if not REPOSITORY.fullmatch(place):
            raise UserError(f"{place}: allowed are {FORM}")
        if "huggingface_hub" not in sys.modules and find_spec("huggingface_hub") is None:
            raise UserError(f"{place}: huggingface_hub is not installed: pip install huggingface_hub")
    elif scheme := SCHEME.match(place):
        raise UserError(f"{place}: {scheme[0]} is not supported; allowed are a file, http://, https:// and {HUB}")
    elif not (path := Path(place).expanduser()).is_file():
        raise UserError(f"{place}: {'it is a folder, give a file' if path.is_dir() else 'no such file'}")


def read_place(place: str) -> Checkpoint:
    """Read a checkpoint from a file, a web address or a repository of the Hub.

    A download that cannot be read is not kept.

    Raises: UserError.
    """
    from mmms_plugin.weights.files import read_checkpoint

    check_place(place)
    if not place.startswith(WEB):
        return read_checkpoint(_from_hub(place) if place.startswith(HUB) else Path(place).expanduser())
    path, new = _from_web(place)
    try:
        return read_checkpoint(path)
    except UserError as error:
        if new:
            with suppress(OSError):
                path.unlink()
        raise UserError(f"{place}: {error}") from error


def _from_web(url: str) -> tuple[Path, bool]:
    """The downloaded file in torch's cache, and whether it is new there."""
    from torch import hub

    from mmms_plugin.weights.host_loading import downloaded

    name = PurePosixPath(urlparse(url).path).name
    if not UNIQUE.search(name):  # model.pth of one address is not that of another
        name = f"{sha256(url.encode()).hexdigest()[:8]}-{name}"
    path = Path(hub.get_dir(), "checkpoints", name)
    new = not path.exists()
    try:
        with _patience(STALLED):
            return downloaded(url, path, progress=sys.stderr.isatty()), new
    except (OSError, HTTPException, ValueError) as error:  # a URLError is an OSError
        raise UserError(f"{url}: cannot be downloaded ({first_line(error)})") from error


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Let connections that stall raise an error; torch sets no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _from_hub(place: str) -> Path:
    """The downloaded file in the cache of huggingface_hub."""
    import huggingface_hub

    match = REPOSITORY.fullmatch(place)
    assert match is not None
    name, revision, file = match["name"], match["revision"], match["file"]
    try:
        if file is None:
            file = chosen_file(place, huggingface_hub.list_repo_files(name, revision=revision))
        return Path(huggingface_hub.hf_hub_download(name, file, revision=revision))
    except UserError:
        raise
    except Exception as error:  # of the network, of the Hub, of names
        named = "" if match["file"] else "; without network, name the file: the cache has those downloaded before"
        raise UserError(f"{place}: cannot be downloaded ({first_line(error)}){named}") from error


def chosen_file(place: str, files: list[str]) -> str:
    """The weights among the files of a repository: the only one of the first kind that it has, or the usual name.

    Raises: UserError where there is none, or several.
    """
    top = sorted(file for file in files if "/" not in file)
    for kind in KINDS:
        of_kind = [file for file in top if file.endswith(kind)]
        usual = [file for file in of_kind if file in USUAL]
        if len(of_kind) == 1 or usual:
            return (usual or of_kind)[0]
        if of_kind:
            more = f" and {len(of_kind) - LISTED} more" if len(of_kind) > LISTED else ""
            raise UserError(f"{place}: it has {', '.join(of_kind[:LISTED])}{more}: name one, {HUB}OWNER/NAME/FILE")
    raise UserError(f"{place}: it has no weights ({', '.join(KINDS)}) at its top; name a file, {HUB}OWNER/NAME/FILE")
