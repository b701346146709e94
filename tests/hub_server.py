"""As much of the Hub's HTTP interface as `huggingface_hub` speaks to publish and to load, on loopback.

Create, preupload, LFS batch, commit, resolve, revisions, tags and listing, with the status codes and headers of the
real one; without Xet, which clients are told by `HF_HUB_DISABLE_XET=1`. Everything is in memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


LFS_SUFFIXES = (".safetensors", ".bin", ".png", ".pt")  # as the Hub's .gitattributes of a new repository has it
TOKEN = "hf_of_the_tests"


@dataclass(frozen=True)
class Blob:
    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """What git calls it: of an LFS file, the pointer."""
        content = self.content
        if self.lfs:
            content = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(content)}\n"
            content = content.encode()
        return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


@dataclass
class Repository:
    private: bool = False
    created_with: dict = field(default_factory=dict)
    commits: list[tuple[str, str, dict[str, Blob]]] = field(default_factory=list)  # id, message, files
    tags: dict[str, str] = field(default_factory=dict)

    def at(self, revision: str) -> tuple[str, str, dict[str, Blob]] | None:
        if revision == "main":
            return self.commits[-1]
        wanted = self.tags.get(revision, revision)
        return next((commit for commit in self.commits if commit[0] == wanted), None)

    def commit(self, message: str, files: dict[str, Blob]) -> str:
        parts = [self.commits[-1][0] if self.commits else "", message]
        parts += [f"{path} {blob.etag}" for path, blob in sorted(files.items())]
        identity = hashlib.sha1("\n".join(parts).encode()).hexdigest()
        self.commits.append((identity, message, files))
        return identity


@dataclass
class Fault:
    """What is answered instead, `times` times, where `method` and `path` (a regular expression) match; with `cut`,
    the connection is closed after so many bytes of the body were read."""

    method: str
    path: str
    status: int = 500
    times: int = 1
    cut: int | None = None


class HubServer:
    """Start with `with HubServer() as hub`; `hub.url` is what `HF_ENDPOINT` should be, `hub.token` is accepted."""

    def __init__(self) -> None:
        self.token = TOKEN
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.uploaded: dict[str, bytes] = {}  # LFS objects by sha256
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.cdn = self.url.replace("127.0.0.1", "localhost")  # another host, which gets no token

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def repository(self, name: str, kind: str = "model") -> Repository:
        return self.repositories[(kind, name)]

    def environment(self, home: str | object) -> dict[str, str]:
        """Of a process that is to use this Hub with the empty cache `home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def sent(self, method: str, path: str) -> int:
        """How many requests of the kind there were; `path` is a regular expression."""
        return sum(m == method and re.search(path, p) is not None for m, p in self.requests)


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, commit: str | None = None):
        self.status, self.message, self.code, self.commit = status, message, code, commit


class Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path, self.query = unquote(url.path), parse_qs(url.query)
        length = int(self.headers.get("Content-Length") or 0)
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        with self.hub.lock:
            self.hub.requests.append((self.command, path))
            hits = (f for f in self.hub.faults if f.times and f.method == self.command and re.search(f.path, path))
            fault = next(hits, None)
            if fault:
                fault.times -= 1
        if fault and fault.cut is not None:
            self.rfile.read(min(fault.cut, length))
            self.close_connection = True
            self.connection.close()
            return
        self.body = self._chunks() if chunked else self.rfile.read(length)
        try:
            if fault:
                raise Refused(fault.status, "Too Many Requests" if fault.status == 429 else "Internal Error")
            self._route(path)
        except Refused as refused:
            headers = {"X-Error-Message": refused.message}
            if refused.code:
                headers["X-Error-Code"] = refused.code
            if refused.commit:
                headers["X-Repo-Commit"] = refused.commit
            if refused.status == 429:
                headers["Retry-After"] = "0"
            self._send(refused.status, json.dumps({"error": refused.message}).encode(), headers)

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode())

    # Who may do what

    def _user(self, must: bool) -> bool:
        given = self.headers.get("Authorization")
        if given is not None and given != f"Bearer {self.hub.token}":
            raise Refused(401, "Invalid credentials in Authorization header")
        if must and given is None:
            raise Refused(401, "Invalid username or password.")
        return given is not None

    def _repository(self, kind: str, name: str, write: bool = False) -> Repository:
        known = self._user(must=write)
        repository = self.hub.repositories.get((kind, name))
        if repository is None or (repository.private and not known):
            raise Refused(404 if known else 401, "Repository not found", "RepoNotFound")
        return repository

    # What there is

    def _route(self, path: str) -> None:
        for method, pattern, action in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method.split("|"):
                with self.hub.lock:
                    getattr(self, action)(**match.groupdict())
                return
        raise Refused(404, "Sorry, we can't find the page you are looking for.")

    def whoami(self) -> None:
        self._user(must=True)
        self._json({"type": "user", "name": "tester", "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def validate(self) -> None:
        self._json({"errors": [], "warnings": []})

    def create(self) -> None:
        self._user(must=True)
        asked = json.loads(self.body)
        kind, name = asked.get("type") or "model", f"{asked.get('organization') or 'tester'}/{asked['name']}"
        url = f"{self.hub.url}/{'spaces/' if kind == 'space' else ''}{name}"
        if kind == "space" and "sdk" not in asked:
            raise Refused(400, "a Space needs its sdk")
        if (kind, name) in self.hub.repositories:
            known = {"error": "You already created this repo", "url": url}
            return self._send(409, json.dumps(known).encode())
        repository = Repository(private=asked.get("visibility") == "private", created_with=asked)
        repository.commit("initial commit", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", lfs=False)})
        self.hub.repositories[(kind, name)] = repository
        return self._json({"url": url, "name": name})

    def info(self, kind: str, name: str, revision: str | None = None) -> None:
        repository = self._repository(kind, name)
        commit, _, files = self._at(repository, revision or "main")
        self._json(
            {
                "_id": "0",
                "id": name,
                "modelId": name,
                "sha": commit,
                "private": repository.private,
                "tags": [],
                "siblings": [{"rfilename": path} for path in sorted(files)],
            }
        )

    def _at(self, repository: Repository, revision: str) -> tuple[str, str, dict[str, Blob]]:
        found = repository.at(revision)
        if found is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def tree(self, kind: str, name: str, revision: str, folder: str | None = None) -> None:
        _, _, files = self._at(self._repository(kind, name), revision)
        whole = self.query.get("recursive", ["false"])[0].lower() == "true"
        found: dict[str, dict] = {}
        start = f"{folder}/" if folder else ""
        for path, blob in sorted(files.items()):
            if not path.startswith(start):
                continue
            rest = path[len(start) :]
            if "/" in rest and not whole:
                found[start + rest.partition("/")[0]] = {"type": "directory", "oid": "0" * 40, "size": 0}
            else:
                found[path] = self._entry(blob)
        self._json([{"path": path, **entry} for path, entry in found.items()])

    @staticmethod
    def _entry(blob: Blob) -> dict:
        entry = {"type": "file", "oid": blob.oid, "size": len(blob.content)}
        if blob.lfs:
            entry["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 134}
        return entry

    def paths(self, kind: str, name: str, revision: str) -> None:
        _, _, files = self._at(self._repository(kind, name), revision)
        asked = json.loads(self.body)["paths"]
        self._json([{"path": path, **self._entry(files[path])} for path in asked if path in files])

    def tag(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(kind, name, write=True)
        repository.tags[json.loads(self.body)["tag"]] = self._at(repository, revision)[0]
        self._json({})

    # Publishing

    def preupload(self, kind: str, name: str, revision: str) -> None:
        _, _, files = self._at(self._repository(kind, name, write=True), revision)
        answers = []
        for file in json.loads(self.body)["files"]:
            before = files.get(file["path"])
            lfs = file["path"].endswith(LFS_SUFFIXES) or file["size"] > 10 * 2**20
            answers.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if lfs else "regular",
                    "shouldIgnore": False,
                    "oid": before.etag if before else None,
                }
            )
        self._json({"files": answers})

    def batch(self, kind: str, name: str) -> None:
        self._repository("space" if kind else "model", name, write=True)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.uploaded:
                verify = {"href": f"{self.hub.url}/lfs/verify"}
                entry["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}, "verify": verify}
            objects.append(entry)
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "the content is not what its name says")
        self.hub.uploaded[oid] = self.body
        self._send(200, b"")

    def verify(self) -> None:
        asked = json.loads(self.body)
        if len(self.hub.uploaded.get(asked["oid"], b"")) != asked["size"]:
            raise Refused(404, "no such object")
        self._json({})

    def commit(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(kind, name, write=True)
        head, _, before = self._at(repository, revision)
        files, message = dict(before), ""
        for line in self.body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                message = value["summary"]
                if value.get("parentCommit", head) != head:
                    raise Refused(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), lfs=False)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.uploaded:
                    raise Refused(400, f"{value['path']} was not uploaded")
                files[value["path"]] = Blob(self.hub.uploaded[value["oid"]], lfs=True)
            elif key == "deletedFile":
                del files[value["path"]]
        identity = repository.commit(message, files)
        self._json({"success": True, "commitOid": identity, "commitUrl": f"{self.hub.url}/{name}/commit/{identity}"})

    # Loading

    def resolve(self, kind: str, name: str, revision: str, file: str) -> None:
        repository = self._repository("space" if kind else "model", name)
        commit, _, files = self._at(repository, revision)
        blob = files.get(file)
        if blob is None:
            raise Refused(404, "Entry not found", "EntryNotFound", commit)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{blob.etag}"', "Content-Type": "application/octet-stream"}
        if blob.lfs:
            linked = {"X-Linked-ETag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.content))}
            self._send(302, b"", headers | linked | {"Location": f"{self.hub.cdn}/cdn/{blob.sha256}"})
        else:
            self._content(blob.content, headers)

    def cdn(self, oid: str) -> None:
        if oid not in self.hub.uploaded:
            raise Refused(404, "no such object")
        if "Authorization" in self.headers:
            raise Refused(400, "a token was sent to the CDN")
        self._content(self.hub.uploaded[oid], {"ETag": f'"{oid}"', "Content-Type": "application/octet-stream"})

    def _content(self, content: bytes, headers: dict[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return self._send(200, content, headers)
        first, last = int(asked[1]), int(asked[2] or len(content) - 1)
        part = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        return self._send(206, content[first : last + 1], headers | part)


_ID = r"(?P<name>[\w.-]+/[\w.-]+)"
_API = rf"/api/(?P<kind>model|space|dataset)s/{_ID}"
_WEB = rf"/(?P<kind>spaces/)?{_ID}"
_REVISION = r"(?P<revision>[^/]+)"
ROUTES = (
    ("GET", "/api/whoami-v2", "whoami"),
    ("POST", "/api/validate-yaml", "validate"),
    ("POST", "/api/repos/create", "create"),
    ("GET", _API, "info"),
    ("GET", rf"{_API}/revision/{_REVISION}", "info"),
    ("GET", rf"{_API}/tree/{_REVISION}(?:/(?P<folder>.+))?", "tree"),
    ("POST", rf"{_API}/paths-info/{_REVISION}", "paths"),
    ("POST", rf"{_API}/tag/{_REVISION}", "tag"),
    ("POST", rf"{_API}/preupload/{_REVISION}", "preupload"),
    ("POST", rf"{_API}/commit/{_REVISION}", "commit"),
    ("POST", rf"{_WEB}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "upload"),
    ("POST", "/lfs/verify", "verify"),
    ("GET|HEAD", rf"{_WEB}/resolve/{_REVISION}/(?P<file>.+)", "resolve"),
    ("GET|HEAD", r"/cdn/(?P<oid>[0-9a-f]{64})", "cdn"),
)
