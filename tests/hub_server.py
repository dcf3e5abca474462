# SPDX-License-Identifier: Apache-2.0
"""A Hub on the loopback address, for the real client of `huggingface_hub`.

It keeps repositories in memory and knows the parts of the protocol that pushing and pulling need:
who am I, create, preupload, LFS, commit, info, tree, resolve. Private repositories exist for their
owner alone. `faults` makes it fail like the real one: with a status, or by cutting a connection.

    with HubServer() as hub:
        subprocess.run(command, env={**os.environ, **hub.environment(home)})
"""

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKENS = {"hf_me": "me", "hf_other": "other"}
READ_ONLY = "hf_reader"  # a token that may read what "me" may read, and write nothing
KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
# As on the Hub: what its .gitattributes name goes through LFS, and so does what is large.
LARGE_SUFFIXES = (".safetensors", ".tflite", ".parquet", ".npz", ".bin", ".mp4")
MAX_REGULAR = 10 * 2**20


@dataclass
class Repository:
    """The commits of a repository, each with all its files."""

    private: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def commit(self, files, message):
        text = f"{len(self.commits)} {sorted(files)} {message}"
        self.commits.append((hashlib.sha1(text.encode()).hexdigest(), files))
        self.messages.append(message)

    def at(self, revision):
        """(commit, files), or None."""
        if revision == "main":
            return self.commits[-1]
        return next((c for c in self.commits if c[0] == revision), None)


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of that method whose path matches."""

    method: str
    path: str
    status: int | None = None  # None: the connection is cut in the middle of the answer
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)


class HubServer:
    """Runs in a thread of the test's process."""

    def __init__(self):
        self.repositories, self.objects, self.faults = {}, {}, []
        self.requests, self.lock = Counter(), threading.Lock()
        self.uploaded_bytes = 0
        handler = type("Handler", (HubHandler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def environment(self, home, token="hf_me"):
        """Variables for a process that takes this for the Hub, with a cache of its own."""
        return {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(home),
            "HF_DATASETS_CACHE": str(home / "datasets"),
            "HF_TOKEN": token or "",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def publish(self, repo_id, folder, kind="model"):
        """A repository with what a folder holds."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        repository = Repository()
        contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
        repository.commit(contents, "from a folder")
        self.repositories[kind, repo_id] = repository

    def files(self, repo_id, kind="model"):
        """Contents by path, of the last commit."""
        return self.repositories[kind, repo_id].commits[-1][1]

    def fail(self, method, path, status=None, times=1, **headers):
        self.faults.append(Fault(method, path, status, times, headers))

    def next_fault(self, method, path):
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None


class HubHandler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def answer(self):
        url = urlsplit(self.path)
        path, self.query = unquote(url.path), parse_qs(url.query)
        with self.hub.lock:
            self.hub.requests[f"{self.command} {path}"] += 1
        self.cut = False
        fault = self.hub.next_fault(self.command, path)
        self.body = self.read_body()
        if fault is not None and fault.status is not None:
            return self.error(fault.status, "This was arranged.", headers=fault.headers)
        self.cut = fault is not None
        if self.cut and self.command in ("POST", "PUT"):
            return self.hang_up()  # before anything is kept
        for method, pattern, handler in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                return handler(self, **match.groupdict())
        return self.error(404, f"There is no {path}.")

    def read_body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    # answers

    def send(self, content, status=200, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if self.cut else content)
        if self.cut:
            self.hang_up()

    def hang_up(self):
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(2)

    def json(self, value, status=200, headers=None):
        headers = {"Content-Type": "application/json", **(headers or {})}
        self.send(json.dumps(value).encode(), status, headers)

    def error(self, status, message, code=None, headers=None):
        headers = {"X-Error-Message": message, **(headers or {})}
        self.json({"error": message}, status, headers | ({"X-Error-Code": code} if code else {}))

    # who asks, and for what

    @property
    def token(self):
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    @property
    def user(self):
        return "me" if self.token == READ_ONLY else TOKENS.get(self.token)

    def find(self, kind, repo_id, *, write=False):
        """The repository, or None when it was refused."""
        repository = self.hub.repositories.get((KINDS[kind], repo_id))
        if self.token and self.user is None:
            return self.error(401, "Invalid username or password.")
        is_owner = self.user == repo_id.split("/")[0]
        if repository is None or (repository.private and not is_owner):
            # Who is not known is not told whether it exists.
            status = 404 if self.user else 401
            return self.error(status, "Repository not found", "RepoNotFound")
        if write and (not is_owner or self.token == READ_ONLY):
            return self.error(403, "You have no right to write here.")
        return repository

    def find_revision(self, kind, repo_id, revision, *, write=False):
        repository = self.find(kind, repo_id, write=write)
        if repository is None:
            return None
        found = repository.at(revision or "main")
        if found is None:
            return self.error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repository, *found

    # routes

    def who_am_i(self):
        if self.user is None:
            return self.error(401, "Invalid username or password.")
        return self.json({"type": "user", "name": self.user, "orgs": [], "isPro": False})

    def create(self):
        wanted = json.loads(self.body)
        if self.user is None:
            return self.error(401, "Invalid username or password.")
        owner = wanted.get("organization") or self.user
        if owner != self.user or self.token == READ_ONLY:
            return self.error(403, f"You have no right to create a repository under {owner}.")
        kind, repo_id = wanted.get("type") or "model", f"{owner}/{wanted['name']}"
        prefix = "" if kind == "model" else f"{kind}s/"
        url = {"url": f"{self.hub.address}/{prefix}{repo_id}", "name": repo_id}
        if (kind, repo_id) in self.hub.repositories:
            return self.json({"error": "You already created this repo", **url}, 409)
        repository = Repository(
            private=wanted.get("visibility") == "private" or bool(wanted.get("private"))
        )
        repository.commit({}, "initial commit")
        self.hub.repositories[kind, repo_id] = repository
        return self.json(url)

    def preupload(self, kind, repo_id, revision):
        if self.find_revision(kind, repo_id, revision, write=True) is None:
            return None
        files = [
            {"path": f["path"], "uploadMode": self.mode(f), "shouldIgnore": False}
            for f in json.loads(self.body)["files"]
        ]
        return self.json({"files": files})

    @staticmethod
    def mode(file):
        is_large = file["path"].endswith(LARGE_SUFFIXES) or file["size"] > MAX_REGULAR
        return "lfs" if is_large else "regular"

    def batch(self, repo_id, kind=None):
        kind = (kind or "models/").strip("/")
        if self.find(kind, repo_id, write=True) is None:
            return None
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            href = f"{self.hub.address}/lfs/{wanted['oid']}"
            actions = {"upload": {"href": href, "header": {}}}
            # What is known already need not be sent again.
            known = wanted["oid"] in self.hub.objects
            objects.append({**wanted, **({} if known else {"actions": actions})})
        headers = {"Content-Type": "application/vnd.git-lfs+json"}
        return self.json({"transfer": "basic", "objects": objects}, headers=headers)

    def put_object(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.error(400, "The content is another.")
        with self.hub.lock:
            self.hub.objects[oid] = self.body
            self.hub.uploaded_bytes += len(self.body)
        return self.send(b"")

    def commit(self, kind, repo_id, revision):
        found = self.find_revision(kind, repo_id, revision, write=True)
        if found is None:
            return None
        repository, _, files = found
        files, message = dict(files), ""
        for line in self.body.splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return self.error(400, f"{value['path']} was not uploaded.")
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif key == "deletedFile":
                files.pop(value["path"], None)
        repository.commit(files, message)
        oid = repository.commits[-1][0]
        prefix = "" if kind == "models" else f"{kind}/"
        url = f"{self.hub.address}/{prefix}{repo_id}/commit/{oid}"
        return self.json({"success": True, "commitOid": oid, "commitUrl": url})

    def info(self, kind, repo_id, revision=None):
        found = self.find_revision(kind, repo_id, revision)
        if found is None:
            return None
        repository, oid, files = found
        about = {"_id": repo_id, "id": repo_id, "sha": oid, "private": repository.private}
        about |= {"author": repo_id.split("/")[0], "gated": False, "disabled": False, "tags": []}
        about |= {"lastModified": "2026-01-01T00:00:00.000Z", "downloads": 0, "likes": 0}
        return self.json({**about, "siblings": [{"rfilename": path} for path in sorted(files)]})

    def tree(self, kind, repo_id, revision, folder=""):
        found = self.find_revision(kind, repo_id, revision)
        if found is None:
            return None
        folder = f"{folder.strip('/')}/" if folder else ""
        inside = {p: c for p, c in found[2].items() if p.startswith(folder)}
        if folder and not inside:
            return self.error(404, f"{folder} does not exist", "EntryNotFound")
        entries, is_recursive = (
            {},
            self.query.get("recursive", ["False"])[0].lower() in ("true", "1"),
        )
        for path, content in sorted(inside.items()):
            rest = path.removeprefix(folder).split("/")
            for depth in range(1, len(rest) if is_recursive else min(2, len(rest))):
                parent = folder + "/".join(rest[:depth])
                entries[parent] = {"type": "directory", "path": parent, "oid": "0" * 40, "size": 0}
            if is_recursive or len(rest) == 1:
                entries[path] = self.describe(path, content)
        return self.json(list(entries.values()))

    def describe(self, path, content):
        """The entry of a file in a tree."""
        entry = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
        if self.mode(entry) == "lfs":
            oid = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
        return entry

    def paths_info(self, kind, repo_id, revision):
        found = self.find_revision(kind, repo_id, revision)
        if found is None:
            return None
        if self.headers.get("Content-Type", "").startswith("application/json"):
            paths = json.loads(self.body)["paths"]
        else:
            paths = parse_qs(self.body.decode()).get("paths", [])
        known = [self.describe(p, found[2][p]) for p in paths if p in found[2]]
        folders = [p for p in paths if any(f.startswith(f"{p}/") for f in found[2])]
        known += [{"type": "directory", "path": p, "oid": "0" * 40, "size": 0} for p in folders]
        return self.json(known)

    def resolve(self, repo_id, revision, path, kind=None):
        found = self.find_revision((kind or "models/").strip("/"), repo_id, revision)
        if found is None:
            return None
        _, oid, files = found
        headers = {"X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
        if path not in files:
            return self.error(404, "Entry not found", "EntryNotFound", headers)
        content, status = files[path], 200
        entry = self.describe(path, content)
        headers["ETag"] = f'"{entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]}"'
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
            if first >= len(content):
                return self.send(b"", 416, {"Content-Range": f"bytes */{len(content)}"})
            last = min(last, len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            content, status = content[first : last + 1], 206
        return self.send(content, status, headers)

    def validate_yaml(self):
        return self.json({"errors": [], "warnings": []})


def blob_id(content):
    """As git names a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


NAME = r"(?P<repo_id>[^/]+/[^/]+?)"
API = rf"/api/(?P<kind>models|datasets|spaces)/{NAME}"
REVISION = r"(?P<revision>[^/]+)"
ROUTES = (
    (("GET",), r"/api/whoami-v2", HubHandler.who_am_i),
    (("POST",), r"/api/repos/create", HubHandler.create),
    (("POST",), r"/api/validate-yaml", HubHandler.validate_yaml),
    (("POST",), rf"{API}/preupload/{REVISION}", HubHandler.preupload),
    (("POST",), rf"{API}/commit/{REVISION}", HubHandler.commit),
    (("POST",), rf"{API}/paths-info/{REVISION}", HubHandler.paths_info),
    (("GET",), rf"{API}/tree/{REVISION}(?P<folder>/.*)?", HubHandler.tree),
    (("GET",), rf"{API}/revision/{REVISION}", HubHandler.info),
    (("GET",), API, HubHandler.info),
    (
        ("POST",),
        rf"/(?P<kind>datasets/|spaces/)?{NAME}\.git/info/lfs/objects/batch",
        HubHandler.batch,
    ),
    (("PUT",), r"/lfs/(?P<oid>[0-9a-f]{64})", HubHandler.put_object),
    (
        ("GET", "HEAD"),
        rf"/(?P<kind>datasets/|spaces/)?{NAME}/resolve/{REVISION}/(?P<path>.+)",
        HubHandler.resolve,
    ),
)
