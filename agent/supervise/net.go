package supervise

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"chandler/agent/lending"
	"chandler/agent/netfs"
	"chandler/agent/source"
	"chandler/events/resource"
)

// Net lets the program read external sources as files while it runs, as package netfs says: below Mount, by accounts that
// the supervisor gets from the agent. It holds no secret. Linux alone can do that; elsewhere the outcome is
// NoNetworkMount.
type Net struct {
	Mount     string            `json:"mount"`     // the mount point, below the run's directory; made if need be
	Socket    string            `json:"socket"`    // where the agent lends (package lending)
	Resources []string          `json:"resources"` // addresses and patterns that the signed order names
	Pins      map[string]string `json:"pins,omitempty"`
	Identity  string            `json:"identity"` // who reads: one of package identity's words
}

// validate: a program that lies below the mount point could not be started by who serves it.
func (n *Net) validate(s Spec) error {
	switch {
	case !filepath.IsAbs(n.Mount) || filepath.Clean(n.Mount) != n.Mount || !filepath.IsAbs(n.Socket):
		return fmt.Errorf("spec: mount point %q or socket %q is not absolute", n.Mount, n.Socket)
	case isWithin(n.Mount, s.Argv[0]) || isWithin(n.Mount, s.Dir):
		return errors.New("spec: the program or its working directory lies on the mount of its references")
	}
	for _, r := range slices.Concat(n.Resources, slices.Sorted(maps.Keys(n.Pins))) {
		if _, err := resource.ParsePattern(r); err != nil {
			return fmt.Errorf("spec: a resource %w", err)
		}
	}
	return nil
}

func isWithin(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// mountNet is done before the start is on record. Secrets come into this process from here on.
func (s *supervisor) mountNet() error {
	n := s.plan.Net
	if err := os.MkdirAll(n.Mount, 0o755); err != nil {
		return fmt.Errorf("%w: %w", netfs.ErrImpossible, err)
	}
	if err := forbidDumps(); err != nil {
		return fmt.Errorf("%w: %w", netfs.ErrImpossible, err)
	}
	log := &accessLog{dir: s.dir}
	var err error
	s.net, err = netfs.Mount(netfs.Options{
		Mount: n.Mount, Dir: s.dir, Sources: s.sources, Resources: n.Resources, Pins: n.Pins, Identity: n.Identity,
		Login: lending.Dial(n.Socket, s.dir).Login, Told: log.add,
		Inside: func(pid int) bool { return ofProgram(s.tree.groupName(), pid) },
	})
	return err
}

// startProgram starts it in sight of its references.
func (s *supervisor) startProgram() error {
	if s.net == nil {
		return s.tree.start(s.cmd, s.plan.Spec, s.cmd.Start)
	}
	if err := s.tree.start(s.cmd, s.plan.Spec, func() error { return s.net.Start(s.cmd) }); err != nil {
		return err
	}
	// Again: a child that changes its user before it executes the program changes that for both.
	if err := errors.Join(forbidDumps(), forbidCores()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		s.closeNet() // it runs, but without a secret here
	}
	return nil
}

// endLeases ends those that were withdrawn.
func (s *supervisor) endLeases() {
	if s.net == nil {
		return
	}
	leases, err := s.withdrawn.next()
	if err != nil {
		fmt.Fprintf(os.Stderr, "read which leases were withdrawn: %v\n", err)
	}
	for _, lease := range leases {
		s.net.Withdraw(lease)
	}
}

// closeNet ends the mount; whoever of the program's processes is left gets errors from it.
func (s *supervisor) closeNet() {
	if s.net == nil {
		return
	}
	if err := s.net.Close(); err != nil {
		fmt.Fprintf(os.Stderr, "end the mount of references: %v\n", err)
	}
}

// Sources are what a program's references can be read from, by the scheme of an address.
type Sources = map[string]source.Source
