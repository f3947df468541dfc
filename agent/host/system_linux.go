package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
)

const maxSystemFile = 4 << 10 // bytes; these files hold a line

func systemDomain(ctx context.Context) (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", err
	}
	return qualify(ctx, name, net.DefaultResolver)
}

func timeZone(context.Context) (string, error) { return zoneIn("/", os.Getenv("TZ")) }

func machineMarks(context.Context) ([]string, error) { return marksIn("/") }

func bootID(context.Context) (string, error) { return bootIn("/") }

// marksIn reads the id of the installed system and, where the agent may, that
// of the hardware, because machines are often cloned with the former.
func marksIn(root string) ([]string, error) {
	id, err := readLine(root, "etc/machine-id")
	if err != nil || id == "" || id == "uninitialized" {
		if id, err = readLine(root, "var/lib/dbus/machine-id"); err != nil {
			return nil, fmt.Errorf("no machine id: %w", err)
		}
	}
	if id == "" {
		return nil, errors.New("the machine id is empty")
	}
	hardware, err := readLine(root, "sys/class/dmi/id/product_uuid")
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("hardware id: %w", err)
	}
	return []string{id, hardware}, nil
}

// bootIn combines the kernel's boot id with the start of process 1: a container
// that restarts keeps its host's kernel.
func bootIn(root string) (string, error) {
	id, err := readLine(root, "proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	stat, err := readLine(root, "proc/1/stat")
	if err != nil {
		return "", err
	}
	// The command, in parentheses, may contain blanks and parentheses.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	const startTime = 22 - 3 // the fields after the command begin with the third
	if id == "" || len(fields) <= startTime {
		return "", errors.New("boot id or start of process 1 cannot be understood")
	}
	return hashed("boot", id, fields[startTime]), nil
}

// zoneIn tells the name of the time zone by TZ, by the link that /etc/localtime
// is, or by Debian's /etc/timezone. Without any of them the system runs on UTC.
func zoneIn(root, env string) (string, error) {
	if env = strings.TrimPrefix(env, ":"); env != "" && !filepath.IsAbs(env) {
		return env, nil
	}
	link, err := os.Readlink(filepath.Join(root, "etc/localtime"))
	if errors.Is(err, fs.ErrNotExist) {
		return "UTC", nil
	}
	if _, name, ok := strings.Cut(link, "zoneinfo/"); err == nil && ok {
		return name, nil
	}
	name, err := readLine(root, "etc/timezone")
	if err != nil {
		return "", fmt.Errorf("/etc/localtime does not name a zone, and there is no other: %w", err)
	}
	return name, nil
}

// readLine reads a small file below root without the blanks around its text.
func readLine(root, path string) (string, error) {
	f, err := os.Open(filepath.Join(root, path))
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSystemFile))
	return strings.TrimSpace(string(data)), err
}
