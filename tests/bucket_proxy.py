"""A proxy between a client and the server of a bucket: it fails on demand."""

import collections
import contextlib
import http.client
import http.server
import math
import random
import socket
import threading
import time

import bucket_servers

# What may happen to a request. "dropped": the connection ends. "lost": it ends
# when the server has done what is asked. "cut": it ends within the answer.
FAILURES = (429, 500, 503, "dropped", "lost", "cut")
_CHUNK = 1 << 18  # Bytes of a body that are let through at a time.
_LAG = 0.1  # Seconds that a late chunk may catch up.
_HOUR = 3600
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Proxy:
  """Passes requests on to a server.

  Attributes:
    url: URL of the proxy.
    share: Share of the requests that fail.
    failures: What may happen to these.
    delay: Seconds that each request waits.
    rate: Bytes a second that all clients together may send.
    counts: How often each failure happened.
    sent: Bytes that clients have sent in each second of `time.time()`.
  """

  def __init__(self, seed=0):
    self.url = bucket_servers.free_url()
    self.server_url = ""
    self.share, self.failures, self.delay = 0.0, FAILURES, 0.0
    self._passes = 0
    self.rate, self._free = math.inf, 0.0
    self.counts, self.sent = collections.Counter(), collections.Counter()
    self._random, self._lock = random.Random(seed), threading.Lock()
    self._server, self._sockets = None, set()

  def draw(self):
    """Returns what happens to the next request; None if it succeeds."""
    with self._lock:
      self._passes -= 1
      if self._passes >= 0 or self._random.random() >= self.share:
        return None
      failure = self._random.choice(self.failures)
      self.counts[failure] += 1
      return failure

  def take(self, size):
    """Waits until a number of bytes may go through."""
    with self._lock:
      start = max(time.monotonic() - _LAG, self._free)
      end = self._free = start + size / self.rate
    time.sleep(max(end - time.monotonic(), 0))
    with self._lock:
      self.sent[int(time.time())] += size

  def open(self):
    """Accepts connections."""
    port = int(self.url.rpartition(":")[2])
    handler = type("Handler", (_Handler,), {"proxy": self})
    self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=self._server.serve_forever, daemon=True).start()

  def close(self):
    """Ends all connections and refuses new ones, as a dead server does."""
    self._server.shutdown()
    self._server.server_close()
    for connection in list(self._sockets):
      _reset(connection)

  @contextlib.contextmanager
  def failing(self, failure, passes=0):
    """Fails all requests until the end.

    Args:
      failure: A status; one of FAILURES; `silent`, which never answers; or
        `closed`, which refuses all connections.
      passes: Number of requests that succeed before, unless it is `closed`.
    """
    before = self.share, self.failures
    if failure == "closed":
      self.close()
    else:
      self.share, self.failures, self._passes = 1.0, (failure,), passes
    try:
      yield
    finally:
      self.share, self.failures = before
      if failure == "closed":
        self.open()

  def __enter__(self):
    self.open()
    return self

  def __exit__(self, *_):
    self.close()


def _reset(connection):
  with contextlib.suppress(OSError):
    connection.shutdown(socket.SHUT_RDWR)


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"
  proxy: Proxy

  def setup(self):
    super().setup()
    self.proxy._sockets.add(self.connection)

  def finish(self):
    self.proxy._sockets.discard(self.connection)
    super().finish()

  def handle(self):
    with contextlib.suppress(OSError):  # Either side may end a connection.
      super().handle()

  def log_message(self, *_):
    pass

  def pass_on(self):
    body = self._body()
    time.sleep(self.proxy.delay)
    failure = self.proxy.draw()
    if isinstance(failure, int):
      self._answer(failure, [], b"This is a failure of the test.")
    elif failure == "dropped":
      self._drop()
    elif failure == "silent":
      time.sleep(_HOUR)
    else:
      status, headers, content = self._ask(body)
      if failure == "lost":
        self._drop()
      else:
        self._answer(status, headers, content, failure == "cut")

  do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = pass_on

  def _body(self):
    if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
      parts = []
      while size := int(self.rfile.readline().split(b";")[0], 16):
        parts.append(self._read(size))
        self.rfile.readline()
      while self.rfile.readline().strip():
        pass
      return b"".join(parts)
    size = int(self.headers.get("Content-Length", 0))
    return self._read(size)

  def _read(self, size):
    parts = []
    while size:
      parts.append(self.rfile.read(min(size, _CHUNK)))
      if not parts[-1]:
        raise ConnectionError("the client has gone")
      self.proxy.take(len(parts[-1]))
      size -= len(parts[-1])
    return b"".join(parts)

  def _ask(self, body):
    place = self.proxy.server_url.removeprefix("http://")
    connection = http.client.HTTPConnection(place, timeout=60)
    headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
    headers.pop("Expect", None)
    connection.request(self.command, self.path, body, headers)
    answer = connection.getresponse()
    try:
      return answer.status, answer.getheaders(), answer.read()
    finally:
      connection.close()

  def _answer(self, status, headers, content, cut=False):
    size = len(content)
    self.send_response_only(status)
    for name, value in headers:
      if self.command == "HEAD" and name.lower() == "content-length":
        size = int(value)
      elif name.lower() not in _HOP:
        self.send_header(name, value)
    self.send_header("Content-Length", str(size))
    self.end_headers()
    if self.command != "HEAD":
      self.wfile.write(content[: size // 2] if cut else content)
    if cut:
      self._drop()

  def _drop(self):
    self.wfile.flush()
    self.close_connection = True
    _reset(self.connection)
