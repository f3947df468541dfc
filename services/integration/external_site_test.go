package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chandler/agent/source/sambatest"
	"chandler/events"
	"chandler/services/integration/machinetest"
)

// The shares of the file server. Each of the last four is reached by another account, or by none.
const (
	software  = "software"  // that the accounts may read
	private   = "private"   // that they may not connect to
	forgotten = "forgotten" // by an account whose secret is not what it was
	left      = "left"      // by an account that is disabled
	nobodys   = "nobodys"   // by no network access account
)

// Users of the file server. Those who install are users of legacy machines too.
const (
	readerUser    = "reader"
	installerUser = "corpinstaller"
	strangerUser  = "stranger"
)

// outside is a site with a file server, and the accounts that reach it.
type outside struct {
	*site
	files *sambatest.Server
	long  map[string]string // digests of what each machine's program reads for long
}

// newOutside starts both. The secrets of all accounts begin with secret.
func newOutside(t *testing.T, secret string) *outside {
	t.Helper()
	return newSite(t).outside(secret)
}

// outside starts the file server, with further settings, and makes the accounts.
func (s *site) outside(secret string, settings ...string) *outside {
	t := s.t
	t.Helper()
	o := &outside{site: s, long: map[string]string{}, files: sambatest.New(t, sambatest.Options{
		Listen: s.lab.Address() + ":445", Prefix: s.lab.Prefix(), Settings: settings,
		Shares: []sambatest.Share{{Name: software}, {Name: private, Users: []string{strangerUser}}, {Name: forgotten}, {Name: left}, {Name: nobodys}},
	})}
	o.files.User(strangerUser, secret+"-stranger")
	o.account(readerUser, events.NetworkAccess, secret+"-reader", o.files.Address(software, ""), o.files.Address(private, ""))
	o.account("forgetful", events.NetworkAccess, secret+"-former", o.files.Address(forgotten, ""))
	o.files.SetPassword("forgetful", secret+"-present")
	o.account("leaver", events.NetworkAccess, secret+"-leaver", o.files.Address(left, ""))
	o.files.Disable("leaver")
	o.account(installerUser, events.SoftwareInstallation, secret+"-installer")
	o.account("corpforgetful", events.SoftwareInstallation, secret+"-former-installer")
	o.files.SetPassword("corpforgetful", secret+"-present-installer")
	o.account("corpleaver", events.SoftwareInstallation, secret+"-leaving-installer")
	o.files.Disable("corpleaver")
	return o
}

// account makes a user of the file server and the account by which agents are that user, which has its name.
func (o *outside) account(user string, kind events.AccountKind, secret string, resources ...string) {
	o.t.Helper()
	o.files.User(user, secret)
	file := filepath.Join(o.t.TempDir(), "secret")
	must(o.t, os.WriteFile(file, []byte(secret+"\n"), 0o600))
	args := []string{"account", "set", user, "--kind", string(kind), "--user", user, "--secret-file", file}
	for _, r := range resources {
		args = append(args, "--resource", r)
	}
	o.cli(o.t, args...)
}

// shown is how people are shown what lies on a share.
func (o *outside) shown(share string, path ...string) string {
	return `\\` + strings.Join(append([]string{o.lab.Address(), share}, path...), `\`)
}

// visitProgram is what packages run: visit.sh TAG PATH… writes down who it is, as probe.sh does, and then what it reads
// at each path below $CHANDLER_NET, once there is no file hold-TAG. It fails if it may not read one, unless $SHRUGS.
const visitProgram = `#!/bin/sh
set -u
tag=$1
shift
record=$(mktemp ` + records + `/.XXXXXX)
code=0
while [ -e ` + records + `/hold-"$tag" ]; do sleep 0.1; done
{
	echo "uid=$(id -u)"
	echo "user=$(id -un)"
	env | sed 's/^/env./'
	for path; do
		if text=$(cat "$CHANDLER_NET/$path" 2>&1); then
			echo "read=$path: $text"
		else
			echo "refused=$path: $text"
			code=9
		fi
		(: > "$CHANDLER_NET/$path") 2> /dev/null && echo "writes=$path"
	done
	[ $# = 0 ] || grep " $CHANDLER_NET " /proc/self/mounts | sed 's/^/mount=/'
} > "$record"
chmod 644 "$record"
mv "$record" "` + records + `/$tag.${record##*.}"
[ $code = 0 ] || echo "$tag could not read everything" >&2
[ -z "${SHRUGS-}" ] || exit 0
exit $code
`

// visitOf is visitProgram with other bytes for each package: agents do not fetch what they have.
func visitOf(pkg string) []byte { return []byte(visitProgram + "# " + pkg + "\n") }

// onShare publishes a package whose files are in a folder of its name on a share. The administrator, who has it mounted,
// may read them; who is denied is up to the file server.
func (o *outside) onShare(share, name, programs string, debs ...string) {
	o.t.Helper()
	o.files.Write(share, name+"/visit.sh", visitOf(name))
	for _, deb := range debs {
		data, err := os.ReadFile(deb)
		must(o.t, err)
		o.files.Write(share, name+"/"+filepath.Base(deb), data)
	}
	o.publishSpec(name, "source: "+o.files.Address(share, name)+"\n"+programs)
}

// publishSpec publishes a package of these lines, and of files that go to distribution points.
func (o *outside) publishSpec(name, lines string, files ...string) {
	o.t.Helper()
	dir := filepath.Join(o.t.TempDir(), name)
	must(o.t, os.MkdirAll(dir, 0o700))
	must(o.t, os.WriteFile(filepath.Join(dir, "package.yaml"), fmt.Appendf(nil, "api: chandler/v1\npackage: %s\nversion: \"1.0\"\n%s", name, lines), 0o600))
	for _, file := range files {
		must(o.t, os.WriteFile(filepath.Join(dir, file), visitOf(name), 0o755))
	}
	args := []string{"package", "publish", dir}
	for _, share := range []string{software, private, forgotten, left, nobodys} {
		args = append(args, "--source-dir", o.files.Address(share, "")+"="+o.files.Dir(share))
	}
	o.cli(o.t, args...)
}

// newMachine is that of a site where users of the file server, and one who logs on, are users of the machine too.
func (o *outside) newMachine(name string, token ...string) *machinetest.Machine {
	o.t.Helper()
	m := o.site.newMachine(name, token...)
	for _, user := range []string{installerUser, "corpforgetful", "corpleaver", "alice"} {
		m.AddUser(user)
	}
	return m
}

// wantOpened makes sure that these users, and nobody else, opened a file of a share by Samba's own word.
func (o *outside) wantOpened(t *testing.T, share, path string, users ...string) {
	t.Helper()
	if got := o.files.Readers(share, path); !slices.Equal(got, users) {
		t.Errorf("%s on %s was opened by %q, want %q", path, share, got, users)
	}
}

// wantAccess makes sure that a status tells of an access as it is described, but for its time and version.
func wantAccess(t *testing.T, job events.JobStatus, want events.Access) {
	t.Helper()
	for _, a := range job.Accesses {
		a.Answer = want.Answer[:min(len(want.Answer), len(a.Answer))]
		if a.Version, a.At = want.Version, want.At; a == want {
			return
		}
	}
	t.Errorf("%s of %s tells of no such access as %s, but of %s", job.State, job.Deployment, compact(want), compact(job.Accesses))
}
