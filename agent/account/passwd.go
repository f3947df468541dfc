package account

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxAnswer bounds every answer of the system, in bytes. A user may be in thousands of a domain's groups.
const maxAnswer = 256 << 10

// entry is a line of the user database.
type entry struct {
	name, comment, home, shell string
	uid, gid                   uint32
}

// parsePasswd reads exactly one line as getent prints it.
func parsePasswd(answer []byte) (entry, error) {
	fields, err := oneLine(answer, 7)
	if err != nil {
		return entry{}, fmt.Errorf("user entry: %w", err)
	}
	e := entry{name: fields[0], comment: fields[4], home: fields[5], shell: fields[6]}
	if err := checkName(e.name); err != nil {
		return entry{}, fmt.Errorf("user entry of %q: %w", e.name, err)
	}
	if e.uid, err = parseID(fields[2]); err != nil {
		return entry{}, fmt.Errorf("user entry of %q: %w", e.name, err)
	}
	if e.gid, err = parseID(fields[3]); err != nil {
		return entry{}, fmt.Errorf("user entry of %q: %w", e.name, err)
	}
	return e, nil
}

// shadow is what the system keeps of a user's password and of its end. Days are counted from 1970; -1 is never.
type shadow struct {
	name                         string
	password                     bool // that somebody could type: neither locked nor impossible
	changed, maximum, expiration int64
}

// parseShadow reads exactly one line as getent prints it.
func parseShadow(answer []byte) (shadow, error) {
	fields, err := oneLine(answer, 9)
	if err != nil {
		return shadow{}, fmt.Errorf("password entry: %w", err)
	}
	s := shadow{name: fields[0], password: !strings.HasPrefix(fields[1], "!") && !strings.HasPrefix(fields[1], "*")}
	for at, day := range map[int]*int64{2: &s.changed, 4: &s.maximum, 7: &s.expiration} {
		*day = -1
		if fields[at] == "" {
			continue
		}
		if *day, err = strconv.ParseInt(fields[at], 10, 64); err != nil {
			return shadow{}, fmt.Errorf("password entry of %q: field %d is not a number", s.name, at+1)
		}
	}
	return s, nil
}

// ended says why nobody may use the account on that day, by the rules of pam_unix, which sudo asks; "" if it may be used.
// A locked password alone ends nothing: who logs on by key has one.
func (s shadow) ended(now time.Time) string {
	today := now.Unix() / int64(24*time.Hour/time.Second)
	switch {
	case s.expiration >= 0 && today >= s.expiration:
		return "is disabled: it expired on " + time.Unix(0, 0).UTC().AddDate(0, 0, int(min(s.expiration, today))).Format(time.DateOnly)
	case s.changed == 0:
		return "must change its password before it is used"
	case s.changed > 0 && s.maximum >= 0 && today-s.changed > s.maximum:
		return "has a password that has expired"
	}
	return ""
}

// group is a line of the group database.
type group struct {
	name string
	gid  uint32
}

// parseGroups reads lines as getent prints them.
func parseGroups(answer []byte) ([]group, error) {
	if len(answer) > maxAnswer || !utf8.Valid(answer) {
		return nil, errors.New("group entries: not text, or too long")
	}
	var groups []group
	for line := range strings.Lines(string(answer)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(fields) != 4 {
			return nil, fmt.Errorf("group entry of %d fields", len(fields))
		}
		gid, err := parseID(fields[2])
		if err != nil {
			return nil, fmt.Errorf("group entry of %q: %w", fields[0], err)
		}
		groups = append(groups, group{name: fields[0], gid: gid})
	}
	return groups, nil
}

// parseIDs reads numbers between blanks, as id prints them.
func parseIDs(answer []byte) ([]uint32, error) {
	if len(answer) > maxAnswer {
		return nil, errors.New("group numbers: too long")
	}
	var ids []uint32
	for _, field := range strings.Fields(string(answer)) {
		id, err := parseID(field)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil, errors.New("no group numbers")
	}
	return ids, nil
}

// parseID refuses the number that the system calls take for "leave as it is".
func parseID(text string) (uint32, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id == 1<<32-1 {
		return 0, fmt.Errorf("%q is not the number of a user or group", text)
	}
	return uint32(id), nil
}

func oneLine(answer []byte, fields int) ([]string, error) {
	line, rest, _ := strings.Cut(string(answer), "\n")
	switch {
	case len(answer) > maxAnswer || !utf8.ValidString(line) || strings.ContainsRune(line, 0):
		return nil, errors.New("not text, or too long")
	case rest != "":
		return nil, errors.New("more than one line")
	}
	split := strings.Split(line, ":")
	if len(split) != fields {
		return nil, fmt.Errorf("%d fields instead of %d", len(split), fields)
	}
	return split, nil
}
