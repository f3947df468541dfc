package systemrunner

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/windows"

	"chandler/agent/execute"
	"chandler/agent/lease"
	"chandler/agent/supervise/supervisetest"
)

// TestAProgramIsStartedWithTheTokenOfItsLogon takes a token all the way from the logon to the program. It is one of this
// process's own: Wine's logons give none. So it shows that a token arrives and is a program's; that a program is another account on
// the network only Windows itself shows.
func TestAProgramIsStartedWithTheTokenOfItsLogon(t *testing.T) {
	closed := 0
	runner := &Runner{
		whoAmI: func() (string, bool, error) { return systemName, true, nil },
		logOn: func(string, string, []byte) (uint64, func(), error) {
			var own, token windows.Token
			if err := windows.OpenProcessToken(windows.CurrentProcess(), windows.MAXIMUM_ALLOWED, &own); err != nil {
				return 0, nil, err
			}
			defer own.Close()
			err := windows.DuplicateTokenEx(own, windows.MAXIMUM_ALLOWED, nil, windows.SecurityImpersonation, windows.TokenPrimary, &token)
			return uint64(token), func() { closed++; token.Close() }, err
		},
	}
	executor, err := execute.New(execute.Options{Supervisor: supervisetest.Supervisor(), Runners: map[string]execute.Runner{"system": runner}})
	if err != nil {
		t.Fatal(err)
	}
	l := netLease()
	x, err := executor.Start(t.Context(), execute.Request{
		Job: "j", Attempt: 1, As: "system", Dir: filepath.Join(supervisetest.TempDir(t), "run"),
		Command:  execute.Command{Argv: []string{filepath.Join(os.Getenv("SystemRoot"), "system32", "cmd.exe"), "/c", "exit 7"}},
		NetLogin: func(context.Context) (*lease.Lease, error) { return l, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	result, err := x.Wait(t.Context())
	if err != nil || !result.Outcome.Started || result.Outcome.ExitCode != 7 || result.Executor != systemName {
		t.Errorf("%+v, %v", result, err)
	}
	if l.Secret != nil {
		t.Error("the secret is left")
	}
	if closed != 1 {
		t.Errorf("the token was closed %d times", closed)
	}
}
