"""A Hugging Face Hub on this machine: it keeps what is uploaded, and gives it back."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants


class Hub(ThreadingHTTPServer):
    """Repositories of models: {(repository, revision): {path: content}}."""

    block_on_close = False

    def __init__(self):
        self.repositories, self.asked, self.private = {}, [], {}
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def commit(self, repository, revision):
        files = self.repositories[repository, revision]
        return hashlib.sha1(repr((revision, sorted(files.items()))).encode()).hexdigest()

    def find(self, repository, revision):
        """The name of a revision that is given by name or commit; None if there is none."""
        for known, name in self.repositories:
            if known == repository and revision in {name, self.commit(repository, name)}:
                return name
        return None

    def has(self, repository):
        return any(known == repository for known, _ in self.repositories)


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def send(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code):
        self.send({"error": "not found"}, 404, X_Error_Code=code)

    def parts(self):
        path = unquote(urlsplit(self.path).path).strip("/").split("/")
        self.server.asked.append((self.command, "/".join(path)))
        return path

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):  # noqa: PLR0911
        hub = self.server
        match self.parts():
            case ["api", "models", owner, name, *rest]:
                repository, revision = f"{owner}/{name}", rest[1] if len(rest) > 1 else "main"
                if not hub.has(repository):
                    return self.missing("RepoNotFound")
                found = hub.find(repository, revision)
                if found is None:
                    return self.missing("RevisionNotFound")
                files, commit = hub.repositories[repository, found], hub.commit(repository, found)
                if rest[:1] == ["tree"]:
                    return self.send(
                        [{"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                         for path, content in files.items()]
                    )  # fmt: skip
                siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
                return self.send({"id": repository, "modelId": repository, "sha": commit, "siblings": siblings,
                                  "private": False, "tags": [], "downloads": 0, "likes": 0})  # fmt: skip
            case [owner, name, "resolve", revision, *path]:
                found = hub.find(f"{owner}/{name}", revision)
                content = hub.repositories[f"{owner}/{name}", found].get("/".join(path)) if found else None
                if content is None:
                    return self.missing("EntryNotFound")
                tag = f'"{hashlib.sha256(content).hexdigest()}"'
                return self.send(content, ETag=tag, X_Repo_Commit=hub.commit(f"{owner}/{name}", found))
        return self.send({"error": "unknown"}, 404)

    def do_POST(self):  # noqa: PLR0911
        hub, body = self.server, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        match self.parts():
            case ["api", "validate-yaml"]:
                return self.send({"errors": [], "warnings": []})
            case ["api", "repos", "create"]:
                told = json.loads(body)
                repository = f"{told.get('organization') or 'owner'}/{told['name']}"
                if hub.has(repository):
                    return self.send({"error": "exists", "url": f"{hub.url}/{repository}"}, 409)
                hub.repositories[repository, "main"] = {}
                hub.private[repository] = bool(told.get("private")) or told.get("visibility") == "private"
                return self.send({"url": f"{hub.url}/{repository}", "name": repository})
            case ["api", "models", owner, name, "branch", revision]:
                hub.repositories.setdefault((f"{owner}/{name}", revision), {})
                return self.send({})
            case ["api", "models", owner, name, "preupload", _]:
                files = json.loads(body)["files"]
                return self.send({"files": [
                    {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in files
                ]})  # fmt: skip
            case ["api", "models", owner, name, "commit", revision]:
                repository = f"{owner}/{name}"
                for line in body.splitlines():
                    row = json.loads(line)
                    if row["key"] == "file":
                        content = base64.b64decode(row["value"]["content"])
                        hub.repositories[repository, revision][row["value"]["path"]] = content
                    elif row["key"] == "header":
                        hub.message = row["value"]["summary"]
                commit = hub.commit(repository, revision)
                return self.send({"success": True, "commitOid": commit,
                                  "commitUrl": f"{hub.url}/{repository}/commit/{commit}"})  # fmt: skip
        return self.send({"error": "unknown"}, 404)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub, empty; the cache is the test's own."""
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield server
    server.shutdown()
    server.server_close()
