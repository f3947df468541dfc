package host

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"

	gopsutil "github.com/shirou/gopsutil/v4/host"
	"golang.org/x/sys/unix"
)

func systemDomain(ctx context.Context) (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", err
	}
	domain, err := qualify(ctx, name, net.DefaultResolver)
	if domain == "local" { // Bonjour's, which every machine has
		domain = ""
	}
	return domain, err
}

func timeZone(context.Context) (string, error) {
	if zone := os.Getenv("TZ"); zone != "" {
		return zone, nil
	}
	link, err := os.Readlink("/etc/localtime")
	if err != nil {
		return "", err
	}
	_, name, ok := strings.Cut(link, "zoneinfo/")
	if !ok {
		return "", errors.New("/etc/localtime does not name a zone")
	}
	return name, nil
}

func machineMarks(ctx context.Context) ([]string, error) {
	id, err := gopsutil.HostIDWithContext(ctx)
	if err != nil {
		return nil, err
	}
	if id == "" {
		return nil, errors.New("the system does not say")
	}
	return []string{id}, nil
}

func bootID(context.Context) (string, error) {
	id, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return "", err
	}
	if id == "" {
		return "", errors.New("the system does not say")
	}
	return hashed("boot", id), nil
}
