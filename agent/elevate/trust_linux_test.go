package elevate

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"chandler/agent/supervise"
	"chandler/events"
)

func TestAccountsAreNotElevatedForWhatTheyCouldChange(t *testing.T) {
	for name, test := range map[string]struct {
		spoil  func(m *machine, spec *supervise.Spec)
		reason events.Reason
		words  []string
	}{
		"the command is the account's": {func(m *machine, spec *supervise.Spec) {
			m.must(os.Chown(spec.Argv[0], int(m.who.UID), 0))
		}, events.ElevationImpossible, []string{"the command", "probe.sh", "belongs to uid", "mode 0700"}},
		"a group may write the command": {func(m *machine, spec *supervise.Spec) {
			m.must(os.Chmod(spec.Argv[0], 0o770))
		}, events.ElevationImpossible, []string{"gid 0, mode 0770"}},
		"everybody may write the directory of the command": {func(m *machine, spec *supervise.Spec) {
			m.must(os.Chmod(m.content, 0o777))
		}, events.ElevationImpossible, []string{"content", "mode 0777"}},
		"the directory of the command is sticky": {func(m *machine, spec *supervise.Spec) {
			m.must(os.Chmod(m.content, 0o777|os.ModeSticky))
		}, events.ElevationImpossible, []string{"content", "mode 1777"}},
		"the run's directory is the account's": {func(m *machine, spec *supervise.Spec) {
			m.must(os.Chown(m.run, int(m.who.UID), 0))
		}, events.ElevationImpossible, []string{"belongs to uid"}},
		"the command is behind a link that the account could turn": {func(m *machine, spec *supervise.Spec) {
			theirs := filepath.Join(m.TempDir(), "theirs")
			m.must(os.Mkdir(theirs, 0o755))
			m.must(os.Chown(theirs, int(m.who.UID), 0))
			m.must(os.Symlink(spec.Argv[0], filepath.Join(theirs, "hop")))
			link := filepath.Join(m.content, "link")
			m.must(os.Symlink(filepath.Join(theirs, "hop"), link))
			spec.Argv[0] = link
		}, events.ElevationImpossible, []string{"theirs", "belongs to uid"}},
		"the command is behind a link of the account's among everybody's files": {func(m *machine, spec *supervise.Spec) {
			everybodys := filepath.Join(m.TempDir(), "everybody's")
			m.must(os.Mkdir(everybodys, 0o755))
			m.must(os.Chmod(everybodys, 0o777|os.ModeSticky))
			link := filepath.Join(everybodys, "link")
			m.must(os.Symlink(m.content, link))
			m.must(os.Lchown(link, int(m.who.UID), 0))
			spec.Argv[0] = filepath.Join(link, "probe.sh")
		}, events.ElevationImpossible, []string{"link", "belongs to uid"}},
		"the command is in a file system that anybody could have mounted": {func(m *machine, spec *supervise.Spec) {
			everybodys := filepath.Join(m.TempDir(), "everybody's")
			m.must(os.MkdirAll(filepath.Join(everybodys, "theirs"), 0o755))
			m.must(os.Chmod(everybodys, 0o777|os.ModeSticky))
			theirs := filepath.Join(everybodys, "theirs")
			m.must(unix.Mount("tmpfs", theirs, "tmpfs", 0, "mode=0755"))
			m.Cleanup(func() { unix.Unmount(theirs, unix.MNT_DETACH) })
			spec.Argv[0] = filepath.Join(theirs, "probe.sh")
			m.must(os.WriteFile(spec.Argv[0], []byte(probe), 0o700))
		}, events.ElevationImpossible, []string{"file system of its own"}},
		"there is no directory of rules": {func(m *machine, spec *supervise.Spec) {
			m.must(os.Rename("/etc/sudoers.d", "/etc/sudoers.away"))
			m.Cleanup(func() { os.Rename("/etc/sudoers.away", "/etc/sudoers.d") })
		}, events.ElevationImpossible, []string{"the directory of rules", "no such file"}},
		"the directory of rules leads to where the account may write": {func(m *machine, spec *supervise.Spec) {
			theirs := m.TempDir()
			m.must(os.Chown(theirs, int(m.who.UID), 0))
			m.must(os.Rename("/etc/sudoers.d", "/etc/sudoers.away"))
			m.must(os.Symlink(theirs, "/etc/sudoers.d"))
			m.Cleanup(func() { os.Remove("/etc/sudoers.d"); os.Rename("/etc/sudoers.away", "/etc/sudoers.d") })
		}, events.ElevationImpossible, []string{"the directory of rules", "belongs to uid"}},
		"the interpreter is the account's": {func(m *machine, spec *supervise.Spec) {
			shell := m.file("sh", "#!/bin/sh\n", 0o755)
			m.must(os.Chown(shell, int(m.who.UID), 0))
			spec.Argv[0] = m.file("script", "#! "+shell+" -e\nexit\n", 0o755)
		}, events.ElevationImpossible, []string{"content/sh", "belongs to uid"}},
		"an access control list lets the account write the command": {func(m *machine, spec *supervise.Spec) {
			out, err := exec.Command("setfacl", "-m", "u:"+m.who.Name+":rw", spec.Argv[0]).CombinedOutput()
			if err != nil {
				m.Fatalf("setfacl: %v: %s", err, out)
			}
		}, events.ElevationImpossible, []string{"access control list"}},
		"the working directory is the account's": {func(m *machine, spec *supervise.Spec) {
			spec.Dir = m.TempDir()
			m.must(os.Chown(spec.Dir, int(m.who.UID), 0))
		}, events.ElevationImpossible, []string{"the working directory"}},
		"the working directory is everybody's": {func(m *machine, spec *supervise.Spec) { spec.Dir = "/tmp" },
			events.ElevationImpossible, []string{"the working directory", "/tmp"}},
		"the package's files are the account's": {func(m *machine, spec *supervise.Spec) {
			dir := m.TempDir()
			m.must(os.Chown(dir, int(m.who.UID), 0))
			spec.Env = append(spec.Env, "CHANDLER_PACKAGE="+dir)
		}, events.ElevationImpossible, []string{"the package's files"}},
		"the directory for temporary files is the account's": {func(m *machine, spec *supervise.Spec) {
			dir := m.TempDir()
			m.must(os.Chown(dir, int(m.who.UID), 0))
			spec.Env = append(spec.Env, "TMPDIR="+dir)
		}, events.ElevationImpossible, []string{"temporary files"}},
		"a directory on the PATH is the account's": {func(m *machine, spec *supervise.Spec) {
			dir := m.TempDir()
			m.must(os.Chown(dir, int(m.who.UID), 0))
			spec.Env = append(spec.Env, "PATH=/usr/bin:"+dir)
		}, events.ElevationImpossible, []string{"on the PATH", "can be written by"}},
		"the PATH leads to where the program happens to be": {func(m *machine, spec *supervise.Spec) {
			spec.Env = append(spec.Env, "PATH=/usr/bin:.")
		}, events.ElevationImpossible, []string{"not an absolute path"}},
		"a variable has two lines": {func(m *machine, spec *supervise.Spec) { spec.Env = append(spec.Env, "A=1\n2") },
			events.ElevationImpossible, []string{`"A"`, "file of the package"}},
		"an argument has two lines": {func(m *machine, spec *supervise.Spec) { spec.Argv = append(spec.Argv, "1\n2") },
			events.ElevationImpossible, []string{"script of the package"}},
		"there is no such command": {func(m *machine, spec *supervise.Spec) { spec.Argv[0] += "x" },
			events.CommandNotFound, []string{"no such file"}},
		"the interpreter is missing": {func(m *machine, spec *supervise.Spec) {
			spec.Argv[0] = m.file("script", "#!/nowhere/sh\n", 0o755)
		}, events.CommandNotFound, []string{"/nowhere"}},
		"the command has no execute permission": {func(m *machine, spec *supervise.Spec) { m.must(os.Chmod(spec.Argv[0], 0o600)) },
			events.CommandNotExecutable, []string{"execute permission"}},
		"the command is a directory": {func(m *machine, spec *supervise.Spec) { spec.Argv[0] = m.content },
			events.CommandNotExecutable, []string{"not a file"}},
		"the working directory is missing": {func(m *machine, spec *supervise.Spec) { spec.Dir += "x" },
			events.BadWorkingDirectory, []string{"no such file"}},
		"somebody ended the account": {func(m *machine, spec *supervise.Spec) {
			if out, err := exec.Command("chage", "-E", "100", "--", m.who.Name).CombinedOutput(); err != nil {
				m.Fatalf("%v: %s", err, out)
			}
			m.Cleanup(func() { exec.Command("chage", "-E", "1", "--", m.who.Name).Run() })
		}, events.AccountUnusable, []string{"day 100"}},
		"the account is gone": {func(m *machine, spec *supervise.Spec) {
			if out, err := exec.Command("userdel", "--", m.who.Name).CombinedOutput(); err != nil {
				m.Fatalf("%v: %s", err, out)
			}
		}, events.AccountUnusable, []string{"no entry"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			if _, err := exec.LookPath("setfacl"); err != nil && strings.Contains(name, "access control list") {
				if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
					t.Fatal("install the package acl")
				}
				t.Skip("install the package acl")
			}
			spec := m.spec(m.file("probe.sh", probe, 0o700))
			test.spoil(m, &spec)
			_, err := m.keeper.Grant(t.Context(), m.grant(), spec)
			wantReason(t, err, test.reason, test.words...)
			if day, found, err := expiryDay(m.who.Name); err != nil || found && day == neverDay {
				t.Errorf("the account lives: %d, %v", day, err)
			}
			left, _ := filepath.Glob("/etc/sudoers.d/chandler*")
			records, _ := filepath.Glob(filepath.Join(m.options.Dir, "*"))
			if len(left)+len(records) > 0 || len(m.told) > 0 {
				t.Errorf("left %q %q, told %q", left, records, m.told)
			}
		})
	}
}

