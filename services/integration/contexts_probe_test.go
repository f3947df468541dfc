package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chandler/agent/cmlog"
	"chandler/services/integration/machinetest"
)

// records is where probes leave what they find on a machine, and look for files that hold them up.
const records = "/var/tmp/probe"

// probeProgram is what packages run: probe.sh TAG [EXIT] writes down who it is, who started it, and what it may do,
// leaves marks that only the administrator can make, one of them until the machine restarts, waits while hold-TAG is there, and ends with EXIT.
const probeProgram = `#!/bin/sh
set -u
tag=$1
record=$(mktemp ` + records + `/.XXXXXX)
{
	echo "uid=$(id -u)"
	echo "gid=$(id -g)"
	echo "user=$(id -un)"
	echo "groups=$(id -Gn)"
	echo "cwd=$(pwd)"
	env | sed 's/^/env./'
	pid=$$
	while [ "$pid" -gt 0 ]; do
		echo "parent=$(cat /proc/$pid/comm) $(awk '/^Uid:/ {print $3}' /proc/$pid/status)"
		pid=$(awk '/^PPid:/ {print $2}' /proc/$pid/status)
	done
	for place in /etc /usr/bin /var/lib/chandler-agent /var/lib/chandler-agent/logs "$CHANDLER_PACKAGE" "$TMPDIR" "$HOME"; do
		if (: > "$place/probe.$$") 2> /dev/null; then
			rm "$place/probe.$$"
			echo "writes=$place"
		fi
		if ls "$place" > /dev/null 2>&1; then echo "lists=$place"; fi
	done
} > "$record"
touch "/var/lib/probe-$tag" "/run/probe-$tag" 2> /dev/null || true
chmod 644 "$record"
mv "$record" "` + records + `/$tag.${record##*.}"
while [ -e ` + records + `/hold-"$tag" ]; do sleep 0.1; done
echo "$tag is done"
exit "${2:-0}"
`

// probePackage has a program for each context. Its name is that of the package too.
const probePackage = `api: chandler/v1
package: %s
version: "1.0"
programs:
  as-user: {command: [probe.sh, as-user], run: user}
  each-user: {command: [probe.sh, each-user], run: user, logon: user, every-user: true}
  shown: {command: [probe.sh, shown], run: user, interactive: true}
  as-administrator: {command: [probe.sh, as-administrator], run: administrative}
  by-account: {command: [probe.sh, by-account], run: administrative, installation-account: corp-installer}
  by-standing: {command: [probe.sh, by-standing], run: administrative, installation-account: corp-standing}
  nobody-on: {command: [probe.sh, nobody-on], run: administrative, logon: none}
  logs-off: {command: [probe.sh, logs-off], run: administrative, after: logoff}
  restarts: {command: [probe.sh, restarts], run: administrative, after: restart, detect: [{file: /var/lib/probe-restarts}]}
  soft: {command: [probe.sh, soft, "30"], run: administrative, return-codes: {30: soft-reboot}, detect: [{file: /var/lib/probe-soft}]}
  vanishes: {command: [probe.sh, vanishes, "30"], run: administrative, return-codes: {30: soft-reboot}, detect: [{file: /run/probe-vanishes}]}
  hard: {command: [probe.sh, hard, "41"], run: administrative, return-codes: {41: hard-reboot}, detect: [{file: /var/lib/probe-hard}]}
  tool-as-user: {command: [dpkg, -i, probe-tool_1.0_all.deb], run: user}
  tool: {command: [dpkg, -i, probe-tool_1.0_all.deb], run: administrative, detect: [{dpkg: probe-tool, version: "1.0"}]}
  hello: {command: [dpkg, -i, hello.deb], run: administrative, detect: [{dpkg: hello}]}
`

// jobLogs is the directory of the logs that administrators read.
const jobLogs = "/var/lib/chandler-agent/logs/"

// accountSecret is that of every account: the agent gets it, and writes it nowhere.
const accountSecret = "hardly-to-be-found-anywhere"

// packages have the same programs, and each has a file of its own: for what must not depend on another's.
var packages = []string{"probe", "aside", "beside", "first", "second", "third"}

// publishProbes publishes the packages. The accounts that they name are there.
func (s *site) publishProbes() {
	s.t.Helper()
	s.setAccount("corp-installer", "software-installation", "corpinstaller", accountSecret)
	s.setAccount("corp-standing", "software-installation", "corpstanding", accountSecret)
	s.setAccount("domain-token", "client-token-domain", domainToken, accountSecret)
	tool, hello := buildDeb(s.t, "probe-tool", toolFiles), downloadHello(s.t)
	for _, name := range packages {
		s.publish(name, probePackage, map[string]string{"probe.sh": probeProgram, "own.txt": ownText(name)}, tool, hello)
	}
}

// ownText is what stands in the file that only one package has.
func ownText(pkg string) string { return "content of " + pkg + "\n" }

// setAccount keeps an account's secret for agents, or a new one.
func (s *site) setAccount(name, kind, user, secret string) {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "secret")
	must(s.t, os.WriteFile(file, []byte(secret+"\n"), 0o600))
	s.cli(s.t, "account", "set", name, "--kind", kind, "--user", user, "--secret-file", file)
}

