package elevate

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"chandler/agent/account"
	"chandler/agent/supervise"
	"chandler/events"
)

const localSystem = "S-1-5-18"

// group is the local Administrators group, by whatever name this Windows calls it.
type group interface {
	name() (string, error)
	has(sid string) (bool, error) // as a member of its own, not by another group
	add(sid string) error         // nothing changes if it is one
	remove(sid string) error      // nothing changes if it is none, or is deleted
}

// members gives rights by membership of a group. A process has them only from a logon after that.
type members struct {
	group group
	step  func(string)

	mu     sync.Mutex
	tokens map[string]func() // by the run's directory: closes the token of its logon
}

func newMembers(g group, step func(string)) *members {
	return &members{group: g, step: step, tokens: map[string]func(){}}
}

func (m *members) raisedTo() string { return "Administrators" }

func (m *members) has(who account.Account) bool { return who.SID == localSystem }

func (m *members) strays(string) ([]record, error) { return nil, nil } // a member does not tell who made it one

func (m *members) check(_ context.Context, r record, spec supervise.Spec) (giving, bool, error) {
	if r.Account.SID == "" {
		return nil, false, fmt.Errorf("account %s has no SID", r.Account.Name)
	}
	if r.Logon == nil {
		return nil, false, fmt.Errorf("nobody logs %s on", r.Account.Name)
	}
	standing := r.Account.Administrator
	if !standing {
		var err error
		if standing, err = m.group.has(r.Account.SID); err != nil {
			return nil, false, fmt.Errorf("ask who the administrators are: %w", err)
		}
	}
	give := func(ctx context.Context) (supervise.Spec, string, error) { return m.give(ctx, r, standing, spec) }
	return give, standing, nil
}

func (m *members) give(ctx context.Context, r record, standing bool, spec supervise.Spec) (supervise.Spec, string, error) {
	name, err := m.group.name()
	if err != nil {
		return spec, "", fmt.Errorf("find the group of administrators: %w", err)
	}
	means := "was a member of " + name + " before"
	if !standing {
		if err := m.group.add(r.Account.SID); err != nil {
			return spec, "", refuse(events.ElevationImpossible, r.Account, name, fmt.Sprintf("%s cannot be made a member of %s: %v", r.Account.Name, name, err))
		}
		means = "made a member of " + name
		m.step("member")
	}
	token, done, err := r.Logon(ctx)
	if err != nil {
		return spec, "", fmt.Errorf("log %s on: %w", r.Account.Name, err)
	}
	m.mu.Lock()
	m.tokens[filepath.Clean(r.Dir)] = done
	m.mu.Unlock()
	logon := supervise.Logon{Token: token}
	if spec.Logon != nil {
		logon.Visible = spec.Logon.Visible
	}
	spec.Logon = &logon
	return spec, means, nil
}

// take removes a member that was none before. Programs that run already keep the token that they began with.
func (m *members) take(_ context.Context, r record) (string, error) {
	m.mu.Lock()
	done := m.tokens[filepath.Clean(r.Dir)]
	delete(m.tokens, filepath.Clean(r.Dir))
	m.mu.Unlock()
	if done != nil {
		done()
	}
	name, err := m.group.name()
	if err != nil {
		return "", fmt.Errorf("find the group of administrators: %w", err)
	}
	if r.Standing {
		return "stays a member of " + name, nil
	}
	if err := m.group.remove(r.Account.SID); err != nil {
		return "", err
	}
	if still, err := m.group.has(r.Account.SID); err != nil {
		return "", err
	} else if still {
		return "", errors.New("it is still a member of " + name)
	}
	return "no member of " + name + " any more", nil
}
