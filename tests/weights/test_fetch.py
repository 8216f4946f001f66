"""Weights from web addresses and the Hugging Face Hub: downloaded once, and read like any file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import save, save_file

from mmms_plugin.errors import UserError
from mmms_plugin.weights import fetch
from mmms_plugin.weights.fetch import check_place, chosen_file, read_place

WEIGHTS = {"a": torch.arange(3.0)}


class Web(NamedTuple):
    """A server on this machine: its address, what it has, and the paths it was asked for."""

    address: str
    files: dict[str, bytes]
    asked: list[str]


@pytest.fixture
def web(tmp_path, monkeypatch) -> Iterator[Web]:
    files: dict[str, bytes] = {}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            path = self.path.partition("?")[0]
            if path not in files:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(files[path]) + 100 * ("short" in path)))
            self.end_headers()
            self.wfile.write(files[path])

        def log_message(self, *arguments: object) -> None:
            pass

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield Web(f"http://127.0.0.1:{server.server_port}", files, asked)
    server.shutdown()
    server.server_close()


def refusal(place: str) -> str:
    with pytest.raises(UserError) as caught:
        read_place(place)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_address_is_downloaded_once(web, tmp_path):
    web.files["/x/model-0123456789.safetensors"] = web.files["/a/m.safetensors"] = save(WEIGHTS)
    web.files["/b/m.safetensors"] = save({"b": torch.ones(1)})
    for _ in range(2):
        assert torch.equal(
            read_place(f"{web.address}/x/model-0123456789.safetensors?download=1").state["a"], WEIGHTS["a"]
        )
        assert set(read_place(f"{web.address}/a/m.safetensors").state) == {"a"}
        assert set(read_place(f"{web.address}/b/m.safetensors").state) == {"b"}  # a name is not one file everywhere
    assert len(web.asked) == 3
    assert (tmp_path / "torch/hub/checkpoints/model-0123456789.safetensors").is_file()  # where torch looks, too


def test_a_download_that_cannot_be_read_is_not_kept(web, tmp_path):
    whole = save(WEIGHTS)
    web.files.update({"/page.pth": b"<html>log in</html>", "/short.safetensors": whole[:-8]})
    for name in ("page.pth", "short.safetensors"):
        assert refusal(f"{web.address}/{name}").startswith(f"{web.address}/{name}: ")
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    web.files["/short.safetensors"] = whole
    assert set(read_place(f"{web.address}/short.safetensors").state) == {"a"}


def test_addresses_that_do_not_answer_are_named(web, monkeypatch):
    assert refusal(f"{web.address}/x.pth") == f"{web.address}/x.pth: cannot be downloaded (HTTP Error 404: Not Found)"
    assert "cannot be downloaded (<urlopen error" in refusal("http://127.0.0.1:1/x.pth")
    monkeypatch.setattr(fetch, "STALLED", 0.05)
    stalled = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # accepts, and never answers
    assert "timed out" in refusal(f"http://127.0.0.1:{stalled.server_port}/x.pth")
    stalled.server_close()


FORMS = "allowed are hf://OWNER/NAME, hf://OWNER/NAME/FILE or hf://OWNER/NAME@REVISION/FILE"


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("nowhere.pth", "no such file"),
        (".", "it is a folder, give a file"),
        ("ftp://host/x.pth", "ftp:// is not supported; allowed are a file, http://, https:// and hf://"),
        ("file:///etc/x.pth", "file:// is not supported; allowed are a file, http://, https:// and hf://"),
        ("https://host", "an address of a file is expected, such as https://HOST/weights.pth"),
        ("https://host/..", "an address of a file is expected, such as https://HOST/weights.pth"),
        ("https:///x.pth", "an address of a file is expected, such as https://HOST/weights.pth"),
        ("hf://name", FORMS),
        ("hf://owner/name/", FORMS),
        ("hf://owner/name", "huggingface_hub is not installed: pip install huggingface_hub"),
    ],
)
def test_places_are_checked_without_a_network(place, problem, monkeypatch):
    monkeypatch.setattr(fetch, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        check_place(place)
    assert str(caught.value) == f"{place}: {problem}"


@pytest.fixture
def hub(tmp_path, monkeypatch) -> dict[tuple[str, str | None], list[str]]:
    """Files of repositories by name and revision, in place of the Hub."""
    repositories: dict[tuple[str, str | None], list[str]] = {}

    def download(name: str, file: str, revision: str | None = None) -> str:
        if file not in repositories[name, revision]:
            raise OSError(f"404: {file}\nsecond line")
        save_file({f"{name} {revision} {file}": torch.ones(1)}, tmp_path / "cached")
        return str(tmp_path / "cached")

    module = ModuleType("huggingface_hub")
    module.hf_hub_download = download  # type: ignore[attr-defined]
    module.list_repo_files = lambda name, revision=None: repositories[name, revision]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return repositories


def test_a_repository_of_the_hub(hub):
    hub["me/net", None] = ["README.md", "net.safetensors", "net.pth", "old/net.safetensors"]
    hub["me/net", "v2"] = ["a/b.bin"]
    for place, loaded in (
        ("hf://me/net", "me/net None net.safetensors"),
        ("hf://me/net/net.pth", "me/net None net.pth"),
        ("hf://me/net@v2/a/b.bin", "me/net v2 a/b.bin"),
    ):
        assert list(read_place(place).state) == [loaded]
    assert refusal("hf://me/net/no.pth") == "hf://me/net/no.pth: cannot be downloaded (404: no.pth)"
    assert refusal("hf://me/other").startswith("hf://me/other: cannot be downloaded (")
    assert "name the file: the cache has those" in refusal("hf://me/other")


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["a.pth", "b.safetensors", "c.safetensors.index.json"], "b.safetensors"),
        (["pytorch_model.bin", "model.safetensors", "x.safetensors"], "model.safetensors"),
        (["pytorch_model.bin", "training_args.bin"], "pytorch_model.bin"),
        (["b.pt", "a.pth"], "a.pth"),
        (["b.pth", "a.pth", "c.bin"], UserError("x: it has a.pth, b.pth: name one, hf://OWNER/NAME/FILE")),
        (["sub/a.pth", "x.txt"], UserError("x: it has no weights (.safetensors, .pth, .pt, .bin, .tar) at its top")),
    ],
)
def test_which_file_of_a_repository(files, chosen):
    if isinstance(chosen, str):
        assert chosen_file("x", files) == chosen
        return
    with pytest.raises(UserError) as caught:
        chosen_file("x", files)
    assert str(caught.value).startswith(str(chosen))
