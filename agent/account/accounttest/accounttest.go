// Package accounttest lets tests make and spoil users and rules of sudo without harm: it gives the test's process an /etc of
// its own, a copy that goes with it, whatever the test leaves there.
//
// The TestMain of a package that uses it calls Main, after supervisetest.Main where that is used too.
package accounttest

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"
)

// private says in the environment whether this process has an /etc of its own: "yes", or why it has not.
const private = "CHANDLER_TEST_PRIVATE_ETC"

// Main starts the test's binary again with an /etc of its own, and returns there. Where that is impossible Need says why.
func Main() {
	if os.Getenv(private) == "" {
		os.Setenv(private, privateEtc())
		again()
	}
}

// Need skips a test that makes users where it cannot be done without harm; with CHANDLER_TEST_REQUIRE=1 it fails it.
func Need(t testing.TB) {
	t.Helper()
	why := os.Getenv(private)
	switch {
	case why == "yes":
	case os.Getenv("CHANDLER_TEST_REQUIRE") == "1":
		t.Fatal(why)
	default:
		t.Skip(why)
	}
}

// User makes a user with these arguments of useradd, who goes when the test ends.
func User(t testing.TB, name string, args ...string) {
	t.Helper()
	Do(t, "useradd", append(args, "--", name)...)
	Forget(t, name)
}

// Forget removes the user of that name, if there is one then, when the test ends.
func Forget(t testing.TB, name string) {
	t.Cleanup(func() {
		exec.Command("userdel", "--force", "--", name).Run() // forced: also one that was given the number of running processes
		exec.Command("groupdel", "--", name).Run()
	})
}

// Do runs a program of the system, which must succeed.
func Do(t testing.TB, program string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if said, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v: %s", program, args, err, said)
	}
}
