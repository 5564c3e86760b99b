"""The unmodified SDK of OpenAI, told of the token's file by a variable of the container, against a server of this process, for which serving.py stands before it."""

import os

import openai
import openai.auth

seen = []


class Api(JsonHandler):
    def do_GET(self):
        seen.append({"path": self.path, "authorization": self.headers.get("authorization")})
        self.answer({"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "shop"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        seen.append({"path": self.path, "body": body})
        self.answer({"access_token": "short-lived", "token_type": "Bearer", "expires_in": 3600})


url = serve(Api)
client = openai.OpenAI(
    base_url=url,
    timeout=60,
    max_retries=0,
    workload_identity={
        "identity_provider_id": os.environ["OPENAI_IDENTITY_PROVIDER_ID"],
        "service_account_id": os.environ["OPENAI_SERVICE_ACCOUNT_ID"],
        "provider": openai.auth.k8s_service_account_token_provider(os.environ["OPENAI_TOKEN_FILE"]),
    },
)
# The exchange's own address would be elsewhere, and no argument names another.
client._workload_identity_auth.token_exchange_url = f"{url}/oauth/token"
models = [model.id for model in client.models.list()]
exchange, call = seen
print(json.dumps({"models": models, "exchange": exchange, "call": call}))
