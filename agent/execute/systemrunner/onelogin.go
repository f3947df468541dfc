package systemrunner

import (
	"context"
	"errors"
	"fmt"

	"chandler/agent/execute"
	"chandler/agent/lease"
	"chandler/events"
	"chandler/events/resource"
)

// OneLogin asks for the account of each reference in turn, for systems where a program is one account on the network:
// they must be one and the same, in one version of its secret. Where they are not, or where a reference is not on a share, that
// is an *execute.Impossible with reason [events.NetworkMountImpossible]. An optional reference that is refused an
// account, that has another one, or that is not on a share, is left out. Where all are, there is neither lease nor error. The
// caller clears the lease.
func OneLogin(ctx context.Context, references []events.Reference, ask func(ctx context.Context, address string) (*lease.Lease, error)) (one *lease.Lease, err error) {
	defer func() {
		if err != nil && one != nil {
			one.Clear()
			one = nil
		}
	}()
	first := ""
	for _, optional := range []bool{false, true} { // what must be there has the first word
		for _, ref := range references {
			if ref.Optional != optional {
				continue
			}
			l, err := login(ctx, ref.URL, ask)
			if err != nil {
				if optional && refusedOnly(err) {
					continue
				}
				return one, err
			}
			if one == nil {
				one, first = l, ref.URL
				continue
			}
			l.Clear()
			if !optional && (l.Account != one.Account || l.Version != one.Version) {
				return one, netImpossible(events.NetworkMountImpossible, one.Account, fmt.Sprintf("on this system a program is one account on the network, and its references need two: %s is for %s (version %d), %s for %s (version %d)",
					one.Account, resource.Shown(first), one.Version, l.Account, resource.Shown(ref.URL), l.Version), nil)
			}
		}
	}
	return one, nil
}

func login(ctx context.Context, address string, ask func(ctx context.Context, address string) (*lease.Lease, error)) (*lease.Lease, error) {
	r, err := resource.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("reference: %w", err)
	}
	if r.Scheme != resource.SMB && (r.Scheme != resource.File || r.Host == "") {
		return nil, netImpossible(events.NetworkMountImpossible, "", fmt.Sprintf("on this system a program's references are on shares, and %s is not", r.Shown()), nil)
	}
	l, err := ask(ctx, address)
	if err == nil && l == nil {
		err = fmt.Errorf("no lease for %s", r.Shown())
	}
	return l, err
}

// refusedOnly says that the refusal is somebody's word, which another try would not change.
func refusedOnly(err error) bool {
	var denied *lease.Denied
	var impossible *execute.Impossible
	return errors.As(err, &denied) || errors.As(err, &impossible) && impossible.Reason != events.CredentialUnavailable
}
