package netfs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/source"
	"chandler/events"
)

// mountRig skips where nothing can be mounted.
func mountRig(t *testing.T, g *rig) *FS {
	t.Helper()
	f, err := Mount(g.Options)
	if errors.Is(err, ErrImpossible) && os.Getenv("CHANDLER_TEST_REQUIRE") != "1" {
		t.Skipf("run as root, with /dev/fuse: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// run runs a command in sight of the mount, by its folder as working directory, and gives what it printed, errors included.
func run(t *testing.T, f *FS, g *rig, script string) string {
	t.Helper()
	out, err := try(f, g, script)
	if err != nil {
		return strings.TrimSpace(out) + "!"
	}
	return strings.TrimSpace(out)
}

func try(f *FS, g *rig, script string) (string, error) {
	cmd := exec.Command("/bin/sh", "-c", `cd "$0" || exit; `+script, g.Mount)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin"}
	if err := f.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

func TestAProgramReadsWhatTheOrderNamesByAnAccountThatItNeverGets(t *testing.T) {
	g := newRig(t, map[string]string{
		"smb://files.example/apps/p/setup.sh":     "#!/bin/sh\necho installed from $(basename $0)\n",
		"smb://files.example/apps/p/My%20App/a":   "alpha",
		"smb://files.example:1445/apps/b":         "beta",
		"https://www.example/pub/c.deb":           "gamma",
		"smb://files.example/apps/elsewhere":      "no",
		"smb://files.example/private/elsewhere":   "no",
		"smb://files.example/apps/p/sub/deep/one": "one",
	}, "smb://files.example/apps/p/*", "smb://files.example:1445/apps", "https://www.example/pub/c.deb")
	f := mountRig(t, g)
	if asked := g.asks(); len(asked) != 0 {
		t.Errorf("asked before anything was read: %q", asked)
	}
	for script, want := range map[string]string{
		"ls":                                                   "files.example\nfiles.example:1445\nhttps:",
		"ls files.example":                                     "apps",
		"ls files.example/apps":                                "p",
		"ls files.example/apps/p":                              "My App\nsetup.sh\nsub",
		"ls https:":                                            "www.example",
		"cat 'files.example/apps/p/My App/a'":                  "alpha",
		"cat FILES.Example/apps/p/sub/deep/one":                "one",
		"cat files.example:1445/apps/b":                        "beta",
		"cat smb://files.example:1445/apps/b":                  "beta",
		"cat https://www.example/pub/c.deb":                    "gamma",
		"files.example/apps/p/setup.sh":                        "installed from setup.sh",
		"find files.example -type f | wc -l":                   "3",
		"stat -c '%s %A %U' files.example/apps/p/sub/deep/one": "3 -r-xr-xr-x root",
		"cat files.example/apps/elsewhere":                     "cat: files.example/apps/elsewhere: Permission denied!",
		"cat files.example/private/elsewhere":                  "cat: files.example/private/elsewhere: Permission denied!",
		"cat other.example/x/y":                                "cat: other.example/x/y: Permission denied!",
		"touch w":                                              "touch: cannot touch 'w': Permission denied!",
		"touch https:/w":                                       "touch: cannot touch 'https:/w': Permission denied!",
		"cat files.example/apps/p/missing":                     "cat: files.example/apps/p/missing: No such file or directory!",
		"touch files.example/apps/p/setup.sh":                  "touch: cannot touch 'files.example/apps/p/setup.sh': Read-only file system!",
		"rm files.example/apps/p/setup.sh":                     "rm: cannot remove 'files.example/apps/p/setup.sh': Read-only file system!",
	} {
		if got := run(t, f, g, script); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	want := map[string]bool{
		"smb://files.example/apps/p": true, "smb://files.example:1445/apps": true, "https://www.example/pub/c.deb": true,
		"credential_denied smb://files.example/apps/elsewhere": true, "credential_denied smb://files.example/private": true,
		"credential_denied smb://other.example": true, "credential_denied smb://w": true, "credential_denied https://w": true, "source_not_found smb://files.example/apps/p/missing": true,
	}
	got := map[string]bool{}
	for _, r := range g.reasons() {
		if got[r] {
			t.Errorf("told twice: %s", r)
		}
		got[r] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if asked := g.asks(); len(asked) != 3 {
		t.Errorf("accounts were asked for %q, once for each resource", asked)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.told[slices.IndexFunc(g.told, func(a events.Access) bool { return a.Reason == events.NoReason })]
	if a.Account != "corp-reader" || a.User != reader1 || a.Version != 3 || a.Identity != "network-access-account" || a.When != events.AccessRun || a.At.IsZero() {
		t.Errorf("told %+v", a)
	}
	for _, a := range g.told {
		if a.Reason == events.CredentialDenied && (a.Account != "" || a.Identity != "network-access-account") {
			t.Errorf("nobody's account was used for %+v", a)
		}
	}
}

func TestALargeFileIsReadWholeByManyAtOnce(t *testing.T) {
	data := make([]byte, 48<<20+12345)
	rand.NewChaCha8([32]byte{1}).Read(data)
	g := newRig(t, map[string]string{"smb://files/apps/big": string(data)}, "smb://files/apps")
	f := mountRig(t, g)
	want := hexSum(string(data))
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if got, err := try(f, g, "sha256sum files/apps/big | cut -d' ' -f1"); strings.TrimSpace(got) != want || err != nil {
				t.Errorf("%s, %v", got, err)
			}
		})
	}
	all.Wait()
	if got := run(t, f, g, "dd if=files/apps/big bs=1000 skip=40000 count=1 2>/dev/null | sha256sum | cut -d' ' -f1"); got != hexSum(string(data[40_000_000:40_001_000])) {
		t.Error("a part from the middle is wrong")
	}
	opened, _ := g.source.asked()
	if len(opened) > 6 { // folders and file
		t.Errorf("opened %q", opened)
	}
	if reads := g.source.readings(); reads > 400 {
		t.Errorf("%d reads for %d bytes", reads, len(data))
	}
}

func hexSum(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

func TestWhatFailsIsAnsweredAndToldForWhatItIs(t *testing.T) {
	rejected := &source.Error{Reason: events.NetworkAccessAccountMissing, Answer: "no account covers it"}
	for name, test := range map[string]struct {
		prepare func(g *rig)
		script  string
		says    string
		told    []string
		asked   int
	}{
		"the account may not read a file": {
			func(g *rig) { g.source.denied["smb://files/apps/a"] = true }, "cat files/apps/a; cat files/apps/a; cat files/apps/b", "Permission denied",
			[]string{"smb://files/apps", "network_access_denied smb://files/apps/a"}, 1},
		"there is no account": {
			func(g *rig) { g.refuse = rejected }, "cat files/apps/a; cat files/apps/b; ls files/apps", "Permission denied",
			[]string{"network_access_account_missing smb://files/apps"}, 1},
		"the agent is not heard": {
			func(g *rig) { g.refuse = &source.Error{Reason: events.CredentialUnavailable, Answer: "x"} }, "cat files/apps/a; cat files/apps/a", "Input/output error",
			[]string{"credential_unavailable smb://files/apps"}, 1},
		"the secret is wrong": {
			func(g *rig) { g.source.secret = "other" }, "cat files/apps/a; cat files/apps/b; cat files/apps/c & cat files/apps/d & wait", "Permission denied",
			[]string{"credential_rejected smb://files/apps"}, 1},
		"the host is mute": {
			func(g *rig) { g.source.mute, g.Patience = make(chan struct{}), 100*time.Millisecond }, "cat files/apps/a", "No route to host",
			[]string{"source_unreachable smb://files/apps"}, 1},
		"a file becomes shorter while it is read": {
			func(g *rig) { g.source.cut["smb://files/apps/long"] = 10 }, "cat files/apps/long", "Input/output error",
			[]string{"smb://files/apps", "content_changed smb://files/apps/long"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, map[string]string{"smb://files/apps/a": "a", "smb://files/apps/b": "b", "smb://files/apps/long": strings.Repeat("x", 3<<20)}, "smb://files/apps")
			test.prepare(g)
			f := mountRig(t, g)
			if got, _ := try(f, g, test.script); !strings.Contains(got, test.says) {
				t.Errorf("the program sees %q", got)
			}
			if diff := cmp.Diff(test.told, g.reasons()); diff != "" {
				t.Error(diff)
			}
			if asked := g.asks(); len(asked) != test.asked {
				t.Errorf("asked for accounts: %q", asked)
			}
			if _, wrong := g.source.asked(); wrong > 1 {
				t.Errorf("%d wrong secrets were shown", wrong)
			}
		})
	}
}

func TestAPinnedFileIsServedOnlyIfItIsWhatWasPinned(t *testing.T) {
	g := newRig(t, map[string]string{"smb://files/apps/Good": strings.Repeat("good", 1<<20), "smb://files/apps/bad": "bad"}, "smb://files/apps")
	g.Pins = map[string]string{
		"smb://files/apps/good": hexSum(strings.Repeat("good", 1<<20)),
		"smb://files/apps/bad":  hexSum("was"),
	}
	f := mountRig(t, g)
	// Letter case does not lead past a pin.
	if got := run(t, f, g, "sha256sum files/apps/Good | cut -d' ' -f1"); got != g.Pins["smb://files/apps/good"] {
		t.Errorf("the good one: %s", got)
	}
	g.source.mu.Lock()
	reads := g.source.reads
	g.source.files["smb://files/apps/Good"] = []byte("changed")
	g.source.mu.Unlock()
	if got := run(t, f, g, "cat files/apps/Good | sha256sum | cut -d' ' -f1"); got != g.Pins["smb://files/apps/good"] {
		t.Errorf("the good one again: %s", got)
	}
	if again := g.source.readings(); again != reads {
		t.Errorf("read %d times more", again-reads)
	}
	for range 2 {
		if got := run(t, f, g, "cat files/apps/bad"); got != "cat: files/apps/bad: Input/output error!" {
			t.Errorf("the bad one: %s", got)
		}
	}
	if diff := cmp.Diff([]string{"smb://files/apps", "content_changed smb://files/apps/bad"}, g.reasons()); diff != "" {
		t.Error(diff)
	}
	entries, err := os.ReadDir(g.Dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
}

func TestAnAccountIsAskedForAgainWhenItsTimeIsOver(t *testing.T) {
	g := newRig(t, map[string]string{"smb://files/apps/a": "a", "smb://files/apps/b": "b", "smb://files/apps/c": "c"}, "smb://files/apps")
	g.life = 10 * time.Minute
	f := mountRig(t, g)
	run(t, f, g, "cat files/apps/a")
	run(t, f, g, "cat files/apps/b")
	g.elapse(11 * time.Minute)
	if got := run(t, f, g, "cat files/apps/c"); got != "c" {
		t.Errorf("read %q", got)
	}
	if asked := g.asks(); len(asked) != 2 {
		t.Errorf("asked %q", asked)
	}
	if !blank(g.lent[0].Secret) || blank(g.lent[1].Secret) {
		t.Error("the first secret is to be overwritten, the second not yet")
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if !blank(g.lent[1].Secret) {
		t.Error("a secret is left")
	}
}

func TestNobodyElseSeesTheMount(t *testing.T) {
	g := newRig(t, map[string]string{"smb://files/apps/a": "a"}, "smb://files/apps")
	f := mountRig(t, g)
	if entries, err := os.ReadDir(g.Mount); err != nil || len(entries) != 0 {
		t.Errorf("seen from outside: %v, %v", entries, err)
	}
	if strings.Contains(mounts(t, "self"), g.Mount) {
		t.Error("it is among the mounts of this process")
	}
	holder, in := hold(t, f, g)
	if !strings.Contains(mounts(t, fmt.Sprint(holder.Process.Pid)), g.Mount+" fuse.chandler ro,nosuid,nodev") {
		t.Errorf("mounts of the program:\n%s", mounts(t, fmt.Sprint(holder.Process.Pid)))
	}
	in.Close()
	holder.Wait()
}

func TestACallerThatIsNotTheProgramsIsRefused(t *testing.T) {
	g := newRig(t, map[string]string{"smb://files/apps/a": "a"}, "smb://files/apps")
	g.Inside = func(int) bool { return false }
	f := mountRig(t, g)
	for _, script := range []string{"ls", "ls files", "cat files/apps/a", "stat files/apps/a"} {
		if got := run(t, f, g, script); !strings.Contains(got, "Permission denied") {
			t.Errorf("%s: %q", script, got)
		}
	}
	if asked := g.asks(); len(asked) != 0 {
		t.Errorf("asked %q", asked)
	}
}

// hold starts a program that stays, with a file of the mount open, until its standard input ends.
func hold(t *testing.T, f *FS, g *rig) (*exec.Cmd, io.WriteCloser) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", `exec 3<"$0/files/apps/a" && echo ready && read x; cat <&3; cat "$0/files/apps/a"`, g.Mount)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr, cmd.Env = &errs, []string{"LC_ALL=C", "PATH=/usr/bin:/bin"}
	if err := f.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("the program said %q", errs.String())
		}
	})
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	return cmd, in
}

func mounts(t *testing.T, pid string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", pid, "mounts"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestWhoIsLeftBehindWhenTheMountGoesGetsErrors(t *testing.T) {
	g := newRig(t, map[string]string{"smb://files/apps/a": strings.Repeat("a", 4<<20)}, "smb://files/apps")
	f := mountRig(t, g)
	holder, in := hold(t, f, g)
	pid := fmt.Sprint(holder.Process.Pid)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(mounts(t, pid), g.Mount) {
		t.Error("the program that is left still has the mount")
	}
	if _, err := os.ReadFile("/proc/" + pid + "/fd/3"); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("its open file says %v", err)
	}
	in.Close()
	var exit *exec.ExitError
	if err := holder.Wait(); !errors.As(err, &exit) {
		t.Errorf("the program read on: %v", err)
	}
}

func TestClosingEndsWhatWaitsForAMuteHost(t *testing.T) {
	g := newRig(t, map[string]string{"smb://files/apps/a": "a"}, "smb://files/apps")
	g.source.mute, g.source.met = make(chan struct{}), make(chan struct{}, 1)
	f := mountRig(t, g)
	said := make(chan string)
	cmd := exec.Command("/bin/cat", g.Mount+"/files/apps/a")
	if err := f.Start(cmd); err != nil {
		t.Fatal(err)
	}
	go func() { said <- fmt.Sprint(cmd.Wait()) }()
	<-g.source.met
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if got := <-said; got != "exit status 1" {
		t.Errorf("the program: %s", got)
	}
	if told := g.reasons(); len(told) != 0 {
		t.Errorf("told %q of a program that has ended", told)
	}
}
