package sambatest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Realm is a key distribution centre of Kerberos, whose tickets a server takes that was made with its Settings. It needs
// krb5-kdc, krb5-admin-server and krb5-user.
type Realm struct {
	Config   string   // the krb5.conf of its clients
	Settings []string // of servers that take its tickets
	t        testing.TB
	dir      string
	prefix   []string
}

// realmName is its name.
const realmName = "TEST.EXAMPLE"

// NewRealm starts one on the loopback interface, until the test ends. Servers of it are met at 127.0.0.1.
func NewRealm(t testing.TB) *Realm { t.Helper(); return NewRealmAt(t, "127.0.0.1") }

// NewRealmAt starts one at an IPv4 address, where servers of it are met too. prefix is as in Options.
func NewRealmAt(t testing.TB, address string, prefix ...string) *Realm {
	t.Helper()
	for _, program := range []string{"krb5kdc", "kdb5_util", "kadmin.local", "kinit"} {
		if _, err := exec.LookPath(program); err != nil {
			why := "apt-get install krb5-kdc krb5-admin-server krb5-user: " + program + " is missing"
			if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
				t.Fatal(why)
			}
			t.Skip(why)
		}
	}
	r := &Realm{t: t, dir: t.TempDir(), prefix: prefix}
	r.Config = filepath.Join(r.dir, "krb5.conf")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String()) // the listener's own word
	at := net.JoinHostPort(address, port)
	free.Close()
	keytab := filepath.Join(r.dir, "cifs.keytab")
	r.Settings = []string{"realm = " + realmName, "kerberos method = dedicated keytab", "dedicated keytab file = FILE:" + keytab}
	r.write("krb5.conf", "[libdefaults]\ndefault_realm = %[1]s\ndns_lookup_kdc = false\ndns_lookup_realm = false\ndns_canonicalize_hostname = false\nrdns = false\nudp_preference_limit = 1\n[realms]\n%[1]s = {\n kdc = %[2]s\n}\n", realmName, at)
	// A Samba that is no member of a domain takes no ticket that tells groups.
	r.write("kdc.conf", "[realms]\n%[1]s = {\n database_name = %[2]s/principal\n key_stash_file = %[2]s/stash\n kdc_listen = %[3]s\n kdc_tcp_listen = %[3]s\n disable_pac = true\n}\n", realmName, r.dir, at)
	r.run("", "kdb5_util", "create", "-s", "-r", realmName, "-P", "of the test's database")
	r.run("", "kadmin.local", "-q", "addprinc -randkey cifs/"+address)
	r.run("", "kadmin.local", "-q", "ktadd -k "+keytab+" cifs/"+address)
	r.serve(at)
	return r
}

func (r *Realm) write(name, format string, args ...any) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), fmt.Appendf(nil, format, args...), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *Realm) environ() []string {
	return append(os.Environ(), "KRB5_CONFIG="+r.Config, "KRB5_KDC_PROFILE="+filepath.Join(r.dir, "kdc.conf"))
}

func (r *Realm) serve(at string) {
	r.t.Helper()
	argv := append(slices.Clone(r.prefix), "krb5kdc", "-n")
	kdc := exec.Command(argv[0], argv[1:]...)
	kdc.Env = r.environ()
	var said bytes.Buffer
	kdc.Stdout, kdc.Stderr = &said, &said
	if err := kdc.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		_ = kdc.Process.Signal(syscall.SIGTERM)
		_ = kdc.Wait()
	})
	patience := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !listens(r.t, kdc.Process.Pid, at) {
		select {
		case <-tick.C:
		case <-patience:
			r.t.Fatal("krb5kdc does not listen")
		}
	}
}

func (r *Realm) run(stdin string, argv ...string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	argv = append(slices.Clone(r.prefix), argv...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Stdin = r.environ(), strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("%s: %v: %s", argv[0], err, out)
	}
}

// Ticket makes a user of the realm, logs on, and returns the file of tickets. lifetime is as of kinit: 1h.
func (r *Realm) Ticket(user, lifetime string) (cache string) {
	r.t.Helper()
	const secret = "of-a-test"
	cache = filepath.Join(r.t.TempDir(), "krb5cc")
	r.run("", "kadmin.local", "-q", "addprinc -pw "+secret+" "+user)
	r.run(secret+"\n", "kinit", "-l", lifetime, "-c", "FILE:"+cache, user)
	return cache
}
