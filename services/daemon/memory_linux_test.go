package daemon

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// asProgram makes this test's process a program of its own: what it does to itself does not end.
const asProgram = "CHANDLER_TEST_PRIVATE_MEMORY"

func TestAProgramThatHoldsSecretsDumpsNoCore(t *testing.T) {
	if os.Getenv(asProgram) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), asProgram+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	most := unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &most); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := KeepMemoryPrivate(); err != nil {
			t.Fatal(err)
		}
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit.Cur != 0 || limit.Max != most.Max {
			t.Errorf("limit %+v, %v", limit, err)
		}
		if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 0 {
			t.Errorf("dumpable %d, %v", dumpable, err)
		}
	}
}
