package account

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// exit code of getent for a key that is not there
const keyNotFound = 2

func lookup(ctx context.Context, name string, administrators []string) (Account, error) {
	e, err := userEntry(ctx, name)
	if err != nil {
		return Account{}, err
	}
	if err := sameUser(ctx, name, e); err != nil {
		return Account{}, err
	}
	return complete(ctx, e, administrators)
}

func lookupUID(ctx context.Context, uid uint32, administrators []string) (Account, error) {
	e, err := userEntry(ctx, strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return Account{}, err
	}
	if e.uid != uid {
		return Account{}, fmt.Errorf("the system answers with uid %d", e.uid)
	}
	return complete(ctx, e, administrators)
}

// sameUser refuses an answer about another user than the one asked for. A domain's user may be answered by a shorter
// name, where that name is nobody else's.
func sameUser(ctx context.Context, asked string, e entry) error {
	if e.name == asked {
		return nil
	}
	if strings.EqualFold(userPart(e.name), userPart(asked)) {
		if again, err := userEntry(ctx, e.name); err == nil && again.name == e.name && again.uid == e.uid {
			return nil
		}
	}
	return fmt.Errorf("the system answers with %q, which is not the same user", e.name)
}

// complete adds what the user database does not say.
func complete(ctx context.Context, e entry, administrators []string) (Account, error) {
	found := Account{Name: e.name, UID: e.uid, GID: e.gid, Home: e.home, Shell: e.shell}
	var err error
	if found.Groups, err = groupsOf(ctx, e); err != nil {
		return Account{}, err
	}
	gids, err := groupNumbers(ctx, administrators)
	if err != nil {
		return Account{}, err
	}
	found.Administrator = e.uid == 0 || slices.ContainsFunc(found.Groups, func(gid uint32) bool { return slices.Contains(gids, gid) })
	if line, err := inFile("/etc/passwd", e.name); err == nil {
		own, err := parsePasswd(line)
		found.Local = err == nil && own.name == e.name && own.uid == e.uid // and not a domain's of the same name
	} else if !errors.Is(err, ErrNotFound) {
		return Account{}, err
	}
	s, err := shadowOf(ctx, e.name)
	if errors.Is(err, ErrNotFound) { // a domain's, or closed to this process
		return found, nil
	}
	if err != nil {
		return Account{}, err
	}
	if why := s.ended(time.Now()); why != "" {
		return found, &Unusable{Name: e.name, Why: why}
	}
	return found, nil
}

// userEntry finds a user by name or number.
func userEntry(ctx context.Context, key string) (entry, error) {
	answer, err := database(ctx, "passwd", key)
	if err != nil {
		return entry{}, err
	}
	return parsePasswd(answer)
}

func shadowOf(ctx context.Context, name string) (shadow, error) {
	answer, err := database(ctx, "shadow", name)
	if err != nil {
		return shadow{}, err
	}
	defer clear(answer)
	s, err := parseShadow(answer)
	if err == nil && s.name != name {
		return shadow{}, fmt.Errorf("the system answers with the password entry of %q", s.name)
	}
	return s, err
}

// database asks NSS. Where there is no getent, as on machines without NSS, the files are all there is.
func database(ctx context.Context, name, key string) ([]byte, error) {
	answer, code, complaint, err := ask(ctx, "getent", name, key)
	switch {
	case errors.Is(err, errNoProgram):
		return inFile("/etc/"+name, key)
	case err != nil:
		return nil, err
	case code == keyNotFound:
		return nil, ErrNotFound
	case code != 0:
		return nil, fmt.Errorf("getent %s ended with %d: %s", name, code, complaint)
	}
	return answer, nil
}

// inFile finds the line of a user or group by name, or by number where the key is one. A file that is closed to this
// process has nothing.
func inFile(path, key string) ([]byte, error) {
	const limit = 16 << 20
	file, err := os.Open(path)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil || len(content) > limit {
		return nil, errors.Join(fmt.Errorf("read %s, at most %d bytes", path, limit), err)
	}
	return lineOf(content, key)
}

func lineOf(content []byte, key string) ([]byte, error) {
	_, err := parseID(key)
	byNumber := err == nil
	for line := range bytes.Lines(content) {
		fields := bytes.SplitN(line, []byte(":"), 4)
		if string(fields[0]) == key || byNumber && len(fields) == 4 && string(fields[2]) == key {
			return line, nil
		}
	}
	return nil, ErrNotFound
}

// groupsOf is complete, the primary one included.
func groupsOf(ctx context.Context, e entry) ([]uint32, error) {
	answer, code, complaint, err := ask(ctx, "id", "-G", e.name)
	switch {
	case err != nil:
		return nil, err
	case code != 0:
		return nil, fmt.Errorf("id ended with %d: %s", code, complaint)
	}
	ids, err := parseIDs(answer)
	if err != nil {
		return nil, fmt.Errorf("groups: %w", err)
	}
	if !slices.Contains(ids, e.gid) {
		ids = append(ids, e.gid)
	}
	return ids, nil
}

// groupNumbers leaves out groups that this machine does not have.
func groupNumbers(ctx context.Context, names []string) ([]uint32, error) {
	var gids []uint32
	for _, name := range names {
		if err := checkName(name); err != nil {
			return nil, fmt.Errorf("administrators' group %q: %w", name, err)
		}
		answer, err := database(ctx, "group", name)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		groups, err := parseGroups(answer)
		if err != nil || len(groups) != 1 {
			return nil, fmt.Errorf("%d group entries of %s: %w", len(groups), name, err)
		}
		gids = append(gids, groups[0].gid)
	}
	return gids, nil
}