func TestPathsThatOnlyRootCanChangeAreFine(t *testing.T) {
	m := newMachine(t)
	if err := rootsOrSticky("/tmp"); err != nil {
		t.Error(err)
	}
	m.must(os.MkdirAll(filepath.Join(m.content, "a", "b"), 0o700))
	m.must(os.Symlink("a/b", filepath.Join(m.content, "link")))
	real := filepath.Join(m.content, "a", "b")
	for _, path := range []string{real, filepath.Join(m.content, "link"), m.content + "/link/../b/.", m.content + "//a/./b/"} {
		if got, err := rootsAlone(path); got != real || err != nil {
			t.Errorf("%s is %s, %v", path, got, err)
		}
	}
	m.must(os.Symlink("loop", filepath.Join(m.content, "loop")))
	if _, err := rootsAlone(filepath.Join(m.content, "loop")); err == nil {
		t.Error("a loop ends somewhere")
	}
}

func TestAMachineThatCannotElevateSaysWhatToInstall(t *testing.T) {
	for name, test := range map[string]struct {
		sudo  string // a program of that name; "" is none
		words []string
	}{
		"without sudo":        {"", []string{"sudo is not on this machine", "install"}},
		"with an old sudo":    {"Sudo version 1.9.2", []string{"1.9.2", "install sudo 1.9.3 or later"}},
		"with a sudo in Rust": {"sudo-rs 0.2.8", []string{"sudo-rs 0.2.8", "install sudo 1.9.3 or later"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			tools := t.TempDir()
			if test.sudo != "" {
				for _, tool := range []string{"sudo", "visudo", "chage"} {
					m.must(os.WriteFile(filepath.Join(tools, tool), []byte("#!/bin/sh\necho '"+test.sudo+"'\n"), 0o755))
				}
			}
			m.keeper.system.(*sudo).search = []string{tools}
			_, err := m.keeper.Grant(t.Context(), m.grant(), m.spec("/bin/true"))
			wantReason(t, err, events.ElevationImpossible, test.words...)
		})
	}
}

