package elevate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/supervise/supervisetest"
	"chandler/events"
)

const probe = `#!/bin/sh
echo "uid $(id -u) by $SUDO_UID as $0 in $(pwd) mask $(umask) input $(wc -c)"
p=$PPID
while [ "$p" -gt 1 ]; do
	echo "parent $(cat /proc/$p/comm)"
	p=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$p/status)
done
exit 42
`

func TestAProgramRunsAsRootByItsAccountAndOnlyDuringItsRun(t *testing.T) {
	m := newMachine(t)
	command := m.file("probe script.sh", probe, 0o700)
	m.ordinary(command, "-i", "a b")

	spec, err := m.keeper.Grant(t.Context(), m.grant(), m.spec(command, "-i", "a b"))
	if err != nil {
		t.Fatal(err)
	}
	outcome, output := m.start(spec)
	if !outcome.Started || outcome.ExitCode != 42 {
		t.Errorf("outcome %+v", outcome)
	}
	want := fmt.Sprintf("uid 0 by %d as %s in %s mask 0022 input 0\n", m.who.UID, command, m.content)
	if !strings.HasPrefix(output, want) || !strings.Contains(output, "parent sudo\n") {
		t.Errorf("the program says %q, want %q and sudo among its parents", output, want)
	}
	for _, other := range [][]string{{command}, {command, "-i"}, {command, "-i", "a b", "c"}, {command, "-i", "a c"}, {"/bin/sh", "-c", "id"}} {
		if out, err := m.bySudo(other...); err == nil {
			t.Errorf("during the run the account may also run %q: %s", other, out)
		}
	}
	if out, err := m.asAccount("cat", command); err == nil {
		t.Errorf("the account itself reads the package: %s", out)
	}
	if out, err := m.asAccount("cat", filepath.Join(m.options.Dir, "chandler-job1-1.env")); err == nil {
		t.Errorf("the account itself reads the environment: %s", out)
	}
	for range 2 {
		if err := m.keeper.Return(t.Context(), m.run); err != nil {
			t.Fatal(err)
		}
	}
	m.ordinary(command, "-i", "a b")
	if diff := cmp.Diff([]string{events.AgentAccountElevated.Name, events.AgentAccountReturned.Name}, m.told); diff != "" {
		t.Error(diff)
	}
	for _, note := range m.notes {
		if note.Account != m.who.Name || note.ElevatedTo != "root" || note.Standing || note.Job != "job1" || note.Means == "" || note.At.IsZero() {
			t.Errorf("note %+v", note)
		}
	}
}

func TestARealPackageIsInstalledThroughSudo(t *testing.T) {
	m := newMachine(t)
	for _, tool := range []string{"dpkg", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
				t.Fatal("install the package dpkg")
			}
			t.Skip("install the package dpkg")
		}
	}
	tree, target := filepath.Join(t.TempDir(), "hello"), t.TempDir()
	m.must(os.MkdirAll(filepath.Join(tree, "DEBIAN"), 0o755))
	m.must(os.WriteFile(filepath.Join(tree, "DEBIAN/control"), []byte("Package: hello\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\nDescription: hello\n"), 0o644))
	m.must(os.WriteFile(filepath.Join(tree, "hello"), []byte("hello"), 0o644))
	m.must(os.MkdirAll(filepath.Join(target, "var/lib/dpkg/info"), 0o755))
	m.must(os.MkdirAll(filepath.Join(target, "var/lib/dpkg/updates"), 0o755))
	m.must(os.WriteFile(filepath.Join(target, "var/lib/dpkg/status"), nil, 0o644))
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "-b", tree, filepath.Join(m.content, "hello_1.deb")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dpkg, err := exec.LookPath("dpkg")
	m.must(err)
	spec, err := m.keeper.Grant(t.Context(), m.grant(), m.spec(dpkg, "--root="+target, "-i", "hello_1.deb"))
	m.must(err)
	if outcome, output := m.start(spec); outcome.ExitCode != 0 {
		t.Errorf("dpkg ended with %d: %s", outcome.ExitCode, output)
	}
	if text, err := os.ReadFile(filepath.Join(target, "hello")); string(text) != "hello" {
		t.Errorf("installed: %q, %v", text, err)
	}
	m.must(m.keeper.Return(t.Context(), m.run))
	m.ordinary(dpkg, "--root="+target, "-i", "hello_1.deb")
}

