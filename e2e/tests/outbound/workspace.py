"""The unmodified SDK of Databricks, with nothing but the container's environment, against a server of this process, for which serving.py stands before it."""

import urllib.parse

import databricks.sdk

seen = []


class Workspace(JsonHandler):
    def do_GET(self):
        seen.append({"path": self.path, "authorization": self.headers.get("authorization")})
        base = f"http://127.0.0.1:{self.server.server_port}/oidc"
        if self.path == "/.well-known/databricks-config":
            return self.answer({"oidc_endpoint": base, "workspace_id": "1"})
        if self.path == "/oidc/.well-known/oauth-authorization-server":
            return self.answer({"authorization_endpoint": f"{base}/authorize", "token_endpoint": f"{base}/v1/token"})
        if self.path == "/api/2.0/preview/scim/v2/Me":
            return self.answer({"userName": "orders"})
        self.send_error(404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        seen.append({"path": self.path, "form": dict(urllib.parse.parse_qsl(body))})
        self.answer({"access_token": "short-lived", "token_type": "Bearer", "expires_in": 3600})


# The workspace's own address would be elsewhere.
client = databricks.sdk.WorkspaceClient(host=serve(Workspace))
user = client.current_user.me().user_name
form = next(request["form"] for request in seen if request["path"] == "/oidc/v1/token")
last = seen[-1]
print(json.dumps({"user": user, "form": form, "path": last["path"], "authorization": last["authorization"]}))
