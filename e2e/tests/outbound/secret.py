"""The unmodified client of Vault for Python, told of the token's file by a variable of the container, against a server of this process, for which serving.py stands before it.

Standard input has the issuer with its keys, and the roles of the JWT auth method, each with its `bound_audiences` and `bound_subject`."""

import os
import sys

import hvac
import hvac.exceptions
import verify

given = json.load(sys.stdin)
seen = []


class Vault(JsonHandler):
    def do_GET(self):
        seen.append({"path": self.path, "token": self.headers.get("x-vault-token")})
        self.answer({"data": {"data": {"password": "7"}, "metadata": {}}})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        seen.append({"path": self.path, "body": body})
        role = given["roles"][body["role"]]
        try:
            claims = verify.verify(body["jwt"], role["bound_audiences"], {given["issuer"]: given["keys"]})
            if claims["sub"] != role["bound_subject"]:
                raise verify.Refused("the subject is not the bound one")
        except verify.Refused as refused:
            return self.answer({"errors": [str(refused)]}, 400)
        self.answer({"auth": {"client_token": "short-lived", "lease_duration": 3600, "renewable": True}})


def read(role, file):
    """A secret, or why there is none."""
    client = hvac.Client()
    try:
        with open(file) as token:
            client.auth.jwt.jwt_login(role, token.read())
    except hvac.exceptions.InvalidRequest as error:
        return str(error)
    return client.secrets.kv.v2.read_secret_version("orders", raise_on_deleted_version=True)["data"]["data"]


# Vault's own address would be elsewhere.
os.environ["VAULT_ADDR"] = serve(Vault)
own = os.environ["VAULT_JWT_FILE"]
secret = read("orders", own)
login, call = seen
refused = {"role": read("admins", own), "token": read("orders", os.environ["OTHER_TOKEN_FILE"])}
print(json.dumps({"secret": secret, "login": login, "call": call, "refused": refused}))
