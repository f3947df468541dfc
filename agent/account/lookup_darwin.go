package account

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// exit code of dscl for a record that is not there
const recordNotFound = 56

func lookup(ctx context.Context, name string, administrators []string) (Account, error) {
	answer, err := record(ctx, "/Search", "/Users/"+name, "RecordName", "UniqueID", "PrimaryGroupID", "NFSHomeDirectory", "UserShell", "GeneratedUID", "AuthenticationAuthority")
	if err != nil {
		return Account{}, err
	}
	found, disabled, err := userOf(answer, name)
	if err != nil {
		return Account{}, err
	}
	if found.Groups, err = groupsOf(ctx, found); err != nil {
		return Account{}, err
	}
	found.Administrator = found.UID == 0
	for _, group := range administrators {
		if err := checkName(group); err != nil {
			return Account{}, fmt.Errorf("administrators' group %q: %w", group, err)
		}
		if answer, err := record(ctx, "/Search", "/Groups/"+group, "PrimaryGroupID"); err == nil {
			gid, err := parseID(answer.one("PrimaryGroupID"))
			if err != nil {
				return Account{}, err
			}
			found.Administrator = found.Administrator || slices.Contains(found.Groups, gid)
		}
	}
	_, err = record(ctx, ".", "/Users/"+found.Name, "UniqueID")
	found.Local = err == nil
	if disabled {
		return found, &Unusable{Name: found.Name, Why: "is disabled"}
	}
	return found, nil
}

func lookupUID(ctx context.Context, uid uint32, administrators []string) (Account, error) {
	answer, code, _, err := ask(ctx, "id", "-un", strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return Account{}, err
	}
	if code != 0 {
		return Account{}, ErrNotFound
	}
	name := strings.TrimSuffix(string(answer), "\n")
	if err := checkName(name); err != nil {
		return Account{}, fmt.Errorf("name %q: %w", name, err)
	}
	found, err := lookup(ctx, name, administrators)
	if err == nil && found.UID != uid {
		return Account{}, fmt.Errorf("the system answers with uid %d", found.UID)
	}
	return found, err
}

func record(ctx context.Context, node, path string, keys ...string) (attributes, error) {
	answer, code, complaint, err := ask(ctx, "dscl", append([]string{node, "-read", path}, keys...)...)
	switch {
	case err != nil:
		return nil, err
	case code == recordNotFound:
		return nil, ErrNotFound
	case code != 0:
		return nil, fmt.Errorf("dscl ended with %d: %s", code, complaint)
	}
	return parseRecord(answer)
}

func groupsOf(ctx context.Context, of Account) ([]uint32, error) {
	answer, code, complaint, err := ask(ctx, "id", "-G", of.Name)
	switch {
	case err != nil:
		return nil, err
	case code != 0:
		return nil, fmt.Errorf("id ended with %d: %s", code, complaint)
	}
	return parseIDs(answer)
}
