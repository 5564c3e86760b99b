"""The unmodified SDK of Azure, with nothing but the container's environment, against a token endpoint of this process, for which serving.py stands before it.

Standard input says whom the endpoint trusts, as the federated identity credentials of an application do: the audience, and issuers with
their keys and one subject each. It also names files with further tokens, which the SDK is given in the place of the container's."""

import os
import sys
import urllib.parse

import azure.core.exceptions
import azure.identity
import jwt
import verify

given = json.load(sys.stdin)
seen = []


def judge(token):
    """Refuses a token that the application doesn't trust."""
    claims = verify.verify(token, given["audience"], {one["issuer"]: one["keys"] for one in given["trusted"]})
    if jwt.get_unverified_header(token)["alg"] != "RS256":
        raise verify.Refused("the token is not signed with RS256")
    if not any((one["issuer"], one["subject"]) == (claims["iss"], claims["sub"]) for one in given["trusted"]):
        raise verify.Refused("the subject is not trusted")


class Entra(JsonHandler):
    def do_GET(self):
        seen.append({"path": self.path})
        self.send_error(404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        form = dict(urllib.parse.parse_qsl(body))
        seen.append({"path": self.path, "form": form})
        try:
            judge(form["client_assertion"])
        except verify.Refused as refused:
            return self.answer({"error": "invalid_client", "error_description": str(refused)}, 401)
        self.answer({"access_token": "short-lived", "token_type": "Bearer", "expires_in": 3600})


def asked():
    """What the SDK gets, or why it gets nothing. A new credential has nothing in memory."""
    try:
        credential = azure.identity.DefaultAzureCredential()
        return {"access_token": credential.get_token("https://storage.azure.com/.default").token}
    except azure.core.exceptions.ClientAuthenticationError as error:
        return {"refused": error.message}


# The token endpoint's own address would be elsewhere.
os.environ["AZURE_AUTHORITY_HOST"] = serve(Entra, given["identity"])
own = {**asked(), "requests": list(seen)}
others = {}
for what, file in given["files"].items():
    os.environ["AZURE_FEDERATED_TOKEN_FILE"] = file
    others[what] = asked()
print(json.dumps({"own": own, "others": others}))
