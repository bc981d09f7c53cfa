"""A server on this machine that speaks the Hub's protocol as far as an upload needs it."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.helpers.json_server import JsonHandler, json_server

TOKEN = "hf_of_the_tests"


@dataclass(kw_only=True)
class Repository:
    """A repository's files at its last commit, and its messages."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return f"{len(self.commits):040x}"


@dataclass(kw_only=True)
class Hub:
    """The server's address and what it holds."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """Contents of large files, by their SHA-256."""
    fails: str = ""
    """The last part of a path that is answered with 500."""


@contextmanager
def hub_server(**behaviour: Any) -> Iterator[Hub]:
    """Serves while the block runs; `behaviour`: fields of `Hub`."""
    hub = Hub(**behaviour)

    class Handler(JsonHandler):
        def content(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found

        def do_GET(self) -> None:
            name = urlsplit(self.path).path.removeprefix("/api/models/")
            repository = hub.repositories.get(name)
            if repository is None:
                self.reply(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
                return
            files = [{"rfilename": path} for path in repository.files]
            self.reply(200, {"id": name, "sha": repository.sha, "siblings": files})

        do_HEAD = do_GET

        def do_PUT(self) -> None:
            hub.objects[self.path.rpartition("/")[2]] = self.content()
            self.reply(200)

        def do_POST(self) -> None:
            path, content = urlsplit(self.path).path, self.content()
            if hub.fails and path.endswith(hub.fails):
                self.reply(400, {"error": "the disk is full"})
            elif path == "/api/validate-yaml":
                self.reply(200, {"errors": [], "warnings": []})
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.reply(401, {"error": "Invalid username or password."})
            elif path == "/api/repos/create":
                asked = json.loads(content)
                name = f"{asked['organization']}/{asked['name']}"
                if asked["organization"] == "others":
                    self.reply(403, {"error": "You don't have the rights to create here"})
                    return
                hub.repositories[name] = Repository(private=asked.get("visibility") == "private")
                self.reply(200, {"url": f"{hub.address}/{name}"})
            elif "/preupload/" in path:
                modes = [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                    }
                    for one in json.loads(content)["files"]
                ]
                self.reply(200, {"files": modes})
            elif path.endswith("/info/lfs/objects/batch"):
                objects = [
                    one | {"actions": {"upload": {"href": f"{hub.address}/lfs/{one['oid']}"}}}
                    for one in json.loads(content)["objects"]
                ]
                self.reply(200, {"transfer": "basic", "objects": objects})
            elif "/commit/" in path:
                name = path.removeprefix("/api/models/").rpartition("/commit/")[0]
                self.commit(hub.repositories[name], name, content)
            else:
                self.reply(404, {"error": path})

        def commit(self, repository: Repository, name: str, content: bytes) -> None:
            lines = [json.loads(line) for line in content.splitlines()]
            header, *operations = (line["value"] for line in lines)
            if header.get("parentCommit") not in (None, repository.sha):
                self.reply(412, {"error": "A commit has happened since"})
                return
            for one in operations:
                repository.files[one["path"]] = (
                    hub.objects[one["oid"]] if "oid" in one else base64.b64decode(one["content"])
                )
            repository.commits.append(header["summary"])
            sha = repository.sha
            url = f"{hub.address}/{name}/commit/{sha}"
            self.reply(200, {"success": True, "commitOid": sha, "commitUrl": url})

    with json_server(Handler) as hub.address:
        yield hub
