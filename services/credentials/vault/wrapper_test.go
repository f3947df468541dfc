package vault

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestNamesOfKeyEncryptionKeys(t *testing.T) {
	here, err := filepath.Abs("some.key")
	if err != nil {
		t.Fatal(err)
	}
	notCA := filepath.Join(t.TempDir(), "ca.pem")
	writeFile(t, notCA, []byte("no certificate"))
	for key, c := range map[string]struct{ name, says string }{
		"file:/k/a.key": {"file:/k/a.key", ""},
		"file:some.key": {"file:" + here, ""},
		"transit:https://bao.example:8200/transit/chandler?token-file=/t&namespace=ops": {"transit:https://bao.example:8200/transit/chandler", ""},
		"transit:http://127.0.0.1:8200/v1/a/b/chandler?token-file=/t":                   {"transit:http://127.0.0.1:8200/a/b/chandler", ""},
		"transit:http://[::1]:8200/transit/chandler?token-file=/t":                      {"transit:http://[::1]:8200/transit/chandler", ""},
		"command:/usr/local/sbin/wrap":                                                  {"command:/usr/local/sbin/wrap", ""},
		"":                                                                              {"", "file:PATH"},
		"file:":                                                                         {"", "file:PATH"},
		"/k/a.key":                                                                      {"", "file:PATH"},
		"pkcs11:token":                                                                  {"", `"pkcs11"`},
		"file:" + strings.Repeat("a", maxName):                                          {"", "longer than"},
		"command:wrap":                                                                  {"", "from the root"},
		"transit:http://bao.example:8200/transit/chandler?token-file=/t":                 {"", "https://"},
		"transit:http://127.0.0.1.example/transit/chandler?token-file=/t":                {"", "https://"},
		"transit:ftp://127.0.0.1/transit/chandler?token-file=/t":                         {"", "https://"},
		"transit:https://user:" + secret + "@bao.example/transit/chandler?token-file=/t": {"", "must not name a user"},
		"transit:https:///transit/chandler?token-file=/t":                                {"", "HOST:PORT"},
		"transit:https://bao.example/chandler?token-file=/t":                             {"", "/MOUNT/KEY"},
		"transit:https://bao.example/v1/chandler?token-file=/t":                          {"", "/MOUNT/KEY"},
		"transit:https://bao.example/transit/../sys/chandler?token-file=/t":              {"", "/MOUNT/KEY"},
		"transit:https://bao.example/transit//chandler?token-file=/t":                    {"", "/MOUNT/KEY"},
		"transit:https://bao.example/transit/chandler/?token-file=/t":                    {"", "/MOUNT/KEY"},
		"transit:https://bao.example/transit/chandler%2f..%3fx?token-file=/t":            {"", "/MOUNT/KEY"},
		"transit:https://bao.example/transit/chandler":                                   {"", "token-file"},
		"transit:https://bao.example/transit/chandler?token-file=t":                      {"", "from the root"},
		"transit:https://bao.example/transit/chandler?token=" + secret:                   {"", `"token"`},
		"transit:https://bao.example/transit/chandler?token-file=/t&token-file=/u":       {"", "each once"},
		"transit:https://bao.example/transit/chandler?token-file=/t&namespace=a%0ab":     {"", "control characters"},
		"transit:https://bao.example/transit/chandler?token-file=/t&ca=/nowhere/at/all":  {"", "authority"},
		"transit:https://bao.example/transit/chandler?token-file=/t&ca=" + notCA:         {"", "has no certificate"},
		"transit:https://bao.example/transit/chandler?token-file=/t;ca=/x":               {"", "options"},
		"transit:%zz": {"", "no URL"},
	} {
		t.Run(key[:min(len(key), 80)], func(t *testing.T) {
			w, err := Parse(key)
			switch {
			case c.says == "" && (err != nil || w.Name() != c.name):
				t.Errorf("%+v, %v", w, err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), secret)):
				t.Errorf("error %v, want %q", err, c.says)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"file:/k", "transit:https://h/m/k?token-file=/t", "transit:http://[::1]/a/b/c?token-file=/t&namespace=n", "command:/bin/x", "transit:https://u:p@h/m/k", "::"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if strings.Contains(key, "ca=") {
			t.Skip("that reads a file")
		}
		w, err := Parse(key)
		if err != nil {
			return
		}
		if kindOf(w.Name()) != kindOf(key) || len(w.Name()) == len(kindOf(key))+1 {
			t.Errorf("%q is called %q", key, w.Name())
		}
		if tr, ok := w.(*transit); ok && (tr.base.User != nil || strings.Contains("/"+tr.mount+"/"+tr.key+"/", "/../")) {
			t.Errorf("%q was accepted", key)
		}
	})
}
