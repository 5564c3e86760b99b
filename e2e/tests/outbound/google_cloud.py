"""The unmodified SDK of Google Cloud, with nothing but the container's environment and files, against a server of this process, for which serving.py stands before it."""

import os
import urllib.parse

import google.auth
import google.auth.transport.requests

seen = []


class Google(JsonHandler):
    def do_GET(self):
        seen.append({"path": self.path, "authorization": self.headers.get("authorization")})
        self.answer({"items": []})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        seen.append({"path": self.path, "form": dict(urllib.parse.parse_qsl(body))})
        self.answer(
            {
                "access_token": "short-lived",
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "token_type": "Bearer",
                "expires_in": 3600,
            }
        )


url = serve(Google)
# The exchange's own address would be elsewhere.
path = os.environ["GOOGLE_APPLICATION_CREDENTIALS"]
with open(path) as file:
    configuration = json.load(file)
configuration["token_url"] = url + urllib.parse.urlsplit(configuration["token_url"]).path
with open(path, "w") as file:
    json.dump(configuration, file)

credentials, project = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
session = google.auth.transport.requests.AuthorizedSession(credentials)
session.get(f"{url}/storage/v1/b", timeout=60).raise_for_status()
exchange, call = seen
print(json.dumps({"project": project, "exchange": exchange, "call": call}))
