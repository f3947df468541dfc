package httpssource

import (
	"crypto/tls"
	"encoding/base64"
	"net/http"
	"strings"

	"chandler/agent/source"
	"chandler/events"
)

// proof is what is sent to prove a login.
type proof struct {
	nobody      bool
	header      string // of Authorization; "": none
	certificate *tls.Certificate
}

// prove makes the proof. A secret that can be none is refused as the server would, without asking it.
func prove(login source.Login) (proof, error) {
	if login.Nobody() {
		return proof{nobody: true}, nil
	}
	switch login.Method {
	case events.ByPassword, "":
		return byPassword(login)
	case events.ByBearer:
		for _, c := range login.Secret {
			if c <= ' ' || c > '~' {
				return proof{}, unusable("the secret is no bearer token")
			}
		}
		if len(login.Secret) == 0 {
			return proof{}, unusable("the token is empty")
		}
		return proof{header: "Bearer " + string(login.Secret)}, nil
	case events.ByClientCertificate:
		// Whatever is wrong is not said: the words could quote the key.
		certificate, err := tls.X509KeyPair(login.Secret, login.Secret)
		if err != nil {
			return proof{}, unusable("the secret is no certificate with its key, both in PEM")
		}
		return proof{certificate: &certificate}, nil
	}
	return proof{}, refuse(events.SourceUnsupported, "https knows no such way to prove an account", notSupported)
}

func byPassword(login source.Login) (proof, error) {
	switch _, name := login.Domain(); {
	case name == "":
		return proof{}, unusable("there is a secret and no user")
	case strings.ContainsFunc(login.User, func(c rune) bool { return c < ' ' || c == 0x7f || c == ':' }):
		return proof{}, unusable("the user's name holds a colon or control character, which cannot be sent")
	case len(login.Secret) == 0:
		return proof{}, unusable("the secret is empty")
	}
	pair := append([]byte(login.User+":"), login.Secret...)
	defer clear(pair)
	return proof{header: "Basic " + base64.StdEncoding.EncodeToString(pair)}, nil
}

func unusable(words string) error {
	return refuse(events.CredentialRejected, words+"; it was not sent", source.LogonRefused)
}

func (p proof) put(r *http.Request) {
	if p.header != "" {
		r.Header.Set("Authorization", p.header)
	}
}
