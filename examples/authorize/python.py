"""Who may connect? Pipeward asks here at each handshake and refresh; docs/authorization.md has the whole contract.

PIPEWARD_SECRET=… python3 examples/authorize/python.py
"""
import hashlib
import hmac
import json
import os
import re
import time
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ["PIPEWARD_SECRET"].encode()

# Your session store.
ANN = {"id": "ann", "name": "Ann", "role": "admin", "team": "red", "tenant": "acme", "features": ["chat"]}
SESSIONS = {"ann-session": {"id": "s-1", "user": ANN}}


def authorize(call):
    """The part that is yours: the answer, or None to refuse."""
    cookie = SimpleCookie(call["headers"].get("cookie", "")).get("session")
    session = SESSIONS.get(cookie.value) if cookie else None
    if session is None:
        return None
    return {
        "user": session["user"],
        "pipes": {f"user-{session['user']['id']}": {"subscribe": True}},
        "session": session["id"],
        "expires_at": int(time.time() * 1000) + 3_600_000,
    }


def is_signed(header, body):
    """Whether Pipeward said this, in the last five minutes."""
    parts = re.fullmatch(r"t=([0-9]+),v1=([0-9a-f]{64})", header or "")
    if not parts or abs(time.time() - int(parts[1])) > 300:
        return False
    own = hmac.new(SECRET, parts[1].encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(own, parts[2])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        # 400 and not 401: whoever asks is not Pipeward, or the secrets differ; the client has done nothing wrong.
        if not is_signed(self.headers.get("x-pipeward-signature"), body):
            return self.answer(400, b"")
        call = json.loads(body)
        if call.get("kind") not in ("connect", "refresh"):
            return self.answer(400, b"")
        self.answer(200, json.dumps(authorize(call)).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", 3000))), Handler)
print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
