"""moto's S3 server, one request at a time, until its standard input ends.

python tests/s3_server.py

moto answers each request in a thread of its own and locks nothing: a put looks whether the key is
free and writes some steps later, so two of `If-None-Match: *` can both win, and an object can be
read while the digest of it moves its read position. No store that keeps its word does so, and what
the sinks promise rests on that word.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import run_simple
from werkzeug.test import run_wsgi_app
from werkzeug.wsgi import get_input_stream

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class OneAtATime:
    """A WSGI application whose requests wait for each other, from the whole body on."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # A client that stops in the middle of its body must not stop the others.
        environ["wsgi.input"] = io.BytesIO(get_input_stream(environ).read())
        environ["wsgi.input_terminated"] = True
        with self._lock:
            body, status, headers = run_wsgi_app(self._application, environ, buffered=True)
        start_response(status, headers.to_wsgi_list())
        return body


def s3_application() -> OneAtATime:
    """moto, keeping the promise of put-if-absent."""
    return OneAtATime(DomainDispatcherApplication(create_backend_app))


def main() -> None:
    # Its standard input ends when whoever runs the tests does, however that ends: no server is
    # left.
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    run_simple("127.0.0.1", 0, s3_application(), threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    main()
