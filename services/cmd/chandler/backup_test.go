package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"chandler/events/access"
	"chandler/services/backup"
)

// kept is a fleet on this machine that is backed up and restored.
type kept struct {
	t        *testing.T
	app      *app
	at       place
	address  string // of the broker, the same after every start
	password string // file
}

func newKept(t *testing.T) *kept {
	t.Helper()
	dir := t.TempDir()
	k := &kept{t: t, app: testApp(map[string]string{"XDG_CONFIG_HOME": filepath.Join(dir, "config")}), at: place{filepath.Join(dir, "data")}, address: "127.0.0.1:0", password: filepath.Join(dir, "password")}
	k.app.now = time.Now
	k.write(k.password, "a long passphrase\n")
	if err := os.MkdirAll(k.at.data, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := ensureIdentities(k.at, k.at.administrator()); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *kept) write(name, text string) {
	k.t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
}

// up does what the command does, until the function that it gives is called.
func (k *kept) up(at place) (stop func()) {
	k.t.Helper()
	unlock, err := lockDirectory(at.data)
	if err != nil {
		k.t.Fatal(err)
	}
	s, err := startServer(k.t.Context(), serverOptions{Data: at.data, Identity: at.identity(), Listen: k.address, HTTP: "127.0.0.1:0", Metrics: "127.0.0.1:0", Services: services(), Replicas: 1, Log: discard()})
	if err != nil {
		k.t.Fatal(err)
	}
	where, err := url.Parse(s.URL)
	if err != nil {
		k.t.Fatal(err)
	}
	k.address = where.Host
	if _, err := k.app.writeContext(s.URL, "", at, at.administrator()); err != nil {
		k.t.Fatal(err)
	}
	return func() {
		if err := s.close(); err != nil {
			k.t.Error(err)
		}
		unlock()
	}
}

func (k *kept) must(args ...string) string {
	k.t.Helper()
	code, stdout, stderr := command(k.t, k.app, "", args...)
	if code != 0 {
		k.t.Fatalf("%v: exit code %d: %s", args, code, stderr)
	}
	return stdout
}

func (k *kept) refused(says string, args ...string) {
	k.t.Helper()
	if code, _, stderr := command(k.t, k.app, "", args...); code == 0 || !strings.Contains(stderr, says) {
		k.t.Errorf("%v: exit code %d: %s; it should say %q", args, code, stderr, says)
	}
}

// below are the files of a directory with their contents, without the broker's.
func below(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		rest, _ := filepath.Rel(dir, name)
		if rest = filepath.ToSlash(rest); strings.HasPrefix(rest, "broker/") || strings.HasPrefix(rest, "listeners/") || strings.HasSuffix(rest, "lock") {
			return nil
		}
		data, err := os.ReadFile(name)
		all[rest] = string(data)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}

func TestARestoredFleetIsTheOneThatWasBackedUp(t *testing.T) {
	for name, whileUp := range map[string]bool{"while it is up": true, "while nothing runs": false} {
		t.Run(name, func(t *testing.T) {
			k := newKept(t)
			dir := filepath.Dir(k.at.data)
			stop := k.up(k.at)
			k.must("collection", "set", "laptops", "--where", `agent.hostname.startsWith("l")`)
			before, after := filepath.Join(dir, "ada.creds"), filepath.Join(dir, "eve.creds")
			k.must("user", "add", "ada", "--role", "viewer", "--out", before)
			k.must("user", "revoke", "ada")
			if !whileUp {
				stop()
			}
			file := filepath.Join(dir, "fleet.age")
			k.must("backup", file, "--data", k.at.data, "--passphrase-file", k.password)
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
				t.Fatalf("%v, %v", info, err)
			}
			if whileUp {
				k.must("collection", "set", "since", "--where", "true")
				k.must("user", "add", "eve", "--role", "viewer", "--out", after)
				k.must("user", "revoke", "eve")
				stop()
			}
			want := below(t, k.at.data)
			key := below(t, k.at.data+"-key")

			again := place{filepath.Join(dir, "again")}
			k.must("restore", "--dry-run", file, "--passphrase-file", k.password)
			if _, err := os.Stat(again.data); !errors.Is(err, fs.ErrNotExist) {
				t.Error("a dry run makes something")
			}
			k.must("restore", file, "--data", again.data, "--passphrase-file", k.password)
			got := below(t, again.data)
			for name := range want {
				if strings.HasPrefix(name, "accounts/") && whileUp {
					continue // eve was revoked since
				}
				if got[name] != want[name] {
					t.Errorf("%s is not as it was", name)
				}
			}
			if len(got) != len(want) || below(t, again.data+"-key")["accounts.key"] != key["accounts.key"] || len(key["accounts.key"]) == 0 {
				t.Errorf("%d files are there, %d were; the key of accounts is there: %t", len(got), len(want), key["accounts.key"] != "")
			}
			stop = k.up(again)
			defer stop()
			if listed := k.must("collection", "ls", "-o", "name"); strings.TrimSpace(listed) != "laptops" {
				t.Errorf("collections: %s", listed)
			}
			where := connection{Name: "x", Server: "nats://" + k.address, Credentials: before}
			if c, err := dial(where, time.Second); err == nil {
				c.bus.Conn().Close()
				t.Error("who was revoked before the backup is let in")
			}
			if where.Credentials = after; whileUp {
				c, err := dial(where, time.Second) // as deploy/disaster.md says: revoke again
				if err != nil {
					t.Fatalf("who was revoked since: %v", err)
				}
				c.bus.Conn().Close()
			}
		})
	}
}

