package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"chandler/events"
	"chandler/services/credentials/vault"
)

const accountSecret = "Pl4nted-s3cret-77b0-do-not-leak"

// keepAccount sets an account, by which is seen whether its secret can still be read.
func (f *realFleet) keepAccount(t *testing.T) {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	overwrite(t, secret, accountSecret)
	f.run(t, "account", "set", "corp-reader", "--kind", "network-access", "--user", `EXAMPLE\reader`, "--resource", "smb://files.example/software", "--secret-file", secret)
}

func (f *realFleet) restart(t *testing.T, keys keyEncryption) {
	t.Helper()
	f.stop(t)
	f.options.KeyEncryption = keys
	f.start(t)
}

// well waits until every service is, credentials if it can open every account's secret.
func (f *realFleet) well(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(readyTime)
	for status, says := health(t, f.server); status != http.StatusOK; status, says = health(t, f.server) {
		if time.Now().After(deadline) || !pause(t.Context(), 10*time.Millisecond) {
			t.Fatalf("status %d: %s", status, says)
		}
	}
}

func TestDoctorSaysHowTheKeysetOfAccountsIsKept(t *testing.T) {
	f := newRealFleet(t)
	const about = "accounts' keyset"
	look := func(state, want string) {
		t.Helper()
		if got := says(f.examine(t), about, state); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("it says %v, want %q", got, want)
		}
	}
	look(stateOK, "file:"+f.at.accountsKey())

	key := f.at.accountsKey()
	if runtime.GOOS != "windows" {
		if err := os.Chmod(key, 0o644); err != nil {
			t.Fatal(err)
		}
		if got := says(f.examine(t), "file", stateProblem); len(got) != 1 || !strings.Contains(got[0], key+" can be read by others") {
			t.Errorf("it says %v", got)
		}
		if err := os.Chmod(key, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	look(stateProblem, "put the key back")
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}

	inside := "file:" + filepath.Join(f.at.data, "beside", "accounts.key")
	f.restart(t, keyEncryption{current: inside, former: "file:" + key})
	look(stateWarning, "one copy of "+f.at.data+" holds both")
	clearKeyset := filepath.Join(f.at.keys(), "accounts.keyset.json")
	overwrite(t, clearKeyset, "{}")
	look(stateWarning, "in the clear")
	if err := os.Remove(clearKeyset); err != nil {
		t.Fatal(err)
	}
	overwrite(t, filepath.Join(f.at.keys(), vault.File), "{}")
	look(stateProblem, "restore it")
}

func TestAKeyBelowALinkToTheDataDirectoryIsInIt(t *testing.T) {
	root := t.TempDir()
	data := filepath.Join(root, "data")
	key := filepath.Join(data, "deep", "accounts.key")
	overwrite(t, key, "k")
	overwrite(t, filepath.Join(root, "data-key", "accounts.key"), "k")
	link := filepath.Join(root, "link")
	if err := os.Symlink(data, link); err != nil {
		t.Skip("links cannot be made here: ", err)
	}
	for name, c := range map[string]struct {
		data, key string
		together  bool
	}{
		"below":                     {data, "file:" + key, true},
		"below a link":              {link, "file:" + key, true},
		"by a link, below":          {data, "file:" + filepath.Join(link, "deep", "accounts.key"), true},
		"beside":                    {data, "file:" + filepath.Join(root, "data-key", "accounts.key"), false},
		"one that is not there yet": {data, "file:" + filepath.Join(root, "none"), false},
		"a transit engine":          {data, "transit:https://bao.example/transit/chandler", false},
		"a command":                 {data, "command:" + filepath.Join(data, "wrap"), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := keptTogether(c.data, c.key); got != c.together {
				t.Errorf("together: %v", got)
			}
		})
	}
}

func TestAStartWithTheKeyInTheDataDirectoryWarns(t *testing.T) {
	var log bytes.Buffer
	data := t.TempDir()
	overwrite(t, filepath.Join(data, "accounts.key"), "k")
	for _, c := range []struct {
		key  string
		warn bool
	}{{"file:" + filepath.Join(data, "accounts.key"), true}, {"file:" + data + "-key/accounts.key", false}} {
		log.Reset()
		a := &assembly{serverOptions: serverOptions{Data: data, Log: slog.New(slog.NewTextHandler(&log, nil))}}
		a.warnKeys(c.key)
		if warned := strings.Contains(log.String(), "who has a copy"); warned != c.warn {
			t.Errorf("%s: logged %q", c.key, log.String())
		}
	}
}

func TestRekeyingAndAChangeOfTheKeyEncryptionKeyKeepEverySecret(t *testing.T) {
	f := newRealFleet(t)
	f.keepAccount(t)
	var done events.AccountRekeyed
	if err := json.Unmarshal([]byte(f.run(t, "account", "rekey", "-o", "json")), &done); err != nil || done.Accounts != 1 || done.KeptBy != "file:"+f.at.accountsKey() {
		t.Errorf("rekeyed %+v, %v", done, err)
	}
	if said := f.run(t, "account", "rekey"); !strings.Contains(said, "1 account: encrypted by key ") || strings.Contains(said, done.Key) {
		t.Errorf("it says %s", said)
	}
	next := "file:" + filepath.Join(t.TempDir(), "next.key")
	f.restart(t, keyEncryption{current: next, former: "file:" + f.at.accountsKey()})
	f.well(t)
	if err := os.Remove(f.at.accountsKey()); err != nil {
		t.Fatal(err)
	}
	f.restart(t, keyEncryption{current: next})
	f.well(t)
	for name, text := range contents(t, f.at.data) {
		if strings.Contains(text, accountSecret) {
			t.Errorf("the secret is in %s", name)
		}
	}
}

func TestKeyEncryptionKeysThatStartNothing(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no kind":                 {[]string{"--key-encryption", "/etc/accounts.key"}, "--key-encryption: a key-encryption key is file:PATH"},
		"another kind":            {[]string{"--key-encryption", "kms:x"}, `"kms"`},
		"a former one of no kind": {[]string{"--former-key-encryption", "x"}, "--former-key-encryption"},
		"one in clear text":       {[]string{"--key-encryption", "transit:http://bao.example/transit/chandler?token-file=/t"}, "https://"},
	} {
		t.Run(name, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			args := append([]string{"up", "--data", data, "--listen", anyAddress, "--http", anyAddress, "--metrics", anyAddress}, c.args...)
			if code, _, stderr := command(t, testApp(nil), "", args...); code == 0 || !strings.Contains(stderr, c.want) {
				t.Errorf("exit code %d: %s", code, stderr)
			}
			if present(place{data}.identity()) {
				t.Error("a fleet was made of which nobody was told")
			}
		})
	}
}

func TestServeIsToldWhatEncryptsTheKeyset(t *testing.T) {
	f := newRealFleet(t)
	f.refuse(t, "--key-encryption: ", "serve", "credentials", "--server", f.server.URL, "--identity", f.at.identity(), "--data", filepath.Join(t.TempDir(), "data"),
		"--metrics-listen", anyAddress, "--key-encryption", "nothing")
	f.refuse(t, "--former-key-encryption: ", "serve", "credentials", "--server", f.server.URL, "--identity", f.at.identity(), "--data", filepath.Join(t.TempDir(), "data"),
		"--metrics-listen", anyAddress, "--former-key-encryption", "nothing")
}
