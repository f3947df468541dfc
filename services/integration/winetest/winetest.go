// Package winetest lets tests run programs built for Windows, on Linux, by Wine.
//
//	p := winetest.New(t)
//	msi := winetest.BuildMSI(t, wxs)
//	err := p.Command("msiexec", "/i", winetest.Path(msi), "/qn").Run()
//	value, found := p.Registry(`HKLM\Software\Example`, "Version")
//
// What Wine shows is what Windows would do: processes, their exit codes, pipes, handles and job objects; files and
// share modes; MSI installs (ALLUSERS=1 or 2 goes to HKLM, none to HKCU); services under the service control manager;
// sockets and TLS. What is make-believe, so that nothing follows from it: who somebody is. There is one user, who is an
// administrator and may do everything; access lists are not kept; LogonUser, SIDs of others, tokens of sessions and
// elevation either fail or give this same user; there is one session, always. Some exit codes of msiexec differ
// from those of Windows. Code for all this stands behind an interface and has unit tests instead.
//
// A service's environment is not quite that of other programs: ProgramData is another directory there.
//
// Programs are built with one line of Go's library changed (see overlay), without which no directory can be removed.
//
// Under failure: what the machine that runs the tests lacks makes the test skip with a sentence that says what to
// install, or fail when CHANDLER_TEST_REQUIRE=1. Every prefix has a Wine server of its own, which the test's end kills
// with all programs in it; one whose test was killed ends when its programs do. Only the template of all prefixes
// stays, in the user's cache directory.
package winetest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bootTimeout is how long a prefix may take to start, endTimeout how long to end.
const (
	bootTimeout  = 2 * time.Minute
	bootAttempts = 3
	endTimeout   = "60" // seconds
)

const ready = "ready"

// Prefix is a Windows machine: drive C, a registry and processes of its own. Its drive Z is the whole file system.
type Prefix struct {
	t   testing.TB
	dir string
}

// New makes a fresh prefix, which goes away with its processes when the test ends.
func New(t testing.TB) *Prefix {
	t.Helper()
	need(t, "wine", "wineserver", "flock", "timeout", "x86_64-w64-mingw32-gcc")
	p := &Prefix{t: t, dir: filepath.Join(t.TempDir(), "wine")}
	if err := copyPrefix(template(t), p.dir); err != nil {
		t.Fatalf("make a Wine prefix: %v", err)
	}
	p.boot()
	return p
}

// boot starts Wine's own processes, by a program that does nothing until its standard input ends, which is at the latest
// when this process does: Wine ends all services with the last other program. Whatever else came first would leave them
// its standard error, and whoever reads that would wait for them.
func (p *Prefix) boot() {
	p.t.Helper()
	// On a busy machine Wine's server may give up on its first client.
	var said string
	for range bootAttempts {
		var up bool
		if up, said = p.bootOnce(); up {
			return
		}
	}
	p.t.Fatalf("Wine does not start: %s", said)
}

// bootOnce says whether Wine runs, and else what it said.
func (p *Prefix) bootOnce() (up bool, said string) {
	p.t.Helper()
	var words bytes.Buffer
	holder := p.Command("cmd", "/q", "/k", "echo "+ready)
	holder.Stderr, holder.WaitDelay = &words, time.Second
	stdin, err := holder.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	stdout, err := holder.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		p.t.Fatalf("start Wine: %v", err)
	}
	end := func() {
		stdin.Close()
		p.end()
		_ = holder.Wait() // it was killed, or not
	}
	timeout := time.AfterFunc(bootTimeout, func() { _ = holder.Process.Kill() })
	defer timeout.Stop()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if strings.TrimSpace(line) == ready {
		p.t.Cleanup(end)
		return true, ""
	}
	end()
	return false, fmt.Sprintf("%q, %v, %s", line, err, words.String())
}

// Command prepares a Windows program: one of Wine's own (msiexec, reg, sc), a path of this machine or of the prefix.
// Arguments are passed as they are. The environment is a plain one; the caller may add to it. The exit code that this
// machine sees is the lowest byte of the program's.
func (p *Prefix) Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("wine", append([]string{name}, args...)...)
	cmd.Env = environment(p.dir)
	cmd.Dir = p.Unix(`C:\`)
	return cmd
}

// Exec runs a Windows program and gives what it printed, with line ends as here. The test fails if the program does.
func (p *Prefix) Exec(name string, args ...string) string {
	p.t.Helper()
	out, err := p.Command(name, args...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("wine %s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.ReplaceAll(string(out), "\r\n", "\n")
}

// Path is how Windows programs name a file of this machine: Z:\tmp\a for /tmp/a. The path must be absolute.
func Path(unix string) string { return `Z:` + strings.ReplaceAll(unix, "/", `\`) }

// Unix is where a file of the prefix is on this machine; the path begins with C: or Z: and has the letter case that the
// file has.
func (p *Prefix) Unix(windows string) string {
	p.t.Helper()
	if len(windows) < 2 || windows[1] != ':' {
		p.t.Fatalf("%q is not on a drive", windows)
	}
	below := filepath.FromSlash(strings.ReplaceAll(windows[2:], `\`, "/"))
	switch windows[0] {
	case 'C', 'c':
		return filepath.Join(p.dir, "drive_c", below)
	case 'Z', 'z':
		return filepath.Join("/", below)
	}
	p.t.Fatalf("%q is on no drive of the prefix", windows)
	return ""
}

// Registry reads a value, as reg.exe shows it: numbers in hexadecimal with 0x. An empty name is the key's default value.
// The key begins with HKLM, HKCU, HKCR or HKU and is read in the view of 64-bit programs.
func (p *Prefix) Registry(key, name string) (value string, found bool) {
	p.t.Helper()
	query := []string{"query", key, "/v", name}
	if name == "" {
		query = []string{"query", key, "/ve"}
	}
	out, err := p.Command("reg", query...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return "", false
	}
	if err != nil {
		p.t.Fatalf("read registry key %s: %v", key, err)
	}
	for line := range strings.Lines(string(out)) {
		// four spaces, name, four spaces, type, four spaces, value
		fields := strings.SplitN(strings.TrimRight(line, "\r\n"), "    ", 4)
		if len(fields) == 4 && fields[0] == "" && strings.HasPrefix(fields[2], "REG_") {
			return fields[3], true
		}
	}
	p.t.Fatalf("reg query %s prints %q", key, out)
	return "", false
}

// HasKey says whether the registry has a key.
func (p *Prefix) HasKey(key string) bool {
	p.t.Helper()
	err := p.Command("reg", "query", key).Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || !exit.Exited()) {
		p.t.Fatalf("read registry key %s: %v", key, err)
	}
	return err == nil
}

// end kills everything in the prefix, so that its files can be removed.
func (p *Prefix) end() {
	for _, how := range []string{"-k", "-w"} {
		cmd := exec.Command("timeout", endTimeout, "wineserver", how)
		cmd.Env = environment(p.dir)
		if out, err := cmd.CombinedOutput(); err != nil && how == "-w" { // to kill a server that has ended fails
			p.t.Errorf("end the Wine server of %s: %v\n%s", p.dir, err, out)
		}
	}
}

// environment is that of every program of a prefix. Nothing of the test's gets in, no display either.
func environment(prefix string) []string {
	return []string{
		"WINEPREFIX=" + prefix, "WINEARCH=win64", "WINEDEBUG=-all",
		"WINEDLLOVERRIDES=mscoree,mshtml=", // else Wine would ask to download what stands in for .NET and the browser
		"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Dir(prefix), "USER=tester", "LANG=C.UTF-8",
	}
}
