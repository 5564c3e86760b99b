"""A server of this process that answers with JSON, for the unmodified SDK that follows."""

import http.server
import json
import ssl
import threading


class JsonHandler(http.server.BaseHTTPRequestHandler):
    def answer(self, value, status=200):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def serve(handler, identity=None):
    """Its URL. With `identity`, a file with a certificate and its key, it is served over TLS."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if identity:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    scheme = "https" if identity else "http"
    return f"{scheme}://127.0.0.1:{server.server_port}"