func TestASudoThatOthersMayReplaceIsNotAsked(t *testing.T) {
	m := newMachine(t)
	tools, asked := t.TempDir(), filepath.Join(t.TempDir(), "asked")
	for _, tool := range []string{"sudo", "visudo", "chage"} {
		m.must(os.WriteFile(filepath.Join(tools, tool), []byte("#!/bin/sh\n: > "+asked+"\necho 'Sudo version 1.9.13'\n"), 0o755))
	}
	m.must(os.Chmod(tools, 0o777))
	m.keeper.system.(*sudo).search = []string{tools}
	_, err := m.keeper.Grant(t.Context(), m.grant(), m.spec("/bin/true"))
	wantReason(t, err, events.ElevationImpossible, "is not to be trusted", tools)
	if _, err := os.Stat(asked); err == nil {
		t.Error("the agent ran it as root")
	}
}

func TestAnAgentThatIsNotRootSaysSo(t *testing.T) {
	m := newMachine(t)
	home := t.TempDir()
	m.must(os.Chmod(filepath.Dir(home), 0o755))
	m.must(os.Chown(home, int(m.who.UID), int(m.who.GID)))
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", asAgent, `{"Records":"`+home+`","Grant":{"dir":"/run","account":{"Name":"x","UID":1},"kind":"client-token","job":"j","attempt":1},"Spec":{"argv":["/bin/true"],"dir":"/"}}`)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: m.who.UID, Gid: m.who.GID}}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "does not run as root") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestSudoThatRefusesTheRuleIsBelieved(t *testing.T) {
	m := newMachine(t)
	m.must(os.WriteFile("/etc/sudoers.d/zz-site", []byte("ALL ALL=(ALL) !ALL\n"), 0o440)) // the last rule counts
	t.Cleanup(func() { os.Remove("/etc/sudoers.d/zz-site") })
	_, err := m.keeper.Grant(t.Context(), m.grant(), m.spec("/bin/true"))
	wantReason(t, err, events.ElevationImpossible, "sudo does not let", m.who.Name)
	m.ordinary("/bin/true")
	if len(m.told) > 0 {
		t.Errorf("told %q", m.told)
	}
}

