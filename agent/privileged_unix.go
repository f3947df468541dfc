//go:build unix

package agent

import "os"

func privileged() bool { return os.Geteuid() == 0 }
