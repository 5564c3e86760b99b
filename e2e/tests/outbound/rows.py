"""The unmodified command line client of Snowflake, with nothing but the container's environment, against a server of this process, for which serving.py stands before it."""

import gzip
import os
import subprocess
import sys

seen = []
COLUMN = {
    "name": "A",
    "type": "fixed",
    "nullable": False,
    **dict.fromkeys(["scale", "precision", "length", "byteLength", "database", "schema", "table"]),
}


class Snowflake(JsonHandler):
    def do_POST(self):
        body = json.loads(gzip.decompress(self.rfile.read(int(self.headers["content-length"]))))
        url = self.path.split("?")[0]
        seen.append({"url": url, "authorization": self.headers.get("authorization"), "body": body})
        if url.endswith("/login-request"):
            data = {"token": "short-lived", "masterToken": "m", "sessionInfo": {}}
        else:
            data = {"queryId": "q", "queryResultFormat": "json", "rowtype": [COLUMN], "rowset": [["7"]], "total": 1, "returned": 1}
        self.answer({"success": True, "code": None, "message": None, "data": {"parameters": [], **data}})


# The client shows its token to addresses of Snowflake alone. This server is the proxy on the way there, and nothing leaves the machine.
proxy = serve(Snowflake)
environment = {
    **os.environ,
    "HTTP_PROXY": proxy,
    "HTTPS_PROXY": proxy,
    "SNOWFLAKE_PROTOCOL": "http",
    "SNOWFLAKE_PORT": "80",
    "SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true",
    "SNOWFLAKE_CLI_IGNORE_NEW_VERSION_WARNING": "true",
}
client = [sys.executable, "-m", "snowflake.cli._app", "sql", "--temporary-connection", "--format", "json"]
said = subprocess.run([*client, "--query", "select 7 as a"], env=environment, capture_output=True, text=True, timeout=300)
if said.returncode != 0:
    sys.exit(f"{said.stdout}\n{said.stderr}")
login, query = seen[:2]
names = ["ACCOUNT_NAME", "AUTHENTICATOR", "PROVIDER", "TOKEN"]
print(
    json.dumps(
        {
            "rows": json.loads(said.stdout),
            "url": login["url"],
            "login": {name: login["body"]["data"].get(name) for name in names},
            "query": query["body"]["sqlText"],
            "authorization": query["authorization"],
        }
    )
)
