// Checks a token that a pod shows: issuer, signature, audience and lifetime. It needs nothing but Go's standard library.
//
//	go run . --issuer https://tokens.example.com/cluster-1 --audience https://api.example.com --jwks keys.json < token
//
// prints the claims, or says why the token is refused and ends with status 1. keys.json is what the issuer publishes as its jwks_uri:
// a service fetches it over TLS, keeps it for some minutes, and asks again for a key that it does not know.
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"os"
	"strings"
	"time"
)

const (
	mostTokenBytes = 20_000
	mostLifetime   = 24 * time.Hour
	leeway         = 30 * time.Second
)

type key struct {
	ID, Kty, Alg, Crv, N, E, X, Y string
}

func (k *key) UnmarshalJSON(text []byte) error {
	members := map[string]any{}
	if err := json.Unmarshal(text, &members); err != nil {
		return err
	}
	get := func(name string) string { value, _ := members[name].(string); return value }
	*k = key{get("kid"), get("kty"), get("alg"), get("crv"), get("n"), get("e"), get("x"), get("y")}
	return nil
}

type keySet struct {
	Keys []key `json:"keys"`
}

// audiences is one text or a list of them (RFC 7519, 4.1.3).
type audiences []string

func (a *audiences) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(a))
}

type claims struct {
	Issuer    string    `json:"iss"`
	Subject   string    `json:"sub"`
	Audiences audiences `json:"aud"`
	Expires   int64     `json:"exp"`
	Issued    int64     `json:"iat"`
	NotBefore int64     `json:"nbf"`
}

// verify gives the claims of a token for audience. keysByIssuer has the keys of each issuer that is trusted.
func verify(token, audience string, keysByIssuer map[string]keySet, now time.Time) (*claims, error) {
	parts := strings.Split(token, ".")
	if len(token) > mostTokenBytes || len(parts) != 3 {
		return nil, errors.New("it is no token")
	}
	var header struct {
		Alg string `json:"alg"`
		Kid string `json:"kid"`
	}
	var found claims
	// Only to choose the key: nothing is believed before the signature was checked with it.
	if decode(parts[0], &header) != nil || decode(parts[1], &found) != nil {
		return nil, errors.New("it is no token")
	}
	keys, trusted := keysByIssuer[found.Issuer]
	if !trusted {
		return nil, errors.New("the issuer is not trusted")
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return nil, errors.New("it is no token")
	}
	known := false
	for _, key := range keys.Keys {
		if key.ID != "" && key.ID == header.Kid {
			known = key.verifies(header.Alg, []byte(parts[0]+"."+parts[1]), signature)
			break
		}
	}
	if !known {
		return nil, errors.New("the signature is not of a key of the issuer")
	}
	for _, own := range found.Audiences {
		if own == audience {
			return &found, found.inTime(now)
		}
	}
	return nil, errors.New("the token is for another audience")
}

func (c *claims) inTime(now time.Time) error {
	expires, issued, begins := time.Unix(c.Expires, 0), time.Unix(c.Issued, 0), time.Unix(c.NotBefore, 0)
	switch {
	case c.Subject == "" || c.Issued == 0:
		return errors.New("the token has no sub or no iat")
	case !now.Before(expires.Add(leeway)):
		return errors.New("the token has expired")
	case now.Add(leeway).Before(begins) || now.Add(leeway).Before(issued):
		return errors.New("the token is not valid yet")
	case expires.Sub(issued) > mostLifetime:
		return errors.New("the token is valid for more than a day")
	}
	return nil
}

// verifies says whether a signature is of this key. The key says which algorithm it is for, never the token alone.
func (k key) verifies(algorithm string, message, signature []byte) bool {
	if k.Alg != "" && k.Alg != algorithm {
		return false
	}
	sum256, sum384 := sha256.Sum256(message), sha512.Sum384(message)
	switch {
	case algorithm == "RS256" && k.Kty == "RSA":
		exponent := number(k.E)
		if !exponent.IsInt64() || number(k.N).BitLen() < 2048 {
			return false
		}
		public := rsa.PublicKey{N: number(k.N), E: int(exponent.Int64())}
		return rsa.VerifyPKCS1v15(&public, crypto.SHA256, sum256[:], signature) == nil
	case algorithm == "ES256" && k.Crv == "P-256":
		return k.onCurve(elliptic.P256(), sum256[:], signature)
	case algorithm == "ES384" && k.Crv == "P-384":
		return k.onCurve(elliptic.P384(), sum384[:], signature)
	}
	return false
}

func (k key) onCurve(curve elliptic.Curve, sum, signature []byte) bool {
	half := (curve.Params().BitSize + 7) / 8
	if len(signature) != 2*half {
		return false
	}
	public := ecdsa.PublicKey{Curve: curve, X: number(k.X), Y: number(k.Y)}
	r, s := new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])
	return ecdsa.Verify(&public, sum, r, s)
}

func number(text string) *big.Int {
	bytes, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return new(big.Int)
	}
	return new(big.Int).SetBytes(bytes)
}

func decode(part string, into any) error {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

func run() error {
	issuer := flag.String("issuer", "", "the issuer that is trusted")
	audience := flag.String("audience", "", "whom the token must be for")
	jwks := flag.String("jwks", "", "a file with the issuer's keys")
	flag.Parse()
	text, err := os.ReadFile(*jwks)
	if err != nil {
		return err
	}
	var keys keySet
	if err := json.Unmarshal(text, &keys); err != nil {
		return err
	}
	token, err := io.ReadAll(io.LimitReader(os.Stdin, mostTokenBytes+2))
	if err != nil {
		return err
	}
	found, err := verify(strings.TrimSpace(string(token)), *audience, map[string]keySet{*issuer: keys}, time.Now())
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"iss": found.Issuer, "sub": found.Subject, "exp": found.Expires})
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
