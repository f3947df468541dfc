package account

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

func ensure(ctx context.Context, name string, options Options) (Account, bool, error) {
	if os.Geteuid() != 0 {
		return Account{}, false, &CannotMake{Name: name, Why: "the agent does not run as root"}
	}
	made := false
	known, err := record(ctx, ".", "/Users/"+name, "RealName", "UniqueID")
	if errors.Is(err, ErrNotFound) {
		made, known, err = true, attributes{"RealName": {Comment}}, nil
	}
	if err != nil {
		return Account{}, false, err
	}
	var has excess
	comment := strings.Join(known["RealName"], " ")
	has.add(comment != Comment, "was not made by the agent, as its full name %q tells", comment)
	if err := has.err(name); err != nil {
		return Account{}, false, err
	}
	if known.one("UniqueID") == "" { // also what a crash left half done
		if err := addUser(ctx, name); err != nil {
			return Account{}, false, err
		}
	}
	found, err := lookup(ctx, name, orDefault(options.Administrators))
	var disabled *Unusable
	if err != nil && !errors.As(err, &disabled) {
		return Account{}, made, err
	}
	has.add(found.UID == 0, "has uid 0")
	has.add(found.Administrator, "is in an administrators' group")
	has.add(found.Shell != recordShell, "has the login shell %q", found.Shell)
	return found, made, has.err(name)
}

func addUser(ctx context.Context, name string) error {
	answer, code, complaint, err := ask(ctx, "dscl", ".", "-list", "/Users", "UniqueID")
	if err != nil || code != 0 {
		return errors.Join(fmt.Errorf("list users: dscl ended with %d: %s", code, complaint), err)
	}
	uid, err := freeUID(answer)
	if err != nil {
		return err
	}
	for _, step := range recordSteps(name, uid) {
		if _, code, complaint, err = ask(ctx, "dscl", step...); err != nil {
			return err
		}
		if code != 0 {
			return &CannotMake{Name: name, Why: fmt.Sprintf("dscl ended with %d: %s", code, complaint)}
		}
	}
	return nil
}
