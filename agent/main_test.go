package agent

import (
	"os"
	"testing"

	"chandler/agent/supervise/supervisetest"
)

// TestMain lets this binary be the supervisor of programs that tests run.
func TestMain(m *testing.M) {
	supervisetest.Main()
	os.Exit(m.Run())
}
