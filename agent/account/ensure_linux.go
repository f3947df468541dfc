package account

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

const noHome = "/nonexistent"

// exit codes of useradd
const (
	addBadArgument = 3
	addNameInUse   = 9
)

func ensure(ctx context.Context, name string, options Options) (Account, bool, error) {
	created := false
	e, err := userEntry(ctx, name)
	if errors.Is(err, ErrNotFound) {
		if created, err = addUser(ctx, name); err != nil {
			return Account{}, false, err
		}
		e, err = userEntry(ctx, name)
	}
	if err != nil {
		return Account{}, created, err
	}
	found, err := complete(ctx, e, orDefault(options.Administrators))
	var ended *Unusable // expired, as it is while no program runs by it
	if err != nil && !errors.As(err, &ended) {
		return Account{}, created, err
	}
	return found, created, ordinary(ctx, name, e, found)
}

// addUser makes the account in one step: there is no moment in which it could be used. It is not a system user, which
// useradd would make without an expiry.
func addUser(ctx context.Context, name string) (bool, error) {
	if os.Geteuid() != 0 {
		return false, &CannotMake{Name: name, Why: "the agent does not run as root"}
	}
	shell, err := program("nologin")
	if err != nil {
		shell = "/bin/false"
	}
	args := []string{
		"--no-create-home", "--home-dir", noHome, "--shell", shell, "--user-group", "--comment", Comment,
		"--expiredate", "1970-01-02", "--inactive", "-1", "-K", "PASS_MAX_DAYS=-1", "-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0", "--", name,
	}
	_, code, complaint, err := ask(ctx, "useradd", args...)
	if err == nil && code == addBadArgument { // of a name that this distribution finds odd
		_, code, complaint, err = ask(ctx, "useradd", append([]string{"--badname"}, args...)...)
	}
	switch {
	case errors.Is(err, errNoProgram):
		return false, &CannotMake{Name: name, Why: "this machine has no useradd: install it (package passwd or shadow-utils)"}
	case err != nil:
		return false, err
	case code == addNameInUse: // made by another, meanwhile; or a group has the name, and then there is no such user
		if _, err := userEntry(ctx, name); err == nil {
			return false, nil
		}
	}
	if code != 0 {
		return false, &CannotMake{Name: name, Why: fmt.Sprintf("useradd ended with %d: %s; configure another name if it is the name", code, complaint)}
	}
	return true, nil
}

// ordinary is nil if the account is what addUser makes.
func ordinary(ctx context.Context, name string, e entry, found Account) error {
	var has excess
	has.add(e.comment != Comment, "was not made by the agent, as its comment %q tells", e.comment)
	has.add(e.uid == 0, "has uid 0")
	has.add(found.Administrator && e.uid != 0, "is in an administrators' group")
	has.add(!found.Local, "is not local")
	has.add(!strings.HasSuffix(e.shell, "/nologin") && !strings.HasSuffix(e.shell, "/false"), "has the login shell %q", e.shell)
	for _, gid := range found.Groups {
		has.add(gid != e.gid, "is in group %d", gid)
	}
	if err := primaryGroup(ctx, e, &has); err != nil {
		return err
	}
	if first, err := userEntry(ctx, strconv.FormatUint(uint64(e.uid), 10)); err != nil {
		return err
	} else {
		has.add(first.name != e.name, "shares its uid with %s", first.name)
	}
	s, err := shadowOf(ctx, name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	has.add(err != nil, "has no password entry that the agent can read")
	has.add(err == nil && s.password, "has a password")
	s.expiration = -1
	if why := s.ended(time.Now()); err == nil && why != "" {
		has = append(has, why)
	}
	if rights, err := sudoRights(ctx, name); err != nil {
		return err
	} else {
		has.add(rights, "may run commands by sudo, as `sudo -l -U %s` shows", name)
	}
	return has.err(name)
}

func primaryGroup(ctx context.Context, e entry, has *excess) error {
	answer, err := database(ctx, "group", strconv.FormatUint(uint64(e.gid), 10))
	if errors.Is(err, ErrNotFound) {
		has.add(true, "has a primary group, %d, that does not exist", e.gid)
		return nil
	}
	if err != nil {
		return err
	}
	groups, err := parseGroups(answer)
	if err != nil || len(groups) != 1 {
		return fmt.Errorf("%d group entries of %d: %w", len(groups), e.gid, err)
	}
	has.add(groups[0].name != e.name, "has the primary group %s", groups[0].name)
	return nil
}

// sudoRights says whether sudo would let the account do anything. Without sudo there is nothing to have.
func sudoRights(ctx context.Context, name string) (bool, error) {
	answer, code, complaint, err := ask(ctx, "sudo", "-n", "-l", "-U", name)
	switch {
	case errors.Is(err, errNoProgram):
		return false, nil
	case err != nil:
		return false, err
	}
	has, err := parseSudoList(answer)
	if err != nil {
		return false, fmt.Errorf("%w; it ended with %d: %s", err, code, complaint)
	}
	return has, nil
}
