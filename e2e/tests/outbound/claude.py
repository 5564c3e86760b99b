"""The unmodified SDK of the Claude API, with nothing but the container's environment, against a server of this process, for which serving.py stands before it."""

import anthropic

seen = []


class Api(JsonHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        seen.append({"path": self.path, "authorization": self.headers.get("authorization"), "body": body})
        if self.path == "/v1/oauth/token":
            answer = {"access_token": "short-lived", "token_type": "Bearer", "expires_in": 3600}
        else:
            answer = {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "m",
                "content": [{"type": "text", "text": "hello"}],
                "stop_reason": "end_turn",
                "stop_sequence": None,
                "usage": {"input_tokens": 1, "output_tokens": 1},
            }
        self.answer(answer)


client = anthropic.Anthropic(base_url=serve(Api), timeout=60, max_retries=0)
message = client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "hi"}])
exchange, call = seen
print(
    json.dumps(
        {
            "text": message.content[0].text,
            "grant_type": exchange["body"].get("grant_type"),
            "assertion": exchange["body"].get("assertion"),
            "rule": exchange["body"].get("federation_rule_id"),
            "path": exchange["path"],
            "authorization": call["authorization"],
        }
    )
)