func TestTheProgramGetsItsArgumentsAndItsEnvironmentExactly(t *testing.T) {
	m := newMachine(t)
	args := []string{"", "a b", "*", "?[x]", `\`, `\*`, `"`, `""`, "'", "#1", "a=b", "a,b:c", "!x", "^x$", "$HOME", "`id`", "%n", "ünïcode", "-n", "--", "~", "a  b", " end ", "(x)"}
	spec := m.spec(supervisetest.Program("describe", args...)...)
	spec.Env = append(spec.Env, "USER=root", "LOGNAME=root", "SHELL=/bin/sh", "TERM=dumb", "MAIL=/var/mail/x", "EMPTY=", "QUOTES='a' \"b\"", `BACK=a\b\`, "SPACE= x ",
		"LD_LIBRARY_PATH=/nowhere", "BASH_ENV=/nowhere", "SUDO_X=1", "Unicode=ü$(id)", "export=1")
	want := slices.Clone(spec.Env)
	granted, err := m.keeper.Grant(t.Context(), m.grant(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer m.keeper.Return(t.Context(), m.run)
	outcome, output := m.start(granted)
	var got supervisetest.Description
	if err := json.Unmarshal([]byte(output), &got); err != nil {
		t.Fatalf("%v: %+v: %s", err, outcome, output)
	}
	if diff := cmp.Diff(args, got.Args); diff != "" {
		t.Error(diff)
	}
	if got.UID != 0 || got.Dir != m.content || got.Input != "" || len(got.Files) > 0 {
		t.Errorf("uid %d, directory %q, input %q, files %q", got.UID, got.Dir, got.Input, got.Files)
	}
	ours := slices.DeleteFunc(got.Env, func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.Contains([]string{"SUDO_COMMAND", "SUDO_USER", "SUDO_UID", "SUDO_GID"}, name)
	})
	slices.Sort(ours)
	slices.Sort(want)
	if diff := cmp.Diff(want, ours); diff != "" {
		t.Error(diff)
	}
}

func TestTheAccountCannotBringItsOwnEnvironmentOrDirectory(t *testing.T) {
	m := newMachine(t)
	argv := supervisetest.Program("describe")
	_, err := m.keeper.Grant(t.Context(), m.grant(), m.spec(argv...))
	m.must(err)
	defer m.keeper.Return(t.Context(), m.run)
	out, err := m.asAccount(append([]string{"env", "HOME=/evil", "TERM=evil", "PATH=/evil:/usr/bin:/bin", "LC_ALL=evil", "DISPLAY=evil", "PERL5LIB=evil", "sudo", "-n", "--"}, argv...)...)
	if err != nil || strings.Contains(out, "evil") {
		t.Errorf("%v: %s", err, out)
	}
	for _, option := range [][]string{{"-E"}, {"-D", "/tmp"}, {"PERL5LIB=evil"}, {"-H", "-u", m.who.Name}, {"-s"}, {"-i"}} {
		if out, err := m.asAccount(slices.Concat([]string{"sudo", "-n"}, option, argv)...); err == nil {
			t.Errorf("sudo %q: %s", option, out)
		}
	}
}

func TestSettingsOfTheMachineDoNotReachTheRun(t *testing.T) {
	m := newMachine(t)
	site := "/etc/sudoers.d/00-site"
	m.must(os.WriteFile(site, []byte(`Defaults requiretty, use_pty, umask=0077, umask_override, always_set_home, noexec, setenv, !env_reset, stay_setuid, preserve_groups
Defaults env_keep += "EVIL", env_check += "EVIL", secure_path="/evil", runas_default=daemon, listpw=always, exempt_group=`+m.who.Name+`
`), 0o440))
	t.Cleanup(func() { os.Remove(site) })
	spec := m.spec(m.file("probe.sh", "#!/bin/sh\n/usr/bin/env | grep -E '^(PATH|HOME|EVIL)=' | sort\numask\n/usr/bin/id -u\n/usr/bin/id -ru\n/usr/bin/id -G\n", 0o700))
	want := "HOME=/home\nPATH=/usr/bin:/bin\n0022\n0\n0\n0\n"
	spec.Env = []string{"HOME=/home", "PATH=/usr/bin:/bin"}
	granted, err := m.keeper.Grant(t.Context(), m.grant(), spec)
	m.must(err)
	granted.Env = append(granted.Env, "EVIL=1")
	if outcome, output := m.start(granted); outcome.ExitCode != 0 || output != want {
		t.Errorf("%+v: %s", outcome, output)
	}
	if out, err := m.asAccount("sudo", "-n", "-u", "#0", "EVIL=1", spec.Argv[0]); err == nil {
		t.Errorf("the account brings a variable: %s", out)
	}
	m.must(m.keeper.Return(t.Context(), m.run))
	m.ordinary(spec.Argv...)
}

func TestAGrantThatIsInterruptedLeavesNothingBehind(t *testing.T) {
	for _, at := range []string{"record", "written", "rule", "expiry"} {
		t.Run("at step "+at, func(t *testing.T) {
			m := newMachine(t)
			ctx, cancel := context.WithCancel(t.Context())
			m.options.reached = func(step string) {
				if step == at {
					cancel()
				}
			}
			m.restart()
			if _, err := m.keeper.Grant(ctx, m.grant(), m.spec("/bin/true")); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			m.ordinary("/bin/true")
			if len(m.told) > 0 {
				t.Errorf("told %q", m.told)
			}
		})
	}
}

func TestASignalThatEndsTheProgramIsSeenThroughSudo(t *testing.T) {
	m := newMachine(t)
	spec, err := m.keeper.Grant(t.Context(), m.grant(), m.spec("/bin/sh", "-c", "kill -TERM $$"))
	m.must(err)
	if outcome, output := m.start(spec); outcome.Signal != "SIGTERM" {
		t.Errorf("%+v: %s", outcome, output)
	}
	m.must(m.keeper.Return(t.Context(), m.run))
	m.ordinary("/bin/sh", "-c", "kill -TERM $$")
}

func TestLongCommandsAreCarriedOrRefused(t *testing.T) {
	m := newMachine(t)
	for _, length := range []int{60 << 10, maxCommand + 1} {
		argv := supervisetest.Program("describe", strings.Repeat("x", length))
		spec, err := m.keeper.Grant(t.Context(), m.grant(), m.spec(argv...))
		if length > maxCommand {
			wantReason(t, err, events.ElevationImpossible, "over")
			continue
		}
		m.must(err)
		if outcome, output := m.start(spec); outcome.ExitCode != 0 || !strings.Contains(output, argv[len(argv)-1]) {
			t.Errorf("%d bytes: %+v: %.200s", length, outcome, output)
		}
		m.must(m.keeper.Return(t.Context(), m.run))
	}
}

func TestAnAdministratorKeepsItsRights(t *testing.T) {
	m := newMachine(t)
	m.who = m.user("boss" + strconv.Itoa(os.Getpid()))
	own := "/etc/sudoers.d/boss"
	m.must(os.WriteFile(own, []byte(m.who.Name+" ALL=(ALL) NOPASSWD: /usr/bin/env\n"), 0o440))
	t.Cleanup(func() { os.Remove(own) })
	m.who.Administrator = true
	g := m.grant()
	g.Kind = SoftwareInstallation
	spec, err := m.keeper.Grant(t.Context(), g, m.spec("/bin/sh", "-c", "exit 3"))
	m.must(err)
	if outcome, output := m.start(spec); outcome.ExitCode != 3 {
		t.Errorf("%+v: %s", outcome, output)
	}
	if out, err := m.bySudo("/usr/bin/env"); err != nil || strings.Contains(out, "CHANDLER_PACKAGE") {
		t.Errorf("what it runs by its own rights, meanwhile: %v: %s", err, out)
	}
	m.restart()
	m.must(m.keeper.Restore(t.Context()))
	if out, err := m.bySudo("/usr/bin/env"); err != nil {
		t.Errorf("its own rights are gone: %v: %s", err, out)
	}
	if out, err := m.bySudo("/bin/sh", "-c", "exit 0"); err == nil {
		t.Errorf("the rule of the run is still there: %s", out)
	}
	if len(m.notes) != 2 || !m.notes[0].Standing || !m.notes[1].Standing || m.told[1] != events.AgentAccountRestored.Name {
		t.Errorf("told %q %+v", m.told, m.notes)
	}
	if day, _, err := expiryDay(m.who.Name); day != neverDay || err != nil {
		t.Errorf("the expiry was changed to %d, %v", day, err)
	}
}

func TestRootHasNothingToBeGiven(t *testing.T) {
	m := newMachine(t)
	m.who.UID = 0
	want := m.spec("/bin/true")
	got, err := m.keeper.Grant(t.Context(), m.grant(), want)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	m.must(m.keeper.Return(t.Context(), m.run))
	if len(m.told) > 0 {
		t.Errorf("told %q", m.told)
	}
}

func TestOneAccountIsElevatedForOneRunAtATime(t *testing.T) {
	m := newMachine(t)
	_, err := m.keeper.Grant(t.Context(), m.grant(), m.spec("/bin/true"))
	m.must(err)
	second := m.grant()
	second.Job, second.Dir = "job2", t.TempDir()
	if _, err := m.keeper.Grant(t.Context(), second, m.spec("/bin/true")); !errors.Is(err, ErrBusy) {
		t.Errorf("the second grant gives %v", err)
	}
	m.must(m.keeper.Return(t.Context(), m.run))
	_, err = m.keeper.Grant(t.Context(), second, m.spec("/bin/true"))
	m.must(err)
	m.must(m.keeper.Return(t.Context(), second.Dir))
	m.ordinary("/bin/true")
}
