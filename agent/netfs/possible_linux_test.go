package netfs

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// asked is the variable by which the test below runs itself.
const asked = "CHANDLER_TEST_MAY_MOUNT"

func TestWhatKeepsFromMountingIsKnownBeforehandAndNothingIsLeft(t *testing.T) {
	if os.Getenv(asked) != "" {
		t.Fatal(Possible())
	}
	namespace := func() string {
		name, err := os.Readlink("/proc/self/ns/mnt")
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	before := namespace()
	mountRig(t, newRig(t, nil, "smb://files.example/apps"))
	if err := Possible(); err != nil {
		t.Errorf("where there is a mount already: %v", err)
	}
	if after := namespace(); after != before {
		t.Errorf("this process is in %s, was in %s", after, before)
	}
	// As root in a service that is not given the right to mount.
	confined := exec.Command("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", os.Args[0], "-test.run", "^"+t.Name()+"$")
	confined.Env = append(os.Environ(), asked+"=1")
	if said, err := confined.CombinedOutput(); err == nil || !strings.Contains(string(said), "references cannot be mounted: make a mount namespace: operation not permitted") {
		t.Errorf("%v: %s", err, said)
	}
}

func TestAProgramInheritsNoDescriptorOfTheMount(t *testing.T) {
	g := newRig(t, map[string]string{"smb://files.example/apps/a": "a"}, "smb://files.example/apps")
	f := mountRig(t, g)
	const list = "cd /; exec ls -l /proc/self/fd"
	want, err := exec.Command("/bin/sh", "-c", list).Output() // what whoever runs the tests left open
	if err != nil {
		t.Fatal(err)
	}
	got := run(t, f, g, "cat files.example/apps/a >/dev/null; "+list)
	if lines := strings.Count(strings.TrimSpace(string(want)), "\n"); strings.Count(got, "\n") != lines || strings.Contains(got, "fuse") || strings.Contains(got, g.Dir) {
		t.Errorf("it holds\n%s\nand without the mount\n%s", got, want)
	}
}
