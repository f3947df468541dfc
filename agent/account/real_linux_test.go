package account

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"chandler/agent/account/accounttest"
)

// lacking names a program that the test's own child process does not find, in a mount namespace of its own.
const lacking = "CHANDLER_TEST_LACKING"

func TestMain(m *testing.M) {
	accounttest.Main()
	os.Exit(m.Run())
}

// freshName is removed, with what was made by that name, when the test ends.
func freshName(t *testing.T) string {
	t.Helper()
	name := "SMSCliTest" + strconv.Itoa(os.Getpid()) + "&"
	accounttest.Forget(t, name)
	return name
}

func TestLookupFindsTheUsersOfThisMachine(t *testing.T) {
	root, err := Lookup(t.Context(), "root")
	if err != nil || root.Name != "root" || root.UID != 0 || !root.Administrator || !root.Local || root.Home == "" || !slices.Contains(root.Groups, 0) {
		t.Errorf("%+v, %v", root, err)
	}
	byNumber, err := LookupUID(t.Context(), 0)
	if err != nil || byNumber.Name != "root" {
		t.Errorf("%+v, %v", byNumber, err)
	}
	if _, err := Lookup(t.Context(), "no-such-user"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
	if _, err := LookupUID(t.Context(), 1<<32-2); err == nil {
		t.Error("there is a user by the last number")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Lookup(cancelled, "root"); !errors.Is(err, context.Canceled) {
		t.Errorf("when cancelled: %v", err)
	}
}

func TestADomainsUserOfTheNameOfALocalOneIsNotLocal(t *testing.T) {
	for uid, local := range map[uint32]bool{0: true, 471100: false} {
		e, err := userEntry(t.Context(), "root")
		if err != nil {
			t.Fatal(err)
		}
		e.uid = uid
		if found, err := complete(t.Context(), e, Administrators()); err != nil || found.Local != local {
			t.Errorf("uid %d: %+v, %v", uid, found, err)
		}
	}
}

func TestTheAccountIsMadeOnceAndIsOrdinary(t *testing.T) {
	accounttest.Need(t)
	name := freshName(t)
	made, created, err := Ensure(t.Context(), name, Options{})
	if err != nil || !created {
		t.Fatalf("created %v, %v", created, err)
	}
	if made.Name != name || made.UID == 0 || made.Administrator || !made.Local || made.Home != noHome || !slices.Equal(made.Groups, []uint32{made.GID}) || !strings.HasSuffix(made.Shell, "/nologin") {
		t.Errorf("%+v", made)
	}
	s, err := shadowOf(t.Context(), name)
	if err != nil || s.password || s.expiration != 1 || s.maximum > 0 {
		t.Errorf("%+v, %v", s, err)
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		if _, err := inFile(file, name); !errors.Is(err, ErrNotFound) {
			t.Errorf("it has users of its own in %s: %v", file, err)
		}
	}
	var unusable *Unusable
	if found, err := Lookup(t.Context(), name); !errors.As(err, &unusable) || found.UID != made.UID || !strings.Contains(unusable.Why, "is disabled") {
		t.Errorf("while no program runs: %+v, %v", found, err)
	}
	if again, created, err := Ensure(t.Context(), name, Options{}); err != nil || created || again.UID != made.UID {
		t.Errorf("again: %+v, created %v, %v", again, created, err)
	}
	accounttest.Do(t, "chage", "-E", "-1", name)
	if _, created, err := Ensure(t.Context(), name, Options{}); err != nil || created {
		t.Errorf("with an expiry that a run took away: created %v, %v", created, err)
	}
	accounttest.Do(t, "userdel", name)
	if _, created, err := Ensure(t.Context(), name, Options{}); err != nil || !created {
		t.Errorf("after it was deleted: created %v, %v", created, err)
	}
}

func TestAnAccountWithMoreThanItShouldHaveIsNeverUsed(t *testing.T) {
	accounttest.Need(t)
	rule := "/etc/sudoers.d/account-test"
	for want, spoil := range map[string]func(t *testing.T, name string){
		"is in group":           func(t *testing.T, name string) { accounttest.Do(t, "usermod", "-a", "-G", "daemon", name) },
		"administrators' group": func(t *testing.T, name string) { accounttest.Do(t, "usermod", "-a", "-G", "sudo", name) },
		"the login shell":       func(t *testing.T, name string) { accounttest.Do(t, "usermod", "-s", "/bin/bash", name) },
		"was not made by":       func(t *testing.T, name string) { accounttest.Do(t, "usermod", "-c", "backup", name) },
		"it has a password": func(t *testing.T, name string) {
			accounttest.Do(t, "usermod", "-p", "$6$salt$hash", name)
			accounttest.Do(t, "usermod", "-s", "/bin/sh", name)
		},
		"has uid 0":                func(t *testing.T, name string) { accounttest.Do(t, "usermod", "-o", "-u", "0", name) },
		"shares its uid with":      func(t *testing.T, name string) { accounttest.Do(t, "usermod", "-o", "-u", "1", name) },
		"the primary group daemon": func(t *testing.T, name string) { accounttest.Do(t, "usermod", "-g", "daemon", name) },
		"must change its password": func(t *testing.T, name string) { accounttest.Do(t, "chage", "-d", "0", name) },
		"may run commands by sudo": func(t *testing.T, name string) {
			e, err := userEntry(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Remove(rule) })
			if err := os.WriteFile(rule, fmt.Appendf(nil, "#%d ALL = (root) NOPASSWD: /bin/true\n", e.uid), 0o440); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(want, func(t *testing.T) {
			name := freshName(t)
			if _, _, err := Ensure(t.Context(), name, Options{}); err != nil {
				t.Fatal(err)
			}
			spoil(t, name)
			_, created, err := Ensure(t.Context(), name, Options{})
			var unusable *Unusable
			if !errors.As(err, &unusable) || created || !strings.Contains(unusable.Why, want) || !strings.Contains(unusable.Error(), name) {
				t.Errorf("created %v, %v", created, err)
			}
		})
	}
}

func TestANameThatCannotBeMadeIsSaid(t *testing.T) {
	accounttest.Need(t)
	for _, name := range []string{`EXAMPLE\alice`, "alice@example.com", "a:b", strings.Repeat("a", 100)} {
		var cannot *CannotMake
		if _, created, err := Ensure(t.Context(), name, Options{}); !errors.As(err, &cannot) || created {
			t.Errorf("%s: created %v, %v", name, created, err)
		}
	}
	// A name that this useradd finds odd is made all the same.
	odd := fmt.Sprintf("Odd Test%d &", os.Getpid())
	accounttest.Forget(t, odd)
	if _, created, err := Ensure(t.Context(), odd, Options{}); err != nil || !created {
		t.Errorf("created %v, %v", created, err)
	}
}

// TestMachinesThatLackAProgram runs itself where one program is not there.
func TestMachinesThatLackAProgram(t *testing.T) {
	if os.Getenv(lacking) != "" {
		withoutProgram(t, os.Getenv(lacking))
		return
	}
	accounttest.Need(t)
	for _, name := range []string{"useradd", "getent", "sudo"} {
		t.Run(name, func(t *testing.T) {
			path, err := program(name)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", `mount --bind /dev/null "$1" && shift && exec "$@"`, "sh", path, os.Args[0], "-test.run=^TestMachinesThatLackAProgram$", "-test.v")
			cmd.Env = append(os.Environ(), lacking+"="+name)
			output, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(output), "--- PASS: TestMachinesThatLackAProgram") {
				t.Errorf("%v: %s", err, output)
			}
		})
	}
}

func withoutProgram(t *testing.T, missing string) {
	if _, err := program(missing); !errors.Is(err, errNoProgram) {
		t.Fatalf("%s is still there: %v", missing, err)
	}
	name := freshName(t)
	_, created, err := Ensure(t.Context(), name, Options{})
	if missing == "useradd" {
		var cannot *CannotMake
		if !errors.As(err, &cannot) || !strings.Contains(cannot.Why, "install it") || created {
			t.Errorf("created %v, %v", created, err)
		}
		return
	}
	if err != nil || !created {
		t.Errorf("created %v, %v", created, err)
	}
	if root, err := LookupUID(t.Context(), 0); err != nil || root.Name != "root" || !root.Administrator {
		t.Errorf("%+v, %v", root, err)
	}
	if _, err := Lookup(t.Context(), "no-such-user"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
}

func FuzzLineOf(f *testing.F) {
	f.Add([]byte("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"), "alice")
	f.Add([]byte("root:x:0:0:root:/root:/bin/sh\n"), "0")
	f.Fuzz(func(t *testing.T, content []byte, key string) {
		line, err := lineOf(content, key)
		if err == nil && !strings.Contains(string(line), key) {
			t.Errorf("line %q for %q", line, key)
		}
	})
}