func TestARestoreTakesNothingsPlace(t *testing.T) {
	k := newKept(t)
	stop := k.up(k.at)
	defer stop()
	dir := filepath.Dir(k.at.data)
	file := filepath.Join(dir, "fleet.age")
	k.must("backup", file, "--data", k.at.data, "--passphrase-file", k.password)
	k.refused("another chandler uses", "restore", file, "--data", k.at.data, "--passphrase-file", k.password)

	other := newKept(t)
	k.refused("is not empty", "restore", file, "--data", other.at.data, "--passphrase-file", k.password)

	empty := place{filepath.Join(dir, "empty")}
	wrong := filepath.Join(dir, "wrong")
	k.write(wrong, "another\n")
	k.refused("does not open it", "restore", file, "--data", empty.data, "--passphrase-file", wrong)
	archive, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(dir, "damaged.age")
	for _, bad := range [][]byte{archive[:len(archive)-1], append(bytes.Clone(archive[:len(archive)/2]), make([]byte, len(archive)-len(archive)/2)...)} {
		k.write(damaged, string(bad))
		k.refused("damaged.age", "restore", damaged, "--data", empty.data, "--passphrase-file", k.password)
	}
	if left := below(t, empty.data); len(left) != 0 {
		t.Errorf("something was changed: %v", left)
	}

	// Keys of another fleet stay where they are, and nothing is put beside them.
	for _, there := range []string{filepath.Join(empty.data+"-key", "accounts.key"), filepath.Join(dir, "elsewhere", "operator.nk")} {
		if err := os.MkdirAll(filepath.Dir(there), 0o700); err != nil {
			t.Fatal(err)
		}
		k.write(there, "other")
		k.refused("is there already", "restore", file, "--data", empty.data, "--passphrase-file", k.password, "--administrator-dir", filepath.Join(dir, "elsewhere"))
		if left := below(t, empty.data); len(left) != 0 {
			t.Errorf("something was changed: %v", left)
		}
		if err := os.RemoveAll(filepath.Dir(there)); err != nil {
			t.Fatal(err)
		}
	}

	// What an interrupted restore left is no fleet.
	if err := os.MkdirAll(filepath.Join(empty.data, restoring, "broker"), 0o700); err != nil {
		t.Fatal(err)
	}
	k.must("restore", file, "--data", empty.data, "--passphrase-file", k.password, "--administrator-dir", filepath.Join(dir, "elsewhere"))
	if !holds(filepath.Join(dir, "elsewhere"), operatorKeyName) || holds(empty.data, administration) || holds(empty.data, restoring) {
		t.Error("the administrator's keys are not where they were to be")
	}
}

func TestABackupIsForItsRecipientsAlone(t *testing.T) {
	k := newKept(t)
	stop := k.up(k.at)
	stop()
	dir := filepath.Dir(k.at.data)
	file := filepath.Join(dir, "fleet.age")
	k.refused("no terminal", "backup", file, "--data", k.at.data)
	k.refused("--recipient", "backup", file, "--data", k.at.data, "--recipient", "ada")
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("a file is there")
	}
	holder, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	k.must("backup", file, "--data", k.at.data, "--recipient", holder.Recipient().String())
	k.refused("--age-identity", "restore", "--dry-run", file)
	key := filepath.Join(dir, "holder")
	k.write(key, holder.String()+"\n")
	k.must("restore", "--dry-run", file, "--age-identity", key)
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	k.write(key, stranger.String()+"\n")
	k.refused("does not open it", "restore", "--dry-run", file, "--age-identity", key)
}

