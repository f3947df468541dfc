//go:build !linux

package tokenrunner

import "testing"

func lack(t *testing.T, _ string) { t.Skip("run the tests on Linux") }
