package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// inUse says that an address could not be listened on because somebody does already.
func inUse(err error) bool {
	const windows = syscall.Errno(10048) // WSAEADDRINUSE
	return errors.Is(err, syscall.EADDRINUSE) || runtime.GOOS == "windows" && errors.Is(err, windows)
}

// hiddenBelow is the directory that keeps users other than its owner from a socket; "": none does, as far as can be told.
func hiddenBelow(socket string) string {
	for dir := filepath.Dir(socket); ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o001 == 0 {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}

// warnHidden says where users of the machine cannot ask the agent for what is available.
func warnHidden(log *slog.Logger, socket string) {
	if socket == "" || runtime.GOOS == "windows" {
		return
	}
	if dir := hiddenBelow(socket); dir != "" {
		log.Warn("users other than the agent's own cannot reach its socket: give it a place that everybody may enter, by local-socket in the configuration", "socket", socket, "closed_directory", dir)
	}
}
