//go:build unix

package supervisetest

import "syscall"

func detachedAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
