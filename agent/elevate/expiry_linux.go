package elevate

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"

	"chandler/events"
)

const (
	maxShadow = 16 << 20 // bytes
	shadow    = "/etc/shadow"
)

// The client token account is expired while nothing runs by it, by which sudo refuses it. Day 0 would do on Linux today;
// shadow(5) warns that some take it for never, so it is day 1. -1 is never.
const (
	endedDay = 1
	neverDay = -1
)

func expiryTools() []string { return []string{"chage"} }

// expiryAllows refuses a client token account that is missing or that somebody else has ended. One that somebody has
// brought back to life is used, and ended after the run.
func (s *sudo) expiryAllows(r record) error {
	if r.Kind != ClientToken {
		return nil
	}
	day, found, err := expiryDay(r.Account.Name)
	switch {
	case err != nil:
		return err
	case !found:
		return refuse(events.AccountUnusable, r.Account, shadow, fmt.Sprintf("account %s has no entry in %s: it is not this machine's own", r.Account.Name, shadow))
	case day == 0 || day == endedDay:
	case day > endedDay && int64(day) <= time.Now().Unix()/86400:
		return refuse(events.AccountUnusable, r.Account, r.Account.Name, fmt.Sprintf("account %s was ended by somebody else, on day %d after 1970: let it live again (chage -E 1 '%s')", r.Account.Name, day, r.Account.Name))
	default:
		s.log.Warn("the client token account was not expired while nothing ran by it; it will be after this run", "component", "elevate", "account", r.Account.Name, "job", r.Job)
	}
	return nil
}

func (s *sudo) liftExpiry(ctx context.Context, r record) (string, error) {
	if r.Kind != ClientToken {
		return "", nil
	}
	if err := s.setExpiry(ctx, r.Account.Name, neverDay); err != nil {
		return "", err
	}
	return "; account not expired meanwhile", nil
}

// endExpiry leaves alone an account that somebody has deleted.
func (s *sudo) endExpiry(ctx context.Context, r record) (string, error) {
	if r.Kind != ClientToken {
		return "", nil
	}
	day, found, err := expiryDay(r.Account.Name)
	switch {
	case err != nil:
		return "", err
	case !found:
		s.log.Warn("the client token account was deleted while it had rights", "component", "elevate", "account", r.Account.Name, "job", r.Job)
		return "; the account is deleted", nil
	case day == endedDay:
		return "; account is expired", nil
	}
	if err := s.setExpiry(ctx, r.Account.Name, endedDay); err != nil {
		return "", err
	}
	return "; account expired", nil
}

func (s *sudo) setExpiry(ctx context.Context, name string, day int) error {
	program := s.find("chage")
	if program == "" {
		return fmt.Errorf("set the expiry of account %s: chage is not on this machine", name)
	}
	if said, err := ask(ctx, nil, program, "-E", strconv.Itoa(day), "--", name); err != nil {
		return fmt.Errorf("set the expiry of account %s: %w: %s", name, err, said)
	}
	return nil
}

// expiryDay of an account of this machine, in days since 1970; found is false where there is none.
func expiryDay(name string) (day int, found bool, err error) {
	data, err := readFile(shadow, maxShadow)
	if err != nil {
		return 0, false, err
	}
	if len(data) > maxShadow {
		return 0, false, fmt.Errorf("read %s: over %d bytes", shadow, maxShadow)
	}
	defer clear(data) // hashes of passwords
	day, found, err = parseExpiry(data, name)
	if err != nil {
		return 0, false, fmt.Errorf("expiry of account %s in %s: %w", name, shadow, err)
	}
	return day, found, nil
}

func parseExpiry(data []byte, name string) (day int, found bool, err error) {
	for line := range bytes.Lines(data) {
		fields := bytes.Split(bytes.TrimSuffix(line, []byte("\n")), []byte(":"))
		if string(fields[0]) != name {
			continue
		}
		if len(fields) != 9 {
			return 0, false, fmt.Errorf("%d fields instead of 9", len(fields))
		}
		if len(fields[7]) == 0 {
			return neverDay, true, nil
		}
		day, err = strconv.Atoi(string(fields[7]))
		if err != nil {
			return 0, false, fmt.Errorf("%q is not a day", fields[7])
		}
		return day, true, nil
	}
	return 0, false, nil
}
