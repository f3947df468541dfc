package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"chandler/agent"
	"chandler/agent/enrol"
)

func statusCommand(file *string) *cobra.Command {
	var output, state string
	c := &cobra.Command{Use: "status", Short: "say what this agent is and does; needs no broker", Args: cobra.NoArgs}
	c.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	stateDirFlag(c, &state)
	c.RunE = func(c *cobra.Command, _ []string) error {
		conf, err := readConfig(*file, stateDirGiven(state))
		if err != nil {
			return err
		}
		s, err := agent.ReadStatus(conf.StateDir)
		if err != nil {
			if s = enrolledStatus(conf); s.Identity == nil {
				return err
			}
		}
		if output == "json" {
			enc := json.NewEncoder(c.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(s)
		}
		return printStatus(c, s)
	}
	return c
}

// enrolledStatus is the status of a machine that has enrolled and where no agent has run; without an identity
// where that is not so.
func enrolledStatus(conf config) (s agent.Status) {
	if _, err := os.Stat(filepath.Join(conf.StateDir, "status.json")); !errors.Is(err, fs.ErrNotExist) {
		return s
	}
	id, err := enrol.Inspect(enrol.Options{Dir: conf.StateDir, Servers: conf.Servers, Log: slog.New(slog.DiscardHandler)})
	if err != nil || id.Phase == enrol.NotEnrolled {
		return s
	}
	return agent.Status{ID: id.Agent, Version: agent.Version, Fleet: id.Fleet, Servers: id.Servers, Identity: &id}
}

func printStatus(c *cobra.Command, s agent.Status) error {
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
	running := "not running"
	if s.PID != 0 {
		running = fmt.Sprintf("running as process %d", s.PID)
	}
	broker := "away"
	if s.Connected {
		broker = "connected"
	}
	fleet := s.Fleet
	if id := s.Identity; id != nil {
		fleet = fmt.Sprintf("%s, trust bundle %d", s.Fleet, id.Trust)
		said := string(id.Phase)
		if id.Refused != "" {
			said += fmt.Sprintf(" (%s: %.200q)", id.Refused, id.Why)
		}
		if !id.Expires.IsZero() {
			said += ", expires " + shown(id.Expires)
		}
		fmt.Fprintf(w, "identity\t%s\n", said)
	}
	if s.Written.IsZero() {
		fmt.Fprintf(w, "agent\t%s\nstate\tnever ran: `chandler-agent install` starts it with the machine, `chandler-agent run` here and now\nfleet\t%s\nbroker\t%v\n", s.ID, fleet, s.Servers)
		return w.Flush()
	}
	fmt.Fprintf(w, "agent\t%s (%s)\nstate\t%s, version %s\nfleet\t%s\nbroker\t%s %v\nas of\t%s\n", s.ID, s.Facts.Hostname, running, s.Version, fleet, broker, s.Servers, s.Written.Local().Format(time.DateTime))
	references := "mounted for programs"
	if s.References != "" {
		references = s.References
	}
	fmt.Fprintf(w, "outside\treads %s\nreferences\t%s\n\n", strings.Join(s.External, ", "), references)
	for _, f := range s.Freezes {
		fmt.Fprintf(w, "frozen\t%s by %s: %s\n", f.ID, f.By, f.Why)
	}
	fmt.Fprintln(w, "JOB\tDEPLOYMENT\tPROGRAM\tSTATE\tREASON\tSINCE")
	for _, j := range s.Jobs {
		fmt.Fprintf(w, "%.10s\t%s\t%s %s/%s\t%s\t%s\t%s\n", j.Job, j.Deployment, j.Package, j.Version, j.Program, j.State, j.Reason, j.At.Local().Format(time.DateTime))
	}
	return w.Flush()
}
