package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// unitText is the unit as deploy/systemd has it, for the usual places.
//
//go:embed chandler-agent.service
var unitText string

const usualCommand = "/usr/local/bin/chandler-agent run --config /etc/chandler/agent.yaml"

// systemd keeps the unit in a file of our own making: what fits other services would end installers with the
// agent.
type systemd struct {
	root            string // directory of the system's files; empty: /
	image           bool   // a system that does not run
	program, config string
	systemctl       func(args ...string) error
}

func systemManager(root, program, config string) (manager, error) {
	if root == "" {
		if _, err := os.Stat("/run/systemd/system"); err != nil {
			return nil, errors.New("this machine is not run by systemd: have its service manager run `chandler-agent run`, and leave its children alone when it stops it")
		}
	}
	return &systemd{root, root != "", program, config, systemctl}, nil
}

func systemctl(args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

func (s *systemd) path() string {
	return filepath.Join(s.root, "etc", "systemd", "system", serviceName+".service")
}

// unit is the unit's text for the program and its configuration.
func (s *systemd) unit() (string, error) {
	command := make([]string, 0, 4)
	for _, word := range []string{s.program, "run", "--config", s.config} {
		if strings.ContainsAny(word, "\n\r\x00") {
			return "", fmt.Errorf("%q cannot stand in a unit", word)
		}
		word = strings.NewReplacer("%", "%%", "$", "$$").Replace(word)
		if strings.ContainsAny(word, " \t\"'\\;") {
			word = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(word) + `"`
		}
		command = append(command, word)
	}
	return strings.Replace(unitText, usualCommand, strings.Join(command, " "), 1), nil
}

func (s *systemd) install() (changed bool, err error) {
	want, err := s.unit()
	if err != nil {
		return false, err
	}
	there, err := os.ReadFile(s.path())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	changed = err != nil || string(there) != want
	if changed {
		if err := os.MkdirAll(filepath.Dir(s.path()), 0o755); err != nil {
			return false, err
		}
		if err := replace(s.path(), []byte(want), 0o644); err != nil {
			return false, err
		}
	}
	if s.image {
		return changed, s.enableImage()
	}
	if changed {
		if err := s.systemctl("daemon-reload"); err != nil {
			return true, err
		}
	}
	return changed, s.systemctl("enable", "--quiet", serviceName)
}

// enableImage does what systemctl enable does, for a system that does not run.
func (s *systemd) enableImage() error {
	wants := filepath.Join(filepath.Dir(s.path()), "multi-user.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	err := os.Symlink(filepath.Join("..", filepath.Base(s.path())), filepath.Join(wants, filepath.Base(s.path())))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func (s *systemd) uninstall() (changed bool, err error) {
	if _, err := os.Lstat(s.path()); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if !s.image {
		if err := s.systemctl("disable", "--quiet", "--now", serviceName); err != nil {
			return false, err
		}
	} else if err := os.Remove(filepath.Join(filepath.Dir(s.path()), "multi-user.target.wants", filepath.Base(s.path()))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err := os.Remove(s.path()); err != nil {
		return false, err
	}
	if s.image {
		return true, nil
	}
	return true, s.systemctl("daemon-reload")
}

func (s *systemd) start() error   { return s.systemctl("start", serviceName) }
func (s *systemd) stop() error    { return s.systemctl("stop", serviceName) }
func (s *systemd) restart() error { return s.systemctl("restart", serviceName) }

// underManager runs the agent. Systemd takes what a program writes for its log.
func underManager(ctx context.Context, _ config, run func(context.Context, io.Writer) error) error {
	return run(ctx, os.Stderr)
}
