package netfs

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/source"
	"chandler/events"
)

// shell starts a shell that stays, with the mount as working directory, and is asked one command after the other.
func shell(t *testing.T, f *FS, g *rig) (ask func(command string) string) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", `cd "$0" && exec /bin/sh 2>&1`, g.Mount)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin"}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		io.Copy(io.Discard, out)
		cmd.Wait()
	})
	lines := bufio.NewReader(out)
	return func(command string) string {
		t.Helper()
		fmt.Fprintf(in, "%s </dev/null; echo; echo ///\n", command)
		var said strings.Builder
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("%s: %v after %q", command, err, said.String())
			}
			if line == "///\n" {
				return strings.TrimSpace(said.String())
			}
			said.WriteString(line)
		}
	}
}

// soon waits until something is so, for as long as a withdrawal may take.
func soon(t *testing.T, what string, so func() bool) {
	t.Helper()
	late := time.After(2 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// twoResources are read from by a program, in files that stay open, and in a pinned one.
func twoResources(t *testing.T) (*rig, *FS, func(string) string, string) {
	t.Helper()
	big := strings.Repeat("0123456789abcdef", 1<<18)
	g := newRig(t, map[string]string{"smb://files/apps/big": big, "smb://files/apps/b": "beta", "smb://files/apps/pinned": "pinned", "smb://files/other/c": strings.Repeat("gamma", 1<<18), "smb://files/other/d": "delta"},
		"smb://files/apps", "smb://files/other")
	g.Pins = map[string]string{"smb://files/apps/pinned": hexSum("pinned")}
	f := mountRig(t, g)
	ask := shell(t, f, g)
	for _, step := range [][2]string{
		{"exec 3<files/apps/big 4<files/other/c 5<files/apps/pinned; echo open", "open"},
		{"head -c 4 /proc/self/fd/3", "0123"}, {"head -c 5 /proc/self/fd/4", "gamma"}, {"cat files/apps/pinned", "pinned"}, {"cat files/apps/b", "beta"},
	} {
		if got := ask(step[0]); got != step[1] {
			t.Fatalf("%s: %q", step[0], got)
		}
	}
	return g, f, ask, big
}

func TestNothingIsReadByALeaseThatWasWithdrawn(t *testing.T) {
	g, f, ask, _ := twoResources(t)
	g.mu.Lock()
	g.refuse = &source.Error{Reason: events.CredentialDenied, Answer: "an administrator revoked it"}
	first := g.lent[0].Secret
	g.mu.Unlock()
	f.Withdraw("of-another")
	if got := ask("cat files/apps/b"); got != "beta" {
		t.Errorf("after another lease was withdrawn: %q", got)
	}
	f.Withdraw("of-apps")
	for _, command := range []string{"cat files/apps/b", "ls files/apps", "cat files/apps/pinned", "tail -c 4 <&3", "cat <&5"} {
		command = strings.ReplaceAll(command, "<&", "0<&") // before the other input that ask gives
		if got := ask("( " + command + " )"); !strings.Contains(got, "Permission denied") {
			t.Errorf("%s: %q", command, got)
		}
	}
	for script, want := range map[string]string{"cat files/other/d": "delta", "tail -c 5 0<&4": "gamma"} {
		if got := ask("( " + script + " )"); got != want {
			t.Errorf("of the other resource, %s: %q", script, got)
		}
	}
	soon(t, "the kernel forgets what it had read", func() bool {
		return strings.Contains(ask("( dd bs=1 count=1 status=none 0<&3 )"), "Permission denied")
	})
	soon(t, "the secret is overwritten", func() bool { return blank(first) })
	soon(t, "sessions are ended when all is closed", func() bool {
		g.source.mu.Lock()
		defer g.source.mu.Unlock()
		return g.source.idled > 0 && slices.Contains(g.source.closed, "smb://files/apps/big")
	})
	if diff := cmp.Diff([]string{"smb://files/apps", "smb://files/other", "smb://files/apps"}, g.asks()); diff != "" {
		t.Error(diff)
	}
	if told := g.reasons(); !slices.Contains(told, "credential_denied smb://files/apps/b") || !slices.Contains(told, "credential_denied smb://files/apps/big") {
		t.Errorf("told %q", told)
	}
}

func TestAProgramReadsOnByTheSecretThatTookThePlaceOfTheOldOne(t *testing.T) {
	g, f, ask, big := twoResources(t)
	g.mu.Lock()
	g.secret, g.version = "fresh", 4
	g.mu.Unlock()
	g.source.mu.Lock()
	g.source.secret = "fresh"
	g.source.mu.Unlock()
	f.Withdraw("of-apps")
	for command, want := range map[string]string{"sha256sum 0<&3": hexSum(big) + "  -", "cat 0<&5": "pinned", "cat files/apps/b": "beta", "cat files/apps/pinned": "pinned", "tail -c 5 0<&4": "gamma"} {
		if got := ask("( " + command + " )"); got != want {
			t.Errorf("%s: %q", command, got)
		}
	}
	if _, wrong := g.source.asked(); wrong != 0 {
		t.Errorf("the old secret was shown %d times more", wrong)
	}
	if diff := cmp.Diff([]string{"smb://files/apps", "smb://files/other", "smb://files/apps"}, g.reasons()); diff != "" {
		t.Error(diff)
	}
	if last := g.told[len(g.told)-1]; last.Version != 4 {
		t.Errorf("told %+v", last)
	}
}

func TestAnOpenFileDoesNotBecomeAnotherByAnotherSecret(t *testing.T) {
	g, f, ask, _ := twoResources(t)
	g.source.mu.Lock()
	g.source.files["smb://files/apps/big"] = []byte("another")
	g.source.mu.Unlock()
	f.Withdraw("of-apps")
	if got := ask("( tail -c 4 0<&3 )"); !strings.Contains(got, "Input/output error") {
		t.Errorf("it reads %q", got)
	}
	if told := g.reasons(); !slices.Contains(told, "content_changed smb://files/apps/big") {
		t.Errorf("told %q", told)
	}
}

func TestAResourceThatIsFoundMissingIsNotListed(t *testing.T) {
	g := newRig(t, map[string]string{"smb://files/apps/here/a": "a"}, "smb://files/apps/here", "smb://files/apps/missing", "smb://gone/apps/x")
	f := mountRig(t, g)
	for _, step := range [][2]string{
		{"ls files/apps", "here\nmissing"},
		{"cat files/apps/missing", "cat: files/apps/missing: No such file or directory!"},
		{"ls gone/apps/x", "ls: cannot access 'gone/apps/x': No such file or directory!"},
		{"ls files/apps", "here"},
		{"ls", "files"},
		{"cat files/apps/missing", "cat: files/apps/missing: No such file or directory!"},
	} {
		if got := run(t, f, g, step[0]); got != step[1] {
			t.Errorf("%s: %q", step[0], got)
		}
	}
	g.source.mu.Lock()
	g.source.files["smb://files/apps/missing/b"] = []byte("b")
	g.source.mu.Unlock()
	if got := run(t, f, g, "cat files/apps/missing/b; ls files/apps"); got != "bhere\nmissing" {
		t.Errorf("once it is there: %q", got)
	}
}
