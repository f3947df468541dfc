package enrolment

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"chandler/events"
)

const (
	// tokenPrefix names the form of the token, so that people and secret scanners know one.
	tokenPrefix = "chandler1."
	// Limits, in bytes.
	maxToken  = 8 << 10
	maxJWT    = 4 << 10
	maxServer = 512
	// maxServers of one token.
	maxServers = 16
)

// Token is all that a machine needs to enrol. It is a secret, though one that only lets machines ask.
type Token struct {
	Servers []string // URLs of brokers: nats, tls, ws or wss
	CA      string   // SHA-256 of the CA certificate's DER, hexadecimal; empty: none is pinned
	Root    string   // fingerprint of the root keys, hexadecimal SHA-256
	JWT     string   // bearer identity of the isolated enrolment user
	Seed    []byte   // of the token's user nkey: the secret
}

// wire is the token's JSON. It is a type of its own so that a Token never turns into JSON by accident.
type wire struct {
	Servers []string `json:"servers"`
	CA      string   `json:"ca,omitempty"`
	Root    string   `json:"root"`
	JWT     string   `json:"jwt"`
	Seed    string   `json:"seed"`
}

// Encode is the token as one string of letters, digits, ".", "-" and "_".
func (t Token) Encode() (string, error) {
	if err := t.validate(); err != nil {
		return "", fmt.Errorf("write token: %w", err)
	}
	text, err := json.Marshal(wire{t.Servers, t.CA, t.Root, t.JWT, string(t.Seed)})
	if err != nil {
		return "", fmt.Errorf("write token: %w", err)
	}
	s := tokenPrefix + base64.RawURLEncoding.EncodeToString(text)
	if len(s) > maxToken {
		return "", fmt.Errorf("write token: it takes %d bytes, more than %d: name fewer servers", len(s), maxToken)
	}
	return s, nil
}

// ParseToken reads what Encode wrote; white space around it does not matter. Errors never quote it.
func ParseToken(s string) (Token, error) {
	if len(s) > maxToken {
		return Token{}, fmt.Errorf("read token: it has %d bytes, more than %d", len(s), maxToken)
	}
	encoded, ok := strings.CutPrefix(strings.TrimSpace(s), tokenPrefix)
	if !ok {
		return Token{}, fmt.Errorf("read token: it does not begin with %q", tokenPrefix)
	}
	text, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return Token{}, errors.New("read token: it is damaged or cut off")
	}
	var w wire
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		return Token{}, errors.New("read token: it is damaged, or of a newer version than this program knows")
	}
	if _, err := d.Token(); err != io.EOF {
		return Token{}, errors.New("read token: something follows it")
	}
	t := Token{w.Servers, w.CA, w.Root, w.JWT, []byte(w.Seed)}
	if err := t.validate(); err != nil {
		return Token{}, fmt.Errorf("read token: %w", err)
	}
	return t, nil
}

func (t Token) validate() error {
	if len(t.Servers) == 0 || len(t.Servers) > maxServers {
		return fmt.Errorf("it names %d servers, not 1 to %d", len(t.Servers), maxServers)
	}
	for _, s := range t.Servers {
		if err := validServer(s); err != nil {
			return err
		}
	}
	if t.CA != "" && events.ValidDigest(t.CA) != nil {
		return errors.New("the hash of the CA certificate is not 64 lower-case hexadecimal digits")
	}
	if events.ValidDigest(t.Root) != nil {
		return errors.New("the fingerprint of the root keys is not 64 lower-case hexadecimal digits")
	}
	if !plausibleJWT(t.JWT) {
		return errors.New("the identity to enrol with is not a JWT")
	}
	_, err := PublicKey(t.Seed)
	return err
}

// validServer takes URLs that a NATS client can use and that carry no second secret. Errors do not quote
// the URL, which might.
func validServer(s string) error {
	u, err := url.Parse(s)
	if err != nil || len(s) > maxServer {
		return errors.New("a server is not a URL")
	}
	switch {
	case !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme):
		return errors.New("a server's URL is not of scheme nats, tls, ws or wss")
	case u.User != nil:
		return errors.New("a server's URL contains a user or a password")
	case u.Hostname() == "" || u.Opaque != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return errors.New("a server's URL is not scheme://host:port")
	case strings.ContainsAny(s, ", \t\r\n"): // a comma would make two servers of it
		return errors.New("a server's URL contains a comma or a space")
	}
	return nil
}

// plausibleJWT checks the form only: the broker judges the JWT.
func plausibleJWT(s string) bool {
	if len(s) > maxJWT {
		return false
	}
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return false
	}
	for _, p := range parts {
		if _, err := base64.RawURLEncoding.DecodeString(p); err != nil || p == "" || strings.ContainsAny(p, "\r\n") {
			return false
		}
	}
	return true
}

// String tells tokens apart without telling the secret: it names the token's public key.
func (t Token) String() string {
	public, err := PublicKey(t.Seed)
	if err != nil {
		public = "invalid"
	}
	return "token " + public + " (secret withheld)"
}

// Format keeps the secret out of every verb of package fmt.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// GoString is String.
func (t Token) GoString() string { return t.String() }

// MarshalJSON withholds the secret too: [Token.Encode] is the only way out.
func (t Token) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }
