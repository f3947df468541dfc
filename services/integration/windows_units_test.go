package integration

import (
	"os/exec"
	"path/filepath"
	"testing"

	"chandler/services/integration/winetest"
)

// windowsPackages have code of their own for Windows. A test that cannot pass under Wine is left out, by the pattern of
// -test.skip and with the reason.
var windowsPackages = []struct{ path, skip, why string }{
	{path: "agent/supervise"},
	{path: "agent/execute"},
	{path: "agent/execute/systemrunner"},
	{"agent/cmlog", "TestOpenRefuses", "a symbolic link made under Wine is none there"},
	{path: "agent/fetch"},
	{path: "agent/journal"},
	{"agent/detect", "TestFile/a_link_to_it_is_too|TestFile/a_path_that_cannot_be_examined_claims_nothing",
		"a symbolic link made under Wine leads nowhere, and a name that is too long does not exist there"},
	{path: "events/msi"},
	{path: "agent/msilog"},
	{path: "agent/installers"},
	{path: "agent/account"},
	{path: "agent/account/newcredentials"},
	{path: "agent/elevate"},
	{path: "agent/logon"},
}

func TestTheTestsOfWindowsCodePassThere(t *testing.T) {
	t.Parallel()
	p := winetest.New(t)
	for _, c := range windowsPackages {
		t.Run(c.path, func(t *testing.T) {
			program := winetest.BuildTest(t, "chandler/"+c.path)
			dir, err := filepath.Abs(filepath.Join(root, c.path))
			must(t, err)
			args := []string{"-test.timeout=2m"}
			if c.skip != "" {
				t.Logf("left out: %s: %s", c.skip, c.why)
				args = append(args, "-test.skip="+c.skip)
			}
			cmd := p.Command(program, args...)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				if exit, ok := err.(*exec.ExitError); !ok || !exit.Exited() {
					t.Fatal(err)
				}
				t.Errorf("the tests fail:\n%s", tail(string(out)))
			}
		})
	}
}