func TestInterpretersOfScripts(t *testing.T) {
	for line, want := range map[string]string{
		"#!/bin/sh\n": "/bin/sh", "#! /usr/bin/env python3\n": "/usr/bin/env", "#!/bin/sh": "/bin/sh", "#!\t/bin/sh -e\n": "/bin/sh", "\x7fELF": "", "": "", "#\n": "",
	} {
		if got, err := parseInterpreter(line); got != want || err != nil {
			t.Errorf("%q: %q, %v", line, got, err)
		}
	}
	for _, line := range []string{"#!\n", "#!sh\n", "#!   "} {
		if got, err := parseInterpreter(line); err == nil {
			t.Errorf("%q: %q", line, got)
		}
	}
}

func FuzzInterpreter(f *testing.F) {
	f.Add("#!/bin/sh -e\n")
	f.Fuzz(func(t *testing.T, line string) {
		if got, err := parseInterpreter(line); err == nil && got != "" && (got[0] != '/' || !strings.Contains(line, got)) {
			t.Errorf("%q: %q", line, got)
		}
	})
}

func FuzzExpiry(f *testing.F) {
	f.Add([]byte("root:*:1:0:99999:7:::\nname:!:1:0:99999:7::100:\n"), "name")
	f.Add([]byte("name:!:1:0:99999:7:::\n"), "name")
	f.Add([]byte("name:!\n"), "name")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		if _, found, err := parseExpiry(data, name); found && err == nil && !strings.Contains(string(data), name+":") {
			t.Errorf("%q has %q", data, name)
		}
	})
}
