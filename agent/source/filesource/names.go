package filesource

import (
	"errors"
	"strings"
)

// The forms that begin with \\?\ are taken literally by Windows: no device names, no names that end with a dot.

// windowsLocal names a path of an address that begins with a drive: /C:/software.
func windowsLocal(path string) (string, error) {
	drive, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if len(drive) != 2 || drive[1] != ':' || strings.Trim(drive[:1], letters) != "" {
		return "", errors.New("on Windows a local path begins with a drive: file:///C:/software")
	}
	if strings.Contains(rest, ":") {
		return "", errors.New("a path has no colon but that of its drive")
	}
	return `\\?\` + drive + `\` + strings.ReplaceAll(rest, "/", `\`), nil
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// windowsShare names a file of a share.
func windowsShare(host, path string) (string, error) {
	share, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch {
	case strings.ContainsAny(host, ":[]"):
		return "", errors.New("on Windows a host has a name and no port: write smb:// for others")
	case strings.Contains(path, ":"):
		return "", errors.New("a path on a share has no colon")
	case strings.EqualFold(share, "pipe") || strings.EqualFold(share, "mailslot") || strings.EqualFold(share, "ipc$"):
		return "", errors.New("that is no share of files")
	}
	return `\\?\UNC\` + host + strings.ReplaceAll(path, "/", `\`), nil
}
