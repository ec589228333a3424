"""A server of one file on 127.0.0.1."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class FileServer(http.server.ThreadingHTTPServer):
    """`sent`: what it answers under the file's name. `n_served`: how often it did."""

    def __init__(self, content: bytes, name: str) -> None:
        server, self.sent, self.name, self.n_served = self, content, name, 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = self.path == f"/{server.name}"
                self.send_response(200 if found else 404)
                self.send_header("Content-Length", str(len(server.sent) if found else 0))
                self.end_headers()
                server.n_served += found
                self.wfile.write(server.sent if found else b"")

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        super().__init__(("127.0.0.1", 0), Handler)
        self.folder_url = f"http://127.0.0.1:{self.server_port}"
        self.url = f"{self.folder_url}/{name}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


@contextmanager
def serving(content: bytes, name: str) -> Iterator[FileServer]:
    """A server until the end of the block."""
    server = FileServer(content, name)
    yield server
    server.shutdown()
    server.server_close()
