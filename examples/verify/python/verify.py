"""Checks a token that a pod shows: issuer, signature, audience and lifetime. Needs PyJWT with cryptography.

    python verify.py --issuer https://tokens.example.com/cluster-1 --audience https://api.example.com < token

prints the claims, or says why the token is refused and ends with status 1. With --jwks FILE the keys come from a file and not from
the issuer, for issuers that can't be reached.
"""

import argparse
import json
import ssl
import sys
import urllib.request

import jwt

ALGORITHMS = ["RS256", "ES256", "ES384"]
MOST_TOKEN_BYTES = 20_000
MOST_DOCUMENT_BYTES = 1 << 20
MOST_LIFETIME = 86_400
LEEWAY = 30
TIMEOUT = 5


class Refused(Exception):
    """The token proves nothing. The text says why, and never contains the token."""


def over_tls(url):
    """The address, if what comes from there is the issuer's and nobody else's."""
    if not url.startswith("https://"):
        raise Refused("the issuer's documents must come over https")
    return url


class OverTls(urllib.request.HTTPRedirectHandler):
    """Follows an issuer to addresses with TLS alone."""

    def redirect_request(self, request, file, code, message, headers, url):
        return super().redirect_request(request, file, code, message, headers, over_tls(url))


def fetch(url, context):
    """A JSON document of the issuer, over TLS, of a bounded size. Each wait for the issuer has a bound."""
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), OverTls)
    with opener.open(over_tls(url), timeout=TIMEOUT) as answer:
        text = answer.read(MOST_DOCUMENT_BYTES + 1)
    if len(text) > MOST_DOCUMENT_BYTES:
        raise Refused("the issuer's document is too large")
    return json.loads(text)


def keys_of(issuer, context=None):
    """The keys that an issuer publishes (OpenID Connect Discovery 1.0). Keep them for some minutes; ask again for an unknown kid."""
    context = context or ssl.create_default_context()
    document = fetch(issuer.rstrip("/") + "/.well-known/openid-configuration", context)
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        raise Refused("the discovery document is of another issuer")
    return fetch(str(document.get("jwks_uri")), context)


def verify(token, audience, keys_by_issuer):
    """The claims of a token for `audience`. `keys_by_issuer` has the keys (a JWK Set) of each issuer that is trusted."""
    if len(token) > MOST_TOKEN_BYTES:
        raise Refused("the token is too long")
    try:
        header = jwt.get_unverified_header(token)
        # Only to choose the keys: nothing is believed before the signature was checked with them.
        issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
        keys = keys_by_issuer.get(issuer) if isinstance(issuer, str) else None
        if keys is None:
            raise Refused("the issuer is not trusted")
        if header.get("alg") not in ALGORITHMS:
            raise Refused("the algorithm is not allowed")
        known = jwt.PyJWKSet.from_dict(keys).keys
        key = next((key for key in known if key.key_id is not None and key.key_id == header.get("kid")), None)
        if key is None:
            raise Refused("the issuer has no such key")
        claims = jwt.decode(
            token,
            key=key,
            algorithms=ALGORITHMS,
            audience=audience,
            issuer=issuer,
            leeway=LEEWAY,
            options={"require": ["iss", "sub", "aud", "exp", "iat"]},
        )
    except jwt.PyJWTError as error:
        raise Refused(f"the token is refused: {error}") from None
    if claims["exp"] - claims["iat"] > MOST_LIFETIME:
        raise Refused("the token is valid for more than a day")
    return claims


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--issuer", required=True)
    arguments.add_argument("--audience", required=True)
    arguments.add_argument("--jwks")
    given = arguments.parse_args()
    try:
        if given.jwks:
            with open(given.jwks, encoding="utf-8") as file:
                keys = json.load(file)
        else:
            keys = keys_of(given.issuer)
        claims = verify(sys.stdin.read().strip(), given.audience, {given.issuer: keys})
    except (Refused, OSError, ValueError) as error:
        sys.exit(str(error))
    print(json.dumps(claims))


if __name__ == "__main__":
    main()
