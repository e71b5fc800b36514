"""A Hugging Face Hub on this machine: files of one repository over HTTP, answered as the real one does."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """The files of owner/repo, by name; `damage` changes what is sent, but not the hash that is announced."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.damage = False
        self.downloads: list[str] = []


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            _, _, name = self.path.partition("/resolve/")
            revision, _, name = name.partition("/")
            body = hub.files.get(name) if self.path.startswith("/owner/repo/resolve/") else None
            if body is None or revision not in ("main", COMMIT):
                self.send_response(404)
                self.send_header(
                    "X-Error-Code", "EntryNotFound" if revision in ("main", COMMIT) else "RevisionNotFound"
                )
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                hub.downloads.append(name)
                self.wfile.write(bytes(len(body)) if hub.damage else body)

        def log_message(self, *arguments: object) -> None:
            """Stay silent."""

    return Handler


@contextmanager
def serve() -> Iterator[tuple[FakeHub, str]]:
    """(the hub, its address) while the block runs."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
