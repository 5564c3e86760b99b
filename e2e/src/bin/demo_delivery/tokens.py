"""What the pod of the fourth act runs: it asks the sidecar as a program does that was written for Aporeto's enforcer. It prints no token."""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request

ADDRESS = "http://127.0.0.1:9912/token?"


def ask(name, headers, **parameters):
    request = urllib.request.Request(ADDRESS + urllib.parse.urlencode({"type": "OAUTH", **parameters}), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            part = answer.read().decode().split(".")[1]
    except urllib.error.HTTPError as error:
        print(f"{name}: {error.code} {json.loads(error.read())['Code']}")
        return
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    minutes = round((claims["exp"] - claims["iat"]) / 60)
    print(f"{name}: 200 {minutes} minutes, iss {claims['iss']}, aud {claims['aud']}, sub {claims['sub']}")


SECRETS = {"X-Aporeto-Metadata": "secrets"}
STS = "sts.amazonaws.com"
ask("as the walkthrough has it", SECRETS, audience=STS, validity="10m")
ask("without the header", {}, audience=STS, validity="10m")
ask("an audience that no policy grants", SECRETS, audience="elsewhere.example", validity="10m")
ask("too short a validity", SECRETS, audience=STS, validity="1m")
