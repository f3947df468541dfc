package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"chandler/agent/host"
)

// finding is the outcome of one check: nil err is well; advice says what to do else.
type finding struct {
	what, said string
	err        error
}

func doctorCommand(file *string) *cobra.Command {
	return &cobra.Command{Use: "doctor", Short: "check this agent's configuration and surroundings; a broker that is away is one finding among others", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := readConfig(*file, nil)
			if err != nil {
				return err
			}
			bad := 0
			for _, f := range examine(c.Context(), conf) {
				mark := "ok   "
				if f.err != nil {
					mark, f.said = "FAIL ", f.err.Error()
					bad++
				}
				fmt.Fprintf(c.OutOrStdout(), "%s %-16s %s\n", mark, f.what, f.said)
			}
			if bad > 0 {
				return fmt.Errorf("%d checks failed", bad)
			}
			return nil
		}}
}

func examine(ctx context.Context, c config) []finding {
	var all []finding
	check := func(what string, said string, err error) { all = append(all, finding{what, said, err}) }

	t, err := c.readTrust()
	check("trust", fmt.Sprintf("fleet %s, %d keys, %d signatures needed", t.Fleet, len(t.Keys), t.Threshold), err)
	check("state directory", c.StateDir+" is closed to others", private(c.StateDir, 0o700))
	check("agent key", "is closed to others", private(filepath.Join(c.StateDir, "agent.key"), 0o600))
	free, err := host.FreeBytes(existing(c.StateDir))
	if err == nil && free < 100<<20 {
		err = fmt.Errorf("only %d MiB are free below %s", free>>20, c.StateDir)
	}
	check("disk", fmt.Sprintf("%d MiB free", free>>20), err)
	if os.Geteuid() > 0 {
		check("rights", "", errors.New("the agent's programs run with this user's rights only: run it as root"))
	} else {
		check("rights", "programs run as system", nil)
	}
	for _, server := range c.Servers {
		check("broker", server+" answers", reach(ctx, server))
	}
	return all
}

// private says whether a path is closed to group and others; a path that is not there yet is fine.
func private(path string, mode os.FileMode) error {
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && os.PathSeparator == '/' && st.Mode().Perm()&^mode != 0 {
		return fmt.Errorf("%s has mode %o: chmod %o %s", path, st.Mode().Perm(), mode, path)
	}
	return err
}

// existing is the nearest directory above path that is there.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || filepath.Dir(path) == path {
			return path
		}
		path = filepath.Dir(path)
	}
}

func reach(ctx context.Context, server string) error {
	u, err := url.Parse(server)
	if err != nil {
		return fmt.Errorf("broker URL: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	port := u.Port()
	if port == "" {
		port = "4222"
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return fmt.Errorf("%s: %w (the agent goes on with what it knows, and keeps trying)", server, err)
	}
	return conn.Close()
}