// publish publishes a package of these programs, of files that may be executed, and of Debian packages.
func (s *site) publish(name, text string, files map[string]string, debs ...string) {
	s.t.Helper()
	dir := filepath.Join(s.t.TempDir(), name)
	must(s.t, os.MkdirAll(dir, 0o700))
	must(s.t, os.WriteFile(filepath.Join(dir, "package.yaml"), fmt.Appendf(nil, text, name), 0o600))
	for file, text := range files {
		at := filepath.Join(dir, filepath.FromSlash(file))
		must(s.t, os.MkdirAll(filepath.Dir(at), 0o700))
		must(s.t, os.WriteFile(at, []byte(text), 0o755))
	}
	for _, deb := range debs {
		must(s.t, os.Link(deb, filepath.Join(dir, filepath.Base(deb))))
	}
	s.cli(s.t, "package", "publish", dir)
}

// toolFiles are of a Debian package that puts a program into /usr/bin and whose script writes down who installs it.
var toolFiles = map[string]debFile{
	"DEBIAN/postinst":               {"#!/bin/sh\nexec /usr/share/probe-tool/probe.sh postinst\n", 0o755},
	"usr/share/probe-tool/probe.sh": {probeProgram, 0o755},
	"usr/bin/probe-tool":            {"#!/bin/sh\necho tool\n", 0o755},
}

type debFile struct {
	text string
	mode os.FileMode
}

// buildDeb makes a Debian package of these files and gives its path.
func buildDeb(t *testing.T, name string, files map[string]debFile) string {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		lacking(t, "making a Debian package needs dpkg-deb: apt-get install dpkg")
	}
	tree := filepath.Join(t.TempDir(), name)
	write := func(name, text string, mode os.FileMode) {
		at := filepath.Join(tree, name)
		must(t, os.MkdirAll(filepath.Dir(at), 0o755))
		must(t, os.WriteFile(at, []byte(text), mode))
	}
	write("DEBIAN/control", "Package: "+name+"\nVersion: 1.0\nArchitecture: all\nMaintainer: Chandler <chandler@example.org>\nDescription: probe\n", 0o644)
	for name, file := range files {
		write(name, file.text, file.mode)
	}
	deb := tree + "_1.0_all.deb"
	if out, err := exec.CommandContext(t.Context(), "dpkg-deb", "--root-owner-group", "--build", tree, deb).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	return deb
}

// downloadHello fetches a package of Debian's own.
func downloadHello(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "apt-get", "-q", "download", "hello")
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		lacking(t, "download hello from Debian (apt-get update first): "+err.Error()+"\n"+string(out))
	}
	found, err := filepath.Glob(filepath.Join(cmd.Dir, "hello_*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("apt-get download left %v, %v", found, err)
	}
	deb := filepath.Join(cmd.Dir, "hello.deb")
	must(t, os.Rename(found[0], deb))
	return deb
}

// lacking skips the test, unless everything is required.
func lacking(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// record is what one run of a probe wrote: values by their names.
type record map[string][]string

func (r record) first(name string) string {
	if len(r[name]) == 0 {
		return ""
	}
	return r[name][0]
}

func (r record) env(name string) string { return r.first("env." + name) }

// parents are the names of the probe's process and those above it, each with the user it acts as.
func (r record) parents() string { return strings.Join(r["parent"], ", ") }

func (r record) may(what, place string) bool { return slices.Contains(r[what], place) }

// recordsOf reads what the runs with a tag wrote, oldest first.
func recordsOf(t *testing.T, m *machinetest.Machine, tag string) (list []record) {
	t.Helper()
	for _, name := range strings.Fields(m.Exec("ls", "-tr", records)) {
		if !strings.HasPrefix(name, tag+".") {
			continue
		}
		data, ok := m.ReadFile(path.Join(records, name))
		if !ok {
			t.Fatalf("%s is gone", name)
		}
		r := record{}
		for line := range strings.Lines(string(data)) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			r[key] = append(r[key], value)
		}
		list = append(list, r)
	}
	return list
}

// recordOf is what the only run for a job wrote, once it has.
func recordOf(t *testing.T, m *machinetest.Machine, tag, job string) record {
	t.Helper()
	var of []record
	eventually(t, tag+" has run for job "+job, func() bool {
		of = slices.DeleteFunc(recordsOf(t, m, tag), func(r record) bool { return r.env("CHANDLER_JOB") != job })
		return len(of) > 0
	})
	if len(of) != 1 {
		t.Fatalf("%s ran %d times for job %s", tag, len(of), job)
	}
	return of[0]
}

// hold keeps the probes with a tag from ending until what it gives is called, which may be called again.
func hold(t *testing.T, m *machinetest.Machine, tag string) (letGo func()) {
	t.Helper()
	file := path.Join(records, "hold-"+tag)
	m.WriteFile(file, nil, 0o644)
	return func() { m.Exec("rm", "-f", file) }
}

// wantLogged makes sure that one entry of the machine's job log holds all these words.
func wantLogged(t *testing.T, m *machinetest.Machine, file string, words ...string) {
	t.Helper()
	data, _ := m.ReadFile(jobLogs + file)
	var texts []string
	for e, err := range cmlog.Parse(strings.NewReader(string(data))) {
		must(t, err)
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(e.Text, w) }) {
			return
		}
		texts = append(texts, e.Text)
	}
	t.Errorf("no entry of %s has all of %q:\n%s", file, words, tail(strings.Join(texts, "\n")))
}

// uidOf is a user's number on the machine, as text.
func uidOf(m *machinetest.Machine, user string) string { return m.Exec("id", "-u", user) }

// compact shows a value in a failure.
func compact(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(data)
}
