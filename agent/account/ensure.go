package account

import (
	"context"
	"fmt"
	"strings"
)

// Comment is how the account that Ensure makes is told from one that somebody else made under the same name.
const Comment = "runs the programs of a legacy client for Chandler"

// Ordinary tells people what Ensure makes.
const Ordinary = "an ordinary local user by which nobody can log on"

// Options of Ensure.
type Options struct {
	Administrators []string // as for Lookup
}

// CannotMake says what this machine lacks, or answered, when the account was to be made.
type CannotMake struct{ Name, Why string }

func (c *CannotMake) Error() string { return fmt.Sprintf("make account %s: %s", c.Name, c.Why) }

// Ensure finds the account of that name, or makes it: a typical local user without any right of its own.
//
// Nobody can log on by it. On Linux it has a locked password (none at all, so there is no secret), no login shell, no
// home, a group of its own and no other, and it has expired, so that sudo refuses it until a run begins; on macOS the
// same but for the expiry, and it is hidden. On Windows it is disabled and may log on neither at the screen nor over the
// network; its password is random, kept nowhere, and another one at each logon (see LogOn), so two machines never share one.
//
// One that exists is used if it was made by Ensure and is still such a user; otherwise the error is an *Unusable that says
// everything it is or has beyond that: rights for a run, too, so that no run may be going on by it. An error that is a *CannotMake is an administrator's to mend.
func Ensure(ctx context.Context, name string, options Options) (made Account, created bool, err error) {
	if err := checkName(name); err != nil {
		return Account{}, false, &CannotMake{Name: name, Why: err.Error()}
	}
	if strings.ContainsAny(name, `\@`) {
		return Account{}, false, &CannotMake{Name: name, Why: "a local account has no domain"}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*answerLimit)
	defer cancel()
	made, created, err = ensure(ctx, name, options)
	if err != nil {
		return Account{}, created, fmt.Errorf("ensure the account of client programs: %w", err)
	}
	return made, created, nil
}

// excess is what an account is or has that one which Ensure makes does not.
type excess []string

func (e *excess) add(when bool, format string, args ...any) {
	if when {
		*e = append(*e, fmt.Sprintf(format, args...))
	}
}

func (e excess) err(name string) error {
	if len(e) == 0 {
		return nil
	}
	return &Unusable{Name: name, Why: "exists and is not the ordinary account that the agent makes: it " + strings.Join(e, "; it ") + ". Remove or mend it, or configure another name"}
}