// TestABackupWithoutKeysHoldsNone looks for every kind of private key that there is in the data directory.
func TestABackupWithoutKeysHoldsNone(t *testing.T) {
	k := newKept(t)
	if _, err := (tlsFlags{on: true}).certificate(k.at, k.at.administrator(), namesOf([]string{"127.0.0.1:0"}, ""), time.Now()); err != nil {
		t.Fatal(err)
	}
	stop := k.up(k.at)
	stop()
	file := filepath.Join(filepath.Dir(k.at.data), "fleet.tar")
	k.must("backup", file, "--data", k.at.data, "--without-keys")
	secret := regexp.MustCompile(`S[OAU][A-Z2-7]{56}|PRIVATE KEY`)
	all := ""
	for _, text := range below(t, k.at.data) {
		all += text
	}
	if found := secret.FindAllString(all, -1); len(found) < 20 {
		t.Fatalf("only %d keys are in the data directory: this shows nothing", len(found))
	}
	urlSecret := below(t, k.at.data)["content/"+urlKey]
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	names := map[string]bool{}
	for in := tar.NewReader(f); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		data, readErr := io.ReadAll(in)
		if err := errors.Join(err, readErr); err != nil {
			t.Fatal(err)
		}
		names[h.Name] = true
		if secret.Match(data) || urlSecret != "" && bytes.Contains(data, []byte(urlSecret)) {
			t.Errorf("%s holds a private key", h.Name)
		}
	}
	fleet, err := readFleet(k.at.identity())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"identity/fleet.json", "identity/operator.jwt", "accounts/" + fleet.Accounts[access.Fleet] + ".jwt", "keys/" + keysetName, "tls/" + caName} {
		if !names["files/"+name] {
			t.Errorf("%s is not in it", name)
		}
	}
	for name := range names {
		if strings.HasPrefix(name, "files/key/") || strings.HasSuffix(name, ".creds") || strings.HasSuffix(name, ".nk") || strings.HasSuffix(name, ".key") {
			t.Errorf("%s is in it", name)
		}
	}
}

func TestStreamsAloneAreTakenByTheProvisionerAndByNobodyElse(t *testing.T) {
	k := newKept(t)
	stop := k.up(k.at)
	defer stop()
	file := filepath.Join(filepath.Dir(k.at.data), "streams.tar")
	k.refused("role administrator", "backup", file, "--streams")
	k.must("context", "add", "night", "--server", "nats://"+k.address, "--credentials", identities{dir: k.at.identity()}.provisioner())
	k.must("backup", file, "--streams", "--context", "night")
	again := filepath.Join(filepath.Dir(k.at.data), "again")
	k.refused("is not encrypted", "restore", file, "--data", again, "--passphrase-file", k.password) // somebody may have put it there
	k.must("restore", file, "--data", again)
	if !holds(again, "broker") || holds(again, partIdentity) {
		t.Error("it is not the streams alone that are restored")
	}
}

func TestADirectoryThatIsALinkIsBackedUp(t *testing.T) {
	k := newKept(t)
	elsewhere := filepath.Join(filepath.Dir(k.at.data), "elsewhere")
	if err := os.Rename(k.at.identity(), elsewhere); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, k.at.identity()); err != nil {
		if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip("let this user make links:", err)
	}
	from := dataFiles{at: k.at}
	from.complete()
	all, err := from.list()
	if err != nil || !slices.ContainsFunc(all, func(f backup.File) bool { return f.Name == partIdentity+"/"+fleetName }) {
		t.Errorf("what is listed lacks the identity: %v (%v)", all, err)
	}
}

// TestAFleetWhoseOperatorsKeyIsLostGoesOnUnderAnother loses operator.nk: users work and are made, nobody can be
// revoked on the broker. Under the new operator everybody who was let in still is, who was revoked is not, and the
// next revocation holds.
func TestAFleetWhoseOperatorsKeyIsLostGoesOnUnderAnother(t *testing.T) {
	k := newKept(t)
	dir := filepath.Dir(k.at.data)
	creds := func(name string) string { return filepath.Join(dir, name+".creds") }
	letIn := func(name string) bool {
		c, err := dial(connection{Name: "x", Server: "nats://" + k.address, Credentials: creds(name)}, 5*time.Second)
		if err == nil {
			c.bus.Conn().Close()
		}
		return err == nil
	}
	stop := k.up(k.at)
	for _, name := range []string{"ada", "eve"} {
		k.must("user", "add", name, "--role", "viewer", "--out", creds(name))
	}
	k.must("user", "revoke", "eve")
	k.refused("another chandler uses", "operator", "replace", "--data", k.at.data)
	stop()
	k.refused("it is not lost", "operator", "replace", "--data", k.at.data)

	if err := os.Remove(filepath.Join(k.at.administrator(), operatorKeyName)); err != nil {
		t.Fatal(err)
	}
	stop = k.up(k.at)
	k.must("user", "add", "bob", "--role", "viewer", "--out", creds("bob"))
	if code, _, _ := command(t, k.app, "", "user", "revoke", "bob"); code == 0 || !letIn("bob") {
		t.Error("somebody is revoked without the operator's key: this shows nothing")
	}
	stop()
	accounts := below(t, k.at.accounts())
	k.must("operator", "replace", "--data", k.at.data)
	for name, text := range below(t, k.at.accounts()) {
		if text == accounts[name] {
			t.Errorf("account %s is under the former operator", name)
		}
	}

	stop = k.up(k.at)
	defer stop()
	if !letIn("ada") || !letIn("bob") || letIn("eve") {
		t.Errorf("let in: ada %t, bob %t; eve, who was revoked, %t", letIn("ada"), letIn("bob"), letIn("eve"))
	}
	k.must("user", "revoke", "bob")
	if letIn("bob") {
		t.Error("bob is let in after he was revoked")
	}
}
