package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chandler/agent"
	"chandler/agent/enrol"
	"chandler/agent/host"
	"chandler/agent/logon"
	"chandler/events"
	"chandler/services/daemon"
)

// finding is the outcome of one check: nil err is well; advice says what to do else.
type finding struct {
	what, said string
	err        error
	mild       bool // it concerns only some programs
}

func doctorCommand(file *string) *cobra.Command {
	var state string
	c := &cobra.Command{Use: "doctor", Short: "check this agent's configuration and surroundings; a broker that is away is one finding among others", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := readConfig(*file, stateDirGiven(state))
			if err != nil {
				return err
			}
			bad := 0
			for _, f := range examine(c.Context(), conf) {
				mark := "ok   "
				switch {
				case f.err != nil && f.mild:
					mark, f.said = "note ", f.err.Error()
				case f.err != nil:
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
	stateDirFlag(c, &state)
	return c
}

func examine(ctx context.Context, c config) []finding {
	var all []finding
	check := func(what string, said string, err error) {
		all = append(all, finding{what: what, said: said, err: err})
	}

	id, err := enrol.Inspect(enrol.Options{Dir: c.StateDir, Servers: c.Servers, Log: slog.New(slog.DiscardHandler)})
	check("identity", fmt.Sprintf("agent %s, expires %s", id.Agent, shown(id.Expires)), errors.Join(err, identityFault(c, id)))
	if id.CA != "" {
		check("CA", fmt.Sprintf("pinned %.12s", id.CA), enrol.CheckCA(c.StateDir))
	}
	check("trust", fmt.Sprintf("fleet %s, bundle version %d, pinned to roots %.12s", id.Fleet, id.Trust, id.Root), errors.Join(err, trustFault(id)))
	check("state directory", c.StateDir+" and its files are closed to others", allPrivate(c.StateDir))
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
	sessions, err := logon.System().List(ctx)
	check("users", loggedOn(sessions), explain(err, "programs that need a user, or none, logged on wait: "))
	_, err = authorities(c.ExternalCA)
	check("sources", "read outside of distribution points: "+strings.Join(slices.Sorted(maps.Keys(external(c.ExternalCA))), ", "), err)
	all = append(all, finding{what: "references", said: "are mounted for programs that have some", err: unmountable(c), mild: true})
	for _, server := range id.Servers {
		check("broker", server+" answers", reach(ctx, server))
		check("encryption", server, clearText(server, id.CA != ""))
	}
	metrics := cmp.Or(c.Metrics, daemon.DefaultListen)
	check("metrics", metrics+" is for this machine alone", openMetrics(metrics))
	return all
}

// unmountable says why programs' references cannot be offered to them: the running agent's word, which may be allowed
// less than whoever asks, or else what is found here.
func unmountable(c config) error {
	why := ""
	if s, err := agent.ReadStatus(c.StateDir); err == nil && s.PID != 0 {
		why = s.References
	} else {
		why = agent.Unmountable()
	}
	if why == "" {
		return nil
	}
	return fmt.Errorf("%s: programs that refer to external sources end as %s", why, events.NetworkMountImpossible)
}

// loggedOn says who is.
func loggedOn(sessions []logon.Session) string {
	if len(sessions) == 0 {
		return "nobody is logged on"
	}
	return "logged on: " + strings.Join(logon.Users(sessions), ", ")
}

// explain puts what follows from an error in front of it.
func explain(err error, what string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s%w", what, err)
}

// identityFault says what keeps the machine from its fleet.
func identityFault(c config, id enrol.State) error {
	// An agent that runs knows what the service said last; one that ran knew it then.
	if s, err := agent.ReadStatus(c.StateDir); err == nil && s.Identity != nil && s.Identity.Agent == id.Agent && s.Identity.Refused != "" && (s.PID != 0 || id.Phase != enrol.Enrolled) {
		id.Phase, id.Refused, id.Why = s.Identity.Phase, s.Identity.Refused, s.Identity.Why
	}
	switch id.Phase {
	case enrol.Enrolled:
		return nil
	case enrol.NotEnrolled:
		return errors.New("this machine has not enrolled: `chandler token create` makes a token, `chandler-agent enrol` takes it")
	case enrol.Pending:
		return fmt.Errorf("agent %s waits for approval: chandler agent approve %s", id.Agent, id.Agent)
	case enrol.Expired:
		return fmt.Errorf("expired %s: the running agent asks for a new one; if it is refused, its log says why", shown(id.Expires))
	}
	return fmt.Errorf("agent %s: %w", id.Agent, &enrol.RefusedError{Refused: id.Refused, Why: id.Why})
}

func trustFault(id enrol.State) error {
	if id.Trust == 0 {
		return errors.New("no trust bundle: no order is obeyed")
	}
	return nil
}

func shown(at time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return at.Local().Format(time.DateTime)
}

// allPrivate says which of the state directory and its files others may read.
func allPrivate(dir string) error {
	errs := []error{private(dir, 0o700)}
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, f := range files {
		if f.Type().IsRegular() {
			errs = append(errs, private(filepath.Join(dir, f.Name()), 0o600))
		}
	}
	return errors.Join(errs...)
}

// clearText says whether others on the way may read and change what passes. A pinned CA is always asked for.
func clearText(server string, pinned bool) error {
	u, err := url.Parse(server)
	if err != nil {
		return fmt.Errorf("broker URL: %w", err)
	}
	if pinned || u.Scheme == "tls" || u.Scheme == "wss" || loopback(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("%s is clear text beyond this machine: who sits on the way sees what is installed (and cannot change it: orders are signed); `chandler up --tls` serves TLS, and its tokens pin the CA", server)
}

// openMetrics says whether others may ask where the agent listens: it answers everybody, in clear text.
func openMetrics(listen string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("address of metrics: %w", err)
	}
	if !loopback(host) {
		return fmt.Errorf("%s is clear text beyond this machine, and answers everybody: let metrics listen on 127.0.0.1, and what collects them read them there", listen)
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
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
	switch {
	case port != "":
	case u.Scheme == "ws":
		port = "80"
	case u.Scheme == "wss":
		port = "443"
	default:
		port = "4222"
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return fmt.Errorf("%s: %w (the agent goes on with what it knows, and keeps trying)", server, err)
	}
	return conn.Close()
}
